"""Which benchmarks there are, and which of them make a suite: read strictly from suites.toml."""

import difflib
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

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

    metric: str
    """The harness's figure that counts: ``metric,filter``."""

    shots: int
    language: Literal["en", "zh", "code"]
    group: bool = False
    lower_is_better: bool = False


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
    with _FILE.open("rb") as file:
        found = tomllib.load(file)["benchmark"]
    return {name: BenchmarkTask(name=name, **fields) for name, fields in found.items()}


@cache
def suites() -> dict[str, Suite]:
    """All suites by name."""
    with _FILE.open("rb") as file:
        found = tomllib.load(file)["suite"]
    return {
        name: Suite(name=name, **{**fields, "benchmarks": tuple(fields["benchmarks"])})
        for name, fields in found.items()
    }


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
