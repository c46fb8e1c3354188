"""The backend of a model in this process: OpenAI's requests for the engine's thread."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hunyuan.engine.request import Conversation, GrammarError, SamplingParams
from hunyuan.errors import Language
from hunyuan.serve.answer import ANSWER, END_THINK, THINK, AnswerParser
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.bridge import Bridge, Observer, Ticket, UnavailableError
from hunyuan.serve.chat_answer import ChoiceWriter, WholeChoice, head, usage_of
from hunyuan.serve.completion_schema import CompletionRequest
from hunyuan.serve.local_embeddings import EngineEmbeddings
from hunyuan.serve.merged import merged
from hunyuan.serve.schema import ChatRequest, FieldError
from hunyuan.serve.stats import ServingStats, expert_load, serving_stats
from hunyuan.serve.structured import answers_in_json, constraint_of, grammar_of
from hunyuan.serve.text_answer import TextWriter, WholeText
from hunyuan.serve.tools import (
    bare_call_start,
    call_starts,
    prompt_messages,
    prompt_tools,
    tool_format,
)

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine, Prompt
    from hunyuan.tokenizer.tokenizer import Tokenizer

Answer = dict[str, Any]


@dataclass(frozen=True)
class _Asked:
    """Requests on their way, one per choice."""

    tickets: Sequence[Ticket]
    prompts: int
    before: ServingStats | None = None
    """The engine's counters beforehand, where the load of experts is asked for."""

    def usage(self, reasoning_tokens: int = 0) -> dict[str, Any]:
        requests = [ticket.running for ticket in self.tickets]
        return usage_of(requests, self.prompts, reasoning_tokens)


class LocalBackend:
    """Answers with an engine of this process, which it runs in a thread of its own.

    ``max_waiting`` requests may wait for a place; ``observer`` is told how requests fare.
    """

    def __init__(
        self,
        engine: "Engine",
        model_id: str,
        *,
        max_waiting: int = 64,
        observer: Observer | None = None,
    ) -> None:
        config = engine.model.config
        self._engine = engine
        # Of the engine it holds nothing else: the weights can go while it works.
        threading.Thread(target=engine.grammars.warm, name="grammars", daemon=True).start()
        self._bridge = Bridge(engine, max_waiting=max_waiting, observer=observer)
        self._card = ModelCard(
            id=model_id,
            created=int(time.time()),
            context=engine.context,
            parameters=config.total_parameters,
        )
        template = engine.tokenizer.chat_template or ""
        self._calls = tool_format(template)
        self._thinks = END_THINK in template
        self._tagged = self._thinks and ANSWER in template

    @property
    def model(self) -> ModelCard:
        """The model that answers."""
        return self._card

    @property
    def tokenizer(self) -> "Tokenizer":
        """The model's tokenizer."""
        return self._engine.tokenizer

    @property
    def failure(self) -> UnavailableError | None:
        """Why no request can be served, or None."""
        return self._bridge.failure

    def stats(self) -> ServingStats:
        """The engine's counters now; never waits for a step."""
        return serving_stats(self._engine.stats())

    @property
    def embeddings(self) -> EngineEmbeddings:
        """What makes vectors of texts with this model."""
        return EngineEmbeddings(self._card.id, self._engine, self._bridge)

    async def close(self) -> None:
        """End the engine's thread after its current step; open requests get an error."""
        await asyncio.to_thread(self._bridge.stop)

    # ------------------------------------------------------------ chats

    async def complete(self, request: ChatRequest, lang: Language = "en") -> Answer:
        """The whole answer as a ``chat.completion`` object."""
        asked = await self._ask(request)
        writers = self._writers(request, asked)
        wholes = [WholeChoice(i, logprobs=bool(request.logprobs)) for i in range(len(writers))]
        try:
            async for i, chunk in merged(asked.tickets):
                for piece in writers[i].feed(chunk):
                    wholes[i].add(piece)
        finally:
            self._cancel(asked)
        reasoning = sum(writer.reasoning_tokens for writer in writers)
        return {
            **head("chat.completion", self._card.id),
            "choices": [whole.choice() for whole in wholes],
            "usage": asked.usage(reasoning),
            **self._expert_load(asked),
        }

    async def stream(
        self, request: ChatRequest, lang: Language = "en"
    ) -> AsyncGenerator[Answer, None]:
        """The answer as ``chat.completion.chunk`` objects, as OpenAI orders them."""
        asked = await self._ask(request)
        try:
            writers = self._writers(request, asked)
            start = head("chat.completion.chunk", self._card.id)
            usage: dict[str, Any] = {"usage": None} if request.include_usage else {}
            for writer in writers:
                yield {**start, "choices": [writer.begin()], **usage}
            async for i, chunk in merged(asked.tickets):
                for piece in writers[i].feed(chunk):
                    yield {**start, "choices": [piece], **usage}
            last = self._expert_load(asked)
            if request.include_usage:
                reasoning = sum(writer.reasoning_tokens for writer in writers)
                last["usage"] = asked.usage(reasoning)
            if last:
                yield {**start, "choices": [], **last}
        finally:
            # Also when nobody reads on: frees the requests' places at once.
            self._cancel(asked)

    async def count_tokens(self, request: ChatRequest) -> int:
        """Tokens of the prompt of ``request``."""
        prompt = self._conversation(request)
        # Not on the event loop, which a long text would stop.
        return len(await asyncio.to_thread(self._engine.encode, prompt))

    def _conversation(self, request: ChatRequest) -> Conversation:
        request.check()
        variables = {}
        if request.reasoning_effort in ("none", "minimal"):
            variables["enable_thinking"] = False
        return Conversation(
            messages=prompt_messages(request, self._calls),
            tools=prompt_tools(request, self._calls),
            variables=variables,
            add_generation_prompt=request.add_generation_prompt is not False,
            continue_final_message=bool(request.continue_final_message),
        )

    async def _ask(self, request: ChatRequest) -> _Asked:
        prompt = self._conversation(request)
        grammar, field = grammar_of(request, self._calls)
        if grammar is not None and self._thinks and not request.continue_final_message:
            grammar = replace(grammar, after=END_THINK)
        params = [
            request.params(grammar=grammar, seed=_seed(request.seed, i))
            for i in range(request.n or 1)
        ]
        before = self.stats() if request.return_expert_load else None
        asked = await self._start([(prompt, one) for one in params], 1, field)
        return replace(asked, before=before)

    def _expert_load(self, asked: _Asked) -> dict[str, Any]:
        if asked.before is None:
            return {}
        usage = asked.usage()
        return {"expert_load": expert_load(asked.before, self.stats(), usage["total_tokens"])}

    def _writers(self, request: ChatRequest, asked: _Asked) -> list[ChoiceWriter]:
        # An answer that goes on is past its thoughts.
        thinks = self._thinks and not request.continue_final_message
        thinking = False
        if thinks:
            prompt = asked.tickets[0].running.prompt
            end = self.tokenizer.decode(prompt[-8:], skip_specials=False)
            thinking = end.rstrip().endswith(THINK)
        calls = self._calls if request.offered else None
        in_json = answers_in_json(request)
        starts = call_starts(request, or_json=in_json)
        bare = None
        if calls is not None and not in_json and not request.must_call:
            bare = bare_call_start([one.name for one in request.offered], calls)
        return [
            ChoiceWriter(
                i,
                AnswerParser(
                    calls,
                    starts=starts,
                    bare=bare,
                    thinks=thinks,
                    thinking=thinking,
                    tagged=self._tagged,
                ),
                self.tokenizer,
                logprobs=bool(request.logprobs),
            )
            for i in range(len(asked.tickets))
        ]

    # ------------------------------------------------------------ plain completions

    async def complete_text(self, request: CompletionRequest, lang: Language = "en") -> Answer:
        """The whole answer as a ``text_completion`` object."""
        asked = await self._ask_text(request)
        writers = self._text_writers(request, asked)
        logprobs = request.logprobs is not None
        wholes = [WholeText(i, logprobs=logprobs) for i in range(len(writers))]
        try:
            async for i, chunk in merged(asked.tickets):
                for piece in writers[i].feed(chunk, asked.tickets[i].running):
                    wholes[i].add(piece)
        finally:
            self._cancel(asked)
        return {
            **head("text_completion", self._card.id, "cmpl"),
            "choices": [whole.choice() for whole in wholes],
            "usage": asked.usage(),
        }

    async def stream_text(
        self, request: CompletionRequest, lang: Language = "en"
    ) -> AsyncGenerator[Answer, None]:
        """The answer as ``text_completion`` objects, each with one piece."""
        asked = await self._ask_text(request)
        try:
            writers = self._text_writers(request, asked)
            start = head("text_completion", self._card.id, "cmpl")
            usage: dict[str, Any] = {"usage": None} if request.include_usage else {}
            async for i, chunk in merged(asked.tickets):
                for piece in writers[i].feed(chunk, asked.tickets[i].running):
                    yield {**start, "choices": [piece], **usage}
            if request.include_usage:
                yield {**start, "choices": [], "usage": asked.usage()}
        finally:
            self._cancel(asked)

    async def _ask_text(self, request: CompletionRequest) -> _Asked:
        request.check()
        grammar, field = None, ""
        if request.structured_outputs is not None:
            grammar, field = constraint_of(request.structured_outputs)
        prompts = request.prompts
        orders = [
            (prompt, request.params(grammar=grammar, seed=_seed(request.seed, i)))
            for prompt in prompts
            for i in range(request.n or 1)
        ]
        return await self._start(orders, len(prompts), field)

    def _text_writers(self, request: CompletionRequest, asked: _Asked) -> list[TextWriter]:
        def echo(ticket: Ticket) -> str | None:
            if not request.echo:
                return None
            prompt = ticket.prompt
            if isinstance(prompt, str):
                return prompt
            return self.tokenizer.decode(ticket.running.prompt, skip_specials=False)

        return [
            TextWriter(
                i,
                self.tokenizer,
                logprobs=request.logprobs is not None,
                echo=echo(ticket),
            )
            for i, ticket in enumerate(asked.tickets)
        ]

    # ------------------------------------------------------------ requests

    async def _start(
        self, orders: Sequence[tuple["Prompt", SamplingParams]], prompts: int, field: str
    ) -> _Asked:
        """Submit all or none; ``field`` is blamed for a grammar that is none."""
        tickets: list[Ticket] = []
        try:
            for prompt, params in orders:
                tickets.append(await self._bridge.start(prompt, params))
        except BaseException as error:
            for ticket in tickets:
                self._bridge.cancel(ticket)
            if isinstance(error, GrammarError):
                raise FieldError(field, f"{field}: {error.en}", f"{field}：{error.zh}") from error
            raise
        return _Asked(tickets, prompts)

    def _cancel(self, asked: _Asked) -> None:
        for ticket in asked.tickets:
            self._bridge.cancel(ticket)


def _seed(seed: int | None, choice: int) -> int | None:
    """Choices of one request differ, and are the same each time."""
    if seed is None:
        return None
    return (seed + choice + 2**63) % 2**64 - 2**63
