"""A step on processes that divide the layers: all micro-batches at once, one behind the other.

The loop asks for the gradients of a step; where the layers are divided it is answered here, by
`hunyuan.parallel.pipeline`'s schedule instead of a forward and a backward pass after each other.
Only tasks whose rows are all of one length and whose loss is a sum over tokens can be divided so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hunyuan.data.rows import NO_TARGET
from hunyuan.model.routing import Routes
from hunyuan.train.batch import Batch, held
from hunyuan.train.losses import Forward, router_losses, training_ops
from hunyuan.train.recipe import Recipe


class Staged:
    """This process's layers in the pipeline of all."""

    def __init__(self, recipe: Recipe, forward: Forward) -> None:
        self._recipe = recipe
        self._forward = forward
        self._share = 0.0
        self._scalars: dict[str, Tensor] = {}
        self._attention_dropout = 0.0
        ranks, batch = forward.ranks, recipe.batch
        self._stage: Any = ranks.stage
        self._stage.ops = self._ops
        self._stage.router_loss = self._router_loss
        self._pipeline: Any = ranks.pipeline(
            rows=batch.rows // ranks.layout.data,
            tokens=batch.row_tokens // ranks.layout.context,
            micro=batch.accumulate,
            loss=self._loss,
        )

    def gradients(
        self, batches: Sequence[Batch], share: float
    ) -> tuple[dict[str, Tensor], list[Routes]]:
        """Of one step, whose targets weigh ``share`` each; what is worth logging, and routes."""
        self._share, self._scalars = share, {}
        self._attention_dropout = self._recipe.dropout.attention
        own = self._held(batches)
        config, place = self._forward.model.config, self._forward.ranks.place
        layers = self._forward.ranks.layout.stage(config, place.pipeline)
        keys = [self._forward.slot_keys(batch) for batch in own]
        stacked = None
        if keys[0] is not None:
            stacked = torch.stack([k[layers.start : layers.stop] for k in keys if k is not None])
        loss = self._pipeline.step(*self._joined(own), stacked)
        return {"loss": loss} | self._scalars, self._stage.routes

    def sum_tied(self, gradient: Tensor) -> None:
        """Both gradients of a tied embedding; see `hunyuan.parallel.pipeline`."""
        self._pipeline.sum_tied(gradient)

    def losses(self, batches: Sequence[Batch]) -> tuple[float, int]:
        """Sum of the cross-entropy of all targets, and their number; 0 but on the last stage."""
        micro = self._recipe.batch.accumulate
        self._share, self._attention_dropout = 1.0, 0.0
        own = self._held(batches)
        total = 0.0
        for at in range(0, len(own), micro):
            some = own[at : at + micro]
            empty = some[0]._replace(targets=torch.full_like(some[0].targets, NO_TARGET))
            some = [*some, *[empty] * (micro - len(some))]
            total += float(self._pipeline.evaluate(*self._joined(some)))
        counts = self._stage.last and sum(batch.learned for batch in own)
        return total, int(counts)

    def _held(self, batches: Sequence[Batch]) -> list[Batch]:
        """This process's part of each, filled up to the rows that the pipeline has."""
        ranks, full = self._forward.ranks, self._recipe.batch.rows
        rows = full // ranks.layout.data
        return [_filled(held(b, ranks.layout, ranks.place, full), rows) for b in batches]

    def _joined(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ids, targets, positions, first_seen = (
            torch.cat(parts) for parts in zip(*(batch[:4] for batch in batches), strict=True)
        )
        return ids, positions, first_seen, targets

    def _ops(self, first_seen: Tensor) -> Any:
        model, rate = self._forward.model, self._attention_dropout
        ops = training_ops(model.config, model.dtype, first_seen, rate)
        return self._forward.ranks.ops(ops, first_seen, rate)

    def _router_loss(self, routes: list[Routes]) -> Tensor:
        """This stage's part of the mean over layers, micro-batches and ranks."""
        layout = self._forward.ranks.layout
        part = 1 / (self._recipe.batch.accumulate * layout.data * layout.context * layout.pipeline)
        extra, scalars = router_losses(routes, self._forward.model.config, self._recipe.loss)
        for name, value in scalars.items():
            before = self._scalars.get(name, torch.zeros(()))
            self._scalars[name] = before + value.detach() * part
        return extra * part

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        flat = targets.flatten()
        weights = torch.full((len(flat),), self._share, device=hidden.device)
        return self._forward.ranks.cross_entropy(
            hidden.flatten(0, 1), self._forward.head, flat, weights
        )


def _filled(batch: Batch, rows: int) -> Batch:
    """``batch`` with its first row repeated, without targets, until it has ``rows``."""
    missing = rows - len(batch.ids)
    if not missing:
        return batch
    ids, targets, positions, first_seen = (
        torch.cat([t, t[:1].expand(missing, -1)]) for t in batch[:4]
    )
    targets = targets.clone()
    targets[-missing:] = NO_TARGET
    return Batch(ids, targets, positions, first_seen, batch.part)
