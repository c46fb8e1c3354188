"""What several verbs ask for in the same words."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import UsageError, language

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine

Command = Callable[..., Any]


def written_dtype(command: Command) -> Command:
    """``--dtype`` of verbs that write a checkpoint."""
    return click.option(
        "--dtype",
        default="keep",
        show_default=True,
        metavar="TYPE",
        help="keep, float32, bfloat16 or float16; keep turns quantised tensors into bfloat16.",
    )(command)


def engine_options(command: Command) -> Command:
    """``--dtype``, ``--kv-dtype``, ``--context``, ``--memory`` and ``--check-reads``."""
    for option in (
        click.option(
            "--check-reads",
            is_flag=True,
            help="With experts on disk: check the hash of every read, not only of the first of "
            "each expert.",
        ),
        click.option(
            "--memory",
            metavar="SIZE",
            help="Memory of the whole program at most, such as 20G. What weights and cache leave "
            "of it holds experts, if the model's lie on disk. Default: what is free.",
        ),
        click.option(
            "--context",
            type=click.IntRange(1),
            help="Longest prompt plus answer in tokens. Default: the model's, or what fits.",
        ),
        click.option(
            "--kv-dtype",
            default="auto",
            show_default=True,
            metavar="TYPE",
            help="Numbers of the cache: auto, float32, bfloat16 or int8.",
        ),
        click.option(
            "--dtype",
            default="auto",
            show_default=True,
            metavar="TYPE",
            help="auto or stored (weights as they are, by the compiled kernels), float32, bfloat16 "
            "or float16 (by torch).",
        ),
    ):
        command = option(command)
    return command


def sampling_options(command: Command) -> Command:
    """The sampling parameters that a person sets by hand."""
    for option in (
        click.option("--seed", type=int, help="Same seed, same answer."),
        click.option("--stop", multiple=True, help="Text that ends the answer; may be repeated."),
        click.option("--repetition-penalty", type=float, help="Above 1 repeats less."),
        click.option("--min-p", type=float, help="Drop tokens below this share of the best."),
        click.option("--top-p", type=float, help="Keep the most likely tokens up to this sum."),
        click.option("--top-k", type=int, help="Keep the k most likely tokens; 0 keeps all."),
        click.option("--temperature", type=float, help="0 is greedy; up to 2."),
        click.option("--max-tokens", type=int, help="Tokens of the answer at most."),
    ):
        command = option(command)
    return command


def load_engine(
    model: str,
    dtype: str,
    kv_dtype: str,
    context: int | None,
    max_sequences: int,
    *,
    memory: str | None = None,
    check_reads: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> "Engine":
    """Load a model and put an engine on it; progress is shown unless it is asked for."""
    import torch

    from hunyuan.catalogue.store import locate
    from hunyuan.checkpoint.checkpoint import open_checkpoint
    from hunyuan.checkpoint.load import (
        DTYPES,
        load_checkpoint,
        pack_checkpoint,
        parse_dtype,
        tokenizer_of,
        why_not_packed,
    )
    from hunyuan.engine.budget import plan_memory
    from hunyuan.engine.cache import KV_DTYPES
    from hunyuan.engine.engine import Engine
    from hunyuan.memory import parse_memory
    from hunyuan.model.transformer import Transformer
    from hunyuan.native.library import isa
    from hunyuan.native.transformer import NativeTransformer

    if dtype not in ("auto", "stored", *DTYPES):
        raise UsageError(
            f"dtype {dtype!r} is unknown; use auto, stored, {', '.join(DTYPES)}",
            f"未知的 dtype {dtype!r}；请使用 auto、stored、{'、'.join(DTYPES)}",
        )
    checkpoint = open_checkpoint(locate(model))
    tokenizer = tokenizer_of(checkpoint)
    label = "载入" if language() == "zh" else "loading"
    line = ProgressLine(f"{label} {checkpoint.path.name}", unit="parameters")
    live: Transformer | NativeTransformer
    reason = why_not_packed(checkpoint) if dtype == "auto" else None
    if reason:
        _note(f"{reason}; torch computes instead", f"{reason}；改由 torch 计算")
    packed = dtype == "stored" or (dtype == "auto" and reason is None)
    limit = None if memory is None else parse_memory(memory)
    if limit is not None and not packed:
        raise UsageError(
            f"--memory {memory}: only a model that the compiled kernels run can be limited; leave "
            "--dtype away",
            f"--memory {memory}：只有由已编译内核运行的模型才能限制内存；请去掉 --dtype",
        )
    cache_tokens = slots = None
    if packed and (limit is not None or checkpoint.experts is not None):
        plan = plan_memory(
            checkpoint,
            limit,
            context=context,
            max_sequences=max_sequences,
            kv_dtype=KV_DTYPES.get(kv_dtype, torch.bfloat16),
        )
        context, cache_tokens, slots = plan.context, plan.cache_tokens, plan.slots
    if packed:
        live = pack_checkpoint(
            checkpoint,
            slots=slots,
            check_always=check_reads,
            progress=on_progress or line.update,
        )
        if isa() == "generic":
            _note(
                "no AVX2 or AVX-512: the portable kernels run, several times slower",
                "没有 AVX2 或 AVX-512：使用可移植内核，速度慢数倍",
            )
    else:
        live = load_checkpoint(checkpoint, parse_dtype(dtype), progress=on_progress or line.update)
    line.close()
    return Engine(
        live,
        tokenizer,
        context=context,
        max_sequences=max_sequences,
        kv_dtype=kv_dtype,
        cache_tokens=cache_tokens,
    )


def _note(en: str, zh: str) -> None:
    """Say once what is slower than it could be."""
    print(f"注意：{zh}" if language() == "zh" else f"note: {en}", file=sys.stderr)


def chosen(**options: Any) -> dict[str, Any]:
    """The options a person gave, without those left out."""
    return {name: value for name, value in options.items() if value not in (None, ())}
