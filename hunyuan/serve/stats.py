"""The engine's counters as the metrics and the page take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hunyuan.engine.request import EngineStats
    from hunyuan.native.expert_stats import ExpertStats


@dataclass(frozen=True, kw_only=True)
class ServingStats:
    """A snapshot; tokens are counted since the model was loaded."""

    running: int
    """Requests with a place in the cache."""

    waiting: int
    """Requests that wait for a place."""

    cache_used: float
    """Share of the cache that running requests hold, 0 to 1."""

    cache_tokens: int
    """Tokens the whole cache has room for."""

    prompt_tokens: int
    """Of all requests that began to run, reused ones included."""

    reused_tokens: int
    """Prompt tokens that were found in the cache."""

    generation_tokens: int
    expert_layers: Sequence[int]
    """The layers that `expert_tokens` is about, in their order."""

    expert_tokens: Sequence[Sequence[int]] | None
    """(L, E): tokens that each expert of each layer worked on; None for a dense model."""

    disk: "ExpertStats | None" = None
    """What experts on disk cost; None if all are in memory."""


def serving_stats(stats: "EngineStats") -> ServingStats:
    """The engine's snapshot under the names of metrics."""
    return ServingStats(
        running=stats.running,
        waiting=stats.waiting,
        cache_used=stats.cache_tokens_used / stats.cache_tokens,
        cache_tokens=stats.cache_tokens,
        prompt_tokens=stats.prompt_tokens,
        reused_tokens=stats.reused_tokens,
        generation_tokens=stats.generated_tokens,
        expert_layers=range(len(stats.expert_tokens or ())),
        expert_tokens=stats.expert_tokens,
        disk=stats.disk,
    )


def expert_load(before: ServingStats, after: ServingStats, tokens: int) -> dict[str, Any] | None:
    """What the experts did between two snapshots; None for a dense model.

    ``tokens`` are those of the request that asks. The engine counts for all requests together, so
    ``shared`` tells whether others ran meanwhile, whose tokens are then in the counts too.
    """
    if before.expert_tokens is None or after.expert_tokens is None:
        return None
    all_tokens = after.prompt_tokens - before.prompt_tokens
    all_tokens += after.generation_tokens - before.generation_tokens
    return {
        "layers": list(after.expert_layers),
        "tokens": [
            [now - then for now, then in zip(now_row, then_row, strict=True)]
            for now_row, then_row in zip(after.expert_tokens, before.expert_tokens, strict=True)
        ],
        "shared": before.running > 0 or after.running > 0 or all_tokens > tokens,
    }
