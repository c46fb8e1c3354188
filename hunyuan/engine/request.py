"""One request's life, without torch: what was asked, what came out, why it ended."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hunyuan.errors import UsageError

if TYPE_CHECKING:
    from hunyuan.native.expert_stats import ExpertStats

FinishReason = Literal["stop", "length", "cancelled"]
GrammarKind = Literal["json_schema", "json_object", "regex", "choice", "lark"]


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """What an answer must match, token by token (`hunyuan.engine.grammar`).

    Whether ``source`` is a grammar at all shows when a request is submitted.
    """

    kind: GrammarKind

    source: str | Mapping[str, Any] | Sequence[str] | None = None
    """A JSON schema (object or text), a regular expression in Rust's syntax, the choices, or a Lark
    grammar in llguidance's dialect, in which special tokens stand as they are written
    (``<tool_call>``); nothing for ``json_object``."""

    after: str | None = None
    """Text that ends a thinking block, such as ``</think>``. An answer that begins with, or whose
    prompt ends with, the block's opening (the same tag without its slash) is free until then."""

    @property
    def opening(self) -> str | None:
        """The tag that opens a thinking block."""
        return None if self.after is None else self.after.replace("/", "", 1)


class GrammarError(UsageError):
    """A grammar that is none, that nothing can satisfy, or that is too large."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation to answer, with what its chat template may use besides messages."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Switches of the template, such as ``enable_thinking``."""

    add_generation_prompt: bool = True
    """Whether the prompt ends where the assistant's answer begins."""

    continue_final_message: bool = False
    """Whether it ends within the last message instead, whose text the answer goes on with."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen and when to stop. The defaults suit a chat with a small model."""

    max_tokens: int | None = None
    """Tokens to generate at most; None: until the context is full. 0 only scores the prompt."""

    temperature: float = 0.7
    """0 is greedy, as is all below 0.0001; higher is more varied. 0 to 2."""

    top_k: int = 20
    """Keep the k most likely tokens; 0 keeps all."""

    top_p: float = 0.8
    """Keep the most likely tokens that together reach this probability."""

    min_p: float = 0.0
    """Drop tokens less likely than this share of the most likely one."""

    repetition_penalty: float = 1.0
    """Divide the logit of tokens seen in prompt or answer. 0.01 to 100; 1 is none."""

    presence_penalty: float = 0.0
    """Subtracted once from the logit of tokens in the answer. -2 to 2."""

    frequency_penalty: float = 0.0
    """Subtracted per occurrence from the logit of tokens in the answer. -2 to 2."""

    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of token ids."""

    seed: int | None = None
    """Same seed, same request, same answer; None draws one."""

    stop: Sequence[str] = ()
    """Text that ends the answer; it is not part of it."""

    stop_token_ids: Sequence[int] = ()
    """Token ids that end the answer, besides the model's own."""

    ignore_eos: bool = False
    """Go on past the model's own stop tokens (for measuring)."""

    logprobs: int | None = None
    """Report each token's log-probability and this many alternatives (0 to 20)."""

    prompt_logprobs: int | None = None
    """The same for the tokens of the prompt, the first excepted."""

    grammar: Grammar | None = None
    """What the answer must match."""

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, 0, 2)
        _number("top_p", self.top_p, 0, 1, open_low=True)
        _number("min_p", self.min_p, 0, 1)
        _number("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _number("presence_penalty", self.presence_penalty, -2, 2)
        _number("frequency_penalty", self.frequency_penalty, -2, 2)
        _whole("top_k", self.top_k, 0, math.inf)
        least = 1 if self.prompt_logprobs is None else 0
        _whole("max_tokens", 1 if self.max_tokens is None else self.max_tokens, least, math.inf)
        _whole("logprobs", 0 if self.logprobs is None else self.logprobs, 0, 20)
        alternatives = 0 if self.prompt_logprobs is None else self.prompt_logprobs
        _whole("prompt_logprobs", alternatives, 0, 20)
        if not isinstance(self.grammar, Grammar | None):
            raise _wrong("grammar", self.grammar, "a Grammar", "Grammar")
        _whole("seed", 0 if self.seed is None else self.seed, -(2**63), 2**63 - 1)
        if not isinstance(self.logit_bias, Mapping):
            raise _wrong("logit_bias", self.logit_bias, "a map of token ids", "词元编号的映射")
        for token, bias in self.logit_bias.items():
            _whole("token id in logit_bias", token, 0, math.inf)
            _number(f"logit_bias[{token}]", bias, -100, 100)
        if not isinstance(self.stop_token_ids, Sequence) or isinstance(self.stop_token_ids, str):
            raise _wrong("stop_token_ids", self.stop_token_ids, "a list of ids", "编号的列表")
        for token in self.stop_token_ids:
            _whole("token id in stop_token_ids", token, 0, math.inf)
        texts = isinstance(self.stop, Sequence) and not isinstance(self.stop, str)
        if not texts or any(not isinstance(s, str) or not s for s in self.stop):
            raise _wrong("stop", self.stop, "a list of non-empty strings", "非空字符串的列表")


def _wrong(name: str, value: object, en: str, zh: str) -> UsageError:
    shown = repr(value)[:60]
    return UsageError(f"{name}={shown}: must be {en}", f"{name}={shown}：必须是{zh}")


def _whole(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, value, "a whole number", "整数")
    _number(name, value, low, high)


def _number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, value, "a number", "数字")
    inside = low < value <= high if open_low else low <= value <= high
    if not inside:  # also not-a-number
        bounds = f"{'above' if open_low else 'at least'} {low}"
        bounds_zh = f"{'大于' if open_low else '不小于'} {low}"
        if high != math.inf:
            bounds, bounds_zh = f"{bounds} and at most {high}", f"{bounds_zh} 且不大于 {high}"
        raise UsageError(f"{name}={value}: must be {bounds}", f"{name}={value}：必须{bounds_zh}")


@dataclass(frozen=True)
class TokenLogprob:
    """A token with its log-probability under the model's own distribution."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """The most likely tokens at this place, best first."""


@dataclass(frozen=True)
class Chunk:
    """What one step added to an answer; the texts of all chunks joined are the answer."""

    text: str
    token: int | None
    """The token chosen in this step; None where the step only ends the answer."""

    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Score:
    """How likely a model finds the end of a text, given its beginning."""

    logprob: float
    """Sum over the tokens of the end."""

    greedy: bool
    """Whether every one of them is the most likely."""


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """What an engine has done since it was made, and what it holds now."""

    running: int
    waiting: int
    cache_tokens: int
    """Tokens the cache has room for."""

    cache_tokens_used: int
    """Of those, in blocks that running requests hold."""

    prompt_tokens: int
    """Of all requests that began to run, reused ones included."""

    reused_tokens: int
    """Prompt tokens that were found in the cache."""

    generated_tokens: int
    finished: Mapping[str, int]
    """Requests by how they ended."""

    expert_tokens: tuple[tuple[int, ...], ...] | None = None
    """(L, E): tokens that each routed expert computed; None for a dense model."""

    disk: "ExpertStats | None" = None
    """What experts on disk cost; None if all are in memory."""


@dataclass(frozen=True)
class Timings:
    """Seconds and speeds of one request."""

    prompt_seconds: float
    """From the first prompt token computed to the first token of the answer."""

    decode_seconds: float
    """From the first to the last token of the answer."""

    queue_seconds: float
    """From submission to the first prompt token computed."""

    prompt_tokens_per_second: float
    decode_tokens_per_second: float


@dataclass(frozen=True)
class Completion:
    """A finished answer."""

    text: str
    tokens: tuple[int, ...]
    """Generated ids, without the one that stopped it."""

    finish_reason: FinishReason
    prompt_tokens: int
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    """One per token of the prompt, where asked for; the first has none."""


class Request:
    """A running request; the engine changes it, callers may `cancel` it.

    ``scored_from``: the first place whose next token is scored instead of only computed; None
    where the prompt is merely read.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        limit: int,
        scored_from: int | None = None,
    ) -> None:
        self.prompt = list(prompt)
        self.params = params
        self.scored_from = scored_from
        self.prompt_logprobs: dict[int, TokenLogprob] = {}
        """By the place of the token they are about."""
        self.rivals: Sequence[int] = ()
        """Tokens scored in the last token's place besides it."""
        self.rival_logprobs: list[TokenLogprob] = []
        self.limit = limit
        """Tokens the answer may have, from ``max_tokens`` or the room left in the context."""
        self.generated: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.cached = 0
        """Tokens of prompt and answer whose keys and values are in the cache."""
        self.reused = 0
        """Of those, tokens that an earlier request had computed."""
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        """Why the engine gave the request up, if it had to."""
        self.cancelled = False
        self.outbox: deque[Chunk] | None = None
        """Where the engine puts the chunks of a streamed answer."""
        self.submitted = time.perf_counter()
        self.started: float | None = None
        self.first_token: float | None = None
        self.last_token: float | None = None

    def known(self, start: int, count: int) -> list[int]:
        """``count`` tokens of prompt and answer so far, from position ``start`` on."""
        length = len(self.prompt)
        if start >= length:  # the answer's tokens, one a step: no copy of a long prompt for each
            return self.generated[start - length : start - length + count]
        return (self.prompt[start : start + count] + self.generated)[:count]

    @property
    def pending(self) -> int:
        """Tokens to run: the rest of the prompt, or the last token.

        Of a prompt that is only scored the last token need not run: nothing follows it.
        """
        known = len(self.prompt) + len(self.generated)
        return known - self.cached - (self.limit == 0 and known > 1)

    def first_row(self, start: int, count: int) -> int:
        """The first of ``count`` places from ``start`` on whose next token is wanted."""
        if self.scored_from is not None and start < len(self.prompt):
            return max(start, self.scored_from)
        # Only the last, and only if nothing is left after it.
        return start + count - (count == self.pending and self.limit > 0)

    def start(self) -> None:
        """Note when the first prompt token runs."""
        if self.started is None:
            self.started = time.perf_counter()

    def stamp_token(self) -> None:
        """Note when a token was chosen."""
        self.last_token = time.perf_counter()
        if self.first_token is None:
            self.first_token = self.last_token

    def cancel(self) -> None:
        """Ask the engine to stop at its next step; safe from any thread."""
        self.cancelled = True

    def _prompt_logprobs(self) -> tuple[TokenLogprob | None, ...]:
        if self.params.prompt_logprobs is None:
            return ()
        return tuple(self.prompt_logprobs.get(place) for place in range(len(self.prompt)))

    def completion(self) -> Completion:
        """The finished answer; raises the error that ended it, if one did."""
        assert self.finish_reason is not None, "the request is still running"
        if self.error is not None:
            raise self.error
        started = self.started or self.submitted
        first = self.first_token or started
        decode = (self.last_token or first) - first
        return Completion(
            text=self.text,
            tokens=tuple(self.generated),
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.prompt),
            logprobs=tuple(self.logprobs),
            prompt_logprobs=self._prompt_logprobs(),
            timings=Timings(
                prompt_seconds=first - started,
                decode_seconds=decode,
                queue_seconds=started - self.submitted,
                prompt_tokens_per_second=_rate(len(self.prompt), first - started),
                decode_tokens_per_second=_rate(max(len(self.generated) - 1, 0), decode),
            ),
        )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
