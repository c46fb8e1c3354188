"""vLLM's ``/tokenize`` and ``/detokenize``: what the model reads for a text or a conversation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from hunyuan.serve.schema import FieldError, Lenient, check_prompt_end
from hunyuan.serve.translate import refuse_field
from hunyuan.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer of a model and the tokens its context holds."""

    tokenizer: Tokenizer
    context: int


class TokenizeRequest(Lenient):
    """POST /tokenize: a ``prompt`` or ``messages``."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(max_length=4096)] | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    add_special_tokens: bool = True
    """Of a prompt: begin with the model's begin-of-text token, if it has one."""
    return_token_strs: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None


class DetokenizeRequest(Lenient):
    """POST /detokenize."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1_000_000)]


def router(vocabulary: Callable[[str | None], Vocabulary]) -> APIRouter:
    """Routes of tokens; ``vocabulary`` gives that of a model, of the served one for None.

    It raises for an unknown model, and where another server holds the tokenizer.
    """
    routes = APIRouter(tags=["tokens"])

    # Not async: encoding a long text must not stop the event loop, so these run in threads.
    @routes.post("/tokenize")
    def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        """Ids of a prompt or of a conversation, their number and the size of the context."""
        known = vocabulary(body.model)
        ids = _ids(known.tokenizer, body)
        strings = None
        if body.return_token_strs:
            pieces = map(known.tokenizer.token_bytes, ids)
            strings = [piece.decode("utf-8", "replace") for piece in pieces]
        return {
            "count": len(ids),
            "max_model_len": known.context,
            "tokens": ids,
            "token_strs": strings,
        }

    @routes.post("/detokenize")
    def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        """The text of ids, special tokens included."""
        tokenizer = vocabulary(body.model).tokenizer
        return {"prompt": tokenizer.decode(body.tokens, skip_specials=False)}

    return routes


def _ids(tokenizer: Tokenizer, body: TokenizeRequest) -> list[int]:
    if body.chat_template:
        raise refuse_field("chat_template", body.chat_template)
    check_prompt_end(body.add_generation_prompt, body.continue_final_message)
    if body.messages is not None and body.prompt is None:
        return tokenizer.chat_prompt(
            body.messages,
            tools=body.tools,
            add_generation_prompt=body.add_generation_prompt is not False,
            continue_final_message=bool(body.continue_final_message),
        )
    if body.prompt is None or body.messages is not None:
        raise FieldError(
            "prompt", "prompt: give either prompt or messages", "prompt：请给出 prompt 或 messages"
        )
    encode = tokenizer.encode_prompt if body.add_special_tokens else tokenizer.encode
    return encode(body.prompt)
