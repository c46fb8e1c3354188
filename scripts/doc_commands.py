"""The commands that the documents tell a reader to type: found, checked, and run or excused.

`commands_of` finds them; `complaint` compares one with the command line as it is now; `excuse` says
why one is not executed by the tests. What has no excuse is executed (tests/test_docs.py). A block
may carry an excuse of its own: ``<!-- not run: reason -->`` on the line before it.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

ROOT = Path(__file__).parents[1]

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<excuse>.*?) -->\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_INDENTED = re.compile(r"^    (?:\$ )?(hunyuan .*)$", re.MULTILINE)
_REMARK = re.compile(r"\s+#\s.*$")
_PLACEHOLDER = re.compile(r"(?:^|[\s:#=\"])[A-Z][A-Z0-9]{2,}\b")

EXECUTED = (
    re.compile(r"hunyuan (info|plan|list)\b"),
    re.compile(r"hunyuan (train|launch) .*--dry-run\b"),
    re.compile(r"hunyuan .*--help\b"),
)

EXCUSES = (
    (r"hunyuan (serve|chat)\b", "runs until it is stopped; the tests start servers of their own",
     "会一直运行到被停止；测试会启动自己的服务器"),
    (r"hunyuan pull\b", "downloads", "需要下载"),
    (r"hunyuan tour\b", "takes a minute; tests/test_tour.py runs it small",
     "需要一分钟；tests/test_tour.py 以更小规模运行"),
    (r"hunyuan doctor\b", "measures for seconds; tests/test_cli.py runs it",
     "需测量数秒；tests/test_cli.py 运行它"),
    (r"hunyuan (generate|bench|convert|merge|upcycle)\b", "needs a model's weights",
     "需要模型权重"),
    (r"hunyuan (eval|judge)\b", "needs a model and benchmark data", "需要模型与评测数据"),
    (r"hunyuan (report|compare|scaling|info moe)\b", "needs the result of an earlier command",
     "需要前面命令的结果"),
    (r"hunyuan (data|tokenizer)\b", "needs the reader's own texts", "需要读者自己的文本"),
    (r"hunyuan (train|launch)\b", "trains, or writes files for a cluster; the recipe and the "
     "options are checked", "会训练或写出集群文件；配方与选项已检查"),
    (r"torchrun\b", "starts several processes; tests/test_train_parallel.py does",
     "会启动多个进程；tests/test_train_parallel.py 运行"),
    (r"(pip|apt|make|\.|python|venv|vllm)\b|\. ", "sets up the machine",
     "用于配置机器"),
    (r"(curl|sbatch|kubectl|vllm|ray|[A-Z_]+=)", "needs a server or a cluster",
     "需要服务器或集群"),
)  # fmt: skip
"""Why commands are not executed: what they begin with, the reason in English and in Chinese."""

FOREIGN = frozenset(
    {
        "--enable-expert-parallel",
        "--enforce-eager",
        "--nproc-per-node",
        "--run-path",
        "--shutdown-timeout",
        "--url",
    }
)
"""Options in the texts that are those of other programs."""


class Command(NamedTuple):
    """A command as a page shows it."""

    page: Path
    line: str
    """Without the prompt and the remark at its end."""

    excuse: str | None
    """The page's own reason not to run it."""


def pages() -> list[Path]:
    """Every document of the project that a person wrote."""
    docs = (ROOT / "docs").rglob("*.md")
    own = [path for path in docs if path.parent.name != "reference"]
    return sorted([*own, ROOT / "README.md", ROOT / "README.zh.md"])


def commands_of(page: Path) -> Iterator[Command]:
    """The commands in the blocks of a page: after a prompt, or lines that begin with hunyuan."""
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        body = block["body"].replace("\\\n", " ")
        prompted = block["kind"] == "console"
        for line in body.splitlines():
            if line.startswith("$ ") or (not prompted and line.startswith("hunyuan ")):
                yield Command(page, _bare(line), block["excuse"])
    outside = re.sub(r"\\\n\s*", " ", _BLOCK.sub("", text))
    for line in _INDENTED.findall(outside):
        yield Command(page, _bare(line), None)


def inline_of(page: Path) -> Iterator[str]:
    """The commands that are named in running text."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`([^`\n]+)`", text):
        if code.startswith("hunyuan ") and "/" not in code.split()[1]:
            yield _bare(code)


def options_of(page: Path) -> set[str]:
    """The options that are named in running text without a command."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    alone = [code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith("--")]
    return {option for code in alone for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", code)}


def excuse(command: Command, lang: str = "en") -> str | None:
    """Why the tests do not execute a command; None: they do."""
    if command.excuse is not None:
        return command.excuse
    if _PLACEHOLDER.search(command.line):
        return {"en": "a form to be filled in", "zh": "有待填写的格式"}[lang]
    for pattern, english, chinese in EXCUSES:
        early = pattern.startswith("hunyuan (report")
        if re.match(pattern, command.line) and (early or not _executed(command.line)):
            return english if lang == "en" else chinese
    return None


def _executed(line: str) -> bool:
    return any(pattern.match(line) for pattern in EXECUTED)


def complaint(line: str, root: click.Group, *, whole: bool = True) -> str | None:
    """What is wrong with a ``hunyuan`` command, or None; nothing is run.

    ``whole``: its arguments must be complete, as in a block; in running text they need not be.
    """
    words = shlex.split(line)
    words = words[words.index("hunyuan") + 1 :]
    command: click.Command = root
    while isinstance(command, click.Group):
        name = words.pop(0) if words else ""
        if name in ("--help", "--version", "-h"):
            return None
        context = click.Context(command)
        below = command.get_command(context, name)
        if below is None:
            ends_here = not name and command is not root
            return None if ends_here and not whole else f"{command.name} has no verb '{name}'"
        command = below
    context = click.Context(command, info_name=command.name)
    try:
        values, rest, _ = command.make_parser(context).parse_args(list(words))
    except click.UsageError as error:
        return error.format_message()
    if whole and rest and "--help" not in words:
        return f"too many arguments: {' '.join(rest)}"
    for one in command.params:
        value: Any = values.get(one.name) if one.name in values else None
        given = isinstance(value, str)
        if whole and one.required and not given and not isinstance(value, tuple | list):
            return f"{one.name} is missing"
        if given and isinstance(one.type, click.Choice) and not _PLACEHOLDER.search(value):
            try:
                one.type.convert(value, one, context)
            except click.UsageError as error:
                return error.format_message()
    return None


def _bare(line: str) -> str:
    return _REMARK.sub("", line.removeprefix("$ ")).strip()
