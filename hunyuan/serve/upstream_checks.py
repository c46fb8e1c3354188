"""Whether an answer from elsewhere keeps to what was asked: calls and JSON of their schemas."""

import json
from collections.abc import Mapping
from typing import Any

from hunyuan.serve.errors import UpstreamError
from hunyuan.serve.json_check import problem
from hunyuan.serve.schema import ChatRequest


class AnswerCheck:
    """Checks the choices of one answer, whole or in pieces; raises `UpstreamError`."""

    def __init__(self, request: ChatRequest) -> None:
        self._schemas = {one.name: one.parameters or {} for one in request.offered}
        self._must = request.must_call
        self._answer_schema = _answer_schema(request)
        self._contents: dict[int, str] = {}
        self._calls: dict[int, dict[int, dict[str, Any]]] = {}
        self._reasons: dict[int, str] = {}

    def whole(self, choice: Mapping[str, Any]) -> None:
        """Check one choice of a ``chat.completion``."""
        message = choice.get("message") or {}
        calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
        self._check(message.get("content") or "", calls, choice.get("finish_reason"))

    def piece(self, choice: Mapping[str, Any]) -> None:
        """Take one choice of a ``chat.completion.chunk``; `end` checks what they add up to."""
        index, delta = choice.get("index", 0), choice.get("delta") or {}
        self._contents[index] = self._contents.get(index, "") + (delta.get("content") or "")
        calls = self._calls.setdefault(index, {})
        for place, call in enumerate(delta.get("tool_calls") or ()):
            function = call.get("function") or {}
            known = calls.setdefault(call.get("index", place), {"name": "", "arguments": ""})
            known["name"] += function.get("name") or ""
            known["arguments"] += function.get("arguments") or ""
        if reason := choice.get("finish_reason"):
            self._reasons[index] = reason

    def end(self) -> None:
        """Check the choices that came in pieces."""
        for index, content in self._contents.items():
            self._check(content, list(self._calls[index].values()), self._reasons.get(index))

    def _check(self, content: str, calls: list[Any], reason: Any) -> None:
        if reason == "length":
            return  # cut off, as the reason says
        if self._must and not calls:
            raise _wrong("it called no function", "没有调用函数")
        for call in calls:
            name = call.get("name")
            if name not in self._schemas:
                raise _wrong(
                    f"it called {str(name)[:64]!r}, which was not offered",
                    f"调用了未提供的函数 {str(name)[:64]!r}",
                )
            if isinstance(self._must, str) and name != self._must:
                raise _wrong(
                    f"it called {name!r} instead of {self._must!r}",
                    f"调用了 {name!r} 而不是 {self._must!r}",
                )
            where = f"arguments of {name}"
            _check_json(str(call.get("arguments") or "{}"), self._schemas[name], where)
        if self._answer_schema is not None and not calls:
            _check_json(content, self._answer_schema, "content")


def _answer_schema(request: ChatRequest) -> Mapping[str, Any] | None:
    """The schema of an answer, as far as there is one to check against."""
    form, given = request.response_format, request.structured_outputs
    if form is not None and form.type == "json_schema" and form.json_schema is not None:
        return form.json_schema.json_schema
    if form is not None and form.type == "json_object":
        return {"type": "object"}
    if given is not None and isinstance(given.json_, dict):
        return given.json_
    return None


def _check_json(text: str, schema: Mapping[str, Any], where: str) -> None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"its {where} are no JSON", f"{where} 不是有效的 JSON") from error
    if found := problem(value, schema):
        raise _wrong(
            f"its {where} break the schema ({found[:200]})",
            f"{where} 不符合 schema（{found[:200]}）",
        )


def _wrong(en: str, zh: str) -> UpstreamError:
    return UpstreamError(
        f"the answer of the server behind this one was refused: {en}; try again",
        f"上游服务的回答未被采纳：{zh}；请重试",
        status=502,
        code="upstream_answer_invalid",
    )
