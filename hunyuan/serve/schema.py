"""OpenAI's chat completion request, as far as this server understands it.

Unknown fields are ignored, as clients send many that change nothing. Fields that would change the
answer and are not supported are refused by name, never silently dropped. Types are strict, as
OpenAI's are: ``"temperature": "0.5"`` is a mistake, not a number.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict

from hunyuan.engine.request import SamplingParams
from hunyuan.errors import UsageError

MAX_MESSAGES = 4096
MAX_TOOLS = 128
MAX_CHOICES = 16


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


class CalledFunction(Lenient):
    """What an assistant called; the arguments are JSON text."""

    name: str
    arguments: str


class ToolCall(Lenient):
    """One call of an assistant."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Lenient):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class StreamOptions(Lenient):
    """What a stream reports besides text."""

    include_usage: bool | None = None


class Function(Lenient):
    """A function the model may call; ``parameters`` is a JSON schema of an object."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Lenient):
    """Something the model may call."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(Lenient):
    """The name of a function."""

    name: str


class NamedTool(Lenient):
    """``tool_choice`` of one function."""

    type: Literal["function"] = "function"
    function: NamedFunction


class JsonSchema(Lenient):
    """The schema an answer must have."""

    name: str = "answer"
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Lenient):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Lenient):
    """vLLM's spelling of constraints; exactly one."""

    json_: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1, max_length=1024)] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class Sampling(Lenient):
    """What chat and plain completions have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
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
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    user: str | None = None
    structured_outputs: StructuredOutputs | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self, **given: Any) -> SamplingParams:
        """Sampling parameters, defaults where absent; ``given`` come on top.

        Raises `FieldError` or `UsageError` for a value out of range.
        """
        fields = self.model_dump(
            include={
                *("temperature", "top_p", "top_k", "min_p", "seed", "logit_bias"),
                *("repetition_penalty", "presence_penalty", "frequency_penalty"),
                *("stop_token_ids", "ignore_eos", "max_tokens"),
            },
            exclude_none=True,
        )
        if self.stop is not None:
            fields["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        return SamplingParams(**fields | given)

    def check_stream_options(self) -> None:
        """Refuse ``stream_options`` without a stream."""
        if self.stream_options is not None and not self.stream:
            raise FieldError(
                "stream_options",
                "stream_options is only allowed with stream=true; leave it out",
                "stream_options 只能与 stream=true 一起使用；请去掉该字段",
            )


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    add_generation_prompt: bool | None = None
    """vLLM's: whether the prompt ends where an answer begins; it does unless this is false."""
    continue_final_message: bool | None = None
    """vLLM's: go on with the text of the last message, an assistant's, instead of a new one."""
    reasoning_effort: str | None = None
    """``none`` and ``minimal`` ask a model whose template has the switch not to think."""
    return_expert_load: bool | None = None
    """Not OpenAI's: report how many tokens each expert of each layer worked on meanwhile."""
    # Meaningful and not supported.
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None

    @property
    def offered(self) -> Sequence[Function]:
        """The functions the model may call in this answer."""
        if self.tool_choice == "none":
            return ()
        return [tool.function for tool in self.tools or ()]

    @property
    def must_call(self) -> str | bool:
        """The function that has to be called, True for any of them, False for none."""
        if isinstance(self.tool_choice, NamedTool):
            return self.tool_choice.function.name
        return self.tool_choice == "required"

    def params(self, **given: Any) -> SamplingParams:
        """Sampling parameters, defaults where absent; ``given`` come on top.

        Raises `FieldError` or `UsageError` for a value out of range.
        """
        if self.max_completion_tokens is not None:
            given.setdefault("max_tokens", self.max_completion_tokens)
        if self.logprobs:
            given.setdefault("logprobs", self.top_logprobs or 0)
        return self.sampling(**given)

    def check(self) -> None:
        """Raise `FieldError` for what is not supported or contradicts itself."""
        self._refuse_unsupported()
        self.check_stream_options()
        if self.top_logprobs is not None and not self.logprobs:
            raise FieldError(
                "top_logprobs",
                "top_logprobs needs logprobs=true; set it",
                "top_logprobs 需要 logprobs=true；请一并设置",
            )
        self._check_tools()
        for i, message in enumerate(self.messages):
            _check_content(message, f"messages.{i}")
        _check_replies(self.messages)
        if self.continue_final_message:
            self._check_continued()

    def _check_continued(self) -> None:
        check_prompt_end(self.add_generation_prompt, self.continue_final_message)
        last = self.messages[-1]
        if last.role != "assistant" or last.tool_calls or not last.content:
            raise FieldError(
                "continue_final_message",
                "continue_final_message: the last message must be the assistant's and have a text "
                "and no tool_calls",
                "continue_final_message：最后一条消息必须来自 assistant，含有文本且没有 tool_calls",
            )

    def _refuse_unsupported(self) -> None:
        wanted = {
            "functions": bool(self.functions),
            "function_call": self.function_call not in (None, "none", "auto"),
            "modalities": self.modalities not in (None, ["text"]),
            "audio": self.audio is not None,
        }
        for field, asked in wanted.items():
            if asked:
                value = repr(getattr(self, field))[:60]
                raise FieldError(
                    field,
                    f"{field}={value} is not supported by this server; leave it out"
                    + (" and use tools" if field.startswith("function") else ""),
                    f"本服务不支持 {field}={value}；请去掉该字段"
                    + ("并改用 tools" if field.startswith("function") else ""),
                )

    def _check_tools(self) -> None:
        names = [tool.function.name for tool in self.tools or ()]
        for i, name in enumerate(names):
            if name in names[:i]:
                where = f"tools.{i}.function.name"
                raise FieldError(
                    where,
                    f"{where}={name!r}: there is another of that name; each needs its own",
                    f"{where}={name!r}：与另一个函数重名；名称必须唯一",
                )
        must = self.must_call
        if must and not names:
            raise FieldError(
                "tool_choice",
                "tool_choice asks for a call and there are no tools; give at least one",
                "tool_choice 要求调用函数，但没有 tools；请至少给出一个",
            )
        if isinstance(must, str) and must not in names:
            raise FieldError(
                "tool_choice",
                f"tool_choice={must[:64]!r}: not among the functions in tools "
                f"({', '.join(names[:8])})",
                f"tool_choice={must[:64]!r}：不在 tools 的函数之中（{'、'.join(names[:8])}）",
            )


def check_prompt_end(
    add_generation_prompt: bool | None, continue_final_message: bool | None
) -> None:
    """Refuse a prompt that would both begin an answer and go on with one."""
    if add_generation_prompt and continue_final_message:
        raise FieldError(
            "add_generation_prompt",
            "add_generation_prompt=true begins a new answer, continue_final_message=true goes on "
            "with the last; set one of them to false",
            "add_generation_prompt=true 会开始新的回答，continue_final_message=true 则续写上一条；"
            "请将其中一个设为 false",
        )


def _check_content(message: Message, where: str) -> None:
    parts = message.content if isinstance(message.content, list) else []
    for j, part in enumerate(parts):
        if part.type != "text" or part.text is None:
            place = f"{where}.content.{j}"
            raise FieldError(
                place,
                f"{place}: a part of type {part.type[:40]!r} cannot be read; this model "
                'reads {"type": "text", "text": ...} only',
                f"{place}：无法读取类型为 {part.type[:40]!r} 的内容；"
                '本模型只接受 {"type": "text", "text": ...}',
            )
    if message.content is None and not message.tool_calls:
        raise FieldError(
            f"{where}.content",
            f"{where}.content: missing; must be a text or a list of text parts",
            f"{where}.content：缺失；必须是文本或文本片段列表",
        )
    if message.tool_calls and message.role != "assistant":
        raise FieldError(
            f"{where}.tool_calls",
            f"{where}.tool_calls: only an assistant calls; its role is {message.role}",
            f"{where}.tool_calls：只有 assistant 可以调用函数；此处角色为 {message.role}",
        )


def _check_replies(messages: Sequence[Message]) -> None:
    """Every call is answered by a tool message right after it, and by one only."""
    open_calls: list[str] = []
    for i, message in enumerate(messages):
        if message.role == "tool":
            id, where = message.tool_call_id, f"messages.{i}.tool_call_id"
            if id not in open_calls:
                shown = "missing" if id is None else repr(id[:80])
                shown_zh = "缺失" if id is None else repr(id[:80])
                raise FieldError(
                    where,
                    f"{where}: {shown}; a tool message must answer one of the tool_calls of the "
                    "assistant's message before it, once",
                    f"{where}：{shown_zh}；tool 消息必须回应其前一条 assistant 消息的某个"
                    " tool_calls，且只能回应一次",
                )
            open_calls.remove(id)
            continue
        if open_calls:
            break
        open_calls = [call.id for call in message.tool_calls or ()]
    if open_calls:
        shown = ", ".join(repr(id[:80]) for id in open_calls[:4])
        raise FieldError(
            "messages",
            f"messages: no tool message answers the tool call {shown}; add one for each call, "
            "right after it",
            f"messages：没有 tool 消息回应函数调用 {shown}；请在其后为每个调用各添加一条",
        )
