"""The routes of the chat: conversations, answers as streams, attachments, feedback."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import PlainTextResponse, Response

from hunyuan.knowledge.catalogue import file_name
from hunyuan.serve.backend import Backend
from hunyuan.serve.guard import MAX_UPLOAD_BYTES
from hunyuan.workbench import transfer
from hunyuan.workbench.answers import Answers
from hunyuan.workbench.attachments import Reader
from hunyuan.workbench.chat_schema import (
    Answering,
    ConversationChange,
    ConversationPage,
    Counted,
    Counting,
    Edit,
    NewConversation,
    Opinion,
    Question,
    Title,
    Tree,
)
from hunyuan.workbench.conversation_records import (
    Attachment,
    AttachmentText,
    Conversation,
    Feedback,
)
from hunyuan.workbench.conversations import Conversations
from hunyuan.workbench.dialogue import Dialogue
from hunyuan.workbench.streaming import EventStream, WorkbenchRoute, language_of
from hunyuan.workbench.templates import Templates
from hunyuan.workbench.uploads import received


def chat_router(
    backend: Callable[[], Backend],
    conversations: Conversations,
    templates: Templates,
    answers: Answers,
    read: Reader,
    *,
    uploads: Path,
) -> APIRouter:
    """The routes under /workbench/chat; ``backend()`` is the model that answers now.

    ``uploads`` is the folder of documents while they are read.
    """
    router = APIRouter(prefix="/workbench/chat", route_class=WorkbenchRoute, tags=["chat"])
    chat = Dialogue(backend, conversations, templates, answers)

    # ------------------------------------------------------------ before /{conversation}

    @router.get("")
    def list_conversations(
        query: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 30,
        after: Annotated[str | None, Query(max_length=100)] = None,
    ) -> ConversationPage:
        found, following = conversations.page(query=query, limit=limit, after=after)
        return ConversationPage(conversations=found, next=following)

    @router.post("", status_code=201)
    def create(body: NewConversation) -> Conversation:
        return conversations.create(
            title=body.title, model=body.model, system=body.system, settings=body.settings
        )

    @router.post("/count")
    async def count_tokens(body: Counting, request: Request) -> Counted:
        return await chat.count(body, language_of(request))

    @router.post("/import", status_code=201)
    def import_conversation(body: transfer.Exported) -> Conversation:
        return transfer.imported(conversations, body)

    @router.get("/feedback")
    def feedback_counts() -> dict[str, int]:
        up_down = conversations.ratings()
        pairs = len(conversations.preferences())
        return {"up": up_down["up"], "down": up_down["down"], "pairs": pairs}

    @router.get("/feedback/pairs", response_class=PlainTextResponse)
    def feedback_pairs(request: Request) -> Response:
        lines = transfer.preference_lines(conversations, templates, language_of(request))
        text = "".join(f"{line}\n" for line in lines)
        return _file(text, "preferences.jsonl", "application/x-ndjson")

    @router.put("/attachments", status_code=201)
    async def upload(
        request: Request, name: Annotated[str, Query(min_length=1, max_length=255)]
    ) -> Attachment:
        lang = language_of(request)
        name = file_name(name)
        async with received(request, MAX_UPLOAD_BYTES, uploads) as file:
            reading = await read(name, file.path, lang)
        tokens = await chat.fitting_document(name, reading.text, lang)
        return await asyncio.to_thread(
            conversations.attach,
            name=name,
            size=file.size,
            sha256=file.sha256,
            kind=reading.kind,
            text=reading.text,
            pages=reading.pages,
            tokens=tokens,
            notices=reading.notices,
        )

    @router.get("/attachments/{attachment}")
    def attachment_text(attachment: str) -> AttachmentText:
        return conversations.attachment(attachment)

    @router.delete("/attachments/{attachment}")
    def delete_attachment(attachment: str) -> dict[str, bool]:
        conversations.detach(attachment)
        return {"deleted": True}

    # ------------------------------------------------------------ one conversation

    @router.get("/{conversation}")
    def tree(conversation: str) -> Tree:
        return Tree(
            conversation=conversations.get(conversation),
            messages=conversations.messages(conversation),
        )

    @router.patch("/{conversation}")
    def change(conversation: str, body: ConversationChange) -> Conversation:
        changes = {name: getattr(body, name) for name in body.model_fields_set}
        return conversations.change(conversation, changes)

    @router.delete("/{conversation}")
    def delete(conversation: str) -> dict[str, bool]:
        conversations.delete(conversation)
        return {"deleted": True}

    @router.get("/{conversation}/export", response_class=PlainTextResponse)
    def export(
        conversation: str, request: Request, format: Literal["markdown", "json"] = "markdown"
    ) -> Response:
        title = conversations.get(conversation).title
        name = re.sub(r"[^\w\- ]+", "", title or "")[:60].strip() or "conversation"
        if format == "json":
            text = transfer.exported(conversations, conversation).model_dump_json(indent=1)
            return _file(text, f"{name}.json", "application/json")
        text = transfer.markdown(conversations, conversation, language_of(request))
        return _file(text, f"{name}.md", "text/markdown")

    @router.post("/{conversation}/title")
    async def title(conversation: str, request: Request) -> Title:
        return await chat.title(conversation, language_of(request))

    # ------------------------------------------------------------ messages

    @router.post("/{conversation}/messages", response_class=EventStream)
    async def ask(conversation: str, body: Question, request: Request) -> Response:
        parent = body.parent
        if "parent" not in body.model_fields_set:
            parent = (await asyncio.to_thread(conversations.get, conversation)).active
        return await chat.ask(conversation, parent, body, body.attachments, language_of(request))

    @router.post("/{conversation}/messages/{message}/regenerate", response_class=EventStream)
    async def regenerate(
        conversation: str, message: str, body: Answering, request: Request
    ) -> Response:
        return await chat.regenerate(conversation, message, body, language_of(request))

    @router.post("/{conversation}/messages/{message}/edit", response_class=EventStream)
    async def edit(conversation: str, message: str, body: Edit, request: Request) -> Response:
        return await chat.edit(conversation, message, body, language_of(request))

    @router.post("/{conversation}/messages/{message}/continue", response_class=EventStream)
    async def go_on(conversation: str, message: str, body: Answering, request: Request) -> Response:
        return await chat.go_on(conversation, message, body, language_of(request))

    @router.delete("/{conversation}/messages/{message}")
    def delete_message(conversation: str, message: str) -> Conversation:
        return conversations.delete_message(conversation, message)

    @router.put("/{conversation}/messages/{message}/feedback")
    def rate(conversation: str, message: str, body: Opinion) -> dict[str, Feedback | None]:
        found = conversations.rate(conversation, message, body.rating, body.comment)
        return {"feedback": found}

    return router


def _file(text: str, name: str, kind: str) -> Response:
    disposition = f"attachment; filename*=UTF-8''{quote(name)}"
    return Response(
        text.encode(),
        media_type=f"{kind}; charset=utf-8",
        headers={"Content-Disposition": disposition},
    )
