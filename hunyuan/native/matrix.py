"""A weight matrix in the kernels' layout, from the bytes a file stores: no weight is rounded."""

import mmap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from hunyuan.formats.gguf import BLOCK, GGMLType
from hunyuan.native.library import isa, library

# Rows per packing task; a multiple of the 16 rows of a block.
_PACK_ROWS = 1024

_SLAB_BYTES = 1 << 26


class Arena:
    """Memory for packed matrices, in slabs of huge pages where the system has them.

    Streaming weights is what decoding spends its time on, and it is about 5 % faster so.
    """

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.uint8)

    def take(self, nbytes: int) -> Tensor:
        """(nbytes,) uint8, unset, at a multiple of 64 bytes."""
        padded = -(-nbytes // 64) * 64
        if padded > len(self._free):
            size = max(padded, _SLAB_BYTES)
            if hasattr(mmap, "MADV_HUGEPAGE"):  # a shared mapping, the default, gets none
                slab = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                with suppress(OSError):  # a kernel without them
                    slab.madvise(mmap.MADV_HUGEPAGE)
            else:
                slab = mmap.mmap(-1, size)
            self._free = torch.frombuffer(slab, dtype=torch.uint8)
        taken, self._free = self._free[:nbytes], self._free[padded:]
        return taken


@dataclass(frozen=True)
class PackedMatrix:
    """``rows`` outputs by ``columns`` inputs, 16 rows interleaved (``src/layout.h``)."""

    type: GGMLType
    rows: int
    columns: int
    data: Tensor
    """(bytes,) uint8."""

    def row(self, index: int) -> Tensor:
        """One row as (columns,) float32."""
        out = torch.empty(self.columns)
        data = self.data.data_ptr()
        library().hy_unpack_row(self.type, self.columns, data, index, out.data_ptr())
        return out

    def unpacked(self) -> Tensor:
        """The whole matrix (rows, columns) float32."""
        return torch.stack([self.row(i) for i in range(self.rows)])

    def matmul(self, x: Tensor, threads: int = 1) -> Tensor:
        """(T, columns) float32 -> (T, rows) float32, as the decoder computes it.

        Quantised weights meet activations of eight bits, in groups of 32 with a scale each.
        """
        isa()  # one that cannot run here is an error, not a crash
        x = x.contiguous()
        assert x.dtype == torch.float32, x.dtype
        assert x.shape[1] == self.columns, x.shape
        y = torch.empty(len(x), self.rows)
        failed = library().hy_matmul(
            *(self.type, self.rows, self.columns, self.data.data_ptr(), x.data_ptr()),
            *(len(x), y.data_ptr(), threads),
        )
        if failed:
            raise MemoryError("no memory for the activations")
        return y


def packed_bytes(type: GGMLType, rows: int, columns: int) -> int:
    """Bytes of a packed matrix; 0 if the kernels cannot multiply rows of this type and width."""
    return int(library().hy_packed_bytes(type, rows, columns))


def packable(type: GGMLType, columns: int) -> bool:
    """Whether the kernels can multiply rows of this type and width."""
    return packed_bytes(type, 1, columns) > 0


def pack(type: GGMLType, blocks: Tensor, arena: Arena) -> PackedMatrix:
    """Repack rows as a file stores them: (rows, bytes per row) uint8, contiguous."""
    per_block, size = BLOCK[type]
    rows, columns = len(blocks), blocks.shape[1] // size * per_block
    data = arena.take(packed_bytes(type, rows, columns))
    pack_into(type, blocks, data)
    return PackedMatrix(type, rows, columns, data)


def pack_into(type: GGMLType, blocks: Tensor, data: Tensor) -> None:
    """The same into memory of just the size, (bytes,) uint8."""
    per_block, size = BLOCK[type]
    assert blocks.dtype == torch.uint8
    assert blocks.is_contiguous()
    rows, columns = len(blocks), blocks.shape[1] // size * per_block
    kernels = library()
    assert len(data), f"{type.name} rows of {columns} cannot be packed"
    assert len(data) == packed_bytes(type, rows, columns)

    def part(start: int) -> None:
        count = min(_PACK_ROWS, rows - start)
        offset = packed_bytes(type, start, columns)
        source = blocks.data_ptr() + start * blocks.shape[1]
        kernels.hy_pack(type, count, columns, source, data.data_ptr() + offset)

    starts = range(0, rows, _PACK_ROWS)
    if len(starts) == 1:
        part(0)
    else:  # the calls release the interpreter
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(part, starts))
