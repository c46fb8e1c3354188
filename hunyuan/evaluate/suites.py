"""Which benchmarks there are, and which of them make a suite: read strictly from suites.toml.

Packages of tasks (`hunyuan.plugins`) bring a suites.toml of their own; one that is broken is left
out with a warning, so that it stops nothing but itself.
"""

import difflib
import tomllib
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from hunyuan import plugins
from hunyuan.errors import UsageError

_FILE = Path(__file__).parent / "suites.toml"


@dataclass(frozen=True, kw_only=True)
class BenchmarkTask:
    """One row of a results table."""

    name: str
    title: str
    dataset: str | None = None
    """The hub's name of its data; None where the task makes its own."""

    harness: str
    """Task or group of the harness."""

    folder: str | None = None
    """Where the harness keeps it, below its own tasks; None for one of this package's.

    Reading all of the harness's tasks takes longer than many an evaluation."""

    in_chat: str | None = None
    """Task in its place where prompts go through a chat template."""

    metric: str
    """The harness's figure that counts: ``metric,filter``."""

    shots: int
    language: Literal["en", "zh", "code"]
    group: bool = False
    lower_is_better: bool = False
    vote: bool = False
    """Whether extracted answers can be compared, so that a majority of several has a meaning."""

    plugin: Path | None = None
    """The folder of the package of tasks that brings it; None for those of this project."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Benchmarks that are run together."""

    name: str
    en: str
    zh: str
    benchmarks: tuple[str, ...]
    sample: dict[str, int] = field(default_factory=dict)
    """Benchmark -> items of its fixed sample; absent: all."""

    chat: bool = False
    """Whether prompts go through the model's chat template unless told otherwise."""


@cache
def benchmarks() -> dict[str, BenchmarkTask]:
    """All benchmarks by name."""
    return {**_added()[0], **_read(_FILE, None)[0]}


@cache
def suites() -> dict[str, Suite]:
    """All suites by name."""
    return {**_added()[1], **_read(_FILE, None)[1]}


def read_plugin(entry: plugins.EntryPoint) -> "_Table":
    """The benchmarks and suites of a package of tasks; `UsageError` naming it if it is broken."""
    folder = plugins.task_folder(entry)
    try:
        tasks, groups = _read(folder / plugins.SUITES_FILE, folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise plugins.broken(entry, f"{plugins.SUITES_FILE}: {error}") from error
    own = _read(_FILE, None)
    for name in {*tasks, *groups} & {*own[0], *own[1]}:
        raise plugins.broken(entry, f"{name!r} is a benchmark or suite of this project")
    for suite in groups.values():
        if unknown := [name for name in suite.benchmarks if name not in {**own[0], **tasks}]:
            raise plugins.broken(entry, f"suite {suite.name!r}: unknown benchmark {unknown[0]!r}")
    return tasks, groups


_Table = tuple[dict[str, BenchmarkTask], dict[str, Suite]]


@cache
def _added() -> _Table:
    tasks: dict[str, BenchmarkTask] = {}
    groups: dict[str, Suite] = {}
    for entry in plugins.installed(plugins.TASKS):
        try:
            more = read_plugin(entry)
        except UsageError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        tasks |= more[0]
        groups |= more[1]
    return tasks, groups


def _read(path: Path, plugin: Path | None) -> _Table:
    with path.open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)
    tasks = {
        name: BenchmarkTask(name=name, plugin=plugin, **fields)
        for name, fields in found.get("benchmark", {}).items()
    }
    groups = {
        name: Suite(name=name, **{**fields, "benchmarks": tuple(fields["benchmarks"])})
        for name, fields in found.get("suite", {}).items()
    }
    return tasks, groups


def chosen(names: list[str]) -> tuple[list[BenchmarkTask], dict[str, int], bool]:
    """Benchmarks of suites and single names, the sizes of their samples, and whether to chat.

    Raises `UsageError` with the nearest names for one that is unknown.
    """
    tasks: dict[str, BenchmarkTask] = {}
    sample: dict[str, int] = {}
    chat = False
    for name in names:
        if name in suites():
            suite = suites()[name]
            tasks |= {benchmark: benchmarks()[benchmark] for benchmark in suite.benchmarks}
            sample |= suite.sample
            chat = chat or suite.chat
        elif name in benchmarks():
            tasks[name] = benchmarks()[name]
            sample.pop(name, None)
        else:
            known = [*suites(), *benchmarks()]
            near = difflib.get_close_matches(name, known, 3, 0.5) or known
            raise UsageError(
                f"benchmark {name!r} is unknown; did you mean {', '.join(near)}?",
                f"未知的评测 {name!r}；是否指 {'、'.join(near)}？",
            )
    return list(tasks.values()), sample, chat
