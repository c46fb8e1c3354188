"""Dividing a limit of memory before any of it is taken: weights, cache, work, experts.

What is left after everything that must be in memory holds experts of a model whose experts lie on
disk. All figures are calculated; only what the program itself holds already is measured.
"""

from dataclasses import dataclass

import torch

from hunyuan.checkpoint.checkpoint import Checkpoint
from hunyuan.checkpoint.load import resident_bytes
from hunyuan.engine.cache import block_bytes
from hunyuan.engine.scheduler import SCORED_ROWS
from hunyuan.errors import DoesNotFitError
from hunyuan.files import human_bytes
from hunyuan.memory import available_memory, process_memory
from hunyuan.native.experts import LEAST_SLOTS
from hunyuan.native.library import BLOCK_TOKENS
from hunyuan.native.transformer import working_bytes

# Tokens of a step at most (the engine's longest chunk of a prompt), beside one of each request.
_STEP_TOKENS = 512
# What a server, a tokenizer and the allocator take after loading. Assumed.
_PROGRAM_GROWTH = 200_000_000
_USUAL_CONTEXT = 8192
_LEAST_CONTEXT = 512


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes by purpose; together at most ``limit``."""

    limit: int
    program: int
    weights: int
    """Always in memory."""

    working: int
    context: int
    cache_tokens: int
    cache: int
    """Keys and values."""

    slots: int
    """Experts in memory at once; 0 without experts on disk."""

    experts: int

    @property
    def total(self) -> int:
        """What all of it comes to."""
        return self.program + self.weights + self.working + self.cache + self.experts


def plan_memory(
    checkpoint: Checkpoint,
    limit: int | None,
    *,
    context: int | None,
    max_sequences: int,
    kv_dtype: torch.dtype,
) -> MemoryPlan:
    """Divide ``limit`` bytes, or what is free, for a model that the kernels run.

    The context is the one asked for, else 8,192 tokens or what half of the rest holds. Raises
    `DoesNotFitError` naming the least limit that works.
    """
    config, experts = checkpoint.config, checkpoint.experts
    program = process_memory() + _PROGRAM_GROWTH
    if limit is None:
        limit = process_memory() + int(available_memory() * 0.9)
    weights = resident_bytes(checkpoint)
    working = working_bytes(config, _STEP_TOKENS + max_sequences, torch.get_num_threads())
    working += 2 * SCORED_ROWS * config.vocab * 4
    extent = experts.layout.length if experts else 0
    least_slots = min(LEAST_SLOTS, experts.layout.extents) if experts else 0
    per_block = block_bytes(config, kv_dtype)

    def cache_bytes(tokens: int) -> int:
        return -(-tokens // BLOCK_TOKENS) * per_block

    fixed = program + weights + working + least_slots * extent
    least = fixed + cache_bytes(context or min(_LEAST_CONTEXT, config.context))
    if limit < least:
        minimum = human_bytes(-(-least // 10_000_000) * 10_000_000)
        parts = [human_bytes(size) for size in (weights, working, program, least - fixed)]
        held = human_bytes(least_slots * extent)
        raise DoesNotFitError(
            f"{checkpoint.path}: {human_bytes(limit)} of memory are too little, at least {minimum} "
            f"are needed (weights always used {parts[0]}, working memory {parts[1]}, program "
            f"{parts[2]}, cache {parts[3]}, {least_slots} experts {held}); raise --memory or "
            "choose a smaller model",
            f"{checkpoint.path}：{human_bytes(limit)} 内存不足，至少需要 {minimum}（常驻权重 "
            f"{parts[0]}，工作内存 {parts[1]}，程序 {parts[2]}，缓存 {parts[3]}，{least_slots} "
            f"个专家 {held}）；请提高 --memory 或选择更小的模型",
        )
    room = (limit - fixed) // 2 // per_block * BLOCK_TOKENS
    if context is None:
        usual = min(config.context, _USUAL_CONTEXT)
        context = max(min(usual, room), min(_LEAST_CONTEXT, config.context))
    tokens = max(context, min(context * max_sequences, room))
    cache = cache_bytes(tokens)
    slots = 0
    if experts:
        slots = min((limit - fixed - cache) // extent + least_slots, experts.layout.extents)
    return MemoryPlan(
        limit=limit,
        program=program,
        weights=weights,
        working=working,
        context=context,
        cache_tokens=tokens,
        cache=cache,
        slots=slots,
        experts=slots * extent,
    )
