"""Measuring a model that is being trained: dropless, without dropout, logits in float32."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hunyuan.data.rows import NO_TARGET
from hunyuan.model.transformer import Transformer
from hunyuan.train.batch import Batch, held
from hunyuan.train.losses import Forward, Loss, training_ops
from hunyuan.train.outside import dropless
from hunyuan.train.ranks import ALONE, Ranks
from hunyuan.train.stages import Staged

_TOKENS = 256  # tokens whose logits are made at a time


class HeldOut(NamedTuple):
    """Text that is not trained on."""

    name: str
    batches: Sequence[Batch]
    bytes_per_token: float | None
    """UTF-8 bytes of the text per token, if known."""


class TokenLoss:
    """Mean cross-entropy per token of each held-out part, and of all together first."""

    def __init__(
        self,
        model: Transformer,
        parts: Sequence[HeldOut],
        ranks: Ranks = ALONE,
        rows: int = 0,
        staged: Staged | None = None,
    ) -> None:
        """``model`` is a dropless twin (`hunyuan.train.outside`), or what all ``ranks`` hold.

        ``rows`` are those of a full batch, of which each rank measures a part.
        """
        self._staged = staged
        self._model = model
        self._parts = parts
        self._ranks = ranks
        self._rows = rows

    def __call__(self) -> list[dict[str, Any]]:
        """Records for the metrics; none if nothing is held out."""
        records = []
        total, tokens, weight = 0.0, 0, 0.0
        with dropless(self._model):
            sums = [self._sum(part.batches) for part in self._parts]
        self._ranks.settle(self._model)
        for part, (loss, count) in zip(self._parts, sums, strict=True):
            if not count:
                continue
            records.append(_record(part.name, loss / count, part.bytes_per_token))
            total, tokens = total + loss, tokens + count
            weight += count * (part.bytes_per_token or math.nan)
        if len(records) > 1:
            records.insert(0, _record("all", total / tokens, weight / tokens))
        return records

    @torch.no_grad()
    def _sum(self, batches: Sequence[Batch]) -> tuple[float, int]:
        """Of the losses, and how many; over all ranks."""
        model, ranks = self._model.eval(), self._ranks
        total, count = 0.0, 0
        if self._staged is not None:
            total, count = self._staged.losses(batches)
            batches = ()
        for whole in batches:
            batch = held(whole, ranks.layout, ranks.place, self._rows)
            ops = training_ops(model.config, model.dtype, batch.first_seen, 0.0)
            ops = ranks.ops(ops, batch.first_seen, 0.0)
            hidden, _ = model.hidden(batch.ids, batch.positions, ops=ops)
            used = batch.targets != NO_TARGET
            parts = zip(
                torch.split(hidden[used], _TOKENS),
                torch.split(batch.targets[used], _TOKENS),
                strict=True,
            )
            for h, targets in parts:
                total += float(ranks.evaluated(model, h, targets))
            count += int(used.sum())
        sums = ranks.sum(torch.tensor([total, count], dtype=torch.float64))
        return float(sums[0]), int(sums[1])


def _record(name: str, loss: float, bytes_per_token: float | None) -> dict[str, Any]:
    per_byte = None
    if bytes_per_token is not None and math.isfinite(bytes_per_token):
        per_byte = loss / math.log(2) / bytes_per_token
    return {"name": name, "loss": loss, "bits_per_byte": per_byte}


class PairLoss:
    """The training loss itself on held-out preferences, with accuracy and margin."""

    def __init__(
        self, forward: Forward, loss: Loss, batches: Sequence[Batch], rows: int = 0
    ) -> None:
        """``rows`` are those of a full batch, of which each rank measures a part."""
        self._forward = forward
        self._loss = loss
        self._batches = batches
        self._rows = rows

    @torch.no_grad()
    def __call__(self) -> list[dict[str, Any]]:
        """One record, or none if nothing is held out."""
        pairs = sum(len(batch.ids) // 2 for batch in self._batches)
        if not pairs:
            return []
        model, ranks = self._forward.model.eval(), self._forward.ranks
        sums: dict[str, Tensor] = {}
        with dropless(model):
            for whole in self._batches:
                batch = held(whole, ranks.layout, ranks.place, self._rows, pairs=True)
                parts = self._loss(self._forward, batch, 1 / pairs if batch.share else 0.0)
                for name, value in parts.scalars.items():
                    sums[name] = sums.get(name, torch.zeros(())) + value.double()
        ranks.settle(model)
        summed = ranks.sum(torch.stack([*sums.values()]))
        found = {name: float(value) for name, value in zip(sums, summed, strict=True)}
        return [{"name": "preferences", "bits_per_byte": None} | found]
