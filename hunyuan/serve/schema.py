"""OpenAI's chat completion request, as far as this server understands it.

Unknown fields are ignored, as clients send many that change nothing. Fields that would change the
answer and are not supported are refused by name, never silently dropped. Types are strict, as
OpenAI's are: ``"temperature": "0.5"`` is a mistake, not a number.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict

from hunyuan.engine.request import SamplingParams
from hunyuan.errors import UsageError


class FieldError(UsageError):
    """A request's mistake in one field, which the error names as ``param``."""

    def __init__(self, param: str, en: str, zh: str) -> None:
        super().__init__(en, zh)
        self.param = param


class Lenient(BaseModel):
    """Unknown fields are kept and ignored, known ones must have their type."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class ContentPart(Lenient):
    """One part of a message's content; only text can be read."""

    type: str
    text: str | None = None


class Message(Lenient):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]


class StreamOptions(Lenient):
    """What a stream reports besides text."""

    include_usage: bool | None = None


class ChatRequest(Lenient):
    """POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    stream: bool | None = None
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
    ignore_eos: bool | None = None
    # JSON has text keys only.
    logit_bias: dict[Annotated[int, Strict(False)], float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def params(self) -> SamplingParams:
        """Sampling parameters, defaults where absent.

        Raises `FieldError` for what is not supported, `UsageError` for a value out of range.
        """
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
        if self.stop is not None:
            given["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        if self.logprobs:
            given["logprobs"] = self.top_logprobs or 0
        limit = self.max_completion_tokens
        return SamplingParams(max_tokens=self.max_tokens if limit is None else limit, **given)

    def conversation(self) -> list[dict[str, Any]]:
        """The messages as `Tokenizer.chat_prompt` takes them; `FieldError` for what is no text."""
        for i, message in enumerate(self.messages):
            parts = message.content if isinstance(message.content, list) else []
            for j, part in enumerate(parts):
                if part.type != "text" or part.text is None:
                    where = f"messages.{i}.content.{j}"
                    raise FieldError(
                        where,
                        f"{where}: a part of type {part.type[:40]!r} cannot be read; this model "
                        'reads {"type": "text", "text": ...} only',
                        f"{where}：无法读取类型为 {part.type[:40]!r} 的内容；"
                        '本模型只接受 {"type": "text", "text": ...}',
                    )
        return [message.model_dump(include={"role", "content"}) for message in self.messages]

    def _refuse_unsupported(self) -> None:
        wanted = {
            "n": self.n not in (None, 1),
            "tools": bool(self.tools),
            "functions": bool(self.functions),
            "tool_choice": self.tool_choice not in (None, "none", "auto"),
            "response_format": (self.response_format or {"type": "text"}).get("type") != "text",
            "modalities": self.modalities not in (None, ["text"]),
            "audio": self.audio is not None,
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
