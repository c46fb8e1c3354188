"""Which files a recipe means, and how they are dealt out to tasks.

A file's kind follows from its extension. Large jsonl and parquet files are cut into parts, of which
each reads every n-th line or row group, so that one big file keeps all processors busy; parts are
then dealt to tasks so that each gets about as many bytes. In folders, files of unknown kinds and
everything hidden (``.git``) are left out.
"""

import glob
import hashlib
import heapq
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hunyuan.data.recipe import Recipe, SourceSettings
from hunyuan.errors import UsageError
from hunyuan.files import atomic_file

Kind = Literal["jsonl", "parquet", "text", "html", "code"]

_CODE = re.findall(
    r"\S+",
    ".py .pyi .js .jsx .ts .tsx .java .kt .scala .c .h .cc .cpp .cxx .hpp .cu .cs .go .rs "
    ".rb .php .swift .m .lua .r .jl .sh .bash .pl .sql .hs .ml .clj .ex .erl .dart .zig "
    ".v .vue .css .scss .yaml .yml .toml .cmake .proto ",
)
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_CODE, "code"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".txt", ".md", ".markdown", ".rst"), "text"),
    **dict.fromkeys((".html", ".htm"), "html"),
    ".parquet": "parquet",
}
_COMPRESSED = {".gz": 4, ".zst": 4}
"""Suffix to how much larger the content about is."""

_LARGE, _SMALL = 64_000_000, 1_000_000
_MOST_PARTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A file, or every ``parts``-th line or row group of it from ``part`` on."""

    source: int
    """Place of the source in the recipe."""

    path: str
    """Absolute path."""

    name: str
    """Path below the source's folder, for ids."""

    kind: Kind
    """How it is read."""

    size: int
    """Bytes of this part, about, without compression."""

    part: int = 0
    """First line or row group."""

    parts: int = 1
    """Distance to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that a recipe reads."""

    tasks: list[list[Piece]]
    """The pieces of each task."""

    identity: str
    """A hash that changes when a file's place, size or date does."""


def kind_of(path: Path) -> Kind | None:
    """How a file is read, ``None`` if nobody knows."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return _KINDS.get(suffixes[-1]) if suffixes else None


def files_of(source: SourceSettings, base: Path) -> list[Path]:
    """The files of a source; `UsageError` if there is none that can be read."""
    path = base / source.path
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = [p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path))]
    else:
        matched = (Path(name) for name in glob.glob(str(path), recursive=True))
        found = [p for p in matched if p.is_file()]
    readable = sorted(p.absolute() for p in found if kind_of(p) is not None)
    if not readable:
        what = f"{len(found)} files of unknown kinds" if found else "no file"
        what_zh = f"{len(found)} 个未知类型的文件" if found else "没有任何文件"
        raise UsageError(
            f"source {source.name}: path={source.path!r} gives {what} (looked at {path}); name "
            "jsonl, parquet, txt, md, html or source files",
            f"来源 {source.name}：path={source.path!r} 对应{what_zh}（查找位置 {path}）；"
            "请指定 jsonl、parquet、txt、md、html 或源代码文件",
        )
    return readable


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def plan_tasks(recipe: Recipe, base: Path, workers: int) -> Inputs:
    """Find the files of all sources and deal them out; `UsageError` for a source without any."""
    files = [(index, path) for index, s in enumerate(recipe.source) for path in files_of(s, base)]
    sizes = [_size(path) for _, path in files]
    total = sum(sizes)
    tasks = recipe.run.tasks or max(1, min(workers, -(-total // _SMALL)), -(-total // _LARGE))
    pieces = [
        piece
        for (index, path), size in zip(files, sizes, strict=True)
        for piece in _cut(index, path, size, _root(recipe.source[index], base), total // tasks + 1)
    ]
    identity = hashlib.sha256()
    for index, path in files:
        stat = path.stat()
        identity.update(f"{index}\0{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return Inputs(tasks=_deal(pieces, tasks), identity=identity.hexdigest())


def _size(path: Path) -> int:
    return max(path.stat().st_size, 1) * _COMPRESSED.get(path.suffix.lower(), 1)


def _root(source: SourceSettings, base: Path) -> Path:
    """The folder below which a source's files are named."""
    root = (base / source.path).absolute()
    while not root.is_dir():
        root = root.parent
    return root


def _cut(source: int, path: Path, size: int, root: Path, most: int) -> list[Piece]:
    kind = kind_of(path)
    assert kind is not None
    parts = min(-(-size // most), _MOST_PARTS) if kind in ("jsonl", "parquet") else 1
    return [
        Piece(
            source=source,
            path=str(path),
            name=str(path.relative_to(root)),
            kind=kind,
            size=size // parts,
            part=part,
            parts=parts,
        )
        for part in range(parts)
    ]


def _deal(pieces: Sequence[Piece], tasks: int) -> list[list[Piece]]:
    """The largest piece first, each to the task with the fewest bytes so far."""
    dealt: list[list[Piece]] = [[] for _ in range(tasks)]
    loads = [(0, task) for task in range(tasks)]
    for piece in sorted(pieces, key=lambda p: (-p.size, p.source, p.path, p.part)):
        load, task = heapq.heappop(loads)
        dealt[task].append(piece)
        heapq.heappush(loads, (load + piece.size, task))
    return [sorted(task, key=lambda p: (p.source, p.path, p.part)) for task in dealt]


def write_pieces(path: Path, pieces: Iterable[Piece]) -> None:
    """Write the pieces of one task."""
    with atomic_file(path) as file:
        file.write(json.dumps([asdict(piece) for piece in pieces]).encode("utf-8", "replace"))


def read_pieces(path: Path) -> list[Piece]:
    """The pieces of one task."""
    return [Piece(**entry) for entry in json.loads(path.read_bytes())]
