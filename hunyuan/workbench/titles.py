"""Titles of conversations: what is left of a model's suggestion, or the first words."""

import re

from hunyuan.errors import Language
from hunyuan.workbench.language import text_language

_TITLE_LENGTH = 60
_AROUND_TITLES = " \t\"'`*#“”‘’「」《》"


def clean_title(answer: str, language: Language) -> str | None:
    """The title in a model's answer, or None if there is none worth having."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if not lines:
        return None
    title = re.sub(r"^(title|标题)\s*[:：]\s*", "", lines[0], flags=re.IGNORECASE)
    title = title.lstrip(_AROUND_TITLES).rstrip(_AROUND_TITLES + "。.!！,，:：;；")
    fits = 2 <= len(title) <= _TITLE_LENGTH
    return title if fits and text_language(title) in (language, None) else None


def first_words(text: str) -> str:
    """The beginning of a text, cut between words where it has any."""
    line = " ".join(text.split())
    limit = 24 if text_language(line) == "zh" else 48
    if len(line) <= limit:
        return line
    cut = line[:limit]
    if text_language(line) != "zh" and " " in cut:
        cut = cut.rsplit(" ", 1)[0]
    return cut + "…"
