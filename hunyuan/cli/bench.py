"""``hunyuan bench``: how fast a model runs here, and how close that is to what the machine can."""

import json
import shlex
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from hunyuan import __version__
from hunyuan.cli.columns import columns
from hunyuan.cli.disk import report_disk
from hunyuan.cli.options import engine_options, load_engine
from hunyuan.errors import DoesNotFitError, UsageError, language
from hunyuan.files import human_bytes

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine
    from hunyuan.engine.measure import Spread

PROMPT_TOKENS = (128, 512, 2048)


@click.command()
@click.argument("model")
@click.option(
    "--prompt-tokens",
    metavar="LIST",
    help="Lengths of the prompts. Default: 128,512,2048 as far as the context allows.",
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(2),
    default=64,
    show_default=True,
    help="Tokens of every answer.",
)
@click.option(
    "--batch",
    default="1,4,8",
    show_default=True,
    metavar="LIST",
    help="Requests that answer at the same time.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Measurements of each figure; the median counts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@engine_options
def bench(
    model: str,
    prompt_tokens: str | None,
    answer_tokens: int,
    batch: str,
    repeats: int,
    as_json: bool,
    dtype: str,
    kv_dtype: str,
    context: int | None,
    memory: str | None,
    check_reads: bool,
) -> None:
    """Measure the speed and memory of MODEL (a folder, a .gguf file or a pulled model's name).

    Prompts are random tokens, new ones each time. Each figure stands beside the limit that the
    machine sets: memory bandwidth for answers, matrix products for prompts.
    """
    lengths = _numbers("prompt-tokens", prompt_tokens) if prompt_tokens is not None else None
    sizes = _numbers("batch", batch)
    begin = time.perf_counter()
    engine = load_engine(
        *(model, dtype, kv_dtype, context),
        max_sequences=max(sizes),
        memory=memory,
        check_reads=check_reads,
    )
    load_seconds = time.perf_counter() - begin
    lengths = _fitting(lengths, answer_tokens, engine.context)
    result = {
        "hunyuan": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["hunyuan", *sys.argv[1:]]),
        "model": model,
        **_settings(engine),
        **_measured(engine, model, lengths, answer_tokens, sizes, repeats, load_seconds),
    }
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _print_table(result)
        report_disk(engine)


def _numbers(name: str, text: str) -> list[int]:
    """``128,512`` -> [128, 512], each once."""
    found = []
    for part in text.split(","):
        if not part.strip().isdecimal() or int(part) < 1:
            raise UsageError(
                f"{name}={text}: {part.strip()!r} is not a whole number of at least 1; give "
                "numbers separated by commas, such as 1,4,8",
                f"{name}={text}：{part.strip()!r} 不是不小于 1 的整数；请给出以逗号分隔的数字，"
                "例如 1,4,8",
            )
        found.append(int(part))
    return list(dict.fromkeys(found))


def _fitting(lengths: list[int] | None, answer: int, context: int) -> list[int]:
    """The prompt lengths to measure: those asked for, or the usual ones as far as they fit."""
    room = context - answer
    if lengths is None and room > 0:
        return list(dict.fromkeys(min(length, room) for length in PROMPT_TOKENS))
    longest = max(lengths or [1])
    if longest > room:
        raise DoesNotFitError(
            f"prompt-tokens={longest} plus answer-tokens={answer} needs {longest + answer}, the "
            f"context has {context}; lower prompt-tokens or answer-tokens, or raise the context",
            f"prompt-tokens={longest} 加 answer-tokens={answer} 共需 {longest + answer}，"
            f"上下文只有 {context}；请减小 prompt-tokens 或 answer-tokens，或加大 context",
        )
    return list(lengths or [])


def _settings(engine: "Engine") -> dict[str, Any]:
    """What ran on what."""
    import torch

    from hunyuan.checkpoint.load import dtype_name
    from hunyuan.native.library import isa
    from hunyuan.native.machine import processor
    from hunyuan.native.transformer import NativeTransformer

    model = engine.model
    if isinstance(model, NativeTransformer):
        kernels, threads, dtype = isa(), model.threads, "stored"
    else:
        kernels, threads, dtype = "torch", torch.get_num_threads(), dtype_name(model.dtype)
    return {
        "processor": processor(),
        "kernels": kernels,
        "threads": threads,
        "dtype": dtype,
        "kv_dtype": dtype_name(engine.cache.k.dtype),
        "context": engine.context,
        "torch": torch.__version__,
    }


def _measured(
    engine: "Engine",
    name: str,
    lengths: list[int],
    answer_tokens: int,
    sizes: list[int],
    repeats: int,
    load_seconds: float,
) -> dict[str, Any]:
    """Every figure. The machine's limits come last: measuring them takes memory."""
    import torch

    from hunyuan.catalogue.store import locate
    from hunyuan.checkpoint.checkpoint import open_checkpoint
    from hunyuan.checkpoint.load import packed_sizes
    from hunyuan.engine import measure
    from hunyuan.engine.cache import block_bytes
    from hunyuan.native import machine
    from hunyuan.native.library import BLOCK_TOKENS
    from hunyuan.native.transformer import NativeTransformer

    # Room for the tokens that the first requests choose while the last prompts are read.
    short = min([*lengths, max((engine.context - answer_tokens) // 2, 1)])
    prompts = measure.Prompts(engine)
    measure.answer(engine, prompts.take(min(lengths)), 1)
    first_token = {
        "prompt_tokens": min(lengths),
        "seconds_from_process_start": machine.process_age(),
        "load_seconds": load_seconds,
    }
    singles = {
        length: measure.single(engine, prompts, length, answer_tokens, repeats)
        for length in lengths
    }
    together = {
        size: measure.batched(engine, prompts, size, short, answer_tokens, repeats)
        for size in sizes
    }
    peak_memory = machine.peak_memory()

    config = engine.model.config
    if isinstance(engine.model, NativeTransformer):
        weights = packed_sizes(open_checkpoint(locate(name)))
    else:
        weights = measure.live_bytes(engine.model)
    limits = {
        "read_bytes_per_second": machine.read_bandwidth(),
        "bfloat16_flops": machine.matrix_peak(torch.bfloat16),
        "float32_flops": machine.matrix_peak(torch.float32),
    }
    peak = limits["float32_flops"]
    if isinstance(engine.model, NativeTransformer) or engine.model.dtype != torch.float32:
        peak = max(peak, limits["bfloat16_flops"])
    operations = measure.prefill_operations(config)
    bandwidth = limits["read_bytes_per_second"]
    read = measure.bytes_read(config, weights)
    return {
        "prompt_tokens": lengths,
        "answer_tokens": answer_tokens,
        "repeats": repeats,
        "prefill": [
            _figure(speed, speed.median * operations / peak, prompt_tokens=length)
            for length, (speed, _) in singles.items()
        ],
        "decode": [
            _figure(speed, speed.median * read / bandwidth, prompt_tokens=length)
            for length, (_, speed) in singles.items()
        ],
        "batch": [
            _figure(
                speed,
                speed.median / size * measure.bytes_read(config, weights, size) / bandwidth,
                requests=size,
                prompt_tokens=short,
            )
            for size, speed in together.items()
        ],
        "first_token": first_token,
        "memory": {
            "weights": sum(weights.values()),
            "weights_read_per_token": read,
            "cache_per_token": block_bytes(config, engine.cache.k.dtype) // BLOCK_TOKENS,
            "peak": peak_memory,
        },
        "limits": limits,
        **_disk(engine),
    }


def _disk(engine: "Engine") -> dict[str, Any]:
    """What experts on disk cost, beside what the disk can do; nothing for a model in memory."""
    from hunyuan.native.experts import sequential_read
    from hunyuan.native.transformer import NativeTransformer

    if not isinstance(engine.model, NativeTransformer) or engine.model.experts is None:
        return {}
    stats = engine.model.experts.stats()
    sequential = sequential_read(engine.model.experts.file.path)
    return {
        "disk": asdict(stats)
        | {
            "bytes_per_token": stats.bytes_per_token,
            "hit_rate": stats.hit_rate,
            "read_bytes_per_second": stats.read_speed,
            "sequential_bytes_per_second": sequential,
            "share_of_sequential": stats.read_speed / sequential,
        }
    }


def _figure(speed: "Spread", share: float, **circumstances: int) -> dict[str, Any]:
    return circumstances | {"tokens_per_second": speed.report(), "share_of_limit": share}


_LABELS = {
    "en": {
        "head": ("", "tokens/s", "lowest .. highest", "of the limit"),
        "prefill": "prompt of {prompt_tokens}",
        "decode": "answer after {prompt_tokens}",
        "batch": "{requests} answers at once after {prompt_tokens}",
        "settings": "{processor}, {threads} threads; kernels {kernels}, weights {dtype}, "
        "cache {kv_dtype}, context {context}",
        "first_token": "first token {seconds_from_process_start:.2f} s after the process started "
        "(loading {load_seconds:.2f} s, prompt of {prompt_tokens})",
        "memory": "weights {weights}, of which a token reads {weights_read_per_token}; cache "
        "{cache_per_token} a token; peak of the process {peak}",
        "limits": "limits: memory {read:.1f} GB/s for answers; matrices {bf16:.0f} GFLOP/s in "
        "bfloat16, {f32:.0f} in float32 for prompts",
        "disk": "disk: experts read at {read}/s, {share} of the {sequential}/s that it gives in "
        "order",
    },
    "zh": {
        "head": ("", "词元/秒", "最低 .. 最高", "占上限"),
        "prefill": "读入 {prompt_tokens} 词元的提示",
        "decode": "{prompt_tokens} 词元之后的回答",
        "batch": "{prompt_tokens} 词元之后 {requests} 路同时回答",
        "settings": "{processor}，{threads} 线程；内核 {kernels}，权重 {dtype}，缓存 {kv_dtype}，"
        "上下文 {context}",
        "first_token": "进程启动后 {seconds_from_process_start:.2f} 秒出首个词元"
        "（载入 {load_seconds:.2f} 秒，提示 {prompt_tokens} 词元）",
        "memory": "权重 {weights}，每词元读取 {weights_read_per_token}；缓存每词元 "
        "{cache_per_token}；进程内存峰值 {peak}",
        "limits": "上限：回答受内存带宽 {read:.1f} GB/s 所限；提示受矩阵乘法所限，bfloat16 为 "
        "{bf16:.0f} GFLOP/s，float32 为 {f32:.0f} GFLOP/s",
        "disk": "磁盘：专家读取 {read}/秒，为顺序读取 {sequential}/秒 的 {share}",
    },
}


def _print_table(result: dict[str, Any]) -> None:
    labels: dict[str, Any] = _LABELS[language()]
    rows = [labels["head"]]
    for kind in ("prefill", "decode", "batch"):
        for figure in result[kind]:
            speed = figure["tokens_per_second"]
            rows.append(
                (
                    labels[kind].format(**figure),
                    f"{speed['median']:.1f}",
                    f"{speed['min']:.1f} .. {speed['max']:.1f}",
                    f"{figure['share_of_limit']:.0%}",
                )
            )
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    print(f"{result['model']}\n{labels['settings'].format(**result)}\n")
    for first, *others in rows:
        cells = [first + " " * (widths[0] - columns(first))]
        for cell, width in zip(others, widths[1:], strict=True):
            cells.append(" " * (width - columns(cell)) + cell)
        print("  ".join(cells))
    limits = result["limits"]
    print()
    print(labels["first_token"].format(**result["first_token"]))
    print(labels["memory"].format(**{k: human_bytes(v) for k, v in result["memory"].items()}))
    print(
        labels["limits"].format(
            read=limits["read_bytes_per_second"] / 1e9,
            bf16=limits["bfloat16_flops"] / 1e9,
            f32=limits["float32_flops"] / 1e9,
        )
    )
    if disk := result.get("disk"):
        print(
            labels["disk"].format(
                read=human_bytes(disk["read_bytes_per_second"]),
                sequential=human_bytes(disk["sequential_bytes_per_second"]),
                share=f"{disk['share_of_sequential']:.0%}",
            )
        )
