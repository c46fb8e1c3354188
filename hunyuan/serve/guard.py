"""What stands around every request: Host, Origin, key and size checks, headers, a last resort.

A server on the loopback address is reachable from any web page in the same browser. Requests with
a foreign Host header (DNS rebinding) or from a page elsewhere are refused, no CORS header is sent
but to listed origins, and a JSON body must say so, which a page elsewhere cannot do without a
preflight that fails.
"""

import hashlib
import hmac
import logging
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hunyuan.errors import Language
from hunyuan.serve import errors
from hunyuan.serve.bridge import internal, place_of
from hunyuan.serve.cross_origin import CrossOrigin

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 1024**2
MAX_UPLOAD_BYTES = 64 * 1024**2

UPLOADS = "/workbench/"
OPEN_PATHS = ("/", "/docs", "/health", "/favicon.ico")
OPEN_FOLDERS = ("/static/", "/docs/")

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """ASGI middleware.

    ``address`` is what is listened on, ``api_key`` what requests must carry (None: nothing),
    ``origins`` are pages elsewhere that may use the API. Only a hash of the key is kept.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        address: str,
        api_key: str | None,
        origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._loopback = address in LOOPBACK
        self._key = None if api_key is None else _digest(api_key.encode())
        self._cross_origin = CrossOrigin(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with a body limit and the security headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        lang = errors.language_of(headers)
        limit = MAX_UPLOAD_BYTES if _is_upload(scope, headers) else MAX_BODY_BYTES
        size = 0
        started = False

        async def secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                sent = MutableHeaders(scope=message)
                sent.update(SECURITY_HEADERS)
                sent.update(self._cross_origin.answer(headers))
                # An updated server must not meet the page of the old one.
                sent.setdefault("Cache-Control", "no-cache")
            await send(message)

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                # An HTTPException is the one kind that body parsing lets through.
                raise HTTPException(413, _too_large(limit, lang))
            return message

        refusal = self._refusal(scope, headers, limit, lang)
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
            await errors.reply_to(internal(error), lang)(scope, receive, secured)

    def _refusal(
        self, scope: Scope, headers: Headers, limit: int, lang: Language
    ) -> ASGIApp | None:
        chinese = lang == "zh"
        if self._loopback and _without_port(headers.get("host", "")) not in LOOPBACK:
            text = "Host 请求头不是本机地址" if chinese else "the Host header is not this machine"
            return errors.reply(403, text, code="host_not_allowed")
        if self._cross_origin.is_preflight(scope["method"], headers):
            allowed = self._cross_origin.answer(headers, preflight=True)
            return Response(status_code=204, headers=allowed)
        if self._loopback and self._cross_origin.is_foreign(headers):
            text = (
                "请求来自其他网页；若信任其来源，请用 --cors-origin 列出"
                if chinese
                else "the request comes from a page elsewhere; if you trust its origin, list it "
                "with --cors-origin"
            )
            return errors.reply(403, text, code="origin_not_allowed")
        if self._key is not None and not _is_open(scope) and not self._has_key(headers):
            text = (
                "缺少 API 密钥或密钥错误；请在 Authorization: Bearer 中给出"
                if chinese
                else "the API key is missing or wrong; send it as Authorization: Bearer KEY"
            )
            return errors.reply(
                401, text, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )
        if _needs_json(scope, headers):
            text = (
                "Content-Type 必须为 application/json"
                if chinese
                else "Content-Type must be application/json"
            )
            return errors.reply(415, text, code="unsupported_media_type")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            return errors.reply(413, _too_large(limit, lang), code="request_too_large")
        return None

    def _has_key(self, headers: Headers) -> bool:
        """Whether the request carries the key, in OpenAI's header or in Anthropic's."""
        # Header values arrive as Latin-1; back to the bytes that were sent.
        authorization = headers.get("authorization", "").encode("latin-1")
        given = authorization.removeprefix(b"Bearer ")
        if given == authorization:
            given = headers.get("x-api-key", "").encode("latin-1")
        assert self._key is not None, "without a key there is nothing to compare"
        return hmac.compare_digest(_digest(given), self._key)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _is_open(scope: Scope) -> bool:
    """Whether a path answers without the key: the page, which asks for it, health, documents."""
    path: str = scope["path"]
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def _is_upload(scope: Scope, headers: Headers) -> bool:
    raw = _media_type(headers) == "application/octet-stream"
    return raw and scope["method"] == "PUT" and scope["path"].startswith(UPLOADS)


def _needs_json(scope: Scope, headers: Headers) -> bool:
    """Whether a request has to say that its body is JSON, and does not."""
    method: str = scope["method"]
    kind = _media_type(headers)
    if method not in ("POST", "PUT", "PATCH", "DELETE") or kind == "application/json":
        return False
    # A page elsewhere can send no other method than POST without a preflight.
    empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    bare = method != "POST" and empty and not kind
    return not (bare or _is_upload(scope, headers))


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").split(";")[0].strip().lower()


def _without_port(host: str) -> str:
    """``localhost:8000`` -> ``localhost``, ``[::1]:8000`` -> ``::1``; others stay as they are."""
    name, colon, port = host.lower().rpartition(":")
    if not (colon and port.isdigit()):
        name = host.lower()
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _too_large(limit: int, lang: Language) -> str:
    megabytes = limit // 1024**2
    if lang == "zh":
        return f"请求体超过 {megabytes} MiB；请缩短或拆分"
    return f"the body exceeds {megabytes} MiB; shorten or split it"
