"""Between many asynchronous requests and the one thread that runs the engine.

The engine thread owns the engine: everything that touches it happens there, between steps. The
event loop puts orders into an inbox; chunks come back through each request's own queue. The
thread sleeps while there is nothing to do. If it dies, every open request gets the error and the
server reports itself unhealthy.

Limits: prompts are encoded on the engine thread too, so that a very long one delays the others by
the time its encoding takes.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hunyuan.engine.request import Chunk, Request, SamplingParams
from hunyuan.errors import HunyuanError, OverloadedError

if TYPE_CHECKING:  # the engine imports torch, which checking an address must not wait for
    from hunyuan.engine.engine import Engine, Prompt

log = logging.getLogger(__name__)

T = TypeVar("T")


class UnavailableError(HunyuanError):
    """The model is stopped, broken or being loaded; ``retry_after`` seconds, if that helps."""

    def __init__(self, en: str, zh: str, *, retry_after: int | None = None) -> None:
        super().__init__(en, zh)
        self.retry_after = retry_after


class InternalError(HunyuanError):
    """Our own mistake, met by one request only."""


class Observer(Protocol):
    """Who is told, on the engine thread, how requests fare."""

    def first_token(self, seconds: float) -> None:
        """From submission to the first token of a request."""

    def next_token(self, seconds: float) -> None:
        """Between two tokens of a request."""

    def finished(self, request: Request) -> None:
        """A request has ended."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request on its way through the engine."""

    prompt: "Prompt"
    params: SamplingParams
    loop: asyncio.AbstractEventLoop
    queue: "asyncio.Queue[Chunk | Request | HunyuanError]" = field(default_factory=asyncio.Queue)
    request: Request | None = None
    cancelled: bool = False
    last_token: float | None = None

    def deliver(self, item: "Chunk | Request | HunyuanError") -> None:
        """Hand something to the event loop; called by the engine thread."""
        try:
            self.loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:
            self.cancelled = True  # the loop is gone, and with it whoever asked

    async def accepted(self) -> Request:
        """The engine's request, once it has taken the order; raises why it did not."""
        item = await self.queue.get()
        if isinstance(item, HunyuanError):
            raise item
        assert isinstance(item, Request), "the first thing an order gets is its request"
        return item

    @property
    def running(self) -> Request:
        """The engine's request of an order that it has taken."""
        assert self.request is not None, "the engine has not taken this order"
        return self.request

    async def next(self) -> Chunk:
        """The next piece of the answer; cancelling the wait loses none. Raises why it broke off."""
        item = await self.queue.get()
        if isinstance(item, HunyuanError):
            raise item
        assert isinstance(item, Chunk), "an accepted order gets nothing but chunks"
        return item


@dataclass(eq=False, slots=True)
class _Job:
    """Something to do on the engine thread between steps."""

    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    result: "asyncio.Future[Any]"

    def run(self) -> None:
        try:
            value = self.work()
        except HunyuanError as error:
            self.fail(error)
        except Exception as error:
            log.error("a job of the engine thread failed: %s", place_of(error))
            self.fail(internal(error))
        else:
            self._settle(lambda: self.result.set_result(value))

    def fail(self, error: HunyuanError) -> None:
        self._settle(lambda: self.result.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        def unless_cancelled() -> None:
            if not self.result.done():
                settle()

        try:
            self.loop.call_soon_threadsafe(unless_cancelled)
        except RuntimeError:
            log.debug("the event loop is gone, and with it whoever asked")


class Bridge:
    """Runs an engine in a thread of its own.

    ``max_waiting`` requests may wait for a place; one more raises `OverloadedError`.
    """

    def __init__(
        self, engine: "Engine", *, max_waiting: int = 64, observer: Observer | None = None
    ) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._observer = observer
        self._orders: deque[Ticket] = deque()
        self._jobs: deque[_Job] = deque()
        self._open: dict[Request, Ticket] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._failure: UnavailableError | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> UnavailableError | None:
        """Why no request can be served, or None."""
        return self._failure

    async def start(self, prompt: "Prompt", params: SamplingParams) -> Ticket:
        """Submit a prompt and wait until the engine has accepted it.

        Raises what `Engine.submit` raises, `OverloadedError` and `UnavailableError`.
        """
        ticket = Ticket(prompt, params, asyncio.get_running_loop())
        with self._wake:
            # Under the lock: an order placed while the thread dies would wait for ever.
            if self._failure is not None:
                raise self._failure
            if len(self._orders) + self._engine.waiting >= self._max_waiting:
                raise OverloadedError(
                    f"{self._max_waiting} requests are waiting already; try again later",
                    f"已有 {self._max_waiting} 个请求在等待；请稍后再试",
                )
            self._orders.append(ticket)
            self._wake.notify()
        try:
            await ticket.accepted()
        except asyncio.CancelledError:
            self.cancel(ticket)
            raise
        return ticket

    async def call(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, run on the engine thread between two steps.

        Every request waits meanwhile, so it has to be short.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        with self._wake:
            if self._failure is not None:
                raise self._failure
            if len(self._jobs) >= self._max_waiting:
                raise OverloadedError(
                    f"{self._max_waiting} requests are waiting already; try again later",
                    f"已有 {self._max_waiting} 个请求在等待；请稍后再试",
                )
            self._jobs.append(job)
            self._wake.notify()
        result: T = await job.result
        return result

    def cancel(self, ticket: Ticket) -> None:
        """Give a request up; harmless if it has ended."""
        ticket.cancelled = True
        if ticket.request is not None:
            ticket.request.cancel()
        with self._wake:
            self._wake.notify()

    def stop(self) -> None:
        """End the thread after its current step; open requests get an error. May be repeated."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    # ------------------------------------------------------------ the engine thread

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._accept()
                if self._jobs:
                    self._jobs.popleft().run()
                for request, chunk in self._engine.step():
                    ticket = self._open[request]
                    self._observe(ticket, request, chunk)
                    if (error := request.error) is None:
                        ticket.deliver(chunk)
                    else:
                        log.error("a request failed: %s", place_of(error))
                        known = error if isinstance(error, HunyuanError) else internal(error)
                        ticket.deliver(known)
                    if chunk.finish_reason is not None:
                        del self._open[request]
            self._fail("the server is stopping", "服务正在停止")
        except Exception as error:
            # Whatever broke, clients must hear of it rather than wait for ever.
            log.exception("the engine thread failed")
            reason = f"{type(error).__name__}: {error}"
            self._fail(
                f"the engine failed ({reason}); restart the server",
                f"引擎出错（{reason}）；请重启服务",
            )

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when it is time to end."""
        with self._wake:
            self._wake.wait_for(lambda: self._wanted())
            return not self._stopping

    def _wanted(self) -> bool:
        return bool(self._stopping or self._orders or self._jobs or self._engine.busy)

    def _observe(self, ticket: Ticket, request: Request, chunk: Chunk) -> None:
        if self._observer is None:
            return
        if chunk.token is not None:
            now = time.perf_counter()
            if ticket.last_token is None:
                self._observer.first_token(now - request.submitted)
            else:
                self._observer.next_token(now - ticket.last_token)
            ticket.last_token = now
        if chunk.finish_reason is not None:
            self._observer.finished(request)

    def _accept(self) -> None:
        while self._orders:
            ticket = self._orders.popleft()
            if ticket.cancelled:
                continue
            try:
                request = self._engine.submit(ticket.prompt, ticket.params)
            except HunyuanError as error:
                ticket.deliver(error)
                continue
            except Exception as error:
                # Nothing runs yet for this request, so the others need not suffer from it.
                log.error("a request could not be submitted: %s", place_of(error))
                ticket.deliver(internal(error))
                continue
            self._open[request] = ticket
            ticket.request = request
            ticket.deliver(request)
            if ticket.cancelled:
                request.cancel()

    def _fail(self, en: str, zh: str) -> None:
        error = UnavailableError(en, zh)
        with self._wake:
            self._failure = error
            tickets = (*self._open.values(), *self._orders)
            jobs = tuple(self._jobs)
            self._open.clear()
            self._orders.clear()
            self._jobs.clear()
        for ticket in tickets:
            ticket.deliver(error)
        for job in jobs:
            job.fail(error)


def internal(error: Exception) -> InternalError:
    """What a client is told of an exception that is our own mistake."""
    kind = type(error).__name__
    return InternalError(f"internal error ({kind})", f"内部错误（{kind}）")


def told(error: Exception, what: str) -> HunyuanError:
    """``error`` as a client may hear of it; of our own mistakes the log gets the place.

    ``what`` failed, for the log.
    """
    if isinstance(error, HunyuanError):
        return error
    log.error("%s failed: %s", what, place_of(error))
    return internal(error)


def place_of(error: Exception) -> str:
    """Type and place of an exception for a log; its text could quote a prompt."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    return f"{type(error).__name__} in {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
