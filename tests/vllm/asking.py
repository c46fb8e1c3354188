"""vLLM in its own environment (``make vllm``), and what this project computes to compare with."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_random_checkpoint

import hunyuan
from hunyuan.model.config import preset

ENVIRONMENT = Path(__file__).parents[2] / "build" / "vllm"
GREEDY = {"temperature": 0, "max_tokens": 16}

Answer = dict[str, Any]


def vllm_command() -> Path:
    """The ``vllm`` command, or a skip; an engine takes most of a minute to start."""
    if not os.environ.get("HUNYUAN_VLLM_TESTS"):
        pytest.skip("takes minutes: make vllm runs it")
    command = ENVIRONMENT / "bin" / "vllm"
    if not command.exists():
        pytest.skip("no build/vllm: make vllm builds it")
    return command


def ask_vllm(model: Path, *calls: dict[str, Any], **engine: Any) -> dict[str, Any]:
    """Run prompts through vLLM in a process of its own; see ask_vllm.py."""
    processes = engine.get("tensor_parallel_size", 1) * engine.get("pipeline_parallel_size", 1)
    done = subprocess.run(
        [vllm_command().with_name("python"), Path(__file__).with_name("ask_vllm.py")],
        input=json.dumps({"model": str(model), "engine": engine, "calls": calls}),
        capture_output=True,
        text=True,
        timeout=1200,
        # In one process less: it starts the sooner.
        env=os.environ | vllm_environment(processes) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
    )
    assert done.returncode == 0, done.stderr[-60_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def vllm_environment(processes: int = 1) -> dict[str, str]:
    """Variables under which vLLM behaves on a small machine."""
    return {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # One process a core; vLLM's own choice wants a memory node for each.
        **({"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if processes > 1 else {}),
    }


def make_large(folder: Path, **changes: Any) -> Path:
    """A random checkpoint of Hunyuan-Large's class, of sizes vLLM's CPU kernels know."""
    shape = replace(preset("tiny"), vocab=512, hidden=64, heads=4, head_dim=32, experts=4, ffn=96)
    return write_random_checkpoint(folder, replace(shape, **changes))


def prompts_of(vocab: int, lengths: list[int]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(vocab, (n,), generator=generator).tolist() for n in lengths]


def greedy_tokens(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """What this project's own model says, one full forward pass a token."""
    model = hunyuan.load_model(folder)
    said = []
    with torch.inference_mode():
        for prompt in prompts:
            ids = list(prompt)
            for _ in range(GREEDY["max_tokens"]):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            said.append(ids[len(prompt) :])
    return said


def tokens(answers: list[Answer]) -> list[list[int]]:
    return [answer["tokens"] for answer in answers]
