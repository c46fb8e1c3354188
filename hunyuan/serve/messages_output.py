"""A message while it is made: chat chunks in, Anthropic's events and the message out.

A whole answer goes through the same code as a stream, as one large chunk, so that both end in the
same object.
"""

import json
import uuid
from collections.abc import Iterator
from typing import Any

Event = dict[str, Any]

STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class MessageBuilder:
    """One message of a model; ``input_tokens`` is what is known of the prompt at the start."""

    def __init__(self, model: str, input_tokens: int = 0) -> None:
        self.message: dict[str, Any] = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": input_tokens, "output_tokens": 0},
        }
        self._open: dict[str, Any] | None = None
        self._call: int | None = None
        self._arguments = ""
        self._stop_reason = "end_turn"
        self._stop_sequence: str | None = None

    def start(self) -> Iterator[Event]:
        """Events before anything is known."""
        yield {"type": "message_start", "message": self.message}
        yield {"type": "ping"}

    def feed(self, chunk: dict[str, Any]) -> Iterator[Event]:
        """Events of one ``chat.completion.chunk``, or of a ``chat.completion``."""
        if chunk.get("usage"):
            self.message["usage"] = _usage(chunk["usage"])
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            if thought := delta.get("reasoning_content") or delta.get("reasoning"):
                yield from self._add("thinking", thought, {"thinking": "", "signature": ""})
            if text := delta.get("content"):
                yield from self._add("text", text, {"text": ""})
            for position, call in enumerate(delta.get("tool_calls") or ()):
                yield from self._add_call(call.get("index", position), call)
            if reason := choice.get("finish_reason"):
                self._stop_reason = STOP_REASONS.get(reason, "end_turn")
                # The text that ended the answer, in vLLM's spelling; OpenAI's does not tell.
                if reason == "stop" and isinstance(choice.get("stop_reason"), str):
                    self._stop_reason = "stop_sequence"
                    self._stop_sequence = choice["stop_reason"]

    def finish(self) -> Iterator[Event]:
        """The last events, after all chunks."""
        yield from self._close()
        stop = {"stop_reason": self._stop_reason, "stop_sequence": self._stop_sequence}
        self.message.update(stop)
        yield {"type": "message_delta", "delta": stop, "usage": self.message["usage"]}
        yield {"type": "message_stop"}

    # ------------------------------------------------------------ blocks

    def _add(self, kind: str, text: str, empty: dict[str, Any]) -> Iterator[Event]:
        if self._open is None or self._open["type"] != kind:
            yield from self._begin({"type": kind, **empty})
        assert self._open is not None
        self._open[kind] += text
        yield self._delta({"type": f"{kind}_delta", kind: text})

    def _add_call(self, index: int, call: dict[str, Any]) -> Iterator[Event]:
        function = call.get("function") or {}
        if self._open is None or self._open["type"] != "tool_use" or self._call != index:
            id = call.get("id") or f"toolu_{uuid.uuid4().hex}"
            name = function.get("name", "")
            yield from self._begin({"type": "tool_use", "id": id, "name": name, "input": {}})
            self._call = index
        if text := function.get("arguments"):
            self._arguments += text
            yield self._delta({"type": "input_json_delta", "partial_json": text})

    def _begin(self, block: dict[str, Any]) -> Iterator[Event]:
        yield from self._close()
        self._open = block
        self.message["content"].append(block)
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _close(self) -> Iterator[Event]:
        if self._open is None:
            return
        if self._open["type"] == "tool_use":
            self._open["input"] = _object(self._arguments)
            self._arguments = ""
        yield {"type": "content_block_stop", "index": self._index}
        self._open = None

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    @property
    def _index(self) -> int:
        return len(self.message["content"]) - 1


def _object(arguments: str) -> dict[str, Any]:
    """Arguments as an object; empty where the answer was cut off, as its stop reason tells."""
    try:
        value = json.loads(arguments)
    except (json.JSONDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _usage(chat: dict[str, Any]) -> dict[str, Any]:
    """Anthropic counts what came from a cache apart from the other input."""
    cached = (chat.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": chat["prompt_tokens"] - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": chat["completion_tokens"],
    }
