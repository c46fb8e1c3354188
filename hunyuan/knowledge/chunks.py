"""A page cut into passages of whole sentences that overlap a little."""

import re
from dataclasses import dataclass

from hunyuan.knowledge.sentences import Span, sentences
from hunyuan.knowledge.words import CJK

TARGET = 220.0
"""Size of a passage, in about tokens: a Chinese character is one, four Latin letters are."""

OVERLAP = 45.0
LONGEST_SENTENCE = 300.0
_WINDOW = 5 * int(LONGEST_SENTENCE)  # characters; more are too heavy in any language
MAX_HEADING = 120

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_CJK = re.compile(f"[{CJK}]")
_BREAK = re.compile(r"[\s，、；,;:：]")


@dataclass(frozen=True)
class Chunk:
    """One passage: where it stands, and the heading above it."""

    page: int
    start: int
    end: int
    heading: str


def weight(text: str) -> float:
    """About how many tokens a text has."""
    wide = len(_CJK.findall(text))
    return wide + (len(text) - wide) / 4


def cut(text: str, page: int, heading: str = "") -> tuple[list[Chunk], str]:
    """The passages of a page and the heading that holds at its end."""
    chunks: list[Chunk] = []
    taken: list[tuple[Span, float]] = []
    fresh = False
    size = 0.0
    above = heading

    def close() -> None:
        chunks.append(Chunk(page, taken[0][0].start, taken[-1][0].end, above))

    for span in _bounded(text, sentences(text)):
        title = _HEADING.match(text[span.start : span.end])
        heavy = weight(text[span.start : span.end])
        if taken and fresh and (size + heavy > TARGET or (title and size > TARGET / 3)):
            close()
            taken = [] if title else _tail(taken, TARGET - heavy)
            size = sum(w for _, w in taken)
            fresh = False
        if title:
            heading = title[1][:MAX_HEADING]
        if not fresh:
            above = heading
        taken.append((span, heavy))
        size += heavy
        fresh = True
    if fresh:
        close()
    return chunks, heading


def _tail(taken: list[tuple[Span, float]], room: float) -> list[tuple[Span, float]]:
    """The last sentences, which the next passage repeats."""
    kept: list[tuple[Span, float]] = []
    size = 0.0
    for span, heavy in reversed(taken[1:]):
        if size + heavy > min(OVERLAP, room):
            break
        kept.insert(0, (span, heavy))
        size += heavy
    return kept


def _bounded(text: str, spans: list[Span]) -> list[Span]:
    """Sentences beyond `LONGEST_SENTENCE` in pieces."""
    pieces: list[Span] = []
    for start, end in spans:
        while weight(text[start : min(end, start + _WINDOW)]) > LONGEST_SENTENCE:
            stop = _stop(text, start, end)
            pieces.append(Span(start, stop))
            start = stop
        pieces.append(Span(start, end))
    return pieces


def _stop(text: str, start: int, end: int) -> int:
    """A place to cut near `TARGET`, after a comma or space where there is one."""
    size, at = 0.0, start
    while at < end and size < TARGET:
        size += 1.0 if _CJK.match(text[at]) else 0.25
        at += 1
    found = [m.end() for m in _BREAK.finditer(text, start + (at - start) // 2, at)]
    return found[-1] if found else at
