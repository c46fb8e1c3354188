"""Listening: address checks before anything is loaded, and a server that says when it is ready."""

import contextlib
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from hunyuan.errors import HunyuanError, UsageError
from hunyuan.serve.guard import LOOPBACK


def check_address(host: str, port: int, api_key: str | None) -> None:
    """Refuse an open address without a key, and a port that is taken; called before loading."""
    if host not in LOOPBACK and not api_key:
        raise UsageError(
            f"host={host} is reachable from other machines: set HUNYUAN_API_KEY, or use 127.0.0.1",
            f"host={host} 可被其他机器访问：请设置 HUNYUAN_API_KEY，或使用 127.0.0.1",
        )
    _bind(host, port).close()


def run(app: FastAPI, host: str, port: int, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``on_ready`` gets the address once requests are answered."""
    listener = _bind(host, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    shown = f"[{host}]" if ":" in host else host
    server = _Server(config, lambda: on_ready(f"http://{shown}:{port}"))
    # uvicorn raises the signal again after a clean shutdown; being stopped is no failure here.
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise HunyuanError(
            f"{host}:{port} cannot be listened on ({error.strerror}); choose another with --port",
            f"无法监听 {host}:{port}（{error.strerror}）；请用 --port 换一个端口",
        ) from error
    return listener
