"""What a layer keeps for its backward pass, counted from the operations training runs."""

from hunyuan.model.config import ModelConfig

BF16 = 2


def layer_activations(config: ModelConfig, tensor: int = 1) -> float:
    """Bytes one token of one layer keeps in bfloat16 without recomputation.

    ``tensor``: ways the heads and inner widths are split. Both norms keep what goes in and comes
    out; attention its query before and after rotation, the heads' result twice, and copies of K
    and V; an expert its input, both inner products and their gated product; the router a float32
    copy of its input.
    """
    d, f = config.hidden, config.ffn
    heads, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    rotated = 2 if config.qk_norm else 1  # a plain rotation needs nothing of its input
    attention = (rotated + 3) * heads + (2 + rotated / config.cla_share) * kv
    numbers = 4 * d + attention / tensor
    if not config.experts:
        return BF16 * (numbers + 3 * f / tensor)
    slots = float(config.top_k)
    if config.routing.mode != "dropless":
        slots *= config.routing.capacity_factor
    routed = slots * (d + 3 * f / tensor) + config.top_k * d
    shared = 3 * f * config.shared_experts / tensor
    return BF16 * (numbers + 2 * d + routed + shared)


def layer_inputs(config: ModelConfig) -> float:
    """Bytes one token of one layer keeps where the layer is recomputed: its input, and K and V."""
    kv = 2 * config.kv_heads * config.head_dim / config.cla_share
    return BF16 * (config.hidden + kv)
