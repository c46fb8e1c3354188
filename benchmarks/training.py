"""Training speed beside transformers: the same shapes, the same machine, taking turns.

    python benchmarks/training.py

Hidden 512, 8 layers, 8/2 heads, FFN 1024, vocabulary 32,000, batch 4 x 512: a mixture of 16 routed
experts, top-1, with a shared one, and its dense twin with the same active parameters. A measurement
is forward and backward, the best of two; the others are stopped meanwhile. Ratios are taken within
a round. Also measures the share of a MoE layer's time that goes into routing (gate, plan, dispatch,
combine), and our step with the optimiser. Writes benchmarks/results/training.json.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from provenance import RESULTS, provenance
from side_by_side import python_of

from hunyuan.model.config import ModelConfig, Routing
from hunyuan.model.moe import MoE
from hunyuan.model.routing import assign_groups, draw_slot_keys, group_rooms
from hunyuan.native.machine import matrix_peak
from hunyuan.train.kernels import native_ops
from hunyuan.train.outside import keep_freed_memory

SHAPE = {
    **{"vocab": 32000, "hidden": 512, "layers": 8, "heads": 8, "kv_heads": 2, "head_dim": 64},
    **{"ffn": 1024, "rows": 4, "tokens": 512},
}
CONTESTANTS = {
    "hunyuan dense": ("hunyuan", "dense"),
    "hunyuan moe recycle 1.0": ("hunyuan", "capacity-recycle 1.0"),
    "hunyuan moe recycle 1.25": ("hunyuan", "capacity-recycle 1.25"),
    "hunyuan moe dropless": ("hunyuan", "dropless"),
    "transformers dense": ("transformers", "dense"),
    "transformers moe": ("transformers", "moe"),
}
RATIOS = {
    "moe over transformers' moe": ("hunyuan moe recycle 1.0", "transformers moe"),
    "dense over transformers' dense": ("hunyuan dense", "transformers dense"),
    "moe over our dense": ("hunyuan moe recycle 1.0", "hunyuan dense"),
    "dropless moe over our dense": ("hunyuan moe dropless", "hunyuan dense"),
}


class Worker:
    """A contestant's process, awake only while it is asked something."""

    def __init__(self, name: str, kind: str, threads: int) -> None:
        script = Path(__file__).parent / "contestants" / f"train_{name}.py"
        self._process = subprocess.Popen(
            [python_of(name), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.settings = self.ask("load", kind=kind, threads=threads, shape=SHAPE)["value"]
        self.ask("step")
        self._process.send_signal(signal.SIGSTOP)

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """One request, answered with its value and seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": what} | arguments), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def speed(self, what: str, times: int) -> float:
        """Tokens per second, the best of ``times``."""
        self._process.send_signal(signal.SIGCONT)
        time.sleep(0.2)
        seconds = min(self.ask(what)["seconds"] for _ in range(times))
        self._process.send_signal(signal.SIGSTOP)
        return SHAPE["rows"] * SHAPE["tokens"] / seconds

    def end(self) -> None:
        """Stop the process."""
        self._process.kill()


def routing_share(rounds: int) -> list[float]:
    """Share of a MoE layer's forward and backward that is not the experts', at 2,048 tokens."""
    tokens = SHAPE["rows"] * SHAPE["tokens"]
    config = ModelConfig(
        **{name: SHAPE[name] for name in ("vocab", "hidden", "heads", "kv_heads", "head_dim")},
        **{"layers": 1, "ffn": SHAPE["ffn"], "experts": 16, "shared_experts": 1, "context": 2048},
        routing=Routing(mode="capacity-recycle", capacity_group=tokens),
    )
    layer = MoE(config).to(torch.bfloat16)
    layer.gate.float()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    x = torch.randn(1, tokens, config.hidden, dtype=torch.bfloat16, requires_grad=True)
    ops = native_ops(torch.zeros(1, tokens, dtype=torch.int32))
    keys = draw_slot_keys(config, tokens)[0]
    room = sum(group_rooms(config, tokens))
    assert assign_groups(config, torch.zeros(tokens, 1, dtype=torch.int64), keys).slot.numel()

    def whole() -> None:
        layer(x, keys, ops)[0].sum().backward()

    def experts() -> None:
        out = layer.experts.forward_slots(x.view(16, room, -1), ops).view_as(x)
        (out + layer.shared_mlp(x, ops)).sum().backward()

    shares = []
    for _ in range(rounds):
        seconds = [min(_seconds(work) for _ in range(3)) for work in (whole, experts)]
        shares.append(1 - seconds[1] / seconds[0])
    return shares


def _seconds(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    keep_freed_memory()
    peak = matrix_peak(torch.bfloat16)
    shares = routing_share(options.rounds)
    workers = {n: Worker(*c, options.threads) for n, c in CONTESTANTS.items()}
    speeds: dict[str, list[float]] = {name: [] for name in workers}
    updates: dict[str, list[float]] = {n: [] for n in workers if n.startswith("hunyuan")}
    for round_ in range(options.rounds):
        for name, worker in workers.items():
            speeds[name].append(worker.speed("step", 2))
        for name, list_ in updates.items():
            list_.append(workers[name].speed("update", 1))
        print(f"round {round_ + 1}: { ({n: round(s[-1]) for n, s in speeds.items()}) }", flush=True)
    results = {
        "from": provenance(),
        "shape": SHAPE,
        "peak_bfloat16": peak,
        "settings": {name: worker.settings for name, worker in workers.items()},
        "tokens_per_second": speeds,
        "with_optimizer": updates,
        "ratios": {
            name: [a / b for a, b in zip(speeds[of], speeds[to], strict=True)]
            for name, (of, to) in RATIOS.items()
        },
        "routing_share": shares,
    }
    for worker in workers.values():
        worker.end()
    for name, values in (*speeds.items(), *updates.items()):
        print(f"{name:32} {median(values):8.0f} tok/s ({min(values):.0f}-{max(values):.0f})")
    for name, values in (*results["ratios"].items(), ("routing share", shares)):
        print(f"{name:32} {median(values):8.2f} ({min(values):.2f}-{max(values):.2f})")
    flops = results["settings"]["hunyuan dense"]["flops_per_token"]
    share = median(speeds["hunyuan dense"]) * flops / peak
    print(f"{'our dense, share of the peak':32} {share:8.2f}")
    (RESULTS / "training.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
