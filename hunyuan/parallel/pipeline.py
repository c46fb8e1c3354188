"""Layers divided over ranks, one forward and one backward at a time (1F1B).

Cuts lie only between groups of layers that share K and V, so that hidden states are all that
travels. The router losses of a stage's layers are computed where the layers are: they enter the
backward pass with the stage's output and never travel.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import DTensor

from hunyuan.model.ops import REFERENCE, Ops
from hunyuan.model.routing import Routes
from hunyuan.model.transformer import Transformer
from hunyuan.parallel.mesh import Mesh


class Stage(nn.Module):
    """What one rank runs of a model: embedding or hidden states in, (normed) hidden states out."""

    def __init__(self, model: Transformer, mesh: Mesh) -> None:
        """``model`` has lost the layers of other stages; see `cut`."""
        super().__init__()
        self.model = model
        self.first = mesh.place.pipeline == 0
        self.last = mesh.place.pipeline == mesh.layout.pipeline - 1
        self.ops: Callable[[Tensor], Ops] = lambda first_seen: REFERENCE
        """Operations for rows (B, T) of first tokens seen; to be set by who trains."""

        self.router_loss: Callable[[list[Routes]], Tensor] | None = None
        """What the routers of these layers add to the loss, in its final scale; to be set."""

        self.routes: list[Routes] = []
        """What the routers of the last micro-batch decided, without gradients."""

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        first_seen: Tensor,
        slot_keys: Tensor | None = None,
    ) -> Tensor:
        """Ids (B, T) or hidden states (B, T, D) -> (B, T, D); ``slot_keys`` (1, layers, slots)."""
        ops = self.ops(first_seen)
        decoder = self.model.model
        if self.first:
            x = decoder.embed_tokens(x)
        keys = None if slot_keys is None else slot_keys[0]
        x, routes = decoder.blocks(x, positions, None, keys, ops)
        if routes and self.router_loss is not None and torch.is_grad_enabled():
            x = _with_loss(x, self.router_loss(routes))
        self.routes = [Routes(*(part.detach() for part in decided)) for decided in routes]
        return decoder.norm(x, ops) if self.last else x


def cut(model: Transformer, mesh: Mesh) -> Stage:
    """Leave ``model``, on the meta device, only what this rank's stage runs.

    Names stay: layer 8 is ``model.layers.8`` wherever it is. A tied model has its embedding on the
    first stage and, as head, on the last one; see `Pipeline.sum_tied`.
    """
    stage = Stage(model, mesh)
    decoder = model.model
    layers = nn.ModuleList()
    for i in mesh.layout.stage(model.config, mesh.place.pipeline):
        layers.add_module(str(i), decoder.layers[i])
    decoder.layers = layers
    if not stage.first and not (stage.last and model.config.tied):
        decoder.embed_tokens = None  # type: ignore[assignment]
    if not stage.last:
        decoder.norm = None  # type: ignore[assignment]
        if not model.config.tied:
            model.lm_head = None  # type: ignore[assignment]
    return stage


class Pipeline:
    """Runs the micro-batches of a step through the stages."""

    def __init__(
        self,
        stage: Stage,
        mesh: Mesh,
        *,
        rows: int,
        tokens: int,
        micro: int,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """``rows`` and ``tokens`` are this rank's of a micro-batch, ``micro`` how many there are.

        ``loss`` turns normed hidden states (B, T, D) and targets (B, T) of one micro-batch into its
        part of the step's loss, a sum; called on the last stage alone. Collective.
        """
        config = stage.model.config
        hidden = torch.empty(
            rows, tokens, config.hidden, dtype=stage.model.dtype, device="meta", requires_grad=True
        )
        ids = torch.empty(rows, tokens, dtype=torch.int64, device="meta")
        self._stage, self._micro = stage, micro
        self._ends = _ends(mesh) if config.tied else None
        part = PipelineStage(
            stage,
            mesh.place.pipeline,
            mesh.layout.pipeline,
            mesh.device,
            input_args=ids if stage.first else hidden,
            output_args=hidden,
            group=mesh.pipeline.get_group(),
        )
        self._schedule = Schedule1F1B(part, micro, loss_fn=loss, scale_grads=False)

    def step(
        self,
        ids: Tensor,
        positions: Tensor,
        first_seen: Tensor,
        targets: Tensor,
        slot_keys: Tensor | None = None,
    ) -> Tensor:
        """Forward and backward of all micro-batches, one after another in (micro * B, T) tensors.

        ``slot_keys`` (micro, layers of the stage, slots). Returns the loss on the last stage and 0
        on the others: its sum over ``mesh.pipeline`` is the loss.
        """
        return self._run(self._schedule.step, ids, positions, first_seen, targets, slot_keys)

    def evaluate(
        self, ids: Tensor, positions: Tensor, first_seen: Tensor, targets: Tensor
    ) -> Tensor:
        """As `step` without a backward pass; forgets gradients that no optimizer has seen yet."""
        with torch.no_grad():
            return self._run(self._schedule.eval, ids, positions, first_seen, targets, None)

    def sum_tied(self, gradient: Tensor) -> None:
        """Add up, in place, both gradients of a tied model's embedding: first and last stage's.

        To be called on these two stages after `step`, with ``weight.grad`` or wherever it went; on
        the others, and in an untied model, there is nothing to add up.
        """
        if self._ends is not None and (self._stage.first or self._stage.last):
            local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            dist.all_reduce(local, group=self._ends)

    def _run(
        self,
        run: Callable[..., Any],
        ids: Tensor,
        positions: Tensor,
        first_seen: Tensor,
        targets: Tensor,
        slot_keys: Tensor | None,
    ) -> Tensor:
        more = {"positions": positions, "first_seen": first_seen}
        if slot_keys is not None:
            more["slot_keys"] = slot_keys
        losses: list[Tensor] = []
        own = (ids,) if self._stage.first else ()
        target = targets if self._stage.last else None
        run(*own, target=target, losses=losses, return_outputs=False, **more)
        return torch.stack(losses).detach().sum() if losses else torch.zeros((), device=ids.device)


def _ends(mesh: Mesh) -> Any:
    """The group of the first and the last stage of this rank's pipeline."""
    stages = mesh.layout.pipeline
    if stages == 2:
        return mesh.pipeline.get_group()
    column = mesh.layout.world // stages
    pairs = [[i, i + (stages - 1) * column] for i in range(column)]
    group, _ = dist.new_subgroups_by_enumeration(pairs)  # type: ignore[no-untyped-call]
    return group


class _WithLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.new_ones((), dtype=torch.float32)


def _with_loss(x: Tensor, loss: Tensor) -> Tensor:
    """``x``, whose gradient will be accompanied by that of ``loss``, a float32 scalar."""
    out: Tensor = _WithLoss.apply(x, loss)  # type: ignore[no-untyped-call]
    return out
