"""The one grouped product: rows in groups, a matrix for each group.

On a CPU a product per group is fastest, and its results and gradients are written where they
belong, without a copy. Elsewhere equal groups are one batched product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, counts: Sequence[int]) -> Tensor:
        out = x.new_empty(len(x), weight.shape[1])
        for matrix, rows in _groups(counts):
            torch.mm(x[rows], weight[matrix].T, out=out[rows])
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dweight = None
        if ctx.needs_input_grad[1]:
            full = all(ctx.counts)
            dweight = torch.empty_like(weight) if full else torch.zeros_like(weight)
        for matrix, rows in _groups(ctx.counts):
            if dx is not None:
                torch.mm(grad[rows], weight[matrix], out=dx[rows])
            if dweight is not None:
                torch.mm(grad[rows].T, x[rows], out=dweight[matrix])
        return dx, dweight, None


def _groups(counts: Sequence[int]) -> list[tuple[int, slice]]:
    """The matrices that have rows, and which rows."""
    found, start = [], 0
    for matrix, count in enumerate(counts):
        if count:
            found.append((matrix, slice(start, start + count)))
        start += count
    return found


def grouped_linear(x: Tensor, weight: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows ``x`` (M, in) times their group's matrix of ``weight`` (E, out, in) -> (M, out).

    The first ``counts[0]`` rows belong to matrix 0, the next ``counts[1]`` to matrix 1, and so on;
    a matrix without rows is not read.
    """
    if x.device.type != "cpu" and len(set(counts)) == 1:
        return torch.bmm(x.view(len(counts), counts[0], -1), weight.mT).flatten(0, 1)
    out: Tensor = _GroupedLinear.apply(x, weight, counts)  # type: ignore[no-untyped-call]
    return out
