"""Upcycling: the mixture computes what the dense model did, and nothing in it is stuck."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from conftest import random_transformer, write_byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

import hunyuan
from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.convert import convert
from hunyuan.checkpoint.hf_config import FamilyName
from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.load import leaf_of
from hunyuan.checkpoint.share_kv import folds_of_text
from hunyuan.checkpoint.upcycle import Upcycling, neurons_of, upcycle
from hunyuan.checkpoint.write import write_hf_folder
from hunyuan.cli.main import cli
from hunyuan.errors import HunyuanError, UsageError
from hunyuan.model.config import ModelConfig, Rope, Routing, preset
from hunyuan.model.moe import MoE
from hunyuan.model.transformer import Transformer
from hunyuan.native.library import unavailable

PLAIN = {
    "experts": 0,
    "shared_experts": 0,
    "cla_share": 1,
    "qk_norm": False,
    "rope": Rope(theta=5e5),
    "vocab": 259,
    "layers": 4,
}
FAMILIES: dict[FamilyName, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"qkv_bias": True, "tied": False},
}
IDS = torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(1))
PLAN = Upcycling(experts=4)


def write(
    folder: Path, model: Transformer, family: FamilyName, dtype: torch.dtype = torch.float32
) -> Path:
    write_byte_tokenizer(folder)
    types = dict.fromkeys(leaves(model.config), dtype)
    write_hf_folder(
        folder,
        model.config,
        family,
        types,
        lambda leaf, kind: leaf_of(model, leaf).detach().to(kind),
    )
    return folder


def dense(family: FamilyName, **changes: Any) -> Transformer:
    fields = {**PLAIN, **FAMILIES.get(family, {}), **changes}
    return random_transformer(replace(preset("tiny"), **fields))


@pytest.fixture(params=FAMILIES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "dense", dense(request.param), request.param)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write(tmp_path / "dense", dense("llama"), "llama")


def logits(path: Path) -> torch.Tensor:
    with torch.no_grad():
        return hunyuan.load_model(path)(IDS)


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        Upcycling(experts=4, shared_experts=2),
        Upcycling(experts=6, expert_ffn=28, top_k=2, routing=Routing(mode="capacity-drop")),
    ],
    ids=["as wide", "two shared", "narrow, top 2"],
)
def test_the_mixture_computes_exactly_what_the_dense_model_does(
    source: Path, tmp_path: Path, plan: Upcycling
) -> None:
    result = upcycle(source, tmp_path / "moe", plan, verify=True)
    checkpoint = open_checkpoint(tmp_path / "moe")
    assert checkpoint.config == result.config
    assert checkpoint.config.experts == plan.experts
    assert checkpoint.config.top_k == plan.top_k
    assert checkpoint.config.routing == plan.routing
    width = checkpoint.config.ffn * checkpoint.config.shared_experts
    assert width == open_checkpoint(source).config.ffn
    assert torch.equal(logits(source), logits(tmp_path / "moe"))
    assert result.comparison is not None
    assert result.comparison.lossless
    assert result.comparison.max_difference < 1e-5


def test_query_and_key_norms_come_along(tmp_path: Path) -> None:
    source = write(tmp_path / "d", dense("hunyuan_v1_dense", qk_norm=True), "hunyuan_v1_dense")
    upcycle(source, tmp_path / "moe", PLAN)
    assert torch.equal(logits(source), logits(tmp_path / "moe"))


def test_tokenizer_and_token_ids_come_along(llama: Path, tmp_path: Path) -> None:
    path = llama / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 258}))
    upcycle(llama, tmp_path / "moe", PLAN)
    assert json.loads((tmp_path / "moe" / "config.json").read_text())["eos_token_id"] == 258
    tokenizers = [hunyuan.load_tokenizer(p) for p in (llama, tmp_path / "moe")]
    assert tokenizers[0].encode("héllo 你好") == tokenizers[1].encode("héllo 你好")


@pytest.mark.parametrize("quantize", [None, "q8"])
def test_gguf_is_read_and_blocks_become_floats(tmp_path: Path, quantize: Any) -> None:
    if quantize is not None and (reason := unavailable()):
        pytest.skip(f"the quantiser: {reason}")
    wide = dense("llama", hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96)
    source = write(tmp_path / "wide", wide, "llama")
    for path in source.glob("tokenizer*"):
        path.unlink()
    gguf = tmp_path / "m.gguf"
    convert(source, gguf, quantize=quantize)
    upcycle(gguf, tmp_path / "exact", PLAN, dtype=torch.float32)
    assert torch.equal(logits(gguf), logits(tmp_path / "exact"))
    upcycle(gguf, tmp_path / "kept", PLAN)
    kept = open_checkpoint(tmp_path / "kept")
    leaf = "model.layers.0.mlp.experts.1.gate_proj.weight"
    assert kept.stored_dtype(leaf) == (torch.bfloat16 if quantize else torch.float32)
    assert kept.stored_dtype("model.layers.0.mlp.gate.wg.weight") == torch.float32


def test_the_same_seed_gives_the_same_files_and_another_seed_others(
    llama: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        upcycle(llama, tmp_path / name, replace(PLAN, seed=seed))
    first, second, third = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b", "c")
    )
    assert first == second
    assert first != third


@given(
    parts=st.integers(1, 5),
    width=st.integers(1, 9),
    groups=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_experts_divide_the_neurons_among_them(
    parts: int, width: int, groups: int, seed: int
) -> None:
    ffn = parts * width
    for group in range(groups):
        chosen = [neurons_of(seed, 2, group * parts + i, ffn, width) for i in range(parts)]
        assert torch.cat(chosen).sort().values.tolist() == list(range(ffn))


def test_experts_are_made_of_dense_neurons_and_differ(llama: Path, tmp_path: Path) -> None:
    plan = Upcycling(experts=4, shared_experts=2)
    upcycle(llama, tmp_path / "moe", plan)
    before, after = open_checkpoint(llama), open_checkpoint(tmp_path / "moe")
    width = after.config.ffn
    whole = before.read("model.layers.1.mlp.gate_proj.weight")
    experts = []
    for e in range(4):
        rows = after.read(f"model.layers.1.mlp.experts.{e}.gate_proj.weight")
        expected = whole[neurons_of(plan.seed, 1, e, len(whole), width)]
        difference = (rows - expected).std() / whole.square().mean().sqrt()
        assert 0.08 < difference < 0.12
        experts.append(rows)
        up = after.read(f"model.layers.1.mlp.experts.{e}.up_proj.weight")
        chosen = neurons_of(plan.seed, 1, e, len(whole), width)
        matched = F.cosine_similarity(up, before.read("model.layers.1.mlp.up_proj.weight")[chosen])
        assert matched.min() > 0.9  # gate and up of a neuron stay together
    for i in range(4):
        for j in range(i):
            assert F.cosine_similarity(experts[i], experts[j]).mean() < 0.5


def test_every_expert_with_tokens_and_then_the_router_get_gradients(
    llama: Path, tmp_path: Path
) -> None:
    """Down projections move first, everything else from the second step on."""
    upcycle(llama, tmp_path / "moe", PLAN)
    model = hunyuan.load_model(tmp_path / "moe").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    blocks = [block.mlp for block in model.model.layers]

    def step() -> list[list[int]]:
        hidden, routes = model.model(IDS)
        optimizer.zero_grad()
        F.cross_entropy(model.logits(hidden)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
        return [r.expert.unique().tolist() for r in routes]

    visited = step()
    for moe, seen in zip(blocks, visited, strict=True):
        assert isinstance(moe, MoE)
        assert len(seen) > 1
        bank = moe.experts
        moved = bank.down_proj.grad.flatten(1).norm(dim=1)
        assert moved.nonzero().flatten().tolist() == seen
        assert bank.gate_proj.grad.abs().max() == 0
        assert moe.gate.wg.weight.grad.abs().max() == 0
    optimizer.step()
    visited = step()
    for moe, seen in zip(blocks, visited, strict=True):
        for weight in (moe.experts.gate_proj, moe.experts.up_proj, moe.experts.down_proj):
            assert set(weight.grad.flatten(1).norm(dim=1).nonzero().flatten().tolist()) >= set(
                seen
            ) & set(moe.experts.down_proj.flatten(1).norm(dim=1).nonzero().flatten().tolist())
        assert moe.gate.wg.weight.grad.abs().max() > 0
    optimizer.step()
    for moe in blocks:
        trained = [d for d in moe.experts.down_proj.detach() if d.abs().max() > 0]
        assert all(
            F.cosine_similarity(a.flatten(), b.flatten(), 0) < 0.9
            for i, a in enumerate(trained)
            for b in trained[:i]
        )


# ---------------------------------------------------------------- shared keys and values


def same_projections(model: Transformer, mixed: bool) -> Transformer:
    """Make every second layer's keys and values linear maps of the layer's before it.

    The first layer of a pair adds nothing to the stream, so that both read the same.
    """
    generator = torch.Generator().manual_seed(5)
    c = model.config.head_dim
    with torch.no_grad():
        for i in range(0, model.config.layers, 2):
            owner, reader = (model.model.layers[j] for j in (i, i + 1))
            owner.self_attn.o_proj.weight.zero_()
            owner.mlp.down_proj.weight.zero_()
            reader.input_layernorm.weight.copy_(owner.input_layernorm.weight)
            for h in range(model.config.kv_heads):
                rows = slice(h * c, (h + 1) * c)
                k = owner.self_attn.k_proj.weight[rows]
                v = owner.self_attn.v_proj.weight[rows]
                a = torch.ones(c // 2, dtype=torch.complex64)
                m = torch.eye(c)
                if mixed:
                    a = torch.randn(c // 2, generator=generator, dtype=torch.complex64)
                    m = torch.randn(c, c, generator=generator)
                turned = torch.complex(*k.chunk(2)) * a[:, None]
                reader.self_attn.k_proj.weight[rows] = torch.cat([turned.real, turned.imag])
                reader.self_attn.v_proj.weight[rows] = m @ v
                if model.config.qkv_bias:
                    kb, vb = owner.self_attn.k_proj.bias[rows], owner.self_attn.v_proj.bias[rows]
                    turned = torch.complex(*kb.chunk(2)) * a
                    reader.self_attn.k_proj.bias[rows] = torch.cat([turned.real, turned.imag])
                    reader.self_attn.v_proj.bias[rows] = m @ vb
    return model


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Random letters: 3000 tokens."""
    letters = torch.randint(97, 123, (3000,), generator=torch.Generator().manual_seed(0))
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(letters.tolist()))
    return path


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("with_text", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_layers_whose_keys_and_values_are_linear_in_each_other_share_them_without_loss(
    tmp_path: Path, text: Path, family: FamilyName, with_text: bool, mixed: bool
) -> None:
    source = write(tmp_path / "d", same_projections(dense(family), mixed), family)
    result = upcycle(
        source, tmp_path / "moe", replace(PLAN, cla_share=2), text=text if with_text else None
    )
    assert result.config.cla_share == 2
    assert result.comparison is not None
    # A ridge of 1e-4 keeps the fit from being exact.
    assert result.comparison.mean_difference < 0.02 * result.comparison.spread
    assert result.loss_before == pytest.approx(result.loss_after, rel=0.01)


def test_sharing_between_unlike_layers_changes_the_model_and_says_so(
    llama: Path, tmp_path: Path, text: Path
) -> None:
    result = upcycle(llama, tmp_path / "moe", replace(PLAN, cla_share=2), text=text)
    assert result.comparison is not None
    assert result.comparison.mean_difference > 0.2 * result.comparison.spread
    # 3000 tokens are 11 windows of 256 and one of 184: the last two are not fitted to.
    tokens = torch.tensor([hunyuan.load_tokenizer(llama).encode(text.read_text())])
    assert tokens.shape == (1, 3000)
    windows = [tokens[:, 2560:2816], tokens[:, 2816:]]
    total = 0.0
    with torch.no_grad():
        for ids in windows:
            found = hunyuan.load_model(llama)(ids)[0, :-1]
            total += float(F.cross_entropy(found, ids[0, 1:], reduction="sum"))
    assert result.loss_before == pytest.approx(total / (255 + 183), rel=1e-4)
    written = open_checkpoint(tmp_path / "moe")
    assert written.config.cla_share == 2
    assert "model.layers.1.self_attn.k_proj.weight" not in written.pieces
    before = open_checkpoint(llama)
    for leaf in ("k_proj", "v_proj", "q_proj", "o_proj"):  # owners keep theirs
        name = f"model.layers.2.self_attn.{leaf}.weight"
        assert torch.equal(before.read(name), written.read(name))


def test_folding_beats_reading_the_owners_keys_and_values_as_they_are(
    tmp_path: Path, text: Path
) -> None:
    """Of the value maps a reader could have, the fitted one errs least on the fitted tokens."""
    model = dense("llama")
    source = open_checkpoint(write(tmp_path / "d", model, "llama"))
    ids = torch.tensor([list(text.read_bytes()[:512])])
    how = folds_of_text(source, 2, ids)[1]
    seen: dict[int, torch.Tensor] = {}
    for i in (0, 1):
        model.model.layers[i].self_attn.v_proj.register_forward_hook(
            lambda _, __, out, i=i: seen.update({i: out[0]})
        )
    with torch.no_grad():
        model(ids)
    c = model.config.head_dim
    owner, reader = (seen[i].view(-1, model.config.kv_heads, c) for i in (0, 1))
    fitted = torch.einsum("hce,the->thc", how.value, owner)
    for other in (owner, 0.9 * fitted, 1.1 * fitted, torch.zeros_like(owner)):
        assert (reader - fitted).square().sum() < (reader - other).square().sum()


# ---------------------------------------------------------------- faults and the command


def refused(run: Callable[[], object], *words: str) -> None:
    with pytest.raises(HunyuanError) as caught:
        run()
    assert isinstance(caught.value, UsageError)
    for sentence in (caught.value.en, caught.value.zh):
        assert "\n" not in sentence
        for word in words:
            assert word in sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"experts": 1}, ["experts=1", "2"]),
        ({"experts": 4, "top_k": 5}, ["top_k=5", "experts=4"]),
        ({"experts": 4, "shared_experts": 5}, ["shared_experts=5", "112"]),
        ({"experts": 4, "expert_ffn": 100000}, ["expert_ffn=100000"]),
        ({"experts": 4, "expert_ffn": 40}, ["expert_ffn=40", "--expert-ffn 28"]),
        ({"experts": 4, "expert_ffn": 0}, ["expert_ffn=0"]),
        ({"experts": 4, "cla_share": 3}, ["cla_share=3", "4"]),
        (
            {"experts": 4, "top_k": 2, "routing": Routing(mode="capacity-recycle")},
            ["capacity-recycle", "top_k=2"],
        ),
    ],
)
def test_plans_that_do_not_fit_are_refused(
    llama: Path, tmp_path: Path, fields: dict[str, Any], words: list[str]
) -> None:
    refused(lambda: upcycle(llama, tmp_path / "moe", Upcycling(**fields)), *words)
    assert not list(tmp_path.glob("*moe*"))


def test_models_that_cannot_be_upcycled_are_refused(tmp_path: Path) -> None:
    moe = write(tmp_path / "moe", random_transformer(preset("tiny")), "hunyuan")
    refused(lambda: upcycle(moe, tmp_path / "x", PLAN), "experts=16")
    normed = write(tmp_path / "n", dense("hunyuan_v1_dense", qk_norm=True), "hunyuan_v1_dense")
    refused(lambda: upcycle(normed, tmp_path / "x", replace(PLAN, cla_share=2)), "cla_share=2")
    shared = write(tmp_path / "s", dense("hunyuan", cla_share=2), "hunyuan")
    refused(lambda: upcycle(shared, tmp_path / "x", PLAN), "cla_share=2")


def test_existing_targets_and_unreadable_texts_are_refused(llama: Path, tmp_path: Path) -> None:
    refused(lambda: upcycle(llama, llama, PLAN), str(llama))
    short = tmp_path / "short.txt"
    short.write_text("a")
    sharing = replace(PLAN, cla_share=2)
    for path in (short, tmp_path / "none.txt"):
        refused(lambda p=path: upcycle(llama, tmp_path / "x", sharing, text=p), path.name)
    assert not (tmp_path / "x").exists()


def test_a_failure_leaves_nothing_behind(llama: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upcycle(llama, tmp_path / "moe", PLAN, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["dense"]


def test_the_command_prints_figures_and_generate_runs_on_the_result(
    llama: Path, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", "en")
    target = tmp_path / "moe"
    arguments = ["upcycle", str(llama), str(target), "--experts", "4", "--verify"]
    run = CliRunner().invoke(cli, [*arguments, "--text", str(text), "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["verify"]["max_difference"] < 1e-5
    assert found["loss_before"] == pytest.approx(found["loss_after"])
    config = open_checkpoint(target).config
    assert found["parameters"] == config.total_parameters
    answers = []
    for model in (llama, target):
        run = CliRunner().invoke(
            cli,
            ["generate", str(model), "Hello", "--max-tokens", "8", "--temperature", "0", "--json"],
        )
        assert run.exit_code == 0, run.output
        answers.append(json.loads(run.stdout)["tokens"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("lang", "word"), [("en", "train it"), ("zh", "训练")])
def test_the_command_says_that_sharing_changed_the_model(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lang: str, word: str
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", lang)
    arguments = ["upcycle", str(llama), str(tmp_path / "moe"), "--experts", "2", "--cla", "2"]
    run = CliRunner().invoke(cli, arguments)
    assert run.exit_code == 0, run.output
    assert word in run.stdout
    assert "logits" in run.stdout


def test_the_configuration_is_frozen() -> None:
    assert isinstance(PLAN.config_of(dense("llama").config), ModelConfig)
    with pytest.raises(AttributeError):
        PLAN.experts = 3  # type: ignore[misc]
