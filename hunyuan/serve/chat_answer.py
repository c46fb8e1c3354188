"""A chat's answer in OpenAI's form: the engine's chunks in, deltas out, and deltas made whole."""

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from hunyuan.engine.request import Chunk, Request
from hunyuan.serve.answer import AnswerParser, Piece
from hunyuan.serve.openai_logprobs import chat_entry
from hunyuan.tokenizer.tokenizer import Tokenizer

Choice = dict[str, Any]


class ChoiceWriter:
    """One choice of an answer, piece by piece."""

    def __init__(
        self, index: int, parser: AnswerParser, tokenizer: Tokenizer, *, logprobs: bool
    ) -> None:
        self._index = index
        self._parser = parser
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._calls = 0
        self.reasoning_tokens = 0

    def begin(self) -> Choice:
        """The first: it names the role."""
        return self._choice({"role": "assistant", "content": ""})

    def feed(self, chunk: Chunk) -> Iterator[Choice]:
        """What a chunk of the engine adds; the last carries the reason of the end."""
        reasoning = self._parser.state == "reasoning"
        speaking = self._parser.speaking
        pieces = self._parser.feed(chunk.text)
        if chunk.finish_reason is not None:
            pieces += self._parser.finish()
        if reasoning and chunk.token is not None:
            self.reasoning_tokens += 1
        entries = []
        if chunk.logprob is not None and (speaking or self._parser.speaking):
            entries.append(chat_entry(self._tokenizer, chunk.logprob))
        for piece in pieces:
            said = piece.kind == "content"
            yield self._choice(self._delta(piece), entries if said else [])
            entries = [] if said else entries
        if entries:  # a token that completes no character, or is held back
            yield self._choice({"content": ""}, entries)
        if chunk.finish_reason is not None:
            called = self._calls and chunk.finish_reason == "stop"
            yield {
                **self._choice({}),
                "finish_reason": "tool_calls" if called else chunk.finish_reason,
            }

    def _delta(self, piece: Piece) -> dict[str, Any]:
        if piece.kind == "content":
            return {"content": piece.text}
        if piece.kind == "reasoning":
            return {"reasoning_content": piece.text}
        if piece.kind == "call":
            self._calls += 1
            call = {
                "index": self._calls - 1,
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": piece.text, "arguments": ""},
            }
        else:
            call = {"index": self._calls - 1, "function": {"arguments": piece.text}}
        return {"tool_calls": [call]}

    def _choice(self, delta: dict[str, Any], entries: Sequence[dict[str, Any]] = ()) -> Choice:
        return {
            "index": self._index,
            "delta": delta,
            "logprobs": {"content": list(entries), "refusal": None} if entries else None,
            "finish_reason": None,
        }


class WholeChoice:
    """Deltas of one choice, joined."""

    def __init__(self, index: int, *, logprobs: bool) -> None:
        self._index = index
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] | None = [] if logprobs else None
        self._finish_reason: str | None = None

    def add(self, choice: Choice) -> None:
        """Take the next delta."""
        delta = choice["delta"]
        self._content.append(delta.get("content") or "")
        self._reasoning.append(delta.get("reasoning_content") or "")
        for call in delta.get("tool_calls") or ():
            if call["index"] == len(self._calls):
                self._calls.append({k: call[k] for k in ("id", "type", "function")})
            else:
                self._calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        if self._entries is not None and choice["logprobs"]:
            self._entries += choice["logprobs"]["content"]
        self._finish_reason = choice["finish_reason"] or self._finish_reason

    def choice(self) -> Choice:
        """The choice of a ``chat.completion``."""
        content = "".join(self._content)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content if content or not self._calls else None,
            "refusal": None,
        }
        if reasoning := "".join(self._reasoning):
            message["reasoning_content"] = reasoning
        if self._calls:
            message["tool_calls"] = self._calls
        logprobs = None
        if self._entries is not None:
            logprobs = {"content": self._entries, "refusal": None}
        return {
            "index": self._index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self._finish_reason,
        }


def head(kind: str, model_id: str, prefix: str = "chatcmpl") -> dict[str, Any]:
    """What every object of one answer has in common."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model_id,
    }


def usage_of(requests: Sequence[Request], prompts: int, reasoning_tokens: int) -> dict[str, Any]:
    """Token counts of an answer; the choices of one of ``prompts`` prompts share it."""
    step = len(requests) // prompts
    prompt = sum(len(request.prompt) for request in requests[::step])
    cached = sum(request.reused for request in requests[::step])
    answer = sum(len(request.generated) for request in requests)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }
