"""The knowledge routes: collections, documents, imports, search, questions, sources."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field
from starlette.responses import FileResponse, JSONResponse

from hunyuan.errors import Language
from hunyuan.knowledge.base import KnowledgeBase, Progress, TooLargeError
from hunyuan.knowledge.catalogue import Collection, UnknownIdError
from hunyuan.knowledge.document import has_pages, suffixes
from hunyuan.knowledge.search import MAX_QUESTION
from hunyuan.serve.backend import Backend
from hunyuan.workbench.knowledge_answer import Answerer, Question, passage_json
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.streaming import (
    Body,
    Event,
    EventStream,
    WorkbenchRoute,
    event_stream,
    language_of,
)
from hunyuan.workbench.templates import Templates

PROGRESS_SECONDS = 0.25
MAX_HISTORY = 20


Asked = Annotated[str, Field(max_length=MAX_QUESTION)]


class Named(Body):
    """What a collection is called."""

    name: str = Field(min_length=1, max_length=1000)


class Search(Body):
    """A search without an answer."""

    collection: str
    question: Annotated[Asked, Field(min_length=1)]
    limit: int = Field(default=5, ge=1, le=20)


class Earlier(Body):
    """A question that was asked before in the same conversation."""

    question: Asked


class Ask(Body):
    """A question; without a collection the model answers by itself, uncited."""

    question: Annotated[Asked, Field(min_length=1)]
    collection: str | None = None
    history: list[Earlier] = Field(default=[], max_length=MAX_HISTORY)


def knowledge_router(
    base: KnowledgeBase, backend: Callable[[], Backend], templates: Templates
) -> APIRouter:
    """The routes under /workbench/knowledge over one knowledge base, which the caller closes."""
    router = APIRouter(
        prefix="/workbench/knowledge", route_class=WorkbenchRoute, tags=["knowledge"]
    )
    answerer = Answerer(base, backend, templates)

    @router.get("")
    async def overview(request: Request) -> dict[str, Any]:
        collections = await _run(base.collections)
        embedder, error = base.embedder, base.embedding_error
        return {
            "collections": [_collection(collection) for collection in collections],
            "embedding": {
                "model": None if embedder is None else embedder.id,
                "error": None if error is None else error.text(language_of(request)),
            },
            "limits": {"bytes": base.limits.file_bytes, "suffixes": suffixes()},
        }

    @router.post("/collections", status_code=201)
    async def create(body: Named) -> dict[str, Any]:
        return _collection(await _run(base.create_collection, body.name))

    @router.get("/collections/{id}")
    async def collection(id: str, request: Request) -> dict[str, Any]:
        found = await _run(base.collection, id)
        documents = await _run(base.progress, id)
        lang = language_of(request)
        return {
            "collection": _collection(found),
            "documents": [_document(progress, lang) for progress in documents],
        }

    @router.patch("/collections/{id}")
    async def rename(id: str, body: Named) -> dict[str, Any]:
        return _collection(await _run(base.rename_collection, id, body.name))

    @router.delete("/collections/{id}")
    async def delete_collection(id: str) -> dict[str, Any]:
        await _run(base.delete_collection, id)
        return {"deleted": True}

    @router.put("/collections/{id}/documents", status_code=201)
    async def upload(
        id: str, request: Request, name: Annotated[str, Query(min_length=1, max_length=1000)]
    ) -> JSONResponse:
        with await _run(base.upload, id, name) as upload:
            async for data in request.stream():
                await _run(upload.write, data)
            document, new = await _run(upload.finish)
        found = _document(await _run(base.progress_of, document.id), language_of(request))
        return JSONResponse({"document": found, "new": new}, 201 if new else 200)

    @router.get("/collections/{id}/progress", response_class=EventStream)
    async def progress(id: str, request: Request) -> Response:
        await _run(base.collection, id)
        lang = language_of(request)
        return event_stream(_progress(base, id, lang), lang)

    @router.get("/documents/{id}")
    async def document(id: str, request: Request) -> dict[str, Any]:
        return _document(await _run(base.progress_of, id), language_of(request))

    @router.delete("/documents/{id}")
    async def delete_document(id: str) -> dict[str, Any]:
        await _run(base.delete_document, id)
        return {"deleted": True}

    @router.get("/documents/{id}/pages/{number}")
    async def page(id: str, number: Annotated[int, Path(ge=1, le=2**31)]) -> dict[str, Any]:
        found = await _run(base.document, id)
        text = await _run(base.page, id, number)
        return {
            "document": id,
            "name": found.name,
            "kind": found.kind,
            "paged": has_pages(found.kind),
            "page": number,
            "pages": found.pages,
            "text": text,
        }

    @router.get("/documents/{id}/original", response_class=FileResponse)
    async def original(id: str) -> Response:
        found = await _run(base.document, id)
        # Always a download of no particular type: nothing uploaded is ever shown as a page.
        return FileResponse(
            base.original(id), media_type="application/octet-stream", filename=found.name
        )

    @router.post("/search")
    async def search(body: Search) -> dict[str, Any]:
        found = await _run(base.search, body.collection, body.question, body.limit)
        return {
            "mode": found.mode,
            "confidence": round(found.confidence, 3),
            "passages": [
                {
                    **passage_json(
                        hit.passage,
                        number,
                        await _run(base.page, hit.passage.document.id, hit.passage.page),
                    ),
                    "confidence": round(hit.confidence, 3),
                }
                for number, hit in enumerate(found.hits, start=1)
            ],
        }

    @router.post("/ask", response_class=EventStream)
    async def ask(body: Ask, request: Request) -> Response:
        if body.collection is not None:
            await _run(base.collection, body.collection)
        lang = language_of(request)
        earlier = [turn.question for turn in body.history]
        question = Question(body.question, earlier, body.collection, lang)
        return event_stream(answerer.events(question), lang)

    return router


P = ParamSpec("P")
T = TypeVar("T")


async def _run(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call beside the event loop; what the knowledge base refuses gets its status."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except UnknownIdError as error:
        raise RefusedError(error.en, error.zh, status=404, code="not_found") from None
    except TooLargeError as error:
        raise RefusedError(error.en, error.zh, status=413, code="too_large") from None


async def _progress(
    base: KnowledgeBase, collection: str, lang: Language
) -> AsyncGenerator[Event, None]:
    """All documents whenever anything changes, until nothing is left to do."""
    last: list[dict[str, Any]] | None = None
    while True:
        documents = [_document(p, lang) for p in await _run(base.progress, collection)]
        if documents != last:
            yield {"type": "progress", "documents": documents}
            last = documents
        if not any(document["busy"] for document in documents):
            break
        await asyncio.sleep(PROGRESS_SECONDS)
    yield {"type": "done"}


def _collection(collection: Collection) -> dict[str, Any]:
    return dataclasses.asdict(collection)


def _document(progress: Progress, lang: Language) -> dict[str, Any]:
    document = progress.document
    error = document.error_zh if lang == "zh" else document.error_en
    return {
        "id": document.id,
        "name": document.name,
        "kind": document.kind,
        "bytes": document.bytes,
        "state": document.state,
        "busy": progress.busy,
        "pages_read": progress.pages_read,
        "pages": progress.pages,
        "paged": has_pages(document.kind),
        "textless": document.textless,
        "characters": document.characters,
        "chunks": document.chunks,
        "embedded": document.embedded if progress.embedder else None,
        "error": error,
        "created": document.created,
    }
