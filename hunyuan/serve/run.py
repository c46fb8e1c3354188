"""Listening: address checks before anything is loaded, and a server that says when it is ready."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from hunyuan.errors import HunyuanError, UsageError
from hunyuan.serve.guard import LOOPBACK

if TYPE_CHECKING:
    from fastapi import FastAPI


def check_address(host: str, port: int) -> None:
    """Raise `HunyuanError` if the port cannot be listened on; called before loading a model."""
    _bind(host, port).close()


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host in LOOPBACK


def run(
    app: "FastAPI",
    host: str,
    port: int,
    *,
    on_ready: Callable[[str], None],
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serve an application of `create_app` until SIGINT or SIGTERM, then return.

    ``on_ready`` gets the address once requests are answered; port 0 takes a free one. With a
    ``certificate`` and its ``key``, PEM files, over TLS; raises `UsageError` if they are none.
    """
    listener = _bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if certificate is None else "https"
    url = f"{scheme}://{shown}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"the certificate or its key cannot be read ({error.strerror or error}); give PEM "
            "files with --tls-cert and --tls-key",
            f"无法读取证书或密钥（{error.strerror or error}）；"
            "请用 --tls-cert 与 --tls-key 给出 PEM 文件",
        ) from error
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
        # First, so that open streams end at once with an error and not when their time is up.
        await self._app.state.host.close()
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
