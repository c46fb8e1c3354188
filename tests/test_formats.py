"""GGUF, ggml blocks and the safetensors writer, against their reference implementations.

Oracles: PyPI `gguf` (reader, writer, quants) and the `safetensors` library. Malformed files are
made from a valid one by truncation, by changing bytes, and field by field by a small builder that
can write what no writer would.
"""

import io
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize as reference_dequantize
from gguf.quants import quantize as reference_quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from hunyuan.errors import BadDataError, UsageError
from hunyuan.formats import ggml
from hunyuan.formats.ggml import FLOATS, dequantize, encode, read_tensor
from hunyuan.formats.gguf import (
    BLOCK,
    MAX_DEPTH,
    MAX_ELEMENTS,
    GGMLType,
    GGUFFile,
    GGUFTensorSpec,
    read_gguf,
    write_gguf,
)
from hunyuan.formats.safetensors_writer import (
    DTYPE_NAMES,
    SafetensorsSpec,
    tensor_bytes,
    write_safetensors,
)

QUANTISED = [kind for kind in GGMLType if kind not in FLOATS]
# byte positions of the float16 scales in a block
SCALES = {
    **{GGMLType.Q4_0: [0], GGMLType.Q4_1: [0, 2], GGMLType.Q5_0: [0], GGMLType.Q5_1: [0, 2]},
    **{GGMLType.Q8_0: [0], GGMLType.Q4_K: [0, 2], GGMLType.Q5_K: [0, 2], GGMLType.Q6_K: [208]},
}


def random_blocks(kind: GGMLType, count: int, seed: int = 0) -> np.ndarray:
    """Random bits with scales a model could have (random float16 bits would hold NaN)."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (count, BLOCK[kind][1]), np.uint8)
    for at in SCALES.get(kind, []):
        scales = random.normal(0, 0.02, count).astype(np.float16)
        blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
    if kind in FLOATS:
        values = torch.from_numpy(random.normal(0, 1, count)).to(FLOATS[kind])
        blocks = np.array(tensor_bytes(values)).reshape(count, -1)
    return blocks


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and bytes(tensor_bytes(left)) == bytes(tensor_bytes(right))
    )


# --- ggml blocks -------------------------------------------------------------------------------


def test_types_and_block_sizes_are_those_of_ggml() -> None:
    for kind in GGMLType:
        theirs = gguf.GGMLQuantizationType[kind.name]
        assert theirs == kind
        assert gguf.GGML_QUANT_SIZES[theirs] == BLOCK[kind]


@pytest.mark.parametrize("kind", list(GGMLType), ids=lambda kind: kind.name)
def test_dequantize_equals_reference_bit_for_bit(
    kind: GGMLType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ggml, "CHUNK_ELEMENTS", 1024)  # 4 to 1024 blocks at a time, and a rest
    blocks = random_blocks(kind, 1025)
    expected = torch.from_numpy(
        reference_dequantize(blocks.copy(), gguf.GGMLQuantizationType(kind)).reshape(-1)
    )
    data = torch.from_numpy(blocks).view(-1)
    assert same_bits(dequantize(data, kind, torch.float32), expected)
    for dtype in (torch.bfloat16, torch.float16):
        assert same_bits(dequantize(data, kind, dtype), expected.to(dtype))


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_dequantize_a_full_chunk_and_more(kind: GGMLType) -> None:
    count = ggml.CHUNK_ELEMENTS // BLOCK[kind][0] + 3
    blocks = random_blocks(kind, count)
    expected = reference_dequantize(blocks, gguf.GGMLQuantizationType(kind)).reshape(-1)
    found = dequantize(torch.from_numpy(blocks).view(-1), kind, torch.float32)
    assert same_bits(found, torch.from_numpy(expected))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16"])
def test_dequantize_what_the_reference_quantised(kind: str) -> None:
    theirs = gguf.GGMLQuantizationType[kind]
    weights = np.random.default_rng(1).normal(0, 0.05, (64, 96)).astype(np.float32)
    weights[3] = 0
    packed = reference_quantize(weights, theirs)
    found = dequantize(
        torch.from_numpy(packed.reshape(-1).view(np.uint8)), GGMLType[kind], torch.float32
    )
    expected = torch.from_numpy(reference_dequantize(packed, theirs).reshape(-1))
    assert same_bits(found, expected)
    assert (found - torch.from_numpy(weights).view(-1)).abs().max() < 0.02


def test_dequantize_nothing() -> None:
    for kind in GGMLType:
        assert dequantize(torch.empty(0, dtype=torch.uint8), kind, torch.bfloat16).shape == (0,)


@pytest.mark.parametrize("kind", list(FLOATS), ids=lambda kind: kind.name)
def test_encode_equals_reference(kind: GGMLType) -> None:
    x = torch.randn(33, 7)
    expected = reference_quantize(x.numpy(), gguf.GGMLQuantizationType(kind))
    assert bytes(encode(x, kind)) == expected.tobytes()
    assert bytes(encode(x.T, kind)) == expected.view(FLOAT_BITS[kind]).T.tobytes()


FLOAT_BITS = {GGMLType.F32: np.uint32, GGMLType.F16: np.uint16, GGMLType.BF16: np.uint16}


def test_encode_shares_memory_where_it_can() -> None:
    x = torch.zeros(4, dtype=torch.bfloat16)
    view = encode(x, GGMLType.BF16)
    x.fill_(1)
    assert bytes(view) == b"\x80\x3f" * 4


def test_encode_refuses_overflow_in_f16() -> None:
    limit = torch.tensor([65504.0, -65519.0, torch.inf])
    assert len(encode(limit, GGMLType.F16)) == 6
    with pytest.raises(UsageError, match=r"magnitude 70000 exceeds its limit of 65504.*BF16"):
        encode(torch.tensor([1.0, -70000.0]), GGMLType.F16)


# --- a valid file, written by the reference ----------------------------------------------------

METADATA: dict[str, Any] = {
    "test.uint8": np.uint8(200),
    "test.int8": np.int8(-100),
    "test.uint16": np.uint16(60000),
    "test.int16": np.int16(-30000),
    "test.uint32": 4_000_000_000,
    "test.int32": -5,
    "test.uint64": np.uint64(2**63 + 1),
    "test.int64": np.int64(-(2**62)),
    "test.float32": 0.5,
    "test.float64": np.float64(0.1),
    "test.bool": True,
    "test.string": "混元 \n \U0001f600",
    "tokenizer.tokens": ["a", "", "你好", "Ġthe"],
    "tokenizer.scores": [0.25, -1.5],
    "tokenizer.types": [1, -2, 3],
    "tokenizer.flags": [True, False],
}


def metadata_as_python() -> dict[str, Any]:
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in METADATA.items()}


def reference_file(path: Path) -> dict[str, torch.Tensor]:
    """Every value and tensor type in one file; returns its tensors in float32."""
    writer = gguf.GGUFWriter(path, "test")
    kinds = gguf.GGUFValueType
    for key, value in METADATA.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            name = key.removeprefix("test.").upper()
            plain = value.item() if isinstance(value, np.generic) else value
            writer.add_key_value(key, plain, kinds[name])
    tensors = {}
    for seed, kind in enumerate(GGMLType):
        elements, _ = BLOCK[kind]
        blocks = random_blocks(kind, 3 * 2 * 2, seed)
        data = blocks.reshape(3, 2, -1)
        theirs = gguf.GGMLQuantizationType(kind)
        expected = reference_dequantize(blocks.copy(), theirs).reshape(3, 2, 2 * elements)
        tensors[f"blk.{kind.name}.weight"] = torch.from_numpy(expected)
        writer.add_tensor(f"blk.{kind.name}.weight", data, raw_dtype=theirs)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats") / "scratch.gguf"


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("valid") / "valid.gguf"
    reference_file(path)
    return path


def test_read_what_the_reference_wrote(tmp_path: Path) -> None:
    tensors = reference_file(tmp_path / "x.gguf")
    file = read_gguf(tmp_path / "x.gguf")
    assert dict(file.metadata) == {"general.architecture": "test"} | metadata_as_python()
    assert all(type(file.metadata[k]) is type(v) for k, v in metadata_as_python().items())
    assert list(file.tensors) == list(tensors)
    theirs = {t.name: t for t in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    for name, tensor in file.tensors.items():
        assert tensor.shape == tensors[name].shape
        assert (tensor.offset, tensor.nbytes) == (theirs[name].data_offset, theirs[name].n_bytes)
        assert same_bits(read_tensor(file, name), tensors[name])
        half = read_tensor(file, name, dtype=torch.bfloat16)
        assert same_bits(half, tensors[name].to(torch.bfloat16))


@pytest.mark.parametrize("rows", [0, 2, -1, slice(1, 3), slice(None, 2), slice(3, 3), slice(5)])
def test_read_rows(valid: Path, rows: int | slice) -> None:
    file = read_gguf(valid)
    for name in file.tensors:
        assert same_bits(read_tensor(file, name, rows=rows), read_tensor(file, name)[rows])


def test_read_rows_touches_only_their_bytes(tmp_path: Path) -> None:
    reference_file(tmp_path / "x.gguf")
    file = read_gguf(tmp_path / "x.gguf")
    last = list(file.tensors.values())[-1]
    whole = read_tensor(file, last.name)
    with file.path.open("r+b") as stream:
        stream.truncate(last.offset + last.nbytes // 3)
    assert same_bits(read_tensor(file, last.name, rows=0), whole[0])
    for dtype in (torch.float32, FLOATS[last.type]):
        with pytest.raises(BadDataError, match=f"{last.name}.* is cut off.*download it again"):
            read_tensor(file, last.name, rows=1, dtype=dtype)


def test_reading_costs_the_memory_of_the_result(tmp_path: Path) -> None:
    peak_file, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not peak_file.exists():
        pytest.skip("peak memory is measured through /proc")
    shape, path = (32, 1024, 1024), tmp_path / "x.gguf"
    with path.open("wb") as stream:
        spec = GGUFTensorSpec("w", shape, GGMLType.Q8_0, [bytes(34 << 20)])
        write_gguf(stream, {}, [spec])
    file = read_gguf(path)

    def resident(field: str) -> int:
        return next(
            int(line.split()[1]) << 10
            for line in peak_file.read_text().splitlines()
            if line.startswith(field)
        )

    reset.write_text("5")  # sets the peak back to the present
    before = resident("VmRSS")
    tensor = read_tensor(file, "w", dtype=torch.bfloat16)
    assert tensor.nbytes == 64 << 20
    assert resident("VmHWM") - before < tensor.nbytes + (16 << 20)


# --- writing -----------------------------------------------------------------------------------


def written(metadata: dict[str, Any], tensors: list[GGUFTensorSpec], path: Path) -> GGUFFile:
    buffer = io.BytesIO()
    write_gguf(buffer, metadata, tensors)
    path.write_bytes(buffer.getvalue())
    return read_gguf(path)


def test_written_file_is_the_one_the_reference_writes(tmp_path: Path, valid: Path) -> None:
    file = read_gguf(valid)
    raw = valid.read_bytes()
    specs = [
        GGUFTensorSpec(t.name, t.shape, t.type, [raw[t.offset : t.offset + t.nbytes]])
        for t in file.tensors.values()
    ]
    written({"general.architecture": "test"} | METADATA, specs, tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == raw


@pytest.mark.parametrize("alignment", [None, 1, 8, 256])
def test_chunks_are_asked_for_in_turn_and_aligned(tmp_path: Path, alignment: int | None) -> None:
    stacked = torch.randn(4, 3, 5).bfloat16()
    bias = torch.randn(7)
    events: list[str] = []

    class Recorder(io.BytesIO):
        def write(self, data: Any) -> int:
            events.append("write")
            return super().write(data)

    def experts() -> Iterator[memoryview]:
        for index, expert in enumerate(stacked):
            events.append(f"ask {index}")
            yield tensor_bytes(expert)

    metadata = {} if alignment is None else {"general.alignment": alignment}
    buffer = Recorder()
    tensors = [
        GGUFTensorSpec("experts", (4, 3, 5), GGMLType.BF16, experts()),
        GGUFTensorSpec("bias", (7,), GGMLType.F32, [tensor_bytes(bias)]),
        GGUFTensorSpec("scalar", (), GGMLType.F32, [b"\0\0\x80\x3f"]),
    ]
    write_gguf(buffer, metadata, tensors)
    turns = [turn for index in range(4) for turn in (f"ask {index}", "write")]
    assert events[1:9] == turns  # the header came first
    path = tmp_path / "x.gguf"
    path.write_bytes(buffer.getvalue())
    file = read_gguf(path)
    assert all(t.offset % (alignment or 32) == 0 for t in file.tensors.values())
    assert same_bits(read_tensor(file, "experts", dtype=torch.bfloat16), stacked)
    assert same_bits(read_tensor(file, "experts", rows=2), stacked[2].float())
    assert same_bits(read_tensor(file, "bias"), bias)
    assert same_bits(read_tensor(file, "bias", rows=slice(2, 5)), bias[2:5])
    assert same_bits(read_tensor(file, "scalar"), torch.tensor(1.0))
    if alignment != 1:  # the reference's arrays need an aligned start
        theirs = gguf.GGUFReader(path).tensors[1].data
        assert same_bits(torch.from_numpy(theirs.copy()), bias)


@pytest.mark.parametrize(
    ("metadata", "shape", "chunks"),
    [
        ({}, (2, 2), [bytes(15)]),
        ({}, (2, 2), [bytes(8), bytes(9)]),
        ({}, (2, 2), []),
        ({}, (1, 1, 1, 2, 2), [bytes(16)]),
        ({"general.alignment": 24}, (2, 2), [bytes(16)]),
        ({"key": []}, (2, 2), [bytes(16)]),
        ({"key": [1, "a"]}, (2, 2), [bytes(16)]),
        ({"key": None}, (2, 2), [bytes(16)]),
    ],
)
def test_our_own_mistakes_in_writing_are_caught(
    metadata: dict[str, Any], shape: tuple[int, ...], chunks: list[bytes]
) -> None:
    with pytest.raises(AssertionError):
        write_gguf(io.BytesIO(), metadata, [GGUFTensorSpec("w", shape, GGMLType.F32, chunks)])


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
float32 = st.floats(width=32, allow_nan=False)
int32 = st.integers(-(2**31), 2**31 - 1)
values = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    float32,
    text,
    *(st.lists(kind, min_size=1, max_size=5) for kind in (st.booleans(), int32, float32, text)),
)


@given(
    metadata=st.dictionaries(text.filter(lambda key: key != "general.alignment"), values),
    tensors=st.dictionaries(
        text,
        st.tuples(
            st.sampled_from(list(GGMLType)), st.lists(st.integers(1, 3), min_size=1, max_size=4)
        ),
        max_size=4,
    ),
)
@settings(max_examples=60, deadline=None)
def test_round_trip(scratch: Path, metadata: dict[str, Any], tensors: dict[str, Any]) -> None:
    specs, expected = [], {}
    for name, (kind, sizes) in tensors.items():
        shape = (*sizes[:-1], sizes[-1] * BLOCK[kind][0])
        blocks = random_blocks(kind, int(np.prod(sizes)))
        specs.append(GGUFTensorSpec(name, shape, kind, [row.tobytes() for row in blocks]))
        data = torch.from_numpy(blocks.reshape(-1))
        expected[name] = dequantize(data, kind, torch.float32).view(shape)
    file = written(metadata, specs, scratch)
    assert file.metadata == metadata
    assert list(file.tensors) == list(tensors)
    for name, tensor in expected.items():
        assert same_bits(read_tensor(file, name), tensor)
    theirs = gguf.GGUFReader(scratch)
    for key, value in metadata.items():
        field = theirs.get_field(key)
        assert field is not None
        assert field.contents() == value
    assert {t.name for t in theirs.tensors} == set(tensors)


# --- malformed files ---------------------------------------------------------------------------


def test_every_truncation_is_refused(valid: Path, scratch: Path) -> None:
    raw = valid.read_bytes()
    file = read_gguf(valid)
    last = max(t.offset + t.nbytes for t in file.tensors.values())
    header = min(t.offset for t in file.tensors.values())
    for length in [*range(header + 1), *range(header, last, 97), last - 1]:
        scratch.write_bytes(raw[:length])
        with pytest.raises(BadDataError, match=r"scratch\.gguf: ") as caught:
            read_gguf(scratch)
        assert "\n" not in str(caught.value)
        assert "scratch.gguf：" in caught.value.zh
    scratch.write_bytes(raw[:last])
    assert read_gguf(scratch).tensors == file.tensors


@given(st.data())
@settings(max_examples=1500, deadline=5000)
def test_any_changed_byte_reads_or_is_refused(
    valid: Path, scratch: Path, data: st.DataObject
) -> None:
    raw = bytearray(valid.read_bytes())
    header = min(t.offset for t in read_gguf(valid).tensors.values())
    raw[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(raw)
    try:
        file = read_gguf(scratch)
    except BadDataError:
        return
    for tensor in file.tensors.values():
        assert tensor.offset + tensor.nbytes <= len(raw)
        assert read_tensor(file, tensor.name).shape == tensor.shape


def test_every_header_byte_with_each_bit_flipped(valid: Path, scratch: Path) -> None:
    raw = valid.read_bytes()
    header = min(t.offset for t in read_gguf(valid).tensors.values())
    refused = 0
    with scratch.open("wb", buffering=0) as stream:
        stream.write(raw)
        for position in range(header):
            for bit in range(8):
                stream.seek(position)
                stream.write(bytes([raw[position] ^ 1 << bit]))
                try:
                    read_gguf(scratch)
                except BadDataError:
                    refused += 1
            stream.seek(position)
            stream.write(raw[position : position + 1])
    assert refused > header  # most length, count and offset bytes matter


def packed(text_: str) -> bytes:
    return struct.pack("<Q", len(text_.encode())) + text_.encode()


def key_value(key: str, kind: int, value: bytes) -> bytes:
    return packed(key) + struct.pack("<I", kind) + value


def array(kind: int, count: int, elements: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + elements


def row(name: str, dimensions: list[int], kind: int = 0, offset: int = 0) -> bytes:
    rank = len(dimensions)
    return packed(name) + struct.pack(f"<I{rank}QIQ", rank, *dimensions, kind, offset)


def build(
    rows: list[bytes],
    metadata: list[bytes],
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: int = 4096,
) -> bytes:
    """A file from parts, right or wrong."""
    tensor_count, metadata_count = counts or (len(rows), len(metadata))
    preamble = b"GGUF" + struct.pack("<IQQ", version, tensor_count, metadata_count)
    header = preamble + b"".join(metadata) + b"".join(rows)
    return header + bytes(-len(header) % 32) + bytes(data)


def test_the_builder_builds_valid_files(scratch: Path) -> None:
    inner = array(5, 2, struct.pack("<ii", 1, -1)) + array(8, 1, packed("x"))
    parts = [
        key_value("nested", 9, array(9, 2, inner)),
        key_value("empty", 9, array(8, 0)),
        key_value("loose bool", 7, b"\x02"),
        key_value("charsmap", 9, array(0, 3, b"\x00\x80\xff")),
    ]
    for version in (2, 3):
        raw = build([row("b", [4, 2], offset=32), row("a", [1])], parts, version=version)
        scratch.write_bytes(raw)
        file = read_gguf(scratch)
        assert file.metadata == {
            "nested": [[1, -1], ["x"]],
            "empty": [],
            "loose bool": True,
            "charsmap": [0, 128, 255],
        }
        assert file.tensors["b"].shape == (2, 4)


DEEP = array(9, 1) * 5000 + array(0, 0)
MALFORMED = {
    "not gguf": (b"PK\x03\x04" + bytes(100), "not a GGUF file .*magic"),
    "empty": (b"", "not a GGUF file .found 0 bytes"),
    "short": (b"GGUF\x03", "not a GGUF file .found 5 bytes"),
    "version 1": (build([], [], version=1), "version 1, supported are 2 and 3"),
    "version 4": (build([], [], version=4), "version 4, supported are 2 and 3"),
    "big endian": (build([], [], version=3 << 24), "big-endian"),
    "many tensors": (build([], [], counts=(2**63, 0)), "9223372036854775808 entries do not fit"),
    "many keys": (build([], [], counts=(0, 2**40)), "1099511627776 entries do not fit"),
    "string length": (
        build([], [key_value("k", 8, struct.pack("<Q", 2**60) + b"x")]),
        "'k': a string of 1152921504606846976 bytes",
    ),
    "not text": (build([], [key_value("k", 8, packed("ab")[:-1] + b"\xff")]), "not valid UTF-8"),
    "value type": (build([], [key_value("k", 13, b"")]), "'k': unknown value type 13"),
    "element type": (build([], [key_value("k", 9, array(99, 1))]), "unknown element type 99"),
    "array count": (build([], [key_value("k", 9, array(5, 2**61))]), "'k': .* do not fit"),
    "string count": (build([], [key_value("k", 9, array(8, 2**61))]), "'k': .* do not fit"),
    "deep": (build([], [key_value("k", 9, DEEP)]), f"nested deeper than {MAX_DEPTH}"),
    "same key": (build([], [key_value("k", 7, b"\1")] * 2), "'k' appears twice"),
    "alignment 0": (
        build([], [key_value("general.alignment", 4, struct.pack("<I", 0))]),
        "general.alignment: 0 is not a power of two",
    ),
    "alignment text": (
        build([], [key_value("general.alignment", 8, packed("32"))]),
        "general.alignment: '32' is not a power of two",
    ),
    "split": (
        build([], [key_value("split.count", 2, struct.pack("<H", 3))]),
        "split.count=3: one part of a split model; merge",
    ),
    "same name": (build([row("w", [1]), row("w", [1], offset=32)], []), "'w': the name appears"),
    "rank": (build([row("w", [1] * 5)], []), "'w': 5 dimensions, at most 4"),
    "zero": (build([row("w", [4, 0])], []), "'w': a dimension of 0"),
    "type": (
        build([row("w", [256], kind=16)], []),
        "'w' has the unsupported type IQ2_XXS; .*: F32, F16, Q4_0, .*Q6_K, BF16",
    ),
    "unknown type": (build([row("w", [256], kind=4711)], []), "unsupported type number 4711"),
    "half a block": (build([row("w", [48, 32], kind=8)], []), "rows of 48 are no multiple of"),
    "misaligned": (build([row("w", [1], offset=16)], []), "offset 16 is no multiple of"),
    "overlap": (build([row("v", [9]), row("w", [1], offset=32)], []), "'w': overlaps 'v'"),
    "same place": (build([row("v", [9]), row("w", [1])], []), "overlaps"),
    "past the end": (build([row("w", [1], offset=2**63)], []), "'w' ends at byte .* incomplete"),
    "huge": (build([row("w", [2**63, 2**63])], []), "'w' ends at byte .* incomplete"),
    "cut data": (build([row("w", [1000])], [], data=3999), "'w' ends at byte 4064, .* only 4063"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str, scratch: Path) -> None:
    raw, message = MALFORMED[case]
    scratch.write_bytes(raw)
    with pytest.raises(BadDataError, match=message) as caught:
        read_gguf(scratch)
    for sentence in (caught.value.en, caught.value.zh):
        assert str(scratch) in sentence
        assert "\n" not in sentence


def test_every_unsupported_type_has_its_name(scratch: Path) -> None:
    for theirs in gguf.GGMLQuantizationType:
        if theirs.value not in list(GGMLType):
            scratch.write_bytes(build([row("w", [256], kind=theirs)], []))
            with pytest.raises(BadDataError, match=f"unsupported type {theirs.name};"):
                read_gguf(scratch)


@pytest.mark.parametrize(
    "value",
    [
        key_value("k", 8, struct.pack("<Q", 3 << 30)),
        key_value("k", 9, array(5, 1 << 29)),
        key_value("k", 9, array(8, 1 << 28)),
        key_value("k", 9, array(9, 1 << 27)),
        key_value("k", 9, array(9, 3, array(0, MAX_ELEMENTS // 2, bytes(MAX_ELEMENTS // 2)) * 3)),
    ],
    ids=["string", "numbers", "strings", "arrays", "sum of arrays"],
)
def test_damaged_lengths_in_a_large_file_allocate_little(value: bytes, tmp_path: Path) -> None:
    """The file is large enough to hold what its damaged header claims."""
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as stream:
        stream.write(build([], [value]))
        stream.truncate(4 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(BadDataError, match=r"'k': (a string of|more than)"):
            read_gguf(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 128 << 20


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.gguf", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_gguf(path)


# --- safetensors -------------------------------------------------------------------------------


def test_safetensors_round_trip_of_every_type(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {}
    for dtype, name in DTYPE_NAMES.items():
        bits = torch.randint(0, 2 if dtype == torch.bool else 256, (3 * 4 * 8,), dtype=torch.uint8)
        tensors[f"层.{name}"] = bits.view(dtype).view(3, -1)
    tensors["empty"] = torch.empty(0, 5)
    tensors["scalar"] = torch.tensor(7, dtype=torch.uint8)
    order = sorted(tensors, key=lambda name: -tensors[name].itemsize)
    metadata = {"format": "pt", "作者": '"quoted"\n'}
    path = tmp_path / "x.safetensors"
    with path.open("wb") as stream:
        specs = []
        for name in order:
            x = tensors[name]
            rows = [tensor_bytes(r) for r in x] if x.ndim else [tensor_bytes(x)]
            specs.append(SafetensorsSpec(name, DTYPE_NAMES[x.dtype], tuple(x.shape), rows))
        write_safetensors(stream, specs, metadata)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert same_bits(found[name], tensor)
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata


@given(
    st.dictionaries(
        text.filter(lambda name: name != "__metadata__"),
        st.lists(st.integers(0, 4), max_size=4),
        max_size=5,
    )
)
@settings(max_examples=50, deadline=None)
def test_safetensors_of_any_names_and_shapes(scratch: Path, shapes: dict[str, Any]) -> None:
    tensors = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}
    with scratch.open("wb") as stream:
        specs = [
            SafetensorsSpec(name, "BF16", tuple(x.shape), [tensor_bytes(x)])
            for name, x in tensors.items()
        ]
        write_safetensors(stream, specs, {})
    assert struct.unpack("<Q", scratch.read_bytes()[:8])[0] % 8 == 0
    found = load_file(scratch)
    assert found.keys() == tensors.keys()
    assert all(same_bits(found[name], x) for name, x in tensors.items())


@pytest.mark.parametrize("sizes", [[3, 4], [3, 4, 2], []])
def test_safetensors_counts_bytes(sizes: list[int]) -> None:
    spec = SafetensorsSpec("w", "F16", (2, 2), [bytes(size) for size in sizes])
    with pytest.raises(AssertionError, match=f"w: {sum(sizes)} bytes given, 8 needed"):
        write_safetensors(io.BytesIO(), [spec], {})


def test_safetensors_may_mix_types_in_any_order(tmp_path: Path) -> None:
    narrow, wide = torch.randn(3).bfloat16(), torch.randn(4, 5)
    path = tmp_path / "x.safetensors"
    with path.open("wb") as stream:
        first = SafetensorsSpec("narrow", "BF16", (3,), [tensor_bytes(narrow)])
        second = SafetensorsSpec("wide", "F32", (4, 5), [tensor_bytes(wide)])
        write_safetensors(stream, [first, second], {})
    found = load_file(path)
    assert same_bits(found["narrow"], narrow)
    assert same_bits(found["wide"], wide)
    with safe_open(path, "pt") as file:
        assert same_bits(file.get_slice("wide")[1:3].contiguous(), wide[1:3])


def test_safetensors_names_are_unique() -> None:
    spec = SafetensorsSpec("a", "BF16", (1,), [bytes(2)])
    with pytest.raises(AssertionError, match="a: given twice"):
        write_safetensors(io.BytesIO(), [spec, spec], {})


def test_tensor_bytes_shares_memory_and_refuses_gaps() -> None:
    x = torch.zeros(2, 3, dtype=torch.bfloat16, requires_grad=True)
    view = tensor_bytes(x)
    assert (view.nbytes, view.format) == (12, "B")
    with torch.no_grad():
        x.fill_(1)
    assert bytes(view) == b"\x80\x3f" * 6
    with pytest.raises(AssertionError):
        tensor_bytes(x.T)
