"""Requests that a browser sends from pages elsewhere: none, unless their origin is listed."""

import re
from collections.abc import Collection

from starlette.datastructures import Headers

from hunyuan.errors import UsageError

METHODS = "GET, POST, PUT, PATCH, DELETE"
HEADERS = "Authorization, Content-Type, Accept-Language, X-API-Key"
PREFLIGHT_SECONDS = 600


class CrossOrigin:
    """``allowed`` are exact origins, such as ``https://tools.example.org``."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)

    def is_foreign(self, headers: Headers) -> bool:
        """Whether a page of another origin that is not listed sends this."""
        origin = headers.get("origin")
        if origin is None or origin in self._allowed:
            return False
        host = headers.get("host", "")
        return origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower())

    def is_preflight(self, method: str, headers: Headers) -> bool:
        """Whether a browser asks beforehand for a listed origin."""
        asks = method == "OPTIONS" and "access-control-request-method" in headers
        return asks and headers.get("origin") in self._allowed

    def answer(self, headers: Headers, *, preflight: bool = False) -> dict[str, str]:
        """Headers that allow the page of a listed origin to read the answer."""
        origin = headers.get("origin")
        if origin not in self._allowed:
            return {}
        allowed = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        if preflight:
            allowed["Access-Control-Allow-Methods"] = METHODS
            allowed["Access-Control-Allow-Headers"] = HEADERS
            allowed["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        return allowed


def check_origin(origin: str) -> None:
    """Raise `UsageError` unless ``origin`` is a scheme and a host, perhaps with a port."""
    if not re.fullmatch(r"https?://[^/\s?#*@]+", origin):
        raise UsageError(
            f"cors-origin={origin!r}: must be an exact origin without a path or *, such as "
            "https://tools.example.org",
            f"cors-origin={origin!r}：必须是不带路径和 * 的确切来源，例如 https://tools.example.org",
        )
