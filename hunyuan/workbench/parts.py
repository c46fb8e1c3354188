"""Cutting a long text into parts that a model can work on one by one."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_PARAGRAPH = re.compile(r"(?:[^\n]|\n(?!\s*\n))+|\n(?:\s*\n)+|\n")
_SENTENCE = re.compile(r".+?(?:[。！？!?]+[”’」』\"']*|\.(?=\s)|\n|$)\s*", re.DOTALL)
_LETTER = re.compile(r"\w")

Count = Callable[[str], Awaitable[int]]


@dataclass(frozen=True)
class Part:
    """A piece of a text; all pieces joined are the text."""

    lead: str
    """White space before it, which no model touches."""

    text: str
    trail: str
    """White space after it."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to work on: no letter or number."""
        return _LETTER.search(self.text) is None


async def parts_of(text: str, limit: int, count: Count) -> list[Part]:
    """``text`` in parts of at most ``limit`` tokens, cut between paragraphs where possible.

    A paragraph that is too long is cut between sentences, a sentence in the middle.
    """
    pieces: list[tuple[str, int]] = []
    for paragraph in _PARAGRAPH.findall(text):
        pieces += await _small(paragraph, limit, count)
    parts: list[str] = []
    room = 0
    for piece, tokens in pieces:
        if parts and tokens <= room:
            parts[-1] += piece
            room -= tokens
        else:
            parts.append(piece)
            room = limit - tokens
    return [_bordered(part) for part in parts]


async def _small(piece: str, limit: int, count: Count) -> list[tuple[str, int]]:
    if not piece.strip():
        return [(piece, len(piece))]
    tokens = await count(piece)
    if tokens <= limit or len(piece) < 2:
        return [(piece, tokens)]
    sentences = _SENTENCE.findall(piece)
    if len(sentences) < 2:
        middle = len(piece) // 2
        space = piece.rfind(" ", 1, middle)
        cut = middle if space < middle // 2 else space + 1
        sentences = [piece[:cut], piece[cut:]]
    small: list[tuple[str, int]] = []
    for sentence in sentences:
        small += await _small(sentence, limit, count)
    return small


def _bordered(text: str) -> Part:
    core = text.strip()
    start = len(text) - len(text.lstrip())
    return Part(text[:start], core, text[start + len(core) :])


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the space around them."""
    return [found for piece in _SENTENCE.findall(text) if (found := piece.strip())]


def ending(text: str, characters: int) -> str:
    """The last ``characters`` at most, from the beginning of a sentence where there is one."""
    if len(text) <= characters:
        return text.strip()
    tail = text[-characters:]
    starts = [match.start() for match in _SENTENCE.finditer(tail)][1:]
    return tail[starts[0] :].strip() if starts and starts[0] < len(tail) - 20 else tail.strip()


def beginning(text: str, characters: int) -> str:
    """The first ``characters`` at most, to the end of a sentence where there is one."""
    if len(text) <= characters:
        return text.strip()
    return to_sentence_end(text[:characters]) or text[:characters].strip()


def to_sentence_end(text: str) -> str:
    """``text`` without an unfinished last sentence; empty if there is no finished one."""
    finished = list(re.finditer(r"[。！？!?]+[”’」』\"']*|\.[\"”]?(?=\s|$)", text))
    return text[: finished[-1].end()].strip() if finished else ""
