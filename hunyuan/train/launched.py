"""The processes that torchrun started: whether they can do what a recipe asks, and joining them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hunyuan.data.shards import TokenSet
from hunyuan.errors import HunyuanError, UsageError
from hunyuan.model.config import ModelConfig
from hunyuan.parallel.layout import check
from hunyuan.train import kernels
from hunyuan.train.ranks import ALONE, Ranks
from hunyuan.train.recipe import Recipe
from hunyuan.train.subject import find_subject, require_context


def world_size() -> int:
    """Processes that were started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(recipe: Recipe) -> Iterator[Ranks]:
    """The processes of a run for as long as the block lasts; one has nothing to wait for.

    Raises `UsageError`, before anything is allocated, if they cannot do what ``recipe`` says.
    """
    world = world_size()
    if world == 1 and recipe.parallel.world == 1:
        yield ALONE
        return
    tokens = TokenSet.open(recipe.data.tokens) if recipe.data.tokens is not None else None
    require_layout(recipe, find_subject(recipe, tokens).config, world)
    from hunyuan.parallel.ranks import lost, many_ranks

    try:
        with many_ranks(recipe.parallel, kernels.cross_entropy) as ranks:
            yield ranks
    except RuntimeError as error:
        if not lost(error):
            raise
        raise HunyuanError(
            "a process of this run was lost; torchrun --max-restarts starts all again, and so does "
            "the same command: from the newest checkpoint",
            "本次训练有一个进程丢失；torchrun --max-restarts 会重新启动全部进程，"
            "也可重新运行同一命令：均从最新检查点继续",
        ) from error


def require_layout(recipe: Recipe, config: ModelConfig, world: int) -> None:
    """Raise `UsageError` unless a recipe's layout works for its model, batch and task."""
    layout, batch = recipe.parallel, recipe.batch
    require_context(recipe, config)
    if world == 1:
        raise UsageError(
            f"parallel: {layout} needs {layout.world} processes; start it with torchrun "
            f"--nproc-per-node {layout.world} -m hunyuan train ..., or leave [parallel] out",
            f"parallel：{layout} 需要 {layout.world} 个进程；请用 torchrun --nproc-per-node "
            f"{layout.world} -m hunyuan train ... 启动，或去掉 [parallel]",
        )
    _require_task(recipe)
    if config.experts and recipe.loss.balance:
        # The balance loss counts within capacity groups in every mode.
        routing = replace(config.routing, mode="capacity-drop")
        config = replace(config, routing=routing)
    rows = batch.rows // 2 if recipe.task == "dpo" else batch.rows
    check(config, layout, world, rows, batch.row_tokens, batch.accumulate)


def _require_task(recipe: Recipe) -> None:
    """What is divided must be something the task can do without."""
    layout = recipe.parallel
    able = {
        "dpo": ("data",),
        "distil": ("data", "expert"),
        "sft": ("data", "expert", "tensor", "context"),
        "pretrain": ("data", "expert", "tensor", "context", "pipeline"),
    }[recipe.task]
    what = f"task={recipe.task}"
    if recipe.lora is not None:
        able = tuple(name for name in able if name in ("data", "context"))
        what += " with lora"
    sizes = {
        "data": layout.data,
        "expert": layout.expert,
        "tensor": layout.tensor,
        "context": layout.context,
        "pipeline": layout.pipeline,
    }
    for name, size in sizes.items():
        if size > 1 and name not in able:
            allowed = ", ".join(f"parallel.{one}" for one in able)
            raise UsageError(
                f"parallel.{name}={size}: {what} can be divided by {allowed} alone; set "
                f"parallel.{name} to 1",
                f"parallel.{name}={size}：{what} 只能按 {allowed} 划分；"
                f"请将 parallel.{name} 设为 1",
            )
    if recipe.online is not None:
        raise UsageError(
            "online: the model answers on one process alone; leave [online] or [parallel] out",
            "online：模型只能在单个进程上作答；请去掉 [online] 或 [parallel]",
        )
