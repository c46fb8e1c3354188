"""OpenAI's ``/v1/completions``: text goes on, without a conversation."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from starlette.responses import Response

from hunyuan.serve import errors, streams
from hunyuan.serve.backend import ServedBackend
from hunyuan.serve.completion_schema import CompletionRequest
from hunyuan.serve.openai_events import openai_events


def router(backend: Callable[[str], ServedBackend]) -> APIRouter:
    """The route of completions; ``backend`` gives the one that serves a model, or raises."""
    routes = APIRouter(tags=["completions"])

    @routes.post("/v1/completions", response_model=None)
    async def create(body: CompletionRequest, request: Request) -> Response:
        """Continue a text, whole or as events."""
        lang = errors.language_of(request.headers)
        source = backend(body.model)
        body.check()
        if body.stream:
            pieces = await streams.unless_gone(
                request, streams.begun(source.stream_text(body, lang))
            )
            return streams.event_stream(openai_events(pieces, lang))
        whole = source.complete_text(body, lang)
        return streams.json_reply(await streams.unless_gone(request, whole))

    return routes
