"""Listening: address checks before anything is loaded, and a server that says when it is ready."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from hunyuan.errors import HunyuanError, UsageError
from hunyuan.serve.guard import LOOPBACK

if TYPE_CHECKING:
    from fastapi import FastAPI


def check_address(host: str, port: int, api_key: str | None) -> None:
    """Refuse an open address without a key, and a port that is taken; called before loading.

    Raises `UsageError` for the first, `HunyuanError` for the second.
    """
    if host not in LOOPBACK and not api_key:
        raise UsageError(
            f"host={host} is reachable from other machines: set HUNYUAN_API_KEY, or use 127.0.0.1",
            f"host={host} 可被其他机器访问：请设置 HUNYUAN_API_KEY，或使用 127.0.0.1",
        )
    _bind(host, port).close()


def run(app: "FastAPI", host: str, port: int, *, on_ready: Callable[[str], None]) -> None:
    """Serve an application of `create_app` until SIGINT or SIGTERM, then return.

    ``on_ready`` gets the address once requests are answered; port 0 takes a free one.
    """
    listener = _bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    _Server(config, app, lambda: on_ready(url)).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: "FastAPI", ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        from hunyuan.serve.api import stop_engine

        # First, so that open streams end at once with an error and not when their time is up.
        await stop_engine(self._app)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The inherited one raises the signal again afterwards; a stop that was asked for is
        # a success.
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise HunyuanError(
            f"{host}:{port} cannot be listened on ({error.strerror}); choose another with --port",
            f"无法监听 {host}:{port}（{error.strerror}）；请用 --port 换一个端口",
        ) from error
    return listener
