"""A backend that says what a test tells it to, in the shape of a real one."""

import json
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from hunyuan.errors import HunyuanError, Language
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.schema import ChatRequest

Reply = str | dict[str, Any] | HunyuanError
"""A text, a tool call ``{"name": ..., "arguments": {...}}``, or an error to raise."""


class ScriptedBackend:
    """Answers with ``replies`` in turn, the last one for ever, or with what a function makes."""

    def __init__(self, replies: Iterable[Reply] | Callable[[ChatRequest], Reply] = ("ok",)) -> None:
        self._replies = replies if callable(replies) else list(replies)
        self.requests: list[ChatRequest] = []
        self.model = ModelCard(id="scripted", created=0, context=8192, parameters=1)

    def _next(self, request: ChatRequest) -> Reply:
        self.requests.append(request)
        if callable(self._replies):
            reply = self._replies(request)
        else:
            reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, HunyuanError):
            raise reply
        return reply

    async def complete(self, request: ChatRequest, lang: Language = "en") -> dict[str, Any]:
        message, finish = _message(self._next(request))
        return {
            **_head("chat.completion"),
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
            ],
            "usage": _usage(request, message),
        }

    async def stream(
        self, request: ChatRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        message, finish = _message(self._next(request))
        head = _head("chat.completion.chunk")

        def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return {**head, "choices": [choice]}

        yield chunk({"role": "assistant", "content": ""})
        text = message["content"] or ""
        for start in range(0, len(text), 3):
            yield chunk({"content": text[start : start + 3]})
        for index, call in enumerate(message.get("tool_calls") or ()):
            yield chunk({"tool_calls": [{"index": index, **call}]})
        yield chunk({}, finish)
        if request.include_usage:
            yield {**head, "choices": [], "usage": _usage(request, message)}

    async def count_tokens(self, request: ChatRequest) -> int | None:
        return sum(len(str(message.content)) for message in request.messages)


def _head(kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": 0, "model": "scripted"}


def _message(reply: str | dict[str, Any] | Any) -> tuple[dict[str, Any], str]:
    if isinstance(reply, str):
        return {"role": "assistant", "content": reply, "refusal": None}, "stop"
    function = {
        "name": reply["name"],
        "arguments": json.dumps(reply["arguments"], ensure_ascii=False),
    }
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _usage(request: ChatRequest, message: dict[str, Any]) -> dict[str, int]:
    prompt = sum(len(str(m.content)) for m in request.messages)
    answer = len(message["content"] or "")
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
