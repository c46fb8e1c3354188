"""The sentences of the passages that answer best, word for word.

A small model may tell a story; these sentences are what the documents say.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hunyuan.knowledge.embedder import Embedder, Vectors
from hunyuan.knowledge.search import Found, Hit, coverage, nearness
from hunyuan.knowledge.sentences import Span, sentences

MAX_QUOTES = 3
MAX_EMBEDDED = 16
MAX_CHARACTERS = 400

_HOW_MANY = re.compile(
    r"多少|几|哪一?年|何时|什么时候|多[长高大深远重久快]|"
    r"how (?:many|much|long|tall|high|far|old|deep|large|big|fast|often)|"
    r"\bwhen\b|what year|which year|what (?:date|time)",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"(?:It|Its|They|Their|He|His|She|Her|This|These)\b|[它他她其该此这]")
_DIGIT = re.compile(r"[\d零一二三四五六七八九十百千万亿两]")


@dataclass(frozen=True)
class Quote:
    """A sentence of the passage ``hit``, at ``span`` of its page."""

    hit: int
    """Index into the hits."""

    span: Span
    text: str
    heading: str
    score: float


def extract(question: str, found: Found, embedder: Embedder | None) -> list[Quote]:
    """Up to `MAX_QUOTES` sentences, best first; empty if nothing was found."""
    quotes = [
        quote
        for place, hit in enumerate(found.hits)
        for quote in _scored(question, found, place, hit)
    ]
    quotes.sort(key=lambda quote: -quote.score)
    if found.vector is not None and embedder is not None:
        quotes = _by_meaning(quotes, found, found.vector, embedder)
    kept: list[Quote] = []
    for quote in quotes:
        if kept and quote.score < 0.7 * kept[0].score:
            break
        if all(quote.text != other.text for other in kept):
            kept.append(quote)
    return kept[:MAX_QUOTES]


def _scored(question: str, found: Found, place: int, hit: Hit) -> list[Quote]:
    passage = hit.passage
    quotes = []
    before, heading = "", passage.heading
    for span in sentences(passage.text):
        text = passage.text[span.start : span.end]
        if _is_heading(text):
            before, heading = "", text.lstrip("# ")
            continue
        own = coverage(found.weights, text)
        context = f"{passage.document.name} {heading} {before}"
        around = coverage(found.weights, f"{context} {text}")
        if _PRONOUN.match(text):
            own = max(own, 0.9 * around)
        score = 0.7 * own + 0.3 * around - 0.02 * place
        if _HOW_MANY.search(question) and _DIGIT.search(text):
            score += 0.25
        shifted = Span(passage.start + span.start, passage.start + span.end)
        quotes.append(Quote(place, shifted, text[:MAX_CHARACTERS], heading, score))
        before = text
    return quotes


def _by_meaning(
    quotes: Sequence[Quote], found: Found, vector: Vectors, embedder: Embedder
) -> list[Quote]:
    """The first of them with their nearness to the question added, best first."""
    first = list(quotes[:MAX_EMBEDDED])
    if not first:
        return []
    headed = [f"{quote.heading} {quote.text}".strip() for quote in first]
    cosines = embedder.embed_passages(headed) @ vector
    again = [
        replace(quote, score=quote.score + nearness(float(cosine), embedder))
        for quote, cosine in zip(first, cosines, strict=True)
    ]
    return sorted(again, key=lambda quote: -quote.score)


def _is_heading(text: str) -> bool:
    short = len(text) < 30 and text[-1].isalnum() and not _DIGIT.search(text)
    return text.startswith("#") or short
