"""Where sentences begin and end, in Chinese and English, also in text with wrapped lines."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from hunyuan.knowledge.words import CJK


class Span(NamedTuple):
    """``text[start:end]``, in characters of a Python string."""

    start: int
    end: int


_CLOSERS = "”’」』）】》〉\"')\\]"
_END = re.compile(
    rf"[。！？…]+[{_CLOSERS}]*"
    rf"|[!?]+[{_CLOSERS}]*(?=\s|$|[{CJK}])"
    rf"|\.[{_CLOSERS}]*(?=\s|$|[{CJK}])"
    r"|\n"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|al|approx|Mr|Mrs|Ms|Dr|Prof|St|No|Nos|Fig|Figs|Eq|Sec|Vol|pp|Inc|"
    r"Ltd|Co|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
    r"|(?:^|[A-Z][\w.]*\s|[.!?]\s?)[A-Z]|^\s*\d{1,3})$"
)
_NEW_ITEM = re.compile(
    r"\s*(?:[-*+•·◦▪|>#]|\(?\d{1,3}[.)、]|[（(][一二三四五六七八九十\d]+[)）]|[一二三四五六七八九十]+、)"
)
_WIDE = frozenset("WF")
_BETWEEN_CJK = re.compile(
    rf"(?<=[{CJK}，。、；：！？”’）》」])\s*\n\s*(?=[{CJK}“‘（《「，。、；：！？])"
)


def width(text: str) -> int:
    """Columns on a terminal: Chinese characters are two wide. Beyond 500 characters it is wide."""
    return sum(2 if unicodedata.east_asian_width(char) in _WIDE else 1 for char in text[:500])


def wraps(lines: Sequence[str]) -> list[bool]:
    """For each line whether it ends only because the column does, so that it goes on in the next.

    A column shows by neighbouring lines of about its width.
    """
    widths = [width(line) for line in lines]
    return [
        columns >= 36
        and i + 1 < len(lines)
        and columns >= 0.75 * max(widths[max(0, i - 2) : i + 3])
        and lines[i + 1].strip() != ""
        and not _NEW_ITEM.match(lines[i + 1])
        and not lines[i].lstrip().startswith(("#", "|"))
        for i, columns in enumerate(widths)
    ]


def sentences(text: str) -> list[Span]:
    """The sentences of a text, without the white space around them; lists and headings by line."""
    spans: list[Span] = []
    start = 0
    goes_on = iter(wraps(text.split("\n")))
    for found in _END.finditer(text):
        if found[0] == "\n":
            if next(goes_on):
                continue
        elif found[0].startswith(".") and _ABBREVIATION.search(_before(text, found.start())):
            continue
        _add(spans, text, start, found.end())
        start = found.end()
    _add(spans, text, start, len(text))
    return spans


def flat(text: str) -> str:
    """A sentence on one line: breaks between Chinese characters go, others are a space."""
    return " ".join(_BETWEEN_CJK.sub("", text).split())


def _before(text: str, end: int) -> str:
    return text[max(text.rfind("\n", 0, end) + 1, end - 12) : end]


def _add(spans: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append(Span(start, end))
