"""Questions and answers: what the model is given, and where its answer goes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from starlette.responses import Response, StreamingResponse

from hunyuan.errors import HunyuanError, Language
from hunyuan.serve.backend import Backend
from hunyuan.workbench import transfer
from hunyuan.workbench.answers import Answers, Writing
from hunyuan.workbench.attachments import framed
from hunyuan.workbench.chat_schema import Answering, Counted, Counting, Edit, Question, Title
from hunyuan.workbench.conversation_records import Conversation, Message, Settings
from hunyuan.workbench.conversations import Conversations
from hunyuan.workbench.language import text_language
from hunyuan.workbench.prompt import Turn, available_tokens, chat_request, count, fitted
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.streaming import Event, event_stream
from hunyuan.workbench.templates import Templates
from hunyuan.workbench.titles import clean_title, first_words

TEMPLATE_FIELDS = {
    "attachment": {"name", "mark", "text"},
    "continue": {"end"},
    "title": {"question"},
}


class Dialogue:
    """What the chat's routes do beyond the store."""

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
            # What ended within a character ends before it.
            said = branch[-1].content.rstrip("\ufffd")
            if branch[-1].role != "assistant" or not said.strip():
                raise RefusedError(
                    f"message {message}: is no answer that has begun; ask or regenerate instead",
                    f"消息 {message}：不是已开始的回答；请改为提问或重新生成",
                )
            branch[-1].content = said
            turns = await self._turns(head.system, branch, lang)
            prefilled = self._backend().model.local
            if prefilled and branch[-1].reasoning:
                turns[-1]["reasoning_content"] = branch[-1].reasoning
            elif not prefilled:
                # Not every server elsewhere can go on with a message: it is asked to, in words.
                spoken = text_language(said) or lang
                template = self._templates.get(
                    "chat", "continue", spoken, TEMPLATE_FIELDS["continue"]
                )
                turns += template.messages({"end": said[-80:]})
            settings = _settings(head, body.settings)
            turns, _ = await fitted(self._backend(), turns, settings, trim=body.overflow == "trim")
            answer = await asyncio.to_thread(
                self._conversations.resume, conversation, message, said
            )
            return await self._stream(
                conversation, None, answer, turns, settings, lang, prefilled=prefilled
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
        prefilled: bool = True,
    ) -> StreamingResponse:
        """Write ``answer``; ``prefilled``: what it says already is part of the prompt."""
        head = await asyncio.to_thread(self._conversations.get, conversation)
        first: Event = {
            "type": "start",
            "user": None if question is None else question.model_dump(),
            "assistant": answer.model_dump(),
            "conversation": head.model_dump(),
        }
        request = chat_request(self._backend(), turns, settings)
        if answer.content and prefilled:
            request.add_generation_prompt, request.continue_final_message = False, True
        writing = Writing(conversation, answer, request, lang, repeated=not prefilled)
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
