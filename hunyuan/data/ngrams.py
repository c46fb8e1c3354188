"""Fingerprints of short passages, for finding near duplicates and benchmark texts.

A text is folded (NFKC, case) and read as *units*: one Han character, or one run of other letters
and digits; everything else only separates. A Chinese word is about two characters, so a word counts
two points and a Han character one, as do words of one or two letters: else counting to ten or two
nested loops in a program would be a passage. A passage is the shortest run of units from some unit
on that reaches a number of points: 13 words, 26 characters, or a mix. What it is depends on nothing
before it, so the same passage has the same fingerprint in any text.

All of it is arithmetic on whole arrays: 10 to 20 MB of text a second on one core, where a loop over
words manages one or two, with about 50 bytes of memory per character. Hashes are polynomials modulo
2 ** 64, stirred at the end.
"""

import unicodedata
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2 ** 64
_MASK = (1 << 64) - 1
_INVERSE = pow(_BASE, -1, 1 << 64)
_BLOCK = 1 << 20
_SEPARATOR, _WORD, _HAN = 0, 1, 2


def is_han(code: int) -> bool:
    """Whether a code point is a Chinese character."""
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0xF900 <= code <= 0xFAFF
        or 0x20000 <= code <= 0x3FFFF
    )


def passages(text: str, words: int) -> Hashes:
    """Fingerprints of all passages of ``words`` words (or twice as many Han characters).

    Empty for a shorter text; one per unit otherwise, in the order of the text.
    """
    hashes, points = _units(fold(text))
    reached = np.concatenate(([0], np.cumsum(points)))
    ends = np.searchsorted(reached, reached[:-1] + 2 * words)
    begins = np.arange(len(hashes))[ends < len(reached)]
    return _spans(hashes, begins, ends[ends < len(reached)])


def passage_text(text: str, words: int, i: int) -> str:
    """The folded text of passage ``i``, for people to look at."""
    text = fold(text)
    _, begins, ends = _cut(text)
    last = i + int(np.searchsorted(np.cumsum(_points(begins, ends)[i:]), 2 * words))
    return text[int(begins[i]) : int(ends[min(last, len(ends) - 1)])]


def whole(text: str) -> int:
    """One fingerprint of all units of a text."""
    hashes, _ = _units(fold(text))
    return int(_spans(hashes, np.array([0]), np.array([len(hashes)]))[0])


def fold(text: str) -> str:
    """``text`` without differences of case and of character width."""
    return unicodedata.normalize("NFKC", text).casefold()


def _units(text: str) -> tuple[Hashes, NDArray[np.int64]]:
    """Hash and points of each unit."""
    codes, begins, ends = _cut(text)
    return _spans(codes.astype(np.uint64), begins, ends), _points(begins, ends)


def _points(begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(ends - begins > 2, 2, 1)


def _cut(text: str) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """Code points of ``text``, where its units begin and where they end."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    kinds = _kinds()[codes]
    before = np.concatenate(([_SEPARATOR], kinds[:-1]))
    after = np.concatenate((kinds[1:], [_SEPARATOR]))
    begins = np.flatnonzero((kinds == _HAN) | ((kinds == _WORD) & (before != _WORD)))
    ends = np.flatnonzero((kinds == _HAN) | ((kinds == _WORD) & (after != _WORD))) + 1
    return codes, begins, ends


def _spans(values: Hashes, begins: NDArray[np.int64], ends: NDArray[np.int64]) -> Hashes:
    """Hash of ``values[b:e]`` for every pair, by differences of one running sum.

    The sum of value * base ** i up to e, less that up to b, is divided by base ** b, so that a
    span's hash does not depend on where it stands.
    """
    powers, inverses = _powers(-(-(len(values) + 1) // _BLOCK) * _BLOCK)
    weighted = values * powers[: len(values)]
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)))
    return _stir((sums[ends] - sums[begins]) * inverses[begins])


def _stir(hashes: Hashes) -> Hashes:
    """SplitMix64's last step: every bit of the result depends on every bit."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


@cache
def _kinds() -> NDArray[np.uint8]:
    """What each code point is: 1 MB, made once per process in a quarter of a second."""
    kinds = [
        _SEPARATOR if not chr(code).isalnum() else _HAN if is_han(code) else _WORD
        for code in range(0x110000)
    ]
    return np.array(kinds, np.uint8)


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """The first powers of the base and of its inverse, modulo 2 ** 64."""

    def of(base: int) -> Hashes:
        factors = np.full(count, base & _MASK, np.uint64)
        factors[0] = 1
        return np.cumprod(factors, dtype=np.uint64)

    return of(_BASE), of(_INVERSE)
