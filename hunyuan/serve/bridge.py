"""Between many asynchronous requests and the one thread that runs the engine.

The engine thread owns the engine: everything that touches it happens there, between steps. The
event loop puts orders into an inbox; chunks come back through each request's own queue. The
thread sleeps while there is nothing to do. If it dies, every open request gets the error and the
server reports itself unhealthy.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hunyuan.engine.engine import Engine
from hunyuan.engine.request import Chunk, Completion, Request, SamplingParams
from hunyuan.errors import HunyuanError

log = logging.getLogger(__name__)


class OverloadedError(HunyuanError):
    """Too many requests wait already."""


class UnavailableError(HunyuanError):
    """The engine is stopped or broken."""


@dataclass(eq=False)
class Ticket:
    """One request on its way through the engine."""

    messages: Sequence[Mapping[str, Any]]
    params: SamplingParams
    loop: asyncio.AbstractEventLoop
    queue: "asyncio.Queue[Chunk | Request | HunyuanError]" = field(default_factory=asyncio.Queue)
    request: Request | None = None
    cancelled: bool = False

    def deliver(self, item: "Chunk | Request | HunyuanError") -> None:
        """Hand something to the event loop; called by the engine thread."""
        try:
            self.loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:
            self.cancelled = True  # the loop is gone, and with it whoever asked


class Bridge:
    """Runs an engine in a thread of its own.

    ``max_waiting`` requests may wait for a place; one more raises `OverloadedError`.
    """

    def __init__(self, engine: Engine, *, max_waiting: int = 64) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._orders: deque[Ticket] = deque()
        self._open: dict[Request, Ticket] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why no request can be served, or None."""
        if self._failure is None and not self._thread.is_alive():
            return "the engine is stopped"
        return self._failure

    @property
    def open_requests(self) -> int:
        """Requests that wait or run."""
        return len(self._orders) + self._engine.waiting + self._engine.running

    async def start(self, messages: Sequence[Mapping[str, Any]], params: SamplingParams) -> Ticket:
        """Submit a conversation and wait until the engine has accepted it.

        Raises what `Engine.submit` raises, `OverloadedError` and `UnavailableError`.
        """
        self._require_alive()
        if len(self._orders) + self._engine.waiting >= self._max_waiting:
            raise OverloadedError(
                f"{self._max_waiting} requests are waiting already; try again later",
                f"已有 {self._max_waiting} 个请求在等待；请稍后再试",
            )
        ticket = Ticket(messages, params, asyncio.get_running_loop())
        with self._wake:
            self._orders.append(ticket)
            self._wake.notify()
        try:
            accepted = await ticket.queue.get()
        except asyncio.CancelledError:
            self.cancel(ticket)
            raise
        if isinstance(accepted, HunyuanError):
            raise accepted
        assert isinstance(accepted, Request)
        ticket.request = accepted
        return ticket

    async def chunks(self, ticket: Ticket) -> AsyncIterator[Chunk]:
        """The answer as it comes; leaving the iterator early cancels the request."""
        try:
            while True:
                item = await ticket.queue.get()
                if isinstance(item, HunyuanError):
                    raise item
                assert isinstance(item, Chunk)
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            self.cancel(ticket)

    async def complete(self, ticket: Ticket) -> Completion:
        """The whole answer."""
        async for _ in self.chunks(ticket):
            pass
        assert ticket.request is not None
        return ticket.request.completion()

    def cancel(self, ticket: Ticket) -> None:
        """Give a request up; harmless if it has ended."""
        ticket.cancelled = True
        if ticket.request is not None:
            ticket.request.cancel()
        with self._wake:
            self._wake.notify()

    def stop(self) -> None:
        """End the thread after its current step; open requests get an error."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _require_alive(self) -> None:
        if self.failure is not None:
            raise UnavailableError(
                f"the engine cannot serve: {self.failure}; restart the server",
                f"引擎无法服务：{self.failure}；请重启服务",
            )

    # ------------------------------------------------------------ the engine thread

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._accept()
                for request, chunk in self._engine.step():
                    ticket = self._open[request]
                    ticket.deliver(chunk)
                    if chunk.finish_reason is not None:
                        del self._open[request]
            self._fail("the server is stopping")
        except Exception as error:
            # Whatever broke, clients must hear of it rather than wait for ever.
            log.exception("the engine thread failed")
            self._fail(f"{type(error).__name__}: {error}")

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when it is time to end."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._orders or self._engine.busy)
            return not self._stopping

    def _accept(self) -> None:
        while self._orders:
            ticket = self._orders.popleft()
            if ticket.cancelled:
                continue
            try:
                request = self._engine.submit(ticket.messages, ticket.params)
            except HunyuanError as error:
                ticket.deliver(error)
                continue
            self._open[request] = ticket
            ticket.request = request
            ticket.deliver(request)
            if ticket.cancelled:
                request.cancel()

    def _fail(self, reason: str) -> None:
        self._failure = reason
        error = UnavailableError(f"the engine stopped: {reason}", f"引擎已停止：{reason}")
        for ticket in (*self._open.values(), *self._orders):
            ticket.deliver(error)
        self._open.clear()
        self._orders.clear()
