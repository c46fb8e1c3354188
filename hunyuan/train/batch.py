"""Rows of token ids to the tensors of one micro-batch, and the part of it that a process holds."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hunyuan.data.rows import NO_TARGET, Row
from hunyuan.parallel.layout import Layout, Place


class Part(NamedTuple):
    """Which tokens of a micro-batch of many processes one of them holds."""

    tokens: int
    """Tokens of the whole micro-batch."""

    pieces: tuple[range, ...]
    """Where the held ones stand in it, in the order in which they are held."""

    counts: bool
    """False: nothing was left for this process, which holds what another one learns from."""

    added: int = 0
    """Tokens after these that are there only to make all processes' parts equally large."""

    def columns(self, keys: Tensor, group: int, slots: int) -> Tensor:
        """Of slot keys (L, slots) drawn for the whole micro-batch, the held capacity groups'.

        ``slots`` are those of one whole ``group`` of tokens, over all experts.
        """
        found = [
            keys[:, piece.start // group * slots : -(-piece.stop // group) * slots]
            for piece in self.pieces
        ]
        if self.added:
            found.append(keys.new_zeros(len(keys), -(-self.added // group) * slots))
        return torch.cat(found, dim=1)


class Batch(NamedTuple):
    """One micro-batch; see `hunyuan.data.rows.Row` for the meaning."""

    ids: Tensor
    """(B, T) int64."""

    targets: Tensor
    """(B, T) int64, `NO_TARGET` where nothing is learned."""

    positions: Tensor
    """(B, T) int64."""

    first_seen: Tensor
    """(B, T) int32."""

    part: Part | None = None
    """Which part of a micro-batch of many processes this is; None: all of it."""

    @property
    def share(self) -> float:
        """Its part of the micro-batch's tokens."""
        if self.part is None:
            return 1.0
        own = sum(len(piece) for piece in self.part.pieces)
        return own / self.part.tokens if self.part.counts else 0.0

    @property
    def learned(self) -> int:
        """Tokens that have a target."""
        return int((self.targets != NO_TARGET).sum())


def to_batch(rows: Sequence[Row]) -> Batch:
    """Stack B rows."""
    ids, targets, positions, first_seen = (
        torch.from_numpy(np.stack(parts)) for parts in zip(*rows, strict=True)
    )
    return Batch(ids, targets, positions, first_seen)


def held(batch: Batch, layout: Layout, place: Place, full: int, *, pairs: bool = False) -> Batch:
    """What one process holds of a micro-batch: its rows, and of each its two pieces.

    The ``full`` rows of a micro-batch are divided evenly and in order; what there is of a last
    one that is not full lies as it would in a full one. A process for which nothing is left
    holds the first row, without targets. ``pairs``: the first half of the rows is divided, and
    the second half goes with it.
    """
    if layout.data * layout.context == 1:
        return batch
    count, length = batch.ids.shape
    first = count // 2 if pairs else count
    each = (full // 2 if pairs else full) // layout.data
    own = range(min(place.data * each, first), min((place.data + 1) * each, first))
    counts = len(own) > 0
    own = own if counts else range(1)
    rows = [*own, *(i + first for i in own)] if pairs else [*own]
    columns = _columns(length, layout.context, place.context)
    at = torch.cat([torch.arange(c.start, c.stop) for c in columns])
    ids, targets, positions, first_seen = (t[rows][:, at] for t in batch[:4])
    if not counts:
        targets = torch.full_like(targets, NO_TARGET)
    missing = each - len(rows) if layout.expert > 1 and not pairs else 0
    if missing:  # experts exchange parts of one size
        ids, targets, positions, first_seen = (
            torch.cat([t, t[:1].expand(missing, -1)]) for t in (ids, targets, positions, first_seen)
        )
        targets[-missing:] = NO_TARGET
    pieces: list[range] = []
    for piece in (range(r * length + c.start, r * length + c.stop) for r in rows for c in columns):
        if pieces and pieces[-1].stop == piece.start:
            pieces[-1] = range(pieces[-1].start, piece.stop)
        else:
            pieces.append(piece)
    return Batch(
        ids,
        targets,
        positions,
        first_seen,
        Part(count * length, tuple(pieces), counts, missing * ids.shape[1]),
    )


def _columns(length: int, of: int, context: int) -> list[range]:
    """Two pieces of a row, one from each end, so that all ranks attend to as much."""
    width = length // (2 * of)
    starts = (context * width, (2 * of - 1 - context) * width)
    return [range(start, start + width) for start in starts]


def steps(rows: Iterator[Row], per_batch: int, accumulate: int) -> Iterator[list[Batch]]:
    """The micro-batches of each optimiser step; an incomplete last batch has fewer rows.

    Nothing is read ahead, so that the state of ``rows`` after a step is the state of the data.
    """
    while True:
        batches = []
        for _ in range(accumulate):
            taken = list(islice(rows, per_batch))
            if taken:
                batches.append(to_batch(taken))
        if not batches:
            return
        yield batches
