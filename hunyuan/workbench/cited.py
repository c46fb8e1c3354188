"""A model's text with citation marks, checked sentence by sentence against the passages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hunyuan.knowledge.embedder import Embedder
from hunyuan.knowledge.quotes import Support, find, missing_numbers, support
from hunyuan.knowledge.search import nearness
from hunyuan.knowledge.sentences import Span, sentences
from hunyuan.workbench.language import text_language

Status = Literal["supported", "matched", "unsupported", "uncited"]
"""What is cited says so; nothing was cited but a passage says so; what is cited does not say so;
nothing was cited and no passage says so."""

SAME_MEANING = 0.2
"""Nearness from which a sentence in another language counts as saying the same."""

_MARKS = re.compile(r"\s*\[(\d{1,3})\]")
_ENDS = tuple(".!?。！？…”’」』\"')）]")
_QUOTED = re.compile(r"[“「『\"]([^“”「」『』\"]{6,})[”」』\"]")


@dataclass(frozen=True)
class Citation:
    """A passage that a sentence rests on."""

    passage: int
    """Its number, from 1."""

    span: Span | None
    """The sentence of the passage that says so."""

    verified: bool
    added: bool
    """Whether the check found it, not the model."""


@dataclass(frozen=True)
class Sentence:
    """One sentence of the answer."""

    text: str
    status: Status
    citations: tuple[Citation, ...]


def checked(answer: str, passages: Sequence[str], embedder: Embedder | None) -> list[Sentence]:
    """The sentences of ``answer``, each with the passages that it cites and that say so.

    Marks of passages that do not exist are dropped, and so are sentences that were said before and
    one that was not finished.
    """
    once: dict[str, list[int]] = {}
    said = split_citations(answer)
    if len(said) > 1 and not said[-1][1] and not said[-1][0].endswith(_ENDS):
        said.pop()
    for text, numbers in said:
        known = once.setdefault(text, [])
        known += [n for n in numbers if 1 <= n <= len(passages) and n not in known]
    return [_checked(text, cited, passages, embedder) for text, cited in once.items()]


def split_citations(answer: str) -> list[tuple[str, list[int]]]:
    """Sentences without their marks, and the marks of each."""
    text = ""
    marks: list[tuple[int, int]] = []
    end = 0
    for mark in _MARKS.finditer(answer):
        text += answer[end : mark.start()]
        marks.append((len(text), int(mark[1])))
        end = mark.end()
    text += answer[end:]
    found = []
    spans = [s for s in sentences(text) if any(c.isalnum() for c in text[s.start : s.end])]
    for i, span in enumerate(spans):
        # A mark belongs to the sentence before it, also where it stands before the full stop.
        until = spans[i + 1].start if i + 1 < len(spans) else len(text) + 1
        since = span.start if i else -1
        numbers = [number for at, number in marks if since < at <= until - (i + 1 < len(spans))]
        found.append((text[span.start : span.end], list(dict.fromkeys(numbers))))
    return found


def _checked(
    text: str, cited: list[int], passages: Sequence[str], embedder: Embedder | None
) -> Sentence:
    citations = []
    for number in cited:
        holds, span = _holds(text, passages[number - 1], embedder)
        citations.append(Citation(number, span, holds, added=False))
    if any(citation.verified for citation in citations):
        return Sentence(text, "supported", tuple(citations))
    for number, passage in enumerate(passages, start=1):
        if number in cited:
            continue
        holds, span = _holds(text, passage, embedder)
        if holds:
            added = Citation(number, span, verified=True, added=True)
            return Sentence(text, "matched", (*citations, added))
    return Sentence(text, "unsupported" if cited else "uncited", tuple(citations))


def _holds(text: str, passage: str, embedder: Embedder | None) -> tuple[bool, Span | None]:
    """Whether the passage says what the sentence says, and which of its sentences does."""
    for quoted in _QUOTED.findall(text):
        if find(quoted, passage) is None:
            return False, None
    found: Support = support(text, passage)
    if found.holds:
        return True, found.span
    if embedder is None or text_language(text) == text_language(passage):
        return False, found.span
    if missing_numbers(text, passage):
        return False, found.span
    # Words say nothing across languages.
    spans = sentences(passage)
    if not spans:
        return False, None
    vectors = embedder.embed_passages([text, *(passage[s.start : s.end] for s in spans)])
    cosines = vectors[1:] @ vectors[0]
    best = int(cosines.argmax())
    return nearness(float(cosines[best]), embedder) >= SAME_MEANING, spans[best]
