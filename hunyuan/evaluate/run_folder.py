"""The folder that an evaluation writes, and what can be read back from it without the harness.

RUN/run.json               what was run: model and its hash, template, versions, commit, data
RUN/responses.jsonl        every answer of the model, as it came (what makes a run resumable)
RUN/items/BENCHMARK.jsonl  per item: prompt, reference, raw output, extracted answer, scores
RUN/results.json           per benchmark: score, standard error, items, shots, parts
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hunyuan.errors import UsageError
from hunyuan.files import atomic_file, disk_errors


@dataclass(frozen=True, kw_only=True)
class Score:
    """The figure of one benchmark or of a part of it."""

    value: float
    stderr: float | None
    items: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row of a results table."""

    benchmark: str
    metric: str
    shots: int
    score: Score
    parts: Mapping[str, Score]
    """Subjects or sub-tasks."""

    version: str
    """Version of the harness's task."""

    of: int
    """Items the whole benchmark has; more than ``score.items`` for a sample."""

    truncated: int | None
    """Prompts that lost their beginning; None where the back end does not tell."""

    repeats: int = 1
    """Answers drawn for each item; the score is their mean."""

    more: Mapping[str, Score] = field(default_factory=dict)
    """Of several answers: ``pass@k`` for every k, ``maj@N`` where answers can be voted on."""


class EvaluationRun:
    """A folder that an evaluation writes; opening one that exists goes on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def results(self) -> dict[str, Result]:
        """What is finished."""
        path = self.folder / "results.json"
        if not path.exists():
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: _result(value) for name, value in found.items()}

    def described(self) -> dict[str, Any] | None:
        """The content of run.json, or None for a new run."""
        path = self.folder / "run.json"
        if not path.exists():
            return None
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def items(self, benchmark: str) -> Iterator[dict[str, Any]]:
        """The items of a finished benchmark."""
        with (self.folder / "items" / f"{benchmark}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def begin(self, description: Mapping[str, Any]) -> None:
        """Write run.json, or check that a run that exists is the same; `UsageError` if not."""
        before = self.described()
        if before is not None:
            changed = [
                key
                for key in ("model", "plan", "data")
                if json.dumps(before.get(key), sort_keys=True)
                != json.dumps(description.get(key), sort_keys=True, default=str)
            ]
            if changed:
                raise UsageError(
                    f"{self.folder}: holds a run with another {' and '.join(changed)}; choose "
                    "another folder with --out",
                    f"{self.folder}：其中的评测在 {'、'.join(changed)} 上与此不同；"
                    "请用 --out 另选目录",
                )
            return
        self._write("run.json", description)

    def finish(self, result: Result, items: Sequence[Mapping[str, Any]]) -> None:
        """Keep a benchmark's items, then its result."""
        lines = "".join(json.dumps(item, ensure_ascii=False, default=str) + "\n" for item in items)
        path = self.folder / "items" / f"{result.benchmark}.jsonl"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                file.write(lines.encode())
        done = {**self.results(), result.benchmark: result}
        self._write("results.json", {name: asdict(value) for name, value in done.items()})

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.folder / name) as file:
                text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
                file.write(text.encode())


def _result(value: Mapping[str, Any]) -> Result:
    parts = {name: Score(**part) for name, part in value["parts"].items()}
    more = {name: Score(**figure) for name, figure in value.get("more", {}).items()}
    score = Score(**value["score"])
    return Result(**{**value, "score": score, "parts": parts, "more": more})
