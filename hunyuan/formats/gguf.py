"""The GGUF container (versions 2 and 3, little endian): typed metadata, then a table of tensors.

    magic "GGUF", version, tensor count, metadata count
    metadata:  key, value type, value                         (as often as counted)
    tensors:   name, dimensions innermost first, type, offset (as often as counted)
    padding to general.alignment, then the tensors' bytes, each padded likewise

`read_gguf` parses everything but the tensors' bytes and checks all of it against the size of the
file, so that a damaged or half-downloaded file is one `BadDataError` and never a crash half-way
through a model. `write_gguf` streams: a tensor's bytes arrive in chunks and none is kept.
How the bytes become numbers is the business of `hunyuan.formats.ggml`; nothing here needs torch.

Cost: one pass over the header; the 300,000 strings of a 150k vocabulary with its merges take about
a tenth of a second. Limits: big-endian files, split files and block types missing from
`GGMLType` are refused, as are headers far beyond any real vocabulary (`MAX_ELEMENTS`).
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hunyuan.errors import BadDataError, UsageError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# What a damaged length may cost at most. Real headers stay far below: 260k tokens with scores,
# types and merges are about 1.3 million elements, the longest chat template is under 1 MB.
MAX_ELEMENTS = 1 << 23
MAX_STRING_BYTES = 1 << 24
MAX_DEPTH = 4
MAX_DIMENSIONS = 4


class GGMLType(IntEnum):
    """How a tensor's numbers are packed: the ggml block types this project reads."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    BF16 = 30


BLOCK: Mapping[GGMLType, tuple[int, int]] = {
    GGMLType.F32: (1, 4),
    GGMLType.F16: (1, 2),
    GGMLType.BF16: (1, 2),
    GGMLType.Q4_0: (32, 18),
    GGMLType.Q4_1: (32, 20),
    GGMLType.Q5_0: (32, 22),
    GGMLType.Q5_1: (32, 24),
    GGMLType.Q8_0: (32, 34),
    GGMLType.Q4_K: (256, 144),
    GGMLType.Q5_K: (256, 176),
    GGMLType.Q6_K: (256, 210),
}
"""Elements per block and bytes per block."""

# All types there ever were, by number: only to call an unsupported one by its published name.
_TYPE_NAMES = (
    "F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K "
    "IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 "
    "Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0 TQ2_0 IQ4_NL_4_4 IQ4_NL_4_8 IQ4_NL_8_8 MXFP4 NVFP4 Q1_0"
)

# The types of metadata values by their number in the file; the numeric ones as numpy names them.
_NUMERIC: Mapping[int, str] = {
    **{0: "u1", 1: "i1", 2: "u2", 3: "i2", 4: "u4", 5: "i4", 6: "f4", 7: "b1"},
    **{10: "u8", 11: "i8", 12: "f8"},
}
_STRING = 8
_ARRAY = 9
_NUMERIC_KINDS = {np.dtype(name).type: kind for kind, name in _NUMERIC.items()}
# The fewest bytes an array element can take: a string its length, an array its type and length.
_LEAST_BYTES = {_STRING: 8, _ARRAY: 12} | {k: np.dtype(d).itemsize for k, d in _NUMERIC.items()}


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """Where and how a tensor lies in its file."""

    name: str
    shape: tuple[int, ...]
    """Row-major as in torch: the file's dimensions reversed."""
    type: GGMLType
    offset: int
    """Absolute, in bytes from the start of the file."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The checked header of a GGUF file."""

    path: Path
    metadata: Mapping[str, Any]
    """Python values: int, float, bool, str or (nested) lists of them."""
    tensors: Mapping[str, GGUFTensor]
    """In the order of the file's table."""


@dataclass(frozen=True, slots=True)
class GGUFTensorSpec:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    """Row-major as in torch."""
    type: GGMLType
    chunks: Iterable[bytes | memoryview]
    """The tensor's bytes in order, cut anywhere; a generator is asked only when its turn comes."""

    @property
    def nbytes(self) -> int:
        """What the chunks must add up to."""
        return _nbytes(self.shape, self.type)


def _nbytes(shape: Sequence[int], kind: GGMLType) -> int:
    elements, size = BLOCK[kind]
    return prod(shape) // elements * size


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def read_gguf(path: Path) -> GGUFFile:
    """Parse and check the header; raise `BadDataError` for a damaged or unsupported file.

    `UsageError` when the path cannot be opened at all. The tensors' bytes are not read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 24:
                raise _not_gguf(path, f"{size} bytes", f"{size} 字节")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Header(path, data).parse()
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions",
            f"{path}：无法读取（{error.strerror}）；请检查路径与权限",
        ) from error


def _not_gguf(path: Path, found: str, found_zh: str) -> BadDataError:
    return BadDataError(
        f"{path}: not a GGUF file (found {found}); check the path or download it again",
        f"{path}：不是 GGUF 文件（实际为 {found_zh}）；请检查路径或重新下载",
    )


class _Header:
    """A cursor over the header: every step is checked against the end before it is taken."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.position = 0
        self.elements_left = MAX_ELEMENTS
        self.field = "the file's header"  # what is being read, for messages
        self.field_zh = "文件头"

    def parse(self) -> GGUFFile:
        tensor_count, metadata_count = self.preamble()
        metadata = self.metadata(metadata_count)
        if isinstance(parts := metadata.get("split.count"), int) and parts > 1:
            raise BadDataError(
                f"{self.path}: split.count={parts}: one part of a split model; merge all parts "
                "into one file first (llama-gguf-split --merge)",
                f"{self.path}：split.count={parts}：这只是分片模型的一部分；"
                "请先合并为单个文件（llama-gguf-split --merge）",
            )
        tensors = self.tensors(tensor_count, self.alignment(metadata))
        return GGUFFile(self.path, metadata, tensors)

    def preamble(self) -> tuple[int, int]:
        magic = self.data[:4]
        if magic != MAGIC:
            raise _not_gguf(self.path, f"magic {magic!r}", f"文件标识 {magic!r}")
        self.position = 4
        version = self.number("u4")
        if version & 0xFFFF == 0:
            raise BadDataError(
                f"{self.path}: a big-endian GGUF file, only little-endian ones are supported; "
                "use the little-endian edition of this model",
                f"{self.path}：这是大端序 GGUF 文件，仅支持小端序；请改用该模型的小端序版本",
            )
        if version not in VERSIONS:
            raise BadDataError(
                f"{self.path}: GGUF version {version}, supported are 2 and 3; "
                "use a file made by a current converter",
                f"{self.path}：GGUF 版本为 {version}，仅支持 2 与 3；请使用当前转换工具生成的文件",
            )
        return self.number("u8"), self.number("u8")

    def metadata(self, count: int) -> dict[str, Any]:
        # a key's length, its value's type and one byte of value
        self.require_count(count, 13)
        metadata: dict[str, Any] = {}
        for index in range(count):
            self.field = f"metadata key {index + 1} of {count}"
            self.field_zh = f"第 {index + 1}/{count} 个元数据键"
            key = self.string()
            if key in metadata:
                raise self.damaged(f"{key!r} appears twice", f"{key!r} 重复出现")
            self.field = f"metadata {key!r}"
            self.field_zh = f"元数据 {key!r}"
            metadata[key] = self.value(self.number("u4"), 0)
        return metadata

    def alignment(self, metadata: Mapping[str, Any]) -> int:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not _is_alignment(alignment):
            self.field, self.field_zh = "general.alignment", "general.alignment"
            raise self.damaged(f"{alignment!r} is not a power of two", f"{alignment!r} 不是 2 的幂")
        return int(alignment)

    def tensors(self, count: int, alignment: int) -> dict[str, GGUFTensor]:
        # a name's length, the number of dimensions, type and offset
        self.require_count(count, 24)
        table: list[GGUFTensor] = []
        names: set[str] = set()
        for index in range(count):
            self.field = f"tensor {index + 1} of {count}"
            self.field_zh = f"第 {index + 1}/{count} 个张量"
            tensor = self.tensor(alignment)
            if tensor.name in names:
                raise self.damaged("the name appears twice", "名称重复出现")
            names.add(tensor.name)
            table.append(tensor)
        start = _padded(self.position, alignment)
        placed = {
            t.name: GGUFTensor(t.name, t.shape, t.type, start + t.offset, t.nbytes) for t in table
        }
        self.require_data(placed.values())
        return placed

    def tensor(self, alignment: int) -> GGUFTensor:
        """One row of the table, its offset still relative to the start of the data."""
        name = self.string()
        self.field, self.field_zh = f"tensor {name!r}", f"张量 {name!r}"
        rank = self.number("u4")
        if rank > MAX_DIMENSIONS:
            raise self.damaged(
                f"{rank} dimensions, at most {MAX_DIMENSIONS} exist",
                f"维数为 {rank}，最多只能有 {MAX_DIMENSIONS} 维",
            )
        shape = tuple(self.number("u8") for _ in range(rank))[::-1]
        if 0 in shape:
            raise self.damaged("a dimension of 0", "存在大小为 0 的维度")
        kind = self.block_type()
        offset = self.number("u8")
        elements, _ = BLOCK[kind]
        row = shape[-1] if shape else 1
        if row % elements:
            raise self.damaged(
                f"its rows of {row} are no multiple of the {kind.name} block of {elements}",
                f"行长 {row} 不是 {kind.name} 块大小 {elements} 的整数倍",
            )
        if offset % alignment:
            raise self.damaged(
                f"offset {offset} is no multiple of the alignment {alignment}",
                f"偏移 {offset} 不是对齐值 {alignment} 的整数倍",
            )
        return GGUFTensor(name, shape, kind, offset, _nbytes(shape, kind))

    def block_type(self) -> GGMLType:
        number = self.number("u4")
        if number in BLOCK:
            return GGMLType(number)
        names = _TYPE_NAMES.split()
        name = names[number] if number < len(names) else f"number {number}"
        supported = ", ".join(kind.name for kind in GGMLType)
        raise BadDataError(
            f"{self.path}: {self.field} has the unsupported type {name}; "
            f"use a file with these types only: {supported}",
            f"{self.path}：{self.field_zh} 的类型 {name} 不受支持；"
            f"请使用仅含以下类型的文件：{supported}",
        )

    def require_data(self, tensors: Iterable[GGUFTensor]) -> None:
        """Every tensor inside the file, no two over each other."""
        ordered = sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes))
        for tensor in ordered:
            end = tensor.offset + tensor.nbytes
            if end > self.size:
                raise BadDataError(
                    f"{self.path}: tensor {tensor.name!r} ends at byte {end}, "
                    f"the file has only {self.size}; the download is incomplete, repeat it",
                    f"{self.path}：张量 {tensor.name!r} 应结束于第 {end} 字节，"
                    f"而文件只有 {self.size} 字节；下载不完整，请重新下载",
                )
        for before, after in pairwise(ordered):
            if before.offset + before.nbytes > after.offset:
                self.field, self.field_zh = f"tensor {after.name!r}", f"张量 {after.name!r}"
                raise self.damaged(f"overlaps {before.name!r}", f"与 {before.name!r} 重叠")

    def value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(depth)
        if kind in _NUMERIC:
            return self.number(_NUMERIC[kind])
        raise self.damaged(f"unknown value type {kind}", f"未知的值类型 {kind}")

    def array(self, depth: int) -> list[Any]:
        if depth == MAX_DEPTH:
            raise self.damaged(
                f"arrays nested deeper than {MAX_DEPTH}", f"数组嵌套超过 {MAX_DEPTH} 层"
            )
        kind, count = self.number("u4"), self.number("u8")
        if kind not in _LEAST_BYTES:
            raise self.damaged(f"unknown element type {kind}", f"未知的元素类型 {kind}")
        self.require_count(count, _LEAST_BYTES[kind])
        if count > self.elements_left:
            raise self.damaged(
                f"more than {MAX_ELEMENTS} array elements in the header",
                f"文件头中的数组元素超过 {MAX_ELEMENTS} 个",
            )
        self.elements_left -= count
        if kind == _STRING:
            return self.strings(count)
        if kind == _ARRAY:
            return [self.array(depth + 1) for _ in range(count)]
        return self.numbers(_NUMERIC[kind], count)

    def strings(self, count: int) -> list[str]:
        """`count` strings, with all lookups hoisted: vocabularies make this the hot loop."""
        data, position, last = self.data, self.position, self.size - 8
        unpack = struct.Struct("<Q").unpack_from
        found: list[str] = []
        append = found.append
        try:
            for _ in range(count):
                if position > last:
                    raise self.truncated()
                (length,) = unpack(data, position)
                start = position + 8
                position = start + length
                if length > MAX_STRING_BYTES or position > self.size:
                    raise self.too_long(length)
                append(data[start:position].decode())
        except UnicodeDecodeError as error:
            raise self.not_text() from error
        self.position = position
        return found

    def string(self) -> str:
        return self.strings(1)[0]

    def number(self, dtype: str) -> Any:
        return self.numbers(dtype, 1)[0]

    def numbers(self, dtype: str, count: int) -> list[Any]:
        little = np.dtype("<" + dtype)
        start, end = self.position, self.position + count * little.itemsize
        if end > self.size:
            raise self.truncated()
        self.position = end
        found: list[Any] = np.frombuffer(self.data[start:end], little).tolist()
        return found

    def require_count(self, count: int, least_bytes: int) -> None:
        """Refuse a count that the rest of the file cannot hold, before anything is allocated."""
        if count * least_bytes > self.size - self.position:
            raise self.damaged(
                f"{count} entries do not fit into the rest of the file ({self.size} bytes)",
                f"{count} 个条目超出文件剩余部分（文件共 {self.size} 字节）",
            )

    def truncated(self) -> BadDataError:
        return self.damaged(
            f"the file ends in the middle of it ({self.size} bytes)",
            f"文件在此处中断（共 {self.size} 字节）",
        )

    def too_long(self, length: int) -> BadDataError:
        return self.damaged(
            f"a string of {length} bytes, past the end of the file ({self.size} bytes) "
            f"or the limit of {MAX_STRING_BYTES}",
            f"字符串长度 {length} 字节，超出文件末尾（共 {self.size} 字节）"
            f"或上限 {MAX_STRING_BYTES}",
        )

    def not_text(self) -> BadDataError:
        return self.damaged("a string is not valid UTF-8", "字符串不是有效的 UTF-8")

    def damaged(self, en: str, zh: str) -> BadDataError:
        return BadDataError(
            f"{self.path}: {self.field}: {en}; the file is damaged or incomplete, "
            "download or convert it again",
            f"{self.path}：{self.field_zh}：{zh}；文件已损坏或不完整，请重新下载或转换",
        )


def write_gguf(
    file: BinaryIO, metadata: Mapping[str, Any], tensors: Sequence[GGUFTensorSpec]
) -> None:
    """Write a version 3 file: the header, then every tensor's chunks as they come.

    Value types, as the well known keys want them: an int is uint32 (int32 if negative, 64 bits
    only if it needs them), a float float32; in lists an int is int32, a float float32; bool and
    str are themselves. A numpy scalar or array keeps its own type, where a key wants another one.
    """
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    assert _is_alignment(alignment), alignment
    parts = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += _string(key), *_value(key, value)
    names = {spec.name for spec in tensors}
    assert len(names) == len(tensors), "tensor names must be unique"
    offset = 0
    for spec in tensors:
        elements, _ = BLOCK[spec.type]
        row = spec.shape[-1] if spec.shape else 1
        assert row % elements == 0, f"{spec.name}: rows of {row} in blocks of {elements}"
        rank = len(spec.shape)
        assert rank <= MAX_DIMENSIONS, f"{spec.name}: {rank} dimensions"
        dimensions = struct.pack(f"<I{rank}Q", rank, *spec.shape[::-1])
        parts += _string(spec.name), dimensions, struct.pack("<IQ", spec.type, offset)
        offset = _padded(offset + spec.nbytes, alignment)
    header = b"".join(parts)
    file.write(header.ljust(_padded(len(header), alignment), b"\0"))
    for spec in tensors:
        written = 0
        for chunk in spec.chunks:
            file.write(chunk)
            written += memoryview(chunk).nbytes
        assert written == spec.nbytes, f"{spec.name}: {written} bytes given, {spec.nbytes} needed"
        file.write(bytes(_padded(written, alignment) - written))


def _is_alignment(alignment: object) -> bool:
    return type(alignment) is int and alignment > 0 and alignment & (alignment - 1) == 0


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(key: str, value: Any) -> tuple[bytes, ...]:
    """The type and bytes of a metadata value."""
    if isinstance(value, str):
        return struct.pack("<I", _STRING), _string(value)
    if isinstance(value, bool | int | float | np.generic):
        scalar = np.asarray(value, None if isinstance(value, np.generic) else _scalar_type(value))
        return struct.pack("<I", _NUMERIC_KINDS[scalar.dtype.type]), _little(scalar)
    if isinstance(value, np.ndarray):
        assert value.ndim == 1, f"{key}: an array of {value.ndim} dimensions"
        return _array(_NUMERIC_KINDS[value.dtype.type], len(value), _little(value))
    assert isinstance(value, list | tuple), f"{key}: cannot be written: {type(value)}"
    kinds = {type(element) for element in value}
    assert len(kinds) == 1, f"{key}: a list of one type, or a numpy array if empty: {kinds}"
    if kinds == {str}:
        return _array(_STRING, len(value), b"".join(map(_string, value)))
    dtypes: dict[type, type[np.generic]] = {bool: np.bool_, int: np.int32, float: np.float32}
    return _value(key, np.array(value, dtypes[kinds.pop()]))


def _array(kind: int, count: int, elements: bytes) -> tuple[bytes, ...]:
    return struct.pack("<IIQ", _ARRAY, kind, count), elements


def _scalar_type(value: bool | int | float) -> type[np.generic]:
    if isinstance(value, bool):
        return np.bool_
    if isinstance(value, float):
        return np.float32
    if value >= 0:
        return np.uint32 if value < 1 << 32 else np.uint64
    return np.int32 if value >= -(1 << 31) else np.int64


def _little(values: "np.ndarray[Any, np.dtype[Any]]") -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
