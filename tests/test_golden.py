"""Parity with the reference implementations' logits (../shared/golden)."""

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hunyuan
from hunyuan.engine.cache import PagedCache
from hunyuan.engine.request import Request, SamplingParams
from hunyuan.engine.scheduler import Segment
from hunyuan.model.transformer import Transformer

FOLDERS = [
    "large_instruct",
    "large_pretrain",
    "no_cla",
    "dense",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "llama",
    "mixtral",
]


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, golden: Path) -> Path:
    return golden / request.param


def expected_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "expected.safetensors")


def test_logits_equal_the_reference(folder: Path) -> None:
    expected = expected_of(folder)
    model = hunyuan.load_model(folder)
    with torch.no_grad():
        logits = model(expected["input_ids"])
    assert logits.dtype == torch.float32
    assert (logits - expected["logits"]).abs().max() < 2e-5


def test_hidden_states_equal_the_reference(folder: Path) -> None:
    expected = expected_of(folder)
    if "hidden_states" not in expected:
        pytest.skip(f"{folder.name} has no hidden states")
    model = hunyuan.load_model(folder)
    inputs: list[torch.Tensor] = []
    for block in model.model.layers:
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        final, _ = model.model(expected["input_ids"])
    for found, state in zip([*inputs, final], expected["hidden_states"], strict=True):
        assert (found - state).abs().max() < 2e-4


def through_the_cache(model: Transformer, ids: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Logits of one sequence run in pieces of the given sizes through the engine's cache."""
    cache = PagedCache(model.config, 3, torch.float32)
    request = Request(ids.tolist(), SamplingParams(), limit=1)
    parts, start = [], 0
    with torch.inference_mode():
        for size in sizes:
            piece = slice(start, start + size)
            view = cache.view([Segment(request, start, size, (2, 0))])
            parts.append(model(ids[None, piece], torch.arange(start, start + size)[None], view))
            start += size
    assert start == len(ids)
    return torch.cat(parts, 1)[0]


@pytest.mark.parametrize(
    "sizes", [[1] * 48, [48], [16, 16, 16], [7, 30, 1, 1, 9], [47, 1]], ids=str
)
def test_cached_runs_equal_the_reference(folder: Path, sizes: list[int]) -> None:
    expected = expected_of(folder)
    model = hunyuan.load_model(folder)
    found = through_the_cache(model, expected["input_ids"][0], sizes)
    assert (found - expected["logits"][0]).abs().max() < 1e-4


def test_batched_decode_equals_the_reference(folder: Path) -> None:
    """Two sequences in one flat row a step: one decodes token by token while the other prefills."""
    expected = expected_of(folder)
    model = hunyuan.load_model(folder)
    ids = expected["input_ids"]
    cache = PagedCache(model.config, 4, torch.float32)
    blocks = [(3, 1), (0, 2)]
    requests = [Request(row.tolist(), SamplingParams(), limit=1) for row in ids]
    found: list[list[torch.Tensor]] = [[], []]
    done = [0, 0]
    with torch.inference_mode():
        while min(done) < 48:
            counts = [min(1, 48 - done[0]), min(9, 48 - done[1])]
            parts = [i for i in (0, 1) if counts[i]]
            view = cache.view([Segment(requests[i], done[i], counts[i], blocks[i]) for i in parts])
            flat = torch.cat([ids[i, done[i] : done[i] + counts[i]] for i in parts])
            places = torch.cat([torch.arange(done[i], done[i] + counts[i]) for i in parts])
            logits = model(flat[None], places[None], view)[0]
            for i, piece in zip(parts, logits.split([counts[i] for i in parts]), strict=True):
                found[i].append(piece)
                done[i] += len(piece)
    assert (torch.stack([torch.cat(f) for f in found]) - expected["logits"]).abs().max() < 1e-4


def test_bfloat16_drifts_no_more_than_the_reference(folder: Path) -> None:
    """Median of the logits' difference, and share of equal routes: near-ties flip experts.

    The released code drifts by a median of 0.026 to 0.029 on the first three folders, a literal
    script with the shared cache by up to 0.033 (../shared/golden/README.md). Seen here: 0.012 to
    0.026, at least 96 % of routes equal.
    """
    expected = expected_of(folder)
    exact, rounded = (hunyuan.load_model(folder, dtype=d) for d in ("float32", "bfloat16"))
    with torch.no_grad():
        _, routes = exact.model(expected["input_ids"])
        hidden, rounded_routes = rounded.model(expected["input_ids"])
        difference = (rounded.logits(hidden) - expected["logits"]).abs()
    assert difference.median() < 0.030
    for one, two in zip(routes, rounded_routes, strict=True):
        same = (one.choice.sort(-1).values == two.choice.sort(-1).values).float().mean()
        assert same > 0.95


def test_keys_without_effect_warn(golden: Path, tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(golden / "large_instruct", tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    raw = json.loads(path.read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hunyuan.load_model(tmp_path / "m")
    path.write_text(json.dumps(raw | {"capacity_factor": 2.0}))
    with pytest.warns(UserWarning, match="capacity_factor=2.0 has no effect"):
        hunyuan.load_model(tmp_path / "m")
