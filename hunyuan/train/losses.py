"""The losses that the one loop is given.

A loss takes the model, a micro-batch and the share that one token of it has in the step, and
returns the sum to be minimised with what is worth logging. Logits are made and used block by block:
for N tokens and V rows of vocabulary they would be the largest tensor by far.

    next_token   cross-entropy with the next token: pretraining, and, with targets on answers
                 alone, fine-tuning
    Distillation Kullback-Leibler divergence from a frozen teacher's predictions
    Preferences  DPO with a likelihood term on the chosen answer (paper, section 3.2)
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hunyuan.data.rows import NO_TARGET
from hunyuan.model.config import ModelConfig
from hunyuan.model.ops import Ops
from hunyuan.model.routing import Routes, balance_loss, draw_slot_keys, group_rooms
from hunyuan.model.transformer import Transformer
from hunyuan.train import kernels
from hunyuan.train.batch import Batch
from hunyuan.train.ranks import ALONE, Ranks
from hunyuan.train.recipe import DropoutSettings, LossSettings


class LossParts(NamedTuple):
    """What a loss returns."""

    total: Tensor
    """Scalar to be minimised: this micro-batch's part of the step."""

    scalars: dict[str, Tensor]
    """Sums over the step's micro-batches worth logging, by name; ``loss`` is the task's own."""

    routes: list[Routes]
    """What the routers decided, layer by layer."""


class Loss(Protocol):
    """The seam between the loop and what is learned."""

    def __call__(self, run: "Forward", batch: Batch, share: float) -> LossParts:
        """``share`` is 1 / (targets of the whole step)."""


class Forward:
    """Runs the model on batches as training does: kernels, dropout, recycle's random keys."""

    def __init__(
        self,
        model: Transformer,
        dropout: DropoutSettings,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.ranks = ranks
        self._dropout = dropout
        self._generator = generator

    def hidden(self, batch: Batch) -> tuple[Tensor, list[Routes]]:
        """Normed hidden states (B, T, D) and routes."""
        config = self.model.config
        keys = self.slot_keys(batch)
        rate = self._dropout.attention if self.model.training else 0.0
        ops = training_ops(config, self.model.dtype, batch.first_seen, rate)
        ops = self.ranks.ops(ops, batch.first_seen, rate)
        hidden, routes = self.model.hidden(batch.ids, batch.positions, slot_keys=keys, ops=ops)
        if batch.part is not None and batch.part.added:
            routes = [Routes(*(p[: -batch.part.added] for p in decided)) for decided in routes]
        return hidden, routes

    def slot_keys(self, batch: Batch) -> Tensor | None:
        """Drawn for the whole micro-batch, so that every process has what one alone would have."""
        config = self.model.config
        if not config.experts or config.routing.mode != "capacity-recycle":
            return None
        if batch.part is None:
            return draw_slot_keys(config, batch.ids.numel(), self._generator)
        keys = draw_slot_keys(config, batch.part.tokens, self._generator)
        group = config.routing.capacity_group
        return batch.part.columns(keys, group, group_rooms(config, group)[0] * config.experts)

    @property
    def head(self) -> Tensor:
        """(V, D): the output head."""
        return head_of(self.model)


def head_of(model: Transformer) -> Tensor:
    """The output head (V, D) of a model."""
    return (model.model.embed_tokens if model.config.tied else model.lm_head).weight


def training_ops(
    config: ModelConfig, dtype: torch.dtype, first_seen: Tensor, attention_dropout: float
) -> Ops:
    """Compiled operations where they run, else the references; documents are kept apart."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        at = torch.arange(q.shape[1], device=q.device)
        mask = (at >= first_seen[..., None]) & (at <= at[:, None])  # (B, T, S)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask[:, None],
            dropout_p=attention_dropout,
            enable_gqa=True,
        )
        return out.transpose(1, 2)

    if not kernels.usable(config, dtype):
        return Ops(attend=attend)
    return kernels.native_ops(first_seen, None if attention_dropout == 0 else attend)


def router_losses(
    routes: Sequence[Routes], config: ModelConfig, settings: LossSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum, and each loss by itself, as means over layers and capacity groups.

    The balance loss counts within each capacity group, so that it does not depend on how many
    groups a batch holds.
    """
    balance, z = [], []
    for decided in routes:
        parts = zip(*(torch.split(t, config.routing.capacity_group) for t in decided), strict=True)
        groups = [Routes(*part) for part in parts]
        tokens = len(decided.logits)
        balance.append(sum(balance_loss(g) * (len(g.logits) / tokens) for g in groups))
        z.append(decided.logits.logsumexp(-1).square().mean())
    scalars = {
        "balance_loss": torch.stack([torch.as_tensor(b) for b in balance]).mean(),
        "z_loss": torch.stack(z).mean(),
    }
    total = settings.balance * scalars["balance_loss"] + settings.router_z * scalars["z_loss"]
    return total, scalars


class _WithRouter:
    """What all losses share: the routers' own losses, a part per micro-batch."""

    def __init__(self, settings: LossSettings, accumulate: int) -> None:
        self._settings = settings
        self._accumulate = accumulate

    def _parts(
        self,
        run: Forward,
        batch: Batch,
        loss: Tensor,
        scalars: dict[str, Tensor],
        routes: list[Routes],
    ) -> LossParts:
        scalars = {"loss": loss.detach()} | scalars
        if not routes:
            return LossParts(loss, scalars, routes)
        extra, of_router = router_losses(routes, run.model.config, self._settings)
        scalars |= {
            name: value.detach() * batch.share / self._accumulate
            for name, value in of_router.items()
        }
        return LossParts(loss + extra * batch.share / self._accumulate, scalars, routes)


class NextToken(_WithRouter):
    """Cross-entropy of the targets, in nats per token."""

    def __call__(self, run: Forward, batch: Batch, share: float) -> LossParts:
        """See `Loss`."""
        hidden, routes = run.hidden(batch)
        weights = torch.full((batch.ids.numel(),), share, device=hidden.device)
        loss = run.ranks.cross_entropy(
            hidden.flatten(0, 1), run.head, batch.targets.flatten(), weights
        )
        return self._parts(run, batch, loss, {}, routes)


class Distillation(_WithRouter):
    """KL(teacher || model) of every token that has a target, in nats per token."""

    def __init__(self, settings: LossSettings, accumulate: int, teacher: Transformer) -> None:
        super().__init__(settings, accumulate)
        self._teacher = teacher.requires_grad_(False)

    def __call__(self, run: Forward, batch: Batch, share: float) -> LossParts:
        """See `Loss`; ``cross_entropy`` is that of the targets."""
        hidden, routes = run.hidden(batch)
        ops = training_ops(self._teacher.config, self._teacher.dtype, batch.first_seen, 0.0)
        with torch.no_grad():
            taught, _ = self._teacher.model(batch.ids, batch.positions, ops=ops)
        loss = torch.zeros(())
        plain = torch.zeros(())
        learned = (batch.targets != NO_TARGET).flatten()
        parts = (hidden.flatten(0, 1), taught.flatten(0, 1), batch.targets.flatten(), learned)
        for h, t, target, used in zip(*(torch.split(p, 256) for p in parts), strict=True):
            divergence, entropy = checkpoint(
                self._block, h[used], run.head, t[used], target[used], use_reentrant=False
            )
            loss = loss + divergence * share
            plain = plain + entropy.detach() * share
        return self._parts(run, batch, loss, {"cross_entropy": plain}, routes)

    def _block(
        self, hidden: Tensor, head: Tensor, taught: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums of the divergence and of the cross-entropy over some tokens."""
        logs = F.linear(hidden, head).float().log_softmax(-1)
        teacher_head = self._teacher.logits(taught).log_softmax(-1)
        divergence = F.kl_div(logs, teacher_head, reduction="sum", log_target=True)
        return divergence, F.nll_loss(logs, targets, reduction="sum")


class Preferences(_WithRouter):
    """DPO on pairs of rows: the chosen answers first, the rejected ones second.

    -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)), where a log-ratio compares
    the model with what it was at the beginning (arXiv 2305.18290, eq. 7), plus ``dpo_nll`` times
    the mean negative log-likelihood per token of the chosen answer.
    """

    def __init__(self, settings: LossSettings, accumulate: int, reference: "ReferenceLogs") -> None:
        super().__init__(settings, accumulate)
        self._reference = reference

    def __call__(self, run: Forward, batch: Batch, share: float) -> LossParts:
        """See `Loss`; ``share`` is 1 / (pairs of the whole step)."""
        hidden, routes = run.hidden(batch)
        logs = answer_logs(hidden, run.head, batch.targets)
        ratio = logs - self._reference(batch)
        chosen, rejected = ratio.chunk(2)
        margin = self._settings.dpo_beta * (chosen - rejected)
        preference = -F.logsigmoid(margin).sum() * share
        lengths = (batch.targets != NO_TARGET).sum(-1).chunk(2)[0].clamp(min=1)
        likelihood = (-logs.chunk(2)[0] / lengths).sum() * share
        loss = preference + self._settings.dpo_nll * likelihood
        scalars = {
            "preference_loss": preference.detach(),
            "chosen_nll": likelihood.detach(),
            "margin": margin.detach().sum() * share,
            "accuracy": (margin.detach() > 0).float().sum() * share,
        }
        return self._parts(run, batch, loss, scalars, routes)


class ReferenceLogs(Protocol):
    """Log-likelihoods of the answers of a batch before training, (rows,) float32."""

    def __call__(self, batch: Batch) -> Tensor:
        """One per row."""


def answer_logs(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Log-likelihood of each row's targets: hidden (B, T, D) -> (B,) float32."""
    used = targets != NO_TARGET
    logs = []
    for h, row, target in zip(hidden, used, targets, strict=True):
        parts = [
            checkpoint(_log_sum, h_part, head, t, use_reentrant=False)
            for h_part, t in zip(h[row].split(256), target[row].split(256), strict=True)
        ]
        logs.append(
            torch.stack(parts).sum() if parts else hidden.new_zeros((), dtype=torch.float32)
        )
    return torch.stack(logs)


def _log_sum(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="sum")
