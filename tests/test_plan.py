"""Plans against published totals, against what training really keeps, and against each other."""

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.cli.main import cli
from hunyuan.errors import DoesNotFitError, UsageError
from hunyuan.model.config import ModelConfig, Routing, preset
from hunyuan.model.transformer import build, init_weights
from hunyuan.parallel.layout import Layout
from hunyuan.plan.activations import layer_activations
from hunyuan.plan.hardware import Cluster, accelerators, parse_cluster
from hunyuan.plan.machine import MachineJob, plan_machine
from hunyuan.plan.serving import ServingJob, plan_serving
from hunyuan.plan.training import (
    TrainingJob,
    best_layout,
    layer_parameters,
    plan_training,
    require_possible,
    state_parameters,
)
from hunyuan.train import kernels
from hunyuan.train.batch import Batch
from hunyuan.train.losses import Forward, NextToken
from hunyuan.train.recipe import DropoutSettings, LossSettings

LARGE = preset("large")
H100 = accelerators()["H100-80G"]


def training(**changes: object) -> TrainingJob:
    job = TrainingJob(
        config=LARGE,
        cluster=Cluster(256, H100),
        layout=Layout(data=256, expert=8),
        sequence=4096,
        batch=256 * 4096,
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def value(figures: object, name: str) -> float:
    found = [figure.value for figure in figures if figure.name == name]  # type: ignore[attr-defined]
    assert len(found) == 1, name
    return float(found[0])


@pytest.mark.parametrize(
    ("state_bytes", "devices", "gigabytes"),
    [(16, 64, 97), (16, 128, 49), (16, 256, 24), (16, 2048, 3), (18, 96, 73), (12, 512, 9)],
)
def test_training_state_as_published(state_bytes: int, devices: int, gigabytes: int) -> None:
    job = training(
        state_bytes=state_bytes, cluster=Cluster(devices, H100), layout=Layout(data=devices)
    )
    assert value(plan_training(job).memory, "state") / 1e9 == pytest.approx(gigabytes, abs=0.6)


def test_local_parameters_of_256_devices() -> None:
    """The figure that a sharded build on the fake back end gave: 1,521.9 M of the untied model."""
    untied = replace(LARGE, tied=False)
    assert state_parameters(untied, Layout(data=256, expert=8)) / 1e6 == pytest.approx(
        1521.9, rel=1e-3
    )


def test_a_layer_and_what_it_keeps() -> None:
    layout = Layout(data=256, expert=8)
    assert 2 * layer_parameters(LARGE, layout) / 1e9 == pytest.approx(2.3, abs=0.05)
    assert 2 * layer_parameters(LARGE, Layout(data=256)) / 1e9 == pytest.approx(12.1, abs=0.1)
    plan = plan_training(training())
    assert value(plan.memory, "activations") / 1e9 == pytest.approx(3.7, abs=0.05)
    assert value(plan.memory, "recomputed layer") / 1e9 == pytest.approx(1.6, abs=0.1)


@pytest.mark.parametrize(("expert", "seconds"), [(8, 7.8), (16, 4.2)])
def test_traffic_over_adapters(expert: int, seconds: float) -> None:
    plan = plan_training(training(layout=Layout(data=256, expert=expert)))
    found = value(plan.traffic, "gather weights") + value(plan.traffic, "reduce gradients")
    # The published estimate leaves out that a device already has its own part, 1 of 16 or 32.
    assert 0.93 * seconds < found < seconds


@pytest.mark.parametrize(
    ("share", "speed"), [(0.30, 933), (0.35, 1089), (0.40, 1244), (0.45, 1400)]
)
def test_speed_at_a_share_of_the_peak(share: float, speed: float) -> None:
    plan = plan_training(training(share_of_peak=share))
    per_device = 256 * 4096 / value(plan.time, "computation") / 256
    assert per_device == pytest.approx(speed, rel=0.005)


def test_the_links_set_the_pace_of_small_steps() -> None:
    """Below about 10 k tokens a device the weights arrive later than they are used."""
    small = plan_training(training())
    assert small.seconds > value(small.time, "computation")
    large = plan_training(training(rows=4, batch=4 * 256 * 4096))
    exchange = value(large.traffic, "exchange of tokens")
    assert large.seconds == pytest.approx(value(large.time, "computation") + exchange)


@pytest.mark.parametrize(
    ("weights", "gpus", "each"), [("bf16", 16, 49), ("fp8", 8, 49), ("int4", 8, 26)]
)
def test_serving_memory_as_published(weights: str, gpus: int, each: float) -> None:
    job = ServingJob(
        config=LARGE,
        cluster=Cluster(gpus, H100),
        weights=weights,
        cache="bf16",
        sequence=131072,
        streams=1,
    )
    plan = plan_serving(job)
    assert value(plan.memory, "weights") / 1e9 == pytest.approx(each, abs=0.8)
    # One key/value head a device, however many devices.
    assert value(plan.memory, "cache") / 1e9 == pytest.approx(10.7 / 8, abs=0.05)
    assert plan.fits
    full = replace(job, streams=plan.streams)
    assert plan_serving(full).fits
    assert not plan_serving(replace(job, streams=plan.streams + 1)).fits


def test_cache_formula() -> None:
    assert LARGE.kv_bytes_per_token() == 81_920


def test_experts_from_disk() -> None:
    job = MachineJob(
        config=LARGE,
        weights="q4",
        cache="bf16",
        sequence=4096,
        memory=20e9,
        bandwidth=25e9,
        disk=3e9,
    )
    plan = plan_machine(job)
    assert not plan.fits
    assert plan.fits_from_disk
    assert value(plan.speed, "read from disk per token") / 1e9 == pytest.approx(12.7, rel=0.05)
    assert value(plan.speed, "token") == pytest.approx(4, rel=0.1)
    assert not plan_machine(replace(job, memory=12e9)).fits_from_disk
    assert plan_machine(replace(job, memory=300e9)).fits


SHAPES = {
    "dense": {},
    "grouped": {"cla_share": 2, "qk_norm": True},
    "dropless": {"experts": 8, "shared_experts": 1, "cla_share": 2, "qk_norm": True},
    "recycle": {
        **{"experts": 8, "shared_experts": 1, "cla_share": 2, "qk_norm": True},
        "routing": Routing(mode="capacity-recycle", capacity_factor=1.25, capacity_group=256),
    },
    "two experts": {"experts": 4, "top_k": 2},
}


@pytest.mark.skipif(
    not kernels.usable(preset("a13b"), torch.bfloat16), reason="needs the compiled kernels"
)
@pytest.mark.parametrize("shape", SHAPES)
def test_activations_are_those_training_keeps(shape: str) -> None:
    """Two depths, so that the embedding and the loss cancel."""

    def config(layers: int) -> ModelConfig:
        return ModelConfig(
            vocab=512,
            hidden=256,
            layers=layers,
            heads=8,
            kv_heads=2,
            head_dim=32,
            ffn=640,
            context=512,
            **SHAPES[shape],  # type: ignore[arg-type]
        )

    tokens = 512
    kept = (_kept(config(4), 2, 256) - _kept(config(2), 2, 256)) / 2
    assert layer_activations(config(4)) * tokens == pytest.approx(kept, rel=0.1)


def _kept(config: ModelConfig, rows: int, length: int) -> int:
    """Bytes of everything autograd keeps of one forward pass, weights apart."""
    model = build(config, torch.bfloat16).to_empty(device="cpu")
    init_weights(model, torch.Generator().manual_seed(0))
    ids = torch.randint(0, config.vocab, (rows, length))
    batch = Batch(
        ids=ids,
        targets=ids,
        positions=torch.arange(length).expand(rows, length),
        first_seen=torch.zeros(rows, length, dtype=torch.int32),
    )
    forward = Forward(model.train(), DropoutSettings(), torch.Generator().manual_seed(0))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        parts = NextToken(LossSettings(), 1)(forward, batch, 1 / ids.numel())
    assert parts.total.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@settings(max_examples=25, deadline=None)
@given(
    count=st.sampled_from([8, 64, 128, 256, 512, 1024]),
    sequence=st.sampled_from([4096, 32768, 131072]),
    name=st.sampled_from(["large", "a13b", "dense-7b"]),
)
def test_the_best_layout_is_possible_and_fits(count: int, sequence: int, name: str) -> None:
    job = training(
        config=preset(name),
        cluster=Cluster(count, H100),
        layout=Layout(data=count),
        sequence=sequence,
        batch=1024 * 131072,
    )
    try:
        best = best_layout(job)
    except DoesNotFitError:
        needed = 16 * preset(name).total_parameters / count
        assert needed > 0.5 * H100.memory
        return
    require_possible(best)
    assert plan_training(best).fits
    assert best.layout.world == count


def test_what_does_not_fit_names_what_does() -> None:
    with pytest.raises(DoesNotFitError, match="the nearest number of devices that does: 1"):
        best_layout(training(cluster=Cluster(64, H100), layout=Layout(data=64)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpus", "0xH100-80G"], "COUNTxNAME"),
        (["--gpus", "8xH100"], "did you mean H100-80G"),
        ([], "either --gpus"),
        (["--gpus", "8xH100-80G", "--here"], "either --gpus"),
        (["--gpus", "256xH100-80G", "--seq", "1M"], "context of 262144"),
        (["--gpus", "256xH100-80G", "--layout", "data=64,pipeline=3"], "nearest that works"),
        (["--gpus", "256xH100-80G", "--layout", "data=64"], "needs 64 processes"),
        (["--gpus", "256xH100-80G", "--layout", "data=256", "--batch", "5000"], "nearest"),
        (["--gpus", "64xH100-80G"], "nearest number of devices"),
    ],
)
def test_wrong_questions_get_one_line(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, ["plan", "large", *arguments])
    assert isinstance(result.exception, UsageError | DoesNotFitError)
    assert words in result.exception.en
    assert "\n" not in result.exception.en


@pytest.mark.parametrize(
    "arguments", [[], ["--serve", "--weights", "fp8"], ["--layout", "data=32,pipeline=8,expert=8"]]
)
def test_table_and_json_agree(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["plan", "large", "--gpus", "256xH100-80G", "--batch", "8M", *arguments]
    for wanted in ("en_US.UTF-8", "zh_CN.UTF-8"):
        monkeypatch.setenv("HUNYUAN_LANG", wanted[:2])
        table = CliRunner().invoke(cli, command, catch_exceptions=False).output
        assert "GB" in table
    facts = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    assert facts["cluster"]["count"] == 256
    assert {figure["basis"] for figure in facts["memory"]} == {"calculated", "assumed"}


def test_clusters_are_parsed() -> None:
    assert parse_cluster("H20-96G").count == 1
    assert parse_cluster("2048xH800-80G").accelerator.flops == 989e12
    assert all(a.source and a.memory < 1e12 for a in accelerators().values())
