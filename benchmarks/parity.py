"""Real weights: this engine beside transformers, the same weights, the same prompts, one run.

    python benchmarks/parity.py smollm2-135m-instruct qwen2.5-coder-0.5b-instruct

Each pulled GGUF model is exported to a Hugging Face folder in float32 by `hunyuan convert --verify`
and loaded by transformers; this project loads the GGUF itself. Compared in float32: greedy
continuations of 20 prompts (the engine's cached, batched answers against transformers' generate),
and the mean log-likelihood per token of the WikiText-2 test set in windows of 512 tokens. Writes
benchmarks/results/parity-MODEL.json. Needs the package with its dev extra, the models
(`hunyuan pull`), and a folder with WikiText-2's test.txt for the likelihood.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from provenance import RESULTS, provenance

import hunyuan
from hunyuan.catalogue.store import locate
from hunyuan.checkpoint.convert import convert

ENGLISH = [
    "The capital of France is",
    "Water boils at a temperature of",
    "The largest planet in our solar system is",
    "Once upon a time, in a small village,",
    "The theory of evolution was proposed by",
    "To make a cup of tea, first",
    "def fibonacci(n):\n",
    "The three primary colours are",
    "In 1969, the first humans",
    "Photosynthesis is the process by which",
]
MORE_ENGLISH = [
    "The opposite of hot is",
    "A haiku about autumn:\n",
    "SELECT name FROM users WHERE",
    "The speed of light is approximately",
    "Shakespeare wrote many plays, including",
    "import numpy as np\n\ndef mean(values):\n",
    "The Great Wall of China was built",
    "Dear Sir or Madam,\n\nI am writing to",
    "The chemical symbol for gold is",
    "When it rains, the streets",
]
CHINESE = [
    "中国的首都是",
    "海水为什么是咸的？因为",
    "床前明月光，",
    "用 Python 写一个快速排序：\n",
    "一年有四个季节，分别是",
    "水的化学式是",
    "请写一封感谢信。\n\n尊敬的",
    "三国演义的作者是",
    "光的速度大约是",
    "学习编程的第一步是",
]
# SmolLM2 does not speak Chinese.
PROMPTS = {True: ENGLISH + CHINESE, False: ENGLISH + MORE_ENGLISH}
ANSWER_TOKENS = 32
WINDOW = 512


def greedy(name: str, folder: Path, chinese: bool) -> dict[str, Any]:
    """Continuations of both sides, and where they differ."""
    tokenizer = hunyuan.load_tokenizer(name)
    engine = hunyuan.Engine(hunyuan.load_model(name), tokenizer, context=256, max_sequences=4)
    prompts = PROMPTS[chinese]
    ours = engine.generate_many(prompts, temperature=0, max_tokens=ANSWER_TOKENS)
    theirs_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = []
    for prompt, answer in zip(prompts, ours, strict=True):
        inputs = theirs_tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            out = theirs.generate(
                **inputs,
                max_new_tokens=ANSWER_TOKENS,
                do_sample=False,
                repetition_penalty=1.0,
                eos_token_id=sorted(tokenizer.stop_ids),
                pad_token_id=0,
            )
        new = out[0, inputs["input_ids"].shape[1] :]
        text = theirs_tokenizer.decode(new, skip_special_tokens=True)
        same_prompt = inputs["input_ids"][0].tolist() == engine.encode(prompt)
        rows.append(
            {
                "prompt": prompt,
                "same": text == answer.text,
                "same_prompt_ids": same_prompt,
                "ours": answer.text,
                "transformers": text,
            }
        )
    return {"identical": sum(r["same"] for r in rows), "of": len(rows), "rows": rows}


def likelihood(name: str, folder: Path, text: str, windows: int | None) -> dict[str, float | int]:
    """Mean log-likelihood per token of both sides, in nats.

    Takes over an hour for a model of half a billion parameters on two cores, so sums so far are
    kept in a file beside the result, and a run that was interrupted goes on from there.
    """
    ids = torch.tensor(hunyuan.load_tokenizer(name).encode(text))
    count = min(len(ids) // WINDOW, windows or len(ids))
    batch = ids[: count * WINDOW].view(count, WINDOW)
    kept = RESULTS / f"parity-{name}.partial"
    ours = hunyuan.load_model(name)
    mean_ours, seconds_ours = _mean(ours, batch, kept, "ours")
    del ours
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    mean_theirs, seconds_theirs = _mean(lambda x: theirs(x).logits, batch, kept, "transformers")
    kept.unlink(missing_ok=True)
    return {
        "tokens": batch.numel(),
        "whole_set": count == len(ids) // WINDOW,
        "ours": mean_ours,
        "transformers": mean_theirs,
        "difference": abs(mean_ours - mean_theirs),
        "seconds_ours": seconds_ours,
        "seconds_transformers": seconds_theirs,
    }


def _mean(
    logits: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, kept: Path, side: str
) -> tuple[float, float]:
    """Mean over all windows, and the seconds they took; ``kept`` holds the sums so far."""
    sums = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    so_far = sums.setdefault(side, {"windows": 0, "total": 0.0, "seconds": 0.0})
    for window in batch[so_far["windows"] :]:
        begin = time.monotonic()
        with torch.inference_mode():
            scores = logits(window[None])[0, :-1].log_softmax(-1)
            so_far["total"] += float(scores.gather(1, window[1:, None]).double().sum())
        so_far["windows"] += 1
        so_far["seconds"] += time.monotonic() - begin
        if so_far["windows"] % 8 == 0:
            kept.write_text(json.dumps(sums), encoding="utf-8")
    kept.write_text(json.dumps(sums), encoding="utf-8")
    return so_far["total"] / (len(batch) * (WINDOW - 1)), so_far["seconds"]


def main() -> None:
    """Run the comparison for each model named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--wikitext", type=Path, help="text file of the WikiText-2 test set")
    parser.add_argument("--windows", type=int, help="only the first N windows of 512 tokens")
    options = parser.parse_args()
    for name in options.models:
        scratch = Path(tempfile.mkdtemp(prefix="parity-"))
        try:
            source, folder = locate(name), scratch / "exported"
            comparison = convert(source, folder, dtype=torch.float32, verify=True)
            assert comparison is not None
            result: dict[str, Any] = {
                "model": name,
                **provenance(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "export_max_logit_difference": comparison.max_difference,
                "greedy": greedy(name, folder, chinese="qwen" in source.name),
            }
            if options.wikitext:
                text = options.wikitext.read_text(encoding="utf-8")
                result["wikitext2"] = likelihood(name, folder, text, options.windows)
        finally:
            shutil.rmtree(scratch)
        path = RESULTS / f"parity-{name}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        greedy_part = result["greedy"]
        print(f"{name}: {greedy_part['identical']} of {greedy_part['of']} texts identical")
        if "wikitext2" in result:
            print(f"  log-likelihood {json.dumps(result['wikitext2'])}")
        print(f"  {path}")


if __name__ == "__main__":
    main()
