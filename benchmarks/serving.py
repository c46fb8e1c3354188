"""Several people on one engine: throughput, gaps while a long prompt runs, memory over time.

    python benchmarks/serving.py qwen2.5-coder-0.5b-instruct
    python benchmarks/serving.py smollm2-135m-instruct --soak 2000

Writes benchmarks/results/serving-MODEL.json: tokens a second of one stream and of eight; the gaps
between the tokens of a running stream while another request's prompt of 4,000 tokens is computed,
and undisturbed; and, with --soak, the resident memory over that many short requests.
"""

import argparse
import json
import random
import statistics
import time
from typing import Any

import psutil
from provenance import RESULTS, provenance

import hunyuan
from hunyuan.checkpoint.load import load_packed

STREAMS = 8
PROMPT, ANSWER = 64, 128
LONG_PROMPT = 4000


def prompt(length: int, draw: random.Random, vocabulary: int) -> list[int]:
    """Random tokens, so that no request finds another's prefix."""
    return [draw.randrange(1000, vocabulary) for _ in range(length)]


def throughput(engine: hunyuan.Engine, streams: int, draw: random.Random) -> float:
    """Tokens a second of ``streams`` answers at once, prompts not counted."""
    params = hunyuan.SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True)
    vocabulary = engine.tokenizer.vocab_size - 1000
    requests = [engine.submit(prompt(PROMPT, draw, vocabulary), params) for _ in range(streams)]
    while not all(r.generated for r in requests):
        engine.step()
    before, begin = sum(len(r.generated) for r in requests), time.perf_counter()
    while engine.busy:
        engine.step()
    return (streams * ANSWER - before) / (time.perf_counter() - begin)


def gaps(engine: hunyuan.Engine, draw: random.Random, disturbed: bool) -> list[float]:
    """Seconds between the tokens of one stream, from its tenth token on."""
    vocabulary = engine.tokenizer.vocab_size - 1000
    params = hunyuan.SamplingParams(temperature=0, max_tokens=1000, ignore_eos=True)
    stream = engine.submit(prompt(PROMPT, draw, vocabulary), params)
    while len(stream.generated) < 10:
        engine.step()
    other = None
    if disturbed:
        one = hunyuan.SamplingParams(temperature=0, max_tokens=1)
        other = engine.submit(prompt(LONG_PROMPT, draw, vocabulary), one)
    seen: list[float] = []
    last, count = time.perf_counter(), len(stream.generated)
    while len(seen) < 200 if other is None else other.finish_reason is None:
        engine.step()
        if len(stream.generated) > count:
            now, count = time.perf_counter(), len(stream.generated)
            seen.append(now - last)
            last = now
    engine.drop(stream)
    return seen


def soak(engine: hunyuan.Engine, count: int, draw: random.Random) -> dict[str, Any]:
    """Resident bytes every hundred of ``count`` short requests, eight at a time."""
    vocabulary = engine.tokenizer.vocab_size - 1000
    params = hunyuan.SamplingParams(temperature=0, max_tokens=4)
    process = psutil.Process()
    resident = []
    for _ in range(count // 100 + 1):
        resident.append(process.memory_info().rss)
        for _ in range(100 // 4):
            engine.generate_many(
                [prompt(draw.randrange(8, 60), draw, vocabulary) for _ in range(4)], params
            )
    # The first hundreds fill the cache and the allocator's own reserves.
    settled = resident[2]
    growth = (max(resident[2:]) - settled) / settled
    return {"requests": count, "resident_bytes": resident, "growth_after_200": growth}


def measure(name: str, rounds: int, soaked: int) -> dict[str, Any]:
    """Everything for one model."""
    model, tokenizer = load_packed(name), hunyuan.load_tokenizer(name)
    engine = hunyuan.Engine(
        model, tokenizer, context=LONG_PROMPT + 1200, max_sequences=STREAMS, cache_tokens=8192
    )
    draw = random.Random(0)
    throughput(engine, 1, draw)
    speeds: dict[int, list[float]] = {1: [], STREAMS: []}
    for _ in range(rounds):
        for streams, seen in speeds.items():
            seen.append(throughput(engine, streams, draw))
    ratios = [many / one for one, many in zip(*speeds.values(), strict=True)]
    calm = [g for _ in range(rounds) for g in gaps(engine, draw, disturbed=False)]
    busy = [g for _ in range(rounds) for g in gaps(engine, draw, disturbed=True)]
    result: dict[str, Any] = {
        "throughput_tokens_per_second": {str(k): v for k, v in speeds.items()},
        "throughput_ratio": {"median": statistics.median(ratios), "all": ratios},
        "gap_seconds": {
            kind: {
                "median": statistics.median(seen),
                "p95": statistics.quantiles(seen, n=20)[-1],
                "largest": max(seen),
                "count": len(seen),
            }
            for kind, seen in (("undisturbed", calm), ("while_4000_tokens_are_read", busy))
        },
    }
    if soaked:
        result["soak"] = soak(engine, soaked, draw)
    return result


def main() -> None:
    """Measure each model named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, default=0, help="short requests to count memory over")
    options = parser.parse_args()
    for name in options.models:
        result = {
            "model": name,
            **provenance(),
            **measure(name, options.rounds, options.soak),
        }
        path = RESULTS / f"serving-{name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        speeds = result["throughput_tokens_per_second"]
        print(f"{name}: one stream {statistics.median(speeds['1']):.0f} tokens/s, eight together")
        print(
            f"  {statistics.median(speeds[str(STREAMS)]):.0f}, ratio {result['throughput_ratio']}"
        )
        print(f"  gaps {json.dumps(result['gap_seconds'])}")
        if "soak" in result:
            print(f"  memory grew by {result['soak']['growth_after_200']:.2%}")
        print(f"  {path}")


if __name__ == "__main__":
    main()
