"""Grouped-query attention with K and V shared across layers, exactly and at half the cache.

The released model normalises each layer's keys with that layer's own gain, so a cache of finished
keys needs one K per *layer*, and the advertised saving of cross-layer attention is lost. But the
gain is an element-wise factor, and a score is a dot product:

    q_l . (w_k * k_unit)  =  (w_k * q_l) . k_unit

So the cache holds the rotated, weightlessly normalised key once per *group* of layers, and every
layer folds its key gain into its query (specification, section 4.3). V is shared as it is.

The cache is a protocol: the model writes a group's keys and values and asks for attention over
them. It never knows how they are stored, and the cache knows nothing of norms or layers.
"""

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from hunyuan.model.config import ModelConfig
from hunyuan.model.layers import RMSNorm
from hunyuan.model.ops import Ops, Rotation


class KeyValue(NamedTuple):
    """What one group of layers attends to, from the tokens of this call."""

    k_unit: Tensor
    """(B, T, K, C): rotated; without QK-norm as it is, with it at root mean square 1."""

    v: Tensor
    """(B, T, K, C): as projected."""


class KVCache(Protocol):
    """Keys and values of earlier tokens, by cache slot (one per group of layers)."""

    def append(self, slot: int, kv: KeyValue) -> None:
        """Add this call's tokens; the owner layer of the group calls it before any layer reads."""

    def attend(self, slot: int, q: Tensor) -> Tensor:
        """Causal attention of ``q`` (B, T, H, C), scaled by 1/sqrt(C) -> (B, T, H, C)."""


class Attention(nn.Module):
    """One layer's attention; only owner layers have key and value projections."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        d, c = config.hidden, config.head_dim
        self.slot = layer // config.cla_share
        self.owner = config.owns_kv(layer)
        self.head_dim = c
        self.eps = config.norm_eps
        self.q_proj = nn.Linear(d, config.heads * c, bias=config.qkv_bias)
        if self.owner:
            self.k_proj = nn.Linear(d, config.kv_heads * c, bias=config.qkv_bias)
            self.v_proj = nn.Linear(d, config.kv_heads * c, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.heads * c, d, bias=config.output_bias)
        self.qk_norm = config.qk_norm
        if config.qk_norm:
            self.query_layernorm = RMSNorm(c, config.norm_eps)
            self.key_layernorm = RMSNorm(c, config.norm_eps)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        shared: KeyValue | None,
        cache: KVCache | None,
        ops: Ops,
    ) -> tuple[Tensor, KeyValue]:
        """(B, T, D) -> (B, T, D), and the K and V the rest of the group shares.

        ``shared`` is what the group's owner returned; an owner ignores it. With a ``cache`` the
        earlier tokens in it are attended to as well; without one the T tokens stand alone and
        gradients of every reader reach the owner's projections.
        """
        kv = self._project(x, rotation, ops) if self.owner else shared
        assert kv is not None, "a reader layer runs after its group's owner"
        q = self._query(x, rotation, ops)
        if cache is None:
            out = ops.attend(q, kv.k_unit, kv.v)
        else:
            if self.owner:
                cache.append(self.slot, kv)
            out = cache.attend(self.slot, q)
        return self.o_proj(out.flatten(2)), kv

    def _project(self, x: Tensor, rotation: Rotation, ops: Ops) -> KeyValue:
        k = self.k_proj(x).unflatten(-1, (-1, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        k_unit = ops.rotate_unit(k, rotation, self.eps if self.qk_norm else None, None)
        return KeyValue(*ops.share(k_unit, v))

    def _query(self, x: Tensor, rotation: Rotation, ops: Ops) -> Tensor:
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        if not self.qk_norm:
            return ops.rotate_unit(q, rotation, None, None)
        gain = self.query_layernorm.weight * self.key_layernorm.weight
        return ops.rotate_unit(q, rotation, self.eps, gain)
