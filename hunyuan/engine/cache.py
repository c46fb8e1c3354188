"""The paged cache: keys and values of all running requests, in blocks of 32 tokens.

A slot serves one group of layers, so its memory is 1/share of plain GQA: 81,920 bytes a token for
Hunyuan-Large in bfloat16, 5 % of multi-head attention. A request owns blocks in any order and
number; which ones is the block pool's affair (`hunyuan.engine.blocks`). The memory is reserved at
once but the system hands out pages only as they are written.

Keys lie transposed, (C, 32) a block, so that a kernel computes the scores of 32 tokens lane by
lane. An int8 cache keeps one scale per token and head, for keys and for values.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from hunyuan.engine.scheduler import Segment
from hunyuan.model.attention import KeyValue
from hunyuan.model.config import ModelConfig
from hunyuan.native.library import BLOCK_TOKENS

KV_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def block_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of one block of the cache, over all slots: keys, values and scales."""
    scales = 2 * config.kv_heads * config.slots * 4 if dtype == torch.int8 else 0
    return BLOCK_TOKENS * (config.kv_bytes_per_token(dtype.itemsize) + scales)


class PagedCache:
    """Storage of ``blocks`` blocks in float32, bfloat16 or int8."""

    def __init__(self, config: ModelConfig, blocks: int, dtype: torch.dtype) -> None:
        u, k, c = config.slots, config.kv_heads, config.head_dim
        self.k = torch.empty(u, blocks, k, c, BLOCK_TOKENS, dtype=dtype)
        self.v = torch.empty(u, blocks, k, BLOCK_TOKENS, c, dtype=dtype)
        self.k_scale: Tensor | None = None
        self.v_scale: Tensor | None = None
        if dtype == torch.int8:
            self.k_scale = torch.empty(u, blocks, k, BLOCK_TOKENS)
            self.v_scale = torch.empty(u, blocks, k, BLOCK_TOKENS)

    @property
    def nbytes(self) -> int:
        """Bytes reserved."""
        parts = (self.k, self.v, self.k_scale, self.v_scale)
        return sum(part.nbytes for part in parts if part is not None)

    def view(self, segments: Sequence[Segment]) -> "StepCache":
        """The cache as one step of the model sees it; see `StepCache`."""
        return StepCache(self, segments)


class StepCache:
    """Implements the model's `KVCache` for one step: flat tokens (1, N) of several requests.

    The segments' tokens lie one after the other; each attends to its own blocks only. The native
    decoder reads the same fields (`hunyuan.native.transformer.PagedStep`).
    """

    def __init__(self, cache: PagedCache, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self.k, self.v = cache.k, cache.v
        self.k_scale, self.v_scale = cache.k_scale, cache.v_scale
        self.counts = torch.tensor([s.count for s in segments], dtype=torch.int32)
        width = max(len(s.blocks) for s in segments)
        self.tables = torch.tensor(
            [[*s.blocks, *([0] * (width - len(s.blocks)))] for s in segments], dtype=torch.int32
        )

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Block and place within it of every token of the step, each (N,)."""
        blocks, offsets = [], []
        for s, table in zip(self._segments, self.tables, strict=True):
            position = torch.arange(s.start, s.start + s.count)
            blocks.append(table[position // BLOCK_TOKENS].long())
            offsets.append(position % BLOCK_TOKENS)
        return torch.cat(blocks), torch.cat(offsets)

    def append(self, slot: int, kv: KeyValue) -> None:
        """Store (1, N, K, C) keys and values at each segment's place."""
        block, at = self._places
        k, v = kv.k_unit[0], kv.v[0]
        if self.k_scale is not None and self.v_scale is not None:
            k, self.k_scale[slot][block, :, at] = _to_int8(k)
            v, self.v_scale[slot][block, :, at] = _to_int8(v)
        self.k[slot][block, :, :, at] = k.to(self.k.dtype)
        self.v[slot][block, :, at] = v.to(self.v.dtype)

    def attend(self, slot: int, q: Tensor) -> Tensor:
        """Attention of (1, N, H, C) -> (1, N, H, C)."""
        outputs = []
        at = 0
        for s, table in zip(self._segments, self.tables, strict=True):
            k, v = self._gather(slot, table, s.start + s.count, q.dtype)
            part = q[0, at : at + s.count]
            outputs.append(_decode(part, k, v) if s.count == 1 else _prefill(part, k, v))
            at += s.count
        return torch.cat(outputs)[None]

    def _gather(
        self, slot: int, table: Tensor, seen: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Keys and values (K, seen, C) of one request, in order."""
        table = table[: -(-seen // BLOCK_TOKENS)].long()
        k, v = self.k[slot][table].to(dtype), self.v[slot][table].to(dtype)
        if self.k_scale is not None and self.v_scale is not None:
            k = k * self.k_scale[slot][table].unsqueeze(-2).to(dtype)
            v = v * self.v_scale[slot][table].unsqueeze(-1).to(dtype)
        k = k.permute(1, 0, 3, 2).flatten(1, 2)[:, :seen]
        return k, v.transpose(0, 1).flatten(1, 2)[:, :seen]


def _to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K, C) -> whole numbers from -127 to 127 and their scales (N, K) float32."""
    x = x.float()
    largest = x.abs().amax(-1)
    inverse = torch.where(largest > 0, 127 / largest, 0)
    return (x * inverse.unsqueeze(-1)).round(), largest / 127


def _decode(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One token: (1, H, C) over (K, S, C). Two matrix products per KV head read K and V once;
    the fused kernel would be several times slower for a single query."""
    kv_heads, _, c = k.shape
    grouped = q.view(kv_heads, -1, c) * c**-0.5
    weights = torch.bmm(grouped, k.mT).float().softmax(-1).to(q.dtype)
    return torch.bmm(weights, v).view(1, -1, c)


def _prefill(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """T tokens at the end of S: (T, H, C) over (K, S, C), causal."""
    new, seen = len(q), k.shape[1]
    mask = None
    if seen > new:
        position = torch.arange(seen - new, seen)
        mask = torch.arange(seen) <= position[:, None]
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], k[None], v[None], mask, is_causal=mask is None, enable_gqa=True
    )
    return out[0].transpose(0, 1)
