"""From a path or a name to a live model and its tokenizer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hunyuan.catalogue.store import locate
from hunyuan.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hunyuan.checkpoint.leaves import expert_leaf
from hunyuan.errors import UsageError
from hunyuan.memory import require_memory
from hunyuan.model.config import Routing
from hunyuan.model.transformer import Transformer, build
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

    ``dtype``: float32, bfloat16, float16 or auto; router and norms stay float32. Routing is
    dropless whatever the checkpoint was trained with, unless ``routing`` says otherwise.

    Raises `UsageError` (unknown name or dtype), `DoesNotFitError` (checked before reading weights)
    and `BadDataError` (damaged or unsupported checkpoint).
    """
    checkpoint = open_checkpoint(locate(str(path_or_name)))
    return load_checkpoint(checkpoint, parse_dtype(dtype), routing=routing, progress=progress)


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
    for leaf in checkpoint.pieces:
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
