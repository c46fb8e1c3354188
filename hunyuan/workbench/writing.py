"""The routes of the writing place: documents with their versions, and what is done to a text."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from hunyuan.serve.backend import Backend
from hunyuan.workbench.action_runner import Runner
from hunyuan.workbench.actions import ACTIONS, job_of
from hunyuan.workbench.documents import Document, DocumentHead, Documents, Version, VersionText
from hunyuan.workbench.streaming import EventStream, WorkbenchRoute, event_stream, language_of
from hunyuan.workbench.templates import Place, Templates

Text = Annotated[str, Field(max_length=2_000_000)]
Name = Annotated[str, Field(max_length=500)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewDocument(_Body):
    """POST /workbench/write."""

    title: Name = ""
    text: Text = ""


class Save(_Body):
    """PUT /workbench/write/{id}."""

    version: int
    text: Text | None = None
    title: Name | None = None
    author: Annotated[str, Field(min_length=1, max_length=40)] = "user"
    keep: bool = False


class Restore(_Body):
    """POST /workbench/write/{id}/restore."""

    restore: int
    version: int


class ActionRequest(BaseModel):
    """POST /workbench/write/actions/{action}; the action's own fields stand beside these."""

    model_config = ConfigDict(extra="allow")

    text: Text = ""
    span: tuple[int, int] | None = None
    language: Literal["auto", "en", "zh"] = "auto"


class DocumentPage(BaseModel):
    """GET /workbench/write."""

    documents: list[DocumentHead]
    next: str | None


class Versions(BaseModel):
    """GET /workbench/write/{id}/versions."""

    versions: list[Version]


def writing_router(
    backend: Callable[[], Backend],
    documents: Documents,
    templates: Templates,
) -> APIRouter:
    """The routes under /workbench/write; ``backend()`` is the model that answers now."""
    router = APIRouter(prefix="/workbench/write", route_class=WorkbenchRoute, tags=["write"])
    runner = Runner(backend, templates)

    # ------------------------------------------------------------ before /{document}

    @router.get("")
    def list_documents(
        query: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 30,
        after: Annotated[str | None, Query(max_length=100)] = None,
    ) -> DocumentPage:
        found, following = documents.page(query=query, limit=limit, after=after)
        return DocumentPage(documents=found, next=following)

    @router.post("", status_code=201)
    def create(body: NewDocument) -> Document:
        return documents.create(title=body.title, text=body.text)

    @router.get("/actions")
    def actions() -> dict[str, Any]:
        described = [
            {
                "action": action.name,
                "result": action.result,
                "fields": [field.described() for field in action.fields],
            }
            for action in ACTIONS.values()
        ]
        return {"actions": described}

    @router.post("/actions/{action}", response_class=EventStream)
    async def act(action: str, body: ActionRequest, request: Request) -> Response:
        lang = language_of(request)
        fields = body.model_extra or {}
        job = job_of(action, body.text, body.span, body.language, fields, lang)
        runner.check(job)
        return event_stream(runner.run(job), lang)

    @router.get("/templates")
    def list_templates(request: Request) -> dict[str, Any]:
        lang = language_of(request)
        names: dict[tuple[Place, str], set[str]] = {
            ("writing", action.name): action.template_fields for action in ACTIONS.values()
        }
        listed = [
            {
                "name": found.name,
                "language": found.language,
                "own": found.own,
                "error": None if found.error is None else found.error.text(lang),
            }
            for found in templates.listed(names)
        ]
        folder = None if templates.own is None else str(templates.own / "writing")
        return {"folder": folder, "templates": listed}

    # ------------------------------------------------------------ one document

    @router.get("/{document}")
    def read(document: str) -> Document:
        return documents.get(document)

    @router.put("/{document}")
    def save(document: str, body: Save) -> Document:
        return documents.save(document, **body.model_dump())

    @router.delete("/{document}")
    def delete(document: str) -> dict[str, bool]:
        documents.delete(document)
        return {"deleted": True}

    @router.get("/{document}/versions")
    def versions(document: str) -> Versions:
        return Versions(versions=documents.versions(document))

    @router.get("/{document}/versions/{version}")
    def version(document: str, version: int) -> VersionText:
        return documents.version(document, version)

    @router.post("/{document}/restore")
    def restore(document: str, body: Restore) -> Document:
        return documents.restore(document, restore=body.restore, version=body.version)

    return router
