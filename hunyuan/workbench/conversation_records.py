"""What is kept of a conversation: messages, documents, opinions, and how it is sampled."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["user", "assistant"]
Status = Literal["streaming", "complete", "stopped", "interrupted", "failed"]
Rating = Literal["up", "down"]


class Settings(BaseModel):
    """How a conversation's answers are sampled; None leaves it to the model."""

    model_config = ConfigDict(extra="forbid")

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)


class Usage(BaseModel):
    """What an answer took."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None


class Trimmed(BaseModel):
    """Earlier messages that the model did not read."""

    messages: int
    tokens: int


class Feedback(BaseModel):
    """A reader's opinion of an answer."""

    rating: Rating
    comment: str = ""


class Attachment(BaseModel):
    """A document beside a message, without its text."""

    id: str
    name: str
    size: int
    sha256: str
    kind: str
    pages: int | None
    characters: int
    tokens: int | None
    notices: list[str]


class AttachmentText(Attachment):
    """A document beside a message with its text."""

    text: str


class Message(BaseModel):
    """One question or answer in the tree."""

    id: str
    parent: str | None
    role: Role
    content: str
    reasoning: str | None = None
    status: Status = "complete"
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    error: dict[str, Any] | None = None
    trimmed: Trimmed | None = None
    attachments: list[Attachment] = []
    edited: bool = False
    feedback: Feedback | None = None
    created: float


class Match(BaseModel):
    """Where a search found something: in a message, or (None) in the title."""

    message: str | None
    text: str
    spans: list[tuple[int, int]]


class Conversation(BaseModel):
    """A conversation without its messages."""

    id: str
    title: str | None
    model: str | None
    system: str | None
    settings: Settings
    pinned: bool
    active: str | None
    created: float
    updated: float
    messages: int
    match: Match | None = None


class Preference(BaseModel):
    """A preferred and a less preferred answer to the same branch."""

    conversation: str
    parent: str
    chosen: str
    rejected: str
