"""An OpenAI-compatible server that is asked again where it is overloaded, gone or silent."""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from hunyuan.errors import HunyuanError, UsageError

PAUSES = (1.0, 4.0, 15.0, 60.0)
"""Seconds between one try and the next, unless the server asks for others."""

TIMEOUT = 600.0
"""Seconds that an answer may take."""

_LONGEST_PAUSE = 300.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHOWN = 160


def split_server(spec: str) -> tuple[str, str]:
    """``api:URL#MODEL`` -> URL and model; raises `UsageError`."""
    url, mark, name = spec.removeprefix("api:").partition("#")
    if not spec.startswith("api:") or not mark or not name or not urlsplit(url).hostname:
        raise UsageError(
            f"{spec!r}: a server is written api:URL#MODEL, "
            "such as api:http://127.0.0.1:8000/v1#my-model",
            f"{spec!r}：服务应写作 api:URL#模型名，例如 api:http://127.0.0.1:8000/v1#my-model",
        )
    return url.rstrip("/"), name


def is_elsewhere(url: str) -> bool:
    """Whether a server is on another machine, where asking may cost money."""
    return urlsplit(url).hostname not in _LOOPBACK


class Server:
    """Posts JSON below ``url``; its key is ``HUNYUAN_UPSTREAM_KEY``. Threads may share it."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        import httpx2

        key = os.environ.get("HUNYUAN_UPSTREAM_KEY")
        self.url = url
        self._pauses = PAUSES
        self._broken = httpx2.HTTPError
        self._stopped = threading.Event()
        self._client = httpx2.Client(
            timeout=timeout, headers={"Authorization": f"Bearer {key}"} if key else {}
        )

    def stop(self) -> None:
        """Let no request wait for another try any more."""
        self._stopped.set()

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Any]) -> Any:
        """What ``read`` finds in the answer; it raises LookupError or TypeError where nothing is.

        Raises `HunyuanError` when the last try failed, or at once for a request that is refused.
        """
        reason = ""
        for pause in (*self._pauses, None):
            wait = pause
            try:
                answer = self._client.post(f"{self.url}/{path}", json=body)
                if answer.status_code == 200:
                    return read(answer.json())
                reason = f"{answer.status_code} {answer.text[:_SHOWN]}"
                if answer.status_code < 500 and answer.status_code not in (408, 409, 429):
                    break
                wait = pause and _asked_pause(answer.headers.get("retry-after"), pause)
            except self._broken as error:
                reason = f"{type(error).__name__}: {error}"
            except (ValueError, LookupError, TypeError) as error:
                reason = f"an answer without what was asked for, {type(error).__name__}: {error}"
            if wait is None or self._stopped.wait(wait):
                break
        reason = " ".join(reason.split())
        raise HunyuanError(
            f"{self.url} does not answer ({reason}); correct it and run the same command again, "
            "what was answered is kept",
            f"{self.url} 没有应答（{reason}）；请排除故障后重新运行同一命令，已有的回答不会丢失",
        )


def _asked_pause(header: str | None, pause: float) -> float:
    """Seconds of a Retry-After header, within limits; a date in it is not waited for."""
    try:
        asked = float(header or "")
    except ValueError:
        return pause
    return max(0.0, min(asked, _LONGEST_PAUSE))
