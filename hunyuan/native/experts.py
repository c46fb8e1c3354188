"""Experts on disk for the compiled kernels: their packing, their hashes, their cache.

`hunyuan.formats.expert_file` says how the file lies; ``src/experts.h`` how the cache works.
"""

import ctypes
import os
from pathlib import Path

import torch
from torch import Tensor

from hunyuan.errors import BadDataError, HunyuanError
from hunyuan.formats.expert_file import PROJECTIONS, ExpertFile, ExpertLayout
from hunyuan.formats.gguf import GGMLType
from hunyuan.model.config import ModelConfig
from hunyuan.native.expert_stats import ExpertStats
from hunyuan.native.library import (
    ExpertFailure,
    ExpertFailureKind,
    ExpertFileDescription,
    ExpertStatistics,
    library,
)
from hunyuan.native.matrix import PackedMatrix, pack_into, packed_bytes

LEAST_SLOTS = 2
"""Experts that a cache has to hold: one that is computed, one that is read."""

# Pieces that are read at once: enough for the queues of a fast disk, and they mostly sleep.
READERS = 4


def expert_layout(config: ModelConfig, types: tuple[GGMLType, GGMLType, GGMLType]) -> ExpertLayout:
    """The layout of a model's experts, ``types`` being those of gate, up and down."""
    shapes = _shapes(config.hidden, config.ffn)
    gate, up, down = (packed_bytes(t, *shape) for t, shape in zip(types, shapes, strict=True))
    assert min(gate, up, down) > 0, "the kernels cannot multiply such rows"
    return ExpertLayout(
        layers=config.layers,
        experts=config.experts,
        hidden=config.hidden,
        ffn=config.ffn,
        types=types,
        sizes=(gate, up, down),
        packing=int(library().hy_packing_version()),
    )


def _shapes(hidden: int, ffn: int) -> tuple[tuple[int, int], ...]:
    """Of gate, up and down."""
    return (ffn, hidden), (ffn, hidden), (hidden, ffn)


def pack_extent(layout: ExpertLayout, gate: Tensor, up: Tensor, down: Tensor, out: Tensor) -> None:
    """Pack one expert into ``out`` (length,) uint8.

    The matrices are ggml blocks as files store them, (rows, bytes of a row) uint8.
    """
    assert out.dtype == torch.uint8
    assert out.shape == (layout.length,)
    ends = (*layout.starts[1:], layout.length)
    parts = zip((gate, up, down), layout.types, layout.starts, layout.sizes, ends, strict=True)
    for blocks, kind, start, size, end in parts:
        pack_into(kind, blocks, out[start : start + size])
        out[start + size : end] = 0


def extent_hash(extent: Tensor) -> str:
    """The hash of an extent as the index states it."""
    assert extent.dtype == torch.uint8
    assert extent.is_contiguous()
    return f"{library().hy_extent_hash(extent.data_ptr(), len(extent)):016x}"


def require_packing(file: ExpertFile) -> None:
    """Raise `BadDataError` unless the file was packed as these kernels read it."""
    layout, known = file.layout, int(library().hy_packing_version())
    sizes = tuple(
        packed_bytes(kind, *shape)
        for kind, shape in zip(layout.types, _shapes(layout.hidden, layout.ffn), strict=True)
    )
    if layout.packing != known or layout.sizes != sizes:
        raise BadDataError(
            f"{file.path}: experts are packed in layout {layout.packing}, the kernels read layout "
            f"{known}; convert the model again with this version",
            f"{file.path}：专家的打包布局为 {layout.packing}，内核读取的是布局 {known}；"
            "请用本版本重新转换模型",
        )


def read_expert_matrix(file: ExpertFile, layer: int, expert: int, projection: str) -> Tensor:
    """One matrix of an expert (rows, columns) float32, the extent's hash checked."""
    layout = file.layout
    number, at = layer * layout.experts + expert, PROJECTIONS.index(projection)
    with file.path.open("rb") as data:
        data.seek(file.offsets[number])
        extent = torch.frombuffer(bytearray(data.read(layout.length)), dtype=torch.uint8)
    found = extent_hash(extent)
    if int(found, 16) != file.hashes[number]:
        raise _altered(file.path, layer, expert, f"{file.hashes[number]:016x}", found)
    start = layout.starts[at]
    rows, columns = _shapes(layout.hidden, layout.ffn)[at]
    packed = extent[start : start + layout.sizes[at]]
    return PackedMatrix(layout.types[at], rows, columns, packed).unpacked()


class ExpertCache:
    """Experts of one file in ``slots`` slots of memory, for one `NativeTransformer`.

    ``check_always`` hashes an extent every time it is read, not only the first time.
    """

    def __init__(
        self, file: ExpertFile, slots: int, *, readers: int = READERS, check_always: bool = False
    ) -> None:
        require_packing(file)
        assert slots >= LEAST_SLOTS, slots
        layout = file.layout
        self.file = file
        self._kernels = library()
        self._process = os.getpid()
        description = ExpertFileDescription(
            path=str(file.path).encode(),
            layers=layout.layers,
            experts=layout.experts,
            types=layout.types,
            starts=layout.starts,
            length=layout.length,
            offsets=(ctypes.c_int64 * layout.extents)(*file.offsets),
            hashes=(ctypes.c_uint64 * layout.extents)(*file.hashes),
        )
        with file.path.open("rb"):  # an error that names the file
            pass
        self.handle = self._kernels.hy_experts_new(
            ctypes.byref(description), min(slots, layout.extents), readers, check_always
        )
        if not self.handle:
            raise MemoryError(f"no memory for {slots} experts")

    def __del__(self) -> None:
        if (handle := getattr(self, "handle", None)) and os.getpid() == self._process:
            self._kernels.hy_experts_free(handle)

    def stats(self) -> ExpertStats:
        """What was read and found so far; from any thread."""
        counted = ExpertStatistics()
        self._kernels.hy_experts_stats(self.handle, ctypes.byref(counted))
        values = {field[0]: getattr(counted, field[0]) for field in ExpertStatistics._fields_}
        return ExpertStats(**values | {"direct": bool(values["direct"])})

    def error(self) -> HunyuanError:
        """Why the last step failed."""
        failure, path = ExpertFailure(), self.file.path
        self._kernels.hy_experts_failure(self.handle, ctypes.byref(failure))
        layer, expert = failure.layer, failure.expert
        if failure.kind == ExpertFailureKind.ALTERED:
            wanted, found = f"{failure.wanted:016x}", f"{failure.found:016x}"
            return _altered(path, layer, expert, wanted, found)
        wanted = f"{failure.wanted:016x}"
        if failure.kind == ExpertFailureKind.TRUNCATED:
            return BadDataError(
                f"{path}: ends within layer {layer} expert {expert} (hash {wanted}), the file was "
                "truncated; copy or convert the model again",
                f"{path}：在第 {layer} 层专家 {expert}（哈希 {wanted}）中间结束，文件被截断；"
                "请重新复制或转换模型",
            )
        reason = os.strerror(failure.error)
        return HunyuanError(
            f"{path}: layer {layer} expert {expert} (hash {wanted}) cannot be read ({reason}); "
            "check the disk",
            f"{path}：无法读取第 {layer} 层专家 {expert}（哈希 {wanted}）（{reason}）；请检查磁盘",
        )


def _altered(path: Path, layer: int, expert: int, wanted: str, found: str) -> BadDataError:
    return BadDataError(
        f"{path}: layer {layer} expert {expert} has hash {found}, {wanted} expected: the file was "
        "altered; copy or convert the model again",
        f"{path}：第 {layer} 层专家 {expert} 的哈希为 {found}，应为 {wanted}：文件已被改动；"
        "请重新复制或转换模型",
    )


def sequential_read(path: Path, nbytes: int = 1 << 31) -> float:
    """Bytes a second that reading the beginning of a file in order gives, past the page cache.

    As many readers and pieces as the cache of experts uses: what it is compared with.
    """
    direct = ctypes.c_int32()
    speed = library().hy_sequential_read(str(path).encode(), nbytes, READERS, ctypes.byref(direct))
    if speed < 0:
        raise HunyuanError(
            f"{path}: cannot be read or is too short to measure (4 MiB)",
            f"{path}：无法读取，或小于测量所需的 4 MiB",
        )
    return float(speed)
