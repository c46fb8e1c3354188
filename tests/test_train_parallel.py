"""Training on many processes: the same losses as on one, whatever the layout; checkpoints of any
number of processes; what happens when one of them dies or cannot write.

Real processes, real gloo. Most are forks of one that has torch loaded, joined as torchrun joins
them; the start, the restart and the files for clusters are tested with torchrun itself.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import hunyuan
from hunyuan.cli.main import run as hunyuan_command
from hunyuan.cli.train import run_recipe
from hunyuan.data.rows import NO_TARGET
from hunyuan.data.shards import write_token_set
from hunyuan.errors import UsageError
from hunyuan.model.config import ModelConfig, Routing
from hunyuan.model.routing import draw_slot_keys, group_rooms
from hunyuan.model.transformer import build, init_weights
from hunyuan.parallel.context import part_of, slot_keys_of
from hunyuan.parallel.launch import Job, kubernetes, slurm
from hunyuan.parallel.layout import Layout
from hunyuan.parallel.state import Box, Pieces
from hunyuan.settings import settings
from hunyuan.tokenizer.train import train_tokenizer
from hunyuan.tour.text import conversations, documents
from hunyuan.train.batch import Batch, held
from hunyuan.train.launched import require_layout
from hunyuan.train.saving import checkpoints
from hunyuan.train.subject import FreshWeights
from hunyuan.train.task import read_recipe

SOURCES = ("en", "zh")
SHAPE: dict[str, Any] = {
    **{"hidden": 32, "layers": 4, "heads": 2, "kv_heads": 2, "head_dim": 32, "ffn": 32},
    **{"context": 128, "experts": 4, "shared_experts": 1, "cla_share": 2},
    **{"qk_norm": True, "tied": True},
}
RECYCLE = {"mode": "capacity-recycle", "capacity_factor": 1.0, "capacity_group": 16}
STEPS = 4


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """No measuring of the machine, one thread, English."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hunyuan.train.task.matrix_peak", lambda dtype: 1e12)
        patch.setattr("hunyuan.train.outside.keep_freed_memory", lambda: None)
        patch.setenv("HUNYUAN_LANG", "en")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a token set, conversations and preferences."""
    folder = tmp_path_factory.mktemp("world")
    made = list(itertools.islice(documents(0), 260))
    tokenizer = train_tokenizer([text for _, text in made], 300)
    texts = {name: [text for lang, text in made if lang == name] for name in SOURCES}
    write_token_set(
        folder / "tokens",
        tokenizer,
        {
            "train": {name: those[:-15] for name, those in texts.items()},
            "heldout": {name: those[-15:] for name, those in texts.items()},
        },
        language="mixed",
        license="Apache-2.0",
    )
    write_lines(folder / "talk.jsonl", conversations(1, 40))
    pairs = [
        {"messages": c["messages"][:1], "chosen": c["messages"][1]["content"], "rejected": "No."}
        for c in conversations(2, 15)
    ]
    write_lines(folder / "pairs.jsonl", pairs)
    return folder


@pytest.fixture(scope="module")
def alone(world: Path) -> Path:
    """The same training on one process."""
    run_recipe(pretraining(world), world / "alone")
    return world / "alone"


def write_lines(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def merged(table: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` with sections of ``change`` laid over its own."""
    result = dict(table)
    for key, value in change.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merged(old, value) if both else value
    return result


def pretraining(world: Path, steps: int = STEPS, **change: Any) -> dict[str, Any]:
    """Steps of two micro-batches of four rows, recycled, everything logged."""
    table: dict[str, Any] = {
        "task": "pretrain",
        "model": {"shape": SHAPE, "dtype": "float32", "routing": RECYCLE},
        "data": {"tokens": str(world / "tokens")},
        "batch": {"rows": 4, "row_tokens": 64, "accumulate": 2},
        "optimizer": {"learning_rate": 1e-2},
        "schedule": {"tokens": 512 * steps},
        "evaluation": {"every": 0.5, "rows": 6},
        "log": {"every": 1, "experts_every": 1},
    }
    return merged(table, change)


def tuning(world: Path, base: Path, task: str, **change: Any) -> dict[str, Any]:
    files = {"sft": "talk.jsonl", "dpo": "pairs.jsonl"}[task]
    table: dict[str, Any] = {
        "task": task,
        "model": {"base": str(base), "dtype": "float32", "routing": RECYCLE},
        "data": {"files": [str(world / files)], "heldout_share": 0.2},
        "batch": {"rows": 4, "row_tokens": 96},
        "optimizer": {"learning_rate": 1e-3},
        "schedule": {"epochs": 1},
        "evaluation": {"every": 0.5},
        "log": {"every": 1, "experts_every": 1},
    }
    return merged(table, change)


def write_recipe(path: Path, table: Mapping[str, Any]) -> Path:
    path.write_bytes(tomli_w.dumps(table).encode())
    return path


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for line in lines if (record := json.loads(line))["kind"] == kind]


def close(one: Path, other: Path, bound: float = 1e-5) -> None:
    """Two runs had the same losses, gradients, evaluations and routes; of steps done twice the
    last counts."""
    for kind in ("train", "eval"):
        found = []
        for folder in (one, other):
            by_step = {(r["step"], r.get("name")): r for r in records(folder, kind)}
            found.append(by_step)
        assert found[0].keys() == found[1].keys()
        for key, record in found[0].items():
            for name in ("loss", "grad_norm", "balance_loss", "z_loss", "margin", "accuracy"):
                if record.get(name) is not None:
                    wanted = pytest.approx(record[name], rel=bound, abs=bound)
                    assert found[1][key][name] == wanted, (key, name)
    routes = [{r["step"]: r["layers"] for r in records(folder, "moe")} for folder in (one, other)]
    assert routes[0].keys() == routes[1].keys()
    for step, layers in routes[0].items():
        assert len(layers) == len(routes[1][step])
        for mine, theirs in zip(layers, routes[1][step], strict=True):
            for name in ("load", "recycled", "dropped", "balance_loss", "router_entropy"):
                assert theirs[name] == pytest.approx(mine[name], rel=1e-4, abs=1e-4), (step, name)


# ---------------------------------------------------------------- processes

FLEET = """
import json, os, resource, signal, sys, time
import torch.distributed as dist
import hunyuan.cli.train, hunyuan.train.loop, hunyuan.train.task, hunyuan.parallel.ranks
import torch.distributed.checkpoint.hf_storage
from hunyuan.cli.main import run

hunyuan.train.task.matrix_peak = lambda dtype: 1e12

for text in sys.stdin:
    job = json.loads(text)
    count = job["count"]
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    left = {}
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            for stream, name in ((1, "out"), (2, "err")):
                path = os.path.join(job["folder"], f"{name}-{rank}")
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
            }
            if str(rank) in job["limits"]:
                limit = job["limits"][str(rank)]
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                code = run(job["arguments"])
            except SystemExit as error:  # another one said why
                code = error.code
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        left[pid] = rank
    codes = [0] * count
    patience = None
    while left:
        done, status = os.waitpid(-1, os.WNOHANG)
        if not done:
            if patience is not None and time.monotonic() > patience:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                patience = None
            time.sleep(0.005)
            continue
        codes[left.pop(done)] = os.waitstatus_to_exitcode(status)
        if status and patience is None:
            patience = time.monotonic() + 30
    print(json.dumps(codes), flush=True)
"""


class Fleet:
    """Runs a command on many processes, forks of one that has everything loaded."""

    def __init__(self, folder: Path) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", FLEET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean | {"OMP_NUM_THREADS": "1", "HUNYUAN_LANG": "en"},
        )

    def train(
        self, table: Mapping[str, Any], folder: Path, *more: str, limits: Mapping[int, int] = {}
    ) -> list[int]:
        """Exit codes; ``limits`` are the bytes that a file of a process may have."""
        layout = settings(Layout, table.get("parallel", {}))
        recipe = write_recipe(self._folder / "recipe.toml", table)
        job = {
            "arguments": ["train", str(recipe), "--run", str(folder), *more],
            "count": layout.world,
            "folder": str(self._folder),
            "limits": limits,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        self.count = layout.world
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def texts(self, name: str) -> list[str]:
        """What every process wrote to ``out`` or ``err``."""
        return [(self._folder / f"{name}-{rank}").read_text() for rank in range(self.count)]

    @property
    def said(self) -> str:
        return "".join(self.texts("out"))

    @property
    def complained(self) -> str:
        return "".join(self.texts("err"))

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    yield made
    made.close()


LAYOUTS = [
    {"data": 2},
    {"data": 2, "expert": 2, "context": 2},
    {"data": 2, "expert": 2, "tensor": 2},
    {"context": 2},
    {"pipeline": 2, "data": 2},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: "-".join(f"{k}{v}" for k, v in x.items()))
def test_every_layout_trains_as_one_process(
    world: Path, alone: Path, tmp_path: Path, fleet: Fleet, layout: dict[str, int]
) -> None:
    codes = fleet.train(pretraining(world, parallel=layout), tmp_path / "run")
    assert codes == [0] * len(codes), fleet.complained
    close(alone, tmp_path / "run")
    assert any(r["recycled"] for r in records(alone, "moe")[-1]["layers"]), "shows nothing"
    outs = fleet.texts("out")
    assert "done: " in outs[0]
    assert outs[1:] == [""] * (len(outs) - 1), "one process speaks"
    # What is served is what one process would have written.
    one, many = (hunyuan.load_model(folder) for folder in (alone, tmp_path / "run"))
    weights = dict(one.named_parameters())
    for name, weight in many.named_parameters():
        assert torch.allclose(weight, weights[name], atol=2e-4), name


def test_an_untied_bfloat16_model_with_everything_else(
    world: Path, tmp_path: Path, fleet: Fleet
) -> None:
    """bfloat16 rounds sums of other orders otherwise: equal within its precision."""
    table = pretraining(
        world,
        model={
            "dtype": "bfloat16",
            "shape": {"tied": False, "qkv_bias": True, "output_bias": True},
        },
        saving={"ema": 0.5},
        recompute=True,
    )
    run_recipe(table, tmp_path / "one")
    table = merged(table, {"parallel": {"data": 2, "expert": 2}})
    assert fleet.train(table, tmp_path / "many") == [0, 0], fleet.complained
    one, many = (records(tmp_path / name, "train") for name in ("one", "many"))
    for mine, theirs in zip(one, many, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=5e-3)
    first = records(tmp_path / "many", "train")[0]["loss"]
    assert first == pytest.approx(one[0]["loss"], rel=1e-4), "the weights were the same"


TASKS: dict[str, dict[str, Any]] = {
    "sft": {"parallel": {"data": 2, "expert": 2}},
    "lora": {
        "lora": {"rank": 2, "where": ["attention", "experts"]},
        "parallel": {"data": 2},
    },
    "dpo": {"parallel": {"data": 2}, "saving": {"ema": 0.9}},
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_divides_its_rows(
    world: Path, alone: Path, tmp_path: Path, fleet: Fleet, task: str
) -> None:
    """Also a last batch that is not full: some processes have nothing of it."""
    table = tuning(world, alone, "dpo" if task == "dpo" else "sft")
    many = merged(table, TASKS[task])
    run_recipe({k: v for k, v in many.items() if k != "parallel"}, tmp_path / "one")
    codes = fleet.train(many, tmp_path / "many")
    assert codes == [0, 0], fleet.complained
    close(tmp_path / "one", tmp_path / "many")
    if task == "lora":
        one, many_ = (checkpoints(tmp_path / n / "checkpoints")[-1] for n in ("one", "many"))
        names = ("adapter_config.json", "adapter_model.safetensors")
        assert all((many_ / "adapter" / name).is_file() for name in names)
        a, b = (dict(hunyuan.load_model(path).named_parameters()) for path in (one, many_))
        assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


# ---------------------------------------------------------------- checkpoints


def test_a_run_goes_on_with_other_numbers_of_processes(
    world: Path, alone: Path, tmp_path: Path, fleet: Fleet
) -> None:
    """Begun by four in one layout, gone on by two in another, then by one, then by four."""
    run = tmp_path / "run"
    layouts = [{"data": 2, "expert": 2, "tensor": 2}, {"pipeline": 2}, {}, {"data": 4}]
    for i, layout in enumerate(layouts):
        table = pretraining(world, parallel=layout)
        if layout:
            codes = fleet.train(table, run, "--stop-after", "1")
            assert set(codes) == {5 if i < 3 else 0}, fleet.complained
            assert (f"going on from step {i}" in fleet.said) == (i > 0)
        else:
            recipe = write_recipe(tmp_path / "r.toml", {k: v for k, v in table.items()})
            assert (
                hunyuan_command(["train", str(recipe), "--run", str(run), "--stop-after", "1"]) == 5
            )
    close(alone, run)
    assert len(records(run, "train")) == STEPS


def test_a_full_disk_on_one_process_is_one_warning_of_all(
    world: Path, alone: Path, tmp_path: Path, fleet: Fleet
) -> None:
    """The other processes neither wait for it nor leave a half-written checkpoint."""
    table = pretraining(world, parallel={"data": 2}, saving={"every_minutes": 1e-9})
    run = tmp_path / "run"
    assert fleet.train(table, run, "--stop-after", "1") == [5, 5], fleet.complained
    before = [path.name for path in checkpoints(run / "checkpoints")]
    codes = fleet.train(table, run, limits={1: 50_000})
    assert codes == [3, 3]
    assert fleet.complained.count("\n") == 1, fleet.complained
    assert "cannot be written, file too large" in fleet.complained
    close(alone, run)
    assert [r["code"] for r in records(run, "alarm")].count("checkpoint") >= 1
    assert [path.name for path in checkpoints(run / "checkpoints")] == before
    assert [p.name for p in (run / "checkpoints").iterdir() if p.name[0] == "."] == []
    assert fleet.train(table, run) == [0, 0], fleet.complained


def test_a_damaged_piece_is_noticed_by_all(world: Path, tmp_path: Path, fleet: Fleet) -> None:
    saving = {"every_minutes": 1e-9, "keep_last": 3}
    table = pretraining(world, parallel={"data": 2}, saving=saving)
    run = tmp_path / "run"
    assert fleet.train(table, run, "--stop-after", "2") == [5, 5], fleet.complained
    last = checkpoints(run / "checkpoints")[-1]
    piece = sorted((last / "training").glob("shard-00002*"))[0]
    content = bytearray(piece.read_bytes())
    content[-9] ^= 1
    piece.write_bytes(content)
    assert fleet.train(table, run) == [0, 0], fleet.complained
    assert f"{last} is damaged" in fleet.said
    assert "going on from step 1" in fleet.said


def test_pieces_are_read_by_any_box(tmp_path: Path) -> None:
    whole = torch.randn(6, 5)
    folder = tmp_path / "training"
    folder.mkdir()
    for i, (start, end) in enumerate(((0, 2), (2, 3), (3, 6))):
        offsets = json.dumps({"w": {"saved_offsets": [start, 0]}})
        save_file(
            {"w": whole[start:end].contiguous()},
            folder / f"shard-{i}.safetensors",
            {"DCP_SHARDING_INFO": offsets},
        )
    pieces = Pieces(tmp_path)
    assert pieces.shape("w") == (6, 5)
    assert torch.equal(pieces.read("w"), whole)
    for top, bottom, left, right in itertools.product((0, 1, 4), (2, 3, 6), (0, 2), (2, 5)):
        box = Box((top, left), (max(bottom - top, 0), right - left))
        assert torch.equal(
            pieces.read("w", box), whole[top : top + box.shape[0], left : left + box.shape[1]]
        )


# ---------------------------------------------------------------- torchrun itself


def torchrun(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *arguments]


def test_one_killed_process_and_all_go_on(world: Path, tmp_path: Path) -> None:
    """torchrun starts them again; the end is that of a run that was not interrupted."""
    table = pretraining(world, 24, saving={"every_minutes": 1e-9})
    run_recipe(table, tmp_path / "one")
    recipe = write_recipe(tmp_path / "r.toml", table)
    run = tmp_path / "run"
    agent = subprocess.Popen(
        torchrun(
            *("--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "0.1"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
            *("-m", "hunyuan", "train", str(recipe), "--folder", str(run)),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        metrics = run / "metrics.jsonl"
        deadline = time.monotonic() + 100
        while not metrics.is_file() or metrics.read_bytes().count(b'"kind": "train"') < 6:
            assert agent.poll() is None, agent.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        victim = max(psutil.Process(agent.pid).children(), key=lambda p: p.pid)
        victim.send_signal(signal.SIGKILL)
        out, err = agent.communicate(timeout=100)
    finally:
        agent.kill()
    assert agent.returncode == 0, err
    assert "going on from step" in out
    assert [r["processes"] for r in records(run, "start")] == [2, 2]
    resumed = records(run, "start")[1]["resumed_at_step"]
    assert 1 <= resumed < 24
    close(tmp_path / "one", run)
    left = [path.name for path in (run / "checkpoints").iterdir() if path.name[0] == "."]
    assert left == []


# ---------------------------------------------------------------- refusals


def test_a_layout_that_cannot_work_is_one_line_and_leaves_nothing(
    world: Path, tmp_path: Path, fleet: Fleet
) -> None:
    table = pretraining(world, parallel={"tensor": 4})
    assert set(fleet.train(table, tmp_path / "run")) == {2}
    assert fleet.complained == (
        "error: parallel.tensor=4 does not divide heads=2; nearest that works: 2\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "count", "words"),
    [
        ({"parallel": {"data": 2}}, 1, "start it with torchrun --nproc-per-node 2"),
        ({"parallel": {"data": 2}}, 4, "needs 2 processes, 4 were started"),
        ({"parallel": {"pipeline": 4}}, 4, "parallel.pipeline=4 cannot cut 4 layers"),
        ({"parallel": {"data": 8}}, 8, "parallel.data=8 does not divide batch.rows=4"),
        (
            {"model": {"routing": {"capacity_group": 256}}, "parallel": {"data": 2}},
            2,
            "routing.capacity_group=256: a rank's 128 consecutive tokens are not whole groups",
        ),
        (
            {
                "model": {"routing": {"mode": "dropless", "capacity_group": 256}},
                "parallel": {"data": 2},
            },
            2,
            "nearest that works: routing.capacity_group=128",
        ),
        (
            {"task": "distil", "loss": {"teacher": "x"}, "parallel": {"tensor": 2}},
            2,
            "parallel.tensor=2: task=distil can be divided by parallel.data, parallel.expert alone",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    world: Path, change: dict[str, Any], count: int, words: str
) -> None:
    recipe = read_recipe(pretraining(world, **change), count)
    config = settings(ModelConfig, {"vocab": 320} | SHAPE)
    with pytest.raises(UsageError) as caught:
        require_layout(
            recipe, config.__class__(**vars(config) | {"routing": recipe.model.routing}), count
        )
    assert words in caught.value.en
    assert caught.value.zh != caught.value.en


def test_the_number_of_processes_decides_what_is_left_open(world: Path) -> None:
    for layout, count, data in (
        ({}, 4, 4),
        ({"expert": 2, "tensor": 2}, 8, 4),
        ({"data": 2}, 4, 2),
    ):
        recipe = read_recipe(pretraining(world, parallel=layout), count)
        assert recipe.parallel.data == data
    with pytest.raises(
        UsageError, match=r"parallel\.tensors is unknown; did you mean parallel\.tensor"
    ):
        read_recipe(pretraining(world, parallel={"tensors": 2}))


# ---------------------------------------------------------------- parts of a batch


def batch_of(rows: int, tokens: int) -> Batch:
    ids = torch.arange(rows * tokens).view(rows, tokens)
    return Batch(ids, ids + 1, ids % tokens, torch.zeros(rows, tokens, dtype=torch.int32))


@given(
    data=st.sampled_from([1, 2, 4]),
    context=st.sampled_from([1, 2]),
    rows=st.integers(1, 8),
    group=st.sampled_from([2, 4, 8, 16]),
)
def test_every_token_is_held_once_with_its_own_slot_keys(
    data: int, context: int, rows: int, group: int
) -> None:
    """Of a batch that may not be full; by the model side's own rule, where that is defined."""
    full, tokens = 8, 8
    layout = Layout(data=data, context=context)
    whole = batch_of(rows, tokens)
    share, seen = 0.0, []
    routing = Routing(mode="capacity-recycle", capacity_group=group)
    config = settings(ModelConfig, SHAPE | {"vocab": 64})
    config = config.__class__(**vars(config) | {"routing": routing})
    piece = full // data * tokens if context == 1 else tokens // (2 * context)
    keys = draw_slot_keys(config, rows * tokens, torch.Generator().manual_seed(0))
    for rank in range(layout.world):
        place = layout.place(rank)
        part = held(whole, layout, place, full)
        share += part.share
        if part.share == 0:
            assert part.learned == 0
            assert (part.targets == NO_TARGET).all()
            continue
        assert part.part is None or part.part.added == 0, "experts are not divided"
        seen += part.ids.flatten().tolist()
        assert torch.equal(part.targets, part.ids + 1)
        if rows == full:
            assert torch.equal(part.ids, part_of(whole.ids, layout, place))
        if part.part is not None and piece % group == 0 and rows == full:
            slots = group_rooms(config, group)[0] * config.experts
            wanted = slot_keys_of(keys, config, layout, place, rows, tokens)
            assert torch.equal(part.part.columns(keys, group, slots), wanted)
    assert share == pytest.approx(1)
    assert sorted(seen) == list(range(rows * tokens))


def test_pairs_stay_together() -> None:
    whole = batch_of(6, 4)  # of eight: three chosen answers, then three rejected ones
    layout = Layout(data=2)
    found = [held(whole, layout, layout.place(r), 8, pairs=True).ids[:, 0] // 4 for r in (0, 1)]
    assert [f.tolist() for f in found] == [[0, 1, 3, 4], [2, 5]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fresh_weights_one_by_one_are_those_of_a_whole_model(dtype: torch.dtype) -> None:
    config = settings(
        ModelConfig, SHAPE | {"vocab": 64, "tied": False, "qkv_bias": True, "output_bias": True}
    )
    whole = build(config, dtype).to_empty(device="cpu")
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    init_weights(whole, one)
    values = FreshWeights(config, dtype, other)
    asked = [name for name, _ in whole.named_parameters() if ".layers.1." not in name]
    for name in asked:
        assert torch.equal(values[name], whole.get_parameter(name)), name
    values.finish()
    assert torch.equal(one.get_state(), other.get_state())


# ---------------------------------------------------------------- clusters


def job(**change: Any) -> Job:
    values: dict[str, Any] = {
        **{"name": "a", "arguments": ("train", "my recipe.toml"), "nodes": 2},
        **{"gpus_per_node": 8, "processes_per_node": 8, "restarts": 3},
    }
    return Job(**values | change)


def test_the_slurm_script_runs(world: Path, alone: Path, tmp_path: Path) -> None:
    """With stand-ins for Slurm's two commands, on one machine without GPUs."""
    recipe = write_recipe(tmp_path / "my recipe.toml", pretraining(world))
    script = tmp_path / "job.sh"
    arguments = ["launch", "slurm", str(recipe), "--nodes", "1", "--gpus-per-node", "0"]
    arguments += ["--processes-per-node", "2", "--folder", str(tmp_path / "run")]
    assert hunyuan_command([*arguments, "--output", str(script)]) == 0
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    stand_ins = {
        "scontrol": 'echo "${@: -1}"',
        "srun": 'shift; exec "$@"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }
    for name, line in stand_ins.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{line}\n")
        path.chmod(0o755)
    slurm_says = {"SLURM_NNODES": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "127.0.0.1"}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(script)],
        env=os.environ | slurm_says | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    close(alone, tmp_path / "run")


def test_slurm_is_asked_for_what_was_given() -> None:
    text = slurm(job(), log=Path("runs/a-%j.log"), partition="p", account=None, time="1:00:00")
    lines = text.splitlines()
    wanted = {"--nodes=2", "--gpus-per-node=8", "--partition=p", "--time=1:00:00", "--requeue"}
    assert {line.removeprefix("#SBATCH ") for line in lines} >= wanted
    assert "account" not in text
    assert "-m hunyuan train 'my recipe.toml'" in text


def test_the_manifests_name_each_other() -> None:
    yaml = pytest.importorskip("yaml")
    text = kubernetes(job(), image="r/i:1", claim="disk", mount=Path("/shared"), namespace="n")
    service, work = yaml.safe_load_all(text)
    assert service["metadata"] == work["metadata"] == {"name": "a", "namespace": "n"}
    assert service["spec"]["clusterIP"] == "None"
    spec = work["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (2, 2, "Indexed")
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    command = container["command"]
    assert command[command.index("--rdzv-endpoint") + 1] == "a-0.a:29500"
    assert command[-4:] == ["-m", "hunyuan", "train", "my recipe.toml"]
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [{"claimName": "disk"}]


def test_the_large_recipe_is_laid_over_256_processes(capsys: pytest.CaptureFixture[str]) -> None:
    """389 billion parameters, in a pretended world; 18 bytes of each of 1.52 billion here."""
    recipe = Path(__file__).parents[1] / "recipes" / "large" / "pretrain.toml"
    arguments = ["launch", "slurm", str(recipe), "--nodes", "32", "--gpus-per-node", "8"]
    assert hunyuan_command([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "layout: data=256 expert=8, 256 processes" in said
    assert "process 0: weights 3.0 GB, masters 6.1 GB" in said
    assert "27.3 GB in all (calculated" in said
    assert "process 255: " in said
    assert hunyuan_command([*arguments, "--set", "parallel.expert=3"]) == 2
    assert "parallel.expert=3 does not divide" in capsys.readouterr().err
