"""OpenAI's ``/v1/chat/completions``."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from starlette.responses import Response

from hunyuan.serve import errors, streams
from hunyuan.serve.backend import Backend
from hunyuan.serve.openai_events import openai_events
from hunyuan.serve.schema import ChatRequest


def router(backend: Callable[[str], Backend]) -> APIRouter:
    """The route of chats; ``backend`` gives the one that serves a model, or raises."""
    routes = APIRouter(tags=["chat"])

    @routes.post("/v1/chat/completions", response_model=None)
    async def create(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation, whole or as events."""
        lang = errors.language_of(request.headers)
        source = backend(body.model)
        body.check()
        if body.stream:
            chunks = await streams.unless_gone(request, streams.begun(source.stream(body, lang)))
            return streams.event_stream(openai_events(chunks, lang))
        return streams.json_reply(await streams.unless_gone(request, source.complete(body, lang)))

    return routes
