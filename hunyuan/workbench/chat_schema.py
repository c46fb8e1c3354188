"""The requests and answers of the chat's routes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hunyuan.workbench.conversation_records import Conversation, Message, Rating, Settings

MAX_ATTACHMENTS = 16

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
