"""Whether words that are said to stand in a text do stand there, and where."""

import re
import unicodedata
from dataclasses import dataclass

from hunyuan.knowledge.radicals import RADICALS
from hunyuan.knowledge.sentences import Span, sentences
from hunyuan.knowledge.words import CJK, STOP_WORDS, index_terms, is_seam

SUPPORTED = 0.6
"""Share of a sentence's words that a passage must have to be said to support it."""

_CJK = re.compile(f"[{CJK}]")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_CHINESE_NUMERALS = str.maketrans("〇零一二两三四五六七八九", "001223456789")


def find(quote: str, text: str) -> Span | None:
    """Where ``quote`` stands in ``text``, whatever the white space and the width of its letters.

    Characters are compared after NFKC; case counts. None if it does not stand there.
    """
    wanted, _ = _plain(quote)
    if not wanted:
        return None
    plain, places = _plain(text)
    at = plain.find(wanted)
    if at < 0:
        return None
    return Span(places[at], places[at + len(wanted) - 1] + 1)


@dataclass(frozen=True)
class Support:
    """How far a passage says what a sentence says."""

    share: float
    """Of the sentence's words and word pairs, those the passage has."""

    missing_numbers: tuple[str, ...]
    """Numbers of the sentence that the passage does not have."""

    span: Span | None
    """The sentence of the passage that is nearest to it."""

    @property
    def holds(self) -> bool:
        """Whether the passage can be cited for it."""
        return self.share >= SUPPORTED and not self.missing_numbers


def support(sentence: str, passage: str) -> Support:
    """Compare a sentence with a passage, by words: a check, not a proof."""
    wanted = content_terms(sentence)
    present = set(index_terms(passage))
    share = len(wanted & present) / len(wanted) if wanted else 0.0
    best: Span | None = None
    most = 0.0
    for span in sentences(passage):
        here = content_terms(passage[span.start : span.end])
        # Of two sentences that share as much, the shorter says it more exactly.
        score = len(wanted & here) / (len(wanted | here) ** 0.5 or 1)
        if score > most:
            best, most = span, score
    return Support(share, missing_numbers(sentence, passage), best)


def missing_numbers(sentence: str, passage: str) -> tuple[str, ...]:
    """Numbers of ``sentence`` that do not stand in ``passage``, however they are written there."""
    there = _numbers(passage) | _numbers(passage.translate(_CHINESE_NUMERALS))
    return tuple(sorted(_numbers(sentence) - there))


def content_terms(text: str) -> set[str]:
    """Words and pairs that carry meaning."""
    return {
        term
        for term in index_terms(text)
        if term not in STOP_WORDS and not is_seam(term) and (len(term) > 1 or not _CJK.match(term))
    }


def _numbers(text: str) -> set[str]:
    plain = unicodedata.normalize("NFKC", text)
    return {found.replace(",", "").rstrip(".") for found in _NUMBER.findall(plain)}


def _plain(text: str) -> tuple[str, list[int]]:
    """The text with one space for any white space (none beside Chinese), and each one's place."""
    letters: list[str] = []
    places: list[int] = []
    for place, char in enumerate(text):
        if char.isspace():
            if letters and letters[-1] != " ":
                letters.append(" ")
                places.append(place)
            continue
        for letter in unicodedata.normalize("NFKC", char.translate(RADICALS)):
            if letters and letters[-1] == " " and (_is_cjk(letter) or _is_cjk(letters[-2:-1])):
                letters.pop()
                places.pop()
            letters.append(letter)
            places.append(place)
    while letters and letters[-1] == " ":
        letters.pop()
        places.pop()
    return "".join(letters), places


def _is_cjk(letter: str | list[str]) -> bool:
    return bool(letter) and _CJK.match(letter[0]) is not None
