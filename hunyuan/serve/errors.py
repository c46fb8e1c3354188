"""Errors as OpenAI's clients expect them: one JSON shape, the right status, either language."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from hunyuan.errors import DoesNotFitError, HunyuanError, Language, UsageError
from hunyuan.serve.bridge import OverloadedError, UnavailableError
from hunyuan.serve.schema import FieldError


def body(
    message: str, kind: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """``{"error": {message, type, param, code}}``."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def reply(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error response; the type follows from the status."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return JSONResponse(body(message, kind, param=param, code=code), status, headers)


def reply_to(error: HunyuanError, lang: Language) -> JSONResponse:
    """The response for one of our own errors."""
    text = error.text(lang)
    if isinstance(error, OverloadedError):
        return reply(429, text, code="rate_limit_exceeded", headers={"Retry-After": "5"})
    if isinstance(error, UnavailableError):
        return reply(503, text, code="unavailable")
    if isinstance(error, FieldError):
        return reply(400, text, param=error.param, code="invalid_value")
    if isinstance(error, DoesNotFitError):
        return reply(400, text, param="messages", code="context_length_exceeded")
    if isinstance(error, UsageError):
        return reply(400, text, code="invalid_value")
    return reply(500, text, code="server_error")


def language_of(accept_language: str | None) -> Language:
    """The first of our two languages that an Accept-Language header names; English otherwise."""
    for part in (accept_language or "").lower().split(","):
        if part.strip().startswith("zh"):
            return "zh"
        if part.strip().startswith("en"):
            return "en"
    return "en"
