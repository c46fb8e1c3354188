"""Mixture of experts: route, gather tokens by expert, run the experts, scatter back.

Experts are stacked tensors in one module, `ExpertBank`: the part that a quantised, an offloaded or
an expert-parallel bank replaces. It is given tokens already grouped by expert and knows nothing
of gates, weights or capacity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunyuan.model.config import ModelConfig
from hunyuan.model.layers import MLP
from hunyuan.model.routing import Routes, assign_slots, capacity, choose


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

    def forward(self, x_sorted: Tensor, counts: Tensor) -> Tensor:
        """Ragged groups: rows (M, D) in expert order, ``counts`` (E,) rows each -> (M, D).

        Reads only the weights of experts that have rows. On a CPU a loop over split rows beats
        the grouped matrix product.
        """
        outputs = []
        start = 0
        for expert, count in enumerate(counts.tolist()):
            if count:
                x = x_sorted[start : start + count]
                inner = F.silu(x @ self.gate_proj[expert].T) * (x @ self.up_proj[expert].T)
                outputs.append(inner @ self.down_proj[expert].T)
                start += count
        return torch.cat(outputs) if outputs else x_sorted

    def forward_slots(self, x_slots: Tensor) -> Tensor:
        """Equal groups: (E, capacity, D) -> (E, capacity, D), static shapes."""
        inner = F.silu(torch.bmm(x_slots, self.gate_proj.mT))
        return torch.bmm(inner * torch.bmm(x_slots, self.up_proj.mT), self.down_proj.mT)


class MoE(nn.Module):
    """y = shared expert(x) + sum of weight * routed expert(x)  (specification, section 3.4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gate = Gate(config)
        self.experts = ExpertBank(config)
        if config.shared_experts:
            self.shared_mlp = MLP(config.hidden, config.ffn * config.shared_experts)

    def forward(self, x: Tensor, slot_keys: Tensor | None = None) -> tuple[Tensor, Routes]:
        """(B, T, D) -> (B, T, D) and what was decided. ``slot_keys``: see `assign_slots`."""
        flat = x.flatten(0, 1)
        probabilities, choice, weight = choose(
            self.gate(flat), self.config.top_k, self.config.norm_topk_prob
        )
        if self.config.routing.mode == "dropless":
            never = torch.zeros_like(choice, dtype=torch.bool)
            routes = Routes(probabilities, choice, choice, weight, never, never)
            y = self._dropless(flat, choice, weight)
        else:
            y, routes = self._with_capacity(flat, probabilities, choice, weight, slot_keys)
        if self.config.shared_experts:
            y = y + self.shared_mlp(flat)
        return y.view_as(x), routes

    def _dropless(self, x: Tensor, expert: Tensor, weight: Tensor) -> Tensor:
        """Sort the (token, expert) pairs by expert, run, add each result to its token."""
        k = self.config.top_k
        pairs = expert.flatten()
        order = pairs.argsort(stable=True)
        token = order // k
        out = self.experts(x[token], pairs.bincount(minlength=self.config.experts))
        out = out * weight.flatten()[order, None].to(x.dtype)
        return torch.zeros_like(x).index_add_(0, token, out)

    def _with_capacity(
        self,
        x: Tensor,
        probabilities: Tensor,
        choice: Tensor,
        weight: Tensor,
        slot_keys: Tensor | None,
    ) -> tuple[Tensor, Routes]:
        """Capacity modes, one group of tokens at a time; the last group may be smaller."""
        group = self.config.routing.capacity_group
        outputs, decided = [], []
        used = 0
        for parts in zip(
            torch.split(x, group),
            torch.split(probabilities, group),
            torch.split(choice, group),
            torch.split(weight, group),
            strict=True,
        ):
            room = capacity(self.config.routing, len(parts[0]), self.config)
            keys = None
            if self.config.routing.mode == "capacity-recycle":
                if slot_keys is None:
                    raise ValueError("capacity-recycle needs slot_keys; see draw_slot_keys")
                keys = slot_keys[used : used + room * self.config.experts]
                used += len(keys)
            out, routes = self._run_group(*parts, room, keys)
            outputs.append(out)
            decided.append(routes)
        return torch.cat(outputs), Routes(*map(torch.cat, zip(*decided, strict=True)))

    def _run_group(
        self,
        x: Tensor,
        probabilities: Tensor,
        choice: Tensor,
        weight: Tensor,
        room: int,
        keys: Tensor | None,
    ) -> tuple[Tensor, Routes]:
        """One capacity group (G, D): scatter into ``room`` slots an expert, run, gather."""
        tokens, k = choice.shape
        total = room * self.config.experts
        plan = assign_slots(choice.flatten(), self.config.experts, room, keys)
        token = torch.arange(tokens, device=x.device).repeat_interleave(k)
        # Row `total` takes what is dropped and is cut off.
        slots = x.new_zeros(total + 1, x.shape[1]).index_copy(0, plan.slot, x[token])
        out = self.experts.forward_slots(slots[:total].view(self.config.experts, room, -1))
        out = F.pad(out.reshape(total, -1), (0, 0, 0, 1))[plan.slot]
        expert = plan.slot // room
        # A recycled token is weighted by its own probability for the expert it came to.
        own = F.pad(probabilities, (0, 1))[token, expert]
        kept = torch.where(plan.recycled, own, weight.flatten()).masked_fill(plan.dropped, 0)
        y = (out * kept[:, None].to(x.dtype)).view(tokens, k, -1).sum(1)
        shape = (tokens, k)
        return y, Routes(
            probabilities,
            choice,
            expert.view(shape),
            kept.view(shape),
            plan.recycled.view(shape),
            plan.dropped.view(shape),
        )
