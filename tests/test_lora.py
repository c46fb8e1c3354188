"""Adapters: the base at first, only they train, experts included, and merged they are the same."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from conftest import random_transformer, write_byte_tokenizer
from safetensors.torch import load_file, save_file

import hunyuan
from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.convert import convert
from hunyuan.checkpoint.hf_config import FamilyName
from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.load import leaf_of
from hunyuan.checkpoint.write import write_hf_folder
from hunyuan.cli.main import cli
from hunyuan.errors import BadDataError, HunyuanError, UsageError
from hunyuan.model.config import ModelConfig, Rope, Routing, preset
from hunyuan.model.moe import MoE
from hunyuan.model.routing import draw_slot_keys
from hunyuan.model.transformer import Transformer
from hunyuan.settings import settings
from hunyuan.train.adapter import (
    Adapter,
    fingerprint,
    load_lora,
    merge,
    save_lora,
    write_adapter,
)
from hunyuan.train.lora import (
    LoraConfig,
    LoraExpertBank,
    LoraLinear,
    apply_lora,
    base_name,
    describe_trainable,
    trainable_table,
)
from hunyuan.train.optimizer import Optimizer
from hunyuan.train.recipe import OptimizerSettings

IDS = torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(1))
EVERYTHING = LoraConfig(
    rank=3, alpha=7.0, where=("attention", "mlp", "shared", "experts"), router=True
)
MOE = replace(preset("tiny"), layers=2, experts=4, vocab=259)
DENSE = replace(
    MOE,
    experts=0,
    shared_experts=0,
    cla_share=1,
    qk_norm=False,
    qkv_bias=True,
    rope=Rope(theta=5e5),
)
MIXTRAL = replace(
    DENSE, experts=4, top_k=2, norm_topk_prob=True, qkv_bias=False, rope=Rope(theta=1e6)
)
SHAPES: dict[FamilyName, ModelConfig] = {"hunyuan": MOE, "qwen2": DENSE, "mixtral": MIXTRAL}


def write(
    folder: Path, config: ModelConfig, family: FamilyName, dtype: torch.dtype = torch.float32
) -> Path:
    live = random_transformer(config)
    write_hf_folder(
        write_byte_tokenizer(folder),
        config,
        family,
        dict.fromkeys(leaves(config), dtype),
        lambda leaf, kind: leaf_of(live, leaf).detach().to(kind),
    )
    return folder


@pytest.fixture(params=SHAPES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "base", SHAPES[request.param], request.param)


@pytest.fixture
def moe(tmp_path: Path) -> Path:
    return write(tmp_path / "base", MOE, "hunyuan")


def adapted(path: Path, config: LoraConfig = EVERYTHING, **options: Any) -> Transformer:
    """A loaded model with adapters that do something."""
    model = hunyuan.load_model(path, **options)
    generator = torch.Generator().manual_seed(2)
    apply_lora(model, config, generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3, generator=generator)
    return model


def forward(model: Transformer, slot_keys: torch.Tensor | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, slot_keys=slot_keys)


def backward(model: Transformer) -> list[Any]:
    """Gradients of a loss; returns the routes of each layer."""
    keys = draw_slot_keys(model.config, IDS.numel(), torch.Generator().manual_seed(3))
    hidden, routes = model.model(IDS, slot_keys=keys)
    F.cross_entropy(model.logits(hidden)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return routes


# ---------------------------------------------------------------- computing


@pytest.mark.parametrize("mode", ["dropless", "capacity-drop", "capacity-recycle"])
def test_a_fresh_adapter_is_the_base_exactly(moe: Path, mode: Any) -> None:
    routing = Routing(mode=mode, capacity_group=24)
    model = hunyuan.load_model(moe, routing=routing)
    keys = draw_slot_keys(model.config, IDS.numel(), torch.Generator().manual_seed(0))
    before = forward(model, keys)
    apply_lora(model, EVERYTHING)
    assert torch.equal(before, forward(model, keys))


@pytest.mark.parametrize("family", SHAPES)
def test_adapted_is_the_model_with_the_products_added(tmp_path: Path, family: FamilyName) -> None:
    """Against a plain model whose weights are W + alpha / rank * B A, written out."""
    path = write(tmp_path / "m", SHAPES[family], family)
    model, plain = adapted(path), hunyuan.load_model(path)
    scale = EVERYTHING.alpha / EVERYTHING.rank
    count = 0
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, LoraLinear):
                plain.get_parameter(f"{name}.weight").add_(scale * module.lora_B @ module.lora_A)
                count += 1
            elif isinstance(module, LoraExpertBank):
                for matrix in module.lora_A:
                    for e in range(SHAPES[family].experts):
                        delta = scale * module.lora_B[matrix][e] @ module.lora_A[matrix][e]
                        plain.get_parameter(f"{name}.{matrix}")[e] += delta
                        count += 1
    config = SHAPES[family]
    matrices = [n for n, s in leaves(config).items() if len(s) == 2 and n.startswith("model.lay")]
    assert count == len(matrices)
    expected = forward(plain)
    assert (forward(model) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (forward(model) - forward(hunyuan.load_model(path))).abs().max() > 0.1


def test_capacity_slots_compute_what_ragged_rows_do(moe: Path) -> None:
    ample = Routing(mode="capacity-drop", capacity_factor=4.0, capacity_group=80)
    assert torch.allclose(
        forward(adapted(moe, routing=ample)), forward(adapted(moe)), rtol=1e-4, atol=1e-4
    )


def test_adapters_beside_bfloat16_weights_learn_in_float32(tmp_path: Path) -> None:
    """Steps far below bfloat16's resolution add up in the optimiser's masters."""
    path = write(tmp_path / "m", MOE, "hunyuan", torch.bfloat16)
    model = adapted(path, dtype="bfloat16")
    settings = OptimizerSettings(learning_rate=1e-6, weight_decay=0.0)
    optimizer = Optimizer(model, settings, 1.0)
    assert {one.master.dtype for one in optimizer.trained} == {torch.float32}
    adapters = [one for one in optimizer.trained if ".wg." not in one.name]
    assert {one.weight.dtype for one in adapters} == {torch.bfloat16}
    before = [master.clone() for master in optimizer.masters]
    for _ in range(3):
        backward(model)
        optimizer.step(1.0)
    moved = [(m - b).abs().max() for m, b in zip(optimizer.masters, before, strict=True)]
    assert all(0 < float(distance) < 4e-6 for distance in moved)


@pytest.mark.parametrize("mode", ["dropless", "capacity-drop", "capacity-recycle"])
def test_every_expert_that_received_tokens_gets_a_gradient(moe: Path, mode: Any) -> None:
    model = adapted(moe, routing=Routing(mode=mode, capacity_group=24)).train()
    routes = backward(model)
    for block, decided in zip(model.model.layers, routes, strict=True):
        assert isinstance(block.mlp, MoE)
        bank = block.mlp.experts
        assert isinstance(bank, LoraExpertBank)
        seen = decided.expert[~decided.dropped].unique().tolist()
        assert len(seen) > 1
        for stack in (*bank.lora_A.values(), *bank.lora_B.values()):
            moved = stack.grad.flatten(1).norm(dim=1).nonzero().flatten().tolist()
            assert moved == seen
        assert block.mlp.gate.wg.lora_B.grad.abs().max() > 0
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name


def test_only_the_named_tensors_train(moe: Path) -> None:
    model = hunyuan.load_model(moe)
    before = {base_name(n): w.clone() for n, w in model.named_parameters()}
    config = LoraConfig(rank=2, targets=("q_proj", "down_proj"), where=("attention", "experts"))
    names = apply_lora(model, config, torch.Generator().manual_seed(0))
    assert names == [
        f"model.layers.{i}.{tail}"
        for i in range(2)
        for tail in (
            "self_attn.q_proj.lora_A",
            "self_attn.q_proj.lora_B",
            "mlp.experts.lora_A.down_proj",
            "mlp.experts.lora_B.down_proj",
        )
    ]
    optimizer = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=10.0)
    for _ in range(2):
        backward(model)
        optimizer.step()
    after = dict(model.named_parameters())
    kept = {base_name(n): w for n, w in after.items() if n not in names}
    assert kept.keys() == before.keys()
    for name, weight in kept.items():
        assert torch.equal(weight, before[name]), name
    assert all(after[n].abs().max() > 0 for n in names)


def test_dropout_acts_in_training_only(moe: Path) -> None:
    model = adapted(moe, replace(EVERYTHING, dropout=0.5))
    assert torch.equal(forward(model), forward(model))
    model.train()
    assert not torch.equal(forward(model), forward(model))


def test_the_same_generator_gives_the_same_adapters(moe: Path) -> None:
    one, two = adapted(moe).state_dict(), adapted(moe).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_trained_is_told_by_part(moe: Path) -> None:
    model = hunyuan.load_model(moe)
    config = MOE
    whole = describe_trainable(model)
    assert sum(g.trained for g in whole) == config.total_parameters
    assert {g.group: g.trained for g in whole}["experts"] == config.parameters["routed_experts"]
    assert {g.group: g.trained for g in whole}["norms"] == config.parameters["norms"]
    apply_lora(model, LoraConfig(rank=2, where=("experts",)))
    groups = {g.group: g for g in describe_trainable(model)}
    assert groups["experts"].trained == config.layers * config.experts * 2 * 3 * (
        config.hidden + config.ffn
    )
    assert groups["experts"].tensors == config.layers * 6
    assert sum(g.frozen for g in groups.values()) == config.total_parameters
    assert all(g.trained == 0 for name, g in groups.items() if name != "experts")
    table = trainable_table(groups.values())
    assert re.search(r"^experts +12 ", table, re.MULTILINE)
    assert f"{config.total_parameters:,}" in table.splitlines()[-1]


# ---------------------------------------------------------------- on disk


def test_save_and_load_round_trip(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    save_lora(model, EVERYTHING, open_checkpoint(base), tmp_path / "adapter")
    back = hunyuan.load_model(base)
    names = load_lora(back, tmp_path / "adapter")
    assert names == [n for n, w in model.named_parameters() if w.requires_grad]
    one, two = model.state_dict(), back.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(forward(model), forward(back))


def test_merged_computes_what_adapted_does(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    save_lora(model, EVERYTHING, open_checkpoint(base), tmp_path / "adapter")
    merge(base, tmp_path / "adapter", tmp_path / "merged")
    merged = open_checkpoint(tmp_path / "merged")
    assert merged.config == open_checkpoint(base).config
    assert merged.family == open_checkpoint(base).family
    expected = forward(model)
    found = forward(hunyuan.load_model(tmp_path / "merged"))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    ids = [hunyuan.load_tokenizer(p).encode("héllo") for p in (base, tmp_path / "merged")]
    assert ids[0] == ids[1]


def test_merging_changes_adapted_leaves_only_and_keeps_types(tmp_path: Path) -> None:
    base = write(tmp_path / "b", MOE, "hunyuan", torch.bfloat16)
    config = LoraConfig(rank=2, targets=("up_proj",), where=("experts",))
    save_lora(adapted(base, config), config, open_checkpoint(base), tmp_path / "a")
    merge(base, tmp_path / "a", tmp_path / "m")
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in "bm")
    changed = {n for n in one if not torch.equal(one[n], two[n])}
    assert changed == {n for n in one if ".experts." in n and ".up_proj." in n}
    assert {t.dtype for t in two.values()} == {torch.bfloat16}
    merge(base, tmp_path / "a", tmp_path / "wide", dtype=torch.float32)
    wide = load_file(tmp_path / "wide" / "model.safetensors")
    assert {t.dtype for t in wide.values()} == {torch.float32}
    assert all(torch.equal(wide[n].bfloat16(), two[n]) for n in two)


def test_the_folder_is_in_peft_s_format(base: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(base)
    save_lora(adapted(base), EVERYTHING, checkpoint, tmp_path / "a")
    raw = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert raw["peft_type"] == "LORA"
    assert (raw["r"], raw["lora_alpha"], raw["lora_dropout"]) == (3, 7.0, 0.0)
    assert raw["base_model_name_or_path"] == str(base)
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    stored = load_file(base / "model.safetensors")
    targets = set()
    for name, tensor in weights.items():
        match = re.fullmatch(r"base_model\.model\.(.+)\.(lora_[AB])\.weight", name)
        assert match, name
        rows, columns = stored[f"{match[1]}.weight"].shape
        assert tensor.shape == ((3, columns) if match[2] == "lora_A" else (rows, 3))
        targets.add(match[1])
    modules = {n.removesuffix(".weight") for n in stored}
    assert {m for m in modules if re.fullmatch(raw["target_modules"], m)} == targets


def test_an_adapter_without_our_own_file_is_read(moe: Path, tmp_path: Path) -> None:
    """As PEFT writes one: some modules, a list of targets, no fingerprint."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, MOE.hidden, generator=generator)
    b = torch.randn(MOE.heads * MOE.head_dim, 4, generator=generator)
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    folder = tmp_path / "peft"
    folder.mkdir()
    save_file(
        {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b},
        folder / "adapter_model.safetensors",
    )
    raw = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "revision": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(raw))
    merge(moe, folder, tmp_path / "m")
    leaf = "model.layers.1.self_attn.q_proj.weight"
    before, after = (open_checkpoint(p).read(leaf) for p in (moe, tmp_path / "m"))
    assert torch.allclose(after, before + 2.0 * b @ a, atol=1e-5)
    model = hunyuan.load_model(moe)
    assert load_lora(model, folder) == [f"{leaf.removesuffix('weight')}lora_{m}" for m in "AB"]


def test_the_fingerprint_survives_formats_and_tells_trainings_apart(tmp_path: Path) -> None:
    config = replace(DENSE, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96)
    base = write(tmp_path / "b", config, "qwen2", torch.bfloat16)
    for path in base.glob("tokenizer*"):
        path.unlink()
    prints = {fingerprint(open_checkpoint(base)), fingerprint(hunyuan.load_model(base, "bfloat16"))}
    convert(base, tmp_path / "wide", dtype=torch.float32)
    convert(base, tmp_path / "b.gguf")
    prints |= {fingerprint(open_checkpoint(tmp_path / name)) for name in ("wide", "b.gguf")}
    assert len(prints) == 1
    model = hunyuan.load_model(base)
    with torch.no_grad():
        model.model.norm.weight[0] += 0.01
    assert fingerprint(model) not in prints


# ---------------------------------------------------------------- faults and the command


def refused(run: Callable[[], object], kind: type[HunyuanError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        run()
    for sentence in (caught.value.en, caught.value.zh):
        assert "\n" not in sentence
        for word in words:
            assert word in sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rank": 0}, ["lora.rank=0"]),
        ({"alpha": 0.0}, ["lora.alpha=0"]),
        ({"dropout": 1.0}, ["lora.dropout=1"]),
        ({"targets": ("q_prj",)}, ["q_prj", "q_proj"]),
        ({"where": ("expert",)}, ["'expert'", "experts"]),
        ({"where": ()}, ["where"]),
    ],
)
def test_bad_settings_are_named(fields: dict[str, Any], words: list[str]) -> None:
    refused(lambda: LoraConfig(**fields), UsageError, *words)


def test_settings_come_from_a_table() -> None:
    table = {"rank": 4, "where": ["experts"], "targets": ["up_proj"]}
    assert settings(LoraConfig, table, "lora.") == LoraConfig(
        rank=4, where=("experts",), targets=("up_proj",)
    )
    refused(lambda: settings(LoraConfig, {"rnk": 4}, "lora."), UsageError, "lora.rnk", "lora.rank")


def test_adapting_nothing_is_refused(tmp_path: Path) -> None:
    dense = random_transformer(DENSE)
    refused(lambda: apply_lora(dense, LoraConfig(where=("experts",))), UsageError, "experts")
    assert all(weight.requires_grad for weight in dense.parameters())


def test_an_adapter_of_another_model_is_refused_naming_both(moe: Path, tmp_path: Path) -> None:
    save_lora(adapted(moe), EVERYTHING, open_checkpoint(moe), tmp_path / "a")
    other = tmp_path / "other"
    write(other, MOE, "hunyuan")
    stored = load_file(other / "model.safetensors")
    stored["model.norm.weight"] = stored["model.norm.weight"] * 1.01
    save_file(stored, other / "model.safetensors")
    both = str(moe), str(other)
    refused(lambda: merge(other, tmp_path / "a", tmp_path / "m"), BadDataError, *both)
    live = hunyuan.load_model(other)
    refused(lambda: load_lora(live, tmp_path / "a"), BadDataError, str(moe))
    assert not list(tmp_path.glob("*m.*"))


def test_an_adapter_of_another_shape_is_refused(moe: Path, tmp_path: Path) -> None:
    save_lora(adapted(moe), EVERYTHING, open_checkpoint(moe), tmp_path / "a")
    dense = write(tmp_path / "dense", DENSE, "qwen2")
    refused(lambda: merge(dense, tmp_path / "a", tmp_path / "m"), BadDataError, "experts.0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "LOHA"}, ["peft_type", "LOHA"]),
        ({"use_dora": True}, ["use_dora"]),
        ({"r": 0}, ["r=0"]),
        ({"r": 5}, ["[3, 80]", "[5, 80]"]),
        ({"lora_alpha": "x"}, ["lora_alpha='x'"]),
        ({"modules_to_save": ["lm_head"]}, ["modules_to_save"]),
    ],
)
def test_other_kinds_of_adapters_are_refused(
    moe: Path, tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    folder = tmp_path / "a"
    save_lora(adapted(moe), EVERYTHING, open_checkpoint(moe), folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(lambda: Adapter(folder, MOE), BadDataError, *words)


Tensors = dict[str, torch.Tensor]
Q = "base_model.model.model.layers.0.self_attn.q_proj"
EXPERT = "base_model.model.model.layers.0.mlp.experts.2.up_proj"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(f"{Q}.lora_B.weight"), [f"{Q}.lora_B.weight"]),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": torch.ones(1)}), ["model.x."]),
        (lambda t: t[f"{Q}.lora_A.weight"].fill_(torch.nan), ["layers.0.self_attn.q_proj"]),
        (
            lambda t: [t.pop(f"{EXPERT}.lora_{m}.weight") for m in "AB"],
            ["layers.0.mlp.experts.up_proj", "2"],
        ),
    ],
    ids=["half", "strange", "nan", "an expert"],
)
def test_damaged_adapters_are_refused(
    moe: Path, tmp_path: Path, change: Callable[[Tensors], object], words: list[str]
) -> None:
    folder = tmp_path / "a"
    save_lora(adapted(moe), EVERYTHING, open_checkpoint(moe), folder)
    path = folder / "adapter_model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(weights)
    save_file(weights, path)
    live = hunyuan.load_model(moe)
    refused(lambda: load_lora(live, folder), BadDataError, *words)
    assert not any("lora" in name for name, _ in live.named_parameters())


def test_missing_files_are_named(moe: Path, tmp_path: Path) -> None:
    refused(lambda: Adapter(tmp_path / "no", MOE), BadDataError, "adapter_config.json")
    with pytest.raises(BadDataError, match="give an adapter folder"):
        Adapter(tmp_path / "no", MOE)
    save_lora(adapted(moe), EVERYTHING, open_checkpoint(moe), tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    refused(lambda: Adapter(tmp_path / "a", MOE), BadDataError, "adapter_model.safetensors")
    refused(
        lambda: save_lora(adapted(moe), EVERYTHING, open_checkpoint(moe), moe), UsageError, str(moe)
    )


def test_weights_that_float16_cannot_hold_are_refused(moe: Path, tmp_path: Path) -> None:
    model = adapted(moe)
    weights = {n: 1e5 * w for n, w in model.named_parameters() if w.requires_grad}
    (tmp_path / "a").mkdir()
    write_adapter(tmp_path / "a", weights, EVERYTHING, open_checkpoint(moe))
    refused(
        lambda: merge(moe, tmp_path / "a", tmp_path / "m", dtype=torch.float16),
        UsageError,
        "float16",
        "bfloat16",
    )
    assert not list(tmp_path.glob("*m*.partial"))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_command_merges_and_generate_runs_on_the_result(
    moe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lang: str
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", lang)
    save_lora(adapted(moe), EVERYTHING, open_checkpoint(moe), tmp_path / "a")
    target = tmp_path / "m"
    run = CliRunner().invoke(cli, ["merge", str(moe), str(tmp_path / "a"), str(target), "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout) == {
        "target": str(target),
        "parameters": MOE.total_parameters,
    }
    arguments = ["generate", str(target), "Hello", "--max-tokens", "4", "--temperature", "0"]
    run = CliRunner().invoke(cli, [*arguments, "--json"])
    assert run.exit_code == 0, run.output
    assert len(json.loads(run.stdout)["tokens"]) > 0
