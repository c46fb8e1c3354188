"""Hunyuan-Large's experts from disk: as many of its layers as the disk holds, in little memory.

    sudo .venv/bin/python benchmarks/experts_from_disk.py --layers 6 --memory 6G

Writes a model of random weights in the real shape (hidden 6400, FFN 18304, 16 experts and a shared
one, top-1, 80/8 heads, layers in pairs, 4 bits) to benchmarks/.runs, runs it in a process whose
memory the system limits from outside (a cgroup; root is needed), and removes it. Measured: reading
while a prompt visits every expert and while answers visit one a layer, against reading the same
file in order; peak memory; seconds a layer. The 64 layers are calculated from that. Random routers
choose evenly, so no cache can do better than its share of the experts: a trained model may.
Writes benchmarks/results/experts-from-disk.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from provenance import RESULTS, provenance

from hunyuan.checkpoint.checkpoint import open_checkpoint
from hunyuan.checkpoint.leaves import expert_leaf, leaves
from hunyuan.checkpoint.load import load_tokenizer, resident_bytes
from hunyuan.checkpoint.quantize import block_types
from hunyuan.checkpoint.write import StoredType, write_hf_folder
from hunyuan.cli.options import load_engine
from hunyuan.engine.request import SamplingParams
from hunyuan.files import human_bytes
from hunyuan.formats.expert_file import PROJECTIONS, ExpertFileWriter
from hunyuan.formats.gguf import BLOCK, GGMLType
from hunyuan.formats.safetensors_writer import tensor_bytes
from hunyuan.memory import parse_memory
from hunyuan.model.config import ModelConfig, preset
from hunyuan.native.expert_stats import ExpertStats
from hunyuan.native.experts import expert_layout, extent_hash, pack_extent, sequential_read
from hunyuan.tokenizer.save import save_tokenizer

FOLDER = Path(__file__).parent / ".runs" / "experts-from-disk"
LAYERS = 64

# Reading in order and reading experts take turns, since a shared disk is not the same every minute.
_ROUNDS = 3
_IN_ORDER = 4 << 30

# Scale and minimum (None: no minimum) that make random blocks of a type weights of about 0.02, and
# where they lie in a block.
SCALES: dict[GGMLType, tuple[float, float | None, int]] = {
    GGMLType.Q4_K: (1e-4, 7.5e-4, 0),
    GGMLType.Q5_K: (5e-5, 7.75e-4, 0),
    GGMLType.Q6_K: (1.5e-5, None, 208),
    GGMLType.Q4_1: (4.3e-3, -0.032, 0),
    GGMLType.Q5_1: (2.2e-3, -0.034, 0),
    GGMLType.Q8_0: (2.7e-4, None, 0),
}


def random_blocks(kind: GGMLType, shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    """(rows, bytes of a row) uint8."""
    per_block, size = BLOCK[kind]
    blocks = generator.integers(0, 256, (shape[0], shape[1] // per_block, size), np.uint8)
    scale, minimum, at = SCALES[kind]
    blocks[..., at : at + 2] = np.array([scale], np.float16).view(np.uint8)
    if minimum is not None:
        blocks[..., 2:4] = np.array([minimum], np.float16).view(np.uint8)
    return torch.from_numpy(blocks.reshape(shape[0], -1))


def write_model(folder: Path, config: ModelConfig) -> None:
    """A model folder with its experts on disk; every expert differs from every other."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator, kinds, shapes = np.random.default_rng(0), block_types(config, "q4"), leaves(config)
    first = [f"model.layers.0.mlp.experts.0.{name}.weight" for name in PROJECTIONS]
    gate, up, down = (kinds[leaf] for leaf in first)
    layout = expert_layout(config, (gate, up, down))
    blocks = [random_blocks(kinds[leaf], shapes[leaf], generator) for leaf in first]
    base, extent = (torch.empty(layout.length, dtype=torch.uint8) for _ in range(2))
    pack_extent(layout, blocks[0], blocks[1], blocks[2], base)
    del blocks
    with ExpertFileWriter(folder, layout, "random") as writer:
        for layer in range(config.layers):
            for expert in range(config.experts):
                turn_rows(layout, base, extent, 1 + layer * config.experts + expert)
                writer.append(layer, expert, tensor_bytes(extent), extent_hash(extent))
        writer.finish()
    types: dict[str, StoredType] = dict.fromkeys(shapes, torch.float32)
    types |= kinds
    types = {leaf: kind for leaf, kind in types.items() if not expert_leaf(leaf)}

    def read(leaf: str, kind: StoredType) -> torch.Tensor:
        if isinstance(kind, GGMLType):
            return random_blocks(kind, shapes[leaf], generator)
        if len(shapes[leaf]) == 1:
            return torch.ones(shapes[leaf])
        return 0.02 * torch.from_numpy(generator.standard_normal(shapes[leaf], np.float32))

    write_hf_folder(folder, config, "hunyuan", types, read)
    save_tokenizer(load_tokenizer("smollm2-135m-instruct"), folder)


def turn_rows(layout: Any, base: torch.Tensor, out: torch.Tensor, by: int) -> None:
    """The same blocks of 16 rows in another order: another expert, at the speed of copying."""
    out.zero_()
    rows = (layout.ffn // 16, layout.ffn // 16, layout.hidden // 16)
    for start, size, blocks in zip(layout.starts, layout.sizes, rows, strict=True):
        part = base[start : start + size].view(blocks, -1)
        place = out[start : start + size].view(blocks, -1)
        place[by:], place[:by] = part[:-by], part[-by:]


# ---------------------------------------------------------------- the limited process


def measured(folder: str, memory: str, prompt: int, answer: int) -> dict[str, Any]:
    """What the limited process finds."""
    begin = time.perf_counter()
    engine = load_engine(folder, "stored", "bfloat16", 2048, 1, memory=memory)
    loading = time.perf_counter() - begin
    experts = open_checkpoint(Path(folder)).experts
    assert experts is not None
    sequential = [sequential_read(experts.path, _IN_ORDER)]
    generator = torch.Generator().manual_seed(0)

    def ask(tokens: int, more: int) -> tuple[dict[str, float], dict[str, float]]:
        """Costs of a prompt of new random tokens, and of each further token."""
        ids = torch.randint(40_000, (tokens,), generator=generator).tolist()
        params = SamplingParams(temperature=0, max_tokens=1 + more, ignore_eos=True)
        request = engine.submit(ids, params)
        before, start = stats(), time.perf_counter()
        while not request.generated:
            engine.step()
        middle, first = stats(), time.perf_counter()
        while request.finish_reason is None:
            engine.step()
        return (
            costs(before, middle, first - start, 1),
            costs(middle, stats(), time.perf_counter() - first, more),
        )

    def stats() -> ExpertStats:
        found = engine.stats().disk
        assert found is not None
        return found

    ask(1, 4)
    runs = []
    for _ in range(_ROUNDS):
        prefill, decode = ask(prompt, answer)
        sequential.append(sequential_read(experts.path, _IN_ORDER))
        runs.append({"prompt": prefill, "answer": decode})
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    final = stats()
    return {
        "load_seconds": loading,
        "slots": final.slots,
        "extent_bytes": final.extent_bytes,
        "direct": final.direct,
        "foresight": final.foresight,
        "sequential_bytes_per_second": sequential,
        "runs": runs,
        "peak_resident_bytes": int(status["VmHWM"].split()[0]) * 1024,
    }


def costs(before: ExpertStats, after: ExpertStats, seconds: float, steps: int) -> dict[str, float]:
    """Of what ran between two snapshots."""
    read = after.bytes_read - before.bytes_read
    busy = after.busy_seconds - before.busy_seconds
    visits = after.demanded - before.demanded
    return {
        "tokens": after.tokens - before.tokens,
        "seconds": seconds,
        "seconds_per_step": seconds / steps,
        "bytes_read": read,
        "reading_seconds": busy,
        "waiting_seconds": after.waited_seconds - before.waited_seconds,
        "bytes_per_second_while_reading": read / busy if busy else 0.0,
        "visits": visits,
        "hit_rate": (after.hits - before.hits) / visits,
        "ahead": after.ahead - before.ahead,
        "ahead_used": after.ahead_used - before.ahead_used,
    }


@contextmanager
def memory_cgroup(limit: int) -> Iterator[tuple[Path, str]]:
    """A cgroup of version 2 or 1 that holds a process to ``limit`` bytes, and which it is."""
    root = Path("/sys/fs/cgroup")
    two = (root / "cgroup.controllers").exists()
    group = (root if two else root / "memory") / f"hunyuan-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.max" if two else "memory.limit_in_bytes")).write_text(str(limit))
        yield group, f"cgroup v{2 if two else 1}"
    finally:
        group.rmdir()


def drop_page_cache() -> None:
    """So that the disk is measured, as far as this machine's memory goes."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def main() -> None:
    """Write, measure, remove."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--memory", default="6G")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--answer", type=int, default=8)
    parser.add_argument("--keep", action="store_true", help="leave the model on the disk")
    parser.add_argument("--limited", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.limited:
        found = measured(str(FOLDER), chosen.memory, chosen.prompt, chosen.answer)
        print(json.dumps(found))
        return
    config = replace(preset("large"), layers=chosen.layers)
    limit = parse_memory(chosen.memory)
    try:
        if not (FOLDER / "experts.json").exists():
            print(f"writing {chosen.layers} layers ...", file=sys.stderr)
            write_model(FOLDER, config)
        checkpoint = open_checkpoint(FOLDER)
        assert checkpoint.experts is not None
        drop_page_cache()
        with memory_cgroup(limit) as (group, kind):
            join = f'echo $$ > {group / "cgroup.procs"} && exec "$@"'
            own = [sys.executable, __file__, *sys.argv[1:], "--limited"]
            done = subprocess.run(
                ["sh", "-c", join, "sh", *own], stdout=subprocess.PIPE, check=True
            )
            peak_name = "memory.peak" if kind.endswith("2") else "memory.max_usage_in_bytes"
            peak = int((group / peak_name).read_text())
        found = json.loads(done.stdout)
        model_bytes = checkpoint.experts.nbytes + resident_bytes(checkpoint)
        report(config, chosen, limit, kind, peak, model_bytes, found)
    finally:
        if not chosen.keep:
            shutil.rmtree(FOLDER, ignore_errors=True)


def report(
    config: ModelConfig,
    chosen: argparse.Namespace,
    limit: int,
    kind: str,
    peak: int,
    model_bytes: int,
    found: dict[str, Any],
) -> None:
    """Write the result file and say the main figures."""
    sequential = median(found["sequential_bytes_per_second"])
    runs = found["runs"]
    around = [sum(pair) / 2 for pair in pairwise(found["sequential_bytes_per_second"])]
    share = {
        part: [
            run[part]["bytes_per_second_while_reading"] / beside
            for run, beside in zip(runs, around, strict=True)
        ]
        for part in ("prompt", "answer")
    }
    per_token = median(run["answer"]["seconds_per_step"] for run in runs)
    waiting = median(run["answer"]["waiting_seconds"] for run in runs) / chosen.answer
    layer = per_token / config.layers
    misses = 1 - median(run["answer"]["hit_rate"] for run in runs)
    # A miss costs what reading an extent costs here; all else is compute, with the head in it.
    compute = (per_token - waiting) / config.layers
    all_miss = LAYERS * (found["extent_bytes"] / sequential + compute)
    result = provenance() | {
        "layers": config.layers,
        "model_bytes": model_bytes,
        "limit_bytes": limit,
        "limit_by": kind,
        "peak_bytes_of_cgroup": peak,
        "measured": found,
        "share_of_sequential": share,
        "load_average": os.getloadavg(),
        "seconds_per_answer_token": per_token,
        "seconds_per_layer": layer,
        "calculated_for_64_layers": {
            "seconds_per_token_at_this_hit_rate": per_token / config.layers * LAYERS,
            "seconds_per_token_if_every_expert_is_read": all_miss,
            "note": "linear in layers; head and embedding are counted as part of the layers",
        },
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "experts-from-disk.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{config.layers} layers, {human_bytes(model_bytes)}, limit {human_bytes(limit)} ({kind}), "
        f"peak {human_bytes(peak)}\n"
        f"disk in order {human_bytes(sequential)}/s; prompt {median(share['prompt']):.0%}, "
        f"answer {median(share['answer']):.0%} of it while reading\n"
        f"{per_token:.2f} s a token, {layer:.3f} s a layer, {misses:.0%} of visits read; "
        f"64 layers (calculated): {layer * LAYERS:.1f} s a token, {all_miss:.1f} s if every expert "
        f"is read\n{path}"
    )


if __name__ == "__main__":
    main()
