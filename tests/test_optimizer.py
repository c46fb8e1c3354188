"""The optimiser: groups and rates, float32 masters behind bfloat16, the schedule, resuming."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hunyuan.errors import UsageError
from hunyuan.model.config import ModelConfig
from hunyuan.model.transformer import Transformer, build, init_weights
from hunyuan.train.lora import apply_lora
from hunyuan.train.lora_settings import LoraConfig
from hunyuan.train.optimizer import Average, Optimizer, expert_ratio, rate_at
from hunyuan.train.recipe import OptimizerSettings, ScheduleSettings

BF16 = torch.bfloat16
CONFIG = ModelConfig(
    **{"vocab": 64, "hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16},
    **{"ffn": 32, "context": 64, "experts": 4, "shared_experts": 1, "qk_norm": True},
)
SETTINGS = OptimizerSettings(learning_rate=1e-2)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Products this small gain nothing from a second thread, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(dtype: torch.dtype = torch.float32, config: ModelConfig = CONFIG) -> Transformer:
    made = build(config, dtype).to_empty(device="cpu")
    init_weights(made, torch.Generator().manual_seed(0))
    return made


def give_gradients(of: nn.Module, scale: float = 1.0, seed: int = 0) -> None:
    """A backward pass whose gradient of every weight is known noise."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(())
    for weight in of.parameters():
        if weight.requires_grad:
            noise = scale * torch.randn(weight.shape, generator=generator)
            total = total + (weight.float() * noise).sum()
    total.backward()


class One(nn.Module):
    """A single matrix."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(values)


# ---------------------------------------------------------------- groups and ratios


def test_a_group_for_each_kind_of_rate_and_decay() -> None:
    made = model(config=replace(CONFIG, qkv_bias=True))
    optimizer = Optimizer(made, SETTINGS, 0.25)
    groups = optimizer._adam.param_groups
    kinds = [(g["ratio"], g["weight_decay"]) for g in groups]
    assert sorted(kinds) == [(0.25, 0.1), (1.0, 0.0), (1.0, 0.1)]
    of = {id(p): (g["ratio"], g["weight_decay"]) for g in groups for p in g["params"]}
    for name, weight in made.named_parameters():
        expert = ".mlp.experts." in name
        vector = name.endswith(("norm.weight", ".bias"))
        assert of[id(weight)] == (0.25 if expert else 1.0, 0.0 if vector else 0.1), name
    assert len(of) == len(list(made.parameters()))


def test_adapters_of_experts_learn_at_the_experts_rate_and_nothing_else_learns() -> None:
    made = model()
    apply_lora(made, LoraConfig(rank=2, where=("attention", "experts")))
    optimizer = Optimizer(made, SETTINGS, 0.25)
    assert all("lora_" in one.name for one in optimizer.trained)
    of = {id(p): g["ratio"] for g in optimizer._adam.param_groups for p in g["params"]}
    ratios = {one.name: of[id(one.master)] for one in optimizer.trained}
    assert set(ratios.values()) == {0.25, 1.0}
    for name, ratio in ratios.items():
        assert ratio == (0.25 if ".experts." in name else 1.0)


@pytest.mark.parametrize(
    ("x", "ratio"), [(0.26, 0.31), (1.0, 0.47), (4.0, 1.0), (1e-9, 0.25), (61.5, 1 / 0.31)]
)
def test_the_ratio_from_the_noise_scale(x: float, ratio: float) -> None:
    """Specification, 11.3: values for 16 experts."""
    chosen = replace(SETTINGS, noise_scale=8192 / x)
    assert expert_ratio(chosen, 8192, 16) == pytest.approx(ratio, abs=0.006 * max(1, ratio))


def test_without_a_noise_scale_the_ratio_is_as_set() -> None:
    assert expert_ratio(SETTINGS, 8192, 16) == 0.31
    assert expert_ratio(replace(SETTINGS, expert_ratio=0.5), 8192, 16) == 0.5


def test_experts_move_by_the_ratio() -> None:
    """The first step of Adam is the rate itself, against the sign of the gradient."""
    made = model()
    before = deepcopy(made.state_dict())
    optimizer = Optimizer(made, replace(SETTINGS, weight_decay=0.0, clip=0.0), 0.25)
    give_gradients(made)
    optimizer.step(0.5)
    for name, weight in made.state_dict().items():
        moved = (weight - before[name]).abs().median()
        expected = 1e-2 * 0.5 * (0.25 if ".mlp.experts." in name else 1.0)
        assert float(moved) == pytest.approx(expected, rel=1e-2), name
    assert optimizer.rates(0.5) == (0.005, pytest.approx(0.00125))


def test_only_matrices_decay() -> None:
    made = model()
    optimizer = Optimizer(made, replace(SETTINGS, weight_decay=0.5), 1.0)
    before = deepcopy(made.state_dict())
    give_gradients(made, scale=0.0)
    optimizer.step(1.0)
    for name, weight in made.state_dict().items():
        factor = 1.0 if "norm" in name else 1 - 1e-2 * 0.5
        assert torch.allclose(weight, before[name] * factor, atol=1e-8), name


# ---------------------------------------------------------------- masters


def test_gradients_of_many_micro_batches_add_up_in_float32() -> None:
    """1 + 512 times 1/256 is 3; in bfloat16, where 1 + 1/256 is 1, it would stay 1."""
    made = One(torch.zeros(4, 4, dtype=BF16))
    optimizer = Optimizer(made, SETTINGS, 1.0)
    steps = [1.0, *[1 / 256] * 512]
    for size in steps:
        (made.weight.float() * size).sum().backward()
        assert made.weight.grad is None, "a second copy of the gradient is kept"
    (master,) = optimizer.masters
    assert master.grad is not None
    assert master.grad.dtype == torch.float32
    assert torch.equal(master.grad, torch.full((4, 4), 3.0))
    lossy = torch.zeros((), dtype=BF16)
    for size in steps:
        lossy += torch.tensor(size, dtype=BF16)
    assert float(lossy) == 1.0


def test_updates_too_small_for_bfloat16_are_not_lost() -> None:
    made = One(torch.ones(2, 2, dtype=BF16))
    chosen = replace(SETTINGS, learning_rate=1e-4, weight_decay=0.0)
    optimizer = Optimizer(made, chosen, 1.0)
    for _ in range(100):
        made.weight.float().sum().backward()
        optimizer.step(1.0)
    assert float(optimizer.masters[0].detach().mean()) == pytest.approx(0.99, abs=1e-4)
    assert torch.equal(made.weight, optimizer.masters[0].to(BF16))
    assert float(torch.ones((), dtype=BF16) - 1e-4) == 1.0, "each update alone rounds to nothing"


def losses_of(made: Transformer, optimizer: Optimizer, steps: int) -> list[float]:
    ids = torch.randint(64, (4, 24), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(steps):
        logits = made(ids)[:, :-1].flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, ids[:, 1:].flatten())
        loss.backward()
        optimizer.step(1.0)
        losses.append(float(loss.detach()))
    return losses


def test_bfloat16_with_masters_follows_float32() -> None:
    exact, rounded = model(), model(BF16)
    with torch.no_grad():
        for a, b in zip(exact.parameters(), rounded.parameters(), strict=True):
            a.copy_(b)
    wanted = losses_of(exact, Optimizer(exact, SETTINGS, 0.31), 25)
    found = losses_of(rounded, Optimizer(rounded, SETTINGS, 0.31), 25)
    assert wanted[-1] < wanted[0] - 1.5, "it learns"
    assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 0.1


def test_a_float32_weight_is_its_own_master() -> None:
    made = model(BF16)
    optimizer = Optimizer(made, SETTINGS, 1.0)
    for one in optimizer.trained:
        assert one.master.dtype == torch.float32
        assert (one.master is one.weight) == (one.weight.dtype == torch.float32)
    assert any(one.master is one.weight for one in optimizer.trained), "norms and routers"


# ---------------------------------------------------------------- clipping


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_clipping_divides_all_gradients_by_one_number(dtype: torch.dtype) -> None:
    """The step equals that of gradients which are shorter from the start; the norm is the true."""
    results = []
    for clip, scale in ((1.0, 64.0), (0.0, 64.0)):
        made = model(dtype)
        # The mean of squares starts at 0 and eps is large: the step keeps the gradient's size.
        chosen = replace(SETTINGS, clip=clip, eps=1e4, weight_decay=0.0, learning_rate=1e6)
        optimizer = Optimizer(made, chosen, 1.0)
        before = [m.detach().clone() for m in optimizer.masters]
        give_gradients(made, scale)
        norm = optimizer.step(1.0)
        moved = [(m - b).detach() for m, b in zip(optimizer.masters, before, strict=True)]
        results.append((norm, torch.cat([m.flatten() for m in moved])))
    (norm, clipped), (plain_norm, plain) = results
    assert norm == pytest.approx(plain_norm, rel=1e-6)
    assert norm > 1000
    assert torch.allclose(clipped, plain / norm, rtol=0.1, atol=1e-6 * float(clipped.abs().max()))


def test_a_norm_below_the_limit_is_left_alone() -> None:
    moved = []
    for clip in (0.0, 1e9):
        made = model()
        give_gradients(made)
        Optimizer(made, replace(SETTINGS, clip=clip), 1.0).step(1.0)
        moved.append(torch.cat([w.detach().flatten() for w in made.parameters()]))
    assert torch.equal(*moved)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_no_number_changes_nothing(dtype: torch.dtype, bad: float) -> None:
    made = model(dtype)
    optimizer = Optimizer(made, SETTINGS, 0.31)
    give_gradients(made)
    optimizer.step(1.0)
    before = {name: t.detach().clone() for name, t in optimizer.tensors()}
    weights = deepcopy(made.state_dict())
    give_gradients(made, seed=1)
    grad = optimizer.masters[3].grad
    assert grad is not None
    grad.view(-1)[0] = bad
    assert not math.isfinite(optimizer.step(1.0))
    after = dict(optimizer.tensors())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(weights[n], w) for n, w in made.state_dict().items())
    assert all(m.grad is None for m in optimizer.masters), "the next step starts afresh"


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_restored_it_goes_on_to_the_bit(dtype: torch.dtype) -> None:
    whole = model(dtype)
    optimizer = Optimizer(whole, SETTINGS, 0.31)
    losses_of(whole, optimizer, 3)
    kept = {name: tensor.detach().clone() for name, tensor in optimizer.tensors()}
    trained = len(optimizer.trained)
    assert len(kept) == 4 * trained, "master, two moments and the count of each"
    wanted = losses_of(whole, optimizer, 3)
    fresh = model(dtype)
    resumed = Optimizer(fresh, SETTINGS, 0.31)
    resumed.restore(kept)
    assert losses_of(fresh, resumed, 3) == wanted
    for a, b in zip(whole.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_other_parameters_is_refused() -> None:
    made = model()
    optimizer = Optimizer(made, SETTINGS, 0.31)
    kept = dict(optimizer.tensors())
    name = "model.layers.0.self_attn.q_proj.weight"
    for broken in (
        {n: t for n, t in kept.items() if n != f"master.{name}"},
        kept | {f"master.{name}": torch.zeros(3, 3)},
    ):
        with pytest.raises(UsageError, match=f"{name}: is trained in another shape or not at all"):
            optimizer.restore(broken)


# ---------------------------------------------------------------- the schedule


def schedule(**values: Any) -> ScheduleSettings:
    return ScheduleSettings(
        **({"tokens": 1, "warmup": 0.1, "decay_to": 0.3, "anneal": 0.05, "final": 0.1} | values)
    )


@pytest.mark.parametrize(
    ("decay", "half", "at_95"), [("cosine", 0.65, 0.3), ("linear", 0.65, 0.3), ("constant", 1, 1)]
)
def test_the_rate_at_the_turning_points(decay: Any, half: float, at_95: float) -> None:
    s = schedule(decay=decay)
    assert rate_at(s, 0.0) == 0.0
    assert rate_at(s, 0.05) == pytest.approx(0.5)
    assert rate_at(s, 0.1) == 1.0
    assert rate_at(s, 0.525) == pytest.approx(half), "half-way between warm-up and annealing"
    assert rate_at(s, 0.95 - 1e-9) == pytest.approx(at_95, abs=1e-6)
    assert rate_at(s, 0.95) == pytest.approx(at_95)
    assert rate_at(s, 0.975) == pytest.approx((at_95 + 0.1) / 2)
    assert rate_at(s, 1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_without_annealing_the_decay_goes_to_the_final_rate(decay: Any) -> None:
    s = schedule(decay=decay, anneal=0.0)
    assert rate_at(s, 1.0) == pytest.approx(0.1)
    assert rate_at(s, 0.95) > 0.1
    quarter = 0.1 + 0.9 * (0.5 + math.sqrt(0.5) / 2 if decay == "cosine" else 0.75)
    assert rate_at(s, 0.1 + 0.9 / 4) == pytest.approx(quarter)
    assert rate_at(schedule(decay="constant", anneal=0.0), 1.0) == 1.0


def test_without_warm_up_it_begins_at_the_peak() -> None:
    assert rate_at(schedule(warmup=0.0), 0.0) == 1.0


SHARES = st.floats(0, 1)


@settings(deadline=None, max_examples=200)
@given(
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    SHARES,
    SHARES,
    st.sampled_from(["cosine", "linear", "constant"]),
    SHARES,
    SHARES,
)
def test_the_rate_rises_then_falls_and_stays_within_its_bounds(
    warmup: float, anneal: float, to: float, final: float, decay: Any, a: float, b: float
) -> None:
    s = schedule(warmup=warmup, anneal=anneal, decay_to=to, final=min(final, to), decay=decay)
    a, b = sorted((a, b))
    first, second = rate_at(s, a), rate_at(s, b)
    assert min(first, second) >= 0
    assert max(first, second) <= 1
    if b < warmup:
        assert first <= second
    if a >= warmup:
        assert second <= first + 1e-9


# ---------------------------------------------------------------- the moving average


def test_the_average_is_the_weighted_sum_of_what_was() -> None:
    master = torch.zeros(3)
    average = Average([master], 0.9)
    history: Sequence[float] = (1.0, 2.0, -4.0, 8.0)
    for value in history:
        master.fill_(value)
        average.update()
    n = len(history)
    expected = sum(0.1 * 0.9 ** (n - 1 - i) * value for i, value in enumerate(history))
    assert torch.allclose(average.values[0], torch.full((3,), expected))
