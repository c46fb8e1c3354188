"""Rows of token ids to the tensors of one micro-batch."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hunyuan.data.rows import NO_TARGET, Row


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

    @property
    def learned(self) -> int:
        """Tokens that have a target."""
        return int((self.targets != NO_TARGET).sum())


def to_batch(rows: Sequence[Row]) -> Batch:
    """Stack B rows."""
    return Batch(*(torch.from_numpy(np.stack(parts)) for parts in zip(*rows, strict=True)))


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
