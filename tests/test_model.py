"""The decoder against a slow literal reference, and against itself."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hunyuan.errors import UsageError
from hunyuan.model.config import (
    Llama3Scaling,
    ModelConfig,
    Rope,
    config_from_dict,
    preset,
    presets,
)
from hunyuan.model.rope import inverse_frequencies
from hunyuan.model.transformer import Transformer, build

MakeModel = Callable[..., Transformer]


# ---------------------------------------------------------------- the reference
#
# Written literally from the specification: per layer, per head, per token; each layer has its own
# finished keys, as in the released model; nothing is shared, folded or batched.


def reference_logits(model: Transformer, ids: list[int]) -> Tensor:
    c = model.config
    w = {name: p.double() for name, p in model.state_dict().items()}
    base = c.rope.theta
    if c.rope.alpha is not None:
        base *= c.rope.alpha ** (c.head_dim / (c.head_dim - 2))
    x = w["model.embed_tokens.weight"][torch.tensor(ids)]
    k_raw = v = None
    for i in range(c.layers):
        p = f"model.layers.{i}."
        h = norm(x, w[p + "input_layernorm.weight"], c.norm_eps)

        def project(name: str, h: Tensor = h, p: str = p) -> Tensor:
            y = h @ w[f"{p}self_attn.{name}.weight"].T
            return y + w.get(f"{p}self_attn.{name}.bias", 0)

        q = project("q_proj").view(len(ids), c.heads, c.head_dim)
        if i % c.cla_share == 0:
            k_raw = project("k_proj").view(len(ids), c.kv_heads, c.head_dim)
            v = project("v_proj").view(len(ids), c.kv_heads, c.head_dim)
        q, k = turn(q, base), turn(k_raw, base)
        if c.qk_norm:
            q = norm(q, w[p + "self_attn.query_layernorm.weight"], c.norm_eps)
            k = norm(k, w[p + "self_attn.key_layernorm.weight"], c.norm_eps)
        heads = []
        for head in range(c.heads):
            group = head // (c.heads // c.kv_heads)
            rows = []
            for t in range(len(ids)):
                scores = (k[: t + 1, group] @ q[t, head]) / math.sqrt(c.head_dim)
                rows.append(scores.softmax(0) @ v[: t + 1, group])
            heads.append(torch.stack(rows))
        attended = torch.cat(heads, -1) @ w[p + "self_attn.o_proj.weight"].T
        x = x + attended + w.get(p + "self_attn.o_proj.bias", 0)
        h = norm(x, w[p + "post_attention_layernorm.weight"], c.norm_eps)
        x = x + feed_forward(c, w, p + "mlp.", h)
    x = norm(x, w["model.norm.weight"], c.norm_eps)
    return x @ w["model.embed_tokens.weight" if c.tied else "lm_head.weight"].T


def feed_forward(c: ModelConfig, w: dict[str, Tensor], p: str, h: Tensor) -> Tensor:
    def mlp(h: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        g = h @ gate.T
        return (g * torch.sigmoid(g) * (h @ up.T)) @ down.T

    names = [f"{n}_proj" for n in ("gate", "up", "down")]
    if not c.experts:
        return mlp(h, *(w[f"{p}{n}.weight"] for n in names))
    out = torch.zeros_like(h)
    for t in range(len(h)):
        probabilities = (w[p + "gate.wg.weight"] @ h[t]).softmax(0)
        best = probabilities.argsort(descending=True)[: c.top_k]
        total = probabilities[best].sum() if c.norm_topk_prob else 1
        for e in best:
            expert = mlp(h[t], *(w[f"{p}experts.{n}"][e] for n in names))
            out[t] += probabilities[e] / total * expert
    if c.shared_experts:
        out += mlp(h, *(w[f"{p}shared_mlp.{n}.weight"] for n in names))
    return out


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def turn(x: Tensor, base: float) -> Tensor:
    half = x.shape[-1] // 2
    out = torch.empty_like(x)
    for t in range(len(x)):
        for j in range(half):
            angle = t * base ** (-2 * j / x.shape[-1])
            a, b = x[t, :, j], x[t, :, j + half]
            out[t, :, j] = a * math.cos(angle) - b * math.sin(angle)
            out[t, :, j + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


VARIANTS = {
    "large": {},
    "share 1": {"cla_share": 1},
    "share 4": {"cla_share": 4},
    "5 layers, share 2": {"layers": 5},
    "3 layers, share 4": {"layers": 3, "cla_share": 4},
    "no qk norm": {"qk_norm": False},
    "dense": {"experts": 0, "shared_experts": 0},
    "dense, biases, untied": {
        "experts": 0,
        "shared_experts": 0,
        "qkv_bias": True,
        "output_bias": True,
        "tied": False,
        "qk_norm": False,
        "cla_share": 1,
    },
    "qkv bias under sharing": {"qkv_bias": True},
    "head width apart": {"head_dim": 12},
    "top 4, renormalised, 2 shared": {"top_k": 4, "norm_topk_prob": True, "shared_experts": 2},
    "top 2, raw weights, none shared": {"top_k": 2, "shared_experts": 0},
    "multi-query": {"kv_heads": 1},
    "alpha 1e5": {"rope": Rope(alpha=1e5)},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_forward_equals_the_literal_reference(random_model: MakeModel, changes: dict) -> None:
    model = random_model(**changes)
    ids = [3, 50, 7, 7, 200, 11, 383, 0, 42]
    with torch.no_grad():
        found = model(torch.tensor([ids]))[0]
    expected = reference_logits(model, ids)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5 * max(1, expected.abs().max())


def test_folded_key_gain_is_exact_in_float64() -> None:
    """The identity behind the shared cache, on its own (specification, section 4.3)."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        q, k, wq, wk = torch.randn(4, 80, dtype=torch.float64, generator=generator)
        unit = k / (k.square().mean() + 1e-5).sqrt()
        direct = (wq * q) @ (wk * unit)
        assert abs(direct - (wq * wk * q) @ unit) < 1e-12


def test_a_batch_equals_its_rows(random_model: MakeModel) -> None:
    model = random_model()
    ids = torch.randint(384, (5, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows = torch.cat([model(row[None]) for row in ids])
        assert (model(ids) - rows).abs().max() < 1e-4


def test_gradients_of_readers_reach_the_owner(random_model: MakeModel) -> None:
    """Cutting the reader layer's query must change the owner's key gradient."""
    model = random_model()
    ids = torch.arange(12)[None]

    def owner_gradient() -> Tensor:
        model.zero_grad()
        model(ids).square().mean().backward()
        return model.get_parameter("model.layers.0.self_attn.k_proj.weight").grad.clone()

    whole = owner_gradient()
    with torch.no_grad():
        model.get_parameter("model.layers.1.self_attn.o_proj.weight").zero_()
        model.get_parameter("model.layers.1.self_attn.q_proj.weight").zero_()
    assert whole.abs().max() > 0
    assert not torch.allclose(whole, owner_gradient())


def test_only_owner_layers_have_key_and_value_projections() -> None:
    names = build(preset("tiny")).state_dict()
    owners = {n.split(".")[2] for n in names if "k_proj" in n}
    assert owners == {"0", "2"}
    assert {n.split(".")[2] for n in names if "key_layernorm" in n} == {"0", "1", "2", "3"}


def test_parameter_names_are_pinned() -> None:
    names = set(build(preset("tiny")).state_dict())
    assert {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.3.input_layernorm.weight",
        "model.layers.3.post_attention_layernorm.weight",
        "model.layers.3.self_attn.q_proj.weight",
        "model.layers.2.self_attn.v_proj.weight",
        "model.layers.3.self_attn.o_proj.weight",
        "model.layers.3.self_attn.query_layernorm.weight",
        "model.layers.3.mlp.gate.wg.weight",
        "model.layers.3.mlp.shared_mlp.gate_proj.weight",
        "model.layers.3.mlp.experts.down_proj",
    } < names
    assert "lm_head.weight" not in names


def test_router_and_norms_stay_float32_in_a_bfloat16_model() -> None:
    model = build(preset("tiny"), torch.bfloat16)
    kinds = {n: p.dtype for n, p in model.named_parameters()}
    exact = {n for n, kind in kinds.items() if kind == torch.float32}
    assert exact == {n for n in kinds if "norm" in n or ".wg." in n}


# ---------------------------------------------------------------- what it costs


def test_published_totals() -> None:
    large, instruct = preset("large"), preset("large-instruct")
    assert large.total_parameters == 388_698_128_640
    assert instruct.total_parameters == 388_701_405_440
    assert large.active_parameters == pytest.approx(52.14e9, rel=1e-4)
    assert large.kv_bytes_per_token() == 81_920
    assert large.mha_kv_bytes_per_token() == 1_638_400
    assert large.kv_bytes_per_token() / large.mha_kv_bytes_per_token() == 0.05
    assert large.slots == 32
    assert large.rope.base(80) == pytest.approx(1.343e9, rel=1e-3)
    assert instruct.rope.base(80) == pytest.approx(1.194e7, rel=1e-3)
    assert preset("a13b").total_parameters == pytest.approx(80.39e9, rel=1e-4)
    lookup = preset("a13b").vocab * preset("a13b").hidden
    assert preset("a13b").active_parameters - lookup == pytest.approx(12.75e9, rel=1e-3)
    assert Rope(alpha=1000).base(128) == pytest.approx(1.1159e7, rel=1e-4)


@pytest.mark.parametrize("name", presets())
def test_counted_parameters_are_those_of_the_model(name: str) -> None:
    config = preset(name)
    assert sum(p.numel() for p in build(config).parameters()) == config.total_parameters


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_counted_parameters_of_variants(random_model: MakeModel, changes: dict) -> None:
    model = random_model(**changes)
    assert sum(p.numel() for p in model.parameters()) == model.config.total_parameters


def test_flops_are_those_of_the_matrix_products(random_model: MakeModel) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = random_model(experts=0, shared_experts=0)
    tokens = 8
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(tokens)[None])
    # The counter does not know the processor's attention kernel: two products of T x S x C a head.
    plain, attending = model.config.flops_per_token(0), model.config.flops_per_token(tokens)
    assert counter.get_total_flops() == tokens * plain
    assert attending - plain == 2 * 2 * tokens * 10 * 8 * 4


# ---------------------------------------------------------------- RoPE scalings


def test_llama3_scaling_against_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    }
    config = transformers.LlamaConfig(
        hidden_size=4096, num_attention_heads=32, rope_parameters=scaling
    )
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    rope = Rope(
        theta=500000.0,
        llama3=Llama3Scaling(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
        ),
    )
    assert torch.allclose(inverse_frequencies(rope, 128), expected, rtol=1e-6)


def test_linear_scaling_stretches_positions() -> None:
    plain, slow = Rope(), Rope(linear_factor=4.0)
    assert torch.equal(inverse_frequencies(plain, 64) / 4, inverse_frequencies(slow, 64))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 10, "kv_heads": 3}, ["heads=10", "kv_heads=3"]),
        ({"head_dim": 7}, ["head_dim=7"]),
        ({"top_k": 17}, ["top_k=17", "experts=16"]),
        ({"layers": 0}, ["layers=0"]),
        ({"experts": 0}, ["shared_experts=1"]),
        ({"context": -1}, ["context=-1"]),
    ],
)
def test_impossible_shapes_are_refused(changes: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        replace(preset("tiny"), **changes)
    for word in words:
        assert word in caught.value.en
        assert word in caught.value.zh


def test_unknown_config_keys_name_the_nearest() -> None:
    fields = {"vocab": 8, "hidden": 8, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 8}
    fields |= {"ffn": 8, "context": 8}
    with pytest.raises(UsageError, match=r"cla_shar is unknown; did you mean cla_share\?"):
        config_from_dict(fields | {"cla_shar": 2})
    with pytest.raises(UsageError, match=r"rope\.thta is unknown; did you mean rope\.theta"):
        config_from_dict(fields | {"rope": {"thta": 1e4}})
    with pytest.raises(UsageError, match="routing mode 'recycle' is unknown; use dropless"):
        config_from_dict(fields | {"routing": {"mode": "recycle"}})
    with pytest.raises(UsageError, match="did you mean large"):
        preset("lrage")
