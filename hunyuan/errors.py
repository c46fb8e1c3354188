"""What can go wrong for a user, each with its exit code and its sentence in two languages.

An error is one line that names the field or file, the value, the limit and the remedy. It is
written twice, side by side, where it is raised, so that the languages cannot drift apart:

    raise UsageError(
        f"temperature={t}: must be between 0 and 2",
        f"temperature={t}：必须在 0 到 2 之间",
    )

``assert`` is for this project's own mistakes; everything a user can cause is one of these.
"""

import os
from typing import Literal

Language = Literal["en", "zh"]


def language() -> Language:
    """Language of messages: ``HUNYUAN_LANG``, else the locale of the environment."""
    for variable in ("HUNYUAN_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(variable):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


class HunyuanError(Exception):
    """A failure at run time (exit code 1); the base of all errors a user may meet."""

    exit_code = 1

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en, zh)
        self.en = en
        self.zh = zh

    def __str__(self) -> str:
        return self.text(language())

    def text(self, lang: Language) -> str:
        """The sentence in the given language."""
        return self.zh if lang == "zh" else self.en


class UsageError(HunyuanError):
    """Wrong usage or input: an argument, a setting, a request (exit code 2)."""

    exit_code = 2


class DoesNotFitError(HunyuanError):
    """It would not fit: memory, disk or context (exit code 3)."""

    exit_code = 3


class DiskFullError(DoesNotFitError):
    """A disk, quota or file size limit leaves no room."""


class OverloadedError(HunyuanError):
    """As much is under way or waiting as may be; later there will be room."""


class BadDataError(HunyuanError):
    """A checkpoint or data file is damaged, incomplete or unsupported (exit code 4)."""

    exit_code = 4


class InterruptedWorkError(HunyuanError):
    """Stopped half-way in a state from which the same command resumes (exit code 5)."""

    exit_code = 5
