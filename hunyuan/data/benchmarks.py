"""Benchmark questions that must not be in the training data: an index of their passages.

Every text in a benchmark's files is cut into passages (`hunyuan.data.ngrams`), whose fingerprints
make a sorted array per benchmark; a document is contaminated if it holds any of them. Passages that
many records of a benchmark share are its instructions, not its questions, and are left out.

Texts shorter than a passage leave no trace: a benchmark of very short questions is not protected.
datatrove's filter does the same with a dictionary in memory and a lookup per word; its indexer asks
for another package that downloads the benchmarks.
"""

import bz2
import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hunyuan.data.ngrams import Hashes, passage_text, passages
from hunyuan.errors import BadDataError, UsageError
from hunyuan.files import atomic_file

_SHARED_BY, _SHARED_SHARE = 20, 0.02
_OPENED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """What was found in a document."""

    benchmark: str
    """The benchmark with most passages in it."""

    passages: int
    """How many."""

    text: str
    """The first of them, folded."""


class BenchmarkIndex:
    """All benchmarks of a recipe, looked up at once."""

    def __init__(self, folder: Path, names: list[str], words: int) -> None:
        parts = [np.load(folder / f"{name}.npy") for name in names]
        owners = np.repeat(np.arange(len(names)), [len(part) for part in parts])
        hashes = np.concatenate([np.zeros(0, np.uint64), *parts])
        # A passage in two benchmarks counts for both: equal hashes stay beside each other.
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]
        self._shift, self._maybe = _maybe(self._hashes)
        self._names = names
        self._words = words

    def look_up(self, text: str, at_least: int) -> Contamination | None:
        """What of the benchmarks is in a text, if any has ``at_least`` passages in it."""
        found = passages(text, self._words)
        top = (found >> self._shift).astype(np.int64)
        (likely,) = np.nonzero(
            self._maybe[top >> 3] & (np.uint8(128) >> (top & 7).astype(np.uint8))
        )
        begins = np.searchsorted(self._hashes, found[likely], "left")
        ends = np.searchsorted(self._hashes, found[likely], "right")
        real = ends > begins
        if not real.any():
            return None
        hits = likely[real]
        owners = [self._owners[b:e] for b, e in zip(begins[real], ends[real], strict=True)]
        counts = np.bincount(np.concatenate(owners), minlength=len(self._names))
        most = int(counts.argmax())
        if counts[most] < at_least:
            return None
        first = next(int(i) for i, owned in zip(hits, owners, strict=True) if most in owned)
        return Contamination(
            benchmark=self._names[most],
            passages=int(counts[most]),
            text=passage_text(text, self._words, first),
        )


def _maybe(hashes: Hashes) -> tuple[np.uint64, NDArray[np.uint8]]:
    """One bit for each beginning of a hash that occurs, with sixteen times as many bits as hashes.

    Nearly all passages of a text are ruled out by one look into this table, without a search.
    """
    bits = max(int(16 * len(hashes)).bit_length(), 3)
    table = np.zeros(1 << bits, np.bool_)
    shift = np.uint64(64 - bits)
    table[hashes >> shift] = True
    return shift, np.packbits(table)


def check_benchmarks(benchmarks: Mapping[str, str], base: Path) -> None:
    """`UsageError` naming the first benchmark without a file that can be read."""
    for name, place in benchmarks.items():
        if "/" in name or name.startswith("."):
            raise UsageError(
                f"decontamination.benchmarks.{name}: a name must not contain / or begin with .",
                f"decontamination.benchmarks.{name}：名称不能包含 / 或以 . 开头",
            )
        if not _files(base / place):
            raise UsageError(
                f"decontamination.benchmarks.{name}={place!r}: no json, jsonl, csv, tsv, parquet "
                f"or txt file there (looked at {base / place})",
                f"decontamination.benchmarks.{name}={place!r}：没有 json、jsonl、csv、tsv、parquet "
                f"或 txt 文件（查找位置 {base / place}）",
            )


def write_index(place: Path, target: Path, words: int) -> int:
    """Index a benchmark; returns how many passages it has."""
    found: list[Hashes] = []
    records = 0
    for path in _files(place):
        for record in _records(path):
            records += 1
            texts = [passages(text, words) for text in _texts(record)]
            found.append(np.unique(np.concatenate([np.zeros(0, np.uint64), *texts])))
    hashes, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]), return_counts=True)
    own = hashes[counts <= max(_SHARED_BY, _SHARED_SHARE * records)]
    with atomic_file(target) as file:
        np.save(file, own)
    return len(own)


def _files(place: Path) -> list[Path]:
    candidates = [place] if place.is_file() else sorted(place.rglob("*"))
    return [p for p in candidates if p.is_file() and _suffix(p) in _SUFFIXES]


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix in _OPENED else path.name).suffix.lower()


def _records(path: Path) -> Iterator[Any]:
    try:
        if _suffix(path) == ".parquet":
            from pyarrow import parquet

            yield from parquet.read_table(path).to_pylist()
            return
        opened = _OPENED.get(path.suffix, open)
        with opened(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
        if _suffix(path) == ".jsonl":
            # Not splitlines, which also breaks at U+2028 inside of a text.
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
        elif _suffix(path) == ".json":
            content = json.loads(text)
            while isinstance(content, dict) and len(content) == 1:
                (content,) = content.values()
            # Also where one of several keys holds the list, as in {"canary": ..., "examples": []}.
            yield from content if isinstance(content, list) else _values(content)
        elif _suffix(path) == ".txt":
            yield text
        else:
            delimiter = "\t" if _suffix(path) == ".tsv" else ","
            yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except (ValueError, OSError, EOFError, csv.Error) as error:
        raise BadDataError(
            f"{path}: this benchmark file cannot be read ({error}); fetch it again or remove it",
            f"{path}：无法读取该评测文件（{error}）；请重新获取或移除",
        ) from error


def _values(content: Any) -> Iterator[Any]:
    for value in content.values() if isinstance(content, dict) else [content]:
        yield from value if isinstance(value, list) else [value]


def _texts(record: Any) -> Iterator[str]:
    if isinstance(record, str):
        yield record
    elif isinstance(record, dict):
        for value in record.values():
            yield from _texts(value)
    elif isinstance(record, list | tuple):
        for value in record:
            yield from _texts(value)
