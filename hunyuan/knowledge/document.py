"""What is read from a document: its kind, its pages, its limits."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, get_args

from hunyuan.errors import UsageError

Kind = Literal["text", "markdown", "html", "csv", "json", "pdf", "docx", "xlsx"]

_BY_SUFFIX: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".pdf": "pdf",
    ".docx": "docx",
    ".xlsx": "xlsx",
}

SUFFIXES = tuple(_BY_SUFFIX)
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Limits:
    """How much is read of one document."""

    file_bytes: int = 64 * 1024**2
    pages: int = 5000
    characters: int = 10_000_000
    unpacked_bytes: int = 256 * 1024**2
    memory_bytes: int = 1024**3
    seconds: float = 300.0
    seconds_a_page: float = 20.0


@dataclass(frozen=True)
class Page:
    """One page, or a part of a text that has none."""

    number: int
    text: str
    of: int | None = None
    """How many there are, where that is known beforehand."""


def kind_of(name: str) -> Kind:
    """The kind by the end of a file's name; `UsageError` for one that is not read."""
    suffix = PurePosixPath(name.lower()).suffix
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    listed = ", ".join(SUFFIXES)
    raise UsageError(
        f"{name}: files ending in {suffix or '(nothing)'} are not read; save it as one of {listed}",
        f"{name}：不支持以 {suffix or '（无后缀）'} 结尾的文件；请另存为以下格式之一：{listed}",
    )


def has_pages(kind: Kind) -> bool:
    """Whether the numbers of its pages are those that a reader sees in the document."""
    return kind == "pdf"
