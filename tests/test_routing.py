"""Gate, capacity, recycling and balance loss, against slow references and as properties."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.errors import UsageError
from hunyuan.model.config import Routing, preset
from hunyuan.model.moe import MoE
from hunyuan.model.routing import (
    Routes,
    assign_slots,
    balance_loss,
    capacity,
    choose,
    draw_slot_keys,
)
from hunyuan.model.transformer import Transformer

MakeModel = Callable[..., Transformer]


def slow_plan(
    choice: list[int], experts: int, room: int, keys: list[float] | None
) -> list[int | None]:
    """The rule of specification 8.5, one token at a time."""
    taken: list[int] = [0] * experts
    slots: list[int | None] = []
    for expert in choice:
        slots.append(expert * room + taken[expert] if taken[expert] < room else None)
        taken[expert] += taken[expert] < room
    if keys is None:
        return slots
    used = {s for s in slots if s is not None}
    order = sorted((s for s in range(experts * room) if s not in used), key=lambda s: keys[s])
    for place, slot in enumerate(slots):
        if slot is None and order:
            slots[place] = order.pop(0)
    return slots


plans = st.integers(1, 9).flatmap(
    lambda experts: st.tuples(
        st.just(experts),
        st.lists(st.integers(0, experts - 1), min_size=1, max_size=60),
        st.integers(1, 12),
        st.integers(0, 2**31),
    )
)


@settings(max_examples=150, deadline=None)
@given(plans, st.booleans())
def test_plans_equal_the_slow_reference(
    plan: tuple[int, list[int], int, int], recycle: bool
) -> None:
    experts, choice, room, seed = plan
    keys = torch.rand(experts * room, generator=torch.Generator().manual_seed(seed))
    found = assign_slots(torch.tensor(choice), experts, room, keys if recycle else None)
    expected = slow_plan(choice, experts, room, keys.tolist() if recycle else None)
    dropped = experts * room
    assert found.slot.tolist() == [dropped if s is None else s for s in expected]
    assert found.dropped.tolist() == [s is None for s in expected]


@settings(max_examples=150, deadline=None)
@given(plans)
def test_recycling_keeps_its_promises(plan: tuple[int, list[int], int, int]) -> None:
    experts, choice, room, seed = plan
    keys = torch.rand(experts * room, generator=torch.Generator().manual_seed(seed))
    found = assign_slots(torch.tensor(choice), experts, room, keys)
    kept = found.slot[~found.dropped].tolist()
    assert len(set(kept)) == len(kept), "two choices share a slot"
    assert max(Counter(s // room for s in kept).values(), default=0) <= room
    assert int(found.dropped.sum()) == max(0, len(choice) - experts * room)
    for place in found.recycled.nonzero().flatten().tolist():
        assert int(found.slot[place]) // room != choice[place], "recycled to the full expert"
    again = assign_slots(torch.tensor(choice), experts, room, keys)
    assert torch.equal(found.slot, again.slot)


@pytest.mark.parametrize("factor", [1.0, 1.25, 2.0])
def test_nothing_is_dropped_at_a_factor_of_one_or_more(factor: float) -> None:
    config = replace(
        preset("tiny"), routing=Routing(mode="capacity-recycle", capacity_factor=factor)
    )
    for tokens in (1, 7, 64, 333):
        room = capacity(config.routing, tokens, config)
        collapsed = torch.zeros(tokens, dtype=torch.int64)
        keys = torch.rand(16 * room, generator=torch.Generator().manual_seed(tokens))
        assert not assign_slots(collapsed, 16, room, keys).dropped.any()


def test_capacity_rounds_up_exactly() -> None:
    """ceil(factor * k * G / E), not one more where floating point lies a little above."""
    config = replace(preset("tiny"), experts=10)
    for factor, tokens, slots in ((1.1, 100, 11), (1.0, 100, 10), (1.0, 101, 11), (0.3, 100, 3)):
        assert capacity(Routing(capacity_factor=factor), tokens, config) == slots


def test_overflow_spreads_in_proportion_to_free_room() -> None:
    """All tokens want expert 0; over many seeds every free slot is taken equally often."""
    experts, room, tokens, draws = 8, 8, 40, 3000
    counts = torch.zeros(experts * room)
    choice = torch.zeros(tokens, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(draws):
        keys = torch.rand(experts * room, generator=generator)
        plan = assign_slots(choice, experts, room, keys)
        counts[plan.slot[plan.recycled]] += 1
    assert counts[:room].sum() == 0
    share = counts[room:] / draws  # 32 recycled tokens on 56 free slots
    expected = 32 / 56
    five_sigma = 5 * (expected * (1 - expected) / draws) ** 0.5
    assert (share - expected).abs().max() < five_sigma


def test_plan_is_the_same_compiled() -> None:
    compiled = torch.compile(assign_slots, fullgraph=True, backend="aot_eager")
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        choice = torch.randint(16, (64,), generator=generator).square() // 16
        keys = torch.rand(16 * 4, generator=generator)
        eager, fast = assign_slots(choice, 16, 4, keys), compiled(choice, 16, 4, keys)
        for a, b in zip(eager, fast, strict=True):
            assert torch.equal(a, b)


# ---------------------------------------------------------------- the gate


def test_top_1_weight_is_the_raw_probability() -> None:
    logits = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    probabilities, expert, weight = choose(logits, 1, normalise=False)
    assert torch.equal(expert[:, 0], logits.argmax(-1))
    assert torch.equal(weight[:, 0], probabilities.max(-1).values)
    assert (weight < 1).all()


def test_renormalised_top_1_weight_is_exactly_one() -> None:
    logits = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    _, _, weight = choose(logits, 1, normalise=True)
    assert (weight == 1).all()


# ---------------------------------------------------------------- the layer in each mode


def slow_layer(moe: MoE, x: torch.Tensor, slots: list[int | None], room: int) -> torch.Tensor:
    """What a capacity layer computes, token by token, from a plan."""
    probabilities = moe.gate(x).softmax(-1)
    bank = moe.experts
    rows = []
    for t, slot in enumerate(slots):
        y = moe.shared_mlp(x[t : t + 1])
        if slot is not None:
            e = slot // room
            h = torch.nn.functional.silu(x[t : t + 1] @ bank.gate_proj[e].T)
            h = h * (x[t : t + 1] @ bank.up_proj[e].T)
            y = y + probabilities[t, e] * (h @ bank.down_proj[e].T)
        rows.append(y)
    return torch.cat(rows)


@pytest.mark.parametrize("mode", ["capacity-drop", "capacity-recycle"])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_capacity_layers_equal_the_slow_reference(
    random_model: MakeModel, mode: str, factor: float
) -> None:
    routing = Routing(mode=mode, capacity_factor=factor, capacity_group=24)
    model = random_model(routing=routing)
    moe = model.model.layers[0].mlp
    x = torch.randn(2, 27, 80, generator=torch.Generator().manual_seed(1)) + 0.5
    keys = draw_slot_keys(model.config, 54, torch.Generator().manual_seed(2))[0]
    with torch.no_grad():
        y, routes = moe(x, keys)
        flat, at, expected = x.view(54, 80), 0, []
        for start in (0, 24, 48):  # groups of 24, 24 and 6 tokens
            rows = flat[start : start + 24]
            room = capacity(routing, len(rows), model.config)
            choice = moe.gate(rows).argmax(-1).tolist()
            group_keys = keys[at : at + 16 * room].tolist() if mode.endswith("recycle") else None
            at += 16 * room
            expected.append(slow_layer(moe, rows, slow_plan(choice, 16, room, group_keys), room))
    assert routes.dropped.any() == (mode == "capacity-drop" or factor < 1)
    assert routes.recycled.any() == (mode == "capacity-recycle")
    assert (y.view(54, 80) - torch.cat(expected)).abs().max() < 1e-5
    moved = routes.recycled[:, 0]
    own = routes.probabilities.gather(1, routes.expert.clamp(max=15))[:, 0]
    assert torch.equal(routes.weight[moved, 0], own[moved])


def test_capacity_without_overflow_is_dropless(random_model: MakeModel) -> None:
    """With room for every token in every expert the three modes are one model."""
    dropless = random_model()
    ids = torch.randint(384, (2, 20), generator=torch.Generator().manual_seed(0))
    for mode in ("capacity-drop", "capacity-recycle"):
        model = random_model(routing=Routing(mode=mode, capacity_factor=16))
        keys = draw_slot_keys(model.config, 40)
        with torch.no_grad():
            assert (model(ids, slot_keys=keys) - dropless(ids)).abs().max() < 1e-4


def test_recycling_is_deterministic_and_replayable(random_model: MakeModel) -> None:
    model = random_model(routing=Routing(mode="capacity-recycle"))
    ids = torch.randint(384, (2, 20), generator=torch.Generator().manual_seed(0))

    def run(seed: int) -> torch.Tensor:
        keys = draw_slot_keys(model.config, 40, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return model(ids, slot_keys=keys)

    assert torch.equal(run(5), run(5))
    assert not torch.equal(run(5), run(6))


def test_dropless_does_not_depend_on_the_rest_of_the_batch(random_model: MakeModel) -> None:
    moe = random_model(top_k=2, norm_topk_prob=True).model.layers[0].mlp
    x = torch.randn(1, 40, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, _ = moe(x)
        for t in random.Random(0).sample(range(40), 10):
            alone, _ = moe(x[:, t : t + 1])
            assert (alone - whole[:, t : t + 1]).abs().max() < 1e-5


def test_capacity_drop_with_several_choices_a_token(random_model: MakeModel) -> None:
    """A13B's released behaviour: top-8-like routing in which full experts drop choices."""
    routing = Routing(mode="capacity-drop", capacity_factor=1.0, capacity_group=64)
    model = random_model(top_k=4, norm_topk_prob=True, routing=routing)
    x = torch.randn(1, 64, 80, generator=torch.Generator().manual_seed(1)) + 0.5
    with torch.no_grad():
        _, routes = model.model.layers[0].mlp(x)
    assert routes.dropped.any()
    ran = routes.expert[~routes.dropped]
    assert ran.bincount(minlength=16).max() <= 16
    assert (routes.weight[routes.dropped] == 0).all()


def test_recycle_with_several_choices_is_refused() -> None:
    with pytest.raises(UsageError, match="capacity-recycle is defined for top_k=1, not top_k=2"):
        replace(preset("tiny"), top_k=2, routing=Routing(mode="capacity-recycle"))


# ---------------------------------------------------------------- balance loss


def routes_of(logits: torch.Tensor, top_k: int = 1) -> Routes:
    probabilities, choice, weight = choose(logits, top_k, normalise=False)
    never = torch.zeros_like(choice, dtype=torch.bool)
    return Routes(probabilities.log(), probabilities, choice, choice, weight, never, never)


def test_balance_loss_of_known_routers() -> None:
    even = torch.eye(16).repeat(4, 1) * 1e-3  # as good as uniform, each expert equally often
    assert balance_loss(routes_of(even)).item() == pytest.approx(1, abs=1e-3)
    collapsed = torch.full((64, 16), -50.0)
    collapsed[:, 3] = 50
    assert balance_loss(routes_of(collapsed)).item() == pytest.approx(16)
    half = torch.full((64, 16), -50.0)
    half[torch.arange(64), torch.arange(64) % 8] = 50
    assert balance_loss(routes_of(half)).item() == pytest.approx(2)


def test_balance_loss_reaches_the_router(random_model: MakeModel) -> None:
    model = random_model()
    _, routes = model.model(torch.arange(40)[None])
    sum(balance_loss(r) for r in routes).backward()
    for layer in model.model.layers:
        assert layer.mlp.gate.wg.weight.grad.abs().max() > 0
