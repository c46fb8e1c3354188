"""Reading, writing and converting checkpoints; every fault is one line that names it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_transformer
from safetensors.torch import load_file, save_file

import hunyuan
from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.convert import convert
from hunyuan.checkpoint.hf_config import FamilyName, read_hf_config, write_hf_config
from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.load import leaf_of
from hunyuan.checkpoint.streamed import streamed_logits
from hunyuan.checkpoint.write import write_gguf_file, write_hf_folder
from hunyuan.errors import BadDataError, DoesNotFitError, HunyuanError, UsageError
from hunyuan.model.config import Llama3Scaling, ModelConfig, Rope, Routing, preset
from hunyuan.model.transformer import Transformer

DENSE = {"experts": 0, "shared_experts": 0, "cla_share": 1}
PLAIN = {**DENSE, "qk_norm": False, "rope": Rope(theta=5e5)}
MIXTRAL = {
    "qk_norm": False,
    "cla_share": 1,
    "shared_experts": 0,
    "experts": 8,
    "top_k": 2,
    "norm_topk_prob": True,
    "rope": Rope(theta=1e6),
}
LLAMA3 = Rope(
    theta=5e5,
    llama3=Llama3Scaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192
    ),
)
FAMILIES: dict[str, tuple[FamilyName, dict[str, Any]]] = {
    "large": ("hunyuan", {}),
    "large, share 4": ("hunyuan", {"cla_share": 4}),
    "large, recycle": ("hunyuan", {"routing": Routing(mode="capacity-recycle")}),
    "large, dense": ("hunyuan", DENSE),
    "v1 moe": ("hunyuan_v1_moe", {"cla_share": 1, "top_k": 4, "norm_topk_prob": True}),
    "v1 dense": ("hunyuan_v1_dense", {**DENSE, "head_dim": 12}),
    "llama": ("llama", PLAIN),
    "llama 3.1, untied": ("llama", {**PLAIN, "rope": LLAMA3, "tied": False}),
    "llama, linear": ("llama", {**PLAIN, "rope": Rope(linear_factor=4.0)}),
    "llama, biases": ("llama", {**PLAIN, "qkv_bias": True, "output_bias": True}),
    "qwen2": ("qwen2", {**PLAIN, "qkv_bias": True, "tied": False}),
    "mixtral": ("mixtral", MIXTRAL),
}
GGUF = ["v1 moe", "v1 dense", "llama", "llama 3.1, untied", "llama, linear", "qwen2", "mixtral"]


def write_folder(
    folder: Path,
    model: Transformer,
    family: FamilyName,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Path:
    folder.mkdir(parents=True)
    dtypes = dict.fromkeys(leaves(model.config), dtype)
    write_hf_folder(
        folder,
        model.config,
        family,
        dtypes,
        lambda leaf, kind: leaf_of(model, leaf).detach().to(kind),
        **options,
    )
    return folder


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "large", random_transformer(preset("tiny")), "hunyuan")


@pytest.mark.parametrize(("family", "changes"), FAMILIES.values(), ids=FAMILIES.keys())
def test_a_written_folder_reads_back_the_same(
    tmp_path: Path, family: FamilyName, changes: dict
) -> None:
    model = random_transformer(replace(preset("tiny"), **changes))
    folder = write_folder(tmp_path / "m", model, family)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config == model.config
    assert checkpoint.family == family
    back = hunyuan.load_model(folder, routing=model.config.routing)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, back.state_dict()[name]), name


@pytest.mark.parametrize("name", [n for n in FAMILIES if FAMILIES[n][0] != "hunyuan"])
def test_transformers_computes_the_same_from_a_written_folder(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    family, changes = FAMILIES[name]
    model = random_transformer(replace(preset("tiny"), **changes))
    folder = write_folder(tmp_path / "m", model, family)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(384, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (theirs(ids).logits - model(ids)).abs().max() < 2e-4


@pytest.mark.parametrize("name", GGUF)
def test_gguf_round_trip(tmp_path: Path, name: str) -> None:
    family, changes = FAMILIES[name]
    model = random_transformer(replace(preset("tiny"), **changes))
    folder = write_folder(tmp_path / "m", model, family)
    result = convert(folder, tmp_path / "m.gguf", verify=True)
    again = convert(tmp_path / "m.gguf", tmp_path / "again", verify=True)
    for comparison in (result, again):
        assert comparison is not None
        assert comparison.max_difference < 1e-6  # GGUF keeps the RoPE base as float32
    first, second = (load_file(p / "model.safetensors") for p in (folder, tmp_path / "again"))
    assert first.keys() == second.keys()
    for tensor in first:
        assert torch.equal(first[tensor], second[tensor]), tensor


def test_gguf_of_a_shape_without_architecture_is_refused(large: Path, tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="cla_share=2: no GGUF architecture shares K and V"):
        convert(large, tmp_path / "x.gguf")
    assert not list(tmp_path.glob("x.gguf*"))


def test_hf_round_trip_is_bit_exact_in_bfloat16(tmp_path: Path) -> None:
    """Through another sharding: HF -> ours -> HF gives the same bytes for every tensor."""
    model = random_transformer(preset("tiny"))
    first = write_folder(tmp_path / "a", model, "hunyuan", torch.bfloat16, shard_bytes=200_000)
    assert len(list(first.glob("*.safetensors"))) > 3
    result = convert(first, tmp_path / "b", verify=True)
    assert result is not None
    assert result.lossless
    one: dict[str, torch.Tensor] = {}
    for shard in first.glob("*.safetensors"):
        one |= load_file(shard)
    two = load_file(tmp_path / "b" / "model.safetensors")
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].dtype == two[name].dtype
        assert torch.equal(one[name], two[name])


def test_fused_variants_are_the_same_model(large: Path, tmp_path: Path) -> None:
    """qkv per KV group, gate and up stacked up first (specification, section 6)."""
    config = open_checkpoint(large).config
    stored = load_file(large / "model.safetensors")
    queries = config.heads // config.kv_heads
    for i in range(config.layers):
        p = f"model.layers.{i}."
        if config.owns_kv(i):
            q, k, v = (
                stored.pop(f"{p}self_attn.{n}_proj.weight").view(
                    config.kv_heads, -1, config.head_dim, config.hidden
                )
                for n in "qkv"
            )
            assert q.shape[1] == queries
            stored[p + "self_attn.qkv_proj.weight"] = torch.cat([q, k, v], 1).flatten(0, 2)
        for m in ["shared_mlp", *(f"experts.{e}" for e in range(config.experts))]:
            gate = stored.pop(f"{p}mlp.{m}.gate_proj.weight")
            up = stored.pop(f"{p}mlp.{m}.up_proj.weight")
            stored[f"{p}mlp.{m}.gate_and_up_proj.weight"] = torch.cat([up, gate])
    fused = tmp_path / "fused"
    fused.mkdir()
    shutil.copy(large / "config.json", fused)
    save_file(stored, fused / "model.safetensors")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(hunyuan.load_model(fused)(ids), hunyuan.load_model(large)(ids))


def test_streamed_logits_equal_the_loaded_model(large: Path) -> None:
    ids = torch.randint(384, (1, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = hunyuan.load_model(large)(ids)
    assert (streamed_logits(open_checkpoint(large), ids) - whole).abs().max() < 1e-5


def test_conversion_memory_is_that_of_two_tensors(tmp_path: Path) -> None:
    """A model of 1.6 GB in tensors of 16 MB or less converts and verifies within 1 GiB."""
    config = ModelConfig(
        vocab=2048,
        hidden=2048,
        layers=4,
        heads=16,
        kv_heads=2,
        head_dim=128,
        ffn=2048,
        experts=16,
        shared_experts=1,
        cla_share=2,
        qk_norm=True,
        tied=True,
        context=512,
    )
    source = tmp_path / "big"
    source.mkdir()
    generator = torch.Generator().manual_seed(0)
    write_hf_folder(
        source,
        config,
        "hunyuan",
        dict.fromkeys(leaves(config), torch.bfloat16),
        lambda leaf, kind: (0.02 * torch.randn(leaves(config)[leaf], generator=generator)).to(kind),
    )
    size = sum(f.stat().st_size for f in source.iterdir())
    assert size > 1_500_000_000
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from hunyuan.checkpoint.convert import convert\n"
        "result = convert(Path(sys.argv[1]), Path(sys.argv[2]), verify=True)\n"
        "assert result.max_difference == 0\n"
        # Not getrusage: its figure includes the process that started this one.
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) * 1024)\n"
    )
    run = [sys.executable, "-c", program, str(source), str(tmp_path / "copy")]
    peak = int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    largest = 2048 * 2048 * 2
    assert peak < 2 * largest + 2**30, f"{peak / 1e6:.0f} MB"


# ---------------------------------------------------------------- faults


def broken(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "model.safetensors"
    stored = load_file(path)
    stored = {name: tensor.clone() for name, tensor in stored.items()}
    change(stored)
    save_file(stored, path)


def refused(folder: Path, kind: type[HunyuanError], *words: str) -> None:
    with pytest.raises(kind) as caught:
        hunyuan.load_model(folder)
    for text in (caught.value.en, caught.value.zh):
        assert "\n" not in text
        for word in words:
            assert word in text


def test_missing_tensors_are_named(large: Path) -> None:
    broken(large, lambda t: t.pop("model.layers.1.mlp.experts.3.up_proj.weight"))
    refused(large, BadDataError, "model.layers.1.mlp.experts.3.up_proj.weight")


def test_surplus_tensors_are_named(large: Path) -> None:
    broken(
        large, lambda t: t.update({"model.layers.1.self_attn.k_proj.weight": torch.ones(16, 80)})
    )
    refused(large, BadDataError, "model.layers.1.self_attn.k_proj.weight")


def test_wrong_shapes_are_named_with_both_shapes(large: Path) -> None:
    broken(large, lambda t: t.update({"model.norm.weight": torch.ones(81)}))
    refused(large, BadDataError, "model.norm.weight", "[81]", "[80]")


def test_integer_tensors_are_named(large: Path) -> None:
    broken(large, lambda t: t.update({"model.norm.weight": torch.ones(80, dtype=torch.int8)}))
    refused(large, BadDataError, "model.norm.weight", "I8")


def test_a_separate_equal_head_is_accepted_and_another_refused(large: Path) -> None:
    embedding = "model.embed_tokens.weight"
    broken(large, lambda t: t.update({"lm_head.weight": t[embedding].clone()}))
    hunyuan.load_model(large)
    broken(large, lambda t: t["lm_head.weight"].add_(1))
    refused(large, BadDataError, "lm_head.weight", "tie_word_embeddings")


@pytest.mark.parametrize("keep", [0, 7, 100, -1, -1000])
def test_truncated_files_are_named(large: Path, keep: int) -> None:
    path = large / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    refused(large, BadDataError, str(path))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = random_transformer(preset("tiny"))
    folder = write_folder(tmp_path / "m", model, "hunyuan", shard_bytes=200_000)
    shard = sorted(folder.glob("*.safetensors"))[2]
    shard.unlink()
    refused(folder, BadDataError, shard.name)


def test_an_index_cannot_point_outside(tmp_path: Path) -> None:
    model = random_transformer(preset("tiny"))
    folder = write_folder(tmp_path / "m", model, "hunyuan", shard_bytes=200_000)
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"]["model.norm.weight"] = "../../etc/passwd"
    index.write_text(json.dumps(raw))
    refused(folder, BadDataError, "../../etc/passwd")


def test_empty_and_missing_folders(tmp_path: Path, large: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, BadDataError, "config.json")
    refused(tmp_path / "nowhere", UsageError, "nowhere")
    (large / "model.safetensors").unlink()
    refused(large, BadDataError, "safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_unread(large: Path, name: str) -> None:
    (large / "model.safetensors").unlink()
    torch.save({"x": torch.ones(1)}, large / name)
    refused(large, BadDataError, name, "safetensors")
    refused(large / name, BadDataError, name, "safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_exprts": 4}, ["num_exprts", "num_experts"]),
        ({"routing_mode": "random"}, ["random", "dropless"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, ["yarn", "llama3"]),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, ["gpt2", "hunyuan"]),
        ({"num_hidden_layers": None}, ["num_hidden_layers"]),
        ({"hidden_size": "wide"}, ["hidden_size", "wide"]),
        ({"moe_topk": [1, 1, 2, 1]}, ["moe_topk"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["quantization_config"]),
        ({"num_attention_heads": 0}, ["heads"]),
    ],
)
def test_bad_configurations_are_named(large: Path, change: dict, words: list[str]) -> None:
    path = large / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    kind = HunyuanError
    refused(large, kind, *words)


def test_corrupt_json_is_named(large: Path) -> None:
    (large / "config.json").write_text('{"vocab_size": ')
    refused(large, BadDataError, "config.json")


def test_a_checkpoint_never_runs_its_code(large: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (large / "modeling_hunyuan.py").write_text(f"open({str(mark)!r}, 'w')")
    path = large / "config.json"
    auto = {"auto_map": {"AutoModelForCausalLM": "modeling_hunyuan.HunYuanForCausalLM"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | auto))
    hunyuan.load_model(large)
    assert not mark.exists()


def test_a_model_larger_than_memory_is_refused_before_reading(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hunyuan.memory.available_memory", lambda: 1_000_000)
    with pytest.raises(DoesNotFitError, match=r"needs 7\.7 MB of memory, 1\.0 MB are free"):
        hunyuan.load_model(large)


def test_a_released_configuration_of_the_later_family_is_understood() -> None:
    """Lists with one entry a layer, leftovers of other model kinds, a share factor not in use."""
    raw = {
        "architectures": ["HunYuanMoEV1ForCausalLM"],
        "model_type": "hunyuan",
        "attention_bias": False,
        "attention_head_dim": 128,
        "cla_share_factor": 2,
        "use_cla": False,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 3072,
        "moe_intermediate_size": [3072] * 32,
        "moe_topk": [8] * 32,
        "num_shared_expert": [1] * 32,
        "num_experts": 64,
        "moe_layer_num_skipped": 0,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 32,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "mscale": 1.0},
        "use_qk_norm": True,
        "use_mixed_mlp_moe": True,
        "tie_word_embeddings": True,
        "vocab_size": 128167,
        "vit_path": None,
        "use_mla": False,
    }
    read = read_hf_config(raw, "config.json")
    assert read.family == "hunyuan_v1_moe"
    assert replace(read.config, context=262144) == preset("a13b")


def test_families_refuse_what_they_cannot_say() -> None:
    with pytest.raises(BadDataError, match="cla_share=2 cannot be written as hunyuan_v1_moe"):
        write_hf_config("hunyuan_v1_moe", preset("tiny"), "float32")
    with pytest.raises(BadDataError, match="experts=16 cannot be written as llama"):
        write_hf_config("llama", preset("tiny"), "float32")


def test_convert_leaves_nothing_behind_when_the_disk_is_full(large: Path, tmp_path: Path) -> None:
    """A real full disk: a file size limit in a process of its own."""
    target = tmp_path / "out"
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from hunyuan.cli.main import run\n"
        "sys.exit(run(['convert', sys.argv[1], sys.argv[2]]))\n"
    )
    run = [sys.executable, "-c", program, str(large), str(target)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 1
    assert str(target) in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_targets_in_new_folders_and_in_forbidden_ones(tmp_path: Path) -> None:
    family, changes = FAMILIES["llama"]
    model = random_transformer(replace(preset("tiny"), **changes))
    source = write_folder(tmp_path / "m", model, family)
    convert(source, tmp_path / "new" / "er" / "x.GGUF")
    assert open_checkpoint(tmp_path / "new" / "er" / "x.GGUF").gguf is not None
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HunyuanError, match="file"):
        convert(source, tmp_path / "file" / "x.gguf")


def test_a_single_safetensors_file_stands_for_its_folder(large: Path) -> None:
    assert open_checkpoint(large / "model.safetensors").path == large
    save_file({"x": torch.ones(1)}, large / "other.safetensors")
    refused(large / "other.safetensors", BadDataError, "other.safetensors")


def test_convert_asks_for_disk_first(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("hunyuan.files.shutil.disk_usage", lambda _: free)
    with pytest.raises(DoesNotFitError, match=r"needs 7\.7 MB of disk, 1\.0 kB are free"):
        convert(large, tmp_path / "out")


def test_convert_does_not_overwrite(large: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        convert(large, large)
    (tmp_path / "x.gguf").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        convert(large, tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == b"mine"


def test_a_killed_conversion_leaves_no_target(large: Path, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from hunyuan.checkpoint.convert import convert\n"
        "def kill(done, total):\n"
        "    if done > total // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), progress=kill)\n"
    )
    target = tmp_path / "out"
    run = [sys.executable, "-c", program, str(large), str(target)]
    assert subprocess.run(run, check=False, env=os.environ).returncode == -9
    assert not target.exists()
    convert(large, target)
    assert open_checkpoint(target).config == preset("tiny")
    assert not list(tmp_path.glob("*.partial"))


def test_a_wrong_conversion_is_not_kept(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that swaps two experts must be caught by the comparison of logits."""
    from hunyuan.checkpoint import convert as module

    def swapped(
        folder: Path, config: ModelConfig, family: FamilyName, dtypes: Any, read: Any
    ) -> None:
        def other(leaf: str, kind: torch.dtype) -> torch.Tensor:
            return read(leaf.replace(".gate_proj.", ".up_proj."), kind)

        write_hf_folder(folder, config, family, dtypes, other)

    monkeypatch.setattr(module, "write_hf_folder", swapped)
    with pytest.raises(HunyuanError, match="the converted model differs"):
        convert(large, tmp_path / "out", verify=True)
    assert not list(tmp_path.glob("out*"))


def test_gguf_stores_vectors_and_router_as_float32(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    _, changes = FAMILIES["v1 moe"]
    model = random_transformer(replace(preset("tiny"), **changes))
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        write_gguf_file(
            file,
            model.config,
            dict.fromkeys(leaves(model.config), torch.bfloat16),
            lambda leaf, kind: leaf_of(model, leaf).detach().to(kind),
            {},
        )
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
    assert kinds["blk.0.ffn_gate_inp.weight"] == "F32"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.0.ffn_up_exps.weight"] == "BF16"


# ---------------------------------------------------------------- more faults


@pytest.mark.parametrize("mode", ["capacity-drop", "capacity-recycle"])
def test_checkpoints_of_capacity_models_convert_and_verify(tmp_path: Path, mode: Any) -> None:
    model = random_transformer(replace(preset("tiny"), routing=Routing(mode=mode)))
    source = write_folder(tmp_path / "m", model, "hunyuan")
    result = convert(source, tmp_path / "out", verify=True)
    assert result is not None
    assert result.max_difference == 0
    assert open_checkpoint(tmp_path / "out").config.routing.mode == mode


def test_fused_tensors_of_wrong_shapes_are_named(large: Path) -> None:
    """Every one of these could be broadcast or cut into something that fits."""
    for name, shape in {
        "mlp.shared_mlp.gate_and_up_proj": (224, 1),
        "self_attn.qkv_proj": (112, 1),
        "mlp.experts.3.gate_and_up_proj": (2, 80),
    }.items():
        stored = load_file(large / "model.safetensors")
        kept = {n: t.clone() for n, t in stored.items()}
        prefix = f"model.layers.0.{name.rpartition('.')[0]}."
        parts = ("q_proj", "k_proj", "v_proj") if "qkv" in name else ("gate_proj", "up_proj")
        for part in parts:
            kept.pop(f"{prefix}{part}.weight")
        kept[f"model.layers.0.{name}.weight"] = torch.ones(shape)
        save_file(kept, large / "model.safetensors")
        refused(large, BadDataError, f"model.layers.0.{name}.weight", str(list(shape)))
        save_file(stored, large / "model.safetensors")


def test_overflow_in_float16_is_refused_everywhere(tmp_path: Path) -> None:
    family, changes = FAMILIES["llama"]
    model = random_transformer(replace(preset("tiny"), **changes))
    name = "model.layers.1.self_attn.o_proj.weight"
    with torch.no_grad():
        model.get_parameter(name)[3, 3] = 1e6
    source = write_folder(tmp_path / "m", model, family)
    for target in ("out", "out.gguf"):
        with pytest.raises(UsageError, match=rf"{name} holds 1e\+06, beyond float16's 65504"):
            convert(source, tmp_path / target, dtype=torch.float16)
    with pytest.raises(UsageError, match=name):
        hunyuan.load_model(source, "float16")
    assert not list(tmp_path.glob("*out*"))


def test_absurd_counts_end_at_once(large: Path) -> None:
    path = large / "config.json"
    raw = json.loads(path.read_text())
    for change in ({"num_hidden_layers": 10**9}, {"num_experts": 10**9}):
        path.write_text(json.dumps(raw | change))
        refused(large, BadDataError, "config.json", str(10**9))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_theta": "x"}, ["rope_theta"]),
        ({"rope_scaling": "x"}, ["rope_scaling"]),
        ({"rope_scaling": {"type": "linear"}}, ["factor"]),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, ["factor"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, ["low_freq_factor"]),
        ({"rope_scaling": {"alpha": -5}}, ["alpha"]),
        ({"rope_scaling": {"factor": 2}}, ["default"]),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1}}}, ["full_attention"]),
        ({"tie_word_embeddings": "false"}, ["tie_word_embeddings"]),
        ({"use_cla": "x"}, ["use_cla"]),
        ({"rms_norm_eps": float("inf")}, ["rms_norm_eps"]),
        ({"hidden_size": 10**400}, ["hidden_size"]),
        ({"num_key_value_heads": 3}, ["kv_heads=3"]),
        ({"vocab_size": 0}, ["vocab=0"]),
        ({"routing_mode": "random"}, ["random"]),
        ({"use_rotary_pos_emb": False}, ["use_rotary_pos_emb"]),
    ],
)
def test_bad_values_are_faults_of_the_file(large: Path, change: dict, words: list[str]) -> None:
    path = large / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(large, BadDataError, "config.json", *words)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("qwen2", {"use_mrope": False, "sliding_window": 32768, "max_window_layers": 21}),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 32768}),
        ("llama", {"is_llama_config": True, "rope_interleaved": False, "mlp_bias": False}),
        ("llama", {"transformers.js_config": {}, "unsloth_fixed": True, "sliding_window": None}),
    ],
)
def test_keys_of_public_files_are_understood(tmp_path: Path, name: str, keys: dict) -> None:
    family, changes = FAMILIES[name]
    model = random_transformer(replace(preset("tiny"), **changes))
    folder = write_folder(tmp_path / "m", model, family)
    path = folder / "config.json"
    raw = {k: v for k, v in json.loads(path.read_text()).items() if k != "use_sliding_window"}
    path.write_text(json.dumps(raw | keys))
    assert open_checkpoint(folder).config == model.config


def test_token_ids_of_the_source_stay_with_the_model(large: Path, tmp_path: Path) -> None:
    path = large / "config.json"
    ids = {"bos_token_id": 1, "eos_token_id": [2, 7], "pad_token_id": 0}
    path.write_text(json.dumps(json.loads(path.read_text()) | ids))
    convert(large, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: written[key] for key in ids} == ids


def test_llama3_scalings_that_gguf_cannot_say_are_refused(tmp_path: Path) -> None:
    scaling = replace(LLAMA3.llama3, factor=16.0)
    rope = Rope(theta=5e5, llama3=scaling)
    model = random_transformer(replace(preset("tiny"), **{**PLAIN, "rope": rope}))
    source = write_folder(tmp_path / "m", model, "llama")
    with pytest.raises(BadDataError, match="GGUF could not say what it was"):
        convert(source, tmp_path / "x.gguf")


def test_a_tensor_in_two_files_is_refused(large: Path) -> None:
    stored = load_file(large / "model.safetensors")
    (large / "model.safetensors").unlink()
    save_file(stored, large / "a.safetensors")
    save_file({"model.norm.weight": torch.zeros(80)}, large / "b.safetensors")
    refused(large, BadDataError, "model.norm.weight", "a.safetensors")


def test_nothing_of_the_users_lies_where_we_write_aside(large: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "user.partial"
    theirs.mkdir()
    (theirs / "precious").write_text("mine")
    convert(large, tmp_path / "user")
    assert (theirs / "precious").read_text() == "mine"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
