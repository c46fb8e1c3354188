"""All places of the workbench, over one data folder and the model at hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI

from hunyuan.knowledge.base import KnowledgeBase
from hunyuan.knowledge.embedder import Embedder
from hunyuan.knowledge.retriever import Retriever
from hunyuan.serve.backend import Backend
from hunyuan.workbench.answers import Answers
from hunyuan.workbench.attachments import document_reader
from hunyuan.workbench.chat import chat_router
from hunyuan.workbench.code import code_router
from hunyuan.workbench.docs_site import docs_router
from hunyuan.workbench.evaluations import evaluations_router
from hunyuan.workbench.folder import DataFolder
from hunyuan.workbench.knowledge import knowledge_router
from hunyuan.workbench.loading import Host
from hunyuan.workbench.maths import maths_router
from hunyuan.workbench.models import models_router
from hunyuan.workbench.runs import runs_router
from hunyuan.workbench.store import Store
from hunyuan.workbench.templates import Templates
from hunyuan.workbench.writing import writing_router

PAGE = Path(__file__).parent / "page"
"""The folder with ``index.html``."""


def workbench_routers(
    host: Host,
    folder: DataFolder,
    *,
    embedder: Embedder | None = None,
    retriever: Retriever | None = None,
    runs: Path | None = None,
    results: Path | None = None,
) -> list[APIRouter]:
    """The routers of all places; what they hold open is closed with the application.

    ``folder`` stays the caller's. ``embedder`` None: documents are searched by words alone.
    ``retriever`` None: they are indexed in the folder.
    ``runs`` and ``results`` are folders of training runs and of benchmark results, if there are
    any. Raises `HunyuanError` if a file of the folder cannot be opened.
    """
    templates = Templates(folder.prompts)

    def backend() -> Backend:
        return host.backend

    store = Store(folder.database)
    try:
        base = KnowledgeBase(folder.knowledge, folder.files, embedder=embedder, retriever=retriever)
    except BaseException:
        store.close()
        raise
    answers = Answers(backend, store.conversations)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await answers.close()
            await asyncio.to_thread(base.close)
            store.close()

    return [
        APIRouter(lifespan=lifespan),
        chat_router(
            backend,
            store.conversations,
            templates,
            answers,
            document_reader(),
            uploads=folder.path,
        ),
        writing_router(backend, store.documents, templates),
        maths_router(backend, templates, uploads=folder.path),
        knowledge_router(base, backend, templates),
        code_router(backend, templates),
        models_router(host),
        runs_router(host, runs, results),
        evaluations_router(runs, results),
        docs_router(),
    ]
