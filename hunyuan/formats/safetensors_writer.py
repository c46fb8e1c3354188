"""The safetensors layout, written as a stream; the library needs a whole file in memory at once.

    8 bytes: length of the header (little endian)
    header:  JSON, per tensor its type, shape and byte range; padded with spaces to 8 bytes
    data:    the tensors' bytes, one after the other, without gaps

Only the chunk being written is held, so a shard costs the memory of one chunk. Limits: names,
types and shapes have to be known in advance. The format allows no gaps, so a tensor may start
at an odd address; give wider types first, as the library does, to let readers map them in place.
Source: https://github.com/huggingface/safetensors#format
"""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import torch
from torch import Tensor

DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the format calls torch's types."""

_ITEM_BYTES = {name: dtype.itemsize for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class SafetensorsSpec:
    """A tensor to be written."""

    name: str
    dtype: str
    """One of `DTYPE_NAMES`."""
    shape: tuple[int, ...]
    chunks: Iterable[bytes | memoryview]
    """The tensor's bytes in order, cut anywhere; a generator is asked only when its turn comes."""

    @property
    def nbytes(self) -> int:
        """What the chunks must add up to."""
        return prod(self.shape) * _ITEM_BYTES[self.dtype]


def write_safetensors(
    file: BinaryIO, tensors: Sequence[SafetensorsSpec], metadata: Mapping[str, str]
) -> None:
    """Write the header, then every tensor's chunks as they come, in the given order."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for spec in tensors:
        assert spec.name not in entries, f"{spec.name}: given twice"
        start, end = end, end + spec.nbytes
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [start, end],
        }
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header = header.ljust(-(-len(header) // 8) * 8)
    file.write(struct.pack("<Q", len(header)) + header)
    for spec in tensors:
        written = 0
        for chunk in spec.chunks:
            file.write(chunk)
            written += memoryview(chunk).nbytes
        assert written == spec.nbytes, f"{spec.name}: {written} bytes given, {spec.nbytes} needed"


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, of any type, shared with it: no copy."""
    assert tensor.is_contiguous(), "the bytes of a view are not one range"
    return tensor.detach().view(-1).view(torch.uint8).numpy().data
