"""A plain completion in OpenAI's form: the engine's chunks in, pieces of text out, made whole."""

from collections.abc import Iterator
from typing import Any

from hunyuan.engine.request import Chunk, Request
from hunyuan.serve.openai_logprobs import TextLogprobs
from hunyuan.tokenizer.tokenizer import Tokenizer

Choice = dict[str, Any]


class TextWriter:
    """One choice of a completion, piece by piece."""

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        *,
        logprobs: bool,
        echo: str | None,
    ) -> None:
        """``echo`` is the prompt's text where it belongs to the answer."""
        self._index = index
        self._logprobs = TextLogprobs(tokenizer) if logprobs else None
        self._echo = echo

    def feed(self, chunk: Chunk, request: Request) -> Iterator[Choice]:
        """What a chunk of the engine adds; the last carries the reason of the end."""
        if self._echo is not None:
            places = range(len(request.prompt))
            entries = [request.prompt_logprobs.get(place) for place in places]
            yield self._choice(self._echo, request.prompt, entries)
            self._echo = None
        reason = chunk.finish_reason
        tokens = [] if chunk.token is None or chunk.logprob is None else [chunk.token]
        if chunk.text or tokens:
            yield self._choice(chunk.text, tokens, [chunk.logprob] if tokens else [])
        if reason is not None:
            yield {**self._choice(""), "finish_reason": reason}

    def _choice(self, text: str, tokens: Any = (), entries: Any = ()) -> Choice:
        logprobs = None
        if self._logprobs is not None and tokens:
            logprobs = self._logprobs.entries(tokens, entries)
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": None}


class WholeText:
    """Pieces of one choice, joined."""

    def __init__(self, index: int, *, logprobs: bool) -> None:
        self._choice: Choice = {"index": index, "text": "", "logprobs": None}
        self._choice["finish_reason"] = None
        if logprobs:
            names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
            self._choice["logprobs"] = {name: [] for name in names}

    def add(self, piece: Choice) -> None:
        """Take the next piece."""
        self._choice["text"] += piece["text"]
        self._choice["finish_reason"] = piece["finish_reason"] or self._choice["finish_reason"]
        for name, values in (piece["logprobs"] or {}).items():
            self._choice["logprobs"][name] += values

    def choice(self) -> Choice:
        """The choice of a ``text_completion``."""
        return self._choice
