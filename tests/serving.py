"""An application on a free port of this machine, and the clients that talk to it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import openai
import uvicorn
from fastapi import APIRouter, FastAPI

from hunyuan.serve import errors


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serves an ASGI application; gives its address without a slash at the end."""
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    ready = threading.Event()

    async def startup(*args: Any, **kwargs: Any) -> None:
        await uvicorn.Server.startup(server, *args, **kwargs)
        ready.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(20), "the server did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def openai_client(address: str, **options: Any) -> openai.OpenAI:
    """OpenAI's client, which here refuses answers that are not exactly of its types."""
    options = {"api_key": "none", "max_retries": 0, "timeout": 60} | options
    return openai.OpenAI(base_url=f"{address}/v1", _strict_response_validation=True, **options)


def anthropic_client(address: str, **options: Any) -> anthropic.Anthropic:
    """Anthropic's client, just as strict."""
    options = {"api_key": "none", "max_retries": 0, "timeout": 60} | options
    return anthropic.Anthropic(base_url=address, _strict_response_validation=True, **options)


def http(address: str, **options: Any) -> httpx2.Client:
    """A plain client."""
    return httpx2.Client(base_url=address, timeout=60, **options)


def app_of(*routers: APIRouter) -> FastAPI:
    """An application of these routers with our errors, and nothing around it."""
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    errors.add_handlers(app)
    return app
