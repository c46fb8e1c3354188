"""The engine: schedule -> run the model -> choose tokens -> publish text.

A lock lets one thread at a time submit, step or drop. Serving is always dropless: with a capacity,
one user's answer would depend on another's tokens.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import torch

from hunyuan.engine.blocks import BlockPool
from hunyuan.engine.cache import KV_DTYPES, PagedCache, StepCache, block_bytes
from hunyuan.engine.request import Chunk, Completion, FinishReason, Request, SamplingParams
from hunyuan.engine.sampling import choose_token
from hunyuan.engine.scheduler import Scheduler, Segment
from hunyuan.engine.text import TextStream
from hunyuan.errors import DoesNotFitError, UsageError
from hunyuan.memory import available_memory, require_memory
from hunyuan.model.transformer import Transformer
from hunyuan.native.library import BLOCK_TOKENS
from hunyuan.native.transformer import NativeTransformer
from hunyuan.tokenizer.tokenizer import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
"""Text to continue, token ids, or a conversation to answer."""


class ChunkStream:
    """The chunks of one answer; every other request of the engine goes on meanwhile."""

    def __init__(self, engine: "Engine", request: Request) -> None:
        self._engine = engine
        self._request = request
        self._chunks: deque[Chunk] = deque()
        request.outbox = self._chunks

    def __iter__(self) -> "ChunkStream":
        return self

    def __next__(self) -> Chunk:
        while not self._chunks:
            if self._request.finish_reason is not None:
                if self._request.error is not None:
                    raise self._request.error
                raise StopIteration
            self._engine.step()
        return self._chunks.popleft()

    def close(self) -> None:
        """Cancel the request unless it has ended."""
        self._engine.drop(self._request)

    def __del__(self) -> None:
        self.close()


class Engine:
    """Runs requests on one model.

    ``context`` is the longest prompt plus answer in tokens: by default the model's own, or what
    memory allows if that is less. ``max_sequences`` requests run at once; others wait. They share a
    cache of ``cache_tokens`` tokens, by default enough for all of them at full length, or what
    memory allows; what is unused keeps the prefixes of earlier requests. ``kv_dtype`` is the number
    type of the cache: float32, bfloat16 or int8; auto is float32 for a float32 model and bfloat16
    for any other. Prompts run ``prefill_chunk`` tokens a step, ``shared_chunk`` while others
    answer.

    Raises `UsageError` for a model that is not dropless or a tokenizer that does not belong to it,
    `DoesNotFitError` if the cache does not fit.
    """

    def __init__(
        self,
        model: Transformer | NativeTransformer,
        tokenizer: Tokenizer,
        *,
        context: int | None = None,
        max_sequences: int = 8,
        prefill_chunk: int = 512,
        shared_chunk: int = 16,
        kv_dtype: str = "auto",
        cache_tokens: int | None = None,
    ) -> None:
        config = model.config
        if config.routing.mode != "dropless":
            raise UsageError(
                f"routing mode {config.routing.mode} cannot serve: answers would depend on other "
                "requests; load the model with dropless routing",
                f"路由模式 {config.routing.mode} 不能用于推理：回答会受其他请求影响；"
                "请以 dropless 模式载入模型",
            )
        limits = {
            "max_sequences": max_sequences,
            "prefill_chunk": prefill_chunk,
            "shared_chunk": shared_chunk,
        }
        for name, value in limits.items():
            if value < 1:
                raise UsageError(
                    f"{name}={value}: must be at least 1", f"{name}={value}：必须不小于 1"
                )
        if context is not None and context < 2:
            raise UsageError(
                f"context={context}: must be at least 2, one token to read and one to write",
                f"context={context}：必须不小于 2（读入与写出各一个词元）",
            )
        if tokenizer.vocab_size > config.vocab:
            raise UsageError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab}; "
                "they do not belong together",
                f"分词器有 {tokenizer.vocab_size} 个词元，模型只有 {config.vocab} 个；二者不匹配",
            )
        self.model = model
        self.tokenizer = tokenizer
        dtype = _kv_dtype(kv_dtype, model)
        blocks = self._size_cache(context, cache_tokens, max_sequences, dtype)
        self.cache = PagedCache(config, blocks, dtype)
        self._scheduler = Scheduler(
            BlockPool(blocks),
            max_sequences=max_sequences,
            prefill_chunk=prefill_chunk,
            shared_chunk=shared_chunk,
        )
        self._lock = threading.RLock()
        self._stepping = False
        self._texts: dict[Request, TextStream] = {}
        self._generators: dict[Request, torch.Generator] = {}
        never = torch.zeros(config.vocab)
        never[list(tokenizer.undefined_ids(config.vocab))] = -torch.inf
        self._never = never

    def _size_cache(
        self, context: int | None, tokens: int | None, sequences: int, dtype: torch.dtype
    ) -> int:
        """Set `context` and return how many blocks the cache has."""
        config = self.model.config
        if context is not None and context > config.context:
            raise DoesNotFitError(
                f"context={context} exceeds the {config.context} tokens this model was made for",
                f"context={context} 超过该模型支持的 {config.context} 个词元",
            )
        if tokens is not None and tokens < max(2, context or 2):
            raise UsageError(
                f"cache_tokens={tokens}: must be at least the context of {context or 2}",
                f"cache_tokens={tokens}：必须不小于 context（{context or 2}）",
            )
        per_block = block_bytes(config, dtype)
        fits = int(available_memory() * 0.9) // per_block * BLOCK_TOKENS
        needed = tokens or context or BLOCK_TOKENS
        require_memory(
            _whole_blocks(needed) * per_block * 10 // 9,
            (f"a cache of {needed} tokens", f"{needed} 个词元的缓存"),
            (
                f"the largest that fits is {fits}; lower the context or choose a smaller kv_dtype",
                f"可容纳的最大值为 {fits}；请减小 context 或选择更小的 kv_dtype",
            ),
        )
        self.context = context or min(config.context, tokens or fits)
        blocks = _whole_blocks(self.context)
        if tokens is not None:
            return max(blocks, _whole_blocks(tokens))
        return max(blocks, min(fits // BLOCK_TOKENS, sequences * blocks))

    # ------------------------------------------------------------ requests

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; a conversation goes through the chat template."""
        if isinstance(prompt, str):
            return self.tokenizer.encode_prompt(prompt)
        if _is_conversation(prompt):
            return self.tokenizer.chat_prompt(prompt)
        return [int(item) for item in prompt]  # type: ignore[arg-type]

    def submit(self, prompt: Prompt, params: SamplingParams | None = None) -> Request:
        """Queue a request; `step` runs it.

        Raises `DoesNotFitError`, naming both numbers, if prompt and answer exceed the context.
        """
        params = params or SamplingParams()
        ids = self.encode(prompt)
        if not ids:
            raise UsageError(
                "the prompt is empty; give at least one token", "提示为空；至少需要一个词元"
            )
        named = [*ids, *params.logit_bias, *params.stop_token_ids]
        wrong = [i for i in named if not 0 <= i < self.model.config.vocab]
        if wrong:
            raise UsageError(
                f"token id {wrong[0]} is not in the vocabulary of {self.model.config.vocab}",
                f"词元编号 {wrong[0]} 不在大小为 {self.model.config.vocab} 的词表中",
            )
        answer = params.max_tokens or 1
        if len(ids) + answer > self.context:
            raise DoesNotFitError(
                f"prompt of {len(ids)} tokens plus an answer of {answer} needs "
                f"{len(ids) + answer}, the context has {self.context}; shorten the prompt, lower "
                "max_tokens or start with a larger context",
                f"提示 {len(ids)} 个词元加回答 {answer} 个共需 {len(ids) + answer}，"
                f"上下文只有 {self.context}；请缩短提示、减小 max_tokens 或加大上下文",
            )
        request = Request(ids, params, limit=params.max_tokens or self.context - len(ids))
        with self._lock:
            self._queue(request, after_text=not _is_conversation(prompt))
        return request

    def _queue(self, request: Request, *, after_text: bool) -> None:
        params = request.params
        self._texts[request] = TextStream(self.tokenizer, params.stop, after_text=after_text)
        generator = torch.Generator()
        if params.seed is None:
            generator.seed()
        else:
            generator.manual_seed(params.seed)
        self._generators[request] = generator
        self._scheduler.add(request)

    def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, **overrides: Any
    ) -> Completion:
        """Answer one prompt; keyword arguments are fields of `SamplingParams`."""
        return self.generate_many([prompt], params, **overrides)[0]

    def generate_many(
        self, prompts: Sequence[Prompt], params: SamplingParams | None = None, **overrides: Any
    ) -> list[Completion]:
        """Answer several prompts, batched together."""
        settings = _with(params, overrides)
        requests: list[Request] = []
        try:
            for prompt in prompts:
                requests.append(self.submit(prompt, settings))
            while any(request.finish_reason is None for request in requests):
                self.step()
        finally:
            for request in requests:
                self.drop(request)
        return [request.completion() for request in requests]

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, **overrides: Any
    ) -> "ChunkStream":
        """Answer one prompt chunk by chunk; closing or dropping the iterator cancels it."""
        return ChunkStream(self, self.submit(prompt, _with(params, overrides)))

    def drop(self, request: Request) -> None:
        """Give a request up at once; harmless if it has ended.

        Within a step, where only a garbage collector can call it, at the next one.
        """
        with self._lock:
            if self._stepping:
                request.cancel()
            elif request.finish_reason is None:
                self._end(request, "cancelled")

    # ------------------------------------------------------------ the step

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._scheduler.running or self._scheduler.waiting)

    @property
    def running(self) -> int:
        """Requests with a place in the cache."""
        return self._scheduler.running

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return self._scheduler.waiting

    def step(self) -> list[tuple[Request, Chunk]]:
        """Run one batch of tokens and return what each request gained.

        If choosing a token fails, the request it was for ends with the error and no other suffers.
        """
        with self._lock:
            self._stepping = True
            try:
                return self._step()
            finally:
                self._stepping = False

    @torch.inference_mode()
    def _step(self) -> list[tuple[Request, Chunk]]:
        events: list[tuple[Request, Chunk]] = []

        def publish(request: Request, chunk: Chunk) -> None:
            events.append((request, chunk))
            if request.outbox is not None:
                request.outbox.append(chunk)

        for request in self._scheduler.cancelled():
            self._end(request, "cancelled")
            publish(request, Chunk("", None, finish_reason="cancelled"))
        segments = self._scheduler.plan()
        if segments:
            logits = iter(self._run(segments))
            for segment in segments:
                request, computed = segment.request, segment.start + segment.count
                self._scheduler.ran(request, computed)
                if segment.samples:
                    publish(request, self._advance(request, next(logits)))
                request.cached = computed
        return events

    def _run(self, segments: list[Segment]) -> torch.Tensor:
        """Forward of all segments as one flat row; logits (n, V) where a token is to be chosen."""
        ids: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        for s in segments:
            s.request.start()
            ids += s.request.known(s.start, s.count)
            positions += range(s.start, s.start + s.count)
            if s.samples:
                last.append(len(ids) - 1)
        return _logits(
            self.model,
            torch.tensor(ids),
            torch.tensor(positions),
            self.cache.view(segments),
            torch.tensor(last, dtype=torch.int32),
            self._never,
        )

    def _advance(self, request: Request, logits: torch.Tensor) -> Chunk:
        """Choose the next token and find out whether the answer ends with it."""
        try:
            token, logprob = choose_token(logits, request, self._generators[request])
        except Exception as error:
            request.error = error
            self._end(request, "cancelled")
            return Chunk("", None, finish_reason="cancelled")
        request.stamp_token()
        params = request.params
        own_stop = token in self.tokenizer.stop_ids and not params.ignore_eos
        if own_stop or token in params.stop_token_ids:
            return self._finish(request, "", None, None, "stop")
        request.generated.append(token)
        if logprob is not None:
            request.logprobs.append(logprob)
        text = self._texts[request]
        shown = text.push(token)
        if text.stopped:
            return self._finish(request, shown, token, logprob, "stop")
        if len(request.generated) >= request.limit:
            return self._finish(request, shown, token, logprob, "length")
        request.text += shown
        return Chunk(shown, token, logprob)

    def _finish(
        self, request: Request, shown: str, token: int | None, logprob: Any, reason: FinishReason
    ) -> Chunk:
        text = self._texts[request]
        shown += text.flush()
        request.text += shown
        # Flushing may complete a stop string that the last bytes belonged to.
        self._end(request, "stop" if text.stopped else reason)
        return Chunk(shown, token, logprob, request.finish_reason)

    def _end(self, request: Request, reason: FinishReason) -> None:
        request.finish_reason = reason
        self._scheduler.remove(request)
        del self._texts[request], self._generators[request]


def _logits(
    model: Transformer | NativeTransformer,
    ids: torch.Tensor,
    positions: torch.Tensor,
    cache: StepCache,
    wanted: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    """Run (T,) tokens; logits (rows, V) float32 of the ``wanted`` ones, plus ``bias``."""
    if isinstance(model, NativeTransformer):
        return model.step_logits(ids, positions, cache, wanted, bias=bias)
    hidden, _ = model.model(ids[None], positions[None], cache)
    return model.logits(hidden[0, wanted.long()]) + bias


def _whole_blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)


def _kv_dtype(name: str, model: Transformer | NativeTransformer) -> torch.dtype:
    if name == "auto":
        float32 = isinstance(model, Transformer) and model.dtype == torch.float32
        return torch.float32 if float32 else torch.bfloat16
    if name not in KV_DTYPES:
        known = ", ".join(KV_DTYPES)
        raise UsageError(
            f"kv_dtype={name!r} is unknown; use auto, {known}",
            f"未知的 kv_dtype={name!r}；请使用 auto、{known}",
        )
    return KV_DTYPES[name]


def _is_conversation(prompt: Prompt) -> TypeGuard[Sequence[Message]]:
    return not isinstance(prompt, str) and any(not isinstance(item, int) for item in prompt)


def _with(params: SamplingParams | None, overrides: Mapping[str, Any]) -> SamplingParams:
    try:
        return replace(params or SamplingParams(), **overrides)
    except TypeError as error:
        known = ", ".join(SamplingParams.__dataclass_fields__)
        raise UsageError(
            f"{error}; sampling parameters: {known}", f"{error}；可用的采样参数：{known}"
        ) from error
