"""Who owns the model that answers, and exchanges it for another while the server runs."""

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hunyuan.errors import HunyuanError, Language, UsageError
from hunyuan.serve.backend import ModelCard, ServedBackend, UnknownModelError, UnsupportedError
from hunyuan.serve.bridge import UnavailableError, internal, place_of
from hunyuan.serve.completion_schema import CompletionRequest
from hunyuan.serve.local import LocalBackend
from hunyuan.serve.metrics import Metrics
from hunyuan.serve.schema import ChatRequest
from hunyuan.serve.stats import ServingStats
from hunyuan.serve.tokens import Vocabulary

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Told what is done and what there is to do; raising ends the loading."""

Loader = Callable[[str, OnProgress], "Engine"]
"""Loads a model by its name; called in a thread of its own."""

RETRY_AFTER_SECONDS = 5


class ModelHost:
    """Owns the backend that answers.

    ``make`` gives the first backend and gets the observer of local ones. ``source`` is the name by
    which ``loader`` loads the first model again; without a loader no other can be loaded.
    """

    def __init__(
        self,
        make: Callable[[Metrics], ServedBackend],
        *,
        source: str = "",
        loader: Loader | None = None,
        max_waiting: int = 64,
    ) -> None:
        self.metrics = Metrics(lambda: self._backend.model.id, self.stats)
        self._backend = make(self.metrics)
        self._first = self._backend.model
        self._source = source
        self._first_source = source
        self._loader = loader
        self._max_waiting = max_waiting
        self._switching: asyncio.Task[None] | None = None

    @classmethod
    def of_engine(
        cls,
        engine: "Engine",
        model_id: str,
        *,
        source: str = "",
        loader: Loader | None = None,
        max_waiting: int = 64,
    ) -> "ModelHost":
        """A host whose first model runs in ``engine``."""
        return cls(
            lambda metrics: LocalBackend(
                engine, model_id, max_waiting=max_waiting, observer=metrics
            ),
            source=source,
            loader=loader,
            max_waiting=max_waiting,
        )

    @property
    def backend(self) -> ServedBackend:
        """The model that answers now; while another is loaded, one that tells to come back."""
        return self._backend

    def backend_for(self, name: str) -> ServedBackend:
        """The backend that serves ``name``; raises `UnknownModelError`."""
        backend = self._backend
        if name == backend.model.id or isinstance(backend, _AwayBackend):
            return backend
        raise self.unknown(name)

    def unknown(self, name: str) -> UnknownModelError:
        """The refusal of a model that is not served."""
        known = self._backend.model.id
        return UnknownModelError(
            f"model {name[:80]!r} is not served here; use {known!r}",
            f"本服务没有模型 {name[:80]!r}；请使用 {known!r}",
        )

    def vocabulary(self, name: str | None) -> Vocabulary:
        """The tokens of the model ``name``, of the one that answers for None.

        Raises `UnknownModelError`, and `UnsupportedError` where the model runs elsewhere.
        """
        backend = self._backend if name is None else self.backend_for(name)
        if isinstance(backend, LocalBackend):
            assert backend.model.context is not None, "a local model knows its context"
            return Vocabulary(backend.tokenizer, backend.model.context)
        if isinstance(backend, _AwayBackend):
            raise backend.failure
        raise UnsupportedError(
            "this server does not know the tokens of the model behind it; ask that server",
            "本服务不掌握上游模型的词元；请直接询问上游服务",
        )

    def models(self) -> list[ModelCard]:
        """The model that answers, and the first one if that is another."""
        now = self._backend.model
        return [now] if now.id == self._first.id else [now, self._first]

    def stats(self) -> ServingStats | None:
        """The counters of the engine that answers; None where the model runs elsewhere."""
        return self._backend.stats() if isinstance(self._backend, LocalBackend) else None

    async def load(
        self, name: str, on_progress: OnProgress, *, model_id: str | None = None
    ) -> None:
        """Answer with another model from now on, under ``model_id`` (None: the end of its name).

        The old one is stopped first, for its memory. If the new one cannot be loaded, or the
        caller is cancelled, the old one is loaded again, and the error raised. Requests get 503
        meanwhile. Raises `UsageError` where models cannot be exchanged.
        """
        if self._loader is None:
            raise UsageError(
                "this server cannot load another model; start one with: hunyuan serve MODEL",
                "本服务不能更换模型；请用 hunyuan serve MODEL 另行启动",
            )
        if self._switching is not None and not self._switching.done():
            raise UnavailableError(
                "another model is being loaded already; wait for it",
                "已在加载另一个模型；请等待其完成",
                retry_after=RETRY_AFTER_SECONDS,
            )
        given_up = False

        def report(done: int, total: int) -> None:
            if given_up:
                raise _GivenUpError
            on_progress(done, total)

        # A task of its own: when the caller goes, the old model has still to come back.
        self._switching = asyncio.create_task(self._switch(name, model_id, self._loader, report))
        try:
            await asyncio.shield(self._switching)
        except asyncio.CancelledError:
            given_up = True
            raise

    async def close(self) -> None:
        """Stop answering; open requests get an error. May be repeated."""
        if self._switching is not None and not self._switching.done():
            self._switching.cancel()
        await self._backend.close()

    # ------------------------------------------------------------

    async def _switch(
        self, name: str, model_id: str | None, loader: Loader, report: OnProgress
    ) -> None:
        source = self._first_source if name == self._first.id else name
        old_card, old_source = self._backend.model, self._source
        shown = model_id or Path(name).name
        old, self._backend = self._backend, _AwayBackend(old_card, _loading(shown))
        await old.close()
        del old
        try:
            engine = await asyncio.to_thread(_load, loader, source, report)
        except Exception as error:
            await self._restore(old_card, old_source, loader)
            if isinstance(error, HunyuanError | _GivenUpError):
                raise
            log.error("a model could not be loaded: %s", place_of(error))
            raise internal(error) from error
        self._answer_with(engine, shown)
        self._source = source

    async def _restore(self, card: ModelCard, source: str, loader: Loader) -> None:
        try:
            engine = await asyncio.to_thread(_load, loader, source, lambda done, total: None)
        except Exception as error:
            log.error("the model before could not be loaded again: %s", place_of(error))
            reason = UnavailableError(
                f"no model is loaded: {card.id} could not be loaded again; restart the server",
                f"没有已加载的模型：无法重新加载 {card.id}；请重启服务",
            )
            self._backend = _AwayBackend(card, reason)
        else:
            self._answer_with(engine, card.id)

    def _answer_with(self, engine: "Engine", model_id: str) -> None:
        self._backend = LocalBackend(
            engine, model_id, max_waiting=self._max_waiting, observer=self.metrics
        )


class _GivenUpError(Exception):
    """Nobody waits for the model that is being loaded."""


class _AwayBackend:
    """Stands for a model that is not there; every request gets ``reason``."""

    def __init__(self, card: ModelCard, reason: UnavailableError) -> None:
        self._card = card
        self._reason = reason

    @property
    def model(self) -> ModelCard:
        """The model that answered before."""
        return self._card

    @property
    def failure(self) -> UnavailableError:
        """Why no request can be served."""
        return self._reason

    async def complete(self, request: ChatRequest, lang: Language = "en") -> dict[str, Any]:
        """Raises."""
        raise self._reason

    async def stream(
        self, request: ChatRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Raises."""
        raise self._reason
        yield {}

    async def complete_text(
        self, request: CompletionRequest, lang: Language = "en"
    ) -> dict[str, Any]:
        """Raises."""
        raise self._reason

    async def stream_text(
        self, request: CompletionRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Raises."""
        raise self._reason
        yield {}

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """Raises."""
        raise self._reason

    async def close(self) -> None:
        """Nothing runs."""


def _load(loader: Loader, source: str, report: OnProgress) -> "Engine":
    gc.collect()  # the weights before may hang on a cycle of references
    return loader(source, report)


def _loading(shown: str) -> UnavailableError:
    return UnavailableError(
        f"the model {shown} is being loaded; try again in a moment",
        f"正在加载模型 {shown}；请稍后再试",
        retry_after=RETRY_AFTER_SECONDS,
    )
