"""The routes of the chat: conversations, answers as streams, attachments, feedback."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from hunyuan.errors import HunyuanError, Language
from hunyuan.knowledge.catalogue import file_name
from hunyuan.serve.backend import Backend
from hunyuan.workbench import transfer
from hunyuan.workbench.answers import Answers, Writing
from hunyuan.workbench.attachments import Reader, framed
from hunyuan.workbench.conversations import (
    Attachment,
    AttachmentText,
    Conversation,
    Conversations,
    Feedback,
    Message,
    Rating,
    Settings,
)
from hunyuan.workbench.language import text_language
from hunyuan.workbench.prompt import Turn, available_tokens, chat_request, count, fitted
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.streaming import (
    Event,
    EventStream,
    WorkbenchRoute,
    event_stream,
    language_of,
)
from hunyuan.workbench.templates import Templates

TEMPLATE_FIELDS = {
    "attachment": {"name", "mark", "text"},
    "continue": {"end"},
    "title": {"question"},
}

MAX_ATTACHMENTS = 16

_TITLE_LENGTH = 60
_AROUND_TITLES = " \t\"'`*#“”‘’「」《》"

Id = Annotated[str, Field(max_length=64)]
Content = Annotated[str, Field(max_length=2_000_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewConversation(_Body):
    """POST /workbench/chat."""

    title: Annotated[str, Field(max_length=500)] | None = None
    model: Annotated[str, Field(max_length=500)] | None = None
    system: Content | None = None
    settings: Settings = Settings()


class ConversationChange(_Body):
    """PATCH /workbench/chat/{id}; absent fields stay as they are."""

    title: Annotated[str, Field(max_length=500)] | None = None
    model: Annotated[str, Field(max_length=500)] | None = None
    system: Content | None = None
    settings: Settings = Settings()
    pinned: bool = False
    active: Id | None = None


class Answering(_Body):
    """What all requests for an answer may say."""

    overflow: Literal["error", "trim"] = "error"
    settings: Settings | None = None


class Question(Answering):
    """POST .../messages."""

    content: Content
    parent: Id | None = None
    attachments: Annotated[list[Id], Field(max_length=MAX_ATTACHMENTS)] = []


class Edit(Answering):
    """POST .../edit."""

    content: Content
    attachments: Annotated[list[Id], Field(max_length=MAX_ATTACHMENTS)] | None = None


class Counting(_Body):
    """POST /workbench/chat/count."""

    conversation: Id | None = None
    parent: Id | None = None
    content: Content = ""
    system: Content | None = None
    attachments: Annotated[list[Id], Field(max_length=MAX_ATTACHMENTS)] = []


class Opinion(_Body):
    """PUT .../feedback."""

    rating: Rating | None
    comment: Annotated[str, Field(max_length=10_000)] = ""


class ConversationPage(BaseModel):
    """GET /workbench/chat."""

    conversations: list[Conversation]
    next: str | None


class Tree(BaseModel):
    """GET /workbench/chat/{id}."""

    conversation: Conversation
    messages: list[Message]


class Counted(BaseModel):
    """Tokens of what would be sent; None where nobody knows."""

    tokens: int | None
    context: int | None
    left: int | None


class Title(BaseModel):
    """POST .../title."""

    title: str
    by: Literal["model", "words"]


def chat_router(
    backend: Callable[[], Backend],
    conversations: Conversations,
    templates: Templates,
    answers: Answers,
    read: Reader,
) -> APIRouter:
    """The routes under /workbench/chat; ``backend()`` is the model that answers now."""
    router = APIRouter(prefix="/workbench/chat", route_class=WorkbenchRoute, tags=["chat"])
    chat = _Chat(backend, conversations, templates, answers)

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
        data = await request.body()
        reading = await read(name, data, lang)
        tokens = await chat.fitting_document(name, reading.text, lang)
        return await asyncio.to_thread(
            conversations.attach,
            name=name,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
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


class _Chat:
    """What the routes do beyond the store."""

    def __init__(
        self,
        backend: Callable[[], Backend],
        conversations: Conversations,
        templates: Templates,
        answers: Answers,
    ) -> None:
        self._backend = backend
        self._conversations = conversations
        self._templates = templates
        self._answers = answers

    async def ask(
        self,
        conversation: str,
        parent: str | None,
        body: Question | Edit,
        attachments: Sequence[str],
        lang: Language,
    ) -> Response:
        """Store a question below ``parent`` and stream its answer."""
        if not body.content.strip() and not attachments:
            raise RefusedError(
                "content: is empty; write a message or attach a document",
                "content：为空；请输入消息或添加附件",
                param="content",
            )

        async def begin() -> StreamingResponse:
            head = await asyncio.to_thread(self._conversations.get, conversation)
            branch = await asyncio.to_thread(self._conversations.branch, conversation, parent)
            if branch and branch[-1].role == "user":
                raise RefusedError(
                    f"parent={parent}: is a question; a question follows an answer",
                    f"parent={parent}：是提问；提问应接在回答之后",
                    param="parent",
                )
            draft = await self._draft(body.content, attachments)
            turns = await self._turns(head.system, [*branch, draft], lang)
            settings = _settings(head, body.settings)
            turns, trimmed = await fitted(
                self._backend(), turns, settings, trim=body.overflow == "trim"
            )
            question, answer = await asyncio.to_thread(
                self._conversations.ask,
                conversation,
                parent,
                body.content,
                attachments,
                model=self._backend().model.id,
                trimmed=trimmed,
            )
            return await self._stream(conversation, question, answer, turns, settings, lang)

        return await self._held(conversation, begin)

    async def regenerate(
        self, conversation: str, message: str, body: Answering, lang: Language
    ) -> Response:
        """Stream another answer to a question."""

        async def begin() -> StreamingResponse:
            head = await asyncio.to_thread(self._conversations.get, conversation)
            branch = await asyncio.to_thread(self._conversations.branch, conversation, message)
            if branch[-1].role == "assistant":
                branch.pop()
            settings = _settings(head, body.settings)
            turns = await self._turns(head.system, branch, lang)
            turns, trimmed = await fitted(
                self._backend(), turns, settings, trim=body.overflow == "trim"
            )
            answer = await asyncio.to_thread(
                self._conversations.answer_anew,
                conversation,
                branch[-1].id,
                model=self._backend().model.id,
                trimmed=trimmed,
            )
            return await self._stream(conversation, None, answer, turns, settings, lang)

        return await self._held(conversation, begin)

    async def edit(self, conversation: str, message: str, body: Edit, lang: Language) -> Response:
        """A changed question is asked beside the old one; a changed answer is stored beside it."""
        old = await asyncio.to_thread(self._conversations.message, conversation, message)
        if old.role == "user":
            attachments = body.attachments
            if attachments is None:
                attachments = [attachment.id for attachment in old.attachments]
            return await self.ask(conversation, old.parent, body, attachments, lang)
        new = await asyncio.to_thread(
            self._conversations.add_edited, conversation, message, body.content
        )
        head = await asyncio.to_thread(self._conversations.get, conversation)
        return event_stream(_without_model(new, head), lang)

    async def go_on(
        self, conversation: str, message: str, body: Answering, lang: Language
    ) -> Response:
        """Stream the rest of an answer that was cut off."""

        async def begin() -> StreamingResponse:
            head = await asyncio.to_thread(self._conversations.get, conversation)
            branch = await asyncio.to_thread(self._conversations.branch, conversation, message)
            if branch[-1].role != "assistant" or not branch[-1].content.strip():
                raise RefusedError(
                    f"message {message}: is no answer that has begun; ask or regenerate instead",
                    f"消息 {message}：不是已开始的回答；请改为提问或重新生成",
                )
            said = branch[-1].content
            turns = await self._turns(head.system, branch, lang)
            template = self._templates.get(
                "chat", "continue", text_language(said) or lang, TEMPLATE_FIELDS["continue"]
            )
            turns += template.messages({"end": said[-80:]})
            settings = _settings(head, body.settings)
            turns, _ = await fitted(self._backend(), turns, settings, trim=body.overflow == "trim")
            answer = await asyncio.to_thread(self._conversations.resume, conversation, message)
            return await self._stream(
                conversation, None, answer, turns, settings, lang, repeated=True
            )

        return await self._held(conversation, begin)

    async def count(self, body: Counting, lang: Language) -> Counted:
        """Tokens of a conversation with a draft."""
        branch = list[Message]()
        system, settings = body.system, Settings()
        if body.conversation is not None:
            head = await asyncio.to_thread(self._conversations.get, body.conversation)
            leaf = body.parent if "parent" in body.model_fields_set else head.active
            branch = await asyncio.to_thread(self._conversations.branch, head.id, leaf)
            system = body.system if "system" in body.model_fields_set else head.system
            settings = head.settings
        if body.content or body.attachments or not branch:
            branch.append(await self._draft(body.content, body.attachments))
        turns = await self._turns(system, branch, lang)
        backend = self._backend()
        tokens = await count(backend, turns)
        available = available_tokens(backend, settings)
        known = tokens is not None and available is not None
        return Counted(
            tokens=tokens,
            context=backend.model.context,
            left=available - tokens if known else None,  # type: ignore[operator]
        )

    async def fitting_document(self, name: str, text: str, lang: Language) -> int | None:
        """Tokens of a document in its frame; `RefusedError` if the model cannot read so many."""
        backend = self._backend()
        turns: list[Turn] = [{"role": "user", "content": framed(self._templates, name, text, lang)}]
        tokens = await count(backend, turns)
        available = available_tokens(backend, Settings())
        if tokens is not None and available is not None and tokens > available:
            raise RefusedError(
                f"{name}: has {tokens} tokens, the model can read {available}; attach a part of "
                "it, or add it to Knowledge, which reads documents of any length",
                f"{name}：共 {tokens} 个词元，模型最多能读 {available} 个；"
                "请只附上其中一部分，或加入“知识库”，它可读任意长度的文档",
                code="context_length_exceeded",
                param="name",
                extra={"needed": tokens, "available": available},
            )
        return tokens

    async def title(self, conversation: str, lang: Language) -> Title:
        """Name a conversation after its first question, by the model or by its first words."""
        head = await asyncio.to_thread(self._conversations.get, conversation)
        branch = await asyncio.to_thread(self._conversations.branch, conversation, head.active)
        question = next((message.content for message in branch if message.role == "user"), "")
        spoken = text_language(question) or lang
        found = await self._model_title(question, spoken, lang) if question.strip() else None
        title = Title(title=found, by="model") if found else None
        if title is None:
            untitled = "新对话" if lang == "zh" else "New conversation"
            title = Title(title=first_words(question) or untitled, by="words")
        await asyncio.to_thread(self._conversations.change, conversation, {"title": title.title})
        return title

    async def _model_title(self, question: str, spoken: Language, lang: Language) -> str | None:
        template = self._templates.get("chat", "title", spoken, TEMPLATE_FIELDS["title"])
        excerpt = " ".join(question.split())[:400]
        settings = Settings(max_tokens=24, temperature=template.temperature)
        request = chat_request(self._backend(), template.messages({"question": excerpt}), settings)
        request = request.model_copy(update={"stream": None, "stream_options": None})
        try:
            answer = await self._backend().complete(request, lang)
        except HunyuanError:
            return None  # a title is not worth an error; the first words serve
        return clean_title(answer["choices"][0]["message"]["content"] or "", spoken)

    async def _held(self, conversation: str, begin: Callable[[], Any]) -> Response:
        await self._answers.hold(conversation)
        try:
            response: Response = await begin()
        except BaseException:
            self._answers.release(conversation)
            raise
        return response

    async def _stream(
        self,
        conversation: str,
        question: Message | None,
        answer: Message,
        turns: list[Turn],
        settings: Settings,
        lang: Language,
        *,
        repeated: bool = False,
    ) -> StreamingResponse:
        head = await asyncio.to_thread(self._conversations.get, conversation)
        first: Event = {
            "type": "start",
            "user": None if question is None else question.model_dump(),
            "assistant": answer.model_dump(),
            "conversation": head.model_dump(),
        }
        request = chat_request(self._backend(), turns, settings)
        writing = Writing(conversation, answer, request, lang, repeated)
        return event_stream(self._answers.write(writing, first), lang)

    async def _draft(self, content: str, attachments: Sequence[str]) -> Message:
        """A question that is not stored yet."""
        found = [
            await asyncio.to_thread(self._conversations.attachment, name) for name in attachments
        ]
        return Message(
            id="", parent=None, role="user", content=content, attachments=list(found), created=0
        )

    async def _turns(self, system: str | None, branch: list[Message], lang: Language) -> list[Turn]:
        return await asyncio.to_thread(
            transfer.turns_of, self._conversations, system, branch, self._templates, lang
        )


def clean_title(answer: str, language: Language) -> str | None:
    """The title in a model's answer, or None if there is none worth having."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if not lines:
        return None
    title = re.sub(r"^(title|标题)\s*[:：]\s*", "", lines[0], flags=re.IGNORECASE)
    title = title.lstrip(_AROUND_TITLES).rstrip(_AROUND_TITLES + "。.!！,，:：;；")
    fits = 2 <= len(title) <= _TITLE_LENGTH
    return title if fits and text_language(title) in (language, None) else None


def first_words(text: str) -> str:
    """The beginning of a text, cut between words where it has any."""
    line = " ".join(text.split())
    limit = 24 if text_language(line) == "zh" else 48
    if len(line) <= limit:
        return line
    cut = line[:limit]
    if text_language(line) != "zh" and " " in cut:
        cut = cut.rsplit(" ", 1)[0]
    return cut + "…"


def _settings(head: Conversation, given: Settings | None) -> Settings:
    """The conversation's settings with those of the request on top."""
    return (
        head.settings
        if given is None
        else head.settings.model_copy(update=given.model_dump(exclude_none=True))
    )


async def _without_model(answer: Message, head: Conversation) -> AsyncGenerator[Event, None]:
    conversation = head.model_dump()
    message = answer.model_dump()
    yield {"type": "start", "user": None, "assistant": message, "conversation": conversation}
    yield {"type": "done", "message": message, "conversation": conversation}


def _file(text: str, name: str, kind: str) -> Response:
    disposition = f"attachment; filename*=UTF-8''{quote(name)}"
    return Response(
        text.encode(),
        media_type=f"{kind}; charset=utf-8",
        headers={"Content-Disposition": disposition},
    )
