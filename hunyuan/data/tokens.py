"""Texts to token ids, in parallel, and the pieces of all tasks to the shards of a token set.

Each task writes its documents into one file per split and source; afterwards the files of a source
are joined in the order of the tasks, into shards of about equal size. Joining copies bytes, so it
runs at the speed of the disk, one task per source.

Which split a document belongs to depends on its text alone, so that a corpus prepared twice, or
with other sources beside it, holds out the same documents.
"""

# mypy: disable-error-code="misc"

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from hunyuan.data.recipe import Recipe
from hunyuan.data.shards import Shard, ShardRecord, ShardWriter, Split, end_of_text_id
from hunyuan.data.tally import Tally
from hunyuan.files import atomic_file
from hunyuan.tokenizer.load import load_tokenizer

RECORDS = "records.json"


def split_of(text: str, heldout: float) -> Split:
    """``heldout`` for about that share of all texts."""
    first = hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8]
    return "heldout" if int.from_bytes(first) < heldout * 2**64 else "train"


class WriteTokens(PipelineStep):
    """Tokenises the documents of a task."""

    type = "own"
    name = "tokens"

    def __init__(self, recipe: Recipe, tokenizer: Path, folder: Path, tallies: Path) -> None:
        super().__init__()
        self.recipe = recipe
        self.tokenizer = tokenizer
        self.folder = folder
        self.tallies = tallies

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> None:
        """Write the task's files, then the list of them."""
        folder = self.folder / f"{rank:05d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tokenizer = load_tokenizer(self.tokenizer)
        end_id, vocab = end_of_text_id(tokenizer), tokenizer.vocab_size
        tally = Tally(self.recipe.samples)
        writers: dict[tuple[Split, str], ShardWriter] = {}
        labels: dict[tuple[Split, str], Counter[str]] = {}
        with ExitStack() as stack:
            for document in data:
                source, label = document.metadata["source"], document.metadata["label"]
                key = (split_of(document.text, self.recipe.heldout), source)
                if key not in writers:
                    stem = folder / key[0] / source / "00000"
                    writer = ShardWriter(stem, vocab=vocab, end_id=end_id)
                    writers[key] = stack.enter_context(writer)
                    labels[key] = Counter()
                ids, size = tokenizer.encode(document.text), len(document.text.encode())
                writers[key].add(ids, utf8_bytes=size)
                labels[key][label] += 1
                tally.add(source, f"kept {label}")
                tally.add(source, f"kept tokens {label}", len(ids) + 1)
                tally.add(source, f"kept bytes {label}", size)
                tally.add(source, f"kept characters {label}", len(document.text))
                tally.show(source, "kept", document.id, document.text)
        licenses = {source.name: source.license for source in self.recipe.source}
        records = [
            writer.record(
                split=split,
                source=source,
                number=0,
                language=_language(labels[split, source]),
                license=licenses[source],
            )
            for (split, source), writer in sorted(writers.items())
        ]
        with atomic_file(folder / RECORDS) as file:
            file.write(json.dumps([asdict(record) for record in records]).encode())
        tally.write(self.tallies / f"{rank:05d}.json")


class JoinShards(PipelineStep):
    """Joins what the tasks wrote of one source into its shards."""

    type = "own"
    name = "shards"

    def __init__(self, recipe: Recipe, folder: Path, target: Path, records: Path) -> None:
        super().__init__()
        self.recipe = recipe
        self.folder = folder
        self.target = target
        self.records = records

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the shards of source ``rank``, then the list of them."""
        source = self.recipe.source[rank]
        written: list[ShardRecord] = []
        for split in get_args(Split):
            shutil.rmtree(self.target / split / source.name, ignore_errors=True)
            parts = list(self._parts(split, source.name))
            number = done = at = 0
            while done < len(parts):
                with self._writer(split, source.name, number) as writer:
                    languages: set[str] = set()
                    while done < len(parts) and writer.tokens < self.recipe.shard_tokens:
                        part = parts[done]
                        languages.add(part.record.language)
                        at = _copy(part, at, writer, self.recipe.shard_tokens)
                        if at == part.record.documents:
                            done, at = done + 1, 0
                written.append(
                    writer.record(
                        split=split,
                        source=source.name,
                        number=number,
                        language=languages.pop() if len(languages) == 1 else "mixed",
                        license=source.license,
                    )
                )
                number += 1
        with atomic_file(self.records / f"{rank:05d}.json") as file:
            file.write(json.dumps([asdict(record) for record in written]).encode())

    def _parts(self, split: Split, source: str) -> Iterator[Shard]:
        for path in sorted(self.folder.glob(f"*/{RECORDS}")):
            for record in read_records(path):
                if (record.split, record.source) == (split, source) and record.documents:
                    yield Shard(path.parent, record)

    def _writer(self, split: Split, source: str, number: int) -> ShardWriter:
        tokenizer = load_tokenizer(self.target / "tokenizer")
        stem = self.target / split / source / f"{number:05d}"
        return ShardWriter(stem, vocab=tokenizer.vocab_size, end_id=end_of_text_id(tokenizer))


def _copy(part: Shard, at: int, writer: ShardWriter, most: int) -> int:
    """Copy documents from ``at`` on until the shard is full; returns where it stopped.

    The manifest counts the bytes of text per shard, so a part that is cut gives them in
    proportion to its tokens, and the rest to the next.
    """
    ends = np.cumsum(part.lengths[at:].astype(np.int64))
    count = int(np.searchsorted(ends, most - writer.tokens)) + 1
    stop = min(at + count, part.record.documents)
    writer.copy(part, at, stop)
    return stop


def _language(labels: Counter[str]) -> str:
    """The language of a source if nearly all of it is in one, else ``mixed``."""
    (label, count), total = labels.most_common(1)[0], labels.total()
    return label if count >= 0.95 * total else "mixed"


def read_records(path: Path) -> list[ShardRecord]:
    """The list of files that a task wrote."""
    return [ShardRecord(**entry) for entry in json.loads(path.read_bytes())]
