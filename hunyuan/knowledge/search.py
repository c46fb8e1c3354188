"""From a question to the passages that may answer it, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hunyuan.errors import HunyuanError
from hunyuan.knowledge.catalogue import Catalogue, Passage
from hunyuan.knowledge.embedder import Embedder, Vectors
from hunyuan.knowledge.retriever import Ranking, Retriever, fuse
from hunyuan.knowledge.words import index_terms, is_seam, names, query_terms

CANDIDATES = 60
MAX_PER_DOCUMENT = 3
MAX_QUESTION = 2000

Mode = Literal["hybrid", "lexical"]


@dataclass(frozen=True)
class Hit:
    """A passage that was found."""

    passage: Passage
    score: float
    """Of the fused ranking; only for ordering."""

    coverage: float
    """Share of the question's words, weighted by rarity, that stand in it; 0 to 1."""

    nearness: float | None
    """In meaning, where there are vectors; see `nearness`."""

    unnamed: int
    """How many names of the question do not stand in it."""

    @property
    def confidence(self) -> float:
        """How likely it speaks of what was asked; 0 to 1, see `confidence`."""
        return confidence(self.coverage, self.nearness, self.unnamed)


@dataclass(frozen=True)
class Found:
    """What a question found."""

    hits: tuple[Hit, ...]
    mode: Mode
    weights: Mapping[str, float]
    """The question's words and how much each tells."""

    vector: Vectors | None
    """Of the question."""

    error: HunyuanError | None = None
    """Why there are no vectors although there is an embedding model."""

    @property
    def confidence(self) -> float:
        """How likely the passages speak of what was asked; that of the best."""
        return max((hit.confidence for hit in self.hits), default=0.0)


def confidence(coverage: float, nearness: float | None, unnamed: int) -> float:
    """Between 0 and 1; 0.5 is the border below which nothing is said to be found.

    Fitted on questions with and without an answer in the documents (`benchmarks/knowledge.py`).
    """
    x = 8 * (coverage - 0.4) if nearness is None else 4 * (coverage - 0.4) + 5 * nearness
    return 1 / (1 + math.exp(2.5 * min(unnamed, 2) - x))


def nearness(cosine: float, embedder: Embedder) -> float:
    """A cosine on a scale that all embedders share: 0 is the border to "near", 1 is equal."""
    return (cosine - embedder.near) / (1 - embedder.near)


def search(
    catalogue: Catalogue,
    retriever: Retriever,
    embedder: Embedder | None,
    collection: str,
    question: str,
    limit: int,
) -> Found:
    """The best ``limit`` passages of a collection for a question."""
    question = question[:MAX_QUESTION]
    terms = query_terms(question)
    vector, error = _vector(embedder, question)
    model = embedder.id if embedder is not None and vector is not None else None
    ranking = retriever.search(collection, terms, vector, model, CANDIDATES)
    weights = _weights(terms, ranking)
    near: dict[str, float] = {}
    if embedder is not None:
        near = {id: nearness(cosine, embedder) for id, cosine in ranking.dense}
    fused = dict(fuse(ranking))
    passages = _capped(catalogue.passages(list(fused)), 2 * limit)
    wanted = names(question)
    hits = [
        Hit(
            passage,
            fused[passage.id],
            coverage(weights, _context(passage)),
            near.get(passage.id),
            len(wanted.difference(index_terms(_context(passage)))),
        )
        for passage in passages
    ]
    hits.sort(key=lambda hit: -(hit.score + 0.01 * hit.coverage))
    merged = [_joined(catalogue, group) for group in _grouped(hits, limit)]
    if merged:
        merged[0] = _widened(catalogue, merged[0])
    mode: Mode = "hybrid" if ranking.dense else "lexical"
    return Found(tuple(merged), mode, weights, vector, error)


def coverage(weights: Mapping[str, float], text: str) -> float:
    """Share of the weights whose words stand in ``text``."""
    total = sum(weights.values())
    if not total:
        return 0.0
    present = set(index_terms(text))
    return sum(weight for term, weight in weights.items() if term in present) / total


def _vector(embedder: Embedder | None, question: str) -> tuple[Vectors | None, HunyuanError | None]:
    if embedder is None:
        return None, None
    try:
        return embedder.embed_queries([question])[0], None
    except HunyuanError as error:
        return None, error


def _weights(terms: Sequence[str], ranking: Ranking) -> dict[str, float]:
    """Inverse document frequency; a pair that exists nowhere and is no word does not count."""
    return {
        term: math.log(1 + (ranking.size + 0.5) / (ranking.frequency.get(term, 0) + 0.5))
        for term in terms
        if ranking.frequency.get(term, 0) or not is_seam(term)
    }


def _context(passage: Passage) -> str:
    return f"{passage.document.name}\n{passage.heading}\n{passage.text}"


def _capped(passages: Sequence[Passage], limit: int) -> list[Passage]:
    """At most `MAX_PER_DOCUMENT` of one document as long as others have any."""
    counts: dict[str, int] = {}
    first: list[Passage] = []
    later: list[Passage] = []
    for passage in passages:
        count = counts[passage.document.id] = counts.get(passage.document.id, 0) + 1
        (first if count <= MAX_PER_DOCUMENT else later).append(passage)
    return (first + later)[:limit]


def _grouped(hits: Sequence[Hit], limit: int) -> list[list[Hit]]:
    """Neighbouring passages of one page together, in the place of the best of them."""
    groups: list[list[Hit]] = []
    for hit in hits:
        for group in groups:
            if any(_adjacent(hit.passage, other.passage) for other in group):
                group.append(hit)
                break
        else:
            if len(groups) < limit:
                groups.append([hit])
    return groups


def _adjacent(one: Passage, other: Passage) -> bool:
    return (
        one.document.id == other.document.id
        and one.page == other.page
        and abs(one.ordinal - other.ordinal) == 1
    )


def _joined(catalogue: Catalogue, group: Sequence[Hit]) -> Hit:
    best = group[0]
    passages = [hit.passage for hit in group]
    return replace(
        best,
        passage=_stretched(catalogue, best.passage, passages),
        coverage=max(hit.coverage for hit in group),
        unnamed=min(hit.unnamed for hit in group),
    )


def _widened(catalogue: Catalogue, hit: Hit) -> Hit:
    """With its neighbours on the same page: what answers often stands beside what was asked."""
    passage = hit.passage
    beside = [
        catalogue.passage(passage.document, ordinal)
        for ordinal in (passage.ordinal - 1, passage.ordinal + 1)
    ]
    near = [other for other in beside if other is not None and other.page == passage.page]
    return replace(hit, passage=_stretched(catalogue, passage, [passage, *near]))


def _stretched(catalogue: Catalogue, passage: Passage, over: Sequence[Passage]) -> Passage:
    """The passage from the beginning of the first to the end of the last of ``over``."""
    start, end = min(other.start for other in over), max(other.end for other in over)
    text = catalogue.page(passage.document.id, passage.page)[start:end]
    return replace(passage, start=start, end=end, text=text)
