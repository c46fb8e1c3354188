"""Scores of given texts, embeddings and counts, against the whole model without an engine."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import random_transformer

from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.load import leaf_of
from hunyuan.engine.engine import Engine
from hunyuan.engine.request import SamplingParams
from hunyuan.errors import DoesNotFitError, HunyuanError, UsageError
from hunyuan.formats.gguf import GGMLType
from hunyuan.model.config import ModelConfig, preset
from hunyuan.model.transformer import Transformer
from hunyuan.native.library import unavailable
from hunyuan.native.matrix import Arena, pack
from hunyuan.native.transformer import NativeTransformer, Weight
from hunyuan.tokenizer.tokenizer import Tokenizer

TOKENS = 259
"""Of the byte tokenizer."""


def native_of(model: Transformer) -> NativeTransformer:
    """The same weights in the kernels' hands."""
    if (why := unavailable()) is not None:
        pytest.skip(f"native kernels: {why}")
    arena = Arena()
    weights: dict[str, Weight] = {}
    for leaf, shape in leaves(model.config).items():
        values = leaf_of(model, leaf).detach().contiguous()
        if len(shape) == 1:
            weights[leaf] = values
        else:
            weights[leaf] = pack(GGMLType.F32, values.view(torch.uint8), arena)
    return NativeTransformer(model.config, weights)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return random_transformer(wide_heads(preset("tiny")))


def wide_heads(config: ModelConfig) -> ModelConfig:
    """A head the kernels can compute: a multiple of 16 wide."""
    return replace(config, head_dim=16)


@pytest.fixture(scope="module", params=["torch", "native"])
def engine(request: Any, model: Transformer, byte_tokenizer: Tokenizer) -> Engine:
    runs = model if request.param == "torch" else native_of(model)
    return Engine(runs, byte_tokenizer, max_sequences=4, prefill_chunk=48, kv_dtype="float32")


def logprobs_of(model: Transformer, ids: list[int]) -> torch.Tensor:
    """Of every token there is; rows of the embedding that are no token count for nothing."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0]
    logits[:, TOKENS:] = -torch.inf
    return logits.log_softmax(-1)


def text(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length,), generator=generator).tolist()


@pytest.mark.parametrize("length", [1, 2, 33, 64, 150])
def test_a_prompts_tokens_are_scored(engine: Engine, model: Transformer, length: int) -> None:
    ids = text(length, 1)
    expected = logprobs_of(model, ids)
    made = engine.generate(ids, max_tokens=0, prompt_logprobs=2)
    assert made.finish_reason == "length"
    assert made.tokens == ()
    assert len(made.prompt_logprobs) == length
    assert made.prompt_logprobs[0] is None
    for place, entry in enumerate(made.prompt_logprobs[1:], 1):
        assert entry is not None
        assert entry.token == ids[place]
        assert entry.logprob == pytest.approx(float(expected[place - 1, ids[place]]), abs=2e-3)
        assert len(entry.top) == 2
        assert entry.top[0][1] >= entry.top[1][1]


def test_scored_and_answered_at_once(engine: Engine) -> None:
    ids = text(70, 2)
    plain = engine.generate(ids, max_tokens=5, temperature=0, ignore_eos=True)
    both = engine.generate(ids, max_tokens=5, temperature=0, ignore_eos=True, prompt_logprobs=0)
    assert both.tokens == plain.tokens
    scored = engine.generate(ids, max_tokens=0, prompt_logprobs=0)
    assert both.prompt_logprobs == scored.prompt_logprobs, "although the prompt was known"


def test_pairs_are_scored_as_the_whole_model_does(engine: Engine, model: Transformer) -> None:
    shared = text(100, 3)
    pairs = [
        *((shared, [end]) for end in (10, 20, 30)),
        (shared, [10, 20, 30]),
        ([*shared, *text(40, 4)], text(12, 5)),
        ([*shared, *text(40, 4)], text(5, 6)),
        (text(3, 7), text(90, 8)),
        ([9], [9]),
        (shared, [10]),
    ]
    scores = engine.score(pairs)
    for (beginning, end), score in zip(pairs, scores, strict=True):
        all_logprobs = logprobs_of(model, [*beginning, *end])
        rows = all_logprobs[len(beginning) - 1 : -1]
        expected = float(rows[range(len(end)), end].sum())
        assert score.logprob == pytest.approx(expected, abs=5e-3)
        assert score.greedy == bool((rows.argmax(-1) == torch.tensor(end)).all())
    assert scores[0] == scores[-1]


def test_a_greedy_end_is_called_so(engine: Engine) -> None:
    ids = text(20, 9)
    made = engine.generate(ids, max_tokens=6, temperature=0, ignore_eos=True, top_k=0)
    (score,) = engine.score([(ids, list(made.tokens))])
    assert score.greedy
    wrong = [*made.tokens[:-1], (made.tokens[-1] + 1) % 256]
    assert not engine.score([(ids, wrong)])[0].greedy


def test_a_shared_beginning_is_computed_once(model: Transformer, byte_tokenizer: Tokenizer) -> None:
    engine = Engine(model, byte_tokenizer, max_sequences=8, prefill_chunk=64)
    shared = text(256, 10)
    ran: list[int] = []
    inner = engine._run

    def watched(segments: Any) -> Any:
        ran.append(sum(segment.count for segment in segments))
        return inner(segments)

    engine._run = watched  # type: ignore[method-assign]
    engine.score([([*shared, i], [1, 2]) for i in range(20)])
    assert sum(ran) <= 256 + 20 * 2
    ran.clear()
    engine.score([(shared, [i]) for i in range(100)])
    assert sum(ran) <= 32, "ends of one token are read off the same row"


def test_scoring_beside_answers_changes_neither(engine: Engine) -> None:
    long = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    expected = engine.generate("answer me", long).tokens
    pairs = [(text(60, i), text(4, 50 + i)) for i in range(6)]
    alone = engine.score(pairs)
    request = engine.submit("answer me", long)
    for _ in range(3):
        engine.step()
    beside = engine.score(pairs)
    assert [score.logprob for score in beside] == pytest.approx(
        [s.logprob for s in alone], abs=1e-4
    )
    while request.finish_reason is None:
        engine.step()
    assert tuple(request.generated) == expected


def test_what_cannot_be_scored_is_named(engine: Engine) -> None:
    with pytest.raises(UsageError, match="pair 1: beginning and end need"):
        engine.score([([1], [2]), ([1], [])])
    with pytest.raises(UsageError, match="token id 9999"):
        engine.score([([1], [9999])])
    with pytest.raises(DoesNotFitError):
        engine.score([([1] * (engine.context + 1), [2])])
    with pytest.raises(UsageError, match="max_tokens=0: must be at least 1"):
        engine.generate("x", max_tokens=0)
    assert not engine.busy


def test_a_prompt_that_fills_the_context_is_scored(
    model: Transformer, byte_tokenizer: Tokenizer
) -> None:
    """Nothing follows it, so it needs no room for more."""
    engine = Engine(model, byte_tokenizer, context=64, cache_tokens=64, max_sequences=1)
    request = engine.submit(text(64, 30), SamplingParams(max_tokens=0, prompt_logprobs=0))
    for _ in range(100):
        engine.step()
    assert request.finish_reason == "length"
    assert len(request.completion().prompt_logprobs) == 64


def test_a_score_that_is_no_number_is_an_error(
    model: Transformer, byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model, byte_tokenizer)
    real = model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: real(hidden) * torch.nan)
    with pytest.raises(HunyuanError, match="no finite logits"):
        engine.generate(text(9, 31), max_tokens=0, prompt_logprobs=0)
    assert not engine.busy


def test_embeddings_need_no_room_beside_answers(
    model: Transformer, byte_tokenizer: Tokenizer
) -> None:
    engine = Engine(model, byte_tokenizer, context=96, cache_tokens=96, max_sequences=1)
    (expected,) = engine.embed([text(70, 32)])
    params = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    answer = engine.generate(text(50, 33), params).tokens
    request = engine.submit(text(50, 33), params)
    for _ in range(4):
        engine.step()
    assert engine.embed([text(70, 32)])[0] == pytest.approx(expected, abs=1e-6)
    while engine.busy:
        engine.step()
    assert tuple(request.generated) == answer


def test_embeddings_are_the_mean_of_the_hidden_states(engine: Engine, model: Transformer) -> None:
    prompts = [text(5, 11), text(130, 12), text(1, 13)]
    made = engine.embed(prompts)
    for ids, vector in zip(prompts, made, strict=True):
        with torch.no_grad():
            hidden, _ = model.model(torch.tensor([ids]))
        expected = torch.nn.functional.normalize(hidden[0].sum(0), dim=0)
        assert torch.allclose(torch.tensor(vector), expected, atol=2e-3)
        assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-5)
    assert engine.embed([prompts[1]])[0] == pytest.approx(made[1], abs=1e-6)
    assert engine.stats().cache_tokens_used == 0


def test_what_was_done_is_counted(engine: Engine) -> None:
    before = engine.stats()
    engine.generate(text(80, 20), max_tokens=3, temperature=0, ignore_eos=True)
    engine.generate(text(80, 20), max_tokens=3, temperature=0, ignore_eos=True)
    after = engine.stats()
    assert after.prompt_tokens - before.prompt_tokens == 160
    assert after.reused_tokens - before.reused_tokens == 64
    assert after.generated_tokens - before.generated_tokens == 6
    assert after.finished["length"] - before.finished.get("length", 0) == 2
    assert after.running == after.waiting == after.cache_tokens_used == 0
    assert before.expert_tokens is not None
    assert after.expert_tokens is not None
    config = engine.model.config
    for was, now in zip(before.expert_tokens, after.expert_tokens, strict=True):
        # Two prompts, one of them known but for 16 tokens, and two more tokens of each answer.
        assert sum(now) - sum(was) == (80 + 16 + 2 * 2) * config.top_k
        assert len(now) == config.experts


def test_a_dense_model_has_no_experts_to_count(byte_tokenizer: Tokenizer) -> None:
    dense = random_transformer(replace(preset("tiny"), experts=0, shared_experts=0))
    assert Engine(dense, byte_tokenizer).stats().expert_tokens is None
