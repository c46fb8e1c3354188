"""Errors as OpenAI's clients expect them: one JSON shape, the right status, either language."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from hunyuan.errors import (
    DiskFullError,
    DoesNotFitError,
    HunyuanError,
    Language,
    OverloadedError,
    UsageError,
)
from hunyuan.serve.backend import UnknownModelError, UnsupportedError
from hunyuan.serve.bridge import UnavailableError
from hunyuan.serve.schema import FieldError
from hunyuan.serve.streams import ClientGoneError


class UpstreamError(HunyuanError):
    """What the server behind this one answered, in its own words, or that it did not."""

    def __init__(
        self, en: str, zh: str, *, status: int, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(en, zh)
        self.status = status
        self.param = param
        self.code = code


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
    return JSONResponse(body(message, _kind(status), param=param, code=code), status, headers)


def reply_to(error: HunyuanError, lang: Language) -> JSONResponse:
    """The response for one of our own errors."""
    as_sent = _as_sent(error)
    headers = {} if as_sent.retry_after is None else {"Retry-After": str(as_sent.retry_after)}
    return reply(
        as_sent.status, error.text(lang), param=as_sent.param, code=as_sent.code, headers=headers
    )


def body_of(error: HunyuanError, lang: Language) -> dict[str, Any]:
    """The same for a stream, whose status has been sent already."""
    as_sent = _as_sent(error)
    kind = _kind(as_sent.status)
    return body(error.text(lang), kind, param=as_sent.param, code=as_sent.code)


def status_of(error: HunyuanError) -> int:
    """The status that `reply_to` gives it."""
    return _as_sent(error).status


@dataclass(frozen=True)
class _AsSent:
    status: int
    code: str | None
    param: str | None = None
    retry_after: int | None = None


def _as_sent(error: HunyuanError) -> _AsSent:
    if isinstance(error, OverloadedError):
        return _AsSent(429, "rate_limit_exceeded", retry_after=5)
    if isinstance(error, UnavailableError):
        return _AsSent(503, "unavailable", retry_after=error.retry_after)
    if isinstance(error, UnknownModelError):
        return _AsSent(404, "model_not_found", "model")
    if isinstance(error, UnsupportedError):
        return _AsSent(501, "not_implemented")
    if isinstance(error, UpstreamError):
        return _AsSent(error.status, error.code, error.param)
    if isinstance(error, FieldError):
        return _AsSent(400, "invalid_value", error.param)
    if isinstance(error, DiskFullError):
        return _AsSent(507, "storage_full")
    if isinstance(error, DoesNotFitError):
        return _AsSent(400, "context_length_exceeded", "messages")
    if isinstance(error, UsageError):
        return _AsSent(400, "invalid_value")
    return _AsSent(500, "server_error")


def _kind(status: int) -> str:
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    return kinds.get(status, "invalid_request_error" if status < 500 else "server_error")


def language_of(headers: Mapping[str, str]) -> Language:
    """The first of our two languages that the Accept-Language header names; English otherwise."""
    for part in headers.get("accept-language", "").lower().split(","):
        if part.strip().startswith("zh"):
            return "zh"
        if part.strip().startswith("en"):
            return "en"
    return "en"


def add_handlers(app: FastAPI) -> None:
    """Give every error of an application the one shape."""

    @app.exception_handler(HunyuanError)
    async def ours(request: Request, error: HunyuanError) -> Response:
        return reply_to(error, _language(request))

    @app.exception_handler(ClientGoneError)
    async def gone(request: Request, error: ClientGoneError) -> Response:
        return Response(status_code=499)  # nobody is there to read it

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # Where a field may have several types pydantic reports each; the deepest was meant.
        first = max(error.errors(), key=lambda found: len(found["loc"]))
        parts = [str(part) for part in first["loc"] if part != "body"]
        where = ".".join(part for part in parts if not _is_kind(part))
        chinese = _language(request) == "zh"
        if first["type"] == "json_invalid":
            text = "请求体不是有效的 JSON" if chinese else "the body is not valid JSON"
            return reply(400, text, code="invalid_json")
        text = f"{where}：无效（{first['msg']}）" if chinese else f"{where}: {first['msg']}"
        return reply(400, text, param=where or None, code="invalid_value")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path, method = request.url.path[:80], request.method
        ours: dict[int, dict[Language, str]] = {
            404: {"en": f"there is nothing at {path}", "zh": f"{path} 不存在"},
            405: {"en": f"{path} does not answer {method}", "zh": f"{path} 不支持 {method} 方法"},
        }
        text = ours.get(error.status_code, {}).get(_language(request), str(error.detail))
        code = "request_too_large" if error.status_code == 413 else None
        return reply(error.status_code, text, code=code, headers=error.headers)


def _is_kind(part: str) -> bool:
    """Whether a part of a location tells which member of a union was tried, not a field."""
    return part in ("str", "[key]") or "[" in part or part[:1].isupper() or part == "json_"


def _language(request: Request) -> Language:
    return language_of(request.headers)
