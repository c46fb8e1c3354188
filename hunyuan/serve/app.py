"""The whole application: programs' API, the workbench's routes, the page, and the guard."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from hunyuan import __version__
from hunyuan.serve import chat, completions, embeddings, errors, messages, responses, tokens
from hunyuan.serve.embeddings import EmbeddingModel
from hunyuan.serve.guard import Guard
from hunyuan.serve.host import ModelHost
from hunyuan.serve.local import LocalBackend
from hunyuan.serve.metrics import CONTENT_TYPE
from hunyuan.serve.responses_store import ResponseStore


def create_app(
    host: ModelHost,
    *,
    address: str = "127.0.0.1",
    api_key: str | None = None,
    origins: Collection[str] = (),
    routers: Sequence[APIRouter] = (),
    page: Path | None = None,
    embedders: Sequence[EmbeddingModel] = (),
) -> FastAPI:
    """The application that answers with the model of ``host``.

    ``address`` is what it will listen on (Host and Origin are checked on loopback), ``api_key``
    what requests must carry, ``origins`` the pages elsewhere that may use the API. ``routers`` are
    served besides, ``page`` is a folder with ``index.html``. ``embedders`` serve embeddings beside
    the model itself. The host is closed with the application.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await host.close()

    # The interactive documentation of FastAPI loads scripts from elsewhere; the schema stays.
    app = FastAPI(
        title="hunyuan", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.host = host

    def embedding_models() -> list[EmbeddingModel]:
        own = host.backend
        local = [own.embeddings] if isinstance(own, LocalBackend) else []
        return [*embedders, *local]

    for routes in (
        chat.router(host.backend_for),
        completions.router(host.backend_for),
        responses.router(host.backend_for, ResponseStore()),
        messages.router(host.backend_for),
        embeddings.router(embedding_models),
        tokens.router(host.vocabulary),
        _models_router(host, embedders),
        _state_router(host),
        *routers,
    ):
        app.include_router(routes)
    if page is not None:
        _add_page(app, page)
    errors.add_handlers(app)
    app.add_middleware(Guard, address=address, api_key=api_key, origins=origins)
    app.add_middleware(messages.MessageErrors)
    return app


def _models_router(host: ModelHost, embedders: Sequence[EmbeddingModel]) -> APIRouter:
    routes = APIRouter(tags=["models"])

    def cards() -> list[dict[str, Any]]:
        card = host.backend.model
        owner = "hunyuan" if card.local else "upstream"
        served = {"id": card.id, "object": "model", "created": card.created, "owned_by": owner}
        # vLLM's name for it, beside ours.
        limit = {"context_length": card.context, "max_model_len": card.context}
        return [
            served | limit,
            *(
                {"id": one.id, "object": "model", "created": card.created, "owned_by": "hunyuan"}
                for one in embedders
            ),
        ]

    @routes.get("/v1/models")
    def models() -> dict[str, Any]:
        """The models that can be asked."""
        return {"object": "list", "data": cards()}

    @routes.get("/v1/models/{name:path}", response_model=None)
    def model(name: str) -> dict[str, Any]:
        """One of them."""
        for card in cards():
            if card["id"] == name:
                return card
        raise host.unknown(name)

    return routes


def _state_router(host: ModelHost) -> APIRouter:
    routes = APIRouter(tags=["state"])

    @routes.get("/health", response_model=None)
    async def health(request: Request) -> Response:
        """Whether requests are answered: 200, or 503 with the reason."""
        failure = host.backend.failure
        if failure is not None:
            lang = errors.language_of(request.headers)
            return errors.reply_to(failure, lang)
        return JSONResponse({"status": "ok"})

    @routes.get("/version")
    def installed() -> dict[str, str]:
        """The version of this software."""
        return {"version": __version__}

    @routes.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Prometheus metrics."""
        return Response(host.metrics.text(), media_type=CONTENT_TYPE)

    return routes


def _add_page(app: FastAPI, page: Path) -> None:
    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(page / "index.html")

    app.mount("/static", StaticFiles(directory=page), name="static")
