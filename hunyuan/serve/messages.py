"""Anthropic's ``/v1/messages`` and the counting of their tokens."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hunyuan.errors import Language
from hunyuan.serve import errors, streams
from hunyuan.serve.backend import Backend
from hunyuan.serve.bridge import told
from hunyuan.serve.messages_output import MessageBuilder
from hunyuan.serve.messages_schema import CountRequest, MessagesRequest

PATH = "/v1/messages"

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def router(backend: Callable[[str], Backend]) -> APIRouter:
    """Routes of messages; ``backend`` gives the one that serves a model, or raises.

    `MessageErrors` around the application gives their errors Anthropic's shape.
    """
    routes = APIRouter(tags=["messages"])

    @routes.post(PATH, response_model=None)
    async def create(body: MessagesRequest, request: Request) -> Response:
        """Answer a conversation, whole or as events."""
        lang = errors.language_of(request.headers)
        source = backend(body.model)
        chat = body.chat()
        if body.stream:
            chunks = await streams.unless_gone(request, streams.begun(source.stream(chat, lang)))
            tokens = await source.count_tokens(chat)
            builder = MessageBuilder(source.model.id, tokens or 0)
            return streams.event_stream(_events(builder, chunks, lang))
        answer = await streams.unless_gone(request, source.complete(chat, lang))
        builder = MessageBuilder(source.model.id)
        for step in (builder.feed(answer), builder.finish()):
            for _ in step:
                pass
        return streams.json_reply(builder.message)

    @routes.post(f"{PATH}/count_tokens", response_model=None)
    async def count_tokens(body: CountRequest, request: Request) -> Response:
        """Tokens of a conversation as the model would read it."""
        count = await backend(body.model).count_tokens(body.chat())
        if count is None:
            text = {
                "en": "the server behind this one does not count tokens",
                "zh": "上游服务不提供词元计数",
            }
            lang = errors.language_of(request.headers)
            return errors.reply(501, text[lang], code="not_implemented")
        return streams.json_reply({"input_tokens": count})

    return routes


async def _events(
    builder: MessageBuilder, chunks: AsyncGenerator[dict[str, Any], None], lang: Language
) -> AsyncGenerator[bytes, None]:
    try:
        for event in builder.start():
            yield streams.event(event)
        async with aclosing(streams.with_silences(chunks)) as items:
            async for chunk in items:
                if chunk is None:
                    yield streams.event({"type": "ping"})
                    continue
                for event in builder.feed(chunk):
                    yield streams.event(event)
        for event in builder.finish():
            yield streams.event(event)
    except Exception as error:
        # The status is sent already: whatever broke, the client must hear of it as an event.
        known = told(error, "a stream of events")
        yield streams.event(_error("api_error", known.text(lang)))


class MessageErrors:
    """ASGI middleware: errors below `PATH`, whoever made them, get Anthropic's shape.

    It belongs around everything else that refuses requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and rewrite what is an error."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PATH or path.startswith(f"{PATH}/")):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        content = b""

        async def rewritten(message: Message) -> None:
            nonlocal start, content
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
            elif start is None:
                await send(message)
            elif message["type"] == "http.response.body":
                content += message.get("body", b"")
                if not message.get("more_body", False):
                    content = _translated(start["status"], content)
                    MutableHeaders(scope=start)["content-length"] = str(len(content))
                    await send(start)
                    await send({"type": "http.response.body", "body": content})

        await self._app(scope, receive, rewritten)


def _translated(status: int, content: bytes) -> bytes:
    try:
        message = json.loads(content)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return content  # not one of ours, such as an empty body
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return streams.json_bytes(_error(kind, message))


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}
