"""Which of our two languages a text is in."""

import re

from hunyuan.errors import Language
from hunyuan.knowledge.words import HAN

_HAN = re.compile(f"[{HAN}]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]+")


def text_language(text: str) -> Language | None:
    """Chinese or English, whichever it has more of; None if it has neither.

    A Chinese character counts like an English word.
    """
    han, latin = _counts(text)
    if han == latin == 0:
        return None
    return "zh" if han >= latin else "en"


def text_size(text: str) -> float:
    """How much a text says, about: in Chinese characters, of which a word takes one and a half."""
    han, latin = _counts(text)
    return han + 1.5 * latin


def _counts(text: str) -> tuple[int, int]:
    return len(_HAN.findall(text)), len(_LATIN_WORD.findall(text))
