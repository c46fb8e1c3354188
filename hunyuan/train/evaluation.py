"""Measuring a model that is being trained: dropless, without dropout, logits in float32."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from hunyuan.data.rows import NO_TARGET
from hunyuan.model.transformer import Transformer
from hunyuan.train.batch import Batch
from hunyuan.train.losses import Forward, Loss, training_ops

_TOKENS = 256  # tokens whose logits are made at a time


class HeldOut(NamedTuple):
    """Text that is not trained on."""

    name: str
    batches: Sequence[Batch]
    bytes_per_token: float | None
    """UTF-8 bytes of the text per token, if known."""


class TokenLoss:
    """Mean cross-entropy per token of each held-out part, and of all together first."""

    def __init__(self, model: Transformer, parts: Sequence[HeldOut]) -> None:
        """``model`` routes dropless: see `hunyuan.train.outside.dropless_twin`."""
        self._model = model.eval()
        self._parts = parts

    def __call__(self) -> list[dict[str, Any]]:
        """Records for the metrics; none if nothing is held out."""
        records = []
        total, tokens, weight = 0.0, 0, 0.0
        for part in self._parts:
            loss, count = self._sum(part.batches)
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
        model = self._model
        total, count = 0.0, 0
        for batch in batches:
            ops = training_ops(model.config, model.dtype, batch.first_seen, 0.0)
            hidden, _ = model.model(batch.ids, batch.positions, ops=ops)
            used = batch.targets != NO_TARGET
            parts = zip(
                torch.split(hidden[used], _TOKENS),
                torch.split(batch.targets[used], _TOKENS),
                strict=True,
            )
            for h, targets in parts:
                total += float(F.cross_entropy(model.logits(h), targets, reduction="sum"))
            count += int(used.sum())
        return total, count


def _record(name: str, loss: float, bytes_per_token: float | None) -> dict[str, Any]:
    per_byte = None
    if bytes_per_token is not None and math.isfinite(bytes_per_token):
        per_byte = loss / math.log(2) / bytes_per_token
    return {"name": name, "loss": loss, "bits_per_byte": per_byte}


class PairLoss:
    """The training loss itself on held-out preferences, with accuracy and margin."""

    def __init__(self, forward: Forward, loss: Loss, batches: Sequence[Batch]) -> None:
        self._forward = forward
        self._loss = loss
        self._batches = batches

    @torch.no_grad()
    def __call__(self) -> list[dict[str, Any]]:
        """One record, or none if nothing is held out."""
        pairs = sum(len(batch.ids) // 2 for batch in self._batches)
        if not pairs:
            return []
        self._forward.model.eval()
        sums: dict[str, float] = {}
        for batch in self._batches:
            parts = self._loss(self._forward, batch, 1 / pairs)
            for name, value in parts.scalars.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return [{"name": "preferences", "bits_per_byte": None} | sums]
