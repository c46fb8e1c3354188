"""Between a backend's chunks and a client that reads events, or has gone."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

T = TypeVar("T")

KEEP_ALIVE_SECONDS = 5.0
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which readers of events pass over."""


class ClientGoneError(Exception):
    """The client closed the connection before the answer was complete."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; it is cancelled, and `ClientGoneError` raised, if the client goes."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def begun(items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """``items`` once the first is there, so that a refusal can still become an error response."""
    first = await anext(items)

    async def all_items() -> AsyncGenerator[T, None]:
        try:
            yield first
            async for item in items:
                yield item
        finally:
            await items.aclose()

    return all_items()


async def with_silences(
    items: AsyncGenerator[T, None], seconds: float = KEEP_ALIVE_SECONDS
) -> AsyncGenerator[T | None, None]:
    """``items``, and None whenever nothing came for ``seconds``; closing it closes them."""

    async def step() -> T:
        return await anext(items)

    pending: asyncio.Task[T] | None = None
    try:
        while True:
            pending = pending or asyncio.create_task(step())
            done, _ = await asyncio.wait((pending,), timeout=seconds)
            if not done:
                yield None
                continue
            finished, pending = pending, None
            try:
                item = finished.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait((pending,))
        await items.aclose()


def json_bytes(data: Any) -> bytes:
    """``data`` as JSON; also what a request smuggled in: lone surrogates and NaN."""
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(data)).encode()


def json_reply(data: Any) -> Response:
    """A response of `json_bytes`."""
    return Response(json_bytes(data), media_type="application/json")


def data_event(data: Any) -> bytes:
    """A server-sent event without a name."""
    return b"data: %s\n\n" % json_bytes(data)


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event named after its ``type``."""
    return b"event: %s\ndata: %s\n\n" % (data["type"].encode(), json_bytes(data))


class EventStream(StreamingResponse):
    """Server-sent events; the generator they come from is closed with the response."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], status_code: int = 200) -> None:
        # Nothing on the way shall hold them back. The status is named because FastAPI looks for
        # its default when it describes a route.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, status_code, headers)
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Send them; also when sending fails they are closed here, not by a garbage collector."""
        async with aclosing(self._events):
            await super().stream_response(send)


def event_stream(events: AsyncGenerator[bytes, None]) -> EventStream:
    """A response of server-sent events that nothing on the way holds back."""
    return EventStream(events)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
