"""Prometheus metrics with vLLM's names and meanings, under our prefix, so that dashboards port.

OpenTelemetry's names for the same: ``gen_ai.server.request.duration`` is
``e2e_request_latency_seconds``, ``gen_ai.server.time_to_first_token`` is
``time_to_first_token_seconds``, ``gen_ai.server.time_per_output_token`` is
``inter_token_latency_seconds``.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from hunyuan.engine.request import Request
    from hunyuan.serve.stats import ServingStats

PREFIX = "hunyuan:"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)
LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 200000)


class Metrics:
    """What is measured of one server; it is the observer of the local backend's bridge."""

    def __init__(self, model_id: Callable[[], str], stats: "Callable[[], ServingStats | None]"):
        """``stats`` gives the counters of the engine that runs now, None where there is none."""
        self._registry = CollectorRegistry()
        self._model_id = model_id

        def histogram(name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(
                PREFIX + name, about, ["model_name"], registry=self._registry, buckets=buckets
            )

        self._first = histogram("time_to_first_token_seconds", "Submission to first token.", LONG)
        self._next = histogram("inter_token_latency_seconds", "Between two tokens.", SHORT)
        self._whole = histogram("e2e_request_latency_seconds", "Submission to end.", LONG)
        self._queue = histogram("request_queue_time_seconds", "Submission to a place.", LONG)
        self._prompt = histogram("request_prompt_tokens", "Tokens of prompts.", COUNTS)
        self._answer = histogram("request_generation_tokens", "Tokens of answers.", COUNTS)
        self._ended = Counter(
            f"{PREFIX}request_success",
            "Requests that ended, by reason.",
            ["model_name", "finished_reason"],
            registry=self._registry,
        )
        self._registry.register(_EngineCollector(model_id, stats))

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)

    # ------------------------------------------------------------ as an observer

    def first_token(self, seconds: float) -> None:
        """From submission to the first token of a request."""
        self._first.labels(self._model_id()).observe(seconds)

    def next_token(self, seconds: float) -> None:
        """Between two tokens of a request."""
        self._next.labels(self._model_id()).observe(seconds)

    def finished(self, request: "Request") -> None:
        """A request has ended."""
        model = self._model_id()
        now = time.perf_counter()
        self._whole.labels(model).observe(now - request.submitted)
        self._queue.labels(model).observe((request.started or now) - request.submitted)
        self._prompt.labels(model).observe(len(request.prompt))
        self._answer.labels(model).observe(len(request.generated))
        reason = {"cancelled": "abort"}.get(request.finish_reason or "", request.finish_reason)
        self._ended.labels(model, "error" if request.error else reason).inc()


class _EngineCollector(Collector):
    """The engine's own counters at the moment of asking."""

    def __init__(
        self, model_id: Callable[[], str], stats: "Callable[[], ServingStats | None]"
    ) -> None:
        self._model_id = model_id
        self._stats = stats

    def describe(self) -> Iterator[Metric]:
        """Nothing is known before the first look."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics of the engine that runs now."""
        stats = self._stats()
        if stats is None:
            return
        model = [self._model_id()]

        def gauge(name: str, about: str, value: float) -> Metric:
            family = GaugeMetricFamily(PREFIX + name, about, labels=["model_name"])
            family.add_metric(model, value)
            return family

        def counter(name: str, about: str, value: float) -> Metric:
            family = CounterMetricFamily(PREFIX + name, about, labels=["model_name"])
            family.add_metric(model, value)
            return family

        yield gauge("num_requests_running", "Requests being answered.", stats.running)
        yield gauge("num_requests_waiting", "Requests waiting for a place.", stats.waiting)
        yield gauge("kv_cache_usage_perc", "Share of the cache in use, 0 to 1.", stats.cache_used)
        yield counter("prompt_tokens", "Tokens of prompts that were read.", stats.prompt_tokens)
        yield counter("prefix_cache_queries", "Prompt tokens looked up.", stats.prompt_tokens)
        yield counter("prefix_cache_hits", "Prompt tokens found there.", stats.reused_tokens)
        yield counter("generation_tokens", "Tokens that were written.", stats.generation_tokens)
        if (disk := stats.disk) is not None:
            yield counter("disk_read_bytes", "Bytes of experts read from disk.", disk.bytes_read)
            yield counter("disk_read_seconds", "Time the disk was being read.", disk.busy_seconds)
            yield counter("disk_wait_seconds", "Time steps waited for it.", disk.waited_seconds)
            yield counter("expert_visits", "Experts that steps visited.", disk.demanded)
            yield counter("expert_hits", "Of those, the ones in memory.", disk.hits)
            yield counter("expert_reads_ahead", "Experts read before their visit.", disk.ahead)
            yield counter("expert_reads_ahead_used", "Of those, the visited.", disk.ahead_used)
        if stats.expert_tokens is not None:
            family = CounterMetricFamily(
                f"{PREFIX}moe_expert_tokens",
                "Tokens that each expert of each layer worked on.",
                labels=["layer", "expert"],
            )
            for layer, counts in zip(stats.expert_layers, stats.expert_tokens, strict=True):
                for expert, count in enumerate(counts):
                    family.add_metric([str(layer), str(expert)], float(count))
            yield family
