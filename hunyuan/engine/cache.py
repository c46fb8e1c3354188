"""The preallocated cache: one key and one value per token, head and cache slot.

A slot serves one group of layers, so its memory is 1/share of plain GQA: 81,920 bytes a token for
Hunyuan-Large in bfloat16, 5 % of multi-head attention. Each running request owns a row. The
memory is reserved at once but the system hands out pages only as they are written.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hunyuan.engine.scheduler import Segment
from hunyuan.model.attention import KeyValue
from hunyuan.model.config import ModelConfig


class RowCache:
    """Keys and values (U, rows, K, context, C) of all slots and rows."""

    def __init__(self, config: ModelConfig, rows: int, context: int, dtype: torch.dtype) -> None:
        shape = (config.slots, rows, config.kv_heads, context, config.head_dim)
        self.k = torch.empty(shape, dtype=dtype)
        self.v = torch.empty(shape, dtype=dtype)

    @property
    def nbytes(self) -> int:
        """Bytes reserved."""
        return self.k.nbytes + self.v.nbytes

    def view(self, segments: list[Segment]) -> "StepCache":
        """The cache as one step of the model sees it; see `StepCache`."""
        return StepCache(self, segments)


class StepCache:
    """Implements the model's `KVCache` for one step: flat tokens (1, N) of several requests.

    The segments' tokens lie one after the other; each attends to its own row only.
    """

    def __init__(self, cache: RowCache, segments: list[Segment]) -> None:
        self._cache = cache
        self._segments = segments

    def append(self, slot: int, kv: KeyValue) -> None:
        """Store (1, N, K, C) keys and values at each segment's place."""
        at = 0
        for s in self._segments:
            rows, places = slice(at, at + s.count), slice(s.start, s.start + s.count)
            self._cache.k[slot, s.row, :, places] = kv.k_unit[0, rows].transpose(0, 1)
            self._cache.v[slot, s.row, :, places] = kv.v[0, rows].transpose(0, 1)
            at += s.count

    def attend(self, slot: int, q: Tensor) -> Tensor:
        """(1, N, H, C) -> (1, N, H, C)."""
        outputs = []
        at = 0
        for s in self._segments:
            k = self._cache.k[slot, s.row, :, : s.start + s.count]
            v = self._cache.v[slot, s.row, :, : s.start + s.count]
            part = q[0, at : at + s.count]
            outputs.append(_decode(part, k, v) if s.count == 1 else _prefill(part, k, v))
            at += s.count
        return torch.cat(outputs)[None]


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
