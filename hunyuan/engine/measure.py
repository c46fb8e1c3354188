"""How fast an engine answers, and how many bytes and operations an answer needs.

Everything goes through `Engine.submit` and `Engine.step`, as serving does. Prompts are random
tokens, new ones each time: the cache keeps the prefixes of earlier requests, and a prompt seen
before would cost nothing.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from statistics import median

from hunyuan.checkpoint.leaves import expert_leaf, leaves
from hunyuan.checkpoint.load import leaf_of
from hunyuan.engine.engine import Engine
from hunyuan.engine.request import Completion, SamplingParams
from hunyuan.errors import DoesNotFitError
from hunyuan.model.config import ModelConfig
from hunyuan.model.transformer import Transformer


@dataclass(frozen=True)
class Spread:
    """One figure, measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return median(self.values)

    def report(self) -> dict[str, float | list[float]]:
        """Plain data for JSON."""
        values = list(self.values)
        return {"median": self.median, "min": min(values), "max": max(values), "values": values}


class Prompts:
    """Endless random prompts of tokens that the model knows."""

    def __init__(self, engine: Engine, seed: int | None = None) -> None:
        vocab = engine.model.config.vocab
        undefined = set(engine.tokenizer.undefined_ids(vocab))
        self._ids = [id for id in range(vocab) if id not in undefined]
        self._random = Random(seed)

    def take(self, tokens: int) -> list[int]:
        """The next prompt."""
        return self._random.choices(self._ids, k=tokens)


def answer(engine: Engine, prompt: list[int], tokens: int) -> Completion:
    """Answer one prompt greedily, ``tokens`` tokens whatever they are."""
    return engine.generate(prompt, temperature=0, max_tokens=tokens, ignore_eos=True)


def single(
    engine: Engine, prompts: Prompts, prompt_tokens: int, answer_tokens: int, repeats: int
) -> tuple[Spread, Spread]:
    """Tokens per second of one request alone: of its prompt, and of its answer after the first."""
    timings = [
        answer(engine, prompts.take(prompt_tokens), answer_tokens).timings for _ in range(repeats)
    ]
    return (
        Spread(tuple(t.prompt_tokens_per_second for t in timings)),
        Spread(tuple(t.decode_tokens_per_second for t in timings)),
    )


def batched(
    engine: Engine, prompts: Prompts, size: int, prompt_tokens: int, steps: int, repeats: int
) -> Spread:
    """Tokens per second of ``size`` requests together, while all of them answer."""
    return Spread(
        tuple(
            _together(engine, [prompts.take(prompt_tokens) for _ in range(size)], steps)
            for _ in range(repeats)
        )
    )


def _together(engine: Engine, prompts: Iterable[list[int]], steps: int) -> float:
    params = SamplingParams(temperature=0, ignore_eos=True)
    requests = [engine.submit(prompt, params) for prompt in prompts]
    try:
        while any(not request.generated for request in requests):
            engine.step()
        tokens, begin = 0, time.perf_counter()
        for _ in range(steps):
            # The first prompts have answered while the last ones were read.
            if any(request.finish_reason is not None for request in requests):
                break
            tokens += len(engine.step())
        seconds = time.perf_counter() - begin
    finally:
        for request in requests:
            engine.drop(request)
    if not tokens:
        size, length = len(requests), len(requests[0].prompt)
        raise DoesNotFitError(
            f"batch={size}: with prompts of {length} tokens the first answer fills the context of "
            f"{engine.context} before the last begins; lower batch or raise the context",
            f"batch={size}：提示为 {length} 个词元时，第一个回答在最后一个开始之前就占满了上下文"
            f"（{engine.context}）；请减小 batch 或加大 context",
        )
    return tokens / seconds


def live_bytes(model: Transformer) -> dict[str, int]:
    """Bytes of every leaf of a torch model."""
    return {leaf: leaf_of(model, leaf).nbytes for leaf in leaves(model.config)}


def bytes_read(config: ModelConfig, sizes: Mapping[str, int], tokens: int = 1) -> float:
    """Bytes of weights that a step of ``tokens`` requests reads, from the bytes of every leaf.

    Of an embedding that is not also the head it reads a row or two, which is nothing. Of the
    routed experts it reads those that its tokens visit: top_k for one token, and for more as many
    different ones as an even choice would meet.
    """
    visited = 1.0
    if config.experts:
        visited = 1 - (1 - config.top_k / config.experts) ** tokens
    total = 0.0
    for leaf, size in sizes.items():
        if leaf == "model.embed_tokens.weight" and not config.tied:
            continue
        total += size * visited if expert_leaf(leaf) else size
    return total


def prefill_operations(config: ModelConfig) -> int:
    """Operations of one prompt token: two per weight of its matrices.

    Without the embedding, which is looked up, and the head, which runs for the last token only;
    attention is not counted.
    """
    return config.flops_per_token(0) - 2 * config.vocab * config.hidden
