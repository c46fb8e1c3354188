"""Why a text is not worth training on: one reason, or none.

The rules for prose are Gopher's, as datatrove implements them, over our own way of finding words:
runs of letters, and pairs of Han characters, which is about what a Chinese word is. Code has the
rules of the large code corpora: no machine-written files, no data in the form of code, no minified
lines. Books are only asked to be readable and not to repeat themselves.

Repetition is judged by an excerpt of long texts, since those rules look at each word ten times.
"""

# mypy: disable-error-code="misc"

import re
from collections.abc import Iterator
from itertools import islice

from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.word_tokenizers import WordTokenizer

from hunyuan.data.languages import fits
from hunyuan.data.recipe import Category, FilterSettings, Label

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_HAN}]{{1,2}}|[^\W_{_HAN}]+(?:['’][^\W\d_{_HAN}]+)?")
_UNREADABLE = re.compile("[\ufffd\ue000-\uf8ff]")
_GENERATED = re.compile(
    r"auto-?\s?generated|generated (?:by|from|with)|do not (?:edit|modify)|自动生成", re.IGNORECASE
)
_EXCERPT = 12_000
_ENOUGH = 100
_CHINESE_TOP = ((2, 0.25), (3, 0.25), (4, 0.25))
_CHINESE_REPEATED = ((10, 0.2), (12, 0.18), (15, 0.15), (20, 0.12))
"""Phrases in pairs of characters and the share of a text they may take. Gopher's numbers are for
English; terms of Chinese statutes run to ten characters and are repeated on purpose."""


class Words(WordTokenizer):
    """Words without a model or a dictionary."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of ``text``."""
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Not needed by any rule here."""
        raise NotImplementedError

    def span_tokenize(self, text: str) -> Iterator[tuple[int, int]]:
        """Not needed by any rule here."""
        raise NotImplementedError


class Quality:
    """The rules of a recipe."""

    def __init__(self, settings: FilterSettings) -> None:
        self._settings = settings
        words = Words()
        lengths = {
            "min_doc_words": settings.min_words,
            "max_doc_words": settings.max_words,
            # Gopher's 0.1 was meant for hash tags; the headings of Markdown are hashes too.
            "max_symbol_word_ratio": 0.3,
        }
        self._english = GopherQualityFilter(language=words, **lengths)
        self._chinese = GopherQualityFilter(
            language=words,
            min_avg_word_length=None,
            max_avg_word_length=None,
            min_stop_words=None,
            **lengths,
        )
        # By characters only: by number, the fences of code in a manual are repeated lines.
        lines = {"language": words, "dup_line_frac": None, "dup_para_frac": None}
        self._lines = GopherRepetitionFilter(top_n_grams=(), dup_n_grams=(), **lines)
        self._phrases = GopherRepetitionFilter(**lines)
        self._chinese_phrases = GopherRepetitionFilter(
            top_n_grams=_CHINESE_TOP, dup_n_grams=_CHINESE_REPEATED, **lines
        )

    def why_not(
        self, document: Document, label: Label, category: Category, expected: Label | None
    ) -> str | None:
        """Reason to reject a document, ``None`` to keep it."""
        text = document.text
        if label not in self._settings.languages or not fits(text, expected or label):
            return "language"
        if not text or len(_UNREADABLE.findall(text)) > self._settings.max_unreadable * len(text):
            return "mojibake" if text else "empty"
        if label == "code":
            return self._code(text)
        if category == "books":
            if not self._has_words(text, self._settings.min_words):
                return "short"
        else:
            gopher = self._chinese if label == "zh" else self._english
            if (reason := _reason(gopher.filter(document))) is not None:
                return {"gopher_short_doc": "short", "gopher_long_doc": "long"}.get(reason, reason)
        if self._settings.repetition:
            begin = max(0, (len(text) - _EXCERPT) // 2)
            excerpt = Document(text=text[begin : begin + _EXCERPT], id=document.id)
            phrases = self._chinese_phrases if label == "zh" else self._phrases
            # A short text cannot help saying its subject's name in a good part of its words.
            rule = phrases if self._has_words(text, _ENOUGH) else self._lines
            if (reason := _reason(rule.filter(excerpt))) is not None:
                return f"repetition_{reason}"
        return None

    def _code(self, text: str) -> str | None:
        lines = text.split("\n")
        if not self._has_words(text, self._settings.min_words):
            return "short"
        if len(text) > 10 * self._settings.max_words:
            return "long"
        if any(map(_GENERATED.search, lines[:5])):
            return "code_generated"
        if max(map(len, lines)) > 1000 or len(text) > 100 * len(lines):
            return "code_minified"
        visible = "".join(text.split())
        if sum(map(str.isalnum, visible)) < 0.4 * len(visible):
            return "code_symbols"
        if sum(map(str.isalpha, visible)) < 0.2 * len(visible):
            return "code_data"
        return None

    @staticmethod
    def _has_words(text: str, count: int) -> bool:
        # Only as far as needed: a book has a million.
        return sum(1 for _ in islice(_WORD.finditer(text), count)) == count


def _reason(result: bool | tuple[bool, str]) -> str | None:
    keep, reason = result if isinstance(result, tuple) else (result, "unnamed")
    return None if keep else reason
