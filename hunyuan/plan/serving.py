"""Serving on accelerators: weights, cache, and the time a token takes at most."""

from collections.abc import Iterator
from dataclasses import dataclass

from hunyuan.model.config import ModelConfig
from hunyuan.plan.figures import Figure
from hunyuan.plan.hardware import Cluster

RESERVED = 4e9
"""Bytes of one device for activations, graphs and the runtime: an assumption."""

WEIGHT_BYTES = {
    "bf16": 2.0,
    "fp8": 1.0 + 4 / 128**2,
    "int4": 0.5 + 2.5 / 128,
    "q8": 34 / 32,
    "q4": 18 / 32,
}
"""Bytes of a weight. fp8: blocks of 128 x 128 share a float32; int4: groups of 128 a bfloat16 and a
zero point; q8 and q4, this project's own: groups of 32 a float16.
"""

CACHE_BYTES = {"bf16": 2, "fp8": 1, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class ServingJob:
    """What is served, on what; the model is split over all devices of the cluster."""

    config: ModelConfig
    cluster: Cluster
    weights: str
    """One of `WEIGHT_BYTES`."""

    cache: str
    """One of `CACHE_BYTES`."""

    sequence: int
    """Tokens of a conversation in the cache."""

    streams: int
    """Conversations answered at once."""

    share_of_bandwidth: float = 0.6
    """Of the memory's data sheet, while decoding."""

    share_of_peak: float = 0.4
    """Of the peak, while reading prompts."""


@dataclass(frozen=True)
class ServingPlan:
    """What the job needs."""

    memory: tuple[Figure, ...]
    """Of one device."""

    speed: tuple[Figure, ...]
    fits: bool
    streams: int
    """Conversations of that length that the memory holds."""


def plan_serving(job: ServingJob) -> ServingPlan:
    """The closed forms."""
    config, device = job.config, job.cluster.accelerator
    count = job.cluster.count
    weights = WEIGHT_BYTES[job.weights] * config.total_parameters / count
    token = cache_bytes_per_token(job)
    cache = token * job.sequence * job.streams
    memory = (
        Figure("weights", weights, "B", "calculated"),
        Figure("cache", cache, "B", "calculated"),
        Figure("reserved", RESERVED, "B", "assumed"),
    )
    left = device.memory - weights - RESERVED
    streams = max(0, int(left // (token * job.sequence)))
    fits = sum(figure.value for figure in memory) <= device.memory
    return ServingPlan(memory, tuple(_speed(job, token)), fits, streams)


def cache_bytes_per_token(job: ServingJob) -> float:
    """Bytes one device keeps of a token: key/value heads are split over it, then copied."""
    ways = min(job.cluster.count, job.config.kv_heads)
    return job.config.kv_bytes_per_token(CACHE_BYTES[job.cache]) / ways


def _speed(job: ServingJob, token: float) -> Iterator[Figure]:
    config, cluster = job.config, job.cluster
    device = cluster.accelerator
    yield Figure("share of the bandwidth", job.share_of_bandwidth, "1", "assumed")
    yield Figure("share of the peak", job.share_of_peak, "1", "assumed")
    rate = device.bandwidth * job.share_of_bandwidth
    for streams in (1, job.streams):
        read = WEIGHT_BYTES[job.weights] * touched_parameters(config, streams) / cluster.count
        read += token * job.sequence * streams
        seconds = read / rate
        yield Figure(f"step of {streams}", seconds, "s", "calculated")
        yield Figure(f"speed of {streams}", streams / seconds, "tokens/s", "calculated")
        if job.streams == 1:
            break
    flops = config.flops_per_token(job.sequence // 2) * job.sequence
    seconds = flops / (cluster.count * device.flops * job.share_of_peak)
    yield Figure("prompt", seconds, "s", "calculated")


def touched_parameters(config: ModelConfig, tokens: int) -> float:
    """Parameters that a step of ``tokens`` reads, if its tokens choose experts evenly."""
    rest = config.total_parameters - config.parameters["routed_experts"]
    if not config.experts:
        return float(rest)
    missed = (1 - config.top_k / config.experts) ** tokens
    return rest + config.parameters["routed_experts"] * (1 - missed)
