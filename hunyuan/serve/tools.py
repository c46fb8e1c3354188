"""How a model calls functions: what it is told, what it may write, and what is in the prompt.

A call is always ``{"name": ..., "arguments": {...}}``; what stands around it is the model's own
habit, which its chat template shows. A model whose template knows no tools gets a short
instruction, and calls and results are ordinary text to it.

What may be written is a hard grammar: text, or text and then calls, where a call has the name of
one of the functions and arguments of its schema. Small models often forget what stands around a
call and answer with the bare JSON, perhaps in a code block; where it names one of the functions,
that is a call too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hunyuan.serve.schema import ChatRequest, Function, Message

MAX_CALLS = 16
"""Calls of one answer; a small model may find no end."""

OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class ToolFormat:
    """What stands before, between and after calls."""

    begin: str
    between: str
    end: str
    native: bool
    """Whether the chat template takes tools, calls and results."""

    @property
    def trigger(self) -> str:
        """The text with which calls begin anywhere; empty where they only begin an answer."""
        return self.begin.rstrip("\n[")


HERMES = ToolFormat("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>", native=True)
"""Of Hermes and Qwen."""

HUNYUAN = ToolFormat("<tool_calls>[", ", ", "]</tool_calls>", native=True)
"""Of Hunyuan models that were trained to call."""

PLAIN = ToolFormat("", "\n", "", native=False)
"""Of models that know no tools: the answer is the call, or it is text."""

CALL_START = '{"name": "'
ARGUMENTS_START = '", "arguments": '


def tool_format(chat_template: str) -> ToolFormat:
    """The format that a chat template shows."""
    if "tools" in chat_template:
        for known in (HUNYUAN, HERMES):
            if known.trigger in chat_template:
                return known
    return PLAIN


# ------------------------------------------------------------------ the prompt


def prompt_messages(request: ChatRequest, form: ToolFormat) -> list[dict[str, Any]]:
    """The conversation as the model's template takes it."""
    if form.native:
        return [_plain(message) for message in request.messages]
    messages = [_as_text(message, form) for message in request.messages]
    if offered := request.offered:
        told = _instruction(offered, request.must_call)
        if messages[0]["role"] in ("system", "developer"):
            messages[0] = {**messages[0], "content": f"{_text(messages[0]['content'])}\n\n{told}"}
        else:
            messages.insert(0, {"role": "system", "content": told})
    return messages


def prompt_tools(request: ChatRequest, form: ToolFormat) -> list[dict[str, Any]] | None:
    """The functions as the model's template takes them; None if it takes none."""
    offered = request.offered
    if not form.native or not offered:
        return None
    fields = {"name", "description", "parameters"}
    return [
        {"type": "function", "function": one.model_dump(include=fields, exclude_none=True)}
        for one in offered
    ]


def _plain(message: Message) -> dict[str, Any]:
    fields = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"}
    return message.model_dump(include=fields, exclude_none=True)


def _as_text(message: Message, form: ToolFormat) -> dict[str, Any]:
    """A message without calls or results, which are written out as the model would."""
    if message.role == "tool":
        return {"role": "user", "content": f"<result>\n{_text(message.content)}\n</result>"}
    if not message.tool_calls:
        return message.model_dump(include={"role", "content"})
    calls = form.between.join(
        json.dumps(
            {"name": call.function.name, "arguments": _value(call.function.arguments)},
            ensure_ascii=False,
        )
        for call in message.tool_calls
    )
    said = _text(message.content)
    text = f"{said}\n{calls}" if said else calls
    return {"role": message.role, "content": f"{form.begin}{text}{form.end}"}


def _text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join((part["text"] if isinstance(part, dict) else part.text) for part in content)


def _value(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (json.JSONDecodeError, RecursionError):
        return arguments


def _instruction(functions: Sequence[Function], must_call: str | bool) -> str:
    lines = ["You can call these functions:"]
    for one in functions:
        parameters = json.dumps(one.parameters or OBJECT, ensure_ascii=False)
        about = f": {one.description}" if one.description else ""
        lines.append(f"- {one.name}{about}. Parameters: {parameters}")
    lines.append(
        'To call one, answer only with {"name": "FUNCTION", "arguments": {...}}.'
        + ("" if must_call else " If none of them helps, answer in words.")
    )
    return "\n".join(lines)


# ------------------------------------------------------------------ the grammar


def call_grammar(
    request: ChatRequest, form: ToolFormat, answer_schema: Mapping[str, Any] | None = None
) -> str:
    """A Lark grammar, in llguidance's dialect, of the answers to a request that offers tools.

    Where it need not call, the model answers in any text, or in JSON of ``answer_schema``.
    """
    functions = request.offered
    must = request.must_call
    if isinstance(must, str):
        functions = [one for one in functions if one.name == must]
    once = request.parallel_tool_calls is False or isinstance(must, str)
    more = "" if once else f" ({_literal(form.between)} call){{0,{MAX_CALLS - 1}}}"
    end = f" {_literal(form.end)}" if form.end else ""
    calls = f"call{more}{end}"
    begin = f"{_literal(form.begin)} " if form.begin else ""
    rules = [
        "call: " + " | ".join(f"call_{i}" for i in range(len(functions))),
        *(f"call_{i}: {_call(one)}" for i, one in enumerate(functions)),
    ]
    if must:
        return "\n".join([f"start: {begin}{calls}", *rules])
    if answer_schema is not None and not form.trigger:
        return f"start: %json {json.dumps(_either(answer_schema, functions), ensure_ascii=False)}"
    if answer_schema is not None:
        schema = json.dumps({**answer_schema, "x-guidance": JSON_STYLE}, ensure_ascii=False)
        return "\n".join([f"start: answer | {begin}{calls}", f"answer: %json {schema}", *rules])
    # A lexeme that begins like another must not go on beyond it: text is what begins no call.
    bare = bare_call_start([one.name for one in functions], form)
    rules += [
        "bare: " + " | ".join(f"bare_{i}" for i in range(len(functions))),
        *(f"bare_{i}: BARE_{i} {_json(one, LOOSE_STYLE)}" for i, one in enumerate(functions)),
        *(f"BARE_{i}: /{bare_call_start([o.name], form)}/" for i, o in enumerate(functions)),
        r"BARE_END: /\s{0,8}\}(\s{0,8}```)?/",
    ]
    if form.trigger:
        trigger, rest = _pattern(form.trigger), form.begin.removeprefix(form.trigger)
        text = [
            f"start: TEXT | bare BARE_END | said {_literal(rest)} {calls}",
            "said[lazy]: SAID",
            rf"SAID: /(.|\n)*{trigger}/ & ~/{bare}(.|\n)*/",
            rf"TEXT: /(.|\n)*/ & ~/(.|\n)*{trigger}(.|\n)*/ & ~/{bare}(.|\n)*/",
        ]
    else:
        text = [
            f"start: TEXT | bare BARE_END | {calls}",
            rf"TEXT: /(.|\n)*/ & ~/{_pattern(CALL_START)}(.|\n)*/ & ~/{bare}(.|\n)*/",
        ]
    return "\n".join(text + rules)


def bare_call_start(names: Sequence[str], form: ToolFormat) -> str:
    """A regular expression of how a bare call of one of ``names`` begins, up to its arguments.

    Without what the plain format itself writes: that is no other way to call.
    """
    any_name = "|".join(map(_pattern, names))
    opened = (
        r"(```(json)?\s{1,2})?\{\s{0,8}"
        if form.trigger
        else (r"(```(json)?\s{1,2}\{\s{0,8}|\{\s{1,8})")
    )
    return rf'{opened}"name":\s{{0,2}}"({any_name})",\s{{1,8}}"arguments":\s{{0,2}}'


def _either(answer: Mapping[str, Any], functions: Sequence[Function]) -> dict[str, Any]:
    """A schema of JSON that is an answer or one call, which begin alike in the plain format."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": one.name}, "arguments": _arguments(one)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for one in functions
    ]
    # References are from the root, which is another now.
    shared = {name: answer[name] for name in ("$defs", "definitions") if name in answer}
    return {"anyOf": [dict(answer), *calls], **shared, "x-guidance": JSON_STYLE}


def call_starts(request: ChatRequest, *, or_json: bool) -> list[str]:
    """With what a call begins in the plain format, where other JSON may be an answer or not."""
    if not or_json:
        return [CALL_START]
    return [f"{CALL_START}{one.name}{ARGUMENTS_START}" for one in request.offered]


def _arguments(function: Function) -> dict[str, Any]:
    schema = dict(function.parameters or OBJECT)
    if schema.get("properties") and "additionalProperties" not in schema:
        # Small models go on inventing arguments as long as they may.
        schema["additionalProperties"] = False
    return schema


def _call(function: Function) -> str:
    head = _literal(f"{CALL_START}{function.name}{ARGUMENTS_START}")
    return f'{head} {_json(function, JSON_STYLE)} "}}"'


def _json(function: Function, style: Mapping[str, Any]) -> str:
    """The rule of a function's arguments."""
    options = style if function.strict else {**style, "lenient": True}
    schema = {**_arguments(function), "x-guidance": options}
    return f"%json {json.dumps(schema, ensure_ascii=False)}"


JSON_STYLE: Mapping[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""JSON as models learn it, in which no model can lose itself in blanks."""

LOOSE_STYLE: Mapping[str, Any] = {"whitespace_pattern": r"[ \n]{0,16}"}
"""JSON over several lines."""


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _pattern(text: str) -> str:
    """A text as a regular expression between slashes."""
    return "".join(f"\\{c}" if c in r"\^$.|?*+()[]{}/" else c for c in text)
