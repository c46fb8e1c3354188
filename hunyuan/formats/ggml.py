"""What the bytes of a GGUF tensor mean: ggml's block types to torch tensors, and floats back.

A quantised row is a sequence of blocks of 32 or 256 weights, each with its own scales:

    Q4_0 Q5_0 Q8_0   d, q          weight = d * (q - centre)
    Q4_1 Q5_1        d, m, q       weight = d * q + m
    Q4_K Q5_K        d, dmin, 8 six-bit pairs (s, m), q    weight = (d * s) * q - (dmin * m)
    Q6_K             d, 16 signed s, q                     weight = (d * s) * (q - 32)

Everything is computed in float32 in exactly this order of operations, so the result equals the
reference implementation bit for bit, and is rounded once to the wanted type. The work goes in
chunks that stay in the processor's cache: beyond the result, memory is a few MB whatever the
tensor's size, and reading fetches only the bytes that were asked for. Cost: about 1 ns per weight
on two cores (630 million weights of Q4_K, Q5_0, Q6_K and Q8_0 to bfloat16 in 0.8 s).
Limits: `encode` writes the three float types only; a big-endian machine is not supported.
Source of the block layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import torch
from torch import Tensor

from hunyuan.errors import BadDataError, UsageError
from hunyuan.formats.gguf import BLOCK, GGMLType, GGUFFile, GGUFTensor
from hunyuan.formats.safetensors_writer import tensor_bytes

FLOATS: Mapping[GGMLType, torch.dtype] = {
    GGMLType.F32: torch.float32,
    GGMLType.F16: torch.float16,
    GGMLType.BF16: torch.bfloat16,
}
"""The block types that are plain numbers."""

# Weights unpacked at a time. Fewer, and starting the operations dominates (a quarter takes 2.3
# times as long on two cores); more, and the temporaries (about 2 MB) leave the cache.
CHUNK_ELEMENTS = 1 << 18


def dequantize(data: Tensor, type: GGMLType, dtype: torch.dtype) -> Tensor:
    """Unpack whole blocks: uint8 (bytes,) -> ``dtype`` (elements,), exact before rounding.

    ``data`` must be contiguous and start at an even address of its storage.
    """
    per_block, size = BLOCK[type]
    assert data.dtype == torch.uint8
    assert data.numel() % size == 0, f"{data.numel()} bytes are no whole {type.name} blocks"
    out = torch.empty(data.numel() // size * per_block, dtype=dtype)
    step = CHUNK_ELEMENTS // per_block * size
    for target, start in zip(_chunks(out), range(0, data.numel(), step), strict=True):
        _unpack(data[start : start + step], type, target)
    return out


def read_tensor(
    file: GGUFFile,
    name: str,
    *,
    rows: int | slice | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Read a tensor, or an entry (int) or range (slice) of its first dimension, as ``dtype``.

    Reads only the bytes of ``rows``, through a buffer of one chunk. `BadDataError` if the file
    has become shorter since its header was read.
    """
    tensor = file.tensors[name]
    shape, offset, nbytes = _extent(tensor, rows)
    per_block, size = BLOCK[tensor.type]
    out = torch.empty(nbytes // size * per_block, dtype=dtype)
    with file.path.open("rb", buffering=0) as stream:
        stream.seek(offset)
        if FLOATS.get(tensor.type) == dtype:
            complete = _fill(stream, tensor_bytes(out))
        else:
            complete = _read_blocks(stream, tensor.type, out)
    if not complete:
        raise _cut_off(file, name)
    return out.view(shape)


def read_blocks(file: GGUFFile, name: str, *, rows: int | None = None) -> Tensor:
    """A tensor, or one entry of its first dimension, as stored: (rows, bytes of a row) uint8."""
    tensor = file.tensors[name]
    shape, offset, nbytes = _extent(tensor, rows)
    out = torch.empty(nbytes, dtype=torch.uint8)
    with file.path.open("rb", buffering=0) as stream:
        stream.seek(offset)
        if not _fill(stream, tensor_bytes(out)):
            raise _cut_off(file, name)
    return out.view(shape[0] if len(shape) > 1 else 1, -1)


def _extent(tensor: GGUFTensor, rows: int | slice | None) -> tuple[tuple[int, ...], int, int]:
    """Shape, offset and bytes of (part of) a tensor."""
    shape, offset, nbytes = tensor.shape, tensor.offset, tensor.nbytes
    if rows is not None:
        chosen = range(shape[0])[rows]
        chosen = range(chosen, chosen + 1) if isinstance(chosen, int) else chosen
        assert chosen.step == 1, rows
        assert len(shape) > 1 or tensor.type in FLOATS, f"{tensor}: a block cannot be cut"
        row_bytes = nbytes // shape[0]
        offset, nbytes = offset + chosen.start * row_bytes, len(chosen) * row_bytes
        shape = shape[1:] if isinstance(rows, int) else (len(chosen), *shape[1:])
    return shape, offset, nbytes


def _cut_off(file: GGUFFile, name: str) -> BadDataError:
    return BadDataError(
        f"{file.path}: tensor {name!r} is cut off, the file has become shorter while in use; "
        "download it again",
        f"{file.path}：张量 {name!r} 不完整，文件在使用中变短；请重新下载",
    )


def encode(x: Tensor, type: GGMLType) -> memoryview:
    """The bytes of ``x`` as F32, F16 or BF16, without a copy if it has that type already.

    `UsageError` if a finite number would become infinite in F16.
    """
    y = x.to(FLOATS[type])
    if type is GGMLType.F16 and bool((y.isinf() & x.isfinite()).any()):
        largest = x.abs().max().item()
        raise UsageError(
            f"type F16: a weight of magnitude {largest:g} exceeds its limit of 65504; "
            "choose BF16 or F32",
            f"类型 F16：权重绝对值 {largest:g} 超出其上限 65504；请选择 BF16 或 F32",
        )
    return tensor_bytes(y.contiguous())


def _chunks(out: Tensor) -> Iterator[Tensor]:
    for start in range(0, out.numel(), CHUNK_ELEMENTS):
        yield out[start : start + CHUNK_ELEMENTS]


def _read_blocks(stream: BinaryIO, type: GGMLType, out: Tensor) -> bool:
    """Fill ``out`` from the stream's blocks; False if it ends early."""
    per_block, size = BLOCK[type]
    elements = min(CHUNK_ELEMENTS, out.numel())
    buffer = torch.empty(elements // per_block * size, dtype=torch.uint8)
    for target in _chunks(out):
        chunk = buffer[: target.numel() // per_block * size]
        if not _fill(stream, tensor_bytes(chunk)):
            return False
        _unpack(chunk, type, target)
    return True


def _fill(stream: BinaryIO, view: memoryview) -> bool:
    """Read until ``view`` is full (one call stops at 2 GiB); False if the stream ends first."""
    while len(view):
        count = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True


def _unpack(chunk: Tensor, type: GGMLType, out: Tensor) -> None:
    """Whole blocks of ``chunk`` (bytes,) into ``out`` (elements,)."""
    if type in FLOATS:
        out.copy_(chunk.view(FLOATS[type]))
    else:
        blocks = chunk.view(-1, BLOCK[type][1])
        out.copy_(_UNPACK[type](blocks).view(-1))


# Each of the following takes blocks (n, bytes per block) and returns float32 with n * elements
# per block numbers in order.


def _half(blocks: Tensor, position: int) -> Tensor:
    """The float16 at an even byte position of every block, as float32 (n, 1)."""
    at = position // 2
    return blocks.view(torch.float16)[:, at : at + 1].float()


def _nibbles(packed: Tensor) -> Tensor:
    """(..., k) bytes -> (..., 2, k): all low halves, then all high halves."""
    q = torch.empty(*packed.shape[:-1], 2, packed.shape[-1], dtype=torch.uint8)
    torch.bitwise_and(packed, 15, out=q[..., 0, :])
    torch.bitwise_right_shift(packed, 4, out=q[..., 1, :])
    return q


def _bits(packed: Tensor) -> Tensor:
    """(n, k) bytes -> (n, 8 k): their bits, lowest first, each worth 16 (the fifth bit)."""
    spread = _SPREAD[packed.reshape(-1).int()]
    return spread.view(torch.uint8).view(len(packed), -1)


# byte -> its eight bits in the eight bytes of an int64, each as 0 or 16
_SPREAD = (
    (((torch.arange(256)[:, None] >> torch.arange(8)) & 1) << 4)
    .to(torch.uint8)
    .view(torch.int64)
    .flatten()
)


def _signed(q: Tensor, centre: int) -> Tensor:
    """uint8 -> float32 minus ``centre``, subtracted as integers."""
    return q.sub_(centre).view(torch.int8).float()


def _q4_0(blocks: Tensor) -> Tensor:
    q = _nibbles(blocks[:, 2:]).view(-1, 32)
    return _signed(q, 8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor) -> Tensor:
    q = _nibbles(blocks[:, 4:]).view(-1, 32)
    return q.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor) -> Tensor:
    q = _nibbles(blocks[:, 6:]).view(-1, 32).bitwise_or_(_bits(blocks[:, 2:6]))
    return _signed(q, 16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor) -> Tensor:
    q = _nibbles(blocks[:, 8:]).view(-1, 32).bitwise_or_(_bits(blocks[:, 4:8]))
    return q.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks, 0))


def _scales_and_minima(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """d * s and dmin * m of Q4_K and Q5_K, each (n, 8, 1).

    Twelve bytes hold eight pairs of six bits: bytes 0-3 and 4-7 the first four s and m, their
    top two bits being those of the last four; bytes 8-11 the low halves of the last four.
    """
    first, second, low = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    s = torch.cat([first & 63, (low & 15) | ((first >> 2) & 48)], 1)
    m = torch.cat([second & 63, (low >> 4) | ((second >> 2) & 48)], 1)
    scale = s.float().mul_(_half(blocks, 0))
    minimum = m.float().mul_(_half(blocks, 2))
    return scale.unsqueeze(-1), minimum.unsqueeze(-1)


def _q4_k(blocks: Tensor) -> Tensor:
    scale, minimum = _scales_and_minima(blocks)
    q = _nibbles(blocks[:, 16:].view(-1, 4, 32))
    return q.view(-1, 8, 32).float().mul_(scale).sub_(minimum)


def _q5_k(blocks: Tensor) -> Tensor:
    scale, minimum = _scales_and_minima(blocks)
    q = _nibbles(blocks[:, 48:].view(-1, 4, 32)).view(-1, 8, 32)
    high = blocks[:, 16:48]
    for bit in range(8):  # bit b of byte i belongs to weight 32 b + i
        q[:, bit] |= ((high >> bit) & 1) << 4
    return q.float().mul_(scale).sub_(minimum)


def _q6_k(blocks: Tensor) -> Tensor:
    q = _nibbles(blocks[:, :128].view(-1, 2, 64)).view(-1, 2, 4, 32)
    high = blocks[:, 128:192].view(-1, 2, 32)
    for pair in range(4):  # two bits at a time, per half of the block
        q[:, :, pair] |= ((high >> (2 * pair)) & 3) << 4
    scale = blocks[:, 192:208].view(torch.int8).float().mul_(_half(blocks, 208))
    return _signed(q.view(-1, 16, 16), 32).mul_(scale.unsqueeze(-1))


_UNPACK: Mapping[GGMLType, Callable[[Tensor], Tensor]] = {
    GGMLType.Q4_0: _q4_0,
    GGMLType.Q4_1: _q4_1,
    GGMLType.Q5_0: _q5_0,
    GGMLType.Q5_1: _q5_1,
    GGMLType.Q8_0: _q8_0,
    GGMLType.Q4_K: _q4_k,
    GGMLType.Q5_K: _q5_k,
    GGMLType.Q6_K: _q6_k,
}
