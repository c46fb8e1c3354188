"""The documents: complete in both languages, true to the program, and a site that stands alone."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlparse

import click
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pages import chromium
from serving import listening

from hunyuan.cli.main import VERBS, cli, run
from hunyuan.serve.guard import SECURITY_HEADERS, Guard
from hunyuan.workbench import docs_site

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def script(name: str) -> Any:
    """A script of the project as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


doc_commands = script("doc_commands")
figures = script("figures")
reference = script("reference")

PAGES = doc_commands.pages()
COMMANDS = [one for page in PAGES for one in doc_commands.commands_of(page)]


# ---- both languages ----


def shape(path: Path) -> list[str]:
    """What both versions of a page must share: levels of headings, blocks, figures."""
    text = path.read_text(encoding="utf-8")
    found = []
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            if fenced:
                found.append(line)
        elif not fenced and (heading := re.match(r"#+ ", line)):
            found.append(heading[0])
        elif not fenced and line.startswith("!["):
            found.append("figure")
    return found


def test_every_page_is_there_in_both_languages() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    english = {name for name in names if not name.endswith(".zh.md")}
    assert {name.replace(".md", ".zh.md") for name in english} == names - english
    untitled = [page for page in PAGES if not page.read_text(encoding="utf-8").startswith("# ")]
    assert untitled == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if not page.name.endswith(".zh.md")],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_both_versions_of_a_page_have_the_same_parts(page: Path) -> None:
    assert shape(page) == shape(page.with_suffix(".zh.md"))


def test_the_figures_are_those_of_their_script(tmp_path: Path) -> None:
    figures.write(tmp_path)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text("utf-8") for path in (DOCS / "figures").iterdir()}
    assert {name: kept.get(name) for name in drawn} == drawn


# ---- commands, options, settings ----


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("hunyuan fly", "no verb 'fly'"),
        ("hunyuan info", "model is missing"),
        ("hunyuan info large small", "too many arguments"),
        ("hunyuan train recipes/sft.toml --sett a=1", "No such option"),
        ("hunyuan plan large --here --weights int3", "int3"),
        ("hunyuan data prepair x y", "no verb 'prepair'"),
    ],
)
def test_a_wrong_command_is_noticed(line: str, wrong: str) -> None:
    assert wrong in (doc_commands.complaint(line, cli) or "")


def test_commands_are_found_wherever_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ hunyuan info large   # a remark\n42\n```\n\n"
        "<!-- not run: needs the moon -->\n```sh\nhunyuan chat \\\n  moon\n```\n\n"
        "    hunyuan list\n\nalso `hunyuan plan --here` and `--memory 3G`\n",
        encoding="utf-8",
    )
    found = list(doc_commands.commands_of(page))
    assert [one.line.split() for one in found] == [
        ["hunyuan", "info", "large"],
        ["hunyuan", "chat", "moon"],
        ["hunyuan", "list"],
    ]
    assert [doc_commands.excuse(one) for one in found] == [None, "needs the moon", None]
    assert list(doc_commands.inline_of(page)) == ["hunyuan plan --here"]
    assert doc_commands.options_of(page) == {"--memory"}


def of_hunyuan(line: str) -> bool:
    return re.match(r"(\w+=\S+ )*(hunyuan|torchrun .*-m hunyuan)\b", line) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_and_option_of_a_page_exists(page: Path) -> None:
    blocks = [one.line for one in doc_commands.commands_of(page) if of_hunyuan(one.line)]
    wrong = {line: doc_commands.complaint(line, cli) for line in blocks}
    wrong |= {
        line: doc_commands.complaint(line, cli, whole=False)
        for line in doc_commands.inline_of(page)
    }
    known = {
        option
        for _, command in reference.commands()
        for one in command.params
        for option in (*one.opts, *one.secondary_opts)
    } | {"--help", "--version"}
    unknown = doc_commands.options_of(page) - known - doc_commands.FOREIGN
    assert {line: why for line, why in wrong.items() if why} == {}
    assert unknown == set()


def test_every_command_is_executed_or_excused_and_no_excuse_is_idle() -> None:
    used = set()
    for one in COMMANDS:
        for lang in ("en", "zh"):
            why = doc_commands.excuse(one, lang)
            assert why is None or why.strip(), one.line
            used.add(why)
        if doc_commands.excuse(one) is None:
            assert of_hunyuan(one.line), f"{one.page.name}: {one.line} has no reason not to be run"
    assert [e for _, e, _ in doc_commands.EXCUSES if e not in used] == []
    named = {name for why in used for name in re.findall(r"tests/\w+\.py", why or "")}
    assert [name for name in named if not (ROOT / name).is_file()] == []


def executable() -> list[str]:
    """Commands that run here, and those of `hunyuan train`, of which the recipe is only read."""
    lines = []
    for one in COMMANDS:
        why = doc_commands.excuse(one)
        if why is None:
            lines.append(one.line)
        elif "hunyuan train recipes/" in one.line:
            lines.append(f"{one.line[one.line.index('hunyuan') :]} --dry-run")
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("line", executable())
def test_a_command_of_the_documents_runs(
    line: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    code = run(shlex.split(line)[1:])
    said = capsys.readouterr()
    # 3: a plan says that it does not fit, which is an answer.
    assert code in ((0, 3) if line.startswith("hunyuan plan") else (0,)), said.err
    assert said.out or code == 3


def test_every_verb_is_documented() -> None:
    for name in ("README.md", "README.zh.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        rows = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
        assert [verb for verb in VERBS if f"`{verb}`" not in rows] == [], name
    words = {" ".join(words[1:]) for words, _ in reference.commands()} - {""}
    assert words - set(reference.CHINESE["verbs"]) == set(), "Chinese: scripts/reference.zh.toml"


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{' '.join(words)} {one.opts[0]}"
        for words, command in reference.commands()
        for one in command.params
        if isinstance(one, click.Option) and not one.help and not one.hidden
    ]
    assert silent == []


OWN_TABLES = ("parallel", "model.routing", "data.mixture")
"""Sections whose keys the pages of training explain in running text or tables of another form."""


@pytest.mark.parametrize("name", ["training.md", "training.zh.md"])
def test_every_setting_of_a_recipe_is_documented(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    known = reference.meanings(DOCS / name)
    missing = [
        f"{one.section}.{one.name}"
        for one in reference.training_settings()
        if (one.section, one.name) not in known
        and not (one.section in OWN_TABLES and f"`{one.name}`" in text)
    ]
    assert missing == []


def test_every_setting_has_a_docstring_and_a_chinese_meaning() -> None:
    training, data = reference.training_settings(), reference.data_settings()
    assert [one for one in (*training, *data) if not one.english] == []
    by_table, more = reference.chinese_of_training(), reference.CHINESE
    untold = [
        f"{one.section}.{one.name}"
        for one in training
        if (one.section, one.name) not in by_table
        and one.name not in more["training"].get(one.section, {})
    ]
    untold += [
        f"data recipe {one.section}.{one.name}"
        for one in data
        if one.name not in more["data"].get(one.section or "top", {})
    ]
    assert untold == [], "add them to scripts/reference.zh.toml"


def test_the_example_of_a_data_recipe_shows_every_key() -> None:
    text = (ROOT / "recipes" / "data.toml").read_text(encoding="utf-8")
    missing = [
        f"{one.section}.{one.name}"
        for one in reference.data_settings()
        if one.name != "benchmarks" and not re.search(rf"^(# )?{one.name} = ", text, re.MULTILINE)
    ]
    assert missing == []


def test_every_result_is_on_the_page_of_figures_with_its_origin(tmp_path: Path) -> None:
    reference.write(tmp_path)
    for name in ("measured.md", "measured.zh.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        for path in reference.RESULTS.glob("*.json"):
            part = text.split(f"\n## {path.stem}\n")[1].split("\n## ")[0]
            data = json.loads(path.read_text(encoding="utf-8"))
            if "command" in data:
                assert data["command"] in part
            assert part.count("\n| ") > 6, path.name


# ---- the built site ----


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a dead link or anchor is an error."""
    for module in ("mkdocs", "material", "mkdocs_static_i18n", "jieba"):
        pytest.importorskip(module, reason="the site is built with the extra `site`")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "--quiet", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "HOME": str(out.parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Links(HTMLParser):
    """What a page refers to, its anchors, and what a strict content policy would refuse."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.refused: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] or "" for name in ("id", "name") if name in given}
        target = given.get("href") or given.get("src")
        if target is not None:
            (self.links if tag == "a" else self.loaded).append(target)
        data = given.get("type", "").endswith("json") if tag == "script" else False
        inline = tag == "style" or (tag == "script" and "src" not in given and not data)
        events = [name for name in given if name == "style" or name.startswith("on")]
        if inline or events:
            self.refused.append(f"{tag} {events}")


def dead_links(folder: Path) -> list[str]:
    """Every reference inside a folder of HTML pages that leads nowhere."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        here = f"http://site/docs/{path.relative_to(folder).as_posix()}"
        for link in (*page.links, *page.loaded):
            whole = urlparse(urljoin(here, link))
            if whole.netloc != "site":
                continue
            # Served below an address of its own: a link from the root leaves the site.
            file = folder / unquote(whole.path.removeprefix("/docs/")).lstrip("/")
            file = file / "index.html" if file.is_dir() else file
            anchor = unquote(whole.fragment)
            known = pages[file].anchors if file in pages else set()
            outside = not whole.path.startswith("/docs/")
            if outside or not file.is_file() or (anchor and file in pages and anchor not in known):
                dead.append(f"{path.relative_to(folder)}: {link}")
    return dead


def test_dead_links_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<h1 id="a"></h1><a href="#a"></a><a href="#b"></a><a href="c/"></a>'
        '<img src="d.svg"><a href="/"></a>'
    )
    assert dead_links(tmp_path) == [f"index.html: {link}" for link in ("#b", "c/", "/", "d.svg")]


def test_the_site_has_no_dead_links(site: Path) -> None:
    assert dead_links(site) == []


def test_every_page_is_on_the_site_in_both_languages(site: Path) -> None:
    for page in (*PAGES, *(DOCS / "reference").glob("*.md")):
        if DOCS not in page.parents:
            continue
        name = page.relative_to(DOCS).as_posix()
        folder = site / "zh" if name.endswith(".zh.md") else site
        stem = re.sub(r"(index|README)$", "", name.removesuffix(".md").removesuffix(".zh"))
        assert (folder / stem / "index.html").is_file(), name


def test_the_site_asks_nobody_and_needs_no_exception_from_the_policy(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Links(path.read_text(encoding="utf-8"))
        assert page.refused == [], path
        assert [one for one in page.loaded if urlparse(one).netloc] == [], path
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", text) == [], path


def test_chinese_words_are_in_the_index_as_words(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    chinese = [one for one in index["docs"] if one["location"].startswith("zh/")]
    english = [one for one in index["docs"] if not one["location"].startswith("zh/")]
    assert {one["location"] for one in english if "#" not in one["location"]} == {
        one["location"].removeprefix("zh/") for one in chinese if "#" not in one["location"]
    }
    words = {
        word
        for one in chinese
        for word in re.split(index["config"]["separator"], re.sub("<[^>]+>", " ", one["text"]))
    }
    assert {"词元", "专家", "路由器", "随机补偿", "检查点", "困惑度", "适配器"} <= words
    assert {"recycle", "checkpoint"} <= {w for one in english for w in one["text"].split()}


# ---- the site from the server ----


def app_of_docs(folder: Path | None) -> FastAPI:
    app = FastAPI(docs_url=None)
    app.include_router(docs_site.docs_router(folder))
    app.add_middleware(Guard, address="127.0.0.1", api_key="secret")
    return app


def test_without_a_built_site_the_page_says_how_to_build_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(docs_site, "PACKAGED", tmp_path / "none")
    monkeypatch.setattr(docs_site, "BUILT", tmp_path / "built")
    with TestClient(app_of_docs(None), base_url="http://127.0.0.1") as http:
        for path, language, said in (
            ("/docs", "en", "In the folder of the project run"),
            ("/docs/", "zh-CN", "请在项目目录中运行"),
            ("/docs/zh/", "en", "请在项目目录中运行"),
        ):
            page = http.get(path, headers={"Accept-Language": language})
            assert (page.status_code, said in page.text) == (404, True)
            assert "make docs" in page.text
        assert http.get("/docs/other/").status_code == 404
        # Built while the server runs.
        (tmp_path / "built" / "zh").mkdir(parents=True)
        (tmp_path / "built" / "index.html").write_text("built")
        assert http.get("/docs/").text == "built"


def test_the_site_is_served_without_a_key_and_nothing_beside_it(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "jobs").mkdir(parents=True)
    (site / "index.html").write_text("first")
    (site / "jobs" / "index.html").write_text("jobs")
    (tmp_path / "secret.txt").write_text("secret")
    with TestClient(app_of_docs(site), base_url="http://127.0.0.1") as http:
        assert http.get("/docs").text == "first"
        assert http.get("/docs/jobs").text == "jobs"
        policy = http.get("/docs/jobs/").headers["Content-Security-Policy"]
        assert policy == SECURITY_HEADERS["Content-Security-Policy"]
        for path in ("../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "/etc/hostname"):
            answer = http.get(f"/docs/{path}")
            assert answer.status_code in (401, 404), path
            assert "secret" not in answer.text or answer.status_code == 401
        assert http.get("/docsother").status_code == 401


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with listening(app_of_docs(site)) as found:
        yield found


@pytest.mark.browser
@pytest.mark.parametrize(
    ("path", "words", "expected"),
    [
        ("/docs/zh/", "随机补偿", "/docs/zh/"),
        ("/docs/zh/", "词元", "/docs/zh/"),
        ("/docs/", "recycle", "/docs/architecture/"),
    ],
)
def test_search_finds_words_in_a_browser_without_a_network(
    address: str, path: str, words: str, expected: str
) -> None:
    executable = chromium()
    from playwright.sync_api import expect, sync_playwright

    asked: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address + path)
        # Until the index is there the theme says so, and what is typed is not looked for.
        begun = page.locator(".md-search-result__meta")
        expect(begun).not_to_have_text(re.compile("Initializing|初始化"), timeout=20_000)
        page.locator("input.md-search__input").click()
        page.keyboard.type(words)
        # As an input method does; the theme listens to keys.
        page.keyboard.press("End")
        results = page.locator("a.md-search-result__link")
        expect(results).not_to_have_count(0, timeout=20_000)
        found = [results.nth(i).get_attribute("href") or "" for i in range(results.count())]
        marked = page.locator(".md-search-result mark").all_text_contents()
        browser.close()
    assert any(expected in one for one in found), found
    assert words in "".join(marked)
    assert complaints == []
    assert [one for one in asked if not one.startswith((address, "data:"))] == []
