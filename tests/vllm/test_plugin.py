"""vLLM with the plug-in against this project's own model: the same tokens, at half the cache.

Not in the default run: every test starts vLLM. ``make vllm`` runs them.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from asking import GREEDY, ask_vllm, greedy_tokens, make_large, prompts_of, tokens, vllm_command
from safetensors.torch import load_file
from widen import widen

import hunyuan
from hunyuan.model.config import Llama3Scaling, Rope

LENGTHS = [40, 17, 3, 1]


@pytest.fixture(autouse=True)
def _vllm() -> None:
    vllm_command()


@pytest.mark.parametrize("name", ["large_instruct", "large_pretrain", "no_cla", "dense"])
def test_golden_checkpoints_say_the_same(name: str, golden: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    widen(golden / name, wide)
    expected = load_file(golden / name / "expected.safetensors")
    ids = expected["input_ids"]
    with torch.inference_mode():  # the widened one is the same model
        assert (hunyuan.load_model(wide)(ids) - expected["logits"]).abs().max() < 5e-5
    prompts = [row[:length].tolist() for row in ids for length in (48, 17)]
    greedy = {"prompts": prompts, "sampling": GREEDY}
    judged = {"prompts": ids.tolist(), "sampling": {"max_tokens": 1, "prompt_logprobs": 5}}
    found = ask_vllm(wide, greedy, judged)
    assert tokens(found["calls"][0]) == greedy_tokens(golden / name, prompts)
    # Every position of the reference's own logits, not just where greedy tokens fall.
    reference = expected["logits"].log_softmax(-1)
    for row, answer in zip(reference, found["calls"][1], strict=True):
        assert answer["prompt_logprobs"][0] == {}
        for position, spread in enumerate(answer["prompt_logprobs"][1:]):
            for token, logprob in spread.items():
                assert abs(row[position, int(token)] - logprob) < 2e-4


KINDS: dict[str, dict[str, Any]] = {
    "top-1 and shared keys": {},
    "two experts, renormalised": {"top_k": 2, "norm_topk_prob": True},
    "two experts, raw": {"top_k": 2},
    "two shared experts": {"shared_experts": 2},
    "no shared expert": {"shared_experts": 0},
    "groups of three, the last one short": {"layers": 5, "cla_share": 3},
    "biases, untied, no query norm": {
        "qkv_bias": True,
        "output_bias": True,
        "tied": False,
        "qk_norm": False,
    },
    "linear": {"rope": Rope(linear_factor=4.0)},
    "llama3": {
        "rope": Rope(
            llama3=Llama3Scaling(
                factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64
            )
        )
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_own_checkpoints_say_the_same(kind: str, tmp_path: Path) -> None:
    folder = make_large(tmp_path / "model", **KINDS[kind])
    prompts = prompts_of(512, LENGTHS)
    together = {"prompts": prompts, "sampling": GREEDY}
    alone = [{"prompts": [prompt], "sampling": GREEDY} for prompt in prompts[:2]]
    found = ask_vllm(folder, together, *alone)
    expected = greedy_tokens(folder, prompts)
    assert tokens(found["calls"][0]) == expected
    assert [tokens(call)[0] for call in found["calls"][1:]] == expected[:2]


def test_sharing_halves_the_cache(tmp_path: Path) -> None:
    call = {"prompts": [[1, 2, 3]], "sampling": GREEDY}
    found = {
        share: ask_vllm(make_large(tmp_path / str(share), layers=8, cla_share=share), call)
        for share in (1, 2, 4)
    }
    tokens_held = {share: one["cache_tokens"] for share, one in found.items()}
    assert tokens_held[2] == 2 * tokens_held[1]
    assert tokens_held[4] == 4 * tokens_held[1]
    shape = hunyuan.load_model(tmp_path / "2").config
    assert tokens_held[2] == 2**30 // shape.kv_bytes_per_token(4)


def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    folder = make_large(tmp_path / "model")
    prompts = prompts_of(512, LENGTHS)
    found = ask_vllm(folder, {"prompts": prompts, "sampling": GREEDY}, tensor_parallel_size=2)
    assert tokens(found["calls"][0]) == greedy_tokens(folder, prompts)


def test_two_pipeline_stages_say_what_one_says(tmp_path: Path) -> None:
    folder = make_large(tmp_path / "model")
    prompts = prompts_of(512, LENGTHS)
    found = ask_vllm(
        folder,
        {"prompts": prompts, "sampling": GREEDY},
        pipeline_parallel_size=2,
        # vLLM's runner for a CPU makes the buffers of later stages in the first batch it runs to
        # compile, and nowhere else.
        enforce_eager=False,
    )
    assert tokens(found["calls"][0]) == greedy_tokens(folder, prompts)


def test_sampled_tokens_have_our_probabilities(tmp_path: Path) -> None:
    folder = make_large(tmp_path / "model")
    (prompt,) = prompts_of(512, [20])
    sampling = {"temperature": 1.0, "seed": 3, "max_tokens": 12, "logprobs": 5}
    found = ask_vllm(folder, {"prompts": [prompt], "sampling": sampling})
    (answer,) = found["calls"][0]
    ids = prompt + answer["tokens"]
    with torch.inference_mode():
        ours = hunyuan.load_model(folder)(torch.tensor([ids]))[0].log_softmax(-1)
    for step, spread in enumerate(answer["logprobs"]):
        assert len(spread) >= 5
        for token, logprob in spread.items():
            assert abs(ours[len(prompt) - 1 + step, int(token)] - logprob) < 1e-4


def test_bfloat16_stays_near(tmp_path: Path) -> None:
    """By medians and agreement: near-ties of a random router flip whole experts."""
    folder = make_large(tmp_path / "model", experts=0, shared_experts=0)
    prompts = prompts_of(512, [64] * 4)
    call = {"prompts": prompts, "sampling": {"max_tokens": 1, "prompt_logprobs": 1}}
    found = ask_vllm(folder, call, dtype="bfloat16")
    with torch.inference_mode():
        ours = hunyuan.load_model(folder)(torch.tensor(prompts)).log_softmax(-1)
    gaps = [
        abs(float(row[position, int(token)]) - logprob)
        for row, answer in zip(ours, found["calls"][0], strict=True)
        for position, spread in enumerate(answer["prompt_logprobs"][1:])
        for token, logprob in spread.items()
    ]
    assert 0 < float(torch.tensor(gaps).median()) < 0.05


def test_a_pipeline_is_not_cut_inside_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_large(tmp_path / "model")
    monkeypatch.setenv("VLLM_PP_LAYER_PARTITION", "3,1")
    call = {"prompts": [[1]], "sampling": GREEDY}
    with pytest.raises(AssertionError, match="layers 2 to 3 share their keys"):
        ask_vllm(folder, call, pipeline_parallel_size=2)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    folder = make_large(tmp_path / "model")
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"moe_topk"', '"moe_topkk"'))
    with pytest.raises(AssertionError, match="did you mean moe_topk"):
        ask_vllm(folder, {"prompts": [[1]], "sampling": GREEDY})
