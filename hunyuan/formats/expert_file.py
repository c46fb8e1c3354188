"""The file of experts: what a mixture of experts reads from disk while it runs.

    experts.bin     extents one after the other, each at a multiple of 4,096 bytes and as long
    experts.json    the index: shapes, types, and of every extent its offset, length and hash

An extent is one routed expert whole: gate, up and down in the kernels' packed layout
(``native/src/layout.h``), each at a multiple of 64 bytes, then zeros. One read brings an expert,
from any offset of the file by direct I/O, and nothing is converted after it. All extents have one
layout and so one length; they may lie in any order.

The hash is XXH64 (seed 0) over the XXH64s (little endian) of the extent's pieces of 4 MiB: pieces
are checked as they arrive, by several threads. Computing it is the business of
`hunyuan.native.experts`; nothing here needs torch or the kernels.

`ExpertFileWriter` appends extents and can be killed at any moment: what it has written so far lies
in ``experts.bin.partial``, and ``experts.journal`` names every extent that is whole on the disk.
A writer of the same layout and source goes on from there.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from hunyuan.errors import BadDataError, UsageError
from hunyuan.files import atomic_file, disk_errors
from hunyuan.formats.gguf import GGMLType

DATA = "experts.bin"
INDEX = "experts.json"
JOURNAL = "experts.journal"
PARTIAL = DATA + ".partial"

FORMAT = "hunyuan-experts"
VERSION = 1
HASH = "xxh64-4MiB"

PAGE = 4096
"""Extents start and end at multiples of it, as direct I/O wants."""

MATRIX_ALIGNMENT = 64

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
"""The matrices of an extent, in order."""

# Larger than any model; a damaged index must not take all memory.
_MOST_EXTENTS = 1 << 20


@dataclass(frozen=True)
class ExpertLayout:
    """What all extents of a file have in common; see `hunyuan.native.experts.expert_layout`."""

    layers: int
    experts: int
    hidden: int
    ffn: int
    types: tuple[GGMLType, GGMLType, GGMLType]
    """Of gate (ffn, hidden), up (ffn, hidden) and down (hidden, ffn)."""

    sizes: tuple[int, int, int]
    """Packed bytes of the three."""

    packing: int
    """Version of the kernels' packed layout."""

    @property
    def starts(self) -> tuple[int, int, int]:
        """Where in an extent the three matrices start."""
        up = _padded(self.sizes[0], MATRIX_ALIGNMENT)
        return 0, up, up + _padded(self.sizes[1], MATRIX_ALIGNMENT)

    @property
    def length(self) -> int:
        """Bytes of an extent, a multiple of `PAGE`."""
        return _padded(self.starts[2] + self.sizes[2], PAGE)

    @property
    def extents(self) -> int:
        """How many extents a whole file has."""
        return self.layers * self.experts

    def describe(self) -> dict[str, Any]:
        """Plain data for the index."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "packing": self.packing,
            "hash": HASH,
            "layers": self.layers,
            "experts": self.experts,
            "hidden": self.hidden,
            "ffn": self.ffn,
            "types": {name: kind.name for name, kind in zip(PROJECTIONS, self.types, strict=True)},
            "sizes": dict(zip(PROJECTIONS, self.sizes, strict=True)),
            "length": self.length,
        }


def _padded(size: int, to: int) -> int:
    return -(-size // to) * to


@dataclass(frozen=True)
class ExpertFile:
    """A finished file: where every extent lies and what its hash must be."""

    path: Path
    """Of the extents."""

    layout: ExpertLayout
    offsets: tuple[int, ...]
    hashes: tuple[int, ...]
    """Both by layer * experts + expert."""

    @property
    def nbytes(self) -> int:
        """Bytes of all extents."""
        return self.layout.extents * self.layout.length


class ExpertFileWriter:
    """Appends extents in any order; see the module for what lies where while it is not done.

    ``source`` says what is being converted and how: a journal of another source or layout is
    refused with `UsageError`. Use it as a context manager: leaving keeps what is written, and only
    `finish` gives the file its name. A full disk is a `DiskFullError`.
    """

    def __init__(self, folder: Path, layout: ExpertLayout, source: str) -> None:
        self._folder = folder
        self._layout = layout
        self._journal_path = folder / JOURNAL
        self._written: dict[tuple[int, int], tuple[int, str]] = {}
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            header = layout.describe() | {"source": sha256(source.encode()).hexdigest()}
            self._header = header
            self._finished = self._whole()
            if self._finished:
                self._journal_path.unlink(missing_ok=True)
                return
            known = self._resume()
            self._data: BinaryIO = (folder / PARTIAL).open("r+b" if known else "w+b")
            if known:
                self._drop_unfinished()
            else:
                self._journal_path.write_text(json.dumps(header) + "\n", encoding="utf-8")
            self._journal: TextIO = self._journal_path.open("a", encoding="utf-8")

    @property
    def done(self) -> frozenset[tuple[int, int]]:
        """(layer, expert) of every extent that is on the disk."""
        return frozenset(self._written)

    def append(self, layer: int, expert: int, extent: bytes | memoryview, hash: str) -> None:
        """Write one whole extent of `ExpertLayout.length` bytes; it is on the disk on return.

        ``hash`` is `hunyuan.native.experts.extent_hash` of it.
        """
        nbytes = memoryview(extent).nbytes
        assert nbytes == self._layout.length, f"{nbytes} bytes, {self._layout.length} needed"
        assert (layer, expert) not in self._written, f"layer {layer} expert {expert}: given twice"
        offset = len(self._written) * self._layout.length
        with disk_errors(self._folder / DATA):
            self._data.seek(offset)
            self._data.write(extent)
            self._data.flush()
            os.fsync(self._data.fileno())
            if hasattr(os, "posix_fadvise"):  # nobody will read it soon
                os.posix_fadvise(self._data.fileno(), offset, nbytes, os.POSIX_FADV_DONTNEED)
            line = {"layer": layer, "expert": expert, "offset": offset, "hash": hash}
            self._journal.write(json.dumps(line) + "\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self._written[layer, expert] = (offset, hash)

    def finish(self) -> None:
        """Write the index and give the file its name; every extent must be there."""
        layers, experts = range(self._layout.layers), range(self._layout.experts)
        assert len(self._written) == self._layout.extents, "not every expert was appended"
        if self._finished:
            return
        index = dict(self._header)
        index["extents"] = [
            [
                {
                    "offset": self._written[layer, expert][0],
                    "length": self._layout.length,
                    "hash": self._written[layer, expert][1],
                }
                for expert in experts
            ]
            for layer in layers
        ]
        self.close()
        with disk_errors(self._folder):
            (self._folder / PARTIAL).rename(self._folder / DATA)
            with atomic_file(self._folder / INDEX) as file:
                file.write((json.dumps(index) + "\n").encode())
            self._journal_path.unlink()
        self._finished = True

    def close(self) -> None:
        """Keep what is written and let go of the files."""
        if self._finished:
            return
        self._data.close()
        self._journal.close()

    def __enter__(self) -> "ExpertFileWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _whole(self) -> bool:
        """Whether an earlier writer had finished and only what comes after it is missing."""
        if not (self._folder / INDEX).exists():
            return False
        index = json.loads((self._folder / INDEX).read_text(encoding="utf-8"))
        self._require_same({key: value for key, value in index.items() if key != "extents"})
        for number in range(self._layout.extents):
            layer, expert = divmod(number, self._layout.experts)
            entry = index["extents"][layer][expert]
            self._written[layer, expert] = (entry["offset"], entry["hash"])
        return True

    def _require_same(self, header: Mapping[str, Any]) -> None:
        if header != self._header:
            raise UsageError(
                f"{self._folder}: holds the beginning of another conversion; remove the folder, "
                "choose another name or repeat that conversion with the same settings",
                f"{self._folder}：其中是另一次未完成的转换；请删除该目录、换一个名称，"
                "或用相同的设置继续那次转换",
            )

    def _resume(self) -> bool:
        """Read what an earlier writer left, if there is anything."""
        try:
            lines = self._journal_path.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return False
        if not lines or not lines[0].endswith("\n"):
            return False
        if not (self._folder / PARTIAL).exists():
            if not (self._folder / DATA).exists():
                return False
            # Killed after the file had its name and before the index was written.
            (self._folder / DATA).rename(self._folder / PARTIAL)
        self._require_same(json.loads(lines[0]))
        for line in lines[1:]:
            if not line.endswith("\n"):
                break  # killed while writing it
            entry = json.loads(line)
            self._written[entry["layer"], entry["expert"]] = (entry["offset"], entry["hash"])
        return True

    def _drop_unfinished(self) -> None:
        """Cut off what was being written when the earlier writer was killed."""
        self._data.truncate(len(self._written) * self._layout.length)
        whole = self._journal_path.read_text(encoding="utf-8").splitlines(keepends=True)
        text = "".join(whole[: 1 + len(self._written)])
        with atomic_file(self._journal_path) as file:
            file.write(text.encode())


def read_expert_file(folder: Path) -> ExpertFile:
    """The file of experts of a model folder, its index checked against the file's size.

    Raises `BadDataError` naming what is missing, damaged or of another version.
    """
    path, data = folder / INDEX, folder / DATA
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("format") != FORMAT or raw.get("version") != VERSION or raw["hash"] != HASH:
            raise BadDataError(
                f"{path}: format {raw.get('format')} {raw.get('version')} is not "
                f"{FORMAT} {VERSION}; convert the model again with this version",
                f"{path}：格式 {raw.get('format')} {raw.get('version')} 不是 {FORMAT} {VERSION}；"
                "请用本版本重新转换模型",
            )
        layout = _layout(raw)
        extents = [entry for layer in raw["extents"] for entry in layer]
        offsets = tuple(int(entry["offset"]) for entry in extents)
        hashes = tuple(int(entry["hash"], 16) for entry in extents)
        plausible = (
            [len(layer) for layer in raw["extents"]] == [layout.experts] * layout.layers
            and all(entry["length"] == layout.length for entry in extents)
            and all(0 <= hash < 1 << 64 for hash in hashes)
            and sorted(offsets) == [i * layout.length for i in range(layout.extents)]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not plausible:
        raise _damaged(path, "extents do not fit the layout")
    needed = layout.extents * layout.length
    found = data.stat().st_size if data.exists() else None
    if found != needed:
        state = "missing" if found is None else f"{found} bytes long"
        zh = "缺失" if found is None else f"为 {found} 字节"
        raise BadDataError(
            f"{data}: is {state}, {path.name} describes {needed} bytes; copy or convert it again",
            f"{data}：{zh}，而 {path.name} 描述了 {needed} 字节；请重新复制或转换",
        )
    return ExpertFile(data, layout, offsets, hashes)


def _layout(raw: Mapping[str, Any]) -> ExpertLayout:
    """The layout an index describes; `ValueError` or `KeyError` if it is none."""
    gate, up, down = (GGMLType[raw["types"][name]] for name in PROJECTIONS)
    sizes = tuple(int(raw["sizes"][name]) for name in PROJECTIONS)
    counts = {name: int(raw[name]) for name in ("layers", "experts", "hidden", "ffn", "packing")}
    if min(*counts.values(), *sizes) < 1 or counts["layers"] * counts["experts"] > _MOST_EXTENTS:
        raise ValueError("a count is out of range")
    return ExpertLayout(types=(gate, up, down), sizes=(sizes[0], sizes[1], sizes[2]), **counts)


def _damaged(path: Path, reason: str) -> BadDataError:
    return BadDataError(
        f"{path}: not a whole index of experts ({reason}); copy or convert the model again",
        f"{path}：不是完整的专家索引（{reason}）；请重新复制或转换模型",
    )
