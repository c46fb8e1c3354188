"""Attention whose cache is shared by the layers of a group, by vLLM's KV sharing.

vLLM stores what a layer calls its key. The released model normalises keys with each layer's own
gain, so those could not be shared; but a gain is an element-wise factor, and a score a dot product:

    q_l . (w_k * k_unit)  =  (w_k * q_l) . k_unit

So the owner of a group stores the rotated key normalised without a gain, and every layer takes the
product of its two gains into its query. One K and one V a group, exactly.
"""

import torch
from torch import Tensor, nn
from vllm.config import CacheConfig
from vllm.distributed import get_tensor_model_parallel_world_size
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.rotary_embedding import get_rope

from hunyuan.model.config import ModelConfig
from hunyuan.vllm_plugin.config import rope_parameters


class HunyuanAttention(nn.Module):
    """One layer's attention; ``layers`` is the prefix of the module list it lies in.

    Raises `ValueError` if the heads cannot be divided among the tensor-parallel ranks.
    """

    def __init__(
        self,
        shape: ModelConfig,
        layer: int,
        layers: str,
        max_position: int,
        cache_config: CacheConfig | None,
        quant_config: QuantizationConfig | None,
    ) -> None:
        super().__init__()
        ranks = get_tensor_model_parallel_world_size()
        # More ranks than K/V heads: each head is kept by several ranks.
        if shape.heads % ranks or max(shape.kv_heads, ranks) % min(shape.kv_heads, ranks):
            raise ValueError(
                f"tensor parallel size {ranks} does not divide {shape.heads} query heads and "
                f"{shape.kv_heads} key/value heads; take a divisor of both"
            )
        prefix = f"{layers}.{layer}.self_attn"
        self.head_dim = shape.head_dim
        self.owner = shape.owns_kv(layer)
        heads, kv_heads = shape.heads // ranks, max(1, shape.kv_heads // ranks)
        self.widths = [heads * self.head_dim, kv_heads * self.head_dim, kv_heads * self.head_dim]
        if self.owner:
            self.qkv_proj = QKVParallelLinear(
                shape.hidden,
                shape.head_dim,
                shape.heads,
                shape.kv_heads,
                bias=shape.qkv_bias,
                quant_config=quant_config,
                prefix=f"{prefix}.qkv_proj",
            )
        else:
            self.q_proj = ColumnParallelLinear(
                shape.hidden,
                shape.heads * shape.head_dim,
                bias=shape.qkv_bias,
                quant_config=quant_config,
                prefix=f"{prefix}.q_proj",
            )
        self.o_proj = RowParallelLinear(
            shape.heads * shape.head_dim,
            shape.hidden,
            bias=shape.output_bias,
            quant_config=quant_config,
            prefix=f"{prefix}.o_proj",
        )
        self.qk_norm = shape.qk_norm
        if self.qk_norm:
            self.query_layernorm = Gain(shape.head_dim)
            self.key_layernorm = Gain(shape.head_dim)
            # float32: the product of two gains is rounded once, when the query is.
            self.query_norm = RMSNorm(shape.head_dim, shape.norm_eps, dtype=torch.float32)
            self.key_norm = RMSNorm(shape.head_dim, shape.norm_eps, has_weight=False)
        self.rotary_emb = get_rope(
            shape.head_dim, max_position=max_position, rope_parameters=rope_parameters(shape.rope)
        )
        owner = layer - layer % shape.cla_share
        self.attn = Attention(
            heads,
            shape.head_dim,
            shape.head_dim**-0.5,
            num_kv_heads=kv_heads,
            cache_config=cache_config,
            quant_config=quant_config,
            prefix=f"{prefix}.attn",
            kv_sharing_target_layer_name=None if self.owner else f"{layers}.{owner}.self_attn.attn",
        )

    def fold_gains(self) -> None:
        """Take the key gain into the query's, after weights were loaded; repeatable."""
        with torch.no_grad():
            self.query_norm.weight.copy_(
                self.query_layernorm.weight.float() * self.key_layernorm.weight.float()
            )

    def forward(self, positions: Tensor, x: Tensor) -> Tensor:
        """(N, D) -> (N, D) for N tokens at ``positions`` (N,)."""
        if self.owner:
            qkv, _ = self.qkv_proj(x)
            q, k, v = qkv.split(self.widths, dim=-1)
        else:
            q, _ = self.q_proj(x)
            k = v = None
        q, k = self.rotary_emb(positions, q, k)
        if self.qk_norm:
            q = self._per_head(self.query_norm, q)
            k = None if k is None else self._per_head(self.key_norm, k)
        out: Tensor
        out, _ = self.o_proj(self.attn(q, k, v))
        return out

    def _per_head(self, norm: RMSNorm, x: Tensor) -> Tensor:
        heads = x.view(*x.shape[:-1], -1, self.head_dim)
        normed: Tensor = norm(heads)
        return normed.flatten(-2)


class Gain(nn.Module):
    """A gain as the checkpoint holds it, one number a channel of a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width), requires_grad=False)
