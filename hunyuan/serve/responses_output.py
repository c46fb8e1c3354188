"""A response while it is made: chat chunks in, OpenAI's events and the response object out.

A whole answer goes through the same code as a stream, as one large chunk, so that both end in the
same object.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from hunyuan.engine.request import SamplingParams
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.responses_schema import ResponseRequest

Event = dict[str, Any]


class ResponseBuilder:
    """One response of a model. Its events must be used before the next is taken."""

    def __init__(self, request: ResponseRequest, model: ModelCard) -> None:
        self.response = _head(request, model)
        self._logprobs = request.wants_logprobs
        self._open: dict[str, Any] | None = None
        self._call: int | None = None
        self._finish_reason: str | None = None

    def start(self) -> Iterator[Event]:
        """Events before anything is known."""
        yield {"type": "response.created", "response": self.response}
        yield {"type": "response.in_progress", "response": self.response}

    def feed(self, chunk: dict[str, Any]) -> Iterator[Event]:
        """Events of one ``chat.completion.chunk``, or of a ``chat.completion``."""
        if chunk.get("usage"):
            self.response["usage"] = _usage(chunk["usage"])
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            if thought := delta.get("reasoning_content") or delta.get("reasoning"):
                yield from self._add_reasoning(thought)
            calls = delta.get("tool_calls") or ()
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            text = delta.get("content") or ""
            # A token may complete no character: then it has a log-probability and no text.
            if text or (logprobs and not thought and not calls):
                yield from self._add_text(text, logprobs if self._logprobs else [])
            for position, call in enumerate(calls):
                yield from self._add_call(call.get("index", position), call)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def finish(self) -> Iterator[Event]:
        """The last events, after all chunks."""
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        reason = reasons.get(self._finish_reason or "")
        status = "incomplete" if reason else "completed"
        if not self.response["output"]:
            yield from self._open_message()
        yield from self._close(status)
        self.response["status"] = status
        if reason:
            self.response["incomplete_details"] = {"reason": reason}
        else:
            self.response["completed_at"] = int(time.time())
        yield {"type": f"response.{status}", "response": self.response}

    def fail(self, code: str, message: str) -> Iterator[Event]:
        """The last event when the answer broke off."""
        if self._open is not None:
            self._open["status"] = "incomplete"
        self.response["status"] = "failed"
        self.response["error"] = {"code": code, "message": message}
        yield {"type": "response.failed", "response": self.response}

    # ------------------------------------------------------------ items

    def _add_reasoning(self, text: str) -> Iterator[Event]:
        if self._open is None or self._open["type"] != "reasoning":
            yield from self._close("completed")
            part = {"type": "reasoning_text", "text": ""}
            yield from self._begin({"type": "reasoning", "summary": [], "content": []}, "rs", part)
        assert self._open is not None
        self._open["content"][0]["text"] += text
        yield {"type": "response.reasoning_text.delta", **self._part(), "delta": text}

    def _add_text(self, text: str, logprobs: list[Any]) -> Iterator[Event]:
        if self._open is None or self._open["type"] != "message":
            yield from self._close("completed")
            yield from self._open_message()
        assert self._open is not None
        part = self._open["content"][0]
        part["text"] += text
        part["logprobs"] += logprobs
        event = {"type": "response.output_text.delta", **self._part(), "delta": text}
        yield event | {"logprobs": logprobs}

    def _open_message(self) -> Iterator[Event]:
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield from self._begin({"type": "message", "role": "assistant", "content": []}, "msg", part)

    def _add_call(self, index: int, call: dict[str, Any]) -> Iterator[Event]:
        function = call.get("function") or {}
        if self._open is None or self._open["type"] != "function_call" or self._call != index:
            yield from self._close("completed")
            self._call = index
            name, call_id = function.get("name", ""), call.get("id") or f"call_{uuid.uuid4().hex}"
            item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": ""}
            yield from self._begin(item, "fc")
        assert self._open is not None
        if text := function.get("arguments"):
            self._open["arguments"] += text
            kind = "response.function_call_arguments.delta"
            yield {"type": kind, **self._place(), "delta": text}

    def _begin(
        self, item: dict[str, Any], prefix: str, part: dict[str, Any] | None = None
    ) -> Iterator[Event]:
        item = {"id": f"{prefix}_{uuid.uuid4().hex}", **item, "status": "in_progress"}
        self._open = item
        self.response["output"].append(item)
        index = {"output_index": len(self.response["output"]) - 1}
        yield {"type": "response.output_item.added", **index, "item": item}
        if part is not None:
            item["content"].append(part)
            yield {"type": "response.content_part.added", **self._part(), "part": part}

    def _close(self, status: str) -> Iterator[Event]:
        item = self._open
        if item is None:
            return
        if item["type"] == "function_call":
            kind = "response.function_call_arguments.done"
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield {"type": kind, **self._place(), **done}
        else:
            part = item["content"][0]
            if item["type"] == "message":
                done = {"text": part["text"], "logprobs": part["logprobs"]}
                yield {"type": "response.output_text.done", **self._part(), **done}
            else:
                yield {"type": "response.reasoning_text.done", **self._part(), "text": part["text"]}
            yield {"type": "response.content_part.done", **self._part(), "part": part}
        item["status"] = status
        index = {"output_index": len(self.response["output"]) - 1}
        yield {"type": "response.output_item.done", **index, "item": item}
        self._open = None

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        index = len(self.response["output"]) - 1
        return {"item_id": self._open["id"], "output_index": index}

    def _part(self) -> dict[str, Any]:
        return {**self._place(), "content_index": 0}


def _head(request: ResponseRequest, model: ModelCard) -> dict[str, Any]:
    # What applies where nothing was asked; an upstream has defaults of its own.
    default = SamplingParams if model.local else None
    text = request.text.model_dump(by_alias=True, exclude_none=True) if request.text else {}
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata or {},
        "model": model.id,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "reasoning": {
            "effort": request.reasoning.effort if request.reasoning else None,
            "summary": None,
        },
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": _or(request.temperature, default and default.temperature),
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.functions(),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": _or(request.top_p, default and default.top_p),
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
    }


def _or(value: float | None, default: float | None) -> float | None:
    return default if value is None else value


def _usage(chat: dict[str, Any]) -> dict[str, Any]:
    prompt = chat.get("prompt_tokens_details") or {}
    answer = chat.get("completion_tokens_details") or {}
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": prompt.get("cached_tokens") or 0,
            "cache_write_tokens": prompt.get("cache_write_tokens") or 0,
        },
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": answer.get("reasoning_tokens") or 0},
        "total_tokens": chat["total_tokens"],
    }
