"""The engine: schedule -> run the model -> choose tokens -> publish text.

A lock lets one thread at a time submit, step or drop. Serving is always dropless: with a capacity,
one user's answer would depend on another's tokens.
"""

import operator
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import torch

from hunyuan.engine.blocks import BlockPool, Table
from hunyuan.engine.cache import KV_DTYPES, PagedCache, StepCache, block_bytes
from hunyuan.engine.grammar import Constraint, GrammarCompiler
from hunyuan.engine.request import (
    Chunk,
    Completion,
    Conversation,
    EngineStats,
    FinishReason,
    Request,
    SamplingParams,
    Score,
    TokenLogprob,
)
from hunyuan.engine.sampling import choose_token, require_finite, token_logprob
from hunyuan.engine.scheduler import Scheduler, Segment
from hunyuan.engine.text import TextStream
from hunyuan.errors import DoesNotFitError, HunyuanError, UsageError
from hunyuan.memory import available_memory, require_memory
from hunyuan.model.routing import Routes
from hunyuan.model.transformer import Transformer
from hunyuan.native.expert_stats import ExpertStats
from hunyuan.native.library import BLOCK_TOKENS
from hunyuan.native.transformer import NativeTransformer
from hunyuan.tokenizer.tokenizer import Tokenizer

_SCORED_AT_ONCE = 16
_EMBEDDED_AT_ONCE = 512

Message = Mapping[str, Any]
Prompt = str | Sequence[int] | Sequence[Message] | Conversation
"""Text to continue, token ids, or a conversation to answer: its messages, or with its tools."""


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
        self._pool = BlockPool(blocks)
        self._scheduler = Scheduler(
            self._pool,
            max_sequences=max_sequences,
            prefill_chunk=prefill_chunk,
            shared_chunk=shared_chunk,
        )
        self._lock = threading.RLock()
        self._stepping = False
        self._texts: dict[Request, TextStream] = {}
        self._generators: dict[Request, torch.Generator] = {}
        self._constraints: dict[Request, Constraint] = {}
        self.grammars = GrammarCompiler(tokenizer, config.vocab)
        self._counts = _Counts(config.layers, config.experts)
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
        if isinstance(prompt, Conversation):
            return self.tokenizer.chat_prompt(
                prompt.messages,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
                tools=prompt.tools,
                variables=prompt.variables,
            )
        if _is_messages(prompt):
            return self.tokenizer.chat_prompt(prompt)
        return _token_ids(prompt)

    def submit(self, prompt: Prompt, params: SamplingParams | None = None) -> Request:
        """Queue a request; `step` runs it.

        Raises `DoesNotFitError`, naming both numbers, if prompt and answer exceed the context, and
        `GrammarError` for a grammar that cannot be used.
        """
        params = params or SamplingParams()
        ids = self.encode(prompt)
        self._check(ids, params)
        limit = self.context - len(ids) if params.max_tokens is None else params.max_tokens
        scored_from = None if params.prompt_logprobs is None else 0
        request = Request(ids, params, limit=limit, scored_from=scored_from)
        with self._lock:
            if params.grammar is not None:
                own = () if params.ignore_eos else self.tokenizer.stop_ids
                self._constraints[request] = self.grammars.start(
                    params.grammar, ids, {*own, *params.stop_token_ids}
                )
            self._queue(request, after_text=_ends_in_text(prompt))
        return request

    def _check(self, ids: Sequence[int], params: SamplingParams) -> None:
        """Raise what `submit` raises."""
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
        answer = 1 if params.max_tokens is None else params.max_tokens
        if len(ids) + answer > self.context:
            raise DoesNotFitError(
                f"prompt of {len(ids)} tokens plus an answer of {answer} needs "
                f"{len(ids) + answer}, the context has {self.context}; shorten the prompt, lower "
                "max_tokens or start with a larger context",
                f"提示 {len(ids)} 个词元加回答 {answer} 个共需 {len(ids) + answer}，"
                f"上下文只有 {self.context}；请缩短提示、减小 max_tokens 或加大上下文",
            )

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
        return self.generate_each(prompts, [_with(params, overrides)] * len(prompts))

    def generate_each(
        self, prompts: Sequence[Prompt], params: Sequence[SamplingParams]
    ) -> list[Completion]:
        """The same, each prompt with parameters of its own."""
        requests: list[Request] = []
        try:
            for prompt, settings in zip(prompts, params, strict=True):
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

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """How likely each end is after its beginning: pairs of token ids, neither of them empty.

        A beginning that several pairs share is computed once, and so are pairs that differ in
        their last token alone. Raises `DoesNotFitError` for a pair longer than the context.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (beginning, end) in enumerate(pairs):
            if not beginning or not end:
                raise UsageError(
                    f"pair {i}: beginning and end need at least one token each",
                    f"第 {i} 对：开头与结尾都至少需要一个词元",
                )
            groups.setdefault((len(beginning), *beginning, *end[:-1]), []).append(i)
        waiting = deque(groups.values())
        open_requests: dict[Request, list[int]] = {}
        scores: dict[int, Score] = {}
        try:
            while waiting or open_requests:
                self._submit_scored(pairs, waiting, open_requests)
                self.step()
                for request in [r for r in open_requests if r.finish_reason is not None]:
                    members = open_requests.pop(request)
                    if request.error is not None:
                        raise request.error
                    for i, rival in zip(members, _rivals(request), strict=True):
                        scores[i] = _score(request, rival)
        finally:
            for request in open_requests:
                self.drop(request)
        return [scores[i] for i in range(len(pairs))]

    def _submit_scored(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        waiting: "deque[list[int]]",
        running: dict[Request, list[int]],
    ) -> None:
        """Submit what shares no beginning that is being computed this moment, or it would be twice.

        Pairs are looked at in order, so those that follow one another may share much.
        """
        computing = {block for request in running for block in _blocks(request.prompt)}
        held: list[list[int]] = []
        while waiting and len(running) < 2 * _SCORED_AT_ONCE and len(held) < _SCORED_AT_ONCE:
            members = waiting.popleft()
            beginning, end = pairs[members[0]]
            ids = [*beginning, *end]
            new = _blocks(ids)
            known = len(self._pool.known(ids))
            if computing.intersection(new[known:]):
                held.append(members)
                continue
            params = SamplingParams(max_tokens=0, temperature=0, prompt_logprobs=1)
            self._check(ids, params)
            request = Request(ids, params, limit=0, scored_from=len(beginning) - 1)
            request.rivals = [pairs[i][1][-1] for i in members[1:]]
            with self._lock:
                self._queue(request, after_text=True)
            running[request] = members
            computing.update(new)
        waiting.extendleft(reversed(held))

    @torch.inference_mode()
    def embed(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Mean of the last hidden states of each prompt's tokens, of length 1: (D,) floats.

        Raises `DoesNotFitError` for a prompt longer than the context. Other requests wait
        meanwhile.
        """
        texts = [_token_ids(ids) for ids in prompts]
        for ids in texts:
            self._check(ids, SamplingParams(max_tokens=0, prompt_logprobs=0))
        with self._lock:
            return [self._embed(ids) for ids in texts]

    def _embed(self, ids: Sequence[int]) -> list[float]:
        table, cache = Table(), self.cache
        if not self._pool.extend(table, len(ids)):  # running requests hold it: a small one for it
            table.blocks = list(range(_whole_blocks(len(ids))))
            cache = PagedCache(self.model.config, len(table.blocks), self.cache.k.dtype)
        try:
            request = Request(ids, SamplingParams(), limit=0)
            total = torch.zeros(self.model.config.hidden)
            for start in range(0, len(ids), _EMBEDDED_AT_ONCE):
                part = ids[start : start + _EMBEDDED_AT_ONCE]
                segment = Segment(request, start, len(part), tuple(table.blocks))
                positions = torch.arange(start, start + len(part))
                view = cache.view([segment])
                total += self._hidden(torch.tensor(part), positions, view).float().sum(0)
        finally:
            if cache is self.cache:
                self._pool.close(table)
        return torch.nn.functional.normalize(total, dim=0).tolist()

    def _hidden(self, ids: torch.Tensor, positions: torch.Tensor, cache: StepCache) -> torch.Tensor:
        """Normed hidden states (T, D) of (T,) tokens."""
        if isinstance(self.model, NativeTransformer):
            return self.model.step_hidden(ids, positions, cache)
        hidden: torch.Tensor
        hidden, routes = self.model.model(ids[None], positions[None], cache)
        self._counts.add_routes(routes)
        return hidden[0]

    def stats(self) -> EngineStats:
        """What was done and what is held; from any thread, without waiting for a step."""
        counts = self._counts
        experts: tuple[tuple[int, ...], ...] | None = None
        disk: ExpertStats | None = None
        if self.model.config.experts:
            counted = counts.experts
            if isinstance(self.model, NativeTransformer):
                counted = self.model.expert_tokens()
                disk = self.model.experts.stats() if self.model.experts is not None else None
            experts = tuple(tuple(row) for row in counted.tolist())
        return EngineStats(
            running=self.running,
            waiting=self.waiting,
            cache_tokens=self._pool.count * BLOCK_TOKENS,
            cache_tokens_used=self._pool.used * BLOCK_TOKENS,
            prompt_tokens=counts.prompt,
            reused_tokens=counts.reused,
            generated_tokens=counts.generated,
            finished=dict(counts.finished),
            expert_tokens=experts,
            disk=disk,
        )

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
            try:
                logits = self._run(segments)
            except HunyuanError as error:  # an expert could not be read: these end, others go on
                for segment in segments:
                    segment.request.error = error
                    self._end(segment.request, "cancelled")
                    publish(segment.request, Chunk("", None, finish_reason="cancelled"))
                return events
            for segment, rows in zip(segments, logits, strict=True):
                request, computed = segment.request, segment.start + segment.count
                self._scheduler.ran(request, computed)
                if (chunk := self._take(segment, rows)) is not None:
                    publish(request, chunk)
                request.cached = computed
        return events

    def _take(self, segment: Segment, rows: torch.Tensor) -> Chunk | None:
        """What the logits (rows, V) of a segment give its request; an error is that one's alone."""
        request = segment.request
        try:
            self._score_prompt(request, segment.start + segment.rows.start, rows)
            return self._advance(request, rows) if segment.complete else None
        except Exception as error:
            request.error = error
            self._end(request, "cancelled")
            return Chunk("", None, finish_reason="cancelled")

    def _score_prompt(self, request: Request, place: int, rows: torch.Tensor) -> None:
        """Log-probabilities of the prompt's tokens after ``place`` and its followers."""
        if request.scored_from is None:
            return
        last = len(request.prompt) - 1
        for offset, row in enumerate(rows[: max(0, last - place)]):
            target = place + offset + 1
            wanted = request.params.prompt_logprobs
            require_finite(row)
            entry = token_logprob(row, request.prompt[target], wanted)
            assert entry is not None, "a scored prompt asks for log-probabilities"
            request.prompt_logprobs[target] = entry
            if target == last and request.rivals:
                made = [token_logprob(row, rival, wanted) for rival in request.rivals]
                request.rival_logprobs = [entry for entry in made if entry is not None]

    def _run(self, segments: list[Segment]) -> tuple[torch.Tensor, ...]:
        """Forward of all segments as one flat row; the logits (rows, V) each of them wants."""
        ids: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for s in segments:
            self._note_start(s.request)
            wanted += (len(ids) + row for row in s.rows)
            ids += s.request.known(s.start, s.count)
            positions += range(s.start, s.start + s.count)
        logits = self._logits(
            torch.tensor(ids),
            torch.tensor(positions),
            self.cache.view(segments),
            torch.tensor(wanted, dtype=torch.int32),
        )
        return torch.split(logits, [len(s.rows) for s in segments])

    def _note_start(self, request: Request) -> None:
        if request.started is None:
            self._counts.prompt += len(request.prompt)
            self._counts.reused += request.reused
        request.start()

    def _logits(
        self, ids: torch.Tensor, positions: torch.Tensor, cache: StepCache, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Run (T,) tokens; logits (rows, V) float32 of the ``wanted`` ones, -inf where no token."""
        if isinstance(self.model, NativeTransformer):
            return self.model.step_logits(ids, positions, cache, wanted, bias=self._never)
        hidden, routes = self.model.model(ids[None], positions[None], cache)
        self._counts.add_routes(routes)
        return self.model.logits(hidden[0, wanted.long()]) + self._never

    def _advance(self, request: Request, rows: torch.Tensor) -> Chunk:
        """Choose the next token and find out whether the answer ends with it."""
        if request.limit == 0:
            return self._finish(request, "", None, None, "length")
        constraint = self._constraints.get(request)
        allowed = None if constraint is None else constraint.allowed()
        token, logprob = choose_token(rows[-1], request, self._generators[request], allowed)
        request.stamp_token()
        params = request.params
        own_stop = token in self.tokenizer.stop_ids and not params.ignore_eos
        if own_stop or token in params.stop_token_ids:
            return self._finish(request, "", None, None, "stop")
        if constraint is not None:
            constraint.accept(token)
        request.generated.append(token)
        self._counts.generated += 1
        if logprob is not None:
            request.logprobs.append(logprob)
        text = self._texts[request]
        shown = text.push(token)
        if text.stopped or (constraint is not None and constraint.complete):
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
        self._counts.finished[reason] += 1
        self._scheduler.remove(request)
        self._constraints.pop(request, None)
        del self._texts[request], self._generators[request]


class _Counts:
    """What `EngineStats` adds up."""

    def __init__(self, layers: int, experts: int) -> None:
        self.prompt = self.reused = self.generated = 0
        self.finished: Counter[str] = Counter()
        self.experts = torch.zeros(layers, experts, dtype=torch.int64)

    def add_routes(self, routes: Sequence[Routes]) -> None:
        """Count the tokens of one step by layer and expert."""
        for layer, decided in enumerate(routes):
            chosen = decided.expert.flatten()
            self.experts[layer] += torch.bincount(chosen, minlength=self.experts.shape[1])


def _blocks(ids: Sequence[int]) -> list[int]:
    """A number for each whole block of ``ids`` that says what it holds and what comes before."""
    chain: list[int] = []
    for start in range(0, len(ids) - BLOCK_TOKENS, BLOCK_TOKENS):
        before = chain[-1] if chain else 0
        chain.append(hash((before, *ids[start : start + BLOCK_TOKENS])))
    return chain


def _rivals(request: Request) -> list[TokenLogprob]:
    return [request.prompt_logprobs[len(request.prompt) - 1], *request.rival_logprobs]


def _score(request: Request, last: TokenLogprob) -> Score:
    assert request.scored_from is not None
    entries = [
        request.prompt_logprobs[place]
        for place in range(request.scored_from + 1, len(request.prompt) - 1)
    ]
    entries.append(last)
    return Score(
        logprob=sum(entry.logprob for entry in entries),
        greedy=all(entry.top[0][0] == entry.token for entry in entries),
    )


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


def _is_messages(prompt: Prompt) -> TypeGuard[Sequence[Message]]:
    return isinstance(prompt, Sequence) and any(isinstance(item, Mapping) for item in prompt)


def _token_ids(prompt: object) -> list[int]:
    """A plain list of a sequence or an array, of numpy or torch, of whole numbers."""
    items = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    if not isinstance(items, Sequence):
        kind = type(prompt).__name__
        raise UsageError(
            f"prompt: must be a text, token ids or messages, not {kind}",
            f"prompt：必须是文本、词元编号或消息，而不是 {kind}",
        )
    ids = []
    for place, item in enumerate(items):
        try:
            ids.append(operator.index(item))
        except TypeError:
            shown = str(item)[:40]
            raise UsageError(
                f"prompt[{place}]={shown}: must be a token id, a whole number",
                f"prompt[{place}]={shown}：必须是词元编号（整数）",
            ) from None
    return ids


def _is_ids(prompt: Prompt) -> bool:
    return not isinstance(prompt, str | Conversation) and not _is_messages(prompt)


def _ends_in_text(prompt: Prompt) -> bool:
    """Whether an answer goes on with a text, rather than being one of its own."""
    if isinstance(prompt, Conversation):
        return prompt.continue_final_message
    return isinstance(prompt, str) or _is_ids(prompt)


def _with(params: SamplingParams | None, overrides: Mapping[str, Any]) -> SamplingParams:
    try:
        return replace(params or SamplingParams(), **overrides)
    except TypeError as error:
        known = ", ".join(SamplingParams.__dataclass_fields__)
        raise UsageError(
            f"{error}; sampling parameters: {known}", f"{error}；可用的采样参数：{known}"
        ) from error
