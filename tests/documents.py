"""Documents for tests of retrieval, and an embedder that needs no model."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hunyuan.knowledge.base import KnowledgeBase
from hunyuan.knowledge.catalogue import Document
from hunyuan.knowledge.embedder import Vectors

FOLDER = Path(__file__).parent / "data" / "knowledge"
NAMES = sorted(p.name for p in FOLDER.iterdir() if p.name not in ("questions.jsonl", "README.md"))


class WordEmbedder:
    """A vector is the sum of one random direction for each word: equal words are near."""

    id = "words"
    dimensions = 64
    near = 0.15

    def __init__(self) -> None:
        self.passages = 0

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self._vector(text) for text in texts])

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        self.passages += len(texts)
        return np.stack([self._vector(text) for text in texts])

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)

    def _vector(self, text: str) -> Any:
        total = np.full(self.dimensions, 1e-6, np.float32)
        for word in re.findall(r"[a-z]+|[\u4e00-\u9fff]", text.lower()):
            seed = int.from_bytes(word.encode()[:8], "little")
            total += np.random.default_rng(seed).standard_normal(self.dimensions)
        return (total / np.linalg.norm(total)).astype(np.float32)


def add(base: KnowledgeBase, collection: str, name: str, data: bytes) -> Document:
    with base.upload(collection, name) as upload:
        upload.write(data)
        return upload.finish()[0]


def settled(base: KnowledgeBase, collection: str, seconds: float = 30) -> list[Document]:
    """The documents, once nothing is left to do for any."""
    end = time.monotonic() + seconds
    while any(progress.busy for progress in base.progress(collection)):
        assert time.monotonic() < end, "the import did not end"
        time.sleep(0.01)
    return base.documents(collection)
