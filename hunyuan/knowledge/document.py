"""What is read from a document: its kind, its pages, its limits."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, get_args

from hunyuan import plugins
from hunyuan.errors import UsageError

Kind = Literal["text", "markdown", "html", "csv", "json", "pdf", "docx", "xlsx", "plugin"]

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


def suffixes() -> tuple[str, ...]:
    """Ends of the names of files that are read, here or by a plug-in."""
    return tuple(dict.fromkeys((*_BY_SUFFIX, *plugins.reader_suffixes())))


def suffix_of(name: str) -> str:
    """The end of a file's name that says how to read it: ``.pdf``."""
    return PurePosixPath(name.lower()).suffix


def kind_of(name: str) -> Kind:
    """The kind by the end of a file's name; `UsageError` for one that is not read."""
    suffix = suffix_of(name)
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix in plugins.reader_suffixes():
        return "plugin"
    listed = ", ".join(suffixes())
    raise UsageError(
        f"{name}: files ending in {suffix or '(nothing)'} are not read; save it as one of {listed}",
        f"{name}：不支持以 {suffix or '（无后缀）'} 结尾的文件；请另存为以下格式之一：{listed}",
    )


def has_pages(kind: Kind) -> bool:
    """Whether the numbers of its pages are those that a reader sees in the document."""
    return kind == "pdf"
