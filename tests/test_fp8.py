"""Checkpoints in eight-bit floats: every form of scale, read exactly, converted, or refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_random_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from hunyuan.checkpoint import fp8
from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.convert import convert
from hunyuan.checkpoint.leaves import is_router
from hunyuan.checkpoint.load import load_checkpoint
from hunyuan.errors import BadDataError
from hunyuan.model.config import preset
from hunyuan.native.library import unavailable

FORMS = ("one", "a row", "a block")


def scale_for(weight: Tensor, form: str) -> Tensor:
    rows, columns = weight.shape
    shape = {
        "one": (),
        "a row": (rows, 1),
        "a block": (-(-rows // 128), -(-columns // 128)),
    }[form]
    return torch.rand(shape, generator=torch.Generator().manual_seed(rows)) * 0.01 + 0.001


def spread_by_hand(factors: Tensor, form: str, rows: int, columns: int) -> Tensor:
    """The factor of every weight; nothing in common with what is tested."""
    if form != "a block":
        return factors * torch.ones(rows, columns)
    return torch.from_numpy(np.kron(factors.numpy(), np.ones((128, 128), np.float32)))[
        :rows, :columns
    ]


@pytest.fixture(params=FORMS)
def eight_bits(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A folder in eight bits, and its matrices as they must be read."""
    # No multiples of 128, whole blocks of 32.
    config = replace(preset("tiny"), hidden=160, head_dim=16, ffn=288, experts=4, layers=2)
    folder = write_random_checkpoint(tmp_path / "model", config)
    file = folder / "model.safetensors"
    tensors, wanted = {}, {}
    for name, tensor in load_file(file).items():
        if tensor.dim() < 2 or is_router(name) or "embed" in name or "lm_head" in name:
            tensors[name] = tensor
            continue
        factors = scale_for(tensor, request.param)
        spread = spread_by_hand(factors, request.param, *tensor.shape)
        numbers = (tensor.float() / spread).to(torch.float8_e4m3fn)
        base = name.removesuffix(".weight")
        end = "_inv" if request.param == "a block" else ""
        tensors |= {name: numbers, f"{base}.weight_scale{end}": factors}
        tensors[f"{base}.input_scale"] = torch.ones(())
        wanted[name] = numbers.float() * spread
    save_file(tensors, file, {"format": "pt"})
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "static"}
    (folder / "config.json").write_text(json.dumps(raw))
    assert wanted
    return folder, wanted


def test_every_weight_is_number_times_factor(eight_bits: tuple[Path, dict[str, Tensor]]) -> None:
    folder, wanted = eight_bits
    checkpoint = open_checkpoint(folder)
    for name, weight in wanted.items():
        assert torch.equal(checkpoint.read(name), weight), name
        assert checkpoint.stored_dtype(name) is None
        rows = slice(3, min(11, len(weight)))
        assert torch.equal(checkpoint.read(name, rows=rows), weight[rows]), name
        kind, blocks = checkpoint.read_stored(name)
        assert torch.equal(blocks.view(torch.bfloat16), weight.bfloat16()), (name, kind)


@pytest.mark.skipif(unavailable() is not None, reason="quantising needs the compiled kernels")
def test_converted_it_computes_the_same(
    eight_bits: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    folder, _ = eight_bits
    ids = torch.randint(0, 100, (1, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = load_checkpoint(open_checkpoint(folder), torch.float32)(ids)
        convert(folder, tmp_path / "floats", dtype=torch.float32, verify=True)
        again = load_checkpoint(open_checkpoint(tmp_path / "floats"), torch.float32)(ids)
        assert torch.equal(again, exact)
        convert(folder, tmp_path / "q8", quantize="q8", verify=True)
        small = load_checkpoint(open_checkpoint(tmp_path / "q8"), torch.float32)(ids)
        assert (small - exact).abs().mean() < 0.05 * exact.std()


@settings(max_examples=60, deadline=None)
@given(
    experts=st.integers(0, 3),
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    form=st.sampled_from(FORMS),
    data=st.data(),
)
def test_stacked_and_cut(
    experts: int, rows: int, columns: int, form: str, data: st.DataObject
) -> None:
    """Weights of stacked experts, and any part of any weight, equal the whole cut afterwards."""
    lead = (experts,) if experts else ()
    shape = (*lead, rows, columns)
    inner = {"one": (), "a row": (rows, 1), "a block": (-(-rows // 128), -(-columns // 128))}[form]
    factors = torch.rand((*lead, *inner))
    numbers = torch.randn(shape).to(torch.float8_e4m3fn)
    assert fp8.fits(shape, tuple(factors.shape))
    whole = fp8.widened(numbers, factors, shape, None)
    matrices = whole if experts else whole[None]
    for number, matrix in enumerate(matrices):
        own = factors[number] if experts else factors
        expected = (numbers[number] if experts else numbers).float()
        corner = float(expected[-1, -1] * own.flatten()[-1])
        assert float(matrix[-1, -1]) == pytest.approx(corner)
        assert float(matrix[0, 0]) == pytest.approx(float(expected[0, 0] * own.flatten()[0]))
    at = data.draw(st.integers(0, shape[0] - 1))
    assert torch.equal(fp8.widened(numbers[at], factors, shape, at), whole[at])
    part = slice(at, data.draw(st.integers(at + 1, shape[0])))
    assert torch.equal(fp8.widened(numbers[part], factors, shape, part), whole[part])


def damaged(folder: Path, change: str) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n, t in tensors.items() if t.dtype == torch.float8_e4m3fn)
    base = name.removesuffix(".weight")
    scale = next(n for n in tensors if n.startswith(base + ".weight_scale"))
    if change == "missing":
        del tensors[scale]
    else:
        tensors[scale] = torch.ones(7, 3)
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize(("change", "words"), [("missing", "without"), ("misshapen", "[7, 3]")])
def test_faults_are_named(
    change: str, words: str, eight_bits: tuple[Path, dict[str, Tensor]]
) -> None:
    folder, _ = eight_bits
    damaged(folder, change)
    with pytest.raises(BadDataError) as caught:
        open_checkpoint(folder)
    assert words in caught.value.en
    assert "weight" in caught.value.zh


def test_other_quantisations_stay_refused(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "model", preset("tiny"))
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(BadDataError, match="quantization_config"):
        open_checkpoint(folder)
