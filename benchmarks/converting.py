"""Converting a giant: memory, and throughput beside the quantiser and the disk by themselves.

    sudo python benchmarks/converting.py

Writes layers of Hunyuan-Large's real shape (hidden 6400, FFN 18304; some of its 16 experts, as
converting does them one by one) as bfloat16 shards below benchmarks/.runs, and converts them as a
user would, by `hunyuan convert ... --quantize q4 --experts-on-disk` in a process of its own, whose
peak memory the system keeps. Before and after, in this process, the quantiser runs on
matrices of the same shape that are in memory already, and the disk is read in order: the slower of
the two is what converting could reach at most. Writes benchmarks/results/converting.json.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from provenance import RESULTS, provenance

from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.quantize import block_types
from hunyuan.checkpoint.write import StoredType, write_hf_folder
from hunyuan.model.config import ModelConfig, preset
from hunyuan.native.quantize import quantize

RUNS = Path(__file__).parent / ".runs" / "converting"


def main() -> None:
    """Write, measure the limits, convert, measure them again, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()
    config = replace(preset("large"), layers=arguments.layers, experts=arguments.experts)
    shutil.rmtree(RUNS, ignore_errors=True)
    source, target = RUNS / "bfloat16", RUNS / "q4"
    try:
        write_source(source, config)
        weights = config.total_parameters
        nbytes = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        limits = [quantiser(config)]
        drop_page_cache()
        disk = in_order(source)
        drop_page_cache()
        began = time.perf_counter()
        command = [sys.executable, "-m", "hunyuan", "convert", str(source), str(target)]
        command += ["--quantize", "q4", "--experts-on-disk"]
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        limits.append(quantiser(config))
        slower = min(max(limits), disk / 2)
        result = {
            "provenance": provenance(),
            "weights": weights,
            "bytes read": nbytes,
            "seconds": seconds,
            "weights per second": weights / seconds,
            "quantiser alone, weights per second, before and after": limits,
            "disk in order, bytes per second": disk,
            "share of the slower": weights / seconds / slower,
            "peak memory, bytes": peak,
            "hours for Hunyuan-Large at this speed, calculated": preset("large").total_parameters
            / (weights / seconds)
            / 3600,
        }
        print(json.dumps(result, indent=1))
        file = RESULTS / "converting.json"
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(RUNS, ignore_errors=True)


def write_source(folder: Path, config: ModelConfig) -> None:
    """Random weights of standard deviation 0.02: slices of one long run of normal numbers."""
    folder.mkdir(parents=True)
    shapes = leaves(config)
    noise = torch.randn(1 << 26, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()

    def read(leaf: str, kind: StoredType) -> torch.Tensor:
        shape = shapes[leaf]
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        count = shape[0] * shape[1]
        start = len(leaf) * 7919 % 4096
        repeats = -(-(count + start) // len(noise))
        return noise.repeat(repeats)[start : start + count].view(shape)

    types: dict[str, StoredType] = dict.fromkeys(shapes, torch.bfloat16)
    write_hf_folder(folder, config, "hunyuan", types, read)


def quantiser(config: ModelConfig) -> float:
    """Weights per second of the quantiser on one expert that is in memory, in the model's types."""
    types = block_types(config, "q4")
    total, seconds = 0, 0.0
    importance = torch.ones(max(config.hidden, config.ffn))
    for name, shape in leaves(config).items():
        if ".mlp.experts.0." not in name or ".layers.0." not in name:
            continue
        matrix = torch.randn(shape) * 0.02
        began = time.perf_counter()
        quantize(matrix, types[name], importance[: shape[1]].contiguous())
        seconds += time.perf_counter() - began
        total += matrix.numel()
    return total / seconds


def in_order(folder: Path) -> float:
    """Bytes per second of reading the source's files from end to end."""
    nbytes, began = 0, time.perf_counter()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while part := file.read(1 << 24):
                nbytes += len(part)
    return nbytes / (time.perf_counter() - began)


def drop_page_cache() -> None:
    """So that the disk is read and not memory; needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


if __name__ == "__main__":
    main()
