"""Mixture of experts: route, gather tokens by expert, run the experts, scatter back.

Experts are stacked tensors in one module, `ExpertBank`: the part that a quantised, an offloaded or
an expert-parallel bank replaces. It is given tokens already grouped by expert and knows nothing
of gates, weights or capacity.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hunyuan.model.config import ModelConfig
from hunyuan.model.grouped import grouped_linear
from hunyuan.model.layers import MLP
from hunyuan.model.ops import REFERENCE, Ops
from hunyuan.model.routing import Assignment, Routes, assign_groups, choose, group_rooms, routes_of


class Gate(nn.Module):
    """Router weights, float32 in every model: near-ties decide which expert runs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.wg = nn.Linear(config.hidden, config.experts, bias=False, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> router logits (N, E) float32."""
        logits: Tensor = self.wg(x.float())
        return logits


class ExpertBank(nn.Module):
    """E SwiGLU experts as three stacked tensors."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        e, d, f = config.experts, config.hidden, config.ffn
        self.gate_proj = nn.Parameter(torch.empty(e, f, d))
        self.up_proj = nn.Parameter(torch.empty(e, f, d))
        self.down_proj = nn.Parameter(torch.empty(e, d, f))

    def forward(self, x_sorted: Tensor, counts: Tensor, ops: Ops) -> Tensor:
        """Ragged groups: rows (M, D) in expert order, ``counts`` (E,) rows each -> (M, D).

        Reads only the weights of experts that have rows.
        """
        return self._run(x_sorted, counts.tolist(), ops)

    def forward_slots(self, x_slots: Tensor, ops: Ops) -> Tensor:
        """Equal groups: (E, capacity, D) -> (E, capacity, D), static shapes."""
        experts, room, _ = x_slots.shape
        return self._run(x_slots.flatten(0, 1), [room] * experts, ops).view_as(x_slots)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gate, up and down matrices of the experts held here."""
        return self.gate_proj, self.up_proj, self.down_proj

    def _run(self, x: Tensor, counts: list[int], ops: Ops) -> Tensor:
        gate, up, down = self._weights()
        inner = ops.swiglu(grouped_linear(x, gate, counts), grouped_linear(x, up, counts))
        return grouped_linear(inner, down, counts)


class MoE(nn.Module):
    """y = shared expert(x) + sum of weight * routed expert(x)  (specification, section 3.4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gate = Gate(config)
        self.experts = ExpertBank(config)
        if config.shared_experts:
            self.shared_mlp = MLP(config.hidden, config.ffn * config.shared_experts)

    def forward(
        self, x: Tensor, slot_keys: Tensor | None = None, ops: Ops = REFERENCE
    ) -> tuple[Tensor, Routes]:
        """(B, T, D) -> (B, T, D) and what was decided. ``slot_keys``: see `assign_slots`."""
        flat = x.flatten(0, 1)
        logits = self.gate(flat)
        probabilities, choice, weight = choose(
            logits, self.config.top_k, self.config.norm_topk_prob
        )
        if self.config.routing.mode == "dropless":
            never = torch.zeros_like(choice, dtype=torch.bool)
            routes = Routes(logits, probabilities, choice, choice, weight, never, never)
            y = self._dropless(flat, routes, ops)
        else:
            plan = assign_groups(self.config, choice, slot_keys)
            room = sum(group_rooms(self.config, len(flat)))
            routes = routes_of(plan, room, logits, probabilities, choice, weight)
            y = self._with_capacity(flat, plan, room, routes, ops)
        if self.config.shared_experts:
            y = y + self.shared_mlp(flat, ops)
        return y.view_as(x), routes

    def _dropless(self, x: Tensor, routes: Routes, ops: Ops) -> Tensor:
        """Sort the (token, expert) pairs by expert, run, sum each token's results."""
        pairs = routes.expert.flatten()
        pair = pairs.argsort(stable=True)
        row = torch.empty_like(pair).scatter_(0, pair, torch.arange(len(pair), device=x.device))
        row = row.view(routes.expert.shape)
        x_sorted = gather_rows(x, pair // self.config.top_k, row, None)
        out = self.experts(x_sorted, pairs.bincount(minlength=self.config.experts), ops)
        return _combine(gather_rows(out, row.flatten(), pair[:, None], None), routes)

    def _with_capacity(
        self, x: Tensor, plan: Assignment, room: int, routes: Routes, ops: Ops
    ) -> Tensor:
        """Scatter into an equal number of slots per expert, run, gather; static shapes."""
        experts, k = self.config.experts, self.config.top_k
        total = experts * room
        # The choice that each slot serves; slot `total` takes what is dropped and is cut off. An
        # empty slot computes some token's state, which nothing reads and no gradient reaches.
        pair = plan.slot.new_zeros(total + 1)
        pair.scatter_(0, plan.slot, torch.arange(len(plan.slot), device=x.device))
        occupied = torch.zeros_like(pair, dtype=torch.bool).index_fill_(0, plan.slot, True)
        pair, occupied = pair[:total, None], occupied[:total, None]
        row = plan.slot.clamp(max=total - 1).view(-1, k)
        slots = gather_rows(x, pair[:, 0] // k, row, ~routes.dropped)
        out = self.experts.forward_slots(slots.view(experts, room, -1), ops)
        return _combine(gather_rows(out.flatten(0, 1), row.flatten(), pair, occupied), routes)


def _combine(out: Tensor, routes: Routes) -> Tensor:
    """Experts' results (N * k, D) in the order of the choices -> (N, D), weighted."""
    weight = routes.weight.to(out.dtype)
    return _sum_choices(out.view(*weight.shape, -1) * weight[..., None])


def _sum_choices(x: Tensor) -> Tensor:
    """(N, k, D) -> (N, D); with one choice there is nothing to add, nor to copy."""
    return x[:, 0] if x.shape[1] == 1 else x.sum(1)


class _GatherRows(torch.autograd.Function):
    """``x[index]``, whose gradient is a gather too.

    The gradient of plain indexing adds rows one by one, in case some repeat. Here the way back is
    known: `inverse` (rows of x, k) are the rows of the result that came from each row of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor, keep: Tensor | None) -> Tensor:
        ctx.save_for_backward(inverse, keep)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        inverse, keep = ctx.saved_tensors
        rows = grad.index_select(0, inverse.flatten()).view(*inverse.shape, -1)
        if keep is not None:
            rows = rows * keep[..., None]
        return _sum_choices(rows), None, None, None


def gather_rows(x: Tensor, index: Tensor, inverse: Tensor, keep: Tensor | None) -> Tensor:
    """``x[index]``: rows (R, D) at ``index`` (S,) -> (S, D).

    ``inverse`` (R, k): where in the result each row of x went, where ``keep`` (R, k) is true
    (None: everywhere). Other rows of the result must not be used: their gradients are ignored.
    """
    out: Tensor = _GatherRows.apply(x, index, inverse, keep)  # type: ignore[no-untyped-call]
    return out
