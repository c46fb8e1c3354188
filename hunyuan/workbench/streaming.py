"""What all routes of the workbench share: errors, the reader's language, streams of events."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse

from hunyuan.errors import HunyuanError, Language
from hunyuan.serve import errors, streams
from hunyuan.serve.bridge import told
from hunyuan.serve.streams import EventStream as EventStream
from hunyuan.workbench.refusal import RefusedError

Event = dict[str, Any]


def language_of(request: Request) -> Language:
    """The language the reader wants."""
    return errors.language_of(request.headers)


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
    known = told(error, "an action")
    if isinstance(known, RefusedError):
        return {"type": "error", "error": _body(known, lang), "status": known.status}
    body = errors.body_of(known, lang)
    return {"type": "error", "error": body["error"], "status": errors.status_of(known)}


def _body(error: RefusedError, lang: Language) -> dict[str, Any]:
    kinds = {404: "not_found_error", 409: "conflict_error"}
    kind = kinds.get(error.status, "invalid_request_error")
    shape = errors.body(error.text(lang), kind, param=error.param, code=error.code)
    return {**shape["error"], **error.extra}


class Body(BaseModel):
    """What a request's JSON must be: the fields it names, of their own types, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


def event_stream(events: AsyncGenerator[Event, None], lang: Language) -> EventStream:
    """``events`` as server-sent events with keep-alives; they are closed if the reader goes away.

    An exception becomes the last event.
    """
    return streams.event_stream(_lines(events, lang))


async def _lines(
    events: AsyncGenerator[Event, None], lang: Language
) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(streams.with_silences(events)) as items:
            async for event in items:
                yield streams.KEEP_ALIVE if event is None else streams.data_event(event)
    except Exception as error:
        yield streams.data_event(error_event(error, lang))
