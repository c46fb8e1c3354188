"""Parameters in groups, float32 masters behind bfloat16 weights, and the learning rate over time.

The model computes in its own number type, the one it will be served in. Of every bfloat16 weight
the optimiser holds a float32 *master*: gradients are added to it as they appear, in float32, so
that many micro-batches lose nothing; AdamW updates it; the weight is its rounding. Memory per
trained parameter is 2 (weight) + 4 (master) + 4 (gradient) + 8 (AdamW) bytes. Where parameters are
divided over processes, each has masters, gradients and moments of what it holds: an update needs no
other element, only clipping does, which asks all processes for the norm.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hunyuan.errors import UsageError
from hunyuan.train.ranks import ALONE, Ranks
from hunyuan.train.recipe import OptimizerSettings, ScheduleSettings


class Trained(NamedTuple):
    """One trained parameter."""

    name: str
    weight: nn.Parameter
    """What the model computes with."""

    master: Tensor
    """float32; the weight itself if that is float32 and held by one process alone, else of what
    this process holds."""


def expert_ratio(settings: OptimizerSettings, batch_tokens: int, experts: int) -> float:
    """Learning rate of routed experts relative to the rest; see `OptimizerSettings.noise_scale`."""
    if settings.noise_scale is None or not experts:
        return settings.expert_ratio
    x = batch_tokens / settings.noise_scale
    return (1 + x) / (math.sqrt(experts) * (1 + x / experts))


def rate_at(schedule: ScheduleSettings, done: float) -> float:
    """Learning rate, relative to its peak, when a share ``done`` of the run is over."""
    if done < schedule.warmup:
        return done / schedule.warmup
    long_end = 1 - schedule.anneal
    if done < long_end or not schedule.anneal:
        to = schedule.decay_to if schedule.anneal else schedule.final
        way = min((done - schedule.warmup) / max(long_end - schedule.warmup, 1e-12), 1.0)
        if schedule.decay == "constant":
            return 1.0
        fall = way if schedule.decay == "linear" else (1 - math.cos(math.pi * way)) / 2
        return 1 + (to - 1) * fall
    begin = 1.0 if schedule.decay == "constant" else schedule.decay_to
    way = min((done - long_end) / schedule.anneal, 1.0)
    return begin + (schedule.final - begin) * way


class Optimizer:
    """AdamW over the trainable parameters of a model."""

    def __init__(
        self,
        model: nn.Module,
        settings: OptimizerSettings,
        ratio: float,
        ranks: Ranks = ALONE,
    ) -> None:
        """``ratio``: see `expert_ratio`."""
        self._settings = settings
        self._ranks = ranks
        self.trained = [
            Trained(name, weight, _master(weight, ranks))
            for name, weight in model.named_parameters()
            if weight.requires_grad
        ]
        assert self.trained, "nothing is trained"
        for one in self.trained:
            if one.master is not one.weight:
                hook = _adder(one.master, ranks)
                one.weight.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for one in self.trained:
            key = (".mlp.experts." in one.name, one.master.dim() > 1)
            groups.setdefault(key, []).append(one.master)
        self._adam = torch.optim.AdamW(
            [
                {
                    "params": members,
                    "weight_decay": settings.weight_decay if decays else 0.0,
                    "ratio": ratio if expert else 1.0,
                }
                for (expert, decays), members in groups.items()
            ],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            fused=True,
        )

    @property
    def masters(self) -> list[Tensor]:
        """The float32 values of everything that is trained."""
        return [one.master for one in self.trained]

    def step(self, rate: float) -> float:
        """Update by the gathered gradients at ``rate`` of the peak; returns the gradients' norm.

        A norm that is not finite leaves everything as it was.
        """
        learned = [one for one in self.trained if one.master.grad is not None]
        gradients = [one.master.grad for one in learned if one.master.grad is not None]
        limit = self._settings.clip or math.inf
        norm = self._ranks.norm(gradients, [one.weight for one in learned])
        if math.isfinite(norm):
            if norm > limit:
                torch._foreach_mul_(gradients, limit / (norm + 1e-6))
            for group in self._adam.param_groups:
                group["lr"] = self._settings.learning_rate * rate * group["ratio"]
            self._adam.step()
            self._round()
        for master in self.masters:
            master.grad = None
        return norm

    def rates(self, rate: float) -> tuple[float, float | None]:
        """Learning rates of the rest and, if there are any, of the routed experts."""
        peak = self._settings.learning_rate * rate
        ratios = [g["ratio"] for g in self._adam.param_groups if g["ratio"] != 1.0]
        return peak, peak * ratios[0] if ratios else None

    def _round(self) -> None:
        with torch.no_grad():
            for one in self.trained:
                if one.master is not one.weight:
                    self._ranks.local(one.weight).copy_(one.master)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Masters and moments by name, for a checkpoint."""
        for one in self.trained:
            yield f"master.{one.name}", one.master
            state = self._adam.state.get(one.master, {})
            for moment in ("exp_avg", "exp_avg_sq", "step"):
                if moment in state:
                    yield f"{moment}.{one.name}", state[moment]

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`; raises `UsageError` if they are those of other parameters."""
        ours = {f"master.{one.name}": one.master.shape for one in self.trained}
        theirs = {n: t.shape for n, t in tensors.items() if n.startswith("master.")}
        if ours != theirs:
            first = min(n for n in ours.keys() | theirs if ours.get(n) != theirs.get(n))
            name = first.removeprefix("master.")
            raise UsageError(
                f"{name}: is trained in another shape or not at all in the checkpoint; go on with "
                "the model and the adapters it was begun with, or start another run",
                f"{name}：与检查点中训练的参数不一致；请使用原来的模型与适配器设置，或另开一次训练",
            )
        with torch.no_grad():
            for one in self.trained:
                one.master.copy_(tensors[f"master.{one.name}"])
                state: dict[str, Any] = {
                    moment: tensors[f"{moment}.{one.name}"].clone()
                    for moment in ("exp_avg", "exp_avg_sq", "step")
                    if f"{moment}.{one.name}" in tensors
                }
                if state:
                    self._adam.state[one.master] = state
        self._round()


def _master(weight: nn.Parameter, ranks: Ranks) -> Tensor:
    held = ranks.local(weight)
    if held is weight and weight.dtype == torch.float32:
        return weight
    return held.detach().to(torch.float32, copy=True).requires_grad_()


def _adder(master: Tensor, ranks: Ranks) -> Any:
    def add(weight: Tensor) -> None:
        gradient = ranks.gradient(weight)
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad.add_(gradient)
        weight.grad = None

    return add


class Average:
    """Exponential moving average of masters (paper, section 3.2): avg += (1 - decay)(now - avg)."""

    def __init__(self, masters: list[Tensor], decay: float) -> None:
        self._masters = masters
        self._decay = decay
        self.values = [master.detach().clone() for master in masters]

    def update(self) -> None:
        """After every step."""
        torch._foreach_lerp_(self.values, [m.detach() for m in self._masters], 1 - self._decay)
