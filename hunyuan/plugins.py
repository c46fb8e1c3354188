"""Parts that other installed packages add, by entry points; each is loaded when it is asked for.

    [project.entry-points."hunyuan.readers"]    srt = "my_package:read"
    [project.entry-points."hunyuan.tasks"]      my-tasks = "my_package"
    [project.entry-points."hunyuan.tools"]      days = "my_package:days"

A reader's name is the end of the files it reads, without the dot; it is a function of a `Path` that
gives pieces of text in their order, each with its line ends. It runs in the process that reads a
document, within its limits. A package of tasks holds ``suites.toml``, as this project's own, and
the harness's task files beside it; nothing of it is imported to read them. A tool is a `Tool`;
`hunyuan chat --tools` lets the model call it by the name of its entry point.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint as EntryPoint
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from hunyuan.errors import UsageError

Group = Literal["hunyuan.readers", "hunyuan.tasks", "hunyuan.tools"]
Reader = Callable[[Path], Iterable[str]]

READERS: Group = "hunyuan.readers"
TASKS: Group = "hunyuan.tasks"
TOOLS: Group = "hunyuan.tools"
SUITES_FILE = "suites.toml"


@dataclass(frozen=True, kw_only=True)
class Tool:
    """What a model may call in a chat; it runs with the rights of the person who chats."""

    description: str
    """One sentence, for the model."""

    parameters: Mapping[str, Any]
    """A JSON schema of an object; ``run`` gets what fits it as named arguments."""

    run: Callable[..., str]


def installed(group: Group) -> list[EntryPoint]:
    """What packages of this environment add to a group, by name; nothing is imported."""
    return sorted(entry_points(group=group), key=lambda entry: (entry.name, _package(entry)))


def reader_suffixes() -> tuple[str, ...]:
    """Ends of file names that plug-ins read: ``(".srt",)``."""
    return tuple(dict.fromkeys(f".{entry.name.lower()}" for entry in installed(READERS)))


def reader(suffix: str) -> Reader:
    """The reader of files that end in ``suffix``; `UsageError` naming the package if it breaks."""
    for entry in installed(READERS):
        if f".{entry.name.lower()}" == suffix:
            return load_reader(entry)
    raise AssertionError(f"no plug-in reads {suffix}")


def load_reader(entry: EntryPoint) -> Reader:
    """Import a reader; `UsageError` naming its package where that fails."""
    found = _loaded(entry)
    if not callable(found):
        raise broken(entry, f"{entry.value} is not a function")
    return cast(Reader, found)


def load_tool(entry: EntryPoint) -> Tool:
    """Import a tool; `UsageError` naming its package where that fails."""
    found = _loaded(entry)
    if not isinstance(found, Tool):
        raise broken(entry, f"{entry.value} is no hunyuan.plugins.Tool")
    return found


def _loaded(entry: EntryPoint) -> object:
    try:
        return cast(object, entry.load())
    except Exception as error:  # whatever a stranger's module raises while it is imported
        raise broken(entry, f"{type(error).__name__}: {error}") from error


def task_folder(entry: EntryPoint) -> Path:
    """The folder of a package of tasks; `UsageError` where it or its suites.toml is missing."""
    try:
        spec = find_spec(entry.module)
    except (ImportError, ValueError) as error:
        raise broken(entry, str(error)) from error
    if spec is None or spec.origin is None:
        raise broken(entry, f"no package {entry.module}")
    folder = Path(spec.origin).parent
    if not os.access(folder / SUITES_FILE, os.R_OK):
        raise broken(entry, f"no {SUITES_FILE} beside {Path(spec.origin).name}")
    return folder


def described(entry: EntryPoint) -> str:
    """``srt (hunyuan-srt 0.1.0)``."""
    return f"{entry.name} ({_package(entry)})"


def broken(entry: EntryPoint, reason: str) -> UsageError:
    """What is told of a plug-in that does not work."""
    reason = " ".join(reason.split())
    return UsageError(
        f"plug-in {described(entry)}, {entry.group}: {reason}; correct or uninstall that package",
        f"插件 {described(entry)}，{entry.group}：{reason}；请修正或卸载该软件包",
    )


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module
