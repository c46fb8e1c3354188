"""What vLLM with the plug-in keeps of a token, and whether it says what this project's model says.

    python benchmarks/vllm_plugin.py [--vllm build/vllm/bin/python]

Models of Hunyuan-Large's class with random weights and heads of the real width: 8 layers, 8
key/value heads of 80 channels, 4 experts, top-1, and a shared one. For groups of 1, 2 and 4 layers:
tokens that vLLM itself says a GiB of cache holds, and bytes a token by the closed form. For groups
of 2 layers in float32: greedy tokens, of one process and of two, against this project's model.
Writes benchmarks/results/vllm.json. vLLM runs on the CPU: no speed is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from provenance import RESULTS, provenance

import hunyuan
from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.load import leaf_of
from hunyuan.checkpoint.write import write_hf_folder
from hunyuan.model.config import ModelConfig, Rope
from hunyuan.model.transformer import build, init_weights

GIB = 2**30
SHAPE = ModelConfig(
    vocab=1024,
    hidden=320,
    layers=8,
    heads=16,
    kv_heads=8,
    head_dim=80,
    ffn=256,
    context=4096,
    experts=4,
    top_k=1,
    shared_experts=1,
    cla_share=2,
    qk_norm=True,
    tied=True,
    init_std=0.08,
    rope=Rope(theta=10_000, alpha=1000),
)
TOKENS = 24
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}

# Runs in vLLM's environment.
ASK = """
import json, os, sys
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    llm = LLM(job["model"], skip_tokenizer_init=True, enforce_eager=True, max_model_len=256,
              max_num_seqs=8, **job["engine"])
    cache = llm.llm_engine.vllm_config.cache_config
    params = SamplingParams(temperature=0, max_tokens=job["tokens"], ignore_eos=True,
                            detokenize=False)
    prompts = [{"prompt_token_ids": ids} for ids in job["prompts"]]
    said = [list(one.outputs[0].token_ids) for one in llm.generate(prompts, params, use_tqdm=False)]
    import vllm
    json.dump({"version": vllm.__version__, "cache": cache.num_gpu_blocks * cache.block_size,
               "said": said}, out)
    out.flush()
"""


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description="Cache and tokens of vLLM with the plug-in.")
    parser.add_argument("--vllm", default="build/vllm/bin/python", help="Python of its environment")
    python = parser.parse_args().vllm
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(SHAPE.vocab, (n,), generator=generator).tolist() for n in (64, 21, 3)]
    with tempfile.TemporaryDirectory() as scratch:
        folders = {share: write(Path(scratch) / str(share), share) for share in (1, 2, 4)}
        cache = []
        for share, folder in folders.items():
            found = ask(python, folder, prompts[-1:], dtype="bfloat16")
            cache.append(cache_row(share, "bfloat16", 2, found))
            print(cache[-1], flush=True)
        ours = list(chain.from_iterable(greedy(folders[2], prompts)))
        same = []
        for processes in (1, 2):
            found = ask(python, folders[2], prompts, dtype="float32", processes=processes)
            said = chain.from_iterable(found["said"])
            equal = sum(a == b for a, b in zip(ours, said, strict=True))
            same.append({"tensor_parallel": processes, "tokens": len(ours), "equal": equal})
            print(same[-1], f"{found['seconds']:.0f} s with the start", flush=True)
    result = {
        "provenance": provenance() | {"vllm": found["version"], "device": "cpu"},
        "model": {"layers": 8, "kv_heads": 8, "head_dim": 80, "experts": 4, "top_k": 1},
        "cache": cache,
        "greedy_float32": same,
    }
    (RESULTS / "vllm.json").write_text(json.dumps(result, indent=1) + "\n")


def cache_row(share: int, dtype: str, size: int, found: dict[str, Any]) -> dict[str, Any]:
    """What vLLM says of its cache beside the closed form."""
    return {
        "layers_sharing": share,
        "dtype": dtype,
        "tokens_per_gib_measured": found["cache"],
        "bytes_per_token_measured": round(GIB / found["cache"], 1),
        "bytes_per_token_calculated": replace(SHAPE, cla_share=share).kv_bytes_per_token(size),
    }


def write(folder: Path, share: int) -> Path:
    """A random checkpoint whose layers share keys and values in groups of ``share``."""
    config = replace(SHAPE, cla_share=share)
    model = build(config).to_empty(device="cpu")
    init_weights(model, torch.Generator().manual_seed(0))
    folder.mkdir()
    write_hf_folder(
        folder,
        config,
        "hunyuan",
        dict.fromkeys(leaves(config), torch.float32),
        lambda leaf, kind: leaf_of(model, leaf).detach().to(kind),
    )
    return folder


def greedy(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """Tokens of this project's model, one full forward pass each."""
    model = hunyuan.load_model(folder)
    said = []
    with torch.inference_mode():
        for prompt in prompts:
            ids = list(prompt)
            for _ in range(TOKENS):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            said.append(ids[len(prompt) :])
    return said


def ask(
    python: str, folder: Path, prompts: list[list[int]], *, dtype: str, processes: int = 1
) -> dict[str, Any]:
    """Start vLLM on ``folder`` and let it go on with ``prompts``."""
    engine = {"dtype": dtype, "tensor_parallel_size": processes}
    job = {"model": str(folder), "engine": engine, "prompts": prompts, "tokens": TOKENS}
    bind = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"} if processes > 1 else {}
    program = folder.parent / "ask.py"  # a file, because vLLM's processes import it again
    program.write_text(ASK)
    start = time.monotonic()
    done = subprocess.run(
        [python, program],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT | bind,
    )
    if done.returncode:
        sys.exit(done.stderr[-5000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"seconds": time.monotonic() - start}


if __name__ == "__main__":
    main()
