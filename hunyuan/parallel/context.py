"""Rows divided over ranks: each holds some tokens' queries, and all keys once per group of layers.

K and V are a fifth of a token's width and serve a whole group of layers (cross-layer attention), so
gathering them is cheap and is done once per group. Causal attention costs a late token more than an
early one; therefore a row is cut into two pieces per rank, and rank c holds pieces c and
2 * ranks - 1 - c ("zig-zag"): the same work for all.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hunyuan.model.config import ModelConfig
from hunyuan.model.ops import Ops
from hunyuan.model.routing import group_rooms
from hunyuan.parallel import unstable
from hunyuan.parallel.layout import Layout, Place
from hunyuan.parallel.mesh import Mesh

QUERIES = 1024
"""Queries attended for at a time: what bounds the mask."""


def tokens_of(layout: Layout, context: int, row_tokens: int) -> Tensor:
    """(T / context,) int64: which tokens of a row of T rank ``context`` of its group holds."""
    if layout.context == 1:
        return torch.arange(row_tokens)
    pieces = torch.arange(row_tokens).chunk(2 * layout.context)
    return torch.cat((pieces[context], pieces[-1 - context]))


def part_of(x: Tensor, layout: Layout, place: Place) -> Tensor:
    """What a process holds of a tensor (B, T) of the whole micro-batch."""
    rows = x.chunk(layout.data)[place.data]
    if layout.context == 1:
        return rows
    return rows[:, tokens_of(layout, place.context, x.shape[1]).to(x.device)]


def slot_keys_of(
    keys: Tensor, config: ModelConfig, layout: Layout, place: Place, rows: int, row_tokens: int
) -> Tensor:
    """What a process needs of ``keys`` (L, slots), drawn for all B rows of the micro-batch.

    Its tokens get the keys they would get in a single process: those of their capacity groups and
    of its stage's layers.
    """
    keys = keys[layout.stage(config, place.pipeline).start :][: config.layers // layout.pipeline]
    if layout.shards == 1:
        return keys
    group = config.routing.capacity_group
    token = torch.arange(rows * row_tokens).view(rows, row_tokens)
    held = part_of(token, layout, place).flatten()[::group] // group
    by_group = keys.view(len(keys), len(group_rooms(config, rows * row_tokens)), -1)
    return by_group[:, held.to(keys.device)].flatten(1)


def divided_rows(ops: Ops, first_seen: Tensor, mesh: Mesh, dropout: float = 0.0) -> Ops:
    """``ops`` for rows that are divided over ``mesh.context``; unchanged if they are not.

    ``first_seen`` (B, T / context): for each query held here the first token of its row that it may
    see, counted in the whole row. Attention never crosses a document.
    """
    ranks = mesh.layout.context
    if ranks == 1:
        return ops
    group = mesh.context.get_group()
    piece = first_seen.shape[1] // 2
    at = tokens_of(mesh.layout, mesh.place.context, ranks * 2 * piece).to(first_seen.device)
    in_order = torch.cat([tokens_of(mesh.layout, c, ranks * 2 * piece) for c in range(ranks)])
    back = in_order.argsort().to(first_seen.device)
    blocks = _blocks(mesh.place.context, ranks, piece)

    def share(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        whole = unstable.all_gather(torch.cat((k, v), -1), 1, group).index_select(1, back)
        k, v = whole.chunk(2, -1)
        return k, v

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Some queries at a time, with the keys up to the last of them."""
        found = [
            _attend(q[:, rows], at[rows], first_seen[:, rows], k[:, :end], v[:, :end], dropout)
            for rows, end in blocks
        ]
        return torch.cat(found, 1)

    return replace(ops, share=share, attend=attend)


def _blocks(context: int, ranks: int, piece: int) -> list[tuple[slice, int]]:
    """Rows of queries held here, and the end of the keys they need."""
    found = []
    for half, number in enumerate((context, 2 * ranks - 1 - context)):
        for start in range(0, piece, QUERIES):
            stop = min(start + QUERIES, piece)
            rows = slice(half * piece + start, half * piece + stop)
            found.append((rows, number * piece + stop))
    return found


def _attend(
    q: Tensor, at: Tensor, first_seen: Tensor, k: Tensor, v: Tensor, dropout: float
) -> Tensor:
    key = torch.arange(k.shape[1], device=q.device)
    mask = (key >= first_seen[..., None]) & (key <= at[:, None])  # (B, queries, keys)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask[:, None],
        dropout_p=dropout,
        enable_gqa=True,
    )
    return out.transpose(1, 2)
