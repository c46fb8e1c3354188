"""Which expert takes which token: the gate's choice, capacity, recycling, the balance loss.

Everything here is a pure function of tensors with static shapes and no host synchronisation, so it
compiles full-graph, replays under activation recomputation and can be tested alone. Randomness is
an input (`slot_keys`), never drawn inside.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hunyuan.model.config import ModelConfig, Routing


class Routes(NamedTuple):
    """What one MoE layer decided for its N tokens; statistics and losses are made of this."""

    logits: Tensor
    """(N, E) float32: what the gate computed; gradients flow through it."""

    probabilities: Tensor
    """(N, E) float32: softmax over all experts; gradients flow through it."""

    choice: Tensor
    """(N, k) int64: the gate's experts, before any capacity."""

    expert: Tensor
    """(N, k) int64: the experts that ran, E where none did."""

    weight: Tensor
    """(N, k) float32: factor of each expert's output, 0 where none ran."""

    recycled: Tensor
    """(N, k) bool: moved to a free slot of another expert."""

    dropped: Tensor
    """(N, k) bool: ran on no routed expert."""


class Assignment(NamedTuple):
    """Slots for M choices: the G * k of one capacity group, or those of several groups."""

    slot: Tensor
    """(M,) int64: expert * slots per expert + place; the number of all slots means dropped."""

    recycled: Tensor
    """(M,) bool."""

    dropped: Tensor
    """(M,) bool."""


def choose(logits: Tensor, top_k: int, normalise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gate: probabilities (N, E), chosen experts (N, k) and their weights (N, k), all float32.

    Top-1 weights are the raw softmax probability unless ``normalise``; dividing them by their sum
    would turn each into 1 and Hunyuan-Large into another model (specification, section 8.1).
    """
    probabilities = logits.float().softmax(-1)
    weight, expert = probabilities.topk(top_k, dim=-1)
    if normalise:
        weight = weight / weight.sum(-1, keepdim=True)
    return probabilities, expert, weight


def capacity(routing: Routing, tokens: int, config: ModelConfig) -> int:
    """Slots per expert for a group of ``tokens``: ceil(factor * k * tokens / E)."""
    numerator, denominator = routing.exact_factor
    share = numerator * config.top_k * tokens
    return max(1, -(-share // (denominator * config.experts)))


def group_rooms(config: ModelConfig, tokens: int) -> list[int]:
    """Slots per expert of each capacity group, for ``tokens`` routed in groups one by one."""
    group = config.routing.capacity_group
    starts = range(0, tokens, group)
    return [capacity(config.routing, min(group, tokens - start), config) for start in starts]


def draw_slot_keys(
    config: ModelConfig, tokens: int, generator: torch.Generator | None = None
) -> Tensor:
    """(L, slots) float32 in [0, 1): the random order of free slots for one forward pass.

    Drawn outside the layers, once, so that recomputation and resume replay the same routing.
    """
    slots = sum(group_rooms(config, tokens)) * config.experts
    return torch.rand(config.layers, slots, generator=generator)


def assign_slots(
    choice: Tensor, experts: int, slots_per_expert: int, slot_keys: Tensor | None
) -> Assignment:
    """Give each of M choices (token order) a slot of its expert, or recycle, or drop.

    A choice takes the next free slot of its expert. The j-th choice that finds none takes the j-th
    slot of a random permutation of *all* free slots - ``slot_keys`` (E * capacity,) give the
    permutation - or, with ``slot_keys`` None, is dropped. Permuting slots rather than experts
    spreads the overflow in proportion to free room. With at least M slots in all, nothing is ever
    dropped by recycling, and a recycled choice always lands on another expert, because its own is
    full. Source: paper section 2.2.3 for capacity, specification section 8.5 for the rule.
    """
    total = experts * slots_per_expert
    one_hot = choice[:, None] == torch.arange(experts, device=choice.device)
    place = ((one_hot.cumsum(0) - 1) * one_hot).sum(-1)
    fits = place < slots_per_expert
    slot = torch.where(fits, choice * slots_per_expert + place, total)
    if slot_keys is None:
        return Assignment(slot, torch.zeros_like(fits), ~fits)
    used = one_hot.sum(0).clamp(max=slots_per_expert)
    taken = torch.arange(slots_per_expert, device=choice.device) < used[:, None]
    free_first = torch.where(taken.flatten(), torch.inf, slot_keys).argsort(stable=True)
    free = total - used.sum()
    rank = (~fits).cumsum(0) - 1
    recycled = ~fits & (rank < free)
    slot = torch.where(recycled, free_first[rank.clamp(0, total - 1)], slot)
    return Assignment(slot, recycled, ~fits & ~recycled)


def assign_groups(config: ModelConfig, choice: Tensor, slot_keys: Tensor | None) -> Assignment:
    """Slots for the choices (N, k) of all tokens; every capacity group competes by itself.

    Groups are consecutive tokens, the last maybe fewer. An expert's slots of all groups lie side
    by side, so that it runs once. ``slot_keys`` (slots,), one row of `draw_slot_keys`, is for mode
    capacity-recycle, which raises `ValueError` without it; capacity-drop ignores it.
    """
    recycle = config.routing.mode == "capacity-recycle"
    if recycle and slot_keys is None:
        raise ValueError("capacity-recycle needs slot_keys; see draw_slot_keys")
    groups = torch.split(choice, config.routing.capacity_group)
    rooms = group_rooms(config, len(choice))
    total = sum(rooms) * config.experts
    slots, recycled, dropped = [], [], []
    before = 0
    for group, room in zip(groups, rooms, strict=True):
        keys = None
        if recycle and slot_keys is not None:
            keys = slot_keys[before * config.experts : (before + room) * config.experts]
        plan = assign_slots(group.flatten(), config.experts, room, keys)
        there = plan.slot // room * sum(rooms) + before + plan.slot % room
        slots.append(torch.where(plan.dropped, total, there))
        recycled.append(plan.recycled)
        dropped.append(plan.dropped)
        before += room
    return Assignment(torch.cat(slots), torch.cat(recycled), torch.cat(dropped))


def routes_of(
    plan: Assignment,
    room: int,
    logits: Tensor,
    probabilities: Tensor,
    choice: Tensor,
    weight: Tensor,
) -> Routes:
    """What the choices (N, k) and their weights became; ``room`` slots per expert in all."""
    experts, shape = probabilities.shape[-1], choice.shape
    expert = (plan.slot // room).view(shape)
    recycled, dropped = plan.recycled.view(shape), plan.dropped.view(shape)
    # A recycled token is weighted by its own probability for the expert it came to.
    own = probabilities.gather(1, expert.clamp(max=experts - 1))
    kept = torch.where(recycled, own, weight).masked_fill(dropped, 0)
    return Routes(logits, probabilities, choice, expert, kept, recycled, dropped)


def balance_loss(routes: Routes) -> Tensor:
    """Switch balance loss of one layer: E * sum_e mean(p_e) * share of choices on e; a scalar.

    1 for a uniform router, E for a collapsed one; uses the choice before capacity
    (specification, section 8.2).
    """
    experts = routes.probabilities.shape[-1]
    one_hot = routes.choice.flatten()[:, None] == torch.arange(experts, device=routes.choice.device)
    return experts * (routes.probabilities.mean(0) * one_hot.float().mean(0)).sum()
