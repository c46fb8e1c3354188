"""A folder of benchmark data for evaluation without a network: its layout, writing and checking.

``FOLDER/<owner>--<name>/`` is a Hugging Face dataset folder: a README whose header lists the
configurations, and ``<configuration>/<split>.jsonl.gz`` with the columns that the hub's dataset of
that name has. So the harness's own tasks read it unchanged once their dataset path points here.
``FOLDER/benchmarks.json`` holds the rows and the sha256 of every file, the licence, and what was
done to the data on the way: which items became few-shot examples, which parts are a sample.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hunyuan.errors import BadDataError, UsageError
from hunyuan.files import atomic_file, disk_errors

INDEX = "benchmarks.json"
Row = Mapping[str, Any]
Splits = Mapping[str, Iterable[Row]]


@dataclass(frozen=True)
class SplitFile:
    """One file of rows."""

    rows: int
    sha256: str


@dataclass(kw_only=True)
class Benchmark:
    """One dataset of the folder."""

    licence: str
    source: str
    notes: list[str] = field(default_factory=list)
    """What differs from the hub's dataset, in one sentence each."""

    examples: str | None = None
    """The split whose first rows are the few-shot examples, where the hub's own are missing."""

    splits: dict[str, dict[str, SplitFile]] = field(default_factory=dict)
    """Configuration -> split -> file."""


def folder_of(dataset: str) -> str:
    """``cais/mmlu`` -> ``cais--mmlu``."""
    return dataset.replace("/", "--")


class BenchmarkFolder:
    """Reads and checks a folder; raises `BadDataError` and `UsageError` in one line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        index = path / INDEX
        try:
            found = json.loads(index.read_text(encoding="utf-8"))
            self.benchmarks = {name: _benchmark(value) for name, value in found.items()}
        except FileNotFoundError:
            raise UsageError(
                f"{path}: no {INDEX} there, so it is no folder of benchmarks; make one with "
                "hunyuan data benchmarks",
                f"{path}：其中没有 {INDEX}，不是评测数据目录；请用 hunyuan data benchmarks 生成",
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise BadDataError(
                f"{index}: damaged ({type(error).__name__}); make the folder again",
                f"{index}：已损坏（{type(error).__name__}）；请重新生成该目录",
            ) from error

    def dataset_path(self, dataset: str) -> Path:
        """The folder of a dataset, every file of it checked against its hash."""
        benchmark = self.benchmarks.get(dataset)
        if benchmark is None:
            known = ", ".join(sorted(self.benchmarks)) or "-"
            raise BadDataError(
                f"{self.path}: has no data of {dataset}; it has {known}",
                f"{self.path}：没有 {dataset} 的数据；现有 {known}",
            )
        folder = self.path / folder_of(dataset)
        for config, splits in benchmark.splits.items():
            for split, expected in splits.items():
                self._check(folder / config / f"{split}.jsonl.gz", expected)
        return folder

    def _check(self, file: Path, expected: SplitFile) -> None:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BadDataError(
                f"{file}: {error.strerror}; {expected.rows} rows belong there: make the folder "
                "again",
                f"{file}：{error.strerror}；此处应有 {expected.rows} 行：请重新生成该目录",
            ) from error
        if hashlib.sha256(content).hexdigest() == expected.sha256:
            return
        try:
            rows = gzip.decompress(content).count(b"\n")
        except (OSError, EOFError):
            rows = 0
        raise BadDataError(
            f"{file}: altered, it has {rows} rows where {expected.rows} with sha256 "
            f"{expected.sha256[:12]}... belong; make the folder again",
            f"{file}：内容已变动，现有 {rows} 行，应为 {expected.rows} 行且 sha256 为 "
            f"{expected.sha256[:12]}...；请重新生成该目录",
        )


class BenchmarkWriter:
    """Writes a folder, one dataset after the other; `finish` writes the index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._benchmarks: dict[str, Benchmark] = {}

    def add(
        self,
        dataset: str,
        configs: Mapping[str, Splits],
        *,
        licence: str,
        source: str,
        notes: Iterable[str] = (),
        examples: str | None = None,
    ) -> None:
        """Write ``configs``: configuration -> split -> rows."""
        benchmark = Benchmark(licence=licence, source=source, notes=list(notes), examples=examples)
        folder = self.path / folder_of(dataset)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for config, splits in configs.items():
                written = benchmark.splits.setdefault(config, {})
                for split, rows in splits.items():
                    target = folder / config / f"{split}.jsonl.gz"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    written[split] = _write_rows(target, rows)
            with atomic_file(folder / "README.md") as file:
                file.write(_card(dataset, benchmark).encode())
        self._benchmarks[dataset] = benchmark

    def finish(self) -> None:
        """Write the index; without it the folder does not count."""
        index = {name: asdict(self._benchmarks[name]) for name in sorted(self._benchmarks)}
        with disk_errors(self.path), atomic_file(self.path / INDEX) as file:
            file.write(json.dumps(index, ensure_ascii=False, indent=1).encode())


def _write_rows(target: Path, rows: Iterable[Row]) -> SplitFile:
    count = 0
    buffer = io.BytesIO()
    # No time stamp: the same rows give the same file, whose hash runs can be compared by.
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed:
        for row in rows:
            packed.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            count += 1
    content = buffer.getvalue()
    with atomic_file(target) as file:
        file.write(content)
    return SplitFile(count, hashlib.sha256(content).hexdigest())


def _card(dataset: str, benchmark: Benchmark) -> str:
    lines = ["---", "configs:"]
    for config, splits in benchmark.splits.items():
        lines += [f"- config_name: {json.dumps(config)}", "  data_files:"]
        for split in splits:
            lines += [
                f"  - split: {split}",
                f"    path: {json.dumps(f'{config}/{split}.jsonl.gz')}",
            ]
    lines += ["---", "", f"# {dataset}", "", f"Licence: {benchmark.licence}"]
    lines += [f"Source: {benchmark.source}", "", *(f"- {note}" for note in benchmark.notes), ""]
    return "\n".join(lines)


def _benchmark(value: Mapping[str, Any]) -> Benchmark:
    splits = {
        config: {split: SplitFile(**file) for split, file in files.items()}
        for config, files in value["splits"].items()
    }
    return Benchmark(**{**value, "splits": splits})
