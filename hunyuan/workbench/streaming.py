"""What all routes of the workbench share: errors, the reader's language, streams of events."""

import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, StreamingResponse

from hunyuan.errors import HunyuanError, Language
from hunyuan.serve import errors, streams
from hunyuan.serve.bridge import internal, place_of
from hunyuan.workbench.refusal import RefusedError

log = logging.getLogger(__name__)

Event = dict[str, Any]


def language_of(request: Request) -> Language:
    """The language the reader wants."""
    return errors.language_of(request.headers.get("accept-language"))


class WorkbenchRoute(APIRoute):
    """A route whose errors are answered here, with what `RefusedError` adds to them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler with our errors around it."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except HunyuanError as error:
                return error_response(error, language_of(request))

        return answered


def error_response(error: HunyuanError, lang: Language) -> JSONResponse:
    """The response for an error of ours."""
    if not isinstance(error, RefusedError):
        return errors.reply_to(error, lang)
    return JSONResponse({"error": _body(error, lang), **error.beside()}, error.status)


def error_event(error: Exception, lang: Language) -> Event:
    """The last event of a stream that failed; our own mistakes are logged and not quoted."""
    if not isinstance(error, HunyuanError):
        log.error("an action failed: %s", place_of(error))
        error = internal(error)
    if isinstance(error, RefusedError):
        return {"type": "error", "error": _body(error, lang), "status": error.status}
    response = errors.reply_to(error, lang)
    body = json.loads(bytes(response.body))
    return {"type": "error", "error": body["error"], "status": response.status_code}


def _body(error: RefusedError, lang: Language) -> dict[str, Any]:
    kinds = {404: "not_found_error", 409: "conflict_error"}
    kind = kinds.get(error.status, "invalid_request_error")
    shape = errors.body(error.text(lang), kind, param=error.param, code=error.code)
    return {**shape["error"], **error.extra}


class EventStream(StreamingResponse):
    """Server-sent events, for the interface's own description."""

    media_type = "text/event-stream"


def event_stream(events: AsyncGenerator[Event, None], lang: Language) -> StreamingResponse:
    """``events`` as server-sent events with keep-alives; they are closed if the reader goes away.

    An exception becomes the last event.
    """
    return streams.event_stream(_lines(events, lang))


async def _lines(
    events: AsyncGenerator[Event, None], lang: Language
) -> AsyncGenerator[bytes, None]:
    try:
        async for event in streams.with_silences(events):
            yield b": keep-alive\n\n" if event is None else _data(event)
    except Exception as error:
        yield _data(error_event(error, lang))


def _data(event: Event) -> bytes:
    return b"data: %s\n\n" % streams.json_bytes(event)
