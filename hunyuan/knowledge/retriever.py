"""Finding passages: what an index must offer, and how its two rankings become one."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hunyuan.knowledge.embedder import Vectors

RRF_K = 60
"""Reciprocal rank fusion: one over this plus the rank; the value of the paper that named it."""

MAX_TERMS = 32
MAX_POSTINGS = 40_000
"""Of a question the rarest terms are looked up, until they stand in this many passages together:
common words decide little and take the most time."""


@dataclass(frozen=True)
class Entry:
    """A passage to be found: its words are those of ``text`` (the heading included)."""

    id: str
    collection: str
    document: str
    text: str


@dataclass(frozen=True)
class Ranking:
    """What was found for one question, each by falling score."""

    lexical: Sequence[tuple[str, float]] = ()
    """Ids and BM25-like scores, larger is better."""

    dense: Sequence[tuple[str, float]] = ()
    """Ids and cosines."""

    frequency: Mapping[str, int] = field(default_factory=dict)
    """In how many passages of the index each term stands."""

    size: int = 0
    """How many passages the index has."""


class Retriever(Protocol):
    """An index of passages by words and, where there are any, vectors.

    May be called from several threads at once. Each call happens wholly or not at all.
    """

    def upsert(self, entries: Sequence[Entry]) -> None:
        """Add passages, replacing those of the same id (and dropping their vectors)."""

    def unembedded(self, document: str, model: str) -> list[str]:
        """Ids of a document's passages without a vector of this model."""

    def embed(self, document: str, model: str, vectors: Mapping[str, Vectors]) -> None:
        """Keep vectors, (dimensions,) each, of passages of one document."""

    def search(
        self,
        collection: str,
        terms: Sequence[str],
        vector: Vectors | None,
        model: str | None,
        limit: int,
    ) -> Ranking:
        """The best passages of a collection by ``terms`` and by ``vector`` of ``model``.

        A document's vectors count only once all of its passages have one.
        """

    def delete(self, *, collection: str | None = None, document: str | None = None) -> None:
        """Forget a collection or a document."""

    def close(self) -> None:
        """Give up what is held. May be repeated."""


def fuse(ranking: Ranking) -> list[tuple[str, float]]:
    """Ids by reciprocal rank fusion of both rankings, best first."""
    scores: defaultdict[str, float] = defaultdict(float)
    for ranked in (ranking.lexical, ranking.dense):
        for place, (id, _) in enumerate(ranked):
            scores[id] += 1 / (RRF_K + place + 1)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def telling(frequency: Mapping[str, int]) -> list[str]:
    """The rarest terms that the index has, at least one, as far as `MAX_POSTINGS` go."""
    known = sorted((term for term, count in frequency.items() if count), key=frequency.__getitem__)
    sums = itertools.accumulate(frequency[term] for term in known)
    taken = [term for term, total in zip(known, sums, strict=True) if total <= MAX_POSTINGS]
    return (taken or known[:1])[:MAX_TERMS]
