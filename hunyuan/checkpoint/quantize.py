"""Which leaves are quantised to what, and their blocks, leaf by leaf.

======  =========================  ====  ================  ==============================
scheme  matrices                   v     down, not routed  head (and embedding tied to it)
======  =========================  ====  ================  ==============================
q8      Q8_0                       Q8_0  Q8_0              Q8_0
q4      Q4_K                       Q6_K  Q5_K              Q6_K
q4      Q4_1, rows of no multiple  Q8_0  Q5_1              Q8_0
        of 256
======  =========================  ====  ================  ==============================

Of the two four-bit types with blocks of 32, Q4_1 costs 0.5 bits more than Q4_0 and leaves 0.57 of
its squared error (normal weights), more than 0.4 bits are worth. Values (few columns of outputs
with grouped queries) and the way out of the MLP are where errors cost most perplexity per bit;
routed experts are most of a model's bits and stay at four. The head is wider because its errors
reach the logits without another layer in between. ``benchmarks/perplexity.py`` measures all this.
Norms, biases and the router stay floats.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from hunyuan.checkpoint.checkpoint import Checkpoint
from hunyuan.checkpoint.leaves import expert_leaf, is_router, leaves
from hunyuan.errors import BadDataError, UsageError
from hunyuan.formats.gguf import BLOCK, GGMLType
from hunyuan.model.config import ModelConfig
from hunyuan.native.library import unavailable
from hunyuan.native.quantize import quantize

Scheme = Literal["q8", "q4"]

_HEAD: Mapping[Scheme, tuple[GGMLType, ...]] = {
    "q8": (GGMLType.Q8_0,),
    "q4": (GGMLType.Q6_K, GGMLType.Q8_0),
}
_VALUE = _HEAD
_DOWN: Mapping[Scheme, tuple[GGMLType, ...]] = {
    "q8": (GGMLType.Q8_0,),
    "q4": (GGMLType.Q5_K, GGMLType.Q5_1),
}
_MATRIX: Mapping[Scheme, tuple[GGMLType, ...]] = {
    "q8": (GGMLType.Q8_0,),
    "q4": (GGMLType.Q4_K, GGMLType.Q4_1),
}
"""Types by scheme, the first one that fits the rows."""

# Weights widened to float32 at a time: 128 MB.
_CHUNK_ELEMENTS = 1 << 25


def parse_scheme(name: str) -> Scheme:
    """A scheme by name, where the compiled quantiser can run; `UsageError` otherwise."""
    for scheme in get_args(Scheme):
        if scheme == name:
            if reason := unavailable():
                raise UsageError(
                    f"--quantize {name}: needs the compiled kernels, and they are {reason}",
                    f"--quantize {name}：需要已编译的内核，但：{reason}",
                )
            return scheme  # type: ignore[no-any-return]
    raise UsageError(
        f"--quantize {name!r} is unknown; use {' or '.join(get_args(Scheme))}",
        f"未知的 --quantize {name!r}；请使用 {' 或 '.join(get_args(Scheme))}",
    )


def block_types(config: ModelConfig, scheme: Scheme) -> dict[str, GGMLType]:
    """The type of every leaf that is quantised; `UsageError` if its rows fit no block."""
    head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
    types = {}
    for leaf, shape in leaves(config).items():
        if len(shape) == 1 or is_router(leaf):
            continue
        choice = _choice(leaf, head)[scheme]
        fitting = [kind for kind in choice if shape[1] % BLOCK[kind][0] == 0]
        if not fitting:
            raise UsageError(
                f"--quantize {scheme}: {leaf} has rows of {shape[1]}, no multiple of the block "
                "of 32; leave this model unquantised",
                f"--quantize {scheme}：{leaf} 的行长 {shape[1]} 不是块大小 32 的整数倍；"
                "请勿量化该模型",
            )
        types[leaf] = fitting[0]
    return types


def _choice(leaf: str, head: str) -> Mapping[Scheme, tuple[GGMLType, ...]]:
    if leaf == head:
        return _HEAD
    if ".v_proj." in leaf:
        return _VALUE
    if ".down_proj." in leaf and expert_leaf(leaf) is None:
        return _DOWN
    return _MATRIX


def read_quantized(
    checkpoint: Checkpoint, leaf: str, type: GGMLType, importance: Tensor | None = None
) -> Tensor:
    """The blocks of a leaf, uint8 (rows, bytes of a row); ``importance``: see `calibrate`.

    A leaf that is stored in the wanted type already is not quantised again.
    """
    if checkpoint.stored_type(leaf) == type:
        return checkpoint.read_stored(leaf)[1]
    rows, columns = leaves(checkpoint.config)[leaf]
    step = max(1, _CHUNK_ELEMENTS // columns)
    parts = []
    try:
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows)) if rows > step else None
            parts.append(quantize(checkpoint.read(leaf, rows=part), type, importance))
    except ValueError as error:
        raise BadDataError(
            f"{checkpoint.path}: {leaf} holds a weight that is not finite or too large to be "
            "quantised; download the checkpoint again or convert it without --quantize",
            f"{checkpoint.path}：{leaf} 含有非有限值或过大而无法量化的权重；"
            "请重新下载检查点，或不加 --quantize 转换",
        ) from error
    return torch.cat(parts) if len(parts) > 1 else parts[0]
