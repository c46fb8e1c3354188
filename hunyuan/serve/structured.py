"""Which grammar an answer follows: of its tools, its response format, or vLLM's constraints."""

import json
from collections.abc import Mapping
from typing import Any

from hunyuan.engine.request import Grammar
from hunyuan.serve.schema import ChatRequest, FieldError, StructuredOutputs
from hunyuan.serve.tools import JSON_STYLE, ToolFormat, call_grammar

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def grammar_of(request: ChatRequest, form: ToolFormat) -> tuple[Grammar | None, str]:
    """The grammar of an answer, and the field that asks for it.

    Raises `FieldError` for what contradicts itself; whether the grammar is one, the engine says.
    """
    schema, field = _schema(request)
    constraint = None
    if request.structured_outputs is not None:
        constraint, constrained = constraint_of(request.structured_outputs)
        if schema is not None:
            raise _both(field, constrained)
        field = constrained
    if request.offered:
        if constraint is not None:
            raise _both("tools", field)
        text = call_grammar(request, form, schema)
        return Grammar(kind="lark", source=text), "tools" if schema is None else field
    if schema is not None:
        return _json(schema), field
    return constraint, field


def constraint_of(wanted: StructuredOutputs) -> tuple[Grammar, str]:
    """The grammar of vLLM's ``structured_outputs`` and its field; `FieldError` unless it is one."""
    field = "structured_outputs"
    given = [
        name
        for name in ("json_", "regex", "choice", "grammar", "json_object")
        if getattr(wanted, name)
    ]
    if len(given) != 1:
        raise FieldError(
            field,
            f"{field}: give exactly one of json, regex, choice and grammar, not {len(given)}",
            f"{field}：json、regex、choice、grammar 必须且只能给出一个，而不是 {len(given)} 个",
        )
    place = f"{field}.{given[0].rstrip('_')}"
    if wanted.json_:
        schema = _object(wanted.json_, place)
        return _json(schema), place
    if wanted.regex:
        return Grammar(kind="regex", source=wanted.regex), place
    if wanted.choice:
        return Grammar(kind="choice", source=wanted.choice), place
    if wanted.grammar:
        return Grammar(kind="lark", source=wanted.grammar), place
    return _json(ANY_OBJECT), place


def _json(schema: Mapping[str, Any]) -> Grammar:
    return Grammar(kind="json_schema", source={**schema, "x-guidance": JSON_STYLE})


def answers_in_json(request: ChatRequest) -> bool:
    """Whether words of the answer are JSON."""
    return request.response_format is not None and request.response_format.type != "text"


def _schema(request: ChatRequest) -> tuple[Mapping[str, Any] | None, str]:
    form = request.response_format
    if form is None or form.type == "text":
        return None, ""
    if form.type == "json_object":
        return ANY_OBJECT, "response_format"
    field = "response_format.json_schema"
    if form.json_schema is None or form.json_schema.json_schema is None:
        raise FieldError(
            field,
            f"{field}: has no schema; give {{name, schema}}",
            f"{field}：缺少 schema；请给出 {{name, schema}}",
        )
    return form.json_schema.json_schema, f"{field}.schema"


def _object(given: dict[str, Any] | str, field: str) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    try:
        schema = json.loads(given)
    except (json.JSONDecodeError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise FieldError(
            field, f"{field}: is no JSON schema, an object", f"{field}：不是 JSON schema（对象）"
        )
    return schema


def _both(one: str, other: str) -> FieldError:
    return FieldError(
        other,
        f"{other} cannot be combined with {one}; leave one of them out",
        f"{other} 不能与 {one} 同时使用；请去掉其中一个",
    )
