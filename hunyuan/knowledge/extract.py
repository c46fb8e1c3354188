"""The sentences of the passages that answer best, word for word.

A small model may tell a story; these sentences are what the documents say. They are chosen in two
steps: words, place and kind of answer (`hunyuan.knowledge.asked`) leave `MAX_EMBEDDED` of them,
whose nearness in meaning then counts, alone and with the sentence before. The weights are those of
a softmax over the sentences of a question, fitted on the tuning half of `benchmarks/knowledge.py`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from hunyuan.knowledge.asked import counted, expected
from hunyuan.knowledge.chunks import weight
from hunyuan.knowledge.embedder import Embedder, Vectors
from hunyuan.knowledge.search import Found, Hit, coverage, nearness
from hunyuan.knowledge.sentences import Span, sentences
from hunyuan.knowledge.words import index_terms, names

MAX_QUOTES = 3
MAX_EMBEDDED = 24
MAX_CHARACTERS = 400
SHORT = 60.0
"""Up to about so many tokens a quote takes in the sentences that follow."""

MAX_FOLLOWING = 2
_BEFORE = 160  # characters of the sentence before, where a pronoun is explained

_ENDED = re.compile(r"[.!?。！？…][”’」』）\"')\]]*$")
_DIGIT = re.compile(r"[\d零一二三四五六七八九十百千万亿两]")


class _Weights(NamedTuple):
    own: float
    around: float
    kind: float
    place: float


_BY_WORDS = _Weights(3.0, 3.0, 2.0, 2.0)
_BESIDE_MEANING = _Weights(0.53, 0.88, 2.27, 1.31)
_ALONE, _IN_CONTEXT = 5.8, 5.5
"""Of the nearness of the sentence, and of it with the one before."""

_UNNAMED = 3.0
"""For each name or counted thing of the question, two at most, that a passage lacks."""


class Border(NamedTuple):
    """A score as how likely the quotes answer: 1 / (1 + exp(steepness (middle - score)))."""

    middle: float
    steepness: float


BY_WORDS = Border(4.85, 1.0)
BY_MEANING = Border(3.3, 0.8)


@dataclass(frozen=True)
class Quote:
    """A sentence (short ones with what follows) of the passage ``hit``, at ``span`` of its page."""

    hit: int
    """Index into the hits."""

    span: Span
    text: str
    heading: str
    before: str
    """The sentence before."""

    score: float
    fits: bool
    """Whether it has the kind of thing that was asked for, as far as the question tells."""

    named: bool
    """Whether its passage has every name of the question."""


def extract(question: str, found: Found, embedder: Embedder | None) -> list[Quote]:
    """Up to `MAX_QUOTES` places, best first; empty if nothing was found."""
    kind = expected(question)
    named = names(question)
    wanted = named | set(index_terms(counted(question)))
    meaning = found.vector is not None and embedder is not None
    quotes = [
        quote
        for place, hit in enumerate(found.hits)
        for quote in _scored(kind, named, wanted, found, place, hit)
    ]
    quotes.sort(key=lambda pair: -pair[1])
    first = [quote for quote, _ in quotes[:MAX_EMBEDDED]] if meaning else None
    if first and found.vector is not None and embedder is not None:
        ranked = _by_meaning(first, found.vector, embedder)
    else:
        ranked = [replace(quote, score=score) for quote, score in quotes]
    kept: list[Quote] = []
    for quote in ranked:
        if all(quote.text not in other.text for other in kept):
            kept.append(_with_following(quote, found.hits[quote.hit], kind))
        if len(kept) == MAX_QUOTES:
            break
    return kept


def confidence(question: str, quotes: Sequence[Quote], *, meaning: bool) -> float:
    """How likely the quotes answer; 0 to 1, below 0.5 nothing is said to be found.

    ``meaning``: whether they were chosen by vectors too. What lacks the kind of thing or the names
    that were asked for does not answer.
    """
    if not quotes:
        return 0.0
    border = BY_MEANING if meaning else BY_WORDS
    sure = 1 / (1 + math.exp(border.steepness * (border.middle - quotes[0].score)))
    answers = any(quote.fits for quote in quotes) and any(quote.named for quote in quotes)
    return sure if answers else min(sure, 0.4)


def quoted_first(found: Found, quotes: Sequence[Quote]) -> tuple[Found, list[Quote]]:
    """The same with the passages in the order of what is quoted of them."""
    order = [*dict.fromkeys(quote.hit for quote in quotes)]
    order += [place for place in range(len(found.hits)) if place not in order]
    hits = tuple(found.hits[place] for place in order)
    moved = [replace(quote, hit=order.index(quote.hit)) for quote in quotes]
    return replace(found, hits=hits), moved


def _scored(
    kind: re.Pattern[str] | None,
    named: set[str],
    wanted: set[str],
    found: Found,
    place: int,
    hit: Hit,
) -> list[tuple[Quote, float]]:
    """The sentences of a passage with what nearness adds to, and their scores by words alone."""
    passage = hit.passage
    present = set(index_terms(f"{passage.document.name} {passage.heading} {passage.text}"))
    lacking = len(wanted - present)
    scored = []
    before, heading = "", passage.heading
    for span in sentences(passage.text):
        text = passage.text[span.start : span.end]
        if _is_heading(text):
            before, heading = "", text.lstrip("# ")
            continue
        fits = kind is None or kind.search(text) is not None
        features = _Weights(
            coverage(found.weights, text),
            coverage(found.weights, f"{passage.document.name} {heading} {before} {text}"),
            0.5 if kind is None else float(fits),
            1 / (1 + place),
        )
        less = _UNNAMED * min(lacking, 2)
        shifted = Span(passage.start + span.start, passage.start + span.end)
        quote = Quote(
            place,
            shifted,
            text[:MAX_CHARACTERS],
            heading,
            before,
            _dot(_BESIDE_MEANING, features) - less,
            fits,
            named <= present,
        )
        scored.append((quote, _dot(_BY_WORDS, features) - less))
        before = text
    return scored


def _dot(weights: _Weights, features: _Weights) -> float:
    return sum(w * f for w, f in zip(weights, features, strict=True))


def _by_meaning(quotes: Sequence[Quote], vector: Vectors, embedder: Embedder) -> list[Quote]:
    """With their nearness to the question added, alone and in context, best first."""
    texts = [f"{quote.heading} {quote.text}".strip() for quote in quotes]
    texts += [f"{q.heading} {q.before[-_BEFORE:]} {q.text}".strip() for q in quotes]
    near = [nearness(float(cosine), embedder) for cosine in embedder.embed_passages(texts) @ vector]
    half = len(quotes)
    again = [
        replace(quote, score=quote.score + _ALONE * alone + _IN_CONTEXT * context)
        for quote, alone, context in zip(quotes, near[:half], near[half:], strict=True)
    ]
    return sorted(again, key=lambda quote: -quote.score)


def _with_following(quote: Quote, hit: Hit, kind: re.Pattern[str] | None) -> Quote:
    """A short one with what follows in its paragraph: an answer often goes on there."""
    passage = hit.passage
    start, end = quote.span.start - passage.start, quote.span.end - passage.start
    following = 0
    for span in sentences(passage.text):
        if span.start < end:
            continue
        if "\n\n" in passage.text[end : span.start] or following == MAX_FOLLOWING:
            break
        if not _ENDED.search(passage.text[start:end]):
            break  # a line of its own, a title or an item
        if weight(passage.text[start : span.end]) > SHORT:
            break
        if _is_heading(passage.text[span.start : span.end]):
            break
        end, following = span.end, following + 1
    text = passage.text[start:end][:MAX_CHARACTERS]
    fits = quote.fits or (kind is not None and kind.search(text) is not None)
    span = Span(quote.span.start, passage.start + end)
    return replace(quote, span=span, text=text, fits=fits)


def _is_heading(text: str) -> bool:
    short = len(text) < 30 and text[-1].isalnum() and not _DIGIT.search(text)
    return text.startswith("#") or short
