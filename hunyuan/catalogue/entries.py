"""What can be pulled by name: the catalogue, read strictly from ``models.toml``.

An `Entry` is one model. Either its weights are one pinned file (`WeightFile`: name, size and
sha256 are known beforehand, so it does not matter which `Source` delivers the bytes), or they are
a whole folder of a hub repository, whose own commit and hashes are then the reference. Reading
costs a millisecond and happens once; a key that is unknown, missing or of the wrong type is an
error, so that a misspelt hash cannot become "no hash".
"""

import difflib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeVar

from hunyuan.errors import BadDataError, UsageError

_T = TypeVar("_T")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.gguf")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_PATH = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")
_PACKAGE = re.compile(r"([a-z0-9][a-z0-9.-]*)==([0-9][A-Za-z0-9.]*)")


@dataclass(frozen=True, slots=True)
class Licence:
    """Under which terms the weights are given, with a one-line notice in both languages."""

    name: str
    url: str
    notice_en: str
    notice_zh: str
    must_accept: bool


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file by its name, size in bytes and sha256 (64 lower-case hexadecimal digits)."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class HubFile:
    """The pinned file as ``path`` in the hub repository ``repository`` (``owner/name``)."""

    repository: str
    path: str

    @property
    def label(self) -> str:
        """How messages name this source."""
        return f"hub {self.repository}"


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A checkpoint as the files directly in ``folder`` ("" is the root) of a hub repository."""

    repository: str
    folder: str

    @property
    def label(self) -> str:
        """How messages name this source."""
        return f"hub {self.repository}" + (f"/{self.folder}" if self.folder else "")


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of one member of one wheel; the package is never imported or installed."""

    package: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class Packages:
    """The pinned file as ``parts`` to be joined in this order, each out of a package's wheel."""

    parts: tuple[Part, ...]

    @property
    def label(self) -> str:
        """How messages name this source."""
        more = f" ... {self.parts[-1].package}" if len(self.parts) > 1 else ""
        return f"package index {self.parts[0].package}{more}"


Source = HubFile | HubFolder | Packages


@dataclass(frozen=True, slots=True)
class Entry:
    """One model that can be pulled; ``file`` is None for a checkpoint folder of a hub.

    ``download_bytes`` is exact for a pinned file and "about" for a folder, whose true size is
    known (and checked against the disk) once the hub has listed it. ``context`` is in tokens.
    """

    name: str
    title: str
    architecture: str
    parameters: int
    context: int
    languages: tuple[str, ...]
    licence: Licence
    download_bytes: int
    file: WeightFile | None
    sources: tuple[Source, ...]


def entries() -> tuple[Entry, ...]:
    """Every model of the packaged catalogue, in its order."""
    return _packaged()[1]


def default_name() -> str:
    """The model that is meant when the user names none."""
    return _packaged()[0]


def entry(name: str, catalogue: Sequence[Entry] | None = None) -> Entry:
    """The model called ``name``; `UsageError` with the nearest known name otherwise."""
    known = {e.name: e for e in (entries() if catalogue is None else catalogue)}
    if found := known.get(name):
        return found
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    names = ", ".join(known)
    raise UsageError(
        f"{name!r}: no such file, folder or catalogue name; "
        + (f"did you mean {near[0]}?" if near else f"known names: {names}"),
        f"{name!r}：没有这个文件、目录或模型名；"
        + (f"您是否想用 {near[0]}？" if near else f"可用名称：{names}"),
    )


@cache
def _packaged() -> tuple[str, tuple[Entry, ...]]:
    path = resources.files("hunyuan.catalogue") / "models.toml"
    return parse(path.read_text(encoding="utf-8"), "models.toml")


def parse(text: str, where: str) -> tuple[str, tuple[Entry, ...]]:
    """Default name and entries of a catalogue text; `BadDataError` names the faulty key."""
    try:
        document = _Table(tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise _bad(where, f"not TOML: {error}", f"不是有效的 TOML：{error}") from error
    default = document.text("default")
    licences = {}
    for key, table in document.table("licences").tables().items():
        licences[key] = Licence(
            name=table.text("name"),
            url=table.text("url", re.compile(r"https://\S+")),
            notice_en=table.text("notice_en"),
            notice_zh=table.text("notice_zh"),
            must_accept=table.take("must_accept", bool),
        )
        table.finish()
    models = tuple(_entry(table, licences) for table in document.list("model"))
    document.finish()
    names = [model.name for model in models]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise _bad(where, f"name used twice: {min(repeated)}", f"名称重复：{min(repeated)}")
    if default not in names:
        raise _bad(where, f"default={default!r} is no model", f"default={default!r} 不是模型名")
    return default, models


def _entry(table: "_Table", licences: dict[str, Licence]) -> Entry:
    name = table.text("name", _NAME)
    table.where = f"{table.where} {name}"
    licence = table.text("licence")
    if licence not in licences:
        raise table.bad("licence", f"{licence!r} is not in [licences]", f"{licence!r} 未定义")
    file = None
    if "file" in table.values:
        pinned = table.table("file")
        file = WeightFile(
            name=pinned.text("name", _FILE_NAME),
            size=pinned.positive("size"),
            sha256=pinned.text("sha256", _SHA256),
        )
        pinned.finish()
    result = Entry(
        name=name,
        title=table.text("title"),
        architecture=table.text("architecture"),
        parameters=table.positive("parameters"),
        context=table.positive("context"),
        languages=table.strings("languages"),
        licence=licences[licence],
        download_bytes=file.size if file else table.positive("download_bytes"),
        file=file,
        sources=tuple(_source(source) for source in table.list("source")),
    )
    table.finish()
    folders = [isinstance(source, HubFolder) for source in result.sources]
    if (file and any(folders)) or (file is None and folders != [True]):
        raise table.bad(
            "source",
            "a pinned file takes hub files and packages; without one there is one hub folder",
            "固定文件只能来自 hub 文件或软件包；没有固定文件时必须恰好是一个 hub 目录",
        )
    return result


def _source(table: "_Table") -> Source:
    kind = table.text("kind")
    source: Source
    if kind == "hub-file":
        source = HubFile(table.text("repository", _REPOSITORY), table.text("path", _HUB_PATH))
    elif kind == "hub-folder":
        folder = table.text("folder", _HUB_PATH) if "folder" in table.values else ""
        source = HubFolder(table.text("repository", _REPOSITORY), folder)
    elif kind == "packages":
        source = Packages(tuple(_part(part) for part in table.list("part")))
    else:
        raise table.bad("kind", f"{kind!r} is unknown", f"{kind!r} 未知")
    table.finish()
    return source


def _part(table: "_Table") -> Part:
    package, version = table.text("package", _PACKAGE).split("==")
    part = Part(package, version, table.text("member", _HUB_PATH))
    table.finish()
    return part


def _bad(where: str, en: str, zh: str) -> BadDataError:
    return BadDataError(f"{where}: {en}", f"{where}：{zh}")


class _Table:
    """A TOML table from which keys are taken; what is left at the end is unknown."""

    def __init__(self, values: dict[str, object], where: str) -> None:
        self.values = values
        self.where = where
        self.taken: set[str] = set()

    def bad(self, key: str, en: str, zh: str) -> BadDataError:
        return _bad(self.where, f"{key}: {en}", f"{key}：{zh}")

    def take(self, key: str, kind: type[_T]) -> _T:
        self.taken.add(key)
        if key not in self.values:
            raise self.bad(key, "missing", "缺失")
        value = self.values[key]
        if type(value) is not kind:
            raise self.bad(key, f"must be {kind.__name__}", f"类型必须是 {kind.__name__}")
        return value

    def text(self, key: str, pattern: re.Pattern[str] = re.compile(r"\S[^\n]*")) -> str:
        value = self.take(key, str)
        if not pattern.fullmatch(value):
            rule = pattern.pattern
            raise self.bad(key, f"{value!r} must match {rule}", f"{value!r} 必须匹配 {rule}")
        return value

    def positive(self, key: str) -> int:
        value = self.take(key, int)
        if value <= 0:
            raise self.bad(key, f"{value} must be positive", f"{value} 必须为正数")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list)
        if not values or not all(isinstance(value, str) for value in values):
            raise self.bad(key, "must be a list of strings", "必须是字符串列表")
        return tuple(values)

    def table(self, key: str) -> "_Table":
        return _Table(self.take(key, dict), f"{self.where} {key}")

    def tables(self) -> dict[str, "_Table"]:
        return {key: self.table(key) for key in self.values}

    def list(self, key: str) -> "list[_Table]":
        values = self.take(key, list)
        if not values or not all(isinstance(value, dict) for value in values):
            raise self.bad(key, "must be a list of tables", "必须是表的列表")
        return [_Table(value, f"{self.where} {key} {i}") for i, value in enumerate(values, 1)]

    def finish(self) -> None:
        if unknown := sorted(set(self.values) - self.taken):
            raise self.bad(unknown[0], "unknown key", "未知的键")
