"""One process of those that `test_parallel` starts: every case in turn, against a single process.

Each process computes the reference itself, on the whole batch, then its part of the parallel run,
and writes down how far apart they are.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist  # noqa: TID251
from torch import Tensor

from hunyuan.model.config import ModelConfig, Routing
from hunyuan.model.ops import Ops
from hunyuan.model.routing import Routes, draw_slot_keys
from hunyuan.model.transformer import Transformer, build, init_weights
from hunyuan.parallel import context
from hunyuan.parallel.apply import fill, parallelise
from hunyuan.parallel.context import divided_rows, part_of, slot_keys_of
from hunyuan.parallel.layout import Layout, check
from hunyuan.parallel.mesh import Mesh, mesh_of, processes
from hunyuan.parallel.pipeline import Pipeline, Stage
from hunyuan.parallel.tensor import cross_entropy
from hunyuan.train import kernels
from hunyuan.train.losses import head_of, router_losses, training_ops
from hunyuan.train.outside import recompute_blocks
from hunyuan.train.recipe import LossSettings

ROWS, TOKENS, MICRO, VOCAB = 4, 64, 4, 96

_SHAPE = {
    "vocab": VOCAB,
    "hidden": 32,
    "layers": 4,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 8,
    "ffn": 48,
    "context": TOKENS,
}

MODELS = {
    # Everything that Hunyuan-Large has, and biases.
    "large": {
        "experts": 4,
        "shared_experts": 1,
        "cla_share": 2,
        "qk_norm": True,
        "qkv_bias": True,
        "output_bias": True,
        "tied": True,
        "routing": Routing(mode="capacity-recycle", capacity_group=8),
    },
    "drop": {
        "experts": 4,
        "top_k": 2,
        "norm_topk_prob": True,
        "routing": Routing(mode="capacity-drop", capacity_factor=0.8, capacity_group=8),
    },
    # The groups are those in which the balance loss counts.
    "dropless": {
        "experts": 4,
        "top_k": 2,
        "shared_experts": 2,
        "cla_share": 2,
        "routing": Routing(capacity_group=8),
    },
    "dense": {"cla_share": 2, "qk_norm": True, "tied": True},
}

LAYOUTS = {
    2: ["data=2", "data=2 expert=2", "tensor=2", "pipeline=2", "context=2", "context=2 expert=2"],
    4: [
        "data=4 expert=2",
        "data=2 pipeline=2",
        "data=2 context=2 expert=4",
        "context=4 expert=2",
        "data=2 expert=2 tensor=2",
        "data=2 expert=2 pipeline=2",
        "context=2 pipeline=2",
        "pipeline=4",
    ],
}


class Case(NamedTuple):
    """What is compared."""

    layout: str
    model: str
    recompute: bool = False
    compiled: bool = False
    bfloat16: bool = False

    @property
    def name(self) -> str:
        """For people."""
        extras = [name for name in self._fields[2:] if getattr(self, name)]
        return ", ".join([self.layout, self.model, *extras])


def cases(world: int) -> list[Case]:
    """Every layout with every model it suits, and a few more."""
    found = [
        Case(layout, model)
        for layout in LAYOUTS[world]
        for model in MODELS
        if model in ("large", "drop") or (("expert" in layout) == (model == "dropless"))
    ]
    if world == 2:
        found += [
            Case("data=2 expert=2", "large", recompute=True),
            Case("context=2", "large", recompute=True),
            Case("pipeline=2", "large", recompute=True),
            Case("tensor=2", "large", recompute=True),
            Case("data=2 expert=2", "large", compiled=True),
            Case("data=2 expert=2", "large", bfloat16=True),
            Case("tensor=2", "dense", bfloat16=True),  # rounding would change routes
            Case("pipeline=2", "large", bfloat16=True),
        ]
    return found


class Step(NamedTuple):
    """All micro-batches of one step, one after another."""

    ids: Tensor
    positions: Tensor
    first_seen: Tensor
    targets: Tensor
    keys: list[Tensor] | None
    """Of each micro-batch."""

    @property
    def share(self) -> float:
        """Of one target."""
        return 1 / int((self.targets >= 0).sum())


def model_config(case: Case) -> ModelConfig:
    """The configuration of a case."""
    layers = 8 if case.layout == "pipeline=4" else 2 if case.compiled else 4
    return ModelConfig(**(_SHAPE | MODELS[case.model] | {"layers": layers}))


def _step(config: ModelConfig) -> Step:
    generator = torch.Generator().manual_seed(1)
    shape = (MICRO * ROWS, TOKENS)
    ids = torch.randint(0, VOCAB, shape, generator=generator)
    targets = torch.randint(-VOCAB // 4, VOCAB, shape, generator=generator)
    at = torch.arange(TOKENS).expand(shape)
    cuts = torch.randint(1, TOKENS, (shape[0], 3), generator=generator)
    begins = torch.where(at[..., None] >= cuts[:, None], cuts[:, None], 0).amax(-1)
    keys = None
    if config.experts and config.routing.mode == "capacity-recycle":
        keys = [draw_slot_keys(config, ROWS * TOKENS, generator) for _ in range(MICRO)]
    return Step(ids, at - begins, begins.int(), targets, keys)


@cache
def _reference(config: ModelConfig, dtype: torch.dtype) -> tuple[Transformer, Step, float]:
    """A model with the gradients of a step on one process, the step and its loss."""
    whole, step = _whole(config, dtype), _step(config)
    return whole, step, _alone(whole, step)


def _whole(config: ModelConfig, dtype: torch.dtype) -> Transformer:
    model = build(config, dtype)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    init_weights(model, generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:  # far enough from uniform routing and attention
                weight.mul_(6)
            else:
                weight.normal_(1.0 if "norm" in name else 0.0, 0.3, generator=generator)
    return model


def _router_loss(config: ModelConfig, share: float) -> Callable[[list[Routes]], Tensor]:
    settings = LossSettings(balance=0.1, router_z=0.01)

    def loss(routes: list[Routes]) -> Tensor:
        total: Tensor = router_losses(routes, config, settings)[0] * share
        return total

    return loss


def _alone(model: Transformer, step: Step) -> float:
    config, total = model.config, 0.0
    for i, part in enumerate(zip(*(t.split(ROWS) for t in step[:4]), strict=True)):
        ids, positions, first_seen, targets = part
        ops = training_ops(config, model.dtype, first_seen, 0.0)
        keys = None if step.keys is None else step.keys[i]
        hidden, routes = model.hidden(ids, positions, None, keys, ops)
        loss = kernels.cross_entropy(
            hidden.flatten(0, 1),
            head_of(model),
            targets.flatten(),
            torch.full((targets.numel(),), step.share),
        )
        total += float(loss.detach())
        if keys is not None:
            assert any(bool(layer.recycled.any()) for layer in routes), "nothing was recycled"
        if routes:
            loss = loss + _router_loss(config, 1 / MICRO)(routes)
        loss.backward()
    return total


def _part(step: Step, config: ModelConfig, mesh: Mesh) -> Step:
    """What this process holds of every micro-batch."""

    def own(x: Tensor) -> Tensor:
        return torch.cat([part_of(micro, mesh.layout, mesh.place) for micro in x.split(ROWS)])

    keys = step.keys and [
        slot_keys_of(k, config, mesh.layout, mesh.place, ROWS, TOKENS) for k in step.keys
    ]
    return Step(*(own(x) for x in step[:4]), keys)


def _together(case: Case, whole: Transformer, step: Step, mesh: Mesh) -> tuple[float, Transformer]:
    config, layout = whole.config, mesh.layout
    model = build(config, whole.dtype)
    if case.recompute:
        recompute_blocks(model)
        model.train()
    if case.compiled:
        block = model.model.layers[0]
        block.forward = torch.compile(block.forward, fullgraph=True, backend="aot_eager")
    module = parallelise(model, mesh)
    module.to_empty(device="cpu")
    fill(model, dict(whole.named_parameters()))
    part = _part(step, config, mesh)
    entropy = cross_entropy if layout.tensor > 1 else kernels.cross_entropy
    router_loss = _router_loss(config, 1 / MICRO / layout.shards / layout.pipeline)

    def ops(first_seen: Tensor) -> Ops:
        plain = training_ops(config, whole.dtype, first_seen, 0.0)
        return divided_rows(plain, first_seen, mesh)

    def loss_of(hidden: Tensor, targets: Tensor) -> Tensor:
        weights = torch.full((targets.numel(),), step.share)
        return entropy(hidden.flatten(0, 1), head_of(model), targets.flatten(), weights)

    if isinstance(module, Stage):
        module.ops, module.router_loss = ops, router_loss
        pipeline = Pipeline(
            module,
            mesh,
            rows=ROWS // layout.data,
            tokens=TOKENS // layout.context,
            micro=MICRO,
            loss=loss_of,
        )
        keys = None if part.keys is None else torch.stack(part.keys)
        dropless = config.routing.mode == "dropless"
        evaluated = pipeline.evaluate(*part[:4]) if dropless else None
        total = pipeline.step(*part[:4], keys)
        if evaluated is not None:
            torch.testing.assert_close(evaluated, total, rtol=1e-5, atol=0)
        if config.tied and (module.first or module.last):
            pipeline.sum_tied(model.model.embed_tokens.weight.grad)
        dist.all_reduce(total, group=mesh.pipeline.get_group())
    else:
        total = torch.zeros(())
        rows = ROWS // layout.data
        for i, micro in enumerate(zip(*(t.split(rows) for t in part[:4]), strict=True)):
            ids, positions, first_seen, targets = micro
            keys = None if part.keys is None else part.keys[i]
            hidden, routes = model.hidden(ids, positions, None, keys, ops(first_seen))
            loss = loss_of(hidden, targets)
            total += loss.detach()
            (loss + router_loss(routes) if routes else loss).backward()
    dist.all_reduce(total, group=mesh.data.get_group())
    return float(total), model


def _compare(case: Case, mesh: Mesh) -> dict[str, object]:
    config = model_config(case)
    check(config, mesh.layout, mesh.layout.world, ROWS, TOKENS, MICRO)
    whole, step, expected = _reference(config, torch.bfloat16 if case.bfloat16 else torch.float32)
    loss, model = _together(case, whole, step, mesh)
    differences = {}
    own = dict(model.named_parameters())
    for name, weight in whole.named_parameters():
        if name in own:
            assert own[name].grad is not None, f"{case.name}: {name} has no gradient"
            got = own[name].grad.full_tensor()
            assert got.dtype == weight.dtype
            apart = (got - weight.grad).float().norm() / weight.grad.float().norm()
            differences[name] = float(apart)
    return {"expected": expected, "loss": loss, "differences": differences}


def work(rank: int, world: int, folder: str) -> None:
    """All cases of a world; the results go to a file of this process."""
    torch.set_num_threads(1)
    context.QUERIES = 8  # several blocks in these short rows
    cpu = torch.device("cpu")
    meeting = f"file://{folder}/meeting"
    everyone = Layout(data=world)
    with processes(everyone, cpu, init_method=meeting, rank=rank, world_size=world):
        meshes = {text: mesh_of(Layout.parse(text), cpu) for text in LAYOUTS[world]}
        found = {case.name: _compare(case, meshes[case.layout]) for case in cases(world)}
    Path(folder, f"rank{rank}.json").write_text(json.dumps(found))
