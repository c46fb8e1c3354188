"""What strangers meet: bug reports, shared results, plug-ins, licences, community documents."""

import getpass
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hunyuan import plugins
from hunyuan.catalogue.store import installed
from hunyuan.cli import bug_report
from hunyuan.cli.chat_tools import run_tool, tools_of_plugins
from hunyuan.cli.main import run
from hunyuan.cli.share import share
from hunyuan.errors import BadDataError, UsageError
from hunyuan.evaluate import run_folder, suites
from hunyuan.evaluate.run_folder import EvaluationRun, Score
from hunyuan.evaluate.shared import problems, read_rows, rows_of, to_json
from hunyuan.knowledge.document import kind_of
from hunyuan.knowledge.reading import read_document
from hunyuan.redact import gives_away, without_private

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "plugins"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------ bug reports


def test_a_report_holds_what_is_needed_and_nothing_private(tmp_path: Path) -> None:
    home = tmp_path / "somebody"
    home.mkdir()
    secrets = {
        "OPENAI_API_KEY": "plain-words-as-a-key",
        "HUNYUAN_API_KEY": "another-plain-key",
        "DATABASE_URL": "postgresql://me:pass-word@db/x",
    }
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "HUNYUAN"))}
    done = subprocess.run(
        [sys.executable, "-m", "hunyuan", "doctor", "--report"],
        capture_output=True,
        text=True,
        env={**clean, **secrets, "HOME": str(home), "LOGNAME": "xiaoming", "HUNYUAN_LANG": "en"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert text.startswith("```text\n")
    assert text.endswith("\n```\n")
    for wanted in ("hunyuan ", "python ", "system ", "processor ", "torch ", "kernels ", "models "):
        assert re.search(rf"^{wanted}", text, re.MULTILINE), wanted
    assert re.search(r"^check model +ok$", text, re.MULTILINE)
    assert "HUNYUAN_API_KEY" in text  # that it is set matters, its value does not
    for private in (*secrets.values(), str(home), "somebody", "xiaoming", "pass-word"):
        assert private not in text, private


def test_private_things_are_taken_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "wang"))
    monkeypatch.setenv("LOGNAME", "wangwei")
    monkeypatch.setenv("MY_TOKEN", "correct horse")
    assert getpass.getuser() == "wangwei"
    before = (
        f"{tmp_path}/wang/models/a.gguf /home/li/b C:\\Users\\zhao\\c wangwei wangweiming "
        "correct horse http://me:pw12@host/x Bearer abcdefgh1234 hf_abcdefgh12 ?api_key=q1w2"
    )
    after = without_private(before)
    assert after.startswith("~/models/a.gguf ~/b ~\\c USER wangweiming [removed] ")
    for private in ("correct horse", "pw12", "abcdefgh1234", "hf_abcdefgh12", "q1w2", "zhao"):
        assert private not in after
    assert gives_away(before)
    assert not gives_away(after)
    assert not gives_away("hunyuan eval wangwei gsm8k")  # the same on every machine
    assert f"{tmp_path}/wanger" in without_private(f"{tmp_path}/wanger")


def test_the_last_internal_error_is_kept_without_its_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HUNYUAN_HOME", str(tmp_path))
    assert bug_report.kept_error() is None

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the prompt was: my diary")

    monkeypatch.setattr("hunyuan.cli.info.info.callback", fails)
    assert run(["info", "large"]) == 1
    assert "my diary" in capsys.readouterr().err
    kept = bug_report.kept_error()
    assert kept is not None
    assert (kept["kind"], kept["verb"]) == ("RuntimeError", "info")
    assert any(place.startswith("hunyuan/cli/main.py:") for place in kept["places"])
    written = (tmp_path / "last-error.json").read_text()
    assert "diary" not in written
    assert "large" not in written
    assert str(ROOT) not in written


def test_an_error_is_told_even_where_it_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("HUNYUAN_HOME", str(blocked))
    bug_report.keep_error(RuntimeError("x"), ["info"])
    assert bug_report.kept_error() is None


# ------------------------------------------------------------------ shared results


@pytest.fixture
def finished(tmp_path: Path) -> EvaluationRun:
    """A folder as `hunyuan eval` writes it, by its own writer."""
    evaluation = EvaluationRun(tmp_path / "run")
    evaluation.begin(
        {
            "model": {"backend": "hunyuan", "name": "m.gguf", "sha256": "ab" * 32, "dtype": "auto"},
            "plan": {"chat": True},
            "data": {"openai/gsm8k": {"licence": "MIT", "splits": {"main": {"test": {}}}}},
            "command": "hunyuan --traceback eval /home/li/m.gguf gsm8k --data /home/li/bench",
            "started": 1_700_000_000.0,
            "version": "0.1.0",
            "commit": "83194bc",
            "packages": {"lm_eval": "0.4.13"},
        }
    )
    task = suites.benchmarks()["gsm8k"]
    evaluation.finish(
        run_folder.Result(
            benchmark="gsm8k",
            metric=task.metric,
            shots=4,
            score=Score(value=0.25, stderr=0.043, items=101),
            parts={},
            version="3.0",
            of=1319,
            truncated=0,
        ),
        [],
    )
    return evaluation


@pytest.fixture
def row(finished: EvaluationRun, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (found,) = rows_of(finished)
    return asdict(found)


def test_a_row_says_what_is_needed_to_run_it_again(row: dict[str, Any]) -> None:
    assert problems(row) == []
    assert row["command"] == "hunyuan eval ~/m.gguf gsm8k --data ~/bench"
    assert row["model_sha256"] == "ab" * 32
    assert re.fullmatch("sha256:[0-9a-f]{64}", row["data"])
    assert (row["score"], row["items"], row["of"], row["shots"]) == (0.25, 101, 1319, 4)
    assert (row["chat"], row["date"], row["commit"]) == (True, "2023-11-14", "83194bc")


def test_the_hash_of_the_data_changes_with_the_data(finished: EvaluationRun) -> None:
    (before,) = rows_of(finished)
    path = finished.folder / "run.json"
    described = json.loads(path.read_text())
    described["data"]["openai/gsm8k"]["splits"]["main"]["test"] = {"sha256": "00"}
    path.write_text(json.dumps(described))
    (after,) = rows_of(finished)
    assert before.data != after.data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_sha256": "AB" * 32}, "64 hexadecimal digits"),
        ({"model_sha256": "ab"}, "64 hexadecimal digits"),
        ({"model_sha256": None}, "must be a text"),
        ({"hunyuan": "newest"}, "a version such as"),
        ({"commit": "main"}, "7 to 40 hexadecimal digits"),
        ({"command": ""}, "has 0 characters"),
        ({"command": "python mine.py"}, "must be the whole command"),
        ({"command": "hunyuan eval 'open"}, "must be the whole command"),
        ({"command": "hunyuan eval /home/li/m.gguf gsm8k"}, "names a home folder"),
        ({"score": 25.0}, "must be between 0 and 1; 0.25?"),
        ({"score": -0.1}, "must be between 0 and 1"),
        ({"score": float("nan")}, "must be finite"),
        ({"score": True}, "must be a number"),
        ({"score": "0.25"}, "must be a number"),
        ({"stderr": 0.2}, "must be between 0 and 0.0500 for 101 items"),
        ({"stderr": None}, "is missing for 101 items"),
        ({"items": 1320}, "more than the 1319"),
        ({"items": 2000, "of": 2000, "stderr": 0.001}, "gsm8k has 1319 items"),
        ({"items": 0}, "must be at least 1"),
        ({"items": 101.0}, "must be a whole number"),
        ({"of": 200, "data": "hub"}, "the hub's gsm8k has 1319 items"),
        ({"data": "made"}, "must be hub or sha256"),
        ({"data": "sha256:12"}, "must be hub, made"),
        ({"benchmark": "gsm8"}, "is unknown; one of gsm8k"),
        ({"metric": "acc,none"}, "gsm8k is counted by"),
        ({"chat": "yes"}, "must be true or false"),
        ({"date": "2999-01-01"}, "not in the future"),
        ({"date": "14.11.2023"}, "must be a day"),
        ({"format": 2}, "reads format 1"),
        ({"scores": 1}, "is no field of a row; did you mean score?"),
    ],
)
def test_a_wrong_row_is_refused_with_the_reason(
    row: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    found = problems({**row, **change})
    assert any(said in problem.en for problem in found), found
    assert all(re.search("[\u4e00-\u9fff]", problem.zh) for problem in found)


def test_every_missing_field_is_named(row: dict[str, Any]) -> None:
    for name in row:
        (problem,) = problems({k: v for k, v in row.items() if k != name})
        assert problem.en.startswith(f"{name}: is missing")


def shared(*arguments: object) -> Result:
    return CliRunner().invoke(share, [str(each) for each in arguments])


def test_share_writes_what_its_check_accepts(finished: EvaluationRun, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    assert shared(finished.folder, "-o", out).exit_code == 0
    checked = shared("--check", out)
    assert checked.exit_code == 0, checked.output
    assert "rows checked: 1, all valid" in checked.output
    twice = shared("--check", out, out)
    assert isinstance(twice.exception, BadDataError)
    assert "the same run is there already" in twice.output
    rows = json.loads(out.read_text())
    rows[0]["score"] = 7
    out.write_text(json.dumps(rows))
    wrong = shared("--check", out)
    assert f"{out} row 1: score=7: must be between 0 and 1; 0.07?" in wrong.output
    assert isinstance(wrong.exception, BadDataError)


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]", "[" * 100_000, "\xff"])
def test_what_is_no_array_of_rows_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BadDataError, match=r"rows\.json"):
        read_rows(path)


def test_share_refuses_folders_it_can_say_nothing_of(
    finished: EvaluationRun, tmp_path: Path
) -> None:
    assert "holds no finished evaluation" in str(shared(tmp_path).exception)
    path = finished.folder / "run.json"
    described = json.loads(path.read_text())
    described["model"] = {"backend": "server", "name": "m", "url": "http://127.0.0.1:1/v1"}
    path.write_text(json.dumps(described))
    with pytest.raises(UsageError, match="have no hash"):
        rows_of(finished)


def test_the_community_table_is_what_the_rows_say() -> None:
    table = script("community_table")
    rows = table.checked_rows(table.ROWS)
    assert rows
    for lang, path in table.PAGES.items():
        text = path.read_text(encoding="utf-8")
        assert text == table.TEXTS[lang].format(table=table.table(rows, lang))
        assert all(row["command"] in text for row in rows)


def test_a_wrong_row_never_enters_the_table(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{**row, "model_sha256": "?"}]))
    with pytest.raises(SystemExit, match=r"a\.json row 1: model_sha256"):
        script("community_table").checked_rows(tmp_path)


def test_the_document_of_the_format_names_every_field(finished: EvaluationRun) -> None:
    (found,) = rows_of(finished)
    for page in ("results.md", "results.zh.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for name in asdict(found):
            assert f"`{name}`" in text, (page, name)
    assert json.loads(to_json([found])) == [asdict(found)]


# ------------------------------------------------------------------ plug-ins


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, installed by pip into a folder of their own, as a user would."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for example in sorted(EXAMPLES.iterdir()):
        if not (example / "pyproject.toml").exists():
            continue
        copy = source / example.name
        copy.mkdir()
        for path in example.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                to = copy / path.relative_to(example)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(path.read_bytes())
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
                *("--no-build-isolation", "--target", str(target), str(copy)),
            ],
            check=True,
            capture_output=True,
        )
    return target


def forget_suites() -> None:
    for cached in (suites.benchmarks, suites.suites, suites._added):
        cached.cache_clear()


@pytest.fixture
def with_plugins(monkeypatch: pytest.MonkeyPatch, site: Path) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(site))
    forget_suites()
    yield
    forget_suites()


def package(folder: Path, name: str, group: str, entry: str, **files: str) -> None:
    """A package as pip leaves it; files are named ``init_py`` for ``init.py``."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(files.pop("init", ""))
    for file, text in files.items():
        (folder / name / file.replace("_", ".")).write_text(text)


SUBTITLES = (
    "1\n00:00:01,000 --> 00:00:02,500\n<i>The whale sleeps at noon.</i>\n\n"
    "2\n00:00:03,000 --> 00:00:04,000\n鲸鱼在中午睡觉。\n"
)


def test_without_the_plugin_its_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ending in \.srt are not read"):
        kind_of("film.srt")
    assert "capitals" not in suites.benchmarks()


@pytest.mark.usefixtures("with_plugins")
def test_the_example_reader_reads_subtitles_in_the_limited_process(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_text(SUBTITLES, encoding="utf-8")
    assert kind_of("Film.SRT") == "plugin"
    (page,) = read_document(path, "Film.SRT", "plugin")
    assert page.text == "The whale sleeps at noon.\n\n鲸鱼在中午睡觉。"
    path.write_text("no subtitles")
    with pytest.raises(BadDataError) as told:
        list(read_document(path, "film.srt", "plugin"))
    assert "film.srt: the plug-in that reads .srt failed on it (ValueError" in told.value.en
    assert "插件" in told.value.zh


@pytest.mark.usefixtures("with_plugins")
def test_a_broken_reader_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "badreader", plugins.READERS, "xyz = badreader:read", init="import nowhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "a.xyz"
    path.write_text("x")
    with pytest.raises(BadDataError, match=r"plug-in xyz \(badreader 1.0\).*nowhere"):
        list(read_document(path, "a.xyz", kind_of("a.xyz")))
    path.write_text(SUBTITLES, encoding="utf-8")
    assert list(read_document(path, "a.srt", kind_of("a.srt")))  # the others still work


def test_a_reader_of_a_plugin_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    init = (
        "from pathlib import Path\n"
        f"def read(path):\n    Path({str(out)!r}).write_text('x')\n    yield 'y'\n"
    )
    package(tmp_path, "writes", plugins.READERS, "wri = writes:read", init=init)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "a.wri"
    path.write_text("x")
    with pytest.raises(BadDataError, match=r"a\.wri"):
        list(read_document(path, "a.wri", kind_of("a.wri")))
    assert not out.exists() or out.stat().st_size == 0


@pytest.mark.usefixtures("with_plugins")
def test_the_example_benchmark_is_chosen_and_its_items_are_loaded() -> None:
    pytest.importorskip("lm_eval")
    from hunyuan.evaluate.run import _load

    (task,), _, chat = suites.chosen(["geography"])
    assert (task.name, task.title, chat) == ("capitals", "Capitals", False)
    assert task == suites.chosen(["capitals"])[0][0]
    loaded = _load(task, 0, None, {"count": len})
    docs = list(loaded["tasks"]["capitals"].eval_docs)
    assert len(docs) == 20
    assert {
        "country": "China",
        "choices": [" Beijing", " Shanghai", " Shenzhen", " Chengdu"],
    } in docs


@pytest.mark.usefixtures("with_plugins")
@pytest.mark.parametrize(
    ("entry", "files", "said"),
    [
        ("bad = badtasks", {}, "no suites.toml"),
        ("bad = nowhere_at_all", {}, "no package nowhere_at_all"),
        ("bad = badtasks", {"suites_toml": "[benchmark"}, "suites.toml: "),
        ("bad = badtasks", {"suites_toml": "[benchmark.x]\ntitel = 'X'\n"}, "titel"),
        (
            "bad = badtasks",
            {
                "suites_toml": "[benchmark.gsm8k]\ntitle='x'\nharness='x'\nmetric='acc,none'\n"
                "shots=0\nlanguage='en'\n"
            },
            "'gsm8k' is a benchmark or suite of this project",
        ),
        (
            "bad = badtasks",
            {"suites_toml": "[suite.x]\nen='x'\nzh='x'\nbenchmarks=['nowhere']\n"},
            "unknown benchmark 'nowhere'",
        ),
    ],
)
def test_a_broken_package_of_tasks_is_named_and_stops_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, files: dict[str, str], said: str
) -> None:
    package(tmp_path, "badtasks", plugins.TASKS, entry, **files)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_suites()
    with pytest.warns(UserWarning, match="badtasks 1.0") as told:
        names = suites.benchmarks()
    assert said in str(told[0].message)
    assert {"capitals", "gsm8k"} <= names.keys()


def test_doctor_lists_plugins_and_names_a_broken_one(site: Path, tmp_path: Path) -> None:
    package(tmp_path, "badreader", plugins.READERS, "xyz = badreader:read", init="import nowhere")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{site}{os.pathsep}{tmp_path}",
        "HUNYUAN_LANG": "en",
    }
    done = subprocess.run(
        [sys.executable, "-m", "hunyuan", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    told = json.loads(done.stdout)
    assert "hunyuan.readers srt (hunyuan-srt 0.1.0)" in told["plugins"]
    assert "hunyuan.tasks capitals (hunyuan-capitals 0.1.0)" in told["plugins"]
    assert "hunyuan.tools days_between (hunyuan-days 0.1.0)" in told["plugins"]
    problem = told["checks"]["plugin hunyuan.readers xyz (badreader 1.0)"]
    assert "nowhere" in problem
    assert done.returncode == 1
    assert "badreader" in done.stderr


@pytest.mark.usefixtures("with_plugins")
def test_the_example_tool_is_offered_and_runs() -> None:
    tools = tools_of_plugins()
    assert list(tools) == ["days_between"]
    dates = '{"start": "2024-02-10", "end": "2025-01-29"}'
    assert run_tool(tools, "days_between", dates) == "354 days"
    for arguments in ('{"start": "2024-02-30", "end": "2025-01-29"}', '{"begin": 1}', "{", "[]"):
        assert run_tool(tools, "days_between", arguments).startswith("error: ")
    assert "no tool weather; there are days_between" in run_tool(tools, "weather", "{}")


def test_without_a_tool_or_with_a_broken_one_no_chat_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no plug-in brings a tool"):
        tools_of_plugins()
    package(tmp_path, "badtool", plugins.TOOLS, "bad = badtool:x", init="x = 3")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"plug-in bad \(badtool 1\.0\).*is no hunyuan"):
        tools_of_plugins()


@pytest.mark.weights
def test_a_real_model_calls_the_example_tool(site: Path) -> None:
    """The number on the screen is the tool's."""
    name = "qwen2.5-coder-0.5b-instruct"
    if name not in {model.entry.name for model in installed()}:
        pytest.skip(f"{name} is not pulled: hunyuan pull {name}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hunyuan", "chat", name, "--tools"),
            *("--temperature", "0", "--max-tokens", "80", "--context", "2048"),
        ],
        input="How many days are there between 2024-02-10 and 2025-01-29?\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(site), "HUNYUAN_LANG": "en"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (call,) = re.findall(r"\[days_between (\{.*?\}) -> (.*?)\]", done.stdout, re.DOTALL)
    assert json.loads(call[0]) == {"start": "2024-02-10", "end": "2025-01-29"}
    assert call[1] == "354 days"
    last = done.stdout.rpartition("]")[2]
    assert "354" in last  # the model was told


# ------------------------------------------------------------------ licences


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    return script("licences")


def test_every_licence_of_what_is_needed_is_allowed_or_reviewed(licences: ModuleType) -> None:
    rules = licences.rules()
    found = [*licences.python_components(rules.spelled), *licences.page_components()]
    names = {component.name for component in found}
    assert {"torch", "numpy", "fastapi", "katex"} <= names
    assert not {"pytest", "ruff", "mypy"} & names  # tools of development are not shipped or needed
    assert [p for component in found if (p := rules.problem(component))] == []
    for name, review in rules.reviewed.items():
        assert len(review["reason"]) > 20, name


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("MIT AND GPL-2.0-only", False),
        ("GPL-2.0-only OR MIT", True),
        ("MIT OR GPL-2.0-only AND BSD-3-Clause", True),
        ("(MIT OR GPL-2.0-only) AND AGPL-3.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR GPL-3.0-only)", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("", False),
        ("Proprietary", False),
    ],
)
def test_expressions_are_read_as_spdx_says(
    licences: ModuleType, expression: str, allowed: bool
) -> None:
    assert licences.allows(expression, licences.rules().allowed) is allowed


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("License-Expression: AGPL-3.0-only", "AGPL-3.0-only is not allowed"),
        ("Classifier: License :: OSI Approved :: GNU General Public License (GPL)", "not allowed"),
        ("License: Free for research", "Free for research is not allowed"),
        ("License: UNKNOWN", "states no licence"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License", None),
        ("Summary: x", "states no licence"),
        ("License: MIT", None),
    ],
)
def test_an_installed_package_with_another_licence_is_found(
    licences: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metadata: str,
    said: str | None,
) -> None:
    info = tmp_path / "somepackage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: somepackage\nVersion: 1.0\n{metadata}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rules = licences.rules()
    found = distribution("somepackage")
    component = licences.Component(
        "pypi", "somepackage", "1.0", licences.licence_of(found, rules.spelled)
    )
    problem = rules.problem(component)
    assert problem is None if said is None else said in str(problem)


def test_the_bill_of_materials_names_each_package_once_with_what_it_needs(
    licences: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "bom.json"
    subprocess.run([sys.executable, licences.__file__, "-o", str(out)], check=True)
    bom = json.loads(out.read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    root = bom["metadata"]["component"]
    assert root["name"] == "hunyuan"
    refs = [component["bom-ref"] for component in bom["components"]]
    assert len(refs) == len(set(refs))
    assert all(component["licenses"] for component in bom["components"])
    needs = {each["ref"]: each["dependsOn"] for each in bom["dependencies"]}
    assert needs.keys() == {*refs, root["bom-ref"]}
    assert {each for on in needs.values() for each in on} <= {*refs, root["bom-ref"]}
    direct = {ref.rpartition("/")[2].partition("@")[0] for ref in needs[root["bom-ref"]]}
    assert {"torch", "tokenizers", "katex"} <= direct


# ------------------------------------------------------------------ documents


PAGES = (
    *("CONTRIBUTING", "CODE_OF_CONDUCT", "SECURITY", "GOVERNANCE", "CHANGELOG"),
    *(
        "docs/results",
        "docs/community",
        "docs/plugins",
        "docs/decisions/README",
        "examples/plugins/README",
    ),
    *(
        f"docs/decisions/{path.name.removesuffix('.md')}"
        for path in sorted((ROOT / "docs" / "decisions").glob("0*.md"))
        if not path.name.endswith(".zh.md")
    ),
)


@pytest.mark.parametrize("page", PAGES)
def test_documents_stand_in_both_languages_with_links_that_lead_somewhere(page: str) -> None:
    texts = [ROOT / f"{page}.md", ROOT / f"{page}.zh.md"]
    english, chinese = (path.read_text(encoding="utf-8") for path in texts)
    assert len(re.findall("[\u4e00-\u9fff]", chinese)) > 40
    for level in ("# ", "## "):
        heads = [len(re.findall(f"^{level}", text, re.MULTILINE)) for text in (english, chinese)]
        assert heads[0] == heads[1], level
    blocks = [re.findall(r"^\$ (.*)$", text, re.MULTILINE) for text in (english, chinese)]
    commands = [[line.partition("  #")[0].strip() for line in found] for found in blocks]
    assert commands[0] == commands[1]
    for path in texts:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert target.startswith("http") or (path.parent / target).exists(), (path, target)


def test_there_are_six_decisions_and_the_list_names_them() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("0*.md"))
    assert len(names) >= 12
    for name in names:
        index = "README.zh.md" if name.endswith(".zh.md") else "README.md"
        assert f"]({name})" in (ROOT / "docs" / "decisions" / index).read_text(encoding="utf-8")


def test_issue_forms_are_what_the_hub_reads() -> None:
    yaml = pytest.importorskip("yaml")
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    names = {path.name for path in forms}
    assert names == {
        "config.yml",
        *(f"{kind}{lang}.yml" for kind in ("bug", "feature", "result") for lang in ("", ".zh")),
    }
    shapes: dict[str, list[tuple[str, str, bool]]] = {}
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name == "config.yml":
            assert form["blank_issues_enabled"] is False
            continue
        assert {"name", "description", "body"} <= form.keys()
        asked = [part for part in form["body"] if part["type"] != "markdown"]
        ids = [part["id"] for part in asked]
        assert len(ids) == len(set(ids))
        shapes[path.name] = [
            (part["type"], part["id"], part.get("validations", {}).get("required", False))
            for part in asked
        ]
    for kind in ("bug", "feature", "result"):
        assert shapes[f"{kind}.yml"] == shapes[f"{kind}.zh.yml"]
    assert ("textarea", "report", True) in shapes["bug.yml"]
    assert "hunyuan doctor --report" in (forms[0].parent / "bug.yml").read_text(encoding="utf-8")
