"""Quantising: the search beats plain rounding, and quantised models convert, load and run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import random_transformer, write_byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_checkpoint import write_folder

import hunyuan
from hunyuan.checkpoint.calibrate import calibrate
from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.convert import convert
from hunyuan.checkpoint.hf_config import FamilyName
from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.load import load_packed, pack_transformer
from hunyuan.checkpoint.quantize import block_types
from hunyuan.cli.convert import convert as command
from hunyuan.engine.cache import PagedCache
from hunyuan.errors import BadDataError, HunyuanError, UsageError
from hunyuan.formats.ggml import dequantize
from hunyuan.formats.gguf import BLOCK, GGMLType
from hunyuan.model.config import ModelConfig, Rope, preset
from hunyuan.model.transformer import Transformer
from hunyuan.native.library import unavailable
from hunyuan.native.quantize import quantize
from hunyuan.native.transformer import NativeTransformer

pytestmark = pytest.mark.skipif(bool(unavailable()), reason="the kernels are not compiled")

T = GGMLType
SYMMETRIC = {T.Q8_0: 127, T.Q4_0: 7, T.Q5_0: 15, T.Q6_K: 31}
AFFINE = {T.Q4_1: 15, T.Q5_1: 31, T.Q4_K: 15, T.Q5_K: 31}
QUANTISED = sorted(SYMMETRIC | AFFINE)


def normal(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return 0.02 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def again(x: torch.Tensor, kind: GGMLType, **options: Any) -> torch.Tensor:
    """What is left of x after quantising."""
    blocks = quantize(x, kind, **options)
    assert blocks.shape == (len(x), x.shape[1] // BLOCK[kind][0] * BLOCK[kind][1])
    return dequantize(blocks.view(-1), kind, torch.float32).view(x.shape)


def rounded_to_nearest(x: torch.Tensor, kind: GGMLType) -> torch.Tensor:
    """The extremes of each group become the ends of the quants, with float32 scales."""
    groups = x.view(len(x), -1, 16 if kind == T.Q6_K else 32)
    if kind in SYMMETRIC:
        d = groups.abs().amax(-1, keepdim=True) / SYMMETRIC[kind]
        return ((groups / d).round() * d).view(x.shape)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    d = (high - low) / AFFINE[kind]
    return (((groups - low) / d).round() * d + low).view(x.shape)


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda k: k.name)
def test_the_search_beats_rounding_to_nearest(kind: GGMLType) -> None:
    x = normal(64, 1024)
    ours = (again(x, kind) - x).square().mean()
    # Scales of six bits are themselves rounded, the naive ones are not.
    assert ours < 0.97 * (rounded_to_nearest(x, kind) - x).square().mean()


@pytest.mark.parametrize("kind", [T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1], ids=lambda k: k.name)
def test_the_search_beats_the_reference(kind: GGMLType) -> None:
    gguf = pytest.importorskip("gguf")
    x = normal(64, 1024)
    x[:, ::37] *= 5
    number = gguf.GGMLQuantizationType(int(kind))
    reference = gguf.dequantize(gguf.quantize(x.numpy(), number), number)
    ours = np.square(again(x, kind).numpy() - x.numpy()).mean()
    assert ours < np.square(reference - x.numpy()).mean()


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda k: k.name)
def test_the_reference_reads_our_blocks(kind: GGMLType) -> None:
    gguf = pytest.importorskip("gguf")
    x = normal(8, 512)
    blocks = quantize(x, kind)
    theirs = gguf.dequantize(blocks.numpy(), gguf.GGMLQuantizationType(int(kind)))
    assert np.square(theirs - x.numpy()).mean() < 0.02 * x.square().mean()
    found = dequantize(blocks.view(-1), kind, torch.float32).view(x.shape)
    assert np.array_equal(theirs, found.numpy())


def representable(kind: GGMLType, seed: int) -> torch.Tensor:
    """(16, 512) of exact values, every group from the lowest quant to the highest."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high + 1, shape, generator=generator).float()

    def half(*shape: int) -> torch.Tensor:
        return (0.001 + 0.01 * torch.rand(*shape, generator=generator)).half().float()

    if kind in AFFINE:
        q = whole(0, AFFINE[kind], 16, 2, 8, 32)
        q[..., 3], q[..., 21] = 0, AFFINE[kind]
        if kind in (T.Q4_1, T.Q5_1):
            return (q * half(16, 2, 8, 1) - half(16, 2, 8, 1)).view(16, 512)
        s, m = whole(8, 63, 2, 16, 2, 8, 1)
        s[:, :, 2], m[:, :, 5] = 63, 63
        d, dmin = half(2, 16, 2, 1, 1)
        return ((d * s) * q - dmin * m).view(16, 512)
    top = SYMMETRIC[kind]
    size = 16 if kind == T.Q6_K else 32
    q = whole(-top, top, 16, 2, 256 // size, size)
    q[..., 7] = -top - (kind != T.Q8_0)
    if kind != T.Q6_K:
        return (q * half(16, 2, 256 // size, 1)).view(16, 512)
    s = whole(-127, 127, 16, 2, 16, 1)
    s[:, :, 4] = -128
    return ((half(16, 2, 1, 1) * s) * q).view(16, 512)


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda k: k.name)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_what_is_representable_comes_back(kind: GGMLType, seed: int) -> None:
    x = representable(kind, seed)
    assert (again(x, kind) - x).square().mean() < 1e-6 * x.square().mean()


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda k: k.name)
def test_importance_moves_the_error_to_where_it_matters_less(kind: GGMLType) -> None:
    x = normal(64, 1024)
    importance = torch.rand(1024, generator=torch.Generator().manual_seed(1)) ** 4

    def weighted(y: torch.Tensor) -> float:
        return float(((y - x).square() * importance).mean())

    assert weighted(again(x, kind, importance=importance)) < 0.9 * weighted(again(x, kind))
    same = again(x, kind, importance=torch.full((1024,), 7.0))
    assert torch.equal(same, again(x, kind))


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda k: k.name)
def test_degenerate_rows(kind: GGMLType) -> None:
    x = torch.zeros(5, 512)
    x[1] = 0.25
    x[2] = 1e-30
    x[3, 100] = 3.0
    x[4] = -torch.rand(512, generator=torch.Generator().manual_seed(0)) - 10
    y = again(x, kind)
    assert torch.equal(y[0], x[0])
    assert (y - x).abs().max() < 0.8  # half a step of Q4_0 at 11
    assert (y[1] - x[1]).abs().max() < 1e-3
    unused = again(x, kind, importance=torch.zeros(512))
    assert torch.equal(unused, y)
    for bad in (float("nan"), float("inf"), 1e30):
        x[3, 100] = bad
        with pytest.raises(ValueError, match="not finite or too large"):
            quantize(x, kind)


# ---------------------------------------------------------------- models

SIZES: dict[str, Any] = {"hidden": 256, "head_dim": 32, "heads": 4, "kv_heads": 2, "ffn": 96}
DENSE = {**SIZES, "experts": 0, "shared_experts": 0, "cla_share": 1}
MODELS: dict[str, tuple[FamilyName, dict[str, Any]]] = {
    "dense": ("hunyuan_v1_dense", DENSE),
    "llama": ("llama", {**DENSE, "qk_norm": False, "rope": Rope(theta=5e5), "tied": False}),
    "moe": ("hunyuan_v1_moe", {**SIZES, "cla_share": 1, "top_k": 2, "norm_topk_prob": True}),
    "cross-layer": ("hunyuan", SIZES),
    "mixtral": (
        "mixtral",
        {**SIZES, "qk_norm": False, "cla_share": 1, "shared_experts": 0, "experts": 4}
        | {"top_k": 2, "norm_topk_prob": True, "rope": Rope(theta=1e6)},
    ),
}


def small(name: str) -> tuple[FamilyName, Transformer]:
    family, changes = MODELS[name]
    return family, random_transformer(replace(preset("tiny"), **changes))


def native_logits(model: NativeTransformer, ids: torch.Tensor) -> torch.Tensor:
    """Ids (T,) -> logits (T, V)."""

    class View:
        k_scale = v_scale = None
        counts = torch.tensor([len(ids)], dtype=torch.int32)
        tables = torch.zeros(1, 1, dtype=torch.int32)

    cache = PagedCache(model.config, 1, torch.float32)
    view: Any = View()
    view.k, view.v = cache.k, cache.v
    wanted = torch.arange(len(ids), dtype=torch.int32)
    return model.step_logits(ids, torch.arange(len(ids)), view, wanted)


CASES = [
    (name, scheme, suffix)
    for name in MODELS
    for scheme in ("q8", "q4")
    for suffix in ("", ".gguf")
    if not (name == "cross-layer" and suffix)
]


@pytest.mark.parametrize(("name", "scheme", "suffix"), CASES)
def test_quantised_models_convert_and_run(
    tmp_path: Path, name: str, scheme: Any, suffix: str
) -> None:
    family, model = small(name)
    source = write_folder(tmp_path / "m", model, family)
    target = tmp_path / f"q{suffix}"
    comparison = convert(source, target, quantize=scheme, verify=True)
    assert comparison is not None
    assert comparison.quantized
    assert not comparison.lossless
    # Where experts nearly tie, others run: random models of a few experts show it most.
    limit = {"q8": 0.03, "q4": 0.3}[scheme] + 0.3 * bool(model.config.experts)
    assert 0 < comparison.mean_difference < limit * comparison.spread

    checkpoint, types = open_checkpoint(target), block_types(model.config, scheme)
    assert checkpoint.family == family
    for leaf, shape in leaves(model.config).items():
        if leaf in types:
            assert checkpoint.stored_type(leaf) == types[leaf]
            kind, blocks = checkpoint.read_stored(leaf)
            assert (kind, checkpoint.stored_dtype(leaf)) == (types[leaf], None)
            whole = checkpoint.read(leaf)
            assert torch.equal(dequantize(blocks.flatten(), kind, torch.float32), whole.flatten())
            assert torch.equal(checkpoint.read(leaf, rows=slice(1, 3)), whole[1:3])
        else:
            assert checkpoint.stored_dtype(leaf) == torch.float32, leaf
            assert len(shape) == 1 or leaf.endswith("gate.wg.weight")

    ids = torch.randint(384, (20,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = hunyuan.load_model(target)(ids[None])[0]
    found = native_logits(load_packed(target), ids)
    # The kernels round activations to eight bits; experts that nearly tie may then swap.
    difference = (found - wanted).abs().mean(-1) / wanted.std()
    assert difference.median() < (0.1 if model.config.experts else 0.05)
    if not model.config.experts:
        assert difference.max() < 0.1


@pytest.mark.parametrize(("name", "suffix"), [("moe", ""), ("moe", ".gguf"), ("mixtral", "")])
def test_quantised_models_convert_back_to_floats(tmp_path: Path, name: str, suffix: str) -> None:
    family, model = small(name)
    convert(write_folder(tmp_path / "m", model, family), tmp_path / f"q{suffix}", quantize="q4")
    result = convert(tmp_path / f"q{suffix}", tmp_path / "f", dtype=torch.float32, verify=True)
    assert result is not None
    assert result.lossless
    assert result.max_difference < 1e-5
    quantised, floats = open_checkpoint(tmp_path / f"q{suffix}"), open_checkpoint(tmp_path / "f")
    for leaf in leaves(model.config):
        assert torch.equal(quantised.read(leaf), floats.read(leaf)), leaf


def test_blocks_of_the_wanted_type_are_copied(tmp_path: Path) -> None:
    family, model = small("llama")
    convert(write_folder(tmp_path / "m", model, family), tmp_path / "a.gguf", quantize="q4")
    result = convert(tmp_path / "a.gguf", tmp_path / "b", quantize="q4", verify=True)
    assert result is not None
    assert result.lossless
    one, two = open_checkpoint(tmp_path / "a.gguf"), open_checkpoint(tmp_path / "b")
    for leaf in leaves(model.config):
        assert torch.equal(one.read_stored(leaf)[1], two.read_stored(leaf)[1]), leaf


def test_other_engines_read_the_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    family, model = small("moe")
    convert(write_folder(tmp_path / "m", model, family), tmp_path / "q.gguf", quantize="q4")
    reader = gguf.GGUFReader(tmp_path / "q.gguf")
    assert reader.get_field("general.quantization_version").contents() == 2
    tensors = {t.name: t for t in reader.tensors}
    assert tensors["blk.1.ffn_up_exps.weight"].tensor_type.name == "Q4_K"
    assert tensors["blk.1.ffn_down_exps.weight"].tensor_type.name == "Q4_1"  # rows of 96
    assert tensors["token_embd.weight"].tensor_type.name == "Q6_K"
    assert tensors["blk.1.ffn_gate_inp.weight"].tensor_type.name == "F32"
    expert = gguf.dequantize(tensors["blk.1.ffn_up_exps.weight"].data[3], 12)
    ours = open_checkpoint(tmp_path / "q.gguf").read("model.layers.1.mlp.experts.3.up_proj.weight")
    assert np.array_equal(expert, ours.numpy())


@pytest.mark.parametrize("name", ["dense", "moe", "cross-layer"])
def test_calibration_measures_the_inputs(tmp_path: Path, name: str) -> None:
    family, model = small(name)
    checkpoint = open_checkpoint(write_folder(tmp_path / "m", model, family))
    ids = torch.randint(384, (3, 40), generator=torch.Generator().manual_seed(0))
    found = calibrate(checkpoint, ids)
    inputs: dict[str, torch.Tensor] = {}

    def listen(leaf: str) -> Any:
        return lambda module, args: inputs.update({leaf: args[0].square().flatten(0, -2).mean(0)})

    for leaf, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(listen(f"{leaf}.weight"))
    with torch.no_grad():
        model(ids)
    for leaf, expected in inputs.items():
        torch.testing.assert_close(found[leaf], expected, rtol=1e-3, atol=1e-5)
    matrices = set(block_types(model.config, "q4")) - {"model.embed_tokens.weight"}
    assert matrices <= set(found)
    for leaf in matrices:
        assert found[leaf].shape == (leaves(model.config)[leaf][1],)


def test_calibrated_conversion(tmp_path: Path) -> None:
    family, model = small("llama")
    source = write_folder(tmp_path / "m", model, family)
    write_byte_tokenizer(source)
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    words = [str(source), str(tmp_path / "q"), "--quantize", "q4", "--verify"]
    words += ["--calibration", str(tmp_path / "text.txt")]
    done = CliRunner(env={"HUNYUAN_LANG": "en"}).invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "logits differ by at most" in done.output
    convert(source, tmp_path / "plain", quantize="q4")
    one, two = open_checkpoint(tmp_path / "q"), open_checkpoint(tmp_path / "plain")
    leaf = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(one.read(leaf), two.read(leaf))


# ---------------------------------------------------------------- faults


def one_line(error: HunyuanError, *words: str) -> None:
    for text in (error.en, error.zh):
        assert "\n" not in text
        for word in words:
            assert word in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quantize", "q3"], "--quantize 'q3' is unknown; use q8 or q4"),
        (["--calibration", "t.txt"], "--calibration t.txt: only has a meaning with --quantize"),
        (["--quantize", "q4", "--dtype", "float16"], "--dtype float16: the matrices have the type"),
        (["--quantize", "q4", "--calibration", "no.txt"], "no.txt: cannot be read"),
    ],
)
def test_wrong_options_are_one_line(
    tmp_path: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", "en")
    family, model = small("dense")
    source = write_folder(tmp_path / "m", model, family)
    done = CliRunner().invoke(command, [str(source), str(tmp_path / "q"), *options])
    error = done.exception if isinstance(done.exception, HunyuanError) else None
    output = f"{error}\n" if error else done.output
    assert words in output
    assert len(output.strip().split("\n")) == 1
    assert not (tmp_path / "q").exists()


def test_without_kernels_quantising_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from hunyuan.checkpoint import quantize as module

    monkeypatch.setattr(module, "unavailable", lambda: "not compiled: install g++")
    with pytest.raises(UsageError) as caught:
        module.parse_scheme("q4")
    one_line(caught.value, "--quantize q4", "not compiled: install g++")


def test_rows_that_fit_no_block_are_named(tmp_path: Path) -> None:
    family, model = small("dense")
    model = random_transformer(replace(model.config, ffn=100))
    source = write_folder(tmp_path / "m", model, family)
    with pytest.raises(UsageError) as caught:
        convert(source, tmp_path / "q", quantize="q4")
    one_line(caught.value, "model.layers.0.mlp.down_proj.weight", "100", "32")
    assert not (tmp_path / "q").exists()


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    family, model = small("dense")
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[3, 5] = float("nan")
    source = write_folder(tmp_path / "m", model, family)
    with pytest.raises(BadDataError) as caught:
        convert(source, tmp_path / "q.gguf", quantize="q8")
    one_line(caught.value, "model.layers.1.self_attn.o_proj.weight")
    assert not list(tmp_path.glob("*q.gguf*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"types": 3}, "quantization_config.types"),
        ({"types": {"model.embed_tokens.weight": "Q9_Z"}}, "'Q9_Z'"),
        ({"types": {"model.embed_tokens.weight": ["Q4_K"]}}, "['Q4_K']"),
        ({"types": {"model.norm.weight": "Q8_0"}}, "model.norm.weight"),
        ({"types": {"no.such.weight": "Q8_0"}}, "no.such.weight"),
        ({"quant_method": "gptq"}, "quantization_config"),
        ({"types": {}}, "U8"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    family, model = small("dense")
    convert(write_folder(tmp_path / "m", model, family), tmp_path / "q", quantize="q8")
    path = tmp_path / "q" / "config.json"
    raw = json.loads(path.read_text())
    raw["quantization_config"] |= change
    path.write_text(json.dumps(raw))
    with pytest.raises(BadDataError) as caught:
        open_checkpoint(tmp_path / "q")
    one_line(caught.value, words)


def test_blocks_of_another_width_are_refused(tmp_path: Path) -> None:
    family, model = small("dense")
    convert(write_folder(tmp_path / "m", model, family), tmp_path / "q", quantize="q8")
    weights = tmp_path / "q" / "model.safetensors"
    stored = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    leaf = "model.layers.0.mlp.down_proj.weight"
    for cut, words in ((1, "34"), (34, "expected")):
        save_file(stored | {leaf: stored[leaf][:, cut:].contiguous()}, weights)
        with pytest.raises(BadDataError) as caught:
            open_checkpoint(tmp_path / "q")
        assert leaf in caught.value.en
        assert words in caught.value.en


def test_the_packed_float_model_is_close_to_its_q8(tmp_path: Path) -> None:
    family, model = small("cross-layer")
    convert(write_folder(tmp_path / "m", model, family), tmp_path / "q", quantize="q8")
    ids = torch.arange(16)
    exact = native_logits(pack_transformer(model), ids)
    found = native_logits(load_packed(tmp_path / "q"), ids)
    assert (found - exact).abs().mean() < 0.05 * exact.std()
    assert isinstance(model.config, ModelConfig)
