"""Where in a file each leaf lies: the name tables of the formats, as data.

A `Piece` says which stored tensor holds a leaf, which entry of its first dimension if experts are
stacked there, and what turns the stored layout into ours. The same tables serve reading (leaf ->
piece) and writing (leaf -> name and layout).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hunyuan.checkpoint.hf_config import FamilyName
from hunyuan.checkpoint.leaves import expert_leaf
from hunyuan.model.config import ModelConfig

Layout = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Piece:
    """One leaf inside a stored tensor."""

    name: str
    """Name of the stored tensor."""

    expert: int | None = None
    """Entry of the stored tensor's first dimension, where experts are stacked."""

    layout: Layout | None = None
    """Turns what is stored (after ``expert``) into the leaf; None if it is the leaf."""

    rows: int | None = None
    """First dimension of what is stored where a fused tensor holds more than the leaf."""


# ---------------------------------------------------------------- Hugging Face

_MIXTRAL = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def hf_name(leaf: str, family: FamilyName) -> str:
    """The name under which ``family`` stores a leaf."""
    if family != "mixtral" or ".mlp." not in leaf:
        return leaf
    name = leaf.replace(".mlp.gate.wg.", ".block_sparse_moe.gate.")
    name = name.replace(".mlp.experts.", ".block_sparse_moe.experts.")
    for ours, theirs in _MIXTRAL.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name


def hf_piece(
    leaf: str, family: FamilyName, config: ModelConfig, stored: Collection[str]
) -> Piece | None:
    """Find a leaf among the ``stored`` names: under its own name or in a fused tensor.

    Fused variants (specification, section 6): ``qkv_proj`` holds per KV group the query heads,
    then the key head, then the value head; ``gate_and_up_proj`` holds up first, then gate.
    """
    name = hf_name(leaf, family)
    if name in stored:
        return Piece(name)
    module, _, kind = name.rpartition(".")
    parent, _, projection = module.rpartition(".")
    if projection in ("q_proj", "k_proj", "v_proj"):
        fused = f"{parent}.qkv_proj.{kind}"
        rows = (config.heads + 2 * config.kv_heads) * config.head_dim
        layout = _from_qkv(projection, config)
        return Piece(fused, layout=layout, rows=rows) if fused in stored else None
    if projection in ("gate_proj", "up_proj"):
        fused = f"{parent}.gate_and_up_proj.{kind}"
        half = 0 if projection == "up_proj" else 1
        width = config.ffn * (config.shared_experts if ".shared_mlp." in leaf else 1)
        layout = lambda x: x.chunk(2)[half]  # noqa: E731
        return Piece(fused, layout=layout, rows=2 * width) if fused in stored else None
    return None


def _from_qkv(projection: str, config: ModelConfig) -> Layout:
    queries = config.heads // config.kv_heads

    def take(x: Tensor) -> Tensor:
        groups: Tensor = torch.unflatten(x, 0, (config.kv_heads, queries + 2, config.head_dim))
        if projection == "q_proj":
            return groups[:, :queries].flatten(0, 2)
        return groups[:, queries + (projection == "v_proj")].flatten(0, 1)

    return take


# ---------------------------------------------------------------- GGUF

GGUFArchitecture = Literal["llama", "qwen2", "hunyuan-dense", "hunyuan-moe"]

_GGUF_GLOBAL = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}

_GGUF_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.query_layernorm": "attn_q_norm",
    "self_attn.key_layernorm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate.wg": "ffn_gate_inp",
    "mlp.shared_mlp.gate_proj": "ffn_gate_shexp",
    "mlp.shared_mlp.up_proj": "ffn_up_shexp",
    "mlp.shared_mlp.down_proj": "ffn_down_shexp",
}

_GGUF_EXPERT = {
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
}


def gguf_piece(leaf: str, architecture: GGUFArchitecture, config: ModelConfig) -> Piece:
    """Where GGUF keeps a leaf; ``layout`` turns what is stored into the leaf."""
    if leaf in _GGUF_GLOBAL:
        return Piece(_GGUF_GLOBAL[leaf])
    _, _, layer, rest = leaf.split(".", 3)
    if slice_ := expert_leaf(leaf):
        return Piece(f"blk.{layer}.{_GGUF_EXPERT[slice_.projection]}.weight", slice_.expert)
    module, _, kind = rest.rpartition(".")
    heads = {"self_attn.q_proj": config.heads, "self_attn.k_proj": config.kv_heads}.get(module)
    layout = _pairs_to_halves(heads) if heads and architecture == "llama" else None
    return Piece(f"blk.{layer}.{_GGUF_LAYER[module]}.{kind}", layout=layout)


def gguf_stored_layout(
    leaf: str, architecture: GGUFArchitecture, config: ModelConfig
) -> Layout | None:
    """The inverse of `gguf_piece`'s layout: from a leaf to what GGUF stores."""
    for module, heads in (("q_proj", config.heads), ("k_proj", config.kv_heads)):
        if architecture == "llama" and f".{module}." in leaf:
            return _halves_to_pairs(heads)
    return None


def _pairs_to_halves(heads: int) -> Layout:
    """llama GGUF stores rotary partners as neighbours; ours lie half a head apart."""
    return lambda x: torch.unflatten(x, 0, (heads, -1, 2)).transpose(1, 2).reshape(x.shape)


def _halves_to_pairs(heads: int) -> Layout:
    return lambda x: torch.unflatten(x, 0, (heads, 2, -1)).transpose(1, 2).reshape(x.shape)


def by_stored_tensor(pieces: Mapping[str, Piece]) -> Iterator[tuple[str, list[str]]]:
    """Stored names in order of first use, each with the leaves that lie in it."""
    grouped: dict[str, list[str]] = {}
    for leaf, piece in pieces.items():
        grouped.setdefault(piece.name, []).append(leaf)
    yield from grouped.items()
