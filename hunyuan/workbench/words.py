"""Search in what people wrote: words for SQLite's full-text index, and the place of a match.

Unlike a question to one's documents, a search in conversations means the very words. Chinese has no
spaces, so each of its characters is a word here and a search term a phrase of them.
"""

import re
from typing import NamedTuple

from hunyuan.knowledge.words import CJK, normalise
from hunyuan.workbench.spans import utf16_length

_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")

_BEFORE, _AFTER = 40, 80


class Excerpt(NamedTuple):
    """A piece of a text around its first match."""

    text: str
    spans: list[tuple[int, int]]
    """Where the words that were looked for stand in ``text``, in UTF-16 code units."""


def index_text(text: str) -> str:
    """What the full-text index is given for ``text``."""
    return " ".join(_words(text))


def search_expression(query: str) -> str | None:
    """An FTS5 expression for all terms of ``query``, the last one as a beginning; None: no word."""
    phrases = [" ".join(words) for term in query.split() if (words := _words(term))]
    if not phrases:
        return None
    return " AND ".join(f'"{phrase}"' for phrase in phrases) + " *"


def match_in(text: str, query: str) -> Excerpt | None:
    """The surroundings of the first place in ``text`` where a term of ``query`` stands."""
    folded, places = "", list[int]()
    for place, character in enumerate(text):
        more = normalise(character)
        folded += more
        places += [place] * len(more)
    found = list[tuple[int, int]]()
    for term in query.split():
        if words := _words(term):
            pattern = r"[\W_]*".join(map(re.escape, words))
            for match in re.finditer(pattern, folded):
                found.append((places[match.start()], places[match.end() - 1] + 1))
    if not found:
        return None
    found.sort()
    start = max(0, found[0][0] - _BEFORE)
    end = min(len(text), found[0][1] + _AFTER)
    lead, tail = "…" if start else "", "…" if end < len(text) else ""
    spans = [
        tuple(utf16_length(text[start:edge]) + len(lead) for edge in span)
        for span in found
        if span[1] <= end
    ]
    return Excerpt(lead + text[start:end] + tail, spans)  # type: ignore[arg-type]


def _words(text: str) -> list[str]:
    return _WORD.findall(normalise(text))
