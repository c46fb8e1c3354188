"""Bytes from a URL to a file: resumed byte-wise, bounded, never hanging.

`fetch` appends to its target, so after ``kill -9`` the next call asks only for the rest (HTTP
``Range``). It retries as long as each attempt brings bytes and gives up after a few that bring
none; a server that cannot be reached at all fails at once, because the caller has other sources.
Nothing here judges content: callers compare hashes and throw away what is wrong. Certificates and
proxies are the system's (``SSL_CERT_FILE``, ``https_proxy`` and so on).
"""

import hashlib
import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from hunyuan.errors import BadDataError, HunyuanError
from hunyuan.files import human_bytes, require_free_space

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte before an attempt counts as broken
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry that follows an attempt without a byte
TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
AGENT = "hunyuan"

OnBytes = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a pull is: ``done`` of ``total`` bytes of ``phase`` from ``source`` (0: not known)."""

    phase: Literal["waiting", "resolving", "downloading", "unpacking", "verifying"]
    source: str
    done: int = 0
    total: int = 0


OnProgress = Callable[[Progress], None]


class _BrokenError(Exception):
    """An attempt ended early, and whether another one may help.

    ``retry``: "yes", "never" (the server refused), or "once reached" (no connection, which is
    worth waiting for only if there was one before).
    """

    def __init__(self, en: str, zh: str, retry: Literal["yes", "never", "once reached"]) -> None:
        super().__init__(en)
        self.en = en
        self.zh = zh
        self.retry = retry

    def final(self, url: str) -> HunyuanError:
        """The error for the user, which names the server."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        return HunyuanError(f"{host}: {self.en}", f"{host}：{self.zh}")


def fetch(
    url: str,
    target: Path,
    *,
    limit: int,
    on_bytes: OnBytes,
    headers: Mapping[str, str] | None = None,
    reserve: int = 0,
) -> None:
    """Bring ``target`` to the full content of ``url``, going on where an earlier call stopped.

    At most ``limit`` bytes are accepted. Before the first byte the disk must have room for the
    rest plus ``reserve`` bytes. ``on_bytes(done, total)`` is called after every megabyte; total
    is None where the server does not say. Raises `HunyuanError` if the server fails,
    `BadDataError` beyond the limit, `DoesNotFitError` if the disk is too small.
    """
    reached = False
    stalls = 0
    while True:
        before = _size(target)
        try:
            _attempt(url, target, limit, on_bytes, headers or {}, reserve)
            return
        except _BrokenError as error:
            moved = _size(target) > before
            reached = reached or error.retry == "yes"
            stalls = 0 if moved else stalls + 1
            hopeless = error.retry == "never" or not reached
            if hopeless or stalls > len(PAUSES):
                raise error.final(url) from error.__cause__
        time.sleep(PAUSES[max(stalls - 1, 0)])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _attempt(
    url: str,
    target: Path,
    limit: int,
    on_bytes: OnBytes,
    headers: Mapping[str, str],
    reserve: int,
) -> None:
    done = _size(target)
    with closing(_open(url, headers, done)) as response:
        start, total = _extent(response)
        if response.status == 416:
            # Nothing lies beyond our bytes: complete, or longer than the real thing.
            if total == done:
                return
            target.unlink()
            raise _BrokenError("fewer bytes there than here", "对方的字节数少于本机", retry="yes")
        if start not in (0, done):
            raise _BrokenError(
                "answers with another range than asked for", "返回的区间与请求不符", retry="never"
            )
        if total is not None and total > limit:
            raise _too_long(url, total, limit)
        done = start
        if total is not None:
            require_free_space(target, total - done + reserve)
        with target.open("r+b" if target.exists() else "wb") as file:
            file.truncate(done)
            file.seek(done)
            while chunk := _read(response):
                if done + len(chunk) > limit:
                    raise _too_long(url, done + len(chunk), limit)
                file.write(chunk)
                done += len(chunk)
                on_bytes(done, total)
    if total is not None and done < total:
        raise _BrokenError(
            f"the connection ended after {done} of {total} bytes",
            f"连接在第 {done} 字节（共 {total}）处中断",
            retry="yes",
        )


def _too_long(url: str, got: int, limit: int) -> BadDataError:
    name = urlsplit(url).path.rpartition("/")[2]
    return BadDataError(
        f"{name}: at least {human_bytes(got)} are offered where at most {human_bytes(limit)} "
        "are possible; refused",
        f"{name}：对方提供至少 {human_bytes(got)}，而上限为 {human_bytes(limit)}；已拒绝",
    )


def _open(url: str, headers: Mapping[str, str], start: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": AGENT})
    for key, value in headers.items():
        # Not sent again after a redirect: a token for the hub is none of its CDN's business.
        request.add_unredirected_header(key, value)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
        return response
    except urllib.error.HTTPError as error:
        if error.code == 416 and isinstance(error.fp, http.client.HTTPResponse):
            return error.fp
        code = f"HTTP {error.code}"
        raise _BrokenError(code, code, "yes" if error.code in TRANSIENT else "never") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(*_reason(error), retry="once reached") from error


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """First byte and total length of the content, from ``Content-Range`` or ``-Length``."""
    match = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")
    )
    if response.status in (206, 416) and match:
        first, total = match.groups()
        return int(first or 0), None if total == "*" else int(total)
    if response.status in (206, 416):
        return -1, None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(*_reason(error), retry="yes") from error


def _reason(error: BaseException) -> tuple[str, str]:
    """The innermost cause of a network error in a few words, English and Chinese."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return _reason(inner)
    if isinstance(error, TimeoutError):
        return "timed out", "超时"
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved", "无法解析主机名"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0], text.splitlines()[0]


def read_small(url: str, *, limit: int, headers: Mapping[str, str]) -> bytes:
    """The content of ``url`` in memory, at most ``limit`` bytes; errors as for `fetch`."""
    try:
        with closing(_open(url, headers, 0)) as response:
            content = bytearray()
            while chunk := _read(response):
                content += chunk
                if len(content) > limit:
                    raise _too_long(url, len(content), limit)
            return bytes(content)
    except _BrokenError as error:
        raise error.final(url) from error.__cause__


def require_reachable(url: str, seconds: float) -> None:
    """Raise `HunyuanError` unless the server of ``url`` answers anything within ``seconds``.

    A black-holed network may hold a name lookup or each of several addresses for a long time,
    which no socket timeout bounds; a thread that is left behind does.
    """
    outcome: list[_BrokenError | None] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": AGENT})
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            outcome.append(None)
        except urllib.error.HTTPError as error:
            error.close()
            outcome.append(None)
        except (OSError, http.client.HTTPException) as error:
            outcome.append(_BrokenError(*_reason(error), retry="never"))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    failure = outcome[0] if outcome else _BrokenError("timed out", "超时", retry="never")
    if failure:
        raise failure.final(url)


def sha256_of(path: Path, on_bytes: OnBytes) -> str:
    """The sha256 of a file, read in blocks; ``on_bytes(done, total)`` after each block."""
    total = path.stat().st_size
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(4 * CHUNK):
            digest.update(chunk)
            done += len(chunk)
            on_bytes(done, total)
    return digest.hexdigest()


def require_hash(path: Path, name: str, expected: str, on_bytes: OnBytes) -> None:
    """Raise `BadDataError` and delete ``path`` unless its sha256 is ``expected``."""
    got = sha256_of(path, on_bytes)
    if got != expected:
        path.unlink()
        raise BadDataError(
            f"{name}: sha256 is {got}, expected {expected}; the file was deleted",
            f"{name}：sha256 为 {got}，应为 {expected}；文件已删除",
        )
