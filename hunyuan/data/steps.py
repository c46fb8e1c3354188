"""The pipeline's own steps, in the form datatrove runs them.

Where datatrove has the step, its class is used or extended: the Gopher rules, the stages of exact
and near deduplication, the reading and writing of documents between stages.
"""

# mypy: disable-error-code="misc"

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader

from hunyuan.data.benchmarks import BenchmarkIndex, write_index
from hunyuan.data.ngrams import passages
from hunyuan.data.normalise import normalise
from hunyuan.data.personal import redact
from hunyuan.data.quality import Quality, Words
from hunyuan.data.recipe import Recipe
from hunyuan.data.tally import EXCERPT, Tally, read_tallies
from hunyuan.errors import BadDataError

Documents = Iterator[Document]


def document_text(document: Document) -> str:
    """What makes documents equal."""
    return str(document.text)


def document_priority(document: Document) -> int:
    """Which of equal documents stays: that of the source named first."""
    return int(document.metadata["priority"])


class Ledger:
    """Takes the documents that a filter removes, counts them and keeps a few as examples.

    In place of datatrove's exclusion writers, which would keep all of them.
    """

    def __init__(self, folder: Path, event: str, examples: int) -> None:
        self.folder = folder
        self.event = event
        self.tally = Tally(examples)
        self.rank = 0

    def __enter__(self) -> "Ledger":
        return self

    def write(self, document: Document, rank: int = 0) -> None:
        """Count one removed document."""
        self.rank = rank
        data = document.metadata
        reason = data.get("filter_reason")
        event = f"{self.event} {reason}" if reason else self.event
        self.tally.add(data["source"], event)
        self.tally.show(data["source"], event, document.id, data.get("evidence", document.text))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The number of the task is known only once a document was removed.
        if error is None and self.tally.counts:
            self.tally.write(self.folder / f"{self.rank:05d}.json")


class Clean(PipelineStep):
    """Normalises texts and replaces personal data."""

    type = "own"
    name = "clean"

    def __init__(self, recipe: Recipe, tallies: Path) -> None:
        super().__init__()
        self.recipe = recipe
        self.tallies = tallies

    def run(self, data: Documents, rank: int = 0, world_size: int = 1) -> Documents:
        """Change each document in place."""
        tally = Tally(self.recipe.samples)
        for document in data:
            source = document.metadata["source"]
            text = normalise(document.text, is_code=document.metadata["label"] == "code")
            document.text, found = redact(text, self.recipe.personal)
            for kind, count in found.items():
                tally.add(source, f"redacted {kind}", count)
                at = max(document.text.find(f"[{kind}]") - EXCERPT // 2, 0)
                excerpt = document.text[at : at + EXCERPT]
                tally.show(source, f"redacted {kind}", document.id, excerpt)
            yield document
        tally.write(self.tallies / f"{rank:05d}.json")


class QualityFilter(BaseFilter):
    """Removes what is not worth training on."""

    name = "quality"

    def __init__(self, recipe: Recipe, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.recipe = recipe
        self.quality = Quality(recipe.filter)
        self.expected = {source.name: source.language for source in recipe.source}

    def filter(self, document: Document) -> bool | tuple[bool, str]:
        """Whether to keep a document, and if not, why."""
        data = document.metadata
        reason = self.quality.why_not(
            document, data["label"], data["category"], self.expected[data["source"]]
        )
        return True if reason is None else (False, reason)


class RankReader(JsonlReader):
    """The documents that the task of the same number wrote, none if it wrote no file.

    datatrove deals out the files that exist, so that one missing file would shift all others.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), add_file_path=False)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Documents:
        """Yield the documents of the task ``rank``."""
        name = f"{rank:05d}.jsonl.zst"
        if self.data_folder.isfile(name):
            yield from self.read_file(name)


class NearSignature(MinhashDedupSignature):
    """MinHash over our passages: numbers count, Chinese needs no dictionary, memory is bounded."""

    SLAB = 4096

    def __init__(self, folder: Path, config: Any) -> None:
        super().__init__(str(folder), config, language=Words())

    def get_shingles(self, text: str) -> np.ndarray:
        """Fingerprints of the passages, one row each."""
        return passages(text, self.config.n_grams).reshape(-1, 1)

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        """The smallest of each hash, by bucket; in slabs, as a book has a million passages."""
        a, b = self.parameters
        prime = np.uint64((1 << 61) - 1)
        smallest = np.full(self.num_hashes, prime, np.uint64)
        distinct = np.unique(shingles)
        for begin in range(0, len(distinct), self.SLAB):
            slab = distinct[begin : begin + self.SLAB, None]
            np.minimum(smallest, ((slab * a + b) % prime).min(axis=0), out=smallest)
        return [part.tolist() for part in np.split(smallest, self.config.num_buckets)]


class CheckReading(PipelineStep):
    """Ends the run with one line if too much could not be read or nothing was kept."""

    type = "own"
    name = "check"

    def __init__(self, recipe: Recipe, read: Path, rejected: Path) -> None:
        super().__init__()
        self.recipe = recipe
        self.read = read
        self.rejected = rejected

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Look at the tallies of the stage that reads and filters."""
        tally = read_tallies(self.read.glob("*.json"), 3)
        for source in self.recipe.source:
            bad = tally.counts[source.name, "bad lines"]
            lines = bad + tally.counts[source.name, "read"]
            if bad > self.recipe.bad_lines * lines:
                raise self._too_many(source.name, bad, lines, tally)
        read = sum(n for (_, event), n in tally.counts.items() if event == "read")
        rejections = read_tallies(self.rejected.glob("*.json"), 0).counts
        if sum(rejections.values()) >= read:
            raise nothing_left(read, rejections)

    def _too_many(self, source: str, bad: int, lines: int, tally: Tally) -> BadDataError:
        first = "; ".join(
            f"{example.name} ({example.text})" for example in tally.examples[source, "bad lines"]
        )
        return BadDataError(
            f"source {source}: {bad:,} of {lines:,} lines cannot be read, the limit is "
            f"bad_lines={self.recipe.bad_lines}; correct the files or raise it. Some: {first}",
            f"来源 {source}：{lines:,} 行中有 {bad:,} 行无法读取，上限为 "
            f"bad_lines={self.recipe.bad_lines}；请更正文件或提高上限。例如：{first}",
        )


def nothing_left(read: int, removed: Any) -> BadDataError:
    """The error for an empty result, with the most frequent reasons."""
    reasons: dict[str, int] = {}
    for (_, event), count in removed.items():
        reasons[event] = reasons.get(event, 0) + count
    most = sorted(reasons.items(), key=lambda item: -item[1])[:3]
    listed = ", ".join(f"{event} {count:,}" for event, count in most) or "no document"
    return BadDataError(
        f"nothing is left of {read:,} documents ({listed}); loosen the rules in the recipe or "
        "choose other sources",
        f"{read:,} 篇文档全部被移除（{listed}）；请放宽配方中的规则或更换来源",
    )


class IndexBenchmarks(PipelineStep):
    """Writes the index of each benchmark; one task each."""

    type = "own"
    name = "benchmarks"

    def __init__(self, recipe: Recipe, base: Path, folder: Path) -> None:
        super().__init__()
        self.recipe = recipe
        self.base = base
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Index benchmark ``rank``."""
        name, place = list(self.recipe.decontamination.benchmarks.items())[rank]
        words = self.recipe.decontamination.words
        count = write_index(self.base / place, self.folder / f"{name}.npy", words)
        tally = Tally(0)
        tally.add(name, "passages", count)
        tally.write(self.folder / f"{name}.json")


class Decontaminate(BaseFilter):
    """Removes documents with passages of a benchmark, and names it."""

    name = "decontaminate"

    def __init__(self, recipe: Recipe, folder: Path, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.settings = recipe.decontamination
        self.folder = folder
        self._index: BenchmarkIndex | None = None

    def filter(self, document: Document) -> bool | tuple[bool, str]:
        """Whether a document is free of benchmark questions."""
        if self._index is None:
            names = list(self.settings.benchmarks)
            self._index = BenchmarkIndex(self.folder, names, self.settings.words)
        found = self._index.look_up(document.text, self.settings.passages)
        if found is None:
            return True
        document.metadata["evidence"] = f"[{found.passages}] {found.text}"
        return False, found.benchmark
