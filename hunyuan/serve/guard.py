"""What stands around every request: Host, key and size checks, security headers, a last resort.

A server on the loopback address is reachable from any web page in the same browser. Requests with
a foreign Host header (DNS rebinding) are refused, no CORS header is ever sent, and a JSON body
must say so, which a page elsewhere cannot do without a preflight that fails.
"""

import hmac
import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hunyuan.serve import errors
from hunyuan.serve.bridge import internal, place_of

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 1024 * 1024

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """ASGI middleware; ``api_key`` None asks for none, ``host`` is the address listened on."""

    def __init__(self, app: ASGIApp, *, host: str, api_key: str | None) -> None:
        self._app = app
        self._loopback = host in LOOPBACK
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with a body limit and the security headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        size = 0
        started = False

        async def secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                sent = MutableHeaders(scope=message)
                sent.update(SECURITY_HEADERS)
                # An updated server must not meet the page of the old one.
                sent.setdefault("Cache-Control", "no-cache")
            await send(message)

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                # An HTTPException is the one kind that body parsing lets through.
                raise HTTPException(413, _too_large(headers))
            return message

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, secured)
            return
        try:
            await self._app(scope, limited, secured)
        except Exception as error:
            # Our own mistake. The client gets the usual shape, the log no text of a prompt.
            log.error("%s %s failed: %s", scope["method"], scope["path"], place_of(error))
            if started:
                raise
            lang = errors.language_of(headers.get("accept-language"))
            await errors.reply_to(internal(error), lang)(scope, receive, secured)

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        chinese = errors.language_of(headers.get("accept-language")) == "zh"
        if self._loopback and _without_port(headers.get("host", "")) not in LOOPBACK:
            text = "Host 请求头不是本机地址" if chinese else "the Host header is not this machine"
            return errors.reply(403, text, code="host_not_allowed")
        if self._authorization is not None and scope["path"].startswith("/v1"):
            # Header values arrive as Latin-1; back to the bytes that were sent.
            given = headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self._authorization):
                text = (
                    "缺少 API 密钥或密钥错误；请在 Authorization: Bearer 中给出"
                    if chinese
                    else "the API key is missing or wrong; send it as Authorization: Bearer KEY"
                )
                return errors.reply(
                    401, text, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
                )
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").split(";")[0].strip().lower()
            if kind != "application/json":
                text = (
                    "Content-Type 必须为 application/json"
                    if chinese
                    else "Content-Type must be application/json"
                )
                return errors.reply(415, text, code="unsupported_media_type")
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > MAX_BODY_BYTES:
                return errors.reply(413, _too_large(headers), code="request_too_large")
        return None


def _without_port(host: str) -> str:
    """``localhost:8000`` -> ``localhost``, ``[::1]:8000`` -> ``::1``."""
    if host.startswith("["):
        return host[1:].split("]")[0]
    return host.split(":")[0].lower()


def _too_large(headers: Headers) -> str:
    megabytes = MAX_BODY_BYTES // 1024**2
    if errors.language_of(headers.get("accept-language")) == "zh":
        return f"请求体超过 {megabytes} MiB；请缩短对话"
    return f"the body exceeds {megabytes} MiB; shorten the conversation"
