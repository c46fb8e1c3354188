"""Anthropic's request for a message, and how it becomes the chat request that a backend answers.

Content is a list of blocks where a chat has texts, calls and tool messages. Tools that Anthropic
defines (bash, editors, computers, web search) are refused by name: a model here knows none of
them. Marks for caching, a budget for thinking and signatures change nothing here.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from hunyuan.serve.schema import MAX_MESSAGES, MAX_TOOLS, ChatRequest, FieldError, Function, Lenient
from hunyuan.serve.translate import chat_request, known_tool, read, refuse_field, unsupported

Block = dict[str, Any]


class TextBlock(Lenient):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ThinkingBlock(Lenient):
    """What the model thought."""

    thinking: str


class ToolUseBlock(Lenient):
    """A call the model made."""

    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Lenient):
    """What a call gave."""

    tool_use_id: str
    content: str | list[Block] | None = None


class MessageParam(Lenient):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Lenient):
    """A function of the client's that the model may call."""

    type: str | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(Lenient):
    """Whether and what to call."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Lenient):
    """The schema an answer must have."""

    type: Literal["json_schema"]
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Lenient):
    """``effort`` and ``format`` of the answer."""

    effort: str | None = None
    format: OutputFormat | None = None


class CountRequest(Lenient):
    """POST /v1/messages/count_tokens."""

    model: str
    messages: Annotated[list[MessageParam], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    # Meaningful and not supported.
    mcp_servers: list[Any] | None = None
    container: Any = None

    def chat(self) -> ChatRequest:
        """What the backend is asked; raises `FieldError` naming what cannot be read."""
        return chat_request(self._fields())

    def _fields(self) -> dict[str, Any]:
        for field in ("mcp_servers", "container"):
            if getattr(self, field):
                raise refuse_field(field, getattr(self, field))
        if self.messages[-1].role == "assistant":
            raise FieldError(
                "messages",
                "messages: the last one is the assistant's; prefilling an answer is not supported, "
                "end with a user's message",
                "messages：最后一条是 assistant 的消息；不支持预填答案，请以用户消息结尾",
            )
        messages = [message for i in range(len(self.messages)) for message in self._turn(i)]
        if system := self._system():
            messages.insert(0, {"role": "system", "content": system})
        fields: dict[str, Any] = {"model": self.model, "messages": _merged(messages)}
        if tools := self._tools():
            fields["tools"] = tools
            fields["tool_choice"] = self._choice({tool["function"]["name"] for tool in tools})
            if self.tool_choice is not None and self.tool_choice.disable_parallel_tool_use:
                fields["parallel_tool_calls"] = False
        config = self.output_config
        if (form := (config and config.format) or self.output_format) is not None:
            schema = {"name": "answer", "schema": form.json_schema, "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        if config is not None and config.effort is not None:
            fields["reasoning_effort"] = config.effort
        return fields

    def _system(self) -> str | None:
        if self.system is None or isinstance(self.system, str):
            return self.system
        return "\n".join(block.text for block in self.system)

    def _tools(self) -> list[dict[str, Any]]:
        tools = []
        for i, tool in enumerate(self.tools or ()):
            if tool.type not in (None, "custom"):
                raise unsupported(f"tools.{i}.type", tool.type, ("custom",))
            fields = {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
            }
            function = read(Function, fields, f"tools.{i}").model_dump(exclude_none=True)
            tools.append({"type": "function", "function": function})
        return tools

    def _choice(self, names: set[str]) -> Any:
        choice = self.tool_choice
        if choice is None or choice.type != "tool":
            return {"any": "required", "none": "none"}.get(choice.type if choice else "", "auto")
        name = known_tool(choice.name, names, "tool_choice.name")
        return {"type": "function", "function": {"name": name}}

    def _turn(self, index: int) -> Iterator[dict[str, Any]]:
        """The chat messages of one turn: results of tools come before the text beside them."""
        turn, where = self.messages[index], f"messages.{index}.content"
        if isinstance(turn.content, str):
            yield {"role": turn.role, "content": turn.content}
            return
        texts: list[str] = []
        spoken: dict[str, Any] = {}
        for j, block in enumerate(turn.content):
            place, kind = f"{where}.{j}", block.get("type")
            if kind == "text":
                texts.append(read(TextBlock, block, place).text)
            elif kind == "tool_result" and turn.role == "user":
                result = read(ToolResultBlock, block, place)
                content = _text(result.content, f"{place}.content")
                yield {"role": "tool", "tool_call_id": result.tool_use_id, "content": content}
            elif kind == "tool_use" and turn.role == "assistant":
                use = read(ToolUseBlock, block, place)
                arguments = json.dumps(use.input, ensure_ascii=False)
                function = {"name": use.name, "arguments": arguments}
                call = {"id": use.id, "type": "function", "function": function}
                spoken.setdefault("tool_calls", []).append(call)
            elif kind == "thinking" and turn.role == "assistant":
                thought = read(ThinkingBlock, block, place).thinking
                spoken["reasoning_content"] = spoken.get("reasoning_content", "") + thought
            elif kind != "redacted_thinking":
                known = {"user": ("text", "tool_result"), "system": ("text",)}
                raise unsupported(
                    f"{place}.type", kind, known.get(turn.role, ("text", "tool_use", "thinking"))
                )
        if turn.role == "assistant":
            text = "\n".join(texts)
            yield {"role": "assistant", "content": text if text or not spoken else None} | spoken
        elif texts:
            yield {"role": turn.role, "content": "\n".join(texts)}


class MessagesRequest(CountRequest):
    """POST /v1/messages."""

    max_tokens: int
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: Annotated[list[str], Field(max_length=16)] | None = None
    # Not Anthropic's: what a chat here takes besides.
    seed: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None

    def _fields(self) -> dict[str, Any]:
        sampling = {
            *("temperature", "top_p", "top_k", "seed", "min_p"),
            *("repetition_penalty", "ignore_eos", "stream"),
        }
        fields = super()._fields() | self.model_dump(include=sampling, exclude_none=True)
        fields["max_completion_tokens"] = self.max_tokens
        if self.stream:
            fields["stream_options"] = {"include_usage": True}
        if self.stop_sequences:
            fields["stop"] = self.stop_sequences
        return fields


def _text(content: str | list[Block] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for i, block in enumerate(content):
        if block.get("type") != "text":
            raise unsupported(f"{where}.{i}.type", block.get("type"), ("text",))
    return "\n".join(read(TextBlock, block, f"{where}.{i}").text for i, block in enumerate(content))


def _merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts of one user in a row are one turn, as Anthropic reads them."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        if merged and message["role"] == merged[-1]["role"] == "user":
            merged[-1] = {**message, "content": f"{merged[-1]['content']}\n{message['content']}"}
        else:
            merged.append(message)
    return merged
