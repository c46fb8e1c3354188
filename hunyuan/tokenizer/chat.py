"""Conversations as they come from users and programs: checked, then made plain for a template.

A message is a mapping with ``role`` (system, developer, user, assistant, tool) and ``content``: a
text, a list of text parts ``{"type": "text", "text": ...}``, or nothing for an assistant that only
calls tools. Templates know less than that, so a developer's message is a system message, parts
are joined by line breaks, and the arguments of a tool call, which programs send as JSON text,
become the object that Hugging Face templates expect.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hunyuan.errors import UsageError

ROLES = ("system", "developer", "user", "assistant", "tool")
_DEEPEST = 64


def plain_messages(messages: object) -> list[dict[str, Any]]:
    """``messages`` as new lists and dicts of JSON values, ready for a template.

    Raises `UsageError` naming the message and the field.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise UsageError(
            f"messages: must be a list of messages, not {type(messages).__name__}",
            f"messages：必须是消息列表，而不是 {type(messages).__name__}",
        )
    if not messages:
        raise UsageError(
            "messages: is empty; give at least one message",
            "messages：列表为空；请至少给出一条消息",
        )
    return [_plain_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def plain_tools(tools: object) -> list[Any] | None:
    """Tool definitions as new JSON values, ``None`` if there are none; raises `UsageError`."""
    if not tools:
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise UsageError(
            f"tools: must be a list of tool definitions, not {type(tools).__name__}",
            f"tools：必须是工具定义列表，而不是 {type(tools).__name__}",
        )
    plain = []
    for i, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise _wrong(f"tools[{i}]", tool, "an object", "对象")
        plain.append(_plain_value(tool, f"tools[{i}]", 0))
    return plain


def plain_switches(switches: object) -> dict[str, Any]:
    """A template's switches as new JSON values; raises `UsageError`."""
    if switches is None:
        return {}
    if not isinstance(switches, Mapping):
        raise _wrong("chat_template_kwargs", switches, "an object", "对象")
    return {str(k): _plain_value(v, f"chat_template_kwargs.{k}", 0) for k, v in switches.items()}


def texts_of(value: Any) -> Iterator[str]:
    """Every string in ``value``, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts_of(item)


def map_texts(value: Any, change: Callable[[str, bool], str], *, whole: bool = False) -> Any:
    """``value`` with every string changed; ``whole`` is true for keys, roles and types."""
    if isinstance(value, str):
        return change(value, whole)
    if isinstance(value, list):
        return [map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {
            change(key, True): map_texts(item, change, whole=key in ("role", "type"))
            for key, item in value.items()
        }
    return value


def _plain_message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise _wrong(where, message, "an object with role and content", "含 role 和 content 的对象")
    plain = _plain_value(message, where, 0)
    role = plain.get("role")
    if role not in ROLES:
        shown = "missing" if role is None else repr(role)
        shown_zh = "缺失" if role is None else repr(role)
        raise UsageError(
            f"{where}.role: {shown}; must be one of {', '.join(ROLES)}",
            f"{where}.role：{shown_zh}；必须是 {'、'.join(ROLES)} 之一",
        )
    calls = plain.get("tool_calls") or []
    if calls:
        plain["tool_calls"] = _plain_calls(calls, f"{where}.tool_calls")
    plain["role"] = "system" if role == "developer" else role
    may_be_empty = role == "assistant" and bool(calls)
    plain["content"] = _content(plain.get("content"), f"{where}.content", may_be_empty)
    return plain  # type: ignore[no-any-return]


def _content(content: Any, where: str, may_be_empty: bool) -> str | None:
    if isinstance(content, str):
        return content
    if content is None and may_be_empty:
        return None
    if content is None:
        raise UsageError(
            f"{where}: missing; must be a text or a list of text parts",
            f"{where}：缺失；必须是文本或文本片段列表",
        )
    if not isinstance(content, list):
        raise _wrong(where, content, "a text or a list of text parts", "文本或文本片段列表")
    for i, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise UsageError(
                f'{where}[{i}]: must be {{"type": "text", "text": ...}}, it reads text only',
                f'{where}[{i}]：必须是 {{"type": "text", "text": ...}}；本模型只接受文本',
            )
        if part.get("type", "text") != "text":
            raise UsageError(
                f"{where}[{i}].type: {part['type']!r}; must be 'text', this model reads text only",
                f"{where}[{i}].type：{part['type']!r}；必须是 'text'，本模型只接受文本",
            )
    return "\n".join(part["text"] for part in content)


def _plain_calls(calls: Any, where: str) -> list[Any]:
    if not isinstance(calls, list):
        raise _wrong(where, calls, "a list", "列表")
    for i, call in enumerate(calls):
        if not isinstance(call, dict):
            raise _wrong(f"{where}[{i}]", call, "an object", "对象")
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise UsageError(
                f"{where}[{i}].function.name: missing; must be a text",
                f"{where}[{i}].function.name：缺失；必须是文本",
            )
        if isinstance(function.get("arguments"), str):
            function["arguments"] = _arguments(
                function["arguments"], f"{where}[{i}].function.arguments"
            )
    return calls


def _arguments(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        # What a model wrote may be broken JSON; it stays the text it is.
        return text
    return _plain_value(value, where, 0) if isinstance(value, dict) else text


def _plain_value(value: object, where: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise UsageError(
            f"{where}: nested more than {_DEEPEST} deep; make it flatter",
            f"{where}：嵌套超过 {_DEEPEST} 层；请减少嵌套",
        )
    # Exact types: a subclass may carry methods that a template should not reach.
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        plain = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _wrong(f"{where}: key {key!r}", key, "a text", "文本")
            plain[str.__str__(key)] = _plain_value(item, f"{where}.{key}", depth + 1)
        return plain
    if isinstance(value, list | tuple):
        return [_plain_value(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise _wrong(where, value, "a JSON value", "JSON 值")


def _wrong(where: str, value: object, wanted: str, wanted_zh: str) -> UsageError:
    return UsageError(
        f"{where}: must be {wanted}, not {type(value).__name__}",
        f"{where}：必须是{wanted_zh}，而不是 {type(value).__name__}",
    )
