"""Answers while they are written: streamed to the reader, kept on disk, stopped when nobody reads.

An answer is written by a task of its own, so that it can be stored in peace after its reader has
gone. What it says so far is saved twice a second; a kill loses no more than that.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from hunyuan.errors import Language
from hunyuan.serve.backend import Backend
from hunyuan.serve.schema import ChatRequest
from hunyuan.workbench.cleaning import without_overlap
from hunyuan.workbench.conversation_records import Message, Status, Usage
from hunyuan.workbench.conversations import Conversations
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.streaming import Event, error_event

SAVE_SECONDS = 0.5

_CLAIM_SECONDS = 3.0
"""How long a request waits for a stopped answer of its conversation to be stored."""


@dataclass(eq=False)
class Writing:
    """One answer on its way."""

    conversation: str
    message: Message
    request: ChatRequest
    lang: Language
    repeated: bool = False
    """Whether the model may begin with a piece of what it said before; it is dropped."""

    events: "asyncio.Queue[Event | None]" = field(default_factory=asyncio.Queue)
    """What the reader is told; None at the end."""


class Answers:
    """At most one answer is written per conversation."""

    def __init__(self, backend: Callable[[], Backend], conversations: Conversations) -> None:
        self._backend = backend
        self._conversations = conversations
        self._held: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def hold(self, conversation: str) -> None:
        """Reserve a conversation for one answer; `RefusedError` (409) while another is written.

        `release` must follow, or `write`, which releases at its end.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLAIM_SECONDS):
                while (held := self._held.get(conversation)) is not None:
                    await held.wait()
        if conversation in self._held:
            raise RefusedError(
                "an answer is being written in this conversation; stop it or wait for its end",
                "该对话正在生成回答；请先停止或等待其结束",
                status=409,
                code="busy",
            )
        self._held[conversation] = asyncio.Event()

    def release(self, conversation: str) -> None:
        """Let the next answer begin."""
        self._held.pop(conversation).set()

    def write(self, writing: Writing, first: Event) -> AsyncGenerator[Event, None]:
        """Begin to write; the events, ``first`` before all. Closing them stops the answer."""
        writing.events.put_nowait(first)
        task = asyncio.create_task(self._write(writing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _until_left(writing.events, task)

    async def close(self) -> None:
        """Stop all answers and wait until they are stored."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self, writing: Writing) -> None:
        answer = _Answer(writing)
        status: Status = "complete"
        failure: Event | None = None
        try:
            await self._receive(writing, answer)
        except asyncio.CancelledError:
            status = "stopped"
        except Exception as error:
            status = "failed"
            failure = error_event(error, writing.lang)
        # A reader who leaves now must not keep the answer from being stored.
        storing = asyncio.create_task(self._store(writing, answer, status, failure))
        while not storing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((storing,))
        lost = storing.exception()
        if isinstance(lost, Exception):
            writing.events.put_nowait(failure or error_event(lost, writing.lang))
        writing.events.put_nowait(None)
        self.release(writing.conversation)

    async def _receive(self, writing: Writing, answer: "_Answer") -> None:
        saved = time.monotonic()
        stream = self._backend().stream(writing.request, writing.lang)
        async with contextlib.aclosing(stream):
            async for chunk in stream:
                for event in answer.take(chunk):
                    writing.events.put_nowait(event)
                if time.monotonic() - saved > SAVE_SECONDS:
                    await asyncio.to_thread(
                        self._conversations.save_partial,
                        writing.message.id,
                        answer.text,
                        answer.reasoning or None,
                    )
                    saved = time.monotonic()
        for event in answer.flush():
            writing.events.put_nowait(event)

    async def _store(
        self, writing: Writing, answer: "_Answer", status: Status, failure: Event | None
    ) -> None:
        answer.flush()
        usage = answer.usage()
        message = await asyncio.to_thread(
            self._conversations.finish,
            writing.message.id,
            content=answer.text,
            reasoning=answer.reasoning or None,
            status=status,
            finish_reason=answer.finish_reason,
            usage=usage,
            error=None if failure is None else failure["error"],
        )
        stored = None if message is None else message.model_dump()
        if failure is not None:
            writing.events.put_nowait({**failure, "message": stored})
            return
        conversation = None
        if message is not None:
            found = await asyncio.to_thread(self._conversations.get, writing.conversation)
            conversation = found.model_dump()
        writing.events.put_nowait({"type": "usage", **usage.model_dump()})
        writing.events.put_nowait({"type": "done", "message": stored, "conversation": conversation})


class _Answer:
    """What has been said so far, and how fast."""

    def __init__(self, writing: Writing) -> None:
        self.text = self._before = writing.message.content
        self.reasoning = writing.message.reasoning or ""
        self.finish_reason: str | None = None
        self._held_back: str | None = "" if writing.repeated and self._before else None
        self._counts: dict[str, Any] = {}
        self._begun = time.monotonic()
        self._first: float | None = None
        self._last: float | None = None

    def take(self, chunk: dict[str, Any]) -> list[Event]:
        """The events of one chunk of the backend."""
        if chunk.get("usage"):
            self._counts = chunk["usage"]
        events = list[Event]()
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
            said = delta.get("content") or ""
            if thought or said:
                self._last = time.monotonic()
                self._first = self._first or self._last
            if thought:
                self.reasoning += thought
                events.append({"type": "reasoning", "text": thought})
            events += self._said(said)
        return events

    def flush(self) -> list[Event]:
        """The event of text that was held back to see whether it repeats the end of the answer."""
        if self._held_back is None:
            return []
        fresh = without_overlap(self._before, self._held_back)
        self._held_back = None
        return self._said(fresh)

    def usage(self) -> Usage:
        """Counts and timings as far as they are known."""
        tokens = self._counts.get("completion_tokens")
        rate = None
        if tokens and self._first and self._last and self._last > self._first:
            rate = (tokens - 1) / (self._last - self._first)
        details = self._counts.get("prompt_tokens_details") or {}
        return Usage(
            prompt_tokens=self._counts.get("prompt_tokens"),
            completion_tokens=tokens,
            cached_tokens=details.get("cached_tokens"),
            first_token_seconds=self._first and round(self._first - self._begun, 4),
            tokens_per_second=rate and round(rate, 2),
        )

    def _said(self, text: str) -> list[Event]:
        if not text:
            return []
        if self._held_back is not None:
            self._held_back += text
            return self.flush() if len(self._held_back) > 2 * _OVERLAP else []
        self.text += text
        return [{"type": "delta", "text": text}]


_OVERLAP = 120


async def _until_left(
    events: "asyncio.Queue[Event | None]", task: asyncio.Task[None]
) -> AsyncGenerator[Event, None]:
    try:
        while (event := await events.get()) is not None:
            yield event
    finally:
        task.cancel()
