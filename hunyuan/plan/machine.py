"""A model on one machine without accelerators: in memory, or its experts read from disk."""

from dataclasses import dataclass

from hunyuan.model.config import ModelConfig
from hunyuan.plan.figures import Figure
from hunyuan.plan.serving import CACHE_BYTES, WEIGHT_BYTES

WORKING = 500e6
"""Bytes of the program itself and of a step's intermediate results: an assumption."""

SHARE_OF_BANDWIDTH = 0.6
"""Of what memory delivers to a plain reader, while decoding: an assumption."""


@dataclass(frozen=True, kw_only=True)
class MachineJob:
    """One conversation on one machine."""

    config: ModelConfig
    weights: str
    cache: str
    sequence: int
    memory: float
    """Bytes that may be used."""

    bandwidth: float
    """Bytes per second from memory."""

    disk: float | None = None
    """Bytes per second from the disk; None leaves experts on disk out of the plan."""


@dataclass(frozen=True)
class MachinePlan:
    """What the job needs."""

    memory: tuple[Figure, ...]
    speed: tuple[Figure, ...]
    fits: bool
    """Whether all of it lies in memory."""

    fits_from_disk: bool
    """Whether it does with the experts on disk."""


def plan_machine(job: MachineJob) -> MachinePlan:
    """The closed forms. Experts are taken to be chosen evenly: no cache beats its share then."""
    config, each = job.config, WEIGHT_BYTES[job.weights]
    routed = each * config.parameters["routed_experts"]
    resident = each * config.total_parameters - routed
    cache = job.sequence * config.kv_bytes_per_token(CACHE_BYTES[job.cache])
    memory = (
        Figure("always-used weights", resident, "B", "calculated"),
        Figure("routed experts", routed, "B", "calculated"),
        Figure("cache", cache, "B", "calculated"),
        Figure("working memory", WORKING, "B", "assumed"),
    )
    left = job.memory - resident - cache - WORKING
    fits = left >= routed
    visited = routed * config.top_k / config.experts if config.experts else 0.0
    from_memory = (resident + visited + cache) / (job.bandwidth * SHARE_OF_BANDWIDTH)
    speed = [
        Figure("share of the bandwidth", SHARE_OF_BANDWIDTH, "1", "assumed"),
        Figure("bandwidth of memory", job.bandwidth, "B/s", "measured"),
    ]
    # At least the experts of one layer must find room.
    least = routed / config.layers / config.experts * config.top_k if config.experts else 0.0
    from_disk = bool(config.experts) and job.disk is not None and left >= least
    if fits or job.disk is None:
        speed.append(Figure("token", from_memory, "s", "calculated"))
        speed.append(Figure("speed", 1 / from_memory, "tokens/s", "calculated"))
    elif from_disk:
        hit = max(0.0, min(1.0, left / routed))
        read = visited * (1 - hit)
        seconds = max(from_memory, read / job.disk)
        speed += [
            Figure("speed of the disk", job.disk, "B/s", "measured"),
            Figure("share of experts in memory", hit, "1", "calculated"),
            Figure("read from disk per token", read, "B", "calculated"),
            Figure("token", seconds, "s", "calculated"),
            Figure("speed", 1 / seconds, "tokens/s", "calculated"),
        ]
    return MachinePlan(memory, tuple(speed), fits, from_disk)
