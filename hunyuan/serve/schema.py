"""OpenAI's chat completion request, as far as this server understands it.

Unknown fields are ignored, as clients send many that change nothing. Fields that would change the
answer and are not supported are refused by name, never silently dropped.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from hunyuan.engine.request import SamplingParams
from hunyuan.errors import UsageError


class TextPart(BaseModel):
    """One part of a message's content."""

    model_config = ConfigDict(extra="allow")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        """Role and text, as chat templates take them."""
        text = self.content
        if not isinstance(text, str):
            text = "\n".join(part.text for part in text)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(BaseModel):
    """What a stream reports besides text."""

    include_usage: StrictBool = False


class ChatRequest(BaseModel):
    """POST /v1/chat/completions."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: StrictBool | None = None
    logit_bias: dict[int, float] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None

    def params(self) -> SamplingParams:
        """Sampling parameters, defaults where absent; raises `UsageError` for a bad value."""
        self._refuse_unsupported()
        given = self.model_dump(
            include={
                "temperature",
                "top_p",
                "top_k",
                "min_p",
                "repetition_penalty",
                "presence_penalty",
                "frequency_penalty",
                "seed",
                "stop_token_ids",
                "ignore_eos",
                "logit_bias",
            },
            exclude_none=True,
        )
        limit = (
            self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        )
        if self.stop is not None:
            given["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        if self.logprobs:
            given["logprobs"] = self.top_logprobs or 0
        return SamplingParams(max_tokens=limit, **given)

    def conversation(self) -> list[dict[str, str]]:
        """The messages as chat templates take them."""
        return [message.plain() for message in self.messages]

    def _refuse_unsupported(self) -> None:
        wanted = {
            "n": self.n not in (None, 1),
            "tools": bool(self.tools),
            "tool_choice": self.tool_choice not in (None, "none", "auto"),
            "response_format": (self.response_format or {"type": "text"}).get("type") != "text",
            "modalities": self.modalities not in (None, ["text"]),
        }
        for field, asked in wanted.items():
            if asked:
                value = repr(getattr(self, field))[:60]
                raise FieldError(
                    field,
                    f"{field}={value} is not supported by this server; leave it out",
                    f"本服务不支持 {field}={value}；请去掉该字段",
                )
        if self.stream_options is not None and not self.stream:
            raise FieldError(
                "stream_options",
                "stream_options is only allowed with stream=true; leave it out",
                "stream_options 只能与 stream=true 一起使用；请去掉该字段",
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise FieldError(
                "top_logprobs",
                "top_logprobs needs logprobs=true; set it",
                "top_logprobs 需要 logprobs=true；请一并设置",
            )


class FieldError(UsageError):
    """A request's mistake in one field, which the error names as ``param``."""

    def __init__(self, param: str, en: str, zh: str) -> None:
        super().__init__(en, zh)
        self.param = param
