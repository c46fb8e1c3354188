"""Runs in vLLM's own environment: a job from standard input, what vLLM says to standard output.

The job is ``{"model": folder, "engine": arguments of vllm.LLM, "calls": [...]}``; a call is
``{"prompts": token ids, "sampling": arguments of vllm.SamplingParams}``.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    from vllm import LLM, SamplingParams

    # vLLM's processes print; what the test reads goes to the real standard output alone.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    usual = {"dtype": "float32", "enforce_eager": True, "max_model_len": 128, "max_num_seqs": 8}
    llm = LLM(job["model"], skip_tokenizer_init=True, **(usual | job["engine"]))

    def answers(call: dict[str, Any]) -> list[dict[str, Any]]:
        prompts = [{"prompt_token_ids": ids} for ids in call["prompts"]]
        params = SamplingParams(ignore_eos=True, detokenize=False, **call["sampling"])
        return [said(output) for output in llm.generate(prompts, params, use_tqdm=False)]

    cache = llm.llm_engine.vllm_config.cache_config
    result = {
        "cache_tokens": cache.num_gpu_blocks * cache.block_size,
        "calls": [answers(call) for call in job["calls"]],
    }
    json.dump(result, out)
    out.flush()


def said(output: Any) -> dict[str, Any]:
    """Tokens, and the logarithms of probabilities where they were asked for."""
    best = output.outputs[0]
    return {
        "tokens": list(best.token_ids),
        "logprobs": [spread(step) for step in best.logprobs or ()],
        "prompt_logprobs": [spread(step) for step in output.prompt_logprobs or ()],
    }


def spread(step: Any) -> dict[str, float]:
    return {str(token): found.logprob for token, found in (step or {}).items()}


if __name__ == "__main__":
    main()
