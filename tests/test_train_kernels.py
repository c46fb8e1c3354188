"""The compiled operations of training against the references of `hunyuan.model.ops`."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hunyuan.model import ops
from hunyuan.model.config import ModelConfig, Routing
from hunyuan.model.routing import draw_slot_keys
from hunyuan.model.transformer import Transformer, build, init_weights
from hunyuan.native.library import unavailable
from hunyuan.train import kernels

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no kernels: {unavailable()}")

BF16 = torch.bfloat16


def rounded(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).to(BF16)


def compare(
    fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor, bound: float = 0.02
) -> None:
    """Values and all gradients of both, relative to the largest; ``slow`` computes in float32.

    Where exact gradients cancel out, relative to what went in.
    """
    mine = [x.clone().requires_grad_() for x in inputs]
    theirs = [x.float().requires_grad_() for x in inputs]
    out, expected = fast(*mine), slow(*theirs)
    pull = rounded(*expected.shape, seed=9)
    out.backward(pull.to(out.dtype))
    expected.backward(pull.float())
    pairs = [(out, expected), *((a.grad, b.grad) for a, b in zip(mine, theirs, strict=True))]
    for found, wanted in pairs:
        assert found is not None
        assert wanted is not None
        assert (found.float() - wanted).abs().max() <= bound * max(float(wanted.abs().max()), 0.5)


@pytest.mark.parametrize("width", [16, 48, 512])
def test_rms_norm(width: int) -> None:
    native = kernels.native_ops(torch.zeros(1, 1, dtype=torch.int32))
    gain = torch.rand(width) + 0.5
    compare(
        lambda x, g: native.rms_norm(x, g.float(), 1e-5),
        lambda x, g: ops.rms_norm(x, g, 1e-5),
        rounded(3, 37, width),
        gain.to(BF16),
    )


def test_swiglu_survives_extreme_gates() -> None:
    native = kernels.native_ops(torch.zeros(1, 1, dtype=torch.int32))
    gate = rounded(5, 1040, scale=30)
    gate[0, :4] = torch.tensor([-1e30, 1e30, 0.0, -90.0])
    compare(native.swiglu, ops.swiglu, gate.clamp(-1e4, 1e4), rounded(5, 1040, seed=1))
    assert native.swiglu(gate, torch.ones_like(gate)).isfinite().all()


@pytest.mark.parametrize("eps", [None, 1e-5])
@pytest.mark.parametrize("with_gain", [False, True])
def test_rotate_unit(eps: float | None, with_gain: bool) -> None:
    if with_gain and eps is None:
        pytest.skip("a gain needs the normalisation")
    native = kernels.native_ops(torch.zeros(1, 1, dtype=torch.int32))
    angles = torch.rand(2, 7, 1, 16) * 6
    turn = (angles.cos(), angles.sin())
    x, gain = rounded(2, 7, 3, 32), (torch.rand(32) + 0.5).to(BF16)

    def run(of: ops.Ops) -> Callable[..., Tensor]:
        return lambda x, *g: of.rotate_unit(x, turn, eps, g[0].float() if g else None)

    compare(run(native), run(ops.REFERENCE), x, *([gain] if with_gain else []))


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_attention_keeps_documents_apart(data: st.DataObject) -> None:
    """Any lengths of documents, blocks of queries cut anywhere, shared key/value heads."""
    batch, tokens = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 300))
    kv_heads, share = data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([1, 3]))
    first = torch.zeros(batch, tokens, dtype=torch.int32)
    for row in first:
        for cut in sorted(data.draw(st.lists(st.integers(0, tokens - 1), max_size=4))):
            row[cut:] = cut
    at = torch.arange(tokens)
    mask = (at >= first[..., None]) & (at <= at[:, None])

    def slow(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [x.transpose(1, 2) for x in (q, k, v)]
        return F.scaled_dot_product_attention(
            *parts, attn_mask=mask[:, None], enable_gqa=True
        ).transpose(1, 2)

    compare(
        kernels.native_ops(first).attend,
        slow,
        rounded(batch, tokens, kv_heads * share, 32),
        rounded(batch, tokens, kv_heads, 32, seed=1),
        rounded(batch, tokens, kv_heads, 32, seed=2),
        bound=0.04,
    )


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_cross_entropy_leaves_out_what_has_no_target(dtype: torch.dtype) -> None:
    hidden, head = rounded(70, 32), rounded(1003, 32, scale=0.3, seed=1)
    targets = torch.randint(1003, (70,), generator=torch.Generator().manual_seed(3))
    targets[::3] = -1
    weights = torch.rand(70)

    def slow(h: Tensor, w: Tensor) -> Tensor:
        losses = F.cross_entropy(h @ w.T, targets, ignore_index=-1, reduction="none")
        return (losses * weights).sum()

    compare(
        lambda h, w: kernels.cross_entropy(h.to(dtype), w.to(dtype), targets, weights),
        slow,
        hidden,
        head,
    )


def small_moe(mode: str) -> Transformer:
    config = ModelConfig(
        **{"vocab": 128, "hidden": 64, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 32},
        **{"ffn": 48, "context": 128, "experts": 8, "shared_experts": 1, "cla_share": 2},
        **{"qk_norm": True, "tied": True},
        routing=Routing(mode=mode, capacity_group=64),
    )
    model = build(config, BF16).to_empty(device="cpu")
    init_weights(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.gate.wg.weight *= 20  # few near-ties, which rounding would decide
    return model


@pytest.mark.parametrize("mode", ["dropless", "capacity-drop", "capacity-recycle"])
def test_a_whole_model_has_the_references_gradients(mode: str) -> None:
    """One step of a MoE with shared K and V, kernels against references, in every routing mode."""
    model = small_moe(mode)
    ids = torch.randint(128, (2, 64), generator=torch.Generator().manual_seed(10))
    keys = draw_slot_keys(model.config, 128, torch.Generator().manual_seed(2))
    first = torch.zeros(2, 64, dtype=torch.int32)
    first[1, 20:] = 20

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        at = torch.arange(64)
        mask = (at >= first[..., None]) & (at <= at[:, None])
        parts = [x.transpose(1, 2) for x in (q, k, v)]
        return F.scaled_dot_product_attention(
            *parts, attn_mask=mask[:, None], enable_gqa=True
        ).transpose(1, 2)

    def gradients(of: ops.Ops, model: Transformer) -> tuple[dict[str, Tensor], Tensor]:
        hidden, routes = model.model(ids, slot_keys=keys, ops=of)
        (hidden.float() * rounded(64, seed=5).float()).sum().backward()
        found = {n: p.grad.float() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        return found, torch.stack([decided.choice for decided in routes])

    exact, choice = gradients(ops.Ops(attend=attend), deepcopy(model).float())
    slow, slow_choice = gradients(ops.Ops(attend=attend), model)
    fast, fast_choice = gradients(kernels.native_ops(first), model)
    same = torch.equal(choice, slow_choice) and torch.equal(choice, fast_choice)
    assert same, "rounding decided a near-tie of the router: choose another seed"
    assert fast.keys() == slow.keys() == exact.keys()

    def distance(of: dict[str, Tensor], names: list[str]) -> float:
        wanted = torch.cat([exact[n].flatten() for n in names])
        return float((torch.cat([of[n].flatten() for n in names]) - wanted).norm() / wanted.norm())

    assert distance(fast, [*exact]) < 1.2 * distance(slow, [*exact]), "farther than rounding"
    for name in exact:
        assert distance(fast, [name]) < 0.03, name


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    model = small_moe("capacity-recycle")
    ids = torch.randint(128, (2, 64), generator=torch.Generator().manual_seed(1))
    keys = draw_slot_keys(model.config, 128, torch.Generator().manual_seed(2))
    workers = kernels._workers()
    results = []
    for threads in (1, workers.threads):
        kernels._workers.cache_clear()
        kernels._workers().threads = threads
        model.zero_grad()
        hidden, _ = model.model(
            ids, slot_keys=keys, ops=kernels.native_ops(torch.zeros(2, 64, dtype=torch.int32))
        )
        hidden.float().square().sum().backward()
        results.append([hidden.detach(), *(p.grad.clone() for p in model.parameters())])
    kernels._workers.cache_clear()
    assert workers.parallel, "torch's OpenMP runtime was not found"
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
