"""A checkpoint on disk, opened but not loaded: its shape, and any leaf on request.

Opening reads headers only, and finds every fault that headers can show - missing, surplus or
misshapen tensors, a truncated file - before a byte of weights is read. Reading a leaf costs the
memory of that leaf.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hunyuan.checkpoint import fp8
from hunyuan.checkpoint.gguf_config import (
    ROPE_FACTORS,
    gguf_architecture,
    read_gguf_config,
)
from hunyuan.checkpoint.hf_config import FamilyName, read_block_types, read_hf_config
from hunyuan.checkpoint.leaves import expert_leaf, leaves
from hunyuan.checkpoint.pieces import Piece, gguf_piece, hf_piece
from hunyuan.errors import BadDataError, UsageError
from hunyuan.formats import expert_file
from hunyuan.formats.expert_file import PROJECTIONS, ExpertFile
from hunyuan.formats.ggml import FLOATS, dequantize, read_blocks, read_tensor
from hunyuan.formats.gguf import BLOCK, GGMLType, GGUFFile, read_gguf
from hunyuan.model.config import ModelConfig
from hunyuan.native.experts import read_expert_matrix

INDEX = "model.safetensors.index.json"

Rows = int | slice | None
"""Part of a tensor's first dimension: one entry, a range, or all of it."""

_FLOAT_TYPES = {"F32": GGMLType.F32, "F16": GGMLType.F16, "BF16": GGMLType.BF16}


class TensorFile(Protocol):
    """Stored tensors by name, whatever the container."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every stored tensor, by its stored name."""

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """Float type on disk, or None if quantised."""

    def read(self, name: str, rows: Rows, dtype: torch.dtype) -> Tensor:
        """Read (part of) a tensor as ``dtype``; reads only the bytes of ``rows``."""

    def stored_type(self, name: str) -> GGMLType:
        """Type on disk in ggml's terms."""

    def read_stored(self, name: str, entry: int | None) -> tuple[GGMLType, Tensor]:
        """A tensor, or one entry of its first dimension, as it is: type, (rows, bytes) uint8."""


class SafetensorsFolder:
    """The safetensors file or shards of a Hugging Face folder.

    ``blocks`` names the tensors that are ggml blocks; they are dequantised as they are read, and
    their shapes are those of the numbers.
    """

    def __init__(self, folder: Path, blocks: Mapping[str, GGMLType] | None = None) -> None:
        self._blocks = blocks or {}
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, str] = {}
        for path in _shards(folder):
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    if name in self._files:
                        raise BadDataError(
                            f"{path}: tensor {name} lies in {self._files[name].name} too; "
                            "remove one of the files",
                            f"{path}：张量 {name} 同时存在于 "
                            f"{self._files[name].name}；请删除其中一个文件",
                        )
                    part = file.get_slice(name)
                    self._files[name] = path
                    self.shapes[name] = tuple(part.get_shape())
                    self._types[name] = part.get_dtype()
        self._factors = {name: self._factors_of(name) for name in self._eight_bits()}
        for name in fp8.beside(self._types):
            self.shapes.pop(name, None)
        for name, kind in self._blocks.items():
            self.shapes[name] = self._shape_of_blocks(folder, name, kind)
        for name, stored in self._types.items():
            if name not in self.shapes or name in self._factors or name in self._blocks:
                continue
            if stored not in _FLOAT_TYPES:
                raise BadDataError(
                    f"{self._files[name].name}: tensor {name} has type {stored}; supported: "
                    f"{', '.join(_FLOAT_TYPES)}; convert it to one of these first",
                    f"{self._files[name].name}：张量 {name} 的类型为 {stored}；支持 "
                    f"{'、'.join(_FLOAT_TYPES)}；请先转换",
                )

    def _eight_bits(self) -> list[str]:
        return [name for name, stored in self._types.items() if stored in fp8.TYPES]

    def _factors_of(self, name: str) -> str:
        """The tensor of an eight-bit weight's factors, of a shape that belongs to it."""
        scale = fp8.scale_of(name, self._types)
        shape = self.shapes[name]
        if scale is None:
            raise BadDataError(
                f"{self._files[name].name}: {name} has type {self._types[name]} without "
                f"{name}_scale beside it; download the checkpoint again",
                f"{self._files[name].name}：{name} 的类型为 {self._types[name]}，但缺少 "
                f"{name}_scale；请重新下载检查点",
            )
        if not fp8.fits(shape, self.shapes[scale]):
            raise BadDataError(
                f"{self._files[scale].name}: {scale} has shape {list(self.shapes[scale])}; for "
                f"a weight of {list(shape)} one factor, one a row or one a block of 128 x 128 is "
                "needed; download the checkpoint again",
                f"{self._files[scale].name}：{scale} 的形状为 {list(self.shapes[scale])}；"
                f"形状 {list(shape)} 的权重需要单个、每行一个或每 128 x 128 块一个系数；"
                "请重新下载检查点",
            )
        return scale

    def _shape_of_blocks(self, folder: Path, name: str, kind: GGMLType) -> tuple[int, ...]:
        """(rows, bytes of a row) -> (rows, columns)."""
        per_block, size = BLOCK[kind]
        shape, stored = self.shapes.get(name, ()), self._types.get(name)
        if stored != "U8" or len(shape) != 2 or shape[1] % size:
            raise BadDataError(
                f"{folder}: quantization_config: {name} is {stored or 'missing'} {list(shape)}, U8 "
                f"rows of whole {kind.name} blocks ({size} bytes) are needed; convert the model "
                "again",
                f"{folder}：quantization_config：{name} 为 {stored or '缺失'} {list(shape)}，"
                f"应为由完整 {kind.name} 块（{size} 字节）组成的 U8 行；请重新转换模型",
            )
        return shape[0], shape[1] // size * per_block

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """Float type on disk, or None if quantised."""
        return None if name in self._factors else FLOATS.get(self.stored_type(name))

    def read(self, name: str, rows: Rows, dtype: torch.dtype) -> Tensor:
        """Read (part of) a tensor, dequantised if it is blocks or eight-bit floats."""
        if scale := self._factors.get(name):
            numbers = self._stored(name, rows, torch.float32)
            factors = self._stored(scale, None, torch.float32)
            return fp8.widened(numbers, factors, self.shapes[name], rows).to(dtype)
        if kind := self._blocks.get(name):
            blocks = self._stored(name, rows, torch.uint8)
            columns = self.shapes[name][1]
            return dequantize(blocks.view(-1), kind, dtype).view(*blocks.shape[:-1], columns)
        return self._stored(name, rows, dtype)

    def _stored(self, name: str, rows: Rows, dtype: torch.dtype) -> Tensor:
        """Open, read, close: a mapping kept open would count every page ever read as ours."""
        with _opened(self._files[name]) as file:
            tensor = file.get_tensor(name) if rows is None else file.get_slice(name)[rows]
            return tensor.to(dtype, copy=True)  # type: ignore[no-any-return]

    def stored_type(self, name: str) -> GGMLType:
        """Type on disk in ggml's terms, which have no eight-bit floats: those become bfloat16."""
        if name in self._factors:
            return GGMLType.BF16
        return self._blocks.get(name) or _FLOAT_TYPES[self._types[name]]

    def read_stored(self, name: str, entry: int | None) -> tuple[GGMLType, Tensor]:
        """The stored floats or blocks as bytes."""
        kind = self.stored_type(name)
        if name in self._factors:
            tensor = self.read(name, entry, torch.bfloat16).contiguous()
        else:
            tensor = self._stored(name, entry, FLOATS.get(kind, torch.uint8)).contiguous()
        rows = len(tensor) if tensor.dim() > 1 else 1
        return kind, tensor.view(torch.uint8).view(rows, -1)


class GGUFTensors:
    """The tensors of a GGUF file, dequantised as they are read."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        self.shapes = {name: t.shape for name, t in file.tensors.items() if name != ROPE_FACTORS}

    def stored_dtype(self, name: str) -> torch.dtype | None:
        """Float type on disk, or None if quantised."""
        return FLOATS.get(self._file.tensors[name].type)

    def read(self, name: str, rows: Rows, dtype: torch.dtype) -> Tensor:
        """Read the bytes of ``rows`` and dequantise them."""
        return read_tensor(self._file, name, rows=rows, dtype=dtype)

    def stored_type(self, name: str) -> GGMLType:
        """Block type on disk."""
        return self._file.tensors[name].type

    def read_stored(self, name: str, entry: int | None) -> tuple[GGMLType, Tensor]:
        """The stored blocks."""
        return self._file.tensors[name].type, read_blocks(self._file, name, rows=entry)


@dataclass(frozen=True)
class Checkpoint:
    """A readable model: shape, family and where each leaf lies."""

    path: Path
    config: ModelConfig
    family: FamilyName
    """Hugging Face family in whose names it is written by default."""

    tensors: TensorFile
    pieces: Mapping[str, Piece]
    gguf: GGUFFile | None
    """The container, for its tokenizer and metadata, if the checkpoint is GGUF."""

    experts: ExpertFile | None = None
    """Where the routed experts lie, already packed, if not among ``tensors``."""

    def read(
        self, leaf: str, dtype: torch.dtype = torch.float32, rows: slice | None = None
    ) -> Tensor:
        """Read one leaf, or ``rows`` of one that is stored as it is."""
        if self.experts is not None and (part := expert_leaf(leaf)):
            layer = int(part.bank.split(".")[2])
            tensor = read_expert_matrix(self.experts, layer, part.expert, part.projection)
            return (tensor if rows is None else tensor[rows]).to(dtype)
        piece = self.pieces[leaf]
        if dtype == torch.float16 and self.stored_dtype(leaf) != torch.float16:
            return self._narrowed(leaf, self.read(leaf, rows=rows))
        if rows is not None and piece.expert is None and piece.layout is None:
            return self.tensors.read(piece.name, rows, dtype)
        tensor = self.tensors.read(piece.name, piece.expert, dtype)
        if piece.layout is not None:
            tensor = piece.layout(tensor).contiguous()
        return tensor if rows is None else tensor[rows]

    def stored_type(self, leaf: str) -> GGMLType:
        """Type of a leaf on disk in ggml's terms."""
        if self.experts is not None and (part := expert_leaf(leaf)):
            return self.experts.layout.types[PROJECTIONS.index(part.projection)]
        return self.tensors.stored_type(self.pieces[leaf].name)

    def read_stored(self, leaf: str) -> tuple[GGMLType, Tensor]:
        """Read one leaf as it is stored: its type, and (rows, bytes per row) uint8.

        Layouts move whole rows, so they apply to bytes as they do to numbers.
        """
        if self.experts is not None and expert_leaf(leaf):
            raise UsageError(
                f"{self.path}: its experts are packed for running from disk and cannot be "
                "converted again; convert the model it was made from",
                f"{self.path}：其专家已为从磁盘运行而打包，不能再次转换；请转换原来的模型",
            )
        piece = self.pieces[leaf]
        kind, blocks = self.tensors.read_stored(piece.name, piece.expert)
        if piece.layout is not None:
            blocks = piece.layout(blocks).contiguous()
        return kind, blocks

    def _narrowed(self, leaf: str, tensor: Tensor) -> Tensor:
        narrow = tensor.half()
        if bool((narrow.isinf() & tensor.isfinite()).any()):
            largest = float(tensor.abs().max())
            raise UsageError(
                f"{self.path}: {leaf} holds {largest:.4g}, beyond float16's 65504; choose "
                "bfloat16 or float32",
                f"{self.path}：{leaf} 含有 {largest:.4g}，超出 float16 上限 65504；"
                "请选择 bfloat16 或 float32",
            )
        return narrow

    def stored_dtype(self, leaf: str) -> torch.dtype | None:
        """Float type of a leaf on disk, or None if it is quantised."""
        if self.experts is not None and expert_leaf(leaf):
            return FLOATS.get(self.stored_type(leaf))
        return self.tensors.stored_dtype(self.pieces[leaf].name)


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a Hugging Face folder or a GGUF file; `BadDataError` says what is wrong with it."""
    if path.is_dir():
        return _open_folder(path)
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        raise _pickled(path)
    if path.suffix == ".safetensors":
        if path not in _shards(path.parent):
            raise BadDataError(
                f"{path}: does not hold the weights of this folder; give the folder itself",
                f"{path}：不是该目录的权重文件；请直接指定目录",
            )
        return _open_folder(path.parent)
    return _open_gguf(path)


def _open_folder(folder: Path) -> Checkpoint:
    raw = read_json(folder / "config.json")
    hf = read_hf_config(raw, str(folder / "config.json"))
    tensors = SafetensorsFolder(folder, read_block_types(raw, str(folder / "config.json")))
    experts = _expert_file(folder, hf.config)
    _require_plausible(str(folder / "config.json"), hf.config, tensors, experts)
    expected = leaves(hf.config)
    if experts is not None:
        expected = {leaf: shape for leaf, shape in expected.items() if not expert_leaf(leaf)}
    pieces = {leaf: hf_piece(leaf, hf.family, hf.config, tensors.shapes) for leaf in expected}
    checked = _checked(str(folder), hf.config, expected, pieces, tensors)
    return Checkpoint(folder, hf.config, hf.family, tensors, checked, None, experts)


def _expert_file(folder: Path, config: ModelConfig) -> ExpertFile | None:
    """The folder's file of experts, if it has one, of the shape that the configuration says."""
    if not (folder / expert_file.INDEX).exists():
        if (folder / expert_file.DATA).exists():
            raise BadDataError(
                f"{folder}: {expert_file.DATA} lies there without {expert_file.INDEX}; copy the "
                "model again",
                f"{folder}：有 {expert_file.DATA} 而缺少 {expert_file.INDEX}；请重新复制模型",
            )
        return None
    experts = expert_file.read_expert_file(folder)
    layout = experts.layout
    found = (layout.layers, layout.experts, layout.hidden, layout.ffn)
    wanted = (config.layers, config.experts, config.hidden, config.ffn)
    if found != wanted:
        raise BadDataError(
            f"{folder / expert_file.INDEX}: layers, experts, hidden, ffn are {list(found)}, "
            f"{list(wanted)} expected from config.json; the two do not belong together",
            f"{folder / expert_file.INDEX}：layers、experts、hidden、ffn 为 {list(found)}，"
            f"按 config.json 应为 {list(wanted)}；二者不匹配",
        )
    return experts


def _open_gguf(path: Path) -> Checkpoint:
    file = read_gguf(path)
    config = read_gguf_config(file)
    architecture = gguf_architecture(file)
    tensors = GGUFTensors(file)
    _require_plausible(str(path), config, tensors, None)
    expected = leaves(config)
    pieces: dict[str, Piece | None] = {}
    for leaf in expected:
        piece = gguf_piece(leaf, architecture, config)
        pieces[leaf] = piece if piece.name in tensors.shapes else None
    families: dict[str, FamilyName] = {
        "hunyuan-dense": "hunyuan_v1_dense",
        "hunyuan-moe": "hunyuan_v1_moe",
        "qwen2": "qwen2",
        "llama": "mixtral" if config.experts else "llama",
    }
    checked = _checked(str(path), config, expected, pieces, tensors)
    return Checkpoint(path, config, families[architecture], tensors, checked, file)


def _require_plausible(
    where: str, config: ModelConfig, tensors: TensorFile, experts: ExpertFile | None
) -> None:
    """Refuse a damaged count before its leaves are listed, which could take all memory."""
    stacked = sum(shape[0] if len(shape) == 3 else 1 for shape in tensors.shapes.values())
    if config.layers * max(1, 0 if experts else config.experts) > stacked:
        raise BadDataError(
            f"{where}: {config.layers} layers with {config.experts} experts need more than the "
            f"{stacked} tensors that are stored; download the checkpoint again or correct it",
            f"{where}：{config.layers} 层、每层 {config.experts} 个专家所需的张量多于已存储的 "
            f"{stacked} 个；请重新下载检查点或更正配置",
        )


def _checked(
    where: str,
    config: ModelConfig,
    expected: Mapping[str, tuple[int, ...]],
    pieces: Mapping[str, Piece | None],
    tensors: TensorFile,
) -> dict[str, Piece]:
    """Refuse missing, surplus and misshapen tensors by name."""
    missing = [leaf for leaf, piece in pieces.items() if piece is None]
    if missing:
        raise BadDataError(
            f"{where}: {len(missing)} tensors are missing, first {_first(missing)}; "
            "download the checkpoint again or correct config.json",
            f"{where}：缺少 {len(missing)} 个张量，如 {_first(missing)}；"
            "请重新下载检查点或更正 config.json",
        )
    found = {leaf: piece for leaf, piece in pieces.items() if piece is not None}
    used = {piece.name for piece in found.values()}
    surplus = [n for n in tensors.shapes if n not in used and not _derived(n)]
    if config.tied and "lm_head.weight" in surplus:
        surplus.remove("lm_head.weight")
        _check_tied(where, tensors)
    if surplus:
        raise BadDataError(
            f"{where}: {len(surplus)} tensors belong to no part of this model, first "
            f"{_first(surplus)}; correct config.json or remove them",
            f"{where}：有 {len(surplus)} 个张量不属于该模型，如 {_first(surplus)}；"
            "请更正 config.json 或将其删除",
        )
    for leaf, piece in found.items():
        shape, wanted = tensors.shapes[piece.name], expected[leaf]
        if piece.rows is not None:
            wanted = (piece.rows, *wanted[1:])
        if piece.expert is not None:
            wanted = (config.experts, *wanted)
        if shape != wanted:
            raise BadDataError(
                f"{where}: tensor {piece.name} has shape {list(shape)}, {list(wanted)} "
                "expected from the configuration; the file and the configuration do not match",
                f"{where}：张量 {piece.name} 的形状为 {list(shape)}，按配置应为 "
                f"{list(wanted)}；文件与配置不符",
            )
    return found


def _derived(name: str) -> bool:
    """Buffers that old exports stored although they follow from the configuration."""
    return name.endswith(("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"))


def _check_tied(where: str, tensors: TensorFile) -> None:
    """A tied model may carry its head a second time, but only if it is the same matrix."""
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    same = tensors.shapes[embedding] == tensors.shapes[head]
    for start in range(0, tensors.shapes[embedding][0] if same else 0, 8192):
        rows = slice(start, min(start + 8192, tensors.shapes[embedding][0]))
        if not torch.equal(
            tensors.read(embedding, rows, torch.float32), tensors.read(head, rows, torch.float32)
        ):
            same = False
            break
    if not same:
        raise BadDataError(
            f"{where}: tie_word_embeddings is true but lm_head.weight differs from the embedding; "
            "set it to false",
            f"{where}：tie_word_embeddings 为 true，但 lm_head.weight 与嵌入矩阵不同；请设为 false",
        )


def _first(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3])


def _shards(folder: Path) -> list[Path]:
    """The weight files: those of the index, else model.safetensors, else all there are."""
    index = folder / INDEX
    if index.exists():
        return _indexed(folder, index)
    single = folder / "model.safetensors"
    found = [single] if single.exists() else sorted(folder.glob("*.safetensors"))
    if found:
        return found
    for pattern in ("*.bin", "*.pt", "*.pth"):
        for path in sorted(folder.glob(pattern)):
            raise _pickled(path)
    raise BadDataError(
        f"{folder}: no *.safetensors in this folder; give a Hugging Face folder or a .gguf file",
        f"{folder}：该目录中没有 *.safetensors；请指定 Hugging Face 目录或 .gguf 文件",
    )


def _indexed(folder: Path, index: Path) -> list[Path]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
        raise BadDataError(
            f"{index}: weight_map is missing or malformed; download it again",
            f"{index}：weight_map 缺失或格式错误；请重新下载",
        )
    names = sorted(set(listed.values()))
    for name in names:
        if Path(name).name != name:
            raise BadDataError(
                f"{index}: shard {name!r} lies outside the folder; refuse this checkpoint",
                f"{index}：分片 {name!r} 位于目录之外；请勿使用该检查点",
            )
    absent = [name for name in names if not (folder / name).exists()]
    if absent:
        raise BadDataError(
            f"{folder}: {len(absent)} of {len(names)} shards are missing, first "
            f"{_first(absent)}; download them again",
            f"{folder}：{len(names)} 个分片中缺少 {len(absent)} 个，如 {_first(absent)}；"
            "请重新下载",
        )
    return [folder / name for name in names]


def _pickled(path: Path) -> BadDataError:
    return BadDataError(
        f"{path}: pickled weights can run code when opened, so they are never read; convert them "
        "to safetensors where you trust them",
        f"{path}：pickle 权重在打开时可能执行代码，因此从不读取；"
        "请在可信环境中先转换为 safetensors",
    )


def _opened(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise BadDataError(
            f"{path}: not a whole safetensors file ({_reason(error)}); download it again",
            f"{path}：不是完整的 safetensors 文件（{_reason(error)}）；请重新下载",
        ) from error


def _reason(error: Exception) -> str:
    return str(error).removeprefix("Error while deserializing header: ").split("\n")[0]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or `BadDataError` naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadDataError(
            f"{path}: no such file; point to a Hugging Face folder or a .gguf file",
            f"{path}：文件不存在；请指定 Hugging Face 目录或 .gguf 文件",
        ) from error
    except (ValueError, OSError, RecursionError) as error:
        raise BadDataError(
            f"{path}: not readable as JSON ({error}); download it again",
            f"{path}：无法按 JSON 解析（{error}）；请重新下载",
        ) from error
    if not isinstance(value, dict):
        raise BadDataError(
            f"{path}: a JSON object is expected; download it again",
            f"{path}：应为 JSON 对象；请重新下载",
        )
    return value
