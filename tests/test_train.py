"""Training: recipes, losses against oracles, the loop, checkpoints that resume to the bit, the CLI.

Runs are of a model with some ten thousand parameters and take a fraction of a second. Those that
are killed run as forks of one process that has torch loaded.
"""

import hashlib
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import hunyuan
from hunyuan.catalogue.entries import entries
from hunyuan.cli.main import run as hunyuan_command
from hunyuan.cli.train import Screen, run_recipe
from hunyuan.data.recipe import read_recipe as read_data_recipe
from hunyuan.data.rows import NO_TARGET, pack
from hunyuan.data.shards import TokenSet, write_token_set
from hunyuan.errors import BadDataError, HunyuanError, InterruptedWorkError, UsageError
from hunyuan.model.config import ModelConfig, Routing
from hunyuan.model.routing import Routes, balance_loss
from hunyuan.model.transformer import Transformer, build, init_weights
from hunyuan.parallel.layout import Layout
from hunyuan.report.metrics import Alarm, Eval, read_metrics
from hunyuan.settings import read_table
from hunyuan.tokenizer.train import train_tokenizer
from hunyuan.tour.text import conversations, documents
from hunyuan.train.batch import Batch, steps, to_batch
from hunyuan.train.evaluation import HeldOut, TokenLoss
from hunyuan.train.loop import fit
from hunyuan.train.losses import (
    Distillation,
    Forward,
    NextToken,
    Preferences,
    answer_logs,
    router_losses,
)
from hunyuan.train.metrics import MetricsFile, Watch
from hunyuan.train.outside import add_hidden_dropout, dropless_twin
from hunyuan.train.ranks import STATE
from hunyuan.train.recipe import DropoutSettings, LossSettings, Recipe
from hunyuan.train.routing_report import expert_similarity, layer_record
from hunyuan.train.saving import (
    STATE_JSON,
    Saver,
    Served,
    Snapshot,
    best_step,
    checkpoints,
    read_newest,
)
from hunyuan.train.summary import describe
from hunyuan.train.task import prepare, read_recipe

ROOT = Path(__file__).parents[1]
SHAPE: dict[str, Any] = {
    **{"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 32, "ffn": 32},
    **{"context": 128, "experts": 4, "shared_experts": 1, "cla_share": 2},
    **{"qk_norm": True, "tied": True},
}
SOURCES = ("en", "zh")


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """No measuring of the machine, no lasting change of this process, one thread, English."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hunyuan.train.task.matrix_peak", lambda dtype: 1e12)
        patch.setattr("hunyuan.train.outside.keep_freed_memory", lambda: None)
        patch.setenv("HUNYUAN_LANG", "en")
        yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a token set, conversations, preferences, and a base model."""
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
    write_lines(folder / "talk.jsonl", conversations(1, 60))
    pairs = [
        {"messages": c["messages"][:1], "chosen": c["messages"][1]["content"], "rejected": "No."}
        for c in conversations(2, 15)
    ]
    write_lines(folder / "pairs.jsonl", pairs)
    return folder


@pytest.fixture(scope="module")
def base(world: Path) -> Path:
    """The run of a short pretraining, float32."""
    run_recipe(pretraining(world, 40), world / "base")
    return world / "base"


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def merged(table: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` with sections of ``change`` laid over its own; None removes a key."""
    result = dict(table)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def pretraining(world: Path, steps: int = 8, **change: Any) -> dict[str, Any]:
    """A recipe of ``steps`` steps of 128 tokens, float32, everything logged."""
    table: dict[str, Any] = {
        "task": "pretrain",
        "model": {"shape": SHAPE, "dtype": "float32"},
        "data": {"tokens": str(world / "tokens")},
        "batch": {"rows": 2, "row_tokens": 64},
        "optimizer": {"learning_rate": 1e-2},
        "schedule": {"tokens": 128 * steps},
        "evaluation": {"every": 0.5, "rows": 2},
        "log": {"every": 1, "experts_every": 1},
    }
    return merged(table, change)


def tuning(world: Path, base: Path, task: str = "sft", **change: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "task": task,
        "model": {"base": str(base), "dtype": "float32"},
        "data": {"files": [str(world / ("talk.jsonl" if task == "sft" else "pairs.jsonl"))]},
        "batch": {"rows": 2, "row_tokens": 96},
        "optimizer": {"learning_rate": 1e-3},
        "schedule": {"epochs": 1},
        "evaluation": {"every": 0.5},
        "log": {"every": 1, "experts_every": 1},
    }
    return merged(table, change)


def asking(world: Path, base: Path, **change: Any) -> dict[str, Any]:
    """A few pairs of short answers an epoch."""
    files = {"prompts": [str(world / "talk.jsonl")], "reward": str(base)}
    return {**files, "pairs": 4, "samples": 2, "max_tokens": 8, **change}


RECYCLE = {"mode": "capacity-recycle", "capacity_factor": 1.0, "capacity_group": 64}


def records(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [record for record in found if kind in (None, record["kind"])]


def losses(folder: Path) -> dict[int, float]:
    """Loss by step; a step that was done twice must have had the same."""
    found: dict[int, float] = {}
    for record in records(folder, "train"):
        assert found.setdefault(record["step"], record["loss"]) == record["loss"], record["step"]
    return found


def alarms(folder: Path, code: str) -> list[dict[str, Any]]:
    return [record for record in records(folder, "alarm") if record["code"] == code]


def newest(folder: Path) -> Path:
    return checkpoints(folder / "checkpoints")[-1]


def content(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def same_state(one: Path, other: Path) -> None:
    """Two checkpoints hold the same weights, masters, moments, generators and position."""
    for name in ("model.safetensors", STATE):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), key
    states = [json.loads((path / STATE_JSON).read_bytes()) for path in (one, other)]
    assert states[0] == states[1]


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_is_valid(path: Path) -> None:
    if path.stem == "data":
        assert read_data_recipe(path).source
        return
    recipe = read_recipe(read_table(path))
    names = {entry.name for entry in entries()}
    for model in (recipe.model.base, recipe.loss.teacher):
        # A pulled model, the run of another recipe, or what the recipe's own comment makes.
        assert (
            model is None
            or model in names
            or (ROOT / "recipes" / f"{Path(model).name}.toml").exists()
            or f" {model} " in path.read_text(encoding="utf-8")
        )


def sections(kind: type = Recipe) -> Iterator[type]:
    """Every settings dataclass of a recipe."""
    yield kind
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint)):
            if is_dataclass(part):
                yield from sections(part)  # type: ignore[arg-type]


def test_every_setting_is_read_when_training(
    world: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By code other than the settings' own files, in one run of each task."""
    kinds = set(sections()) - {Layout}  # one process reads of it that it is alone
    own = {sys.modules[kind.__module__].__file__ for kind in kinds}
    read: set[tuple[str, str]] = set()

    def recording(kind: type) -> Callable[[Any, str], Any]:
        names = {field.name for field in fields(kind)}

        def getattribute(self: Any, name: str) -> Any:
            if name in names and sys._getframe(1).f_code.co_filename not in own:
                read.add((kind.__name__, name))
            return object.__getattribute__(self, name)

        return getattribute

    for kind in kinds:
        monkeypatch.setattr(kind, "__getattribute__", recording(kind))
    mixture = [{"source": "en"}, {"source": "zh", "weight": 9.0}]
    tables = [
        pretraining(world, 2, data={"mixture": mixture}, model={"routing": RECYCLE}),
        pretraining(world, 2, task="distil", loss={"teacher": str(base)}),
        tuning(world, base, lora={"rank": 2}),
        tuning(world, base, "dpo", online=asking(world, base, reward_reference=str(base))),
    ]
    for i, table in enumerate(tables):
        run_recipe(table, tmp_path / str(i))
    wanted = {(kind.__name__, field.name) for kind in kinds for field in fields(kind)}
    assert wanted - read == set()


def test_every_setting_is_documented() -> None:
    for kind in sections():
        source = Path(sys.modules[kind.__module__].__file__ or "").read_text(encoding="utf-8")
        body = source.split(f"class {kind.__name__}")[1].split("\n@dataclass")[0]
        for field in fields(kind):
            after = body.split(f"\n    {field.name}: ")[1].split("\n    \n")[0]
            assert '"""' in after.split("\n\n")[0], f"{kind.__name__}.{field.name}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimiser": {"learning_rate": 1.0}}, "optimiser is unknown; did you mean optimizer?"),
        ({"optimizer": {"clip_norm": 1.0}}, "optimizer.clip_norm is unknown"),
        ({"model": {"routing": {"mode": "x"}}}, "model.routing.mode='x' is unknown; use dropless"),
        ({"optimizer": {"learning_rate": 0.0}}, "optimizer.learning_rate=0.0 must be above 0"),
        ({"optimizer": {"beta1": 1.0}}, "optimizer.beta1=1.0 must be at least 0 and below 1"),
        ({"optimizer": {"clip": -1.0}}, "optimizer.clip=-1.0 must not be negative"),
        ({"optimizer": {"weight_decay": -0.1}}, "optimizer.weight_decay=-0.1 must not be neg"),
        ({"schedule": {"warmup": 0.97}}, "warmup=0.97 and anneal=0.05 are more than the whole run"),
        ({"schedule": {"epochs": 1}}, "task=pretrain: needs schedule.tokens, and no schedule.ep"),
        ({"schedule": {"tokens": 0}}, "schedule.tokens=0 must be above 0"),
        ({"model": {"preset": "tiny"}}, "model: has preset and shape; give one of preset, shape"),
        ({"model": {"shape": None}}, "model: has no source; give one of preset, shape, base"),
        ({"data": {"tokens": None}}, "task=pretrain: needs data.tokens"),
        ({"data": {"limit": 0}}, "data.limit=0 must be above 0"),
        ({"lora": {"rank": 4}}, "lora: adapts an existing model; set model.base"),
        ({"loss": {"teacher": "x"}}, "loss.teacher belongs to task=distil"),
        ({"task": "distil"}, "loss.teacher belongs to task=distil, which needs it"),
        ({"loss": {"balance": -1.0}}, "loss.balance=-1.0 must not be negative"),
        ({"dropout": {"hidden": 1.0}}, "dropout.hidden=1.0 must be at least 0 and below 1"),
        ({"saving": {"ema": 1.0}}, "saving.ema=1.0 must be at least 0 and below 1"),
        ({"evaluation": {"every": 0.0}}, "evaluation.every=0.0 must be above 0"),
        ({"seed": -1}, "seed=-1 must not be negative"),
        ({"batch": {"rows": 0}}, "batch.rows=0 must be above 0"),
        (
            {"model": {"routing": RECYCLE | {"capacity_group": 48}}},
            "rows * row_tokens = 128 is no multiple of model.routing.capacity_group=48",
        ),
    ],
)
def test_wrong_recipes_are_refused(world: Path, change: dict[str, Any], words: str) -> None:
    table = pretraining(world)
    read_recipe(table)
    with pytest.raises(UsageError) as caught:
        read_recipe(merged(table, change))
    assert words in caught.value.en
    assert "\n" not in caught.value.en
    assert caught.value.zh != caught.value.en


# ---------------------------------------------------------------- losses


def fresh(dtype: torch.dtype = torch.float32, seed: int = 0, **change: Any) -> Transformer:
    """A random model whose router is far from ties."""
    config = ModelConfig(**(SHAPE | {"vocab": 50} | change))
    model = build(config, dtype).to_empty(device="cpu")
    init_weights(model, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(4)
    return model.eval()


def forward_of(model: Transformer, dropout: float = 0.0) -> Forward:
    return Forward(model, DropoutSettings(attention=dropout), torch.Generator().manual_seed(7))


def batch_of(*lengths: tuple[int, ...], tokens: int = 32, seed: int = 0) -> Batch:
    """Rows of random documents of these lengths, each token predicting the next of its own."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for row in lengths:
        pieces = []
        for n in row:
            ids = torch.randint(1, 50, (n,), generator=generator).numpy()
            pieces.append((ids, [*ids[1:].tolist(), NO_TARGET]))
        rows.append(pack(pieces, tokens))
    return to_batch(rows)


def documents_of(batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and targets of every document, apart."""
    for ids, targets, positions in zip(batch.ids, batch.targets, batch.positions, strict=True):
        begins = (positions == 0).nonzero().flatten().tolist()
        for begin, end in itertools.pairwise([*begins, len(ids)]):
            yield ids[begin:end], targets[begin:end]


def gradients(model: Transformer) -> dict[str, Tensor]:
    found = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return found


def close(a: Mapping[str, Tensor], b: Mapping[str, Tensor], bound: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    largest = max(float(g.abs().max()) for g in b.values())
    for name in a:
        assert float((a[name] - b[name]).abs().max()) < bound * largest, name


PLAIN = LossSettings(balance=0.0, router_z=0.0)


@pytest.mark.parametrize("tied", [True, False])
def test_next_token_is_cross_entropy_of_each_document_alone(tied: bool) -> None:
    model = fresh(tied=tied).train()
    batch = batch_of((12, 20), (9, 7, 5), (32,))
    share = 1 / batch.learned
    parts = NextToken(PLAIN, 1)(forward_of(model), batch, share)
    parts.total.backward()
    found = gradients(model)
    total = torch.zeros(())
    for ids, targets in documents_of(batch):
        logits = model(ids[None])[0]
        losses = F.cross_entropy(logits, targets, ignore_index=NO_TARGET, reduction="sum")
        total = total + losses * share
    total.backward()
    assert float(parts.total.detach()) == pytest.approx(float(total.detach()), rel=1e-6)
    assert float(parts.scalars["loss"]) == pytest.approx(float(total.detach()), rel=1e-6)
    close(found, gradients(model))


def test_a_batch_without_targets_teaches_nothing() -> None:
    model = fresh().train()
    batch = batch_of((16,), (16,))
    batch = batch._replace(targets=torch.full_like(batch.targets, NO_TARGET))
    parts = NextToken(PLAIN, 1)(forward_of(model), batch, 1.0)
    parts.total.backward()
    assert float(parts.total.detach()) == 0
    assert all(not g.any() for g in gradients(model).values())


def test_router_losses_count_within_capacity_groups_and_reach_the_router() -> None:
    batch = batch_of((32,), (32,))
    settings = LossSettings(balance=0.7, router_z=0.2)
    values = {}
    for group in (32, 64):
        model = fresh(routing=Routing(capacity_group=group)).train()
        blind = batch._replace(targets=torch.full_like(batch.targets, NO_TARGET))
        parts = NextToken(settings, 1)(forward_of(model), blind, 1.0)
        parts.total.backward()
        for block in model.model.layers:
            assert block.mlp.gate.wg.weight.grad.abs().max() > 0
        found = gradients(model)
        _, routes = forward_of(model).hidden(batch)
        balance, z = [], []
        for decided in routes:
            for part in range(64 // group):
                at = slice(part * group, (part + 1) * group)
                p, choice = decided.probabilities[at], decided.choice[at].flatten()
                shares = F.one_hot(choice, 4).float().mean(0)
                balance.append(4 * (p.mean(0) * shares).sum())
            z.append(torch.logsumexp(decided.logits, -1).pow(2).mean())
        oracle = torch.stack(balance).mean(), torch.stack(z).mean()
        values[group] = float(parts.scalars["balance_loss"])
        assert values[group] == pytest.approx(float(oracle[0].detach()), rel=1e-6)
        assert float(parts.scalars["z_loss"]) == pytest.approx(float(oracle[1].detach()), rel=1e-6)
        (0.7 * oracle[0] + 0.2 * oracle[1]).backward()
        oracle_gradients = gradients(model)
        close({n: found[n] for n in oracle_gradients}, oracle_gradients)
    assert abs(values[32] - values[64]) > 1e-4, "the groups make a difference"


def test_a_last_group_that_is_not_full_counts_by_its_tokens() -> None:
    model = fresh(routing=Routing(capacity_group=48))
    _, routes = forward_of(model).hidden(batch_of((32,), (32,)))
    _, scalars = router_losses(routes, model.config, LossSettings())
    expected = []
    for decided in routes:
        first, last = (Routes(*(t[at] for t in decided)) for at in (slice(48), slice(48, 64)))
        expected.append(0.75 * balance_loss(first) + 0.25 * balance_loss(last))
    wanted = float(torch.stack(expected).mean().detach())
    assert float(scalars["balance_loss"].detach()) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("mode", ["dropless", "capacity-drop"])
def test_accumulating_is_a_larger_batch(world: Path, tmp_path: Path, mode: str) -> None:
    routing = {"mode": mode, "capacity_factor": 1.0, "capacity_group": 64}
    for name, batch in {"one": {"rows": 4}, "two": {"rows": 2, "accumulate": 2}}.items():
        table = pretraining(world, 8, batch=batch, model={"routing": routing})
        run_recipe(table, tmp_path / name)
    pairs = list(
        zip(records(tmp_path / "one", "train"), records(tmp_path / "two", "train"), strict=True)
    )
    assert len(pairs) == 4
    for one, two in pairs:
        for figure in ("loss", "balance_loss", "z_loss", "grad_norm", "learning_rate"):
            assert one[figure] == pytest.approx(two[figure], rel=1e-4), figure


def literal_logs(model: Transformer, batch: Batch) -> Tensor:
    """Log-likelihood of each row's targets, a row at a time, written out."""
    sums = []
    for ids, targets in zip(batch.ids, batch.targets, strict=True):
        n = int((targets != NO_TARGET).nonzero().max()) + 1
        logs = model(ids[None, :n])[0].log_softmax(-1)
        used = (targets[:n] != NO_TARGET).nonzero().flatten().tolist()
        sums.append(sum(logs[t, targets[t]] for t in used))
    return torch.stack(sums)


def answers(batch: Batch, prompt: int) -> Batch:
    """The same rows with a prompt that is not learned."""
    targets = batch.targets.clone()
    targets[:, : prompt - 1] = NO_TARGET
    return batch._replace(targets=targets)


def test_dpo_is_its_formula() -> None:
    model = fresh().train()
    frozen = deepcopy(model)
    batch = answers(batch_of((20,), (31,), (13,), (8,)), 5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(
                0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
            )
    settings = LossSettings(balance=0.0, router_z=0.0, dpo_beta=0.3, dpo_nll=0.2)

    def reference(batch: Batch) -> Tensor:
        with torch.no_grad():
            return literal_logs(frozen, batch)

    parts = Preferences(settings, 1, reference)(forward_of(model), batch, 1 / 2)
    parts.total.backward()
    found = gradients(model)
    ours, theirs = literal_logs(model, batch), reference(batch)
    total, nll, margins = torch.zeros(()), 0.0, []
    for chosen, rejected in ((0, 2), (1, 3)):
        margin = 0.3 * ((ours[chosen] - theirs[chosen]) - (ours[rejected] - theirs[rejected]))
        length = int((batch.targets[chosen] != NO_TARGET).sum())
        total = total - torch.log(1 / (1 + torch.exp(-margin))) / 2
        total = total + 0.2 * -ours[chosen] / length / 2
        nll += float(-ours[chosen].detach()) / length / 2
        margins.append(float(margin.detach()))
    total.backward()
    assert float(parts.total.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    assert float(parts.scalars["chosen_nll"]) == pytest.approx(nll, rel=1e-5)
    assert float(parts.scalars["margin"]) == pytest.approx(sum(margins) / 2, rel=1e-3)
    assert float(parts.scalars["accuracy"]) == sum(m > 0 for m in margins) / 2
    assert max(map(abs, margins)) > 0.01
    close(found, gradients(model), 1e-4)


def test_long_answers_are_summed_over_blocks() -> None:
    model = fresh(context=1024)
    batch = answers(batch_of((700,), (300,), tokens=704), 9)
    hidden, _ = forward_of(model).hidden(batch)
    found = answer_logs(hidden, forward_of(model).head, batch.targets)
    assert torch.allclose(found, literal_logs(model, batch), rtol=1e-4)


def test_a_model_that_is_its_teacher_has_nothing_to_learn() -> None:
    model = fresh().train()
    batch = batch_of((12, 20), (30,))
    loss = Distillation(PLAIN, 1, deepcopy(model))
    parts = loss(forward_of(model), batch, 1 / batch.learned)
    parts.total.backward()
    assert abs(float(parts.total.detach())) < 1e-6
    assert all(float(g.abs().max()) < 1e-6 for g in gradients(model).values())
    plain = NextToken(PLAIN, 1)(forward_of(model), batch, 1 / batch.learned)
    cross_entropy = float(parts.scalars["cross_entropy"])
    assert cross_entropy == pytest.approx(float(plain.scalars["loss"]), rel=1e-5)


def test_distillation_is_the_divergence_from_the_teacher() -> None:
    """Of a teacher of another shape; more tokens than one block of logits."""
    model, teacher = fresh().train(), fresh(seed=1, layers=1, experts=0, shared_experts=0)
    batch = batch_of(*[(31, 1)] * 10)
    share = 1 / batch.learned
    parts = Distillation(PLAIN, 1, teacher)(forward_of(model), batch, share)
    parts.total.backward()
    found = gradients(model)
    total = torch.zeros(())
    for ids, targets in documents_of(batch):
        p = teacher(ids[None])[0].softmax(-1).detach()
        logs = model(ids[None])[0].log_softmax(-1)
        total = total + ((p * (p.log() - logs)).sum(-1) * (targets != NO_TARGET)).sum() * share
    total.backward()
    assert float(parts.total.detach()) == pytest.approx(float(total.detach()), rel=1e-4)
    assert float(parts.total.detach()) > 0.1
    close(found, gradients(model))
    assert all(w.grad is None for w in teacher.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputing_changes_no_bit(world: Path, tmp_path: Path, dtype: str) -> None:
    """With everything random there is: dropout of both kinds and recycling."""
    change = {
        "model": {"dtype": dtype, "routing": RECYCLE},
        "dropout": {"hidden": 0.2, "attention": 0.1},
    }
    for name, recompute in {"kept": False, "again": True}.items():
        run_recipe(pretraining(world, 4, recompute=recompute, **change), tmp_path / name)
    kept, again = (records(tmp_path / name, "train") for name in ("kept", "again"))
    assert [(r["loss"], r["grad_norm"]) for r in kept] == [
        (r["loss"], r["grad_norm"]) for r in again
    ]
    same_state(newest(tmp_path / "kept"), newest(tmp_path / "again"))
    recycled = [
        layer["recycled"] for r in records(tmp_path / "kept", "moe") for layer in r["layers"]
    ]
    assert max(recycled) > 0, "nothing overflowed: the test shows nothing"


def test_steps_take_what_there_is_and_read_nothing_ahead() -> None:
    rows = [pack([([i], [NO_TARGET])], 4) for i in range(1, 12)]
    source = iter(rows)
    taken = steps(source, 2, 3)
    first = next(taken)
    assert [b.ids[:, 0].tolist() for b in first] == [[1, 2], [3, 4], [5, 6]]
    assert next(source) is rows[6]
    assert [b.ids[:, 0].tolist() for b in next(taken)] == [[8, 9], [10, 11]]
    assert list(taken) == []


# ---------------------------------------------------------------- evaluation


def test_evaluation_is_dropless_and_without_dropout_whatever_training_does(world: Path) -> None:
    tight = RECYCLE | {"capacity_factor": 0.5}
    dropout = {"hidden": 0.3, "attention": 0.3}
    found = []
    for change in ({}, {"model": {"routing": tight}, "dropout": dropout, "recompute": True}):
        recipe = read_recipe(pretraining(world, **change))
        run, _ = prepare(recipe, world / "unused")
        run.forward.model.train()
        found.append(run.evaluate())
        assert run.forward.model.training
        assert run.forward.model.config.routing == recipe.model.routing
    assert found[0] == found[1]


def test_the_twin_shares_memory_and_follows_training() -> None:
    model = fresh(routing=Routing(mode="capacity-drop", capacity_factor=0.3)).train()
    twin = dropless_twin(model)
    add_hidden_dropout(model, 0.5)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.1)
    ids = batch_of((32,)).ids
    plain = fresh()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(twin(ids), plain(ids))
    assert not torch.equal(model(ids), plain(ids))
    assert not torch.equal(model(ids), model(ids)), "dropout while training"
    assert torch.equal(model.eval()(ids), model(ids)), "and only then"
    assert {id(p) for p in twin.parameters()} == {id(p) for p in model.parameters()}


def test_attention_drops_out_only_while_training() -> None:
    model, batch = fresh(), batch_of((32,), (20, 12))
    run = forward_of(model, dropout=0.5)
    plain, _ = forward_of(model).hidden(batch)
    assert torch.equal(run.hidden(batch)[0], plain)
    model.train()
    assert not torch.equal(run.hidden(batch)[0], plain)


def test_bits_per_byte_and_the_mean_over_parts() -> None:
    model = fresh()
    long, short = batch_of((32,), (32,)), batch_of((9,), seed=1)
    parts = [HeldOut("long", [long, long], 2.0), HeldOut("short", [short], 5.0)]
    everything, first, second = TokenLoss(model, [*parts, HeldOut("none", [], 1.0)])()
    for record, batch, per_token in ((first, long, 2.0), (second, short, 5.0)):
        with torch.no_grad():
            sums = [
                F.cross_entropy(model(i[None])[0], t, ignore_index=NO_TARGET, reduction="sum")
                for i, t in documents_of(batch)
            ]
        mean = float(sum(sums)) / batch.learned
        assert record["loss"] == pytest.approx(mean, rel=1e-5)
        assert record["bits_per_byte"] == pytest.approx(mean / math.log(2) / per_token, rel=1e-5)
    assert [r["name"] for r in (everything, first, second)] == ["all", "long", "short"]
    n, m = 2 * long.learned, short.learned
    mean = (n * first["loss"] + m * second["loss"]) / (n + m)
    assert everything["loss"] == pytest.approx(mean, rel=1e-6)
    per_token = (n * 2.0 + m * 5.0) / (n + m)
    assert everything["bits_per_byte"] == pytest.approx(mean / math.log(2) / per_token, rel=1e-6)


def test_bytes_without_a_known_size_are_not_made_up() -> None:
    parts = [HeldOut("a", [batch_of((32,))], None), HeldOut("b", [batch_of((32,))], 2.0)]
    everything, a, b = TokenLoss(fresh(), parts)()
    assert everything["bits_per_byte"] is a["bits_per_byte"] is None
    assert b["bits_per_byte"] > 0


def test_heldout_text_is_measured_by_its_bytes(world: Path) -> None:
    run, _ = prepare(read_recipe(pretraining(world)), world / "unused")
    found = {record["name"]: record for record in run.evaluate()}
    assert found.keys() == {"all", *SOURCES}
    for name, source in TokenSet.open(world / "tokens").sources("heldout").items():
        per_token = source.utf8_bytes / source.tokens
        bits = found[name]["loss"] / math.log(2) / per_token
        assert found[name]["bits_per_byte"] == pytest.approx(bits)
    assert found["all"]["loss"] == pytest.approx(math.log(320), abs=0.3), "an untrained model"


def test_preferences_before_training_are_undecided(world: Path, base: Path) -> None:
    table = tuning(world, base, "dpo", data={"heldout_share": 0.4}, loss={"dpo_nll": 0.5})
    run, _ = prepare(read_recipe(table), world / "unused")
    (record,) = run.evaluate()
    assert record["margin"] == pytest.approx(0, abs=1e-5)
    assert record["preference_loss"] == pytest.approx(math.log(2), abs=1e-5)
    wanted = math.log(2) + 0.5 * record["chosen_nll"]
    assert record["loss"] == pytest.approx(wanted, abs=1e-5)


# ---------------------------------------------------------------- the loop, in this process


def test_pretraining_learns_and_writes_what_the_report_reads(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_recipe(pretraining(world, 30), tmp_path / "run")
    found = losses(tmp_path / "run")
    assert list(found) == list(range(1, 31))
    assert found[1] == pytest.approx(math.log(320), abs=0.2)
    assert min(found.values()) < found[1] - 1.5
    kinds = [type(record).__name__ for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert set(kinds) - {"Alarm"} == {"Start", "Train", "Eval", "Moe"}
    evaluated = [r["step"] for r in records(tmp_path / "run", "eval") if r["name"] == "all"]
    assert evaluated == [0, 15, 30]
    last = records(tmp_path / "run", "train")[-1]
    assert (last["progress"], last["tokens"]) == (1.0, 30 * 128)
    assert last["expert_learning_rate"] == pytest.approx(0.31 * last["learning_rate"])
    said = capsys.readouterr().out
    assert "parameters" in said
    assert "routing: dropless" in said
    assert f"done: {tmp_path / 'run' / 'checkpoints' / 'step-00000030'}" in said
    assert 0 < last["learning_rate"] < 1e-2


def test_every_checkpoint_is_served_as_it_is(world: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        table = pretraining(
            world,
            4,
            model={"dtype": dtype, "routing": RECYCLE},
            saving={"every_minutes": 1e-9, "keep_last": 10},
        )
        folder = tmp_path / dtype
        run_recipe(table, folder)
        found = checkpoints(folder / "checkpoints")
        assert [path.name for path in found] == [f"step-0000000{i}" for i in range(1, 5)]
        ids = torch.arange(5, 45)[None]
        for path in found:
            live = hunyuan.load_model(path, dtype)
            assert live.config.routing.mode == "dropless"
            weights = {n: w.detach() for n, w in live.named_parameters()}
            for name, master in load_file(path / STATE).items():
                if name.startswith("master."):
                    own = weights[name.removeprefix("master.")]
                    assert torch.equal(own, master.to(own.dtype)), name
            tokenizer = hunyuan.load_tokenizer(path)
            assert (
                tokenizer.decode(tokenizer.encode("The cat likes fish.")) == "The cat likes fish."
            )
            packed = hunyuan.load_packed(path)
            made = hunyuan.Engine(packed, tokenizer).generate("The", max_tokens=3, temperature=0)
            assert len(made.tokens) <= 3
            with torch.no_grad():
                assert live(ids).isfinite().all()
        by_run = hunyuan.load_model(folder, dtype)
        assert all(torch.equal(by_run.get_parameter(n), w) for n, w in weights.items())


TASKS: dict[str, dict[str, Any]] = {
    "pretrain": {"model": {"routing": RECYCLE}, "dropout": {"hidden": 0.2}},
    "distil": {"task": "distil"},
    "sft": {"dropout": {"attention": 0.1}},
    "lora": {"lora": {"rank": 2, "dropout": 0.1, "where": ["attention", "experts"]}},
    "dpo": {"saving": {"ema": 0.9}, "schedule": {"epochs": 2}, "batch": {"rows": 4}},
    "online": {"schedule": {"epochs": 2}, "batch": {"rows": 4}},
}


@pytest.mark.parametrize("task", TASKS)
def test_a_stopped_run_goes_on_to_the_bit(
    world: Path, base: Path, tmp_path: Path, task: str
) -> None:
    """Every task, stopped wherever it may be, evaluations and best checkpoints included."""
    if task in ("pretrain", "distil"):
        table = pretraining(world, 7, **TASKS[task])
        if task == "distil":
            table = merged(table, {"loss": {"teacher": str(base)}})
    else:
        kind = "dpo" if task in ("dpo", "online") else "sft"
        table = tuning(world, base, kind, **TASKS[task])
        if task == "online":
            table["online"] = asking(world, base)
    table = merged(table, {"evaluation": {"every": 0.3}, "data": {"heldout_share": 0.2}})
    run_recipe(table, tmp_path / "whole")
    for _ in range(20):
        try:
            run_recipe(table, tmp_path / "parts", stop_after=2)
            break
        except InterruptedWorkError:
            continue
    assert len(records(tmp_path / "parts", "start")) >= 3
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    evals = [
        [(r["step"], r["name"], r["loss"]) for r in records(tmp_path / name, "eval")]
        for name in ("parts", "whole")
    ]
    assert evals[0] == evals[1]
    assert len(evals[0]) >= 3
    same_state(newest(tmp_path / "parts"), newest(tmp_path / "whole"))


def test_the_checkpoint_of_an_evaluation_goes_on_to_the_bit(world: Path, tmp_path: Path) -> None:
    """The best one is written in the middle of the run, and may be the newest after a kill."""
    table = pretraining(world, 8, evaluation={"every": 0.25}, saving={"keep_last": 9})
    run_recipe(table, tmp_path / "whole")
    steps_saved = [int(path.name[5:]) for path in checkpoints(tmp_path / "whole" / "checkpoints")]
    assert 2 in steps_saved, "the first evaluation was the best so far"
    run, _ = prepare(read_recipe(table), tmp_path / "other")
    saved, _ = read_newest(keep_only(tmp_path / "whole" / "checkpoints", 2))
    assert saved is not None
    run.restore(saved)
    found: dict[int, float] = {}
    run.listeners = [
        lambda r: found.update({r["step"]: r["loss"]}) if r["kind"] == "train" else None
    ]
    fit(run)
    whole = losses(tmp_path / "whole")
    assert found == {step: whole[step] for step in range(3, 9)}


def keep_only(folder: Path, step: int) -> Path:
    for path in checkpoints(folder):
        if not path.name.endswith(f"{step:08d}"):
            path.rename(path.with_name(f"away-{path.name}"))
    return folder


def test_old_checkpoints_go_and_the_best_stays(world: Path, tmp_path: Path) -> None:
    table = pretraining(world, 10, evaluation={"every": 0.1}, saving={"keep_last": 2})
    run, _ = prepare(read_recipe(table), tmp_path / "run")
    values = iter([9.0, 8.0, 7.0, 5.0, 6.0, 5.5, 8.0, 8.0, 8.0, 8.0, 9.0])
    run.evaluate = lambda: [{"name": "all", "loss": next(values), "bits_per_byte": None}]
    run.recipe = replace(run.recipe, saving=replace(run.recipe.saving, every_minutes=1e-9))
    fit(run)
    names = [path.name for path in checkpoints(run.saver.folder)]
    assert names == ["step-00000003", "step-00000009", "step-00000010"]
    assert best_step(run.saver.folder) == 3
    best = json.loads((run.saver.folder / "best.json").read_bytes())
    assert best == {"step": 3, "loss": 5.0}


def test_without_keep_best_only_the_newest_stay(world: Path, tmp_path: Path) -> None:
    saving = {"keep_last": 1, "keep_best": False, "every_minutes": 1e-9}
    run_recipe(pretraining(world, 4, saving=saving), tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


def damage_state(path: Path) -> None:
    whole = bytearray((path / STATE).read_bytes())
    whole[len(whole) // 2] ^= 1
    (path / STATE).write_bytes(whole)


def cut_state(path: Path) -> None:
    (path / STATE).write_bytes((path / STATE).read_bytes()[:-7])


def empty_json(path: Path) -> None:
    (path / STATE_JSON).write_bytes(b"")


def remove_state(path: Path) -> None:
    (path / STATE).unlink()


def damage_weights(path: Path) -> None:
    """One bit of what would be served."""
    weights = bytearray((path / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (path / "model.safetensors").write_bytes(bytes(weights))


@pytest.mark.parametrize(
    "damage", [damage_state, cut_state, empty_json, remove_state, damage_weights]
)
def test_a_damaged_checkpoint_is_passed_over_and_written_again(
    world: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = pretraining(world, 4, saving={"every_minutes": 1e-9, "keep_last": 3})
    run_recipe(table, tmp_path / "whole")
    run_recipe(table, tmp_path / "run")
    last = newest(tmp_path / "run")
    damage(last)
    run_recipe(table, tmp_path / "run")
    said = capsys.readouterr().out
    assert f"{last} is damaged" in said
    assert "going on from step 3" in said
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    same_state(last, newest(tmp_path / "whole"))
    assert last.with_name(f"damaged-{last.name}").is_dir(), "nothing is deleted"
    assert newest(tmp_path / "run") == last


def test_if_all_are_damaged_nothing_is_begun_anew(world: Path, tmp_path: Path) -> None:
    table = pretraining(world, 2)
    run_recipe(table, tmp_path)
    for path in checkpoints(tmp_path / "checkpoints"):
        damage_state(path)
    with pytest.raises(BadDataError, match="every checkpoint is damaged; remove the folder"):
        run_recipe(table, tmp_path)


def test_a_finished_run_started_again_does_nothing(world: Path, tmp_path: Path) -> None:
    table = pretraining(world, 3)
    run_recipe(table, tmp_path)
    before = content(tmp_path / "checkpoints")
    counts = [len(records(tmp_path, kind)) for kind in ("train", "eval", "moe")]
    run_recipe(table, tmp_path)
    assert content(tmp_path / "checkpoints") == before
    assert [len(records(tmp_path, kind)) for kind in ("train", "eval", "moe")] == counts


def test_a_loss_that_is_no_number_stops_the_run_and_spoils_nothing(
    world: Path, tmp_path: Path
) -> None:
    table = pretraining(world, 12, schedule={"warmup": 0.0}, evaluation={"every": 0.01})
    with pytest.raises(InterruptedWorkError):
        run_recipe(table, tmp_path, stop_after=3)
    before = content(tmp_path / "checkpoints")
    wild = merged(table, {"optimizer": {"learning_rate": 1e30}})
    with pytest.raises(HunyuanError) as caught:
        run_recipe(wild, tmp_path, accept_changes=True)
    assert caught.value.exit_code == 1
    assert "nothing was learned from it; lower optimizer.learning_rate" in caught.value.en
    assert "请降低 optimizer.learning_rate" in caught.value.zh
    assert content(tmp_path / "checkpoints") == before
    (alarm,) = alarms(tmp_path, "nonfinite")
    assert alarm["level"] == "stop"
    assert any(math.isnan(record["loss"]) for record in records(tmp_path, "eval"))
    assert hunyuan_command(["report", str(tmp_path)]) == 0, "one wants to see what went wrong"
    run_recipe(table, tmp_path, accept_changes=True)
    assert newest(tmp_path).name == "step-00000012"


def test_another_recipe_is_refused_with_what_differs(world: Path, tmp_path: Path) -> None:
    table = pretraining(world, 4)
    with pytest.raises(InterruptedWorkError):
        run_recipe(table, tmp_path, stop_after=2)
    other = merged(table, {"optimizer": {"learning_rate": 0.5, "clip": 2.0}})
    with pytest.raises(UsageError) as caught:
        run_recipe(other, tmp_path)
    assert "optimizer.clip: None -> 2.0; optimizer.learning_rate: 0.01 -> 0.5" in caught.value.en
    assert "--accept-changes" in caught.value.en
    assert "optimizer.clip: None -> 2.0" in caught.value.zh
    run_recipe(other, tmp_path, accept_changes=True)
    rates = [record["learning_rate"] for record in records(tmp_path, "train")]
    assert rates[1] < 0.02 < rates[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora": {"rank": 3}}, "is trained in another shape"),
        ({"lora": None}, "is trained in another shape or not at all in the checkpoint"),
        ({"data": {"limit": 5}}, "give 5 conversations, the checkpoint was made with"),
    ],
)
def test_accepted_changes_that_do_not_fit_are_one_line(
    world: Path, base: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    table = tuning(world, base, lora={"rank": 2})
    with pytest.raises(InterruptedWorkError):
        run_recipe(table, tmp_path, stop_after=1)
    with pytest.raises(UsageError, match=words):
        run_recipe(merged(table, change), tmp_path, accept_changes=True)


def test_the_average_of_the_weights_is_saved_in_their_place(world: Path, tmp_path: Path) -> None:
    plain = pretraining(world, 5)
    run, _ = prepare(read_recipe(plain), tmp_path / "plain")
    history: list[dict[str, Tensor]] = []

    def keep(record: dict[str, Any]) -> None:
        if record["kind"] == "train":
            history.append({o.name: o.master.detach().clone() for o in run.optimizer.trained})

    start = {one.name: one.master.detach().clone() for one in run.optimizer.trained}
    run.listeners = [keep]
    fit(run)
    run_recipe(merged(plain, {"saving": {"ema": 0.75}}), tmp_path / "ema")
    assert losses(tmp_path / "ema").keys() == set(range(1, 6))
    served = dict(hunyuan.load_model(tmp_path / "ema").named_parameters())
    for name, value in start.items():
        expected = value
        for moment in history:
            expected = 0.75 * expected + 0.25 * moment[name]
        assert torch.allclose(served[name], expected, atol=1e-6), name
        assert not torch.allclose(served[name], history[-1][name], atol=1e-4) or "norm" in name


def test_an_average_may_begin_in_the_middle(world: Path, tmp_path: Path) -> None:
    table = pretraining(world, 4)
    with pytest.raises(InterruptedWorkError):
        run_recipe(table, tmp_path, stop_after=2)
    run_recipe(merged(table, {"saving": {"ema": 0.5}}), tmp_path, accept_changes=True)
    state = load_file(newest(tmp_path) / STATE)
    assert any(name.startswith("average.") for name in state)


# ---------------------------------------------------------------- failing disks


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"step": step}, {"master.w": torch.ones(64)}, {})


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one_and_says_so(
    tmp_path: Path,
) -> None:
    fails = False

    def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
        if fails:
            raise OSError(28, "No space left on device")
        (folder / "model").write_bytes(b"x")

    saver = Saver(tmp_path / "c", write, keep_last=1, keep_best=True)
    saver.save(snapshot(1), best=2.0)
    saver.wait()
    assert saver.take_error() is None
    before, fails = content(tmp_path / "c"), True
    saver.save(snapshot(2), best=1.0)
    saver.wait()
    error = saver.take_error()
    assert error is not None
    assert error.exit_code == 3
    assert "no space left" in error.en
    assert saver.take_error() is None, "it is said once"
    assert content(tmp_path / "c") == before, "also the note of the best one"
    assert read_newest(tmp_path / "c")[0].path.name == "step-00000001"  # type: ignore[union-attr]
    fails = False
    saver.save(snapshot(3))
    saver.wait()
    assert [p.name for p in checkpoints(tmp_path / "c")] == ["step-00000001", "step-00000003"]


# ---------------------------------------------------------------- processes

FORKER = """
import json, os, resource, signal, sys, time
import hunyuan.cli.train, hunyuan.train.loop, hunyuan.train.task
from hunyuan.cli.main import run

hunyuan.train.task.matrix_peak = lambda dtype: 1e12

def lines(path):
    try:
        with open(path, "rb") as file:
            return file.read().count(b'"kind": "train"')
    except FileNotFoundError:
        return 0

for text in sys.stdin:
    job = json.loads(text)
    before = lines(job["metrics"])
    pid = os.fork()
    if pid == 0:
        for stream, path in ((1, job["out"]), (2, job["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        if job["limit"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
        code = run(job["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    done = 0
    if job["signal"]:
        while not done and lines(job["metrics"]) < before + job["after"]:
            done, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.001)
        if not done:
            time.sleep(job["delay"])
            os.kill(pid, job["signal"])
    if not done:
        _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Forker:
    """Runs commands as forks of a process that has everything loaded."""

    def __init__(self, folder: Path) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean | {"OMP_NUM_THREADS": "1", "HUNYUAN_LANG": "en"},
        )

    def train(
        self,
        recipe: Path,
        run: Path,
        *more: str,
        kill: tuple[int, float] | None = None,
        with_signal: int = signal.SIGKILL,
        limit: int = 0,
    ) -> int:
        """Exit code; with ``kill``, (steps, seconds) after which the signal is sent."""
        job = {
            "arguments": ["train", str(recipe), "--run", str(run), *more],
            "metrics": str(run / "metrics.jsonl"),
            "out": str(self._folder / "out"),
            "err": str(self._folder / "err"),
            "limit": limit,
            "signal": int(with_signal) if kill else 0,
            "after": kill[0] if kill else 0,
            "delay": kill[1] if kill else 0,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    @property
    def said(self) -> str:
        return (self._folder / "out").read_text(encoding="utf-8")

    @property
    def complained(self) -> str:
        return (self._folder / "err").read_text(encoding="utf-8")

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    made = Forker(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


def write_recipe(path: Path, table: Mapping[str, Any]) -> Path:
    import tomli_w

    path.write_bytes(tomli_w.dumps(table).encode())
    return path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_killed_at_any_moment_it_goes_on_to_the_bit(
    world: Path, tmp_path: Path, forker: Forker, dtype: str
) -> None:
    """kill -9 three times, each between or within steps, evaluations or the writing of files."""
    table = pretraining(
        world,
        24,
        model={"dtype": dtype, "routing": RECYCLE},
        dropout={"hidden": 0.2},
        saving={"every_minutes": 1e-9},
        evaluation={"every": 0.2},
    )
    recipe = write_recipe(tmp_path / "r.toml", table)
    assert forker.train(recipe, tmp_path / "whole") == 0, forker.complained
    moments = [(random.randint(1, 6), random.uniform(0, 0.03)) for _ in range(3)]
    codes = [forker.train(recipe, tmp_path / "run", kill=moment) for moment in moments]
    assert codes == [-signal.SIGKILL] * 3, moments
    assert forker.train(recipe, tmp_path / "run") == 0, forker.complained
    assert "going on from step" in forker.said
    assert losses(tmp_path / "run") == losses(tmp_path / "whole"), moments
    same_state(newest(tmp_path / "run"), newest(tmp_path / "whole"))
    left = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name[0] == "."]
    assert left == [], "what a kill left half-written is cleared away"


def test_sigterm_saves_and_the_same_command_goes_on(
    world: Path, tmp_path: Path, forker: Forker
) -> None:
    recipe = write_recipe(tmp_path / "r.toml", pretraining(world, 40))
    assert forker.train(recipe, tmp_path / "whole") == 0
    run = tmp_path / "run"
    code = forker.train(recipe, run, kill=(3, 0.0), with_signal=signal.SIGTERM)
    assert code == 5, forker.complained
    stopped = records(run, "train")[-1]["step"]
    assert forker.complained == (
        f"error: stopped at step {stopped}; the same command goes on from there\n"
    )
    assert [path.name for path in checkpoints(run / "checkpoints")] == [f"step-{stopped:08d}"]
    assert forker.train(recipe, run) == 0
    assert f"going on from step {stopped}" in forker.said
    assert losses(run) == losses(tmp_path / "whole")
    assert len(records(run, "train")) == 40, "no step was done twice"


def test_with_a_full_disk_training_goes_on_and_says_so(
    world: Path, tmp_path: Path, forker: Forker
) -> None:
    """A limit on file sizes lets the weights through, but not the state of the optimiser."""
    table = pretraining(world, 8, saving={"every_minutes": 1e-9}, evaluation={"every": 0.2})
    recipe = write_recipe(tmp_path / "r.toml", table)
    assert forker.train(recipe, tmp_path / "whole") == 0
    run = tmp_path / "run"
    assert forker.train(recipe, run, "--stop-after", "2") == 5
    before = content(run / "checkpoints")
    size = (newest(run) / "model.safetensors").stat().st_size
    assert size * 2 < (newest(run) / STATE).stat().st_size
    assert forker.train(recipe, run, limit=size * 3 // 2) == 3
    assert forker.complained.count("\n") == 1
    assert "cannot be written, file too large" in forker.complained
    assert losses(run) == losses(tmp_path / "whole"), "it went on to the end"
    assert alarms(run, "checkpoint")
    for alarm in alarms(run, "checkpoint"):
        assert alarm["level"] == "warning"
        assert "training goes on: " in alarm["en"]
        assert "训练继续" in alarm["zh"]
    assert newest(run).name == "step-00000002"
    assert content(run / "checkpoints") == before
    assert forker.train(recipe, run) == 0
    assert losses(run) == losses(tmp_path / "whole")
    same_state(newest(run), newest(tmp_path / "whole"))


def test_the_command_itself(world: Path, tmp_path: Path) -> None:
    """A process of its own, measured machine, memory kept and all."""
    recipe = write_recipe(tmp_path / "small.toml", pretraining(world, 2))
    done = subprocess.run(
        [sys.executable, "-m", "hunyuan", "train", str(recipe), "--set", "seed=3"],
        cwd=tmp_path,
        env=os.environ | {"HUNYUAN_LANG": "zh", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "完成：runs/small/checkpoints/step-00000002" in done.stdout
    assert "seed = 3" in (tmp_path / "runs" / "small" / "recipe.toml").read_text()


# ---------------------------------------------------------------- adapters


def test_only_adapters_train_and_the_merged_model_is_the_adapted_one(
    world: Path, base: Path, tmp_path: Path
) -> None:
    lora = {"rank": 3, "where": ["attention", "shared", "experts"], "router": True}
    table = tuning(
        world, base, lora=lora, optimizer={"learning_rate": 1e-2}, model={"routing": RECYCLE},
        batch={"row_tokens": 64}, schedule={"epochs": 3},
    )  # fmt: skip
    run, _ = prepare(read_recipe(table), tmp_path / "run")
    model = run.forward.model
    before = {n: w.detach().clone() for n, w in model.named_parameters() if "lora_" not in n}
    first = [r["loss"] for r in run.evaluate()]
    fit(run)
    for name, weight in model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(weight, before[name]), name
            assert weight.grad is None
        elif "lora_B" in name and ".experts." in name:
            moved = [bool(expert.any()) for expert in weight]
            assert sum(moved) > 1, f"{name}: adapters of experts got no gradient"
        elif "lora_B" in name:
            assert weight.any(), name
    assert run.evaluate()[0]["loss"] < first[0] - 0.15
    path = newest(tmp_path / "run")
    assert {p.name for p in (path / "adapter").iterdir()} >= {"adapter_model.safetensors"}
    served = hunyuan.load_model(path)
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        adapted = dropless_twin(model)(ids)
        merged_logits, plain = served(ids), hunyuan.load_model(base)(ids)
    assert (adapted - merged_logits).abs().max() < 1e-4 * adapted.abs().max()
    assert (adapted - plain).abs().max() > 0.05 * adapted.abs().max()
    hunyuan.load_packed(path)


def test_adapters_need_the_memory_of_adapters(
    world: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen base takes two or four bytes a number, not the eighteen of one that is trained."""
    total = hunyuan.load_model(base).config.total_parameters
    monkeypatch.setattr("hunyuan.memory.available_memory", lambda: total * 8)
    prepare(read_recipe(tuning(world, base, lora={"rank": 2})), tmp_path)
    with pytest.raises(HunyuanError, match="the state of training needs") as caught:
        prepare(read_recipe(tuning(world, base)), tmp_path)
    assert caught.value.exit_code == 3


# ---------------------------------------------------------------- alarms and figures


def routes_from(choice: Tensor, probabilities: Tensor) -> Routes:
    never = torch.zeros(len(choice), 1, dtype=torch.bool)
    weight = probabilities.gather(1, choice[:, None])
    return Routes(
        probabilities.log(), probabilities, choice[:, None], choice[:, None], weight, never, never
    )


def routers() -> dict[str, Routes]:
    n, e = 64, 8
    even = torch.arange(n) % e
    flat = torch.full((n, e), 1 / e)
    one = torch.zeros(n, dtype=torch.long)
    sharp = F.one_hot(one, e).float().clamp(1e-12)
    half = torch.arange(n) % 4
    return {
        "uniform": routes_from(even, flat),
        "one-hot": routes_from(one, sharp),
        "half dead": routes_from(half, flat),
    }


def test_figures_of_known_routers() -> None:
    uniform, one, half = (layer_record(0, r, None) for r in routers().values())
    assert uniform["load"] == [1.0] * 8
    assert (uniform["dead"], uniform["max_violation"]) == (0, 0.0)
    assert uniform["router_entropy"] == pytest.approx(1, abs=1e-6)
    assert uniform["load_entropy"] == pytest.approx(1, abs=1e-6)
    assert uniform["balance_loss"] == pytest.approx(1, abs=1e-6)
    assert uniform["top1_weight"] == pytest.approx(1 / 8)
    assert one["load"] == [8.0] + [0.0] * 7
    assert (one["dead"], one["max_violation"]) == (7, 7.0)
    assert one["router_entropy"] == pytest.approx(0, abs=1e-6)
    assert one["balance_loss"] == pytest.approx(8, abs=1e-4)
    assert one["load_entropy"] == pytest.approx(1 / 8)
    assert half["load"] == [2.0] * 4 + [0.0] * 4
    assert (half["dead"], half["max_violation"]) == (4, 1.0)
    assert half["load_entropy"] == pytest.approx(0.5, abs=1e-6)


def test_recycled_and_dropped_choices_are_shares() -> None:
    plain = routers()["half dead"]
    recycled = torch.zeros(64, 1, dtype=torch.bool)
    recycled[:16] = True
    dropped = torch.zeros(64, 1, dtype=torch.bool)
    dropped[60:] = True
    weight = torch.full((64, 1), 0.3)
    weight[:16] = 0.1
    figures = layer_record(
        3, plain._replace(recycled=recycled, dropped=dropped, weight=weight), 0.5
    )
    assert (figures["layer"], figures["similarity"]) == (3, 0.5)
    assert (figures["recycled"], figures["dropped"]) == (0.25, 0.0625)
    assert figures["recycled_weight"] == pytest.approx(0.1)
    assert layer_record(0, plain, None)["recycled_weight"] is None


def test_similarity_of_known_experts() -> None:
    same = torch.randn(1, 4, 6).expand(5, 4, 6)
    assert expert_similarity(same) == pytest.approx(1, abs=1e-5)
    assert expert_similarity(torch.eye(8).view(8, 2, 4)) == pytest.approx(0, abs=1e-6)


def test_collapsing_routers_raise_an_alarm_and_balanced_ones_do_not() -> None:
    found = {name: layer_record(2, routes, None) for name, routes in routers().items()}
    assert Watch().experts(1, [found["uniform"]]) is None
    one = Watch().experts(1, [found["uniform"], found["one-hot"]])
    assert one is not None
    assert one.code == "collapse"
    assert "layer 2: 7 of 8 experts get no token, the fullest 8.0 times its share" in one.en
    assert "第 2 层：8 个专家中有 7 个没有词元" in one.zh
    half = Watch().experts(1, [found["half dead"]])
    assert half is not None
    assert "4 of 8 experts get no token" in half.en
    watch = Watch()
    said = [watch.experts(step, [found["one-hot"]]) is not None for step in range(1, 402)]
    assert [i + 1 for i, each in enumerate(said) if each] == [1, 201, 401]


def test_a_spike_raises_an_alarm_and_noise_or_a_falling_loss_does_not() -> None:
    draw = random.Random(0)
    watch = Watch()
    for step in range(400):
        usual = 6 * math.exp(-step / 150) + 2 + draw.gauss(0, 0.05)
        assert watch.loss(step, usual) is None, step
    alarm = watch.loss(400, 4.5)
    assert alarm is not None
    assert alarm.code == "spike"
    assert "loss 4.500 is far above the usual" in alarm.en
    assert "损失 4.500 远高于平常的" in alarm.zh
    assert watch.loss(401, 4.5) is None, "once in a while"
    assert Watch().loss(0, 1e9) is None, "nothing to compare with"


def test_metrics_survive_a_torn_line_and_figures_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    first = MetricsFile(path)
    first({"kind": "eval", "step": 1, "tokens": 2, "time": 3.0, "name": "a", "loss": math.nan})
    first.close()
    with path.open("ab") as file:
        file.write(b'{"kind": "train", "lo')
    second = MetricsFile(path)
    second({"kind": "alarm", "step": 1, "time": 3.0, "level": "stop", "code": "c", "en": "e",
            "zh": "词元"})  # fmt: skip
    second.close()
    evaluated, alarm = read_metrics(path)
    assert isinstance(evaluated, Eval)
    assert math.isnan(evaluated.loss)
    assert isinstance(alarm, Alarm)
    assert alarm.zh == "词元"


def test_what_is_trained_is_said_in_both_languages(world: Path, base: Path) -> None:
    routing = RECYCLE | {"capacity_factor": 0.5}
    table = tuning(world, base, lora={"rank": 2}, model={"routing": routing}, batch={"rows": 2},
                   data={"malformed_share": 0.5, "files": [str(bad_lines(world))]})  # fmt: skip
    table = merged(table, {"batch": {"row_tokens": 64}})
    run, tally = prepare(read_recipe(table), world / "unused")
    lines = describe(run, tally)
    english, chinese = ("\n".join(texts) for texts in zip(*lines, strict=True))
    for words in ("1 unusable lines", ":3: ", "attention", "warning: capacity_factor=0.5 is below"):
        assert words in english
    for words in ("无法使用 1 行", "词元", "警告：capacity_factor=0.5 小于 1"):
        assert words in chinese


def bad_lines(world: Path) -> Path:
    path = world / "bad.jsonl"
    write_lines(path, [*conversations(3, 2), {"messages": []}, *conversations(4, 5)])
    return path


def test_the_screen_tells_alarms_and_evaluations(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    alarm = {"kind": "alarm", "level": "warning", "en": "a spike", "zh": "突增"}
    record = {"kind": "eval", "name": "all", "loss": 2.5, "bits_per_byte": 1.25, "accuracy": 0.5}
    screen(record)
    screen(alarm)
    monkeypatch.setenv("HUNYUAN_LANG", "zh")
    screen(record)
    screen(alarm | {"level": "stop"})
    assert capsys.readouterr().out.splitlines() == [
        "evaluated all: loss 2.5000, 1.2500 bits per byte, accuracy 50%",
        "warning: a spike",
        "评测 all: loss 2.5000, 1.2500 比特/字节, 准确率 50%",
        "停止: 突增",
    ]


# ---------------------------------------------------------------- bad input on the command line


def other_vocabulary(world: Path) -> Path:
    folder = world / "foreign"
    if not folder.exists():
        tokenizer = train_tokenizer(["völlig anderer Text " * 3, "mit anderen Wörtern"] * 9, 300)
        write_token_set(
            folder, tokenizer, {"train": {"de": ["anderer Text"]}}, language="mixed", license="MIT"
        )
    return folder


BAD: dict[str, tuple[Callable[[Path, Path], dict[str, Any]], int, str]] = {
    "unknown key": (lambda w, b: pretraining(w, optimizer={"lr": 1.0}), 2, "optimizer.lr is unkn"),
    "no tokens": (
        lambda w, b: pretraining(w, data={"tokens": str(w / "absent")}),
        4,
        "absent/manifest.json: not found; give the folder that `hunyuan data prepare` wrote",
    ),
    "no file": (
        lambda w, b: tuning(w, b, data={"files": [str(w / "absent.jsonl")]}),
        4,
        "absent.jsonl: No such file or directory",
    ),
    "no base": (lambda w, b: tuning(w, w / "nowhere"), 2, "nowhere"),
    "other vocabulary": (
        lambda w, b: merged(
            pretraining(w, data={"tokens": str(other_vocabulary(w))}),
            {"model": {"shape": None, "base": str(b)}},
        ),
        2,
        "foreign: was made with another vocabulary than the model's; prepare it again",
    ),
    "small vocabulary": (
        lambda w, b: pretraining(w, model={"shape": SHAPE | {"vocab": 100}}),
        2,
        "rows; use the model's own tokenizer, or raise vocab",
    ),
    "capacity group": (
        lambda w, b: pretraining(w, model={"routing": RECYCLE | {"capacity_group": 100}}),
        2,
        "batch: rows * row_tokens = 128 is no multiple of model.routing.capacity_group=100",
    ),
    "long rows": (
        lambda w, b: pretraining(w, batch={"row_tokens": 256}),
        2,
        "batch.row_tokens=256 exceeds the model's context=128; lower it, or set model.change",
    ),
    "no such source": (
        lambda w, b: pretraining(w, data={"mixture": [{"source": "fr"}]}),
        2,
        "data.mixture: 'fr' is no source of",
    ),
    "a source twice": (
        lambda w, b: pretraining(w, data={"mixture": [{"source": "en"}] * 2}),
        2,
        "en: is in the mixture twice",
    ),
    "odd rows": (
        lambda w, b: tuning(w, b, "dpo", batch={"rows": 3}),
        2,
        "batch.rows=3: must be even for dpo, two rows a pair",
    ),
    "no tokenizer": (
        lambda w, b: merged(tuning(w, b), {"model": {"base": None, "shape": SHAPE}}),
        2,
        "task=sft: the model has no tokenizer; set model.tokenizer",
    ),
    "unknown field of the shape": (
        lambda w, b: pretraining(w, model={"shape": SHAPE | {"expert": 3}}),
        2,
        "model.shape.expert is unknown; did you mean model.shape.experts?",
    ),
    "incomplete shape": (
        lambda w, b: merged(
            pretraining(w), {"model": {"shape": dict.fromkeys(SHAPE) | {"ffn": 8}}}
        ),
        2,
        "model.shape.hidden is missing",
    ),
    "wrong type in the shape": (
        lambda w, b: pretraining(w, model={"shape": SHAPE | {"hidden": "32"}}),
        2,
        "model.shape.hidden='32' must be a whole number",
    ),
    "another shape of the base": (
        lambda w, b: tuning(w, b, model={"change": {"hidden": 64}}),
        2,
        "changes the shapes of weights; only fields such as context and rope may change",
    ),
    "everything held out": (
        lambda w, b: tuning(w, b, data={"heldout_share": 1.0}),
        4,
        "nothing is left to train on; lower data.heldout_share",
    ),
    "teacher of another vocabulary": (
        lambda w, b: pretraining(
            w, task="distil", model={"shape": SHAPE | {"vocab": 384}}, loss={"teacher": str(b)}
        ),
        2,
        "rows of vocabulary, the model 384; they must be the same",
    ),
    "lora that matches nothing": (
        lambda w, b: tuning(w, b, lora={"where": ["mlp"]}),
        2,
        "lora: where=mlp and targets=",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_its_exit_code(
    world: Path, base: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, code, words = BAD[name]
    recipe = write_recipe(tmp_path / "r.toml", make(world, base))
    assert hunyuan_command(["train", str(recipe), "--run", str(tmp_path / "run")]) == code
    complained = capsys.readouterr().err
    assert complained.startswith("error: ")
    assert complained.count("\n") == 1
    assert words in complained


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.toml"], "absent.toml: No such file or directory; give a recipe"),
        (["{recipe}", "--set", "seed"], "--set seed: must be section.key=value"),
        (["{recipe}", "--set", "optimizer.betta1=0.5"], "did you mean optimizer.beta1?"),
        (["{recipe}", "--stop-after", "0"], "0 is not in the range"),
    ],
)
def test_bad_arguments(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path / "r.toml", pretraining(world))
    code = hunyuan_command(["train", *(a.format(recipe=recipe) for a in arguments)])
    complained = capsys.readouterr().err
    assert (code, complained.count("\n")) == (2, 1)
    assert words in complained
    assert not (tmp_path / "runs").exists(), "nothing was begun"


def test_a_dry_run_shows_every_setting_and_writes_nothing(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path / "r.toml", pretraining(world))
    assert hunyuan_command(["train", "r.toml", "--dry-run", "--set", "seed=5"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["seed"] == 5
    assert shown["schedule"]["decay"] == "cosine"
    assert {field.name for field in fields(Recipe)} == shown.keys()
    assert list(tmp_path.iterdir()) == [recipe]


def test_runs_with_a_log_that_cannot_be_written_end_in_one_line(
    world: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HunyuanError) as caught:
        run_recipe(pretraining(world), tmp_path / "file" / "run")
    assert str(tmp_path / "file") in caught.value.en


def test_a_snapshot_is_a_copy(world: Path, tmp_path: Path) -> None:
    """Training on does not change it."""
    run, _ = prepare(read_recipe(pretraining(world, 4)), tmp_path)
    taken = run.snapshot()
    before = {name: tensor.clone() for name, tensor in taken.tensors.items()}
    weights = {name: tensor.clone() for name, tensor in Served(taken.tensors, taken.types).items()}
    state = json.loads(json.dumps(taken.state))
    fit(run)
    assert all(torch.equal(before[n], t) for n, t in taken.tensors.items())
    assert all(torch.equal(weights[n], t) for n, t in Served(taken.tensors, taken.types).items())
    assert taken.state == state
