"""From a path or a name to a live model and its tokenizer."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from hunyuan.catalogue.store import locate
from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hunyuan.checkpoint.leaves import expert_leaf, is_router, leaves
from hunyuan.errors import UsageError
from hunyuan.formats.ggml import FLOATS
from hunyuan.formats.gguf import GGMLType
from hunyuan.memory import available_memory, require_memory
from hunyuan.model.config import Routing
from hunyuan.model.transformer import Transformer, build
from hunyuan.native.experts import LEAST_SLOTS, ExpertCache
from hunyuan.native.library import unavailable
from hunyuan.native.matrix import Arena, pack, packable, packed_bytes
from hunyuan.native.transformer import NativeTransformer, Weight
from hunyuan.tokenizer.gguf_vocabulary import from_gguf_metadata
from hunyuan.tokenizer.load import load_tokenizer as read_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

Progress = Callable[[int, int], None]
"""Called with parameters read so far and in all."""


def parse_dtype(name: str | torch.dtype) -> torch.dtype:
    """A float type by name; ``auto`` is what this processor computes fastest in."""
    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        return fastest_dtype()
    if name not in DTYPES:
        raise UsageError(
            f"dtype {name!r} is unknown; use auto, {', '.join(DTYPES)}",
            f"未知的 dtype {name!r}；请使用 auto、{'、'.join(DTYPES)}",
        )
    return DTYPES[name]


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def load_model(
    path_or_name: str | Path,
    dtype: str | torch.dtype = "float32",
    *,
    routing: Routing | None = None,
    progress: Progress | None = None,
) -> Transformer:
    """Load a model: a Hugging Face folder, a GGUF file, or the name of a pulled model.

    Quantised weights become ``dtype``. ``routing`` is dropless unless told otherwise. Raises
    `BadDataError` for a damaged or unsupported checkpoint, `DoesNotFitError` if memory is short.
    """
    checkpoint = open_checkpoint(locate(str(path_or_name)))
    return load_checkpoint(checkpoint, parse_dtype(dtype), routing=routing, progress=progress)


def load_packed(path_or_name: str | Path, *, progress: Progress | None = None) -> NativeTransformer:
    """Load a model for the compiled kernels, its weights as they are stored.

    Raises what `load_model` raises, and `UsageError` where the kernels cannot run it.
    """
    return pack_checkpoint(open_checkpoint(locate(str(path_or_name))), progress=progress)


def why_not_packed(checkpoint: Checkpoint) -> str | None:
    """Why the kernels cannot run a checkpoint, or None."""
    if reason := unavailable():
        return f"native kernels: {reason}"
    config = checkpoint.config
    if config.head_dim % 16:
        return f"native kernels: head_dim={config.head_dim} is no multiple of 16"
    for leaf, shape in leaves(config).items():
        if len(shape) == 1:
            continue
        kind = _packed_type(checkpoint, leaf)
        if not packable(kind, shape[1]):
            return f"native kernels: {leaf} is {kind.name} with rows of {shape[1]}"
    return None


def packed_sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes of every leaf as the kernels hold it."""
    sizes = {}
    for leaf, shape in leaves(checkpoint.config).items():
        if leaf.endswith(".key_layernorm.weight"):
            continue  # folded into the query's
        if len(shape) == 1:
            sizes[leaf] = 4 * shape[0]
        else:
            sizes[leaf] = packed_bytes(_packed_type(checkpoint, leaf), *shape)
    return sizes


def resident_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of what is always in memory: all weights but experts that lie on disk."""
    sizes = packed_sizes(checkpoint)
    on_disk = checkpoint.experts is not None
    return sum(size for leaf, size in sizes.items() if not (on_disk and expert_leaf(leaf)))


def _packed_type(checkpoint: Checkpoint, leaf: str) -> GGMLType:
    """As stored, but for the router, which is float32 in every model."""
    return GGMLType.F32 if is_router(leaf) else checkpoint.stored_type(leaf)


def pack_checkpoint(
    checkpoint: Checkpoint,
    *,
    slots: int | None = None,
    check_always: bool = False,
    progress: Progress | None = None,
) -> NativeTransformer:
    """Load an opened checkpoint for the kernels; see `load_packed`.

    ``slots`` experts of a model whose experts lie on disk are held in memory at once; by default
    as many as fit. ``check_always`` hashes an expert every time it is read, not only the first.
    """
    if reason := why_not_packed(checkpoint):
        raise UsageError(
            f"{checkpoint.path}: {reason}; choose dtype float32 or bfloat16",
            f"{checkpoint.path}：{reason}；请选择 dtype float32 或 bfloat16",
        )
    shapes = leaves(checkpoint.config)
    if checkpoint.experts is not None:
        shapes = {leaf: shape for leaf, shape in shapes.items() if not expert_leaf(leaf)}
    total = sum(map(prod, shapes.values()))
    require_memory(
        resident_bytes(checkpoint),
        (f"{checkpoint.path}", f"载入 {checkpoint.path} "),
        ("choose a smaller model", "请选择更小的模型"),
    )
    arena = Arena()
    weights: dict[str, Weight] = {}
    done = 0
    for leaf, shape in shapes.items():
        if len(shape) == 1:
            weights[leaf] = checkpoint.read(leaf)
        elif _packed_type(checkpoint, leaf) == checkpoint.stored_type(leaf):
            weights[leaf] = pack(*checkpoint.read_stored(leaf), arena)
        else:
            weights[leaf] = pack(GGMLType.F32, checkpoint.read(leaf).view(torch.uint8), arena)
        done += prod(shape)
        if progress is not None:
            progress(done, total)
    # Serving is dropless, however the model was trained (specification, section 8.5).
    cache = None
    if checkpoint.experts is not None:
        if slots is None:  # a fifth is left for steps and keys and values
            slots = int(available_memory() * 0.8) // checkpoint.experts.layout.length
        cache = ExpertCache(checkpoint.experts, max(slots, LEAST_SLOTS), check_always=check_always)
    config = replace(checkpoint.config, routing=Routing())
    return NativeTransformer(config, weights, experts=cache)


def pack_transformer(model: Transformer) -> NativeTransformer:
    """The same model for the compiled kernels, in the number type it has."""
    arena = Arena()
    weights: dict[str, Weight] = {}
    for leaf, shape in leaves(model.config).items():
        tensor = leaf_of(model, leaf).detach().contiguous()
        if len(shape) == 1:
            weights[leaf] = tensor.float()
        else:
            kind = next(kind for kind, dtype in FLOATS.items() if dtype == tensor.dtype)
            weights[leaf] = pack(kind, tensor.view(torch.uint8), arena)
    return NativeTransformer(model.config, weights)


def load_checkpoint(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    *,
    routing: Routing | None = None,
    progress: Progress | None = None,
) -> Transformer:
    """Load an opened checkpoint; see `load_model`."""
    config = replace(checkpoint.config, routing=routing or Routing())
    total = config.total_parameters
    require_memory(
        total * dtype.itemsize,
        (
            f"{checkpoint.path} as {dtype_name(dtype)}",
            f"以 {dtype_name(dtype)} 载入 {checkpoint.path} ",
        ),
        ("choose a smaller model or a smaller dtype", "请选择更小的模型或 dtype"),
    )
    model = build(config, dtype).to_empty(device="cpu")
    done = 0
    for leaf in leaves(config):
        place = leaf_of(model, leaf)
        with torch.no_grad():
            place.copy_(checkpoint.read(leaf, place.dtype))
        done += place.numel()
        if progress is not None:
            progress(done, total)
    return model.eval()


def leaf_of(model: nn.Module, leaf: str) -> Tensor:
    """The part of a model's parameters that a checkpoint leaf is."""
    if part := expert_leaf(leaf):
        return model.get_parameter(f"{part.bank}.{part.projection}")[part.expert]
    return model.get_parameter(leaf)


def load_tokenizer(path_or_name: str | Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, a GGUF file, or a pulled model."""
    return read_tokenizer(locate(str(path_or_name)))


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer that belongs to an opened checkpoint, without parsing a GGUF file twice."""
    if checkpoint.gguf is not None:
        return from_gguf_metadata(checkpoint.gguf.metadata)
    return read_tokenizer(checkpoint.path)


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.bfloat16`` -> ``bfloat16``."""
    return str(dtype).removeprefix("torch.")
