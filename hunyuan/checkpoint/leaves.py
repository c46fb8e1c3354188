"""The tensors of a model as checkpoints name them, one by one.

A *leaf* is a weight under the name that Hunyuan-Large's own checkpoints use (specification,
section 6), each expert apart. Every format is described by how its tensors map to leaves, and
everything that streams - loading, converting, verifying - goes leaf by leaf, so that memory stays
at one tensor whatever the size of the model. Stacking experts happens only where a leaf is copied
into its place of a live model.
"""

import re
from typing import NamedTuple

from hunyuan.model.config import ModelConfig

_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")

Shape = tuple[int, ...]


def leaves(config: ModelConfig) -> dict[str, Shape]:
    """Name and shape of every leaf, in the order of a forward pass."""
    d, c = config.hidden, config.head_dim
    q, kv = config.heads * c, config.kv_heads * c
    found: dict[str, Shape] = {"model.embed_tokens.weight": (config.vocab, d)}
    for i in range(config.layers):
        layer = f"model.layers.{i}."
        found[layer + "input_layernorm.weight"] = (d,)
        projections = {"q_proj": q} | ({"k_proj": kv, "v_proj": kv} if config.owns_kv(i) else {})
        for name, width in projections.items():
            found[f"{layer}self_attn.{name}.weight"] = (width, d)
            if config.qkv_bias:
                found[f"{layer}self_attn.{name}.bias"] = (width,)
        found[layer + "self_attn.o_proj.weight"] = (d, q)
        if config.output_bias:
            found[layer + "self_attn.o_proj.bias"] = (d,)
        if config.qk_norm:
            found[layer + "self_attn.query_layernorm.weight"] = (c,)
            found[layer + "self_attn.key_layernorm.weight"] = (c,)
        found[layer + "post_attention_layernorm.weight"] = (d,)
        if not config.experts:
            found |= _mlp(layer + "mlp.", d, config.ffn)
            continue
        found[layer + "mlp.gate.wg.weight"] = (config.experts, d)
        if config.shared_experts:
            found |= _mlp(layer + "mlp.shared_mlp.", d, config.ffn * config.shared_experts)
        for e in range(config.experts):
            found |= _mlp(f"{layer}mlp.experts.{e}.", d, config.ffn)
    found["model.norm.weight"] = (d,)
    if not config.tied:
        found["lm_head.weight"] = (config.vocab, d)
    return found


def _mlp(prefix: str, hidden: int, ffn: int) -> dict[str, Shape]:
    return {
        prefix + "gate_proj.weight": (ffn, hidden),
        prefix + "up_proj.weight": (ffn, hidden),
        prefix + "down_proj.weight": (hidden, ffn),
    }


class ExpertLeaf(NamedTuple):
    """A leaf that is one slice of a stacked expert parameter."""

    bank: str
    """Name of the expert bank, e.g. ``model.layers.3.mlp.experts``."""

    expert: int
    projection: str


def expert_leaf(leaf: str) -> ExpertLeaf | None:
    """Where an expert's leaf belongs, or None for any other leaf."""
    match = _EXPERT.fullmatch(leaf)
    return ExpertLeaf(match[1], int(match[2]), match[3]) if match else None


def is_router(leaf: str) -> bool:
    """Whether a leaf decides which experts run: float32 in every model, near-ties are common."""
    return leaf.endswith(".gate.wg.weight")
