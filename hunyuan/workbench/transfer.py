"""Conversations as files: Markdown to read, JSON to take elsewhere and back, pairs to train on."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hunyuan.errors import Language
from hunyuan.workbench.attachments import sent_content
from hunyuan.workbench.conversation_records import AttachmentText, Conversation, Message, Settings
from hunyuan.workbench.conversations import Conversations
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.templates import Templates

_WORDS: dict[Language, dict[str, str]] = {
    "en": {"untitled": "Conversation", "user": "You", "assistant": "Model", "file": "Attached"},
    "zh": {"untitled": "对话", "user": "你", "assistant": "模型", "file": "附件"},
}


class ExportedMessage(Message):
    """A message with the texts of its attachments."""

    attachments: list[AttachmentText] = Field(default=[])  # type: ignore[assignment]


class ExportedHead(BaseModel):
    """What is taken along of a conversation itself."""

    model_config = ConfigDict(extra="ignore")

    title: Annotated[str, Field(max_length=500)] | None = None
    model: Annotated[str, Field(max_length=500)] | None = None
    system: str | None = None
    settings: Settings = Settings()
    pinned: bool = False
    active: str | None = None
    created: float = Field(ge=0, le=1e11, allow_inf_nan=False)


class Exported(BaseModel):
    """The JSON file of a conversation."""

    format: Literal["hunyuan.conversation"] = "hunyuan.conversation"
    version: Literal[1] = 1
    conversation: ExportedHead
    messages: Annotated[list[ExportedMessage], Field(max_length=100_000)]


def exported(conversations: Conversations, conversation: str) -> Exported:
    """A whole conversation, all branches."""
    head = conversations.get(conversation)
    messages = []
    for message in conversations.messages(conversation):
        attachments = [conversations.attachment(found.id) for found in message.attachments]
        fields = message.model_dump(exclude={"attachments"})
        messages.append(ExportedMessage(**fields, attachments=attachments))
    return Exported(conversation=ExportedHead.model_validate(head.model_dump()), messages=messages)


def imported(conversations: Conversations, copy: Exported) -> Conversation:
    """Store an exported conversation as a new one; `RefusedError` for a tree that is none."""
    seen = dict[str, ExportedMessage]()
    for i, message in enumerate(copy.messages):
        parent = None if message.parent is None else seen.get(message.parent)
        expected = "user" if parent is None or parent.role == "assistant" else "assistant"
        if message.id in seen or (message.parent is not None and parent is None):
            raise RefusedError(
                f"messages.{i}: has no parent before it, or an id that was used already",
                f"messages.{i}：其父消息不在它之前，或 id 重复",
                param=f"messages.{i}",
            )
        if message.role != expected:
            raise RefusedError(
                f"messages.{i}.role={message.role}: questions and answers must take turns",
                f"messages.{i}.role={message.role}：提问与回答必须交替",
                param=f"messages.{i}.role",
            )
        seen[message.id] = message
    texts = {a.id: a.text for message in copy.messages for a in message.attachments}
    head = Conversation(
        id="",
        updated=copy.conversation.created,
        messages=len(copy.messages),
        **copy.conversation.model_dump(exclude={"settings"}),
        settings=copy.conversation.settings,
    )
    return conversations.insert_copy(head, copy.messages, texts)


def markdown(conversations: Conversations, conversation: str, lang: Language) -> str:
    """The active branch, to be read."""
    head = conversations.get(conversation)
    words = _WORDS[lang]
    parts = [f"# {head.title or words['untitled']}"]
    if head.system:
        parts.append("\n".join(f"> {line}" for line in head.system.splitlines()))
    for message in conversations.branch(conversation, head.active):
        who = words[message.role]
        if message.role == "assistant" and message.model:
            who += f" ({message.model})"
        parts.append(f"## {who}")
        parts += [f"*{words['file']}: {found.name}*" for found in message.attachments]
        parts.append(message.content)
    return "\n\n".join(parts) + "\n"


def preference_lines(
    conversations: Conversations, templates: Templates, lang: Language
) -> list[str]:
    """One JSON line per preference, as `hunyuan.data.dialogue` reads them for DPO."""
    lines = []
    for pair in conversations.preferences():
        head = conversations.get(pair.conversation)
        branch = conversations.branch(pair.conversation, pair.parent)
        record = {
            "messages": turns_of(conversations, head.system, branch, templates, lang),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
        }
        lines.append(json.dumps(record, ensure_ascii=False))
    return lines


def turns_of(
    conversations: Conversations,
    system: str | None,
    branch: list[Message],
    templates: Templates,
    lang: Language,
) -> list[dict[str, Any]]:
    """A branch as the model is given it: system prompt, documents in their frames, messages."""
    texts = conversations.attachment_texts(branch)
    turns = [{"role": "system", "content": system}] if system else []
    for message in branch:
        content = sent_content(message, texts, templates, lang)
        turns.append({"role": message.role, "content": content})
    return turns
