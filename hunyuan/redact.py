"""Takes what is private out of a text that a person will show to others."""

import getpass
import os
import re
from pathlib import Path

REMOVED = "[removed]"

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|DSN|DATABASE_URL", re.IGNORECASE)
_SECRETS = (
    re.compile(r"(?<=://)[^\s/@]+(?=@)"),
    re.compile(r"(?<=[?&](?:key|sig)=)[^\s&'\"]+|(?<=token=)[^\s&'\"]+|(?<=api_key=)[^\s&'\"]+"),
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}"),
    re.compile(r"\b(?:sk|hf|gh[pousr]|glpat|xox[abp])[-_][\w-]{8,}"),
)
_HOMES = re.compile(r"(?:/home|/Users|[A-Za-z]:\\Users)[/\\][^/\\\s:'\",;]+")
_SHORTEST_SECRET = 6
_EVERYBODY = {"root", "user", "admin", "nobody", "ubuntu", "runner"}
"""User names that name nobody, and are words of their own."""


def without_private(text: str) -> str:
    """The text without home folders, the user's name, and keys of the environment or in it.

    What is below a home folder keeps its path, with ``~`` for the folder.
    """
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, REMOVED)
    for home in {str(Path.home()), os.path.realpath(Path.home())} - {"/"}:
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    text = _anywhere(text)
    user = _user()
    if user and user not in _EVERYBODY:
        text = re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "USER", text)
    return text


def gives_away(text: str) -> bool:
    """Whether a text names a home folder or a key, judged alike on every machine."""
    return _anywhere(text) != text


def _anywhere(text: str) -> str:
    """Without what is private by its form."""
    for pattern in _SECRETS:
        text = pattern.sub(REMOVED, text)
    return _HOMES.sub("~", text)


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None  # a number without a name, as in some containers
