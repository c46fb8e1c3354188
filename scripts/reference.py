"""Write the generated pages of the documentation: commands, recipes, what was measured.

    python scripts/reference.py [FOLDER]

MkDocs calls it before every build (``hooks``); the pages are not kept in the repository, so they
cannot be older than the code. English meanings of settings are their docstrings; Chinese ones stand
in the tables of ``docs/training.zh.md`` and in ``scripts/reference.zh.toml``.
"""

import ast
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from statistics import median
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

import click

sys.path.insert(0, str(Path(__file__).parent))
from doc_commands import commands_of, excuse, pages

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CHINESE = tomllib.loads(Path(__file__).with_suffix(".zh.toml").read_text(encoding="utf-8"))
LANGUAGES = ("en", "zh")
WIDTH = 92
MOST_ROWS = 16
"""Rows of a table in a result file that are shown; the file has the rest."""


class Setting(NamedTuple):
    """One key of a recipe."""

    section: str
    """Its section, such as ``model.routing``; empty for the keys without one."""

    name: str
    default: str
    english: str


def on_pre_build(**_: Any) -> None:
    """Called by MkDocs."""
    write(ROOT / "docs" / "reference")


def write(folder: Path) -> None:
    """Write all pages in both languages, leaving those untouched that would not change."""
    folder.mkdir(parents=True, exist_ok=True)
    for lang in LANGUAGES:
        for name, text in (
            ("commands", commands_page(lang)),
            ("recipes", recipes_page(lang)),
            ("data-recipes", data_recipes_page(lang)),
            ("measured", measured_page(lang)),
            ("limits", limits_page(lang)),
            ("tested", tested_page(lang)),
        ):
            path = folder / (f"{name}.md" if lang == "en" else f"{name}.zh.md")
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")


def commands() -> Iterator[tuple[list[str], click.Command]]:
    """Every verb with its words: ``hunyuan data prepare`` after ``hunyuan data``."""
    from hunyuan.cli.main import cli

    yield from _below(["hunyuan"], cli)


def _below(words: list[str], command: click.Command) -> Iterator[tuple[list[str], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=words[-1])
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, "a verb that is listed can be loaded"
            yield from _below([*words, name], inner)


def commands_page(lang: str) -> str:
    """``--help`` of every verb."""
    lines = (
        [
            "# Commands",
            "",
            "What `--help` says, written when this page was built. `hunyuan VERB --help` says the "
            "same.",
        ]
        if lang == "en"
        else [
            "# 命令",
            "",
            "以下为构建本页时 `--help` 的原样输出（英文），与 `hunyuan VERB --help` 一致；"
            "每个命令前有一行中文说明。",
        ]
    )
    for words, command in commands():
        title = " ".join(words)
        level = "##" if len(words) <= 2 else "###"
        context = click.Context(
            command, info_name=title, terminal_width=WIDTH, max_content_width=WIDTH
        )
        lines += ["", f"{level} `{title}`", ""]
        chinese = CHINESE["verbs"].get(" ".join(words[1:]))
        if lang == "zh" and chinese:
            lines += [chinese, ""]
        lines += ["```text", command.get_help(context), "```"]
    return "\n".join(lines) + "\n"


def settings_of(kind: type, section: str = "") -> Iterator[Setting]:
    """Every key of a recipe's dataclass and of the sections in it."""
    docs = _attribute_docs(kind)
    hints = get_type_hints(kind)
    for field in fields(kind):
        inner = _section_of(hints[field.name])
        if inner is None:
            text = " ".join(docs.get(field.name, "").split())
            yield Setting(section, field.name, _default(field), text)
        else:
            yield from settings_of(inner, f"{section}.{field.name}".lstrip("."))


def training_settings() -> list[Setting]:
    """Every key of a training recipe."""
    from hunyuan.train.recipe import Recipe

    return list(settings_of(Recipe))


def data_settings() -> list[Setting]:
    """Every key of a data recipe."""
    from hunyuan.data.recipe import Recipe

    return list(settings_of(Recipe))


def _section_of(hint: Any) -> type | None:
    """The dataclass that a key holds: itself, or none, or a list of them."""
    for kind in (hint, *get_args(hint)):
        if kind is not NoneType and isinstance(kind, type) and is_dataclass(kind):
            return kind
    return None


def _attribute_docs(kind: type) -> dict[str, str]:
    """The docstring beneath each field, in the order of the source."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for above, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(above, ast.AnnAssign)
            and isinstance(above.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[above.target.id] = str(below.value.value)
    return found


def _default(field: "Field[Any]") -> str:
    if field.default is not MISSING:
        value = field.default
    elif field.default_factory is not MISSING:
        value = field.default_factory()
    else:
        return "must"
    if value is None or value in ((), {}, ""):
        return ""
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def chinese_of_training() -> dict[tuple[str, str], str]:
    """(section, key) -> meaning, from the tables of the Chinese reference of training."""
    return meanings(ROOT / "docs" / "training.zh.md")


def meanings(path: Path) -> dict[tuple[str, str], str]:
    """(section, key) -> meaning, from a page whose headings are ``### `[section]` ``.

    Layout and routing are tables under headings of their own; their keys have no section here.
    """
    found = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            named = re.fullmatch(r"#+ `\[([a-z.]+)\]`", line)
            section = named[1] if named else ""
        elif row := re.fullmatch(r"\| `([a-z0-9_]+)` \| (.*?) \|.*", line):
            found.setdefault((section, row[1]), row[2])
    return found


def _settings_table(settings: list[Setting], chinese: dict[tuple[str, str], str] | None) -> str:
    """Tables of settings, one a section."""
    heads = (
        "| key | meaning | default |" if chinese is None else "| 键 | 含义 | 默认 |",
        "|---|---|---|",
    )
    must = "must be given" if chinese is None else "必填"
    lines: list[str] = []
    section = None
    for one in settings:
        if one.section != section:
            section = one.section
            if section:
                lines += ["", f"## `[{section}]`"]
            lines += ["", *heads]
        meaning = one.english
        if chinese is not None:
            meaning = chinese.get((one.section, one.name)) or meaning
        default = must if one.default == "must" else one.default
        meaning = re.sub(r"\]\(#[^)]*\)", "](../training.md)", meaning)
        meaning = meaning.replace("``", "`").replace("|", "\\|")
        lines.append(f"| `{one.name}` | {meaning} | {default} |")
    return "\n".join(lines)


def _top_first(settings: list[Setting]) -> list[Setting]:
    """In TOML the keys without a section come first; the sections keep their order."""
    order = list(dict.fromkeys(one.section for one in settings))
    return sorted(settings, key=lambda one: (one.section != "", order.index(one.section)))


def recipes_page(lang: str) -> str:
    """Every key of a training recipe."""
    settings = _top_first(training_settings())
    if lang == "en":
        head = (
            "# Recipes of training\n\nEvery key of a recipe, from its docstring. What the words "
            "mean: [Training](../training.md). `hunyuan train RECIPE --dry-run` shows a recipe "
            "with its defaults.\n"
        )
        return head + _settings_table(settings, None) + "\n"
    head = (
        "# 训练配方\n\n配方的每一个键。各概念的解释见[训练](../training.md)。"
        "`hunyuan train RECIPE --dry-run` 显示一个配方及其全部默认值。\n"
    )
    by_training = chinese_of_training()
    chinese = {
        (one.section, one.name): by_training.get((one.section, one.name))
        or CHINESE["training"].get(one.section, {}).get(one.name, "")
        for one in settings
    }
    return head + _settings_table(settings, chinese) + "\n"


def data_recipes_page(lang: str) -> str:
    """Every key of a data recipe."""
    settings = _top_first(data_settings())
    if lang == "en":
        head = (
            "# Recipes of data\n\nEvery key of a recipe of `hunyuan data prepare`, from its "
            "docstring; `recipes/data.toml` is an example with all of them. What happens to the "
            "texts: [Training, data](../training.md#data).\n"
        )
        return head + _settings_table(settings, None) + "\n"
    head = (
        "# 数据配方\n\n`hunyuan data prepare` 配方的每一个键；`recipes/data.toml` "
        "是包含全部键的示例。文本的处理过程见[训练：数据](../training.md#数据)。\n"
    )
    chinese = {
        (section, name): meaning
        for section, names in CHINESE["data"].items()
        for name, meaning in names.items()
    }
    # TOML has no table without a name.
    chinese |= {("", name): meaning for name, meaning in CHINESE["data"]["top"].items()}
    return head + _settings_table(settings, chinese) + "\n"


def limits_page(lang: str) -> str:
    """The README's list of what does not work yet."""
    name, title = ("README.md", "What does not work yet")
    if lang == "zh":
        name, title = ("README.zh.md", "尚不支持")
    text = (ROOT / name).read_text(encoding="utf-8")
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    # What follows the list speaks of other things.
    listed = "\n" + "\n".join(re.findall(r"^(?:- |  ).*$", section, re.MULTILINE))
    listed = listed.replace("](docs/", "](../")
    more = "[Security: what is not guaranteed](../security.md#what-is-not-guaranteed)"
    if lang == "zh":
        more = "另见[安全：不保证什么](../security.md#不保证什么)。"
    else:
        more = f"See also {more}."
    return f"# {title}\n{listed}\n\n{more}\n"


def tested_page(lang: str) -> str:
    """Which commands of the documents the tests execute, and why not the others."""
    rows: dict[str, tuple[str, list[str]]] = {}
    for page in pages():
        if (lang == "zh") == page.name.endswith(".zh.md"):
            for one in commands_of(page):
                why = excuse(one, lang)
                executed = "executed" if lang == "en" else "执行"
                names = rows.setdefault(one.line, (why or f"**{executed}**", []))[1]
                name = page.relative_to(ROOT).as_posix().removeprefix("docs/")
                if name not in names:
                    names.append(name)
    head = (
        "# Commands of these pages\n\nThe tests execute the commands marked so, in a folder of "
        "their own. Of every other command with `hunyuan` they check the verb, the options and the "
        "arguments against the program.\n\n| command | tested | page |\n|---|---|---|\n"
        if lang == "en"
        else "# 本站的命令\n\n测试会在单独的目录中执行标明的命令；对其他含 `hunyuan` 的命令，"
        "则对照程序检查其动词、选项与参数。\n\n| 命令 | 测试 | 页面 |\n|---|---|---|\n"
    )
    return head + "".join(
        f"| `` {line.replace('|', chr(92) + '|')} `` | {state} | {', '.join(names)} |\n"
        for line, (state, names) in rows.items()
    )


PROVENANCE = ("command", "commit", "date", "machine", "processor", "kernels", "threads")


def measured_page(lang: str) -> str:
    """Every result file: where its figures come from, then the figures."""
    english = lang == "en"
    lines = [
        "# Measured" if english else "# 实测",
        "",
        "Generated from the files of `benchmarks/results/`; nothing here was typed by hand. Times "
        "are those of the machine named beside them. Lists of trials are shown as their median, "
        "with the least and the most. What the figures say, in words: the README."
        if english
        else "由 `benchmarks/results/` 中的文件生成，没有任何手工填写的数字。"
        "耗时属于所标明的机器。多次试验显示为中位数，并附最小值与最大值。数字的含义见 README。",
    ]
    names = dict(
        zip(
            PROVENANCE,
            PROVENANCE if english else ("命令", "提交", "日期", "机器", "处理器", "内核", "线程"),
            strict=True,
        )
    )
    unknown = "not recorded" if english else "未记录"
    for path in sorted(RESULTS.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        origin = data | data.get("from", {}) | data.get("provenance", {})
        lines += ["", f"## {path.stem}", "", "| | |", "|---|---|"]
        for key in PROVENANCE:
            if key in origin:
                lines.append(f"| {names[key]} | `{origin[key]}` |")
            elif key in ("command", "commit", "date") or (
                key == "machine" and "processor" not in origin
            ):
                lines.append(f"| {names[key]} | {unknown} |")
        rest = {k: v for k, v in data.items() if k not in (*PROVENANCE, "from", "provenance")}
        figures = list(_figures("", rest))
        lines += ["", "| figure | value |" if english else "| 指标 | 数值 |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in figures]
    return "\n".join(lines) + "\n"


def _figures(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The numbers of a result file, flat; texts of models and long lists stay in the file."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _figures(f"{name} · {key}" if name else str(key), inner)
    elif isinstance(value, list) and value and all(_is_number(one) for one in value):
        middle, least, most = median(value), min(value), max(value)
        yield name, f"{_number(middle)} ({_number(least)} – {_number(most)}; {len(value)})"
    elif isinstance(value, list):
        for i, one in enumerate(value[:MOST_ROWS]):
            if isinstance(one, dict):
                yield from _figures(f"{name} {i + 1}", one)
    elif _is_number(value):
        yield name, _number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "reference")
