"""Work that reports how far it is while somebody waits for it, and the loading of models."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from hunyuan.serve.backend import Backend, ModelCard
from hunyuan.serve.stats import ServingStats
from hunyuan.workbench.streaming import Event

OnProgress = Callable[[int, int], None]


class Host(Protocol):
    """Who owns the model that answers; `hunyuan.serve.host.ModelHost` is one."""

    @property
    def backend(self) -> Backend:
        """The model that answers now."""

    def models(self) -> Sequence[ModelCard]:
        """The models that can be asked for."""

    def stats(self) -> ServingStats | None:
        """Counters of the engine that answers; None where the model runs elsewhere."""

    async def load(
        self, name: str, on_progress: OnProgress, *, model_id: str | None = None
    ) -> None:
        """Answer with another model, under ``model_id``, from now on; cancelling keeps the old."""


class StoppedError(Exception):
    """Raised into a download that nobody waits for any more."""


class Reports:
    """Progress of some work, handed to an event loop from any thread; the latest counts."""

    def __init__(self) -> None:
        self.stopped = False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._latest: Event | None = None

    def put(self, event: Event) -> None:
        """Report; raises into work that nobody waits for."""
        if self.stopped:
            raise StoppedError
        self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: Event) -> None:
        self._latest = event
        self._news.set()

    async def until_done(self, work: "asyncio.Future[None]") -> AsyncGenerator[Event, None]:
        """The reports of ``work`` up to its end; raises what it raised. Closing stops it."""
        work.add_done_callback(lambda _: self._news.set())
        try:
            while not work.done():
                await self._news.wait()
                self._news.clear()
                event, self._latest = self._latest, None
                if event is not None:
                    yield event
            await work
        finally:
            self.stopped = True
            work.cancel()


async def loading(
    host: Host, name: str, *, model_id: str | None = None
) -> AsyncGenerator[Event, None]:
    """The events of loading a model; closing them keeps the old one."""
    reports = Reports()

    def report(done: int, total: int) -> None:
        # Who loads learns by being cancelled that nobody waits.
        if not reports.stopped:
            reports.put({"type": "progress", "phase": "loading", "done": done, "total": total})

    work = asyncio.create_task(host.load(name, report, model_id=model_id))
    async with contextlib.aclosing(reports.until_done(work)) as events:
        async for event in events:
            yield event
    yield {"type": "done", "model": host.backend.model.id}
