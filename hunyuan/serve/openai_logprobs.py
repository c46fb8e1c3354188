"""Log-probabilities of tokens in OpenAI's two forms: of chats, and of plain completions."""

from collections.abc import Sequence
from typing import Any

from hunyuan.engine.request import TokenLogprob
from hunyuan.tokenizer.tokenizer import Tokenizer

FLOOR = -9999.0
"""JSON has no minus infinity; OpenAI's own floor for "impossible"."""


def chat_entry(tokenizer: Tokenizer, entry: TokenLogprob) -> dict[str, Any]:
    """One token of a chat's answer."""
    return {
        **_token(tokenizer, entry.token, entry.logprob),
        "top_logprobs": [_token(tokenizer, token, value) for token, value in entry.top],
    }


class TextLogprobs:
    """The tokens of a plain text in the order they come, with the characters where they begin.

    A token that completes no character begins where it does.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.stream_decoder(after_text=True)
        self._offset = 0

    def entries(
        self, tokens: Sequence[int], entries: Sequence[TokenLogprob | None]
    ) -> dict[str, Any]:
        """The next tokens; the first of a prompt has no entry."""
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(self._decoder.push(token))
        return {
            "tokens": [_text(self._tokenizer, token) for token in tokens],
            "token_logprobs": [None if e is None else max(e.logprob, FLOOR) for e in entries],
            "top_logprobs": [None if e is None else self._top(e) for e in entries],
            "text_offset": offsets,
        }

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        """The best tokens, and the chosen one where it is none of them."""
        values = {**dict(entry.top), entry.token: entry.logprob}
        return {_text(self._tokenizer, id): max(value, FLOOR) for id, value in values.items()}


def _token(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    raw = tokenizer.token_bytes(token)
    value = max(logprob, FLOOR)
    return {"token": raw.decode("utf-8", "replace"), "logprob": value, "bytes": list(raw)}


def _text(tokenizer: Tokenizer, token: int) -> str:
    """A token as a key; bytes that are no text stay told apart, as OpenAI writes them."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
