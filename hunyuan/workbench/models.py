"""Routes of the place "models": what is loaded and what it does, what could be had, and having it.

Names in requests are looked up in the catalogue or among the models of the host; none becomes a
path. Downloads and loads report as events and end when nobody reads them any more; a download
goes on from where it ended.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import psutil
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from filelock import FileLock, Timeout
from pydantic import Field

from hunyuan.catalogue.entries import Entry, default_name, entries
from hunyuan.catalogue.pull import pull
from hunyuan.catalogue.store import Installed, installed, store
from hunyuan.catalogue.transfer import Progress
from hunyuan.errors import Language
from hunyuan.files import PARTIAL, disk_errors, existing_parent
from hunyuan.memory import available_memory
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.stats import ServingStats
from hunyuan.workbench.good_for import good_for
from hunyuan.workbench.live import Recent
from hunyuan.workbench.loading import Host, Reports, StoppedError, loading
from hunyuan.workbench.refusal import RefusedError, not_found
from hunyuan.workbench.streaming import Body, Event, WorkbenchRoute, event_stream, language_of

WORKING_BYTES = 300 * 1000**2
"""Memory beside the weights: a cache of moderate length and the libraries."""


class DownloadBody(Body):
    """POST /workbench/models/download."""

    model: str = Field(min_length=1, max_length=200)
    accept_licence: bool = False


class LoadBody(Body):
    """POST /workbench/models/load."""

    model: str = Field(min_length=1, max_length=400)


def models_router(host: Host, *, catalogue: Sequence[Entry] | None = None) -> APIRouter:
    """Routes under ``/workbench/models``; ``catalogue`` is the packaged one by default."""
    router = APIRouter(prefix="/workbench/models", route_class=WorkbenchRoute)
    known = {entry.name: entry for entry in (entries() if catalogue is None else catalogue)}
    recent = Recent()

    def entry(name: str) -> Entry:
        if name not in known:
            raise not_found("model", "模型", name)
        return known[name]

    @router.get("")
    async def listed() -> dict[str, Any]:
        """The model that answers, the catalogue, and what there is room for."""
        return await run_in_threadpool(_listed, host, list(known.values()))

    @router.get("/live")
    async def live() -> dict[str, Any]:
        """What the model is doing now."""
        model = host.backend.model.id
        stats = host.stats()
        if stats is None:
            return {"model": model, "engine": None, "experts": None}
        lately = recent.look(
            model, stats.prompt_tokens, stats.generation_tokens, stats.expert_tokens
        )
        experts = lately.pop("experts")
        if experts is not None:
            experts["layer_numbers"] = list(stats.expert_layers)
        return {"model": model, "engine": _engine(stats) | lately, "experts": experts}

    @router.post("/download")
    async def download(request: Request, body: DownloadBody) -> Response:
        """Bring a model of the catalogue here; going away stops, asking again goes on."""
        lang = language_of(request)
        model = entry(body.model)
        if model.licence.must_accept and not body.accept_licence:
            raise RefusedError(
                f"{model.name}: its licence must be accepted first ({model.licence.name})",
                f"{model.name}：请先接受其许可证（{model.licence.name}）",
                code="licence_not_accepted",
                param="accept_licence",
                extra={"licence": _licence(model, lang)},
            )
        return event_stream(_download(model, list(known.values())), lang)

    @router.post("/load")
    async def load(request: Request, body: LoadBody) -> Response:
        """Answer with another model from now on."""
        lang = language_of(request)
        names = {card.id for card in host.models()} | {one.entry.name for one in installed()}
        if body.model not in names:
            if body.model not in known:
                raise not_found("model", "模型", body.model)
            raise RefusedError(
                f"{body.model} is not on this machine yet; download it first",
                f"本机还没有 {body.model}；请先下载",
                status=409,
                code="not_installed",
            )
        return event_stream(loading(host, body.model), lang)

    @router.delete("/{name}")
    async def delete(name: str) -> dict[str, Any]:
        """Remove a downloaded model, or what an unfinished download left, from the disk."""
        model = entry(name)
        if host.backend.model.local and host.backend.model.id == name:
            raise RefusedError(
                f"{name} is answering now; load another model first",
                f"{name} 正在使用；请先加载其他模型",
                status=409,
                code="in_use",
            )
        freed = await run_in_threadpool(_remove, model)
        return {"deleted": True, "freed_bytes": freed}

    return router


def _listed(host: Host, catalogue: Sequence[Entry]) -> dict[str, Any]:
    here = {one.entry.name: one for one in installed(catalogue)}
    card = host.backend.model
    loaded = here.get(card.id) if card.local else None
    # Loading a model ends the one before, whose memory is then free.
    memory = available_memory() + (loaded.size if loaded else 0)
    disk = shutil.disk_usage(existing_parent(store())).free
    named = {entry.name for entry in catalogue}
    return {
        "current": _current(card, loaded.entry if loaded else None),
        "models": [
            *(_offered(entry, here.get(entry.name), card, memory, disk) for entry in catalogue),
            *(
                _current(other, None) | {"installed": True, "loaded": other.id == card.id}
                for other in host.models()
                if other.id not in named
            ),
        ],
        "memory_bytes": memory,
        "disk_bytes": disk,
    }


def _current(card: ModelCard, entry: Entry | None) -> dict[str, Any]:
    parameters = card.parameters or (entry.parameters if entry else None)
    return {
        "id": card.id,
        "title": entry.title if entry else card.id,
        "context": card.context,
        "parameters": parameters,
        "languages": list(entry.languages) if entry else None,
        "local": card.local,
        "good_for": good_for(parameters, entry.languages if entry else None),
    }


def _offered(
    entry: Entry, here: Installed | None, card: ModelCard, memory: int, disk: int
) -> dict[str, Any]:
    needed = (here.size if here else entry.download_bytes) + WORKING_BYTES
    return {
        "id": entry.name,
        "title": entry.title,
        "architecture": entry.architecture,
        "parameters": entry.parameters,
        "context": entry.context,
        "languages": list(entry.languages),
        "licence": {
            "name": entry.licence.name,
            "url": entry.licence.url,
            "notice": {"en": entry.licence.notice_en, "zh": entry.licence.notice_zh},
            "must_accept": entry.licence.must_accept,
        },
        "download_bytes": entry.download_bytes,
        "installed": here is not None,
        "installed_bytes": here.size if here else None,
        "unfinished": (store() / f"{entry.name}{PARTIAL}").is_dir(),
        "loaded": card.local and card.id == entry.name,
        "default": entry.name == default_name(),
        "needs_bytes": needed,
        "fits_memory": needed <= memory,
        "fits_disk": here is not None or entry.download_bytes <= disk,
        "good_for": good_for(entry.parameters, entry.languages),
    }


def _licence(entry: Entry, lang: Language) -> dict[str, str]:
    licence = entry.licence
    notice = licence.notice_zh if lang == "zh" else licence.notice_en
    return {"name": licence.name, "url": licence.url, "notice": notice}


def _engine(stats: ServingStats) -> dict[str, Any]:
    """The engine's counters for people."""
    hits = stats.reused_tokens / stats.prompt_tokens if stats.prompt_tokens else None
    return {
        "running": stats.running,
        "waiting": stats.waiting,
        "prompt_tokens": stats.prompt_tokens,
        "generation_tokens": stats.generation_tokens,
        "cache_share": stats.cache_used,
        "cache_tokens": stats.cache_tokens,
        "prefix_hit_share": hits,
        # The server is little else than its model.
        "memory_bytes": psutil.Process().memory_info().rss,
    }


async def _download(model: Entry, catalogue: Sequence[Entry]) -> AsyncGenerator[Event, None]:
    reports = Reports()

    def report(progress: Progress) -> None:
        reports.put(
            {
                "type": "progress",
                "phase": progress.phase,
                "source": progress.source,
                "done": progress.done,
                "total": progress.total or None,
            }
        )

    def work() -> None:
        try:
            pull(model.name, progress=report, accept_licence=lambda _: True, catalogue=catalogue)
        except StoppedError:
            return

    pulling = asyncio.create_task(asyncio.to_thread(work))
    async with contextlib.aclosing(reports.until_done(pulling)) as events:
        async for event in events:
            yield event
    yield {"type": "done", "model": model.name}


def _remove(model: Entry) -> int:
    """Delete a model and what an unfinished download left; the bytes that are free again."""
    folder = store() / model.name
    lock = FileLock(store() / f"{model.name}.lock")
    with disk_errors(folder):
        store().mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as busy:
            raise RefusedError(
                f"{model.name} is being downloaded; stop that first",
                f"{model.name} 正在下载；请先停止下载",
                status=409,
                code="busy",
            ) from busy
        try:
            freed = 0
            for path in (folder, folder.with_name(folder.name + PARTIAL)):
                if path.is_dir():
                    freed += sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
                    # Away in one step: a model that is half deleted would be found damaged.
                    doomed = path.with_name(f".{path.name}.deleted")
                    shutil.rmtree(doomed, ignore_errors=True)
                    path.rename(doomed)
                    shutil.rmtree(doomed)
        finally:
            lock.release()
    if not freed:
        raise not_found("downloaded model", "已下载的模型", model.name)
    return freed
