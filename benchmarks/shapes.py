"""Hunyuan-shaped models with random weights: long context, and experts against their dense twin.

    python benchmarks/shapes.py long --tokens 262144
    python benchmarks/shapes.py experts

`long` prefills one request of that many tokens on a small model with cross-layer attention of two
layers and 8 KV heads, and decodes at several lengths on the way: seconds a token, cache bytes by
the formula and by what the process really took. `experts` decodes a model of 16 routed experts,
top-1, plus a shared one beside the dense model with the same active parameters, alternating. All
weights are 4-bit blocks (Q4_0) of random numbers: speed does not depend on their values. Writes
benchmarks/results/shapes-long.json and shapes-experts.json.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from typing import Any

import psutil
import torch
from provenance import RESULTS, provenance

from hunyuan.checkpoint.leaves import is_router, leaves
from hunyuan.engine.cache import KV_DTYPES, PagedCache, block_bytes
from hunyuan.engine.request import Request, SamplingParams
from hunyuan.engine.scheduler import Segment
from hunyuan.formats.gguf import BLOCK, GGMLType
from hunyuan.model.config import ModelConfig, Rope
from hunyuan.native.library import BLOCK_TOKENS
from hunyuan.native.matrix import Arena, pack
from hunyuan.native.transformer import NativeTransformer

LONG = ModelConfig(
    vocab=32_000,
    hidden=512,
    layers=4,
    heads=8,
    kv_heads=8,
    head_dim=64,
    ffn=1024,
    context=262_144,
    experts=16,
    top_k=1,
    shared_experts=1,
    cla_share=2,
    qk_norm=True,
    tied=True,
    rope=Rope(theta=10_000, alpha=1000),
)
EXPERTS = replace(LONG, hidden=1024, layers=12, heads=16, kv_heads=4, ffn=2048, context=4096)
DENSE = replace(EXPERTS, experts=0, top_k=1, shared_experts=0, ffn=2 * EXPERTS.ffn)


def random_model(config: ModelConfig) -> NativeTransformer:
    """Random Q4_0 matrices; norms 1, router float32."""
    generator = torch.Generator().manual_seed(0)
    arena, weights = Arena(), {}
    per_block, size = BLOCK[GGMLType.Q4_0]
    for leaf, shape in leaves(config).items():
        if len(shape) == 1:
            weights[leaf] = torch.ones(shape)
        elif is_router(leaf):
            router = torch.randn(shape, generator=generator)
            weights[leaf] = pack(GGMLType.F32, router.view(torch.uint8), arena)
        else:
            blocks = torch.randint(
                256,
                (shape[0] * shape[1] // per_block, size),
                generator=generator,
                dtype=torch.uint8,
            )
            blocks[:, :2] = torch.tensor([0.01]).half().view(torch.uint8)
            weights[leaf] = pack(GGMLType.Q4_0, blocks.view(shape[0], -1), arena)
    return NativeTransformer(config, weights)


class Sequence:
    """One request on a cache of its own, run by hand."""

    def __init__(self, model: NativeTransformer, tokens: int, dtype: torch.dtype) -> None:
        self.model = model
        blocks = -(-tokens // BLOCK_TOKENS)
        self.cache = PagedCache(model.config, blocks, dtype)
        self._blocks = tuple(range(blocks))
        self._request = Request([0], SamplingParams(), limit=1)
        self.length = 0
        self._draw = torch.Generator().manual_seed(1)

    def run(self, count: int) -> float:
        """Append ``count`` random tokens in one step; seconds."""
        ids = torch.randint(self.model.config.vocab, (count,), generator=self._draw)
        positions = torch.arange(self.length, self.length + count)
        view = self.cache.view([Segment(self._request, self.length, count, self._blocks)])
        begin = time.perf_counter()
        self.model.step_logits(ids, positions, view, torch.tensor([count - 1], dtype=torch.int32))
        self.length += count
        return time.perf_counter() - begin


def long_context(tokens: int, dtype: str) -> dict[str, Any]:
    """Prefill to ``tokens`` in chunks of 512; decode on the way at 1K, 32K, 128K and the end."""
    model = random_model(LONG)
    process = psutil.Process()
    sequence = Sequence(model, tokens, KV_DTYPES[dtype])
    sequence.run(512)
    before = process.memory_info().rss
    written_before = sequence.length
    rows, prefill = [], 0.0
    stops = [n for n in (1024, 32_768, 131_072) if n < tokens] + [tokens]
    for stop in stops:
        while sequence.length < stop - 32:
            prefill += sequence.run(min(512, stop - 32 - sequence.length))
        decode = statistics.median(sequence.run(1) for _ in range(32))
        per_token = block_bytes(LONG, KV_DTYPES[dtype]) / BLOCK_TOKENS
        taken = process.memory_info().rss - before
        rows.append(
            {
                "tokens": sequence.length,
                "decode_ms": decode * 1e3,
                "prefill_seconds_so_far": prefill,
                "cache_bytes_formula": per_token * sequence.length,
                "memory_grown_over_formula": taken
                / (per_token * (sequence.length - written_before)),
            }
        )
        print(f"  {rows[-1]}", flush=True)
    return {"kv_dtype": dtype, "rows": rows}


def experts(rounds: int) -> dict[str, Any]:
    """Decode and prefill speed of both, alternating."""
    models = {"experts": random_model(EXPERTS), "dense": random_model(DENSE)}
    assert EXPERTS.active_parameters - DENSE.active_parameters == 12 * 16 * 1024  # the router
    decode: dict[str, list[float]] = {name: [] for name in models}
    prefill: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            sequence = Sequence(model, 768, torch.bfloat16)
            prefill[name].append(512 / sequence.run(512))
            decode[name].append(1 / statistics.median(sequence.run(1) for _ in range(100)))
    ratios = [a / b for a, b in zip(decode["experts"], decode["dense"], strict=True)]
    return {
        "active_parameters": {
            "experts": EXPERTS.active_parameters,
            "dense": DENSE.active_parameters,
        },
        "total_parameters": {"experts": EXPERTS.total_parameters, "dense": DENSE.total_parameters},
        "decode_tokens_per_second": decode,
        "prefill_tokens_per_second": prefill,
        "decode_ratio": {"median": statistics.median(ratios), "all": ratios},
        "prefill_ratio": statistics.median(
            a / b for a, b in zip(prefill["experts"], prefill["dense"], strict=True)
        ),
    }


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["long", "experts"])
    parser.add_argument("--tokens", type=int, default=LONG.context)
    parser.add_argument("--kv-dtype", default="bfloat16", choices=list(KV_DTYPES))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.what == "long":
        found = long_context(options.tokens, options.kv_dtype)
    else:
        found = experts(options.rounds)
    result = {**provenance(), **found}
    path = RESULTS / f"shapes-{options.what}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    print(path)


if __name__ == "__main__":
    main()
