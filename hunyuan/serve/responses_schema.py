"""OpenAI's request for a response, and how it becomes the chat request that a backend answers.

The input is a list of items where a chat has messages: texts, calls of functions, their outputs
and reasoning. Each is read by its type; what cannot be read is refused by its place and name.

Tools that run at OpenAI's side (web search, files, images, computers) cannot be run here. A
request that offers nothing else, or demands one, is refused. Beside functions they are only an
offer that nobody takes up: clients such as Codex add them to every request. Those are left out,
and ``tools`` of the response shows what the model was given.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from hunyuan.serve.schema import MAX_MESSAGES, MAX_TOOLS, ChatRequest, FieldError, Function, Lenient
from hunyuan.serve.translate import chat_request, known_tool, read, refuse_field, unsupported

Item = dict[str, Any]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]


class TextFormat(Lenient):
    """What the text must be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextConfig(Lenient):
    """``text``: its form; ``verbosity`` changes nothing here."""

    format: TextFormat | None = None


class Reasoning(Lenient):
    """How much a reasoning model should think."""

    effort: str | None = None
    summary: str | None = None


class ResponseRequest(Lenient):
    """POST /v1/responses."""

    model: str
    input: str | Annotated[list[Item], Field(max_length=MAX_MESSAGES)] = Field(default_factory=list)
    instructions: str | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=2 * MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    user: str | None = None
    # Not OpenAI's: what a chat here takes besides.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    ignore_eos: bool | None = None
    structured_outputs: dict[str, Any] | None = None
    # Meaningful and not supported.
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    truncation: str | None = None
    context_management: list[Any] | None = None

    def refuse_unsupported(self) -> None:
        """`FieldError` for a field that would change the answer and cannot be followed."""
        asked = {
            "background": bool(self.background),
            "conversation": self.conversation is not None,
            "prompt": self.prompt is not None,
            "truncation": self.truncation not in (None, "disabled"),
            "context_management": bool(self.context_management),
        }
        for field, wanted in asked.items():
            if wanted:
                raise refuse_field(field, getattr(self, field))

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities of the text are asked for."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())

    def items(self) -> list[Item]:
        """The input as items; a text is a user's message."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return self.input

    def functions(self) -> list[dict[str, Any]]:
        """The tools a model here can call, as the response repeats them; see the module."""
        functions = []
        others = []
        for i, tool in enumerate(self.tools or ()):
            if tool.get("type") != "function":
                others.append((f"tools.{i}", tool.get("type")))
                continue
            function = read(Function, tool, f"tools.{i}")
            names = ("name", "description", "parameters", "strict")
            known = {name: getattr(function, name) for name in names}
            functions.append({"type": "function", **known})
        if others and not functions:
            raise unsupported(*others[0], ("function",))
        return functions

    def chat(self, items: Sequence[Item], previous: int = 0) -> ChatRequest:
        """What the backend is asked about ``items``, of which ``previous`` were kept from before.

        Raises `FieldError` naming the item, tool or field that cannot be read.
        """
        functions, choice = self._choice(self.functions())
        messages = list(_messages(items, first=-previous))
        if self.instructions:
            messages.insert(0, {"role": "system", "content": self.instructions})
        if not messages:
            raise FieldError(
                "input",
                "input: is empty; give a text or at least one item",
                "input：为空；请给出文本或至少一个条目",
            )
        fields = self.model_dump(
            include={
                *("model", "stream", "temperature", "top_p", "parallel_tool_calls", "user"),
                *("top_k", "min_p", "repetition_penalty", "presence_penalty"),
                *("frequency_penalty", "seed", "ignore_eos", "structured_outputs"),
            },
            exclude_none=True,
        )
        fields["messages"] = messages
        if self.stream:
            fields["stream_options"] = {"include_usage": True}
        if self.max_output_tokens is not None:
            fields["max_completion_tokens"] = self.max_output_tokens
        if self.wants_logprobs:
            fields |= {"logprobs": True, "top_logprobs": self.top_logprobs or 0}
        if self.reasoning is not None and self.reasoning.effort is not None:
            fields["reasoning_effort"] = self.reasoning.effort
        if functions:
            fields["tools"] = [
                {"type": "function", "function": _given(tool, but="type")} for tool in functions
            ]
            fields["tool_choice"] = choice
        if (form := self._response_format()) is not None:
            fields["response_format"] = form
        return chat_request(fields)

    def _choice(self, functions: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Any]:
        """The tools to offer, and ``tool_choice`` as a chat spells it."""
        choice = self.tool_choice or "auto"
        if isinstance(choice, str):
            if choice not in ("none", "auto", "required"):
                raise unsupported(
                    "tool_choice",
                    choice,
                    (
                        "none",
                        "auto",
                        "required",
                    ),
                )
            if choice == "required" and not functions:
                raise FieldError(
                    "tool_choice",
                    "tool_choice='required' needs tools; give at least one function",
                    "tool_choice='required' 需要 tools；请至少给出一个函数",
                )
            return functions, choice
        names = {tool["name"] for tool in functions}
        if choice.get("type") == "function":
            return functions, {
                "type": "function",
                "function": {"name": known_tool(choice.get("name"), names, "tool_choice.name")},
            }
        if choice.get("type") == "allowed_tools":
            allowed = read(AllowedTools, choice, "tool_choice")
            kept = {
                known_tool(tool.get("name"), names, f"tool_choice.tools.{i}.name")
                for i, tool in enumerate(allowed.tools)
            }
            return [tool for tool in functions if tool["name"] in kept], allowed.mode
        raise unsupported(
            "tool_choice.type",
            choice.get("type"),
            (
                "function",
                "allowed_tools",
            ),
        )

    def _response_format(self) -> dict[str, Any] | None:
        form = self.text.format if self.text is not None else None
        if form is None or form.type == "text":
            return None
        if form.type == "json_object":
            return {"type": "json_object"}
        if form.json_schema is None:
            raise FieldError(
                "text.format.schema",
                "text.format.schema: missing; json_schema needs one",
                "text.format.schema：缺失；json_schema 需要给出模式",
            )
        schema: dict[str, Any] = {"name": form.name or "response", "schema": form.json_schema}
        if form.strict is not None:
            schema["strict"] = form.strict
        return {"type": "json_schema", "json_schema": schema}


class AllowedTools(Lenient):
    """A subset of the tools."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Part(Lenient):
    """A piece of a message or an output."""

    type: str
    text: str | None = None
    refusal: str | None = None


class MessageItem(Lenient):
    """A message of anybody's."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class CallItem(Lenient):
    """A call the model made."""

    call_id: str
    name: str
    arguments: str


class OutputItem(Lenient):
    """What a call gave."""

    call_id: str
    output: str | list[Part]


class ReasoningItem(Lenient):
    """What the model thought."""

    content: list[Part] | None = None
    summary: list[Part] | None = None


def _messages(items: Iterable[Item], first: int) -> Iterable[dict[str, Any]]:
    """Chat messages of items; the calls of one turn, its text and reasoning are one message.

    The place of an item in errors counts from ``first``.
    """
    turn: dict[str, Any] = {}
    for i, item in enumerate(items, first):
        where = f"input.{i}" if i >= 0 else "previous_response_id"
        kind = item.get("type", "message")
        spoken = kind == "message" and item.get("role") == "assistant"
        # Calls wait for their outputs: what is said beside them belongs to the same message.
        if (spoken or kind == "reasoning") and "content" in turn and "tool_calls" not in turn:
            yield _assistant(turn)
            turn = {}
        if kind == "reasoning":
            thought = read(ReasoningItem, item, where)
            parts = thought.content or thought.summary or []
            text = "".join(part.text or "" for part in parts)
            turn["reasoning_content"] = turn.get("reasoning_content", "") + text
        elif spoken:
            text = _text(read(MessageItem, item, where).content, f"{where}.content")
            turn["content"] = "\n".join([turn["content"], text] if "content" in turn else [text])
        elif kind == "function_call":
            call = read(CallItem, item, where)
            function = {"name": call.name, "arguments": call.arguments}
            turn.setdefault("tool_calls", []).append(
                {"id": call.call_id, "type": "function", "function": function}
            )
        elif kind in ("message", "function_call_output"):
            if turn:
                yield _assistant(turn)
                turn = {}
            if kind == "message":
                message = read(MessageItem, item, where)
                yield {
                    "role": message.role,
                    "content": _text(message.content, f"{where}.content"),
                }
            else:
                output = read(OutputItem, item, where)
                yield {
                    "role": "tool",
                    "tool_call_id": output.call_id,
                    "content": _text(output.output, f"{where}.output"),
                }
        else:
            known = ("message", "function_call", "function_call_output", "reasoning")
            raise unsupported(f"{where}.type", kind, known)
    if turn:
        yield _assistant(turn)


def _assistant(turn: dict[str, Any]) -> dict[str, Any]:
    if "content" not in turn and "tool_calls" not in turn:
        turn["content"] = ""  # an answer that ended while it was thinking
    return {"role": "assistant", "content": None} | turn


def _text(content: str | list[Part], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for i, part in enumerate(content):
        text = part.refusal if part.type == "refusal" else part.text
        if part.type not in ("input_text", "output_text", "text", "refusal") or text is None:
            raise FieldError(
                f"{where}.{i}",
                f"{where}.{i}: a part of type {part.type[:40]!r} cannot be read; this model reads "
                'text only: {"type": "input_text", "text": ...}',
                f"{where}.{i}：无法读取类型为 {part.type[:40]!r} 的内容；本模型只接受文本："
                '{"type": "input_text", "text": ...}',
            )
        texts.append(text)
    return "\n".join(texts)


def _given(fields: dict[str, Any], *, but: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != but and value is not None}
