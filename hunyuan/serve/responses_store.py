"""Responses kept for ``previous_response_id``: in memory, bounded, forgotten after a while."""

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StoredResponse:
    """A finished response and the whole conversation that led to it."""

    response: dict[str, Any]
    items: tuple[dict[str, Any], ...]
    """The input, after that of the responses before it and what they answered."""

    size: int
    expires: float


class ResponseStore:
    """Keeps the latest responses; the one unused for longest goes first.

    ``max_bytes`` counts each conversation as escaped JSON. Nothing survives the process.
    """

    def __init__(
        self,
        *,
        max_entries: int = 512,
        max_bytes: int = 64 * 1024**2,
        seconds: float = 3600,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._entries: OrderedDict[str, StoredResponse] = OrderedDict()
        self._bytes = 0

    def put(self, response: dict[str, Any], items: tuple[dict[str, Any], ...]) -> None:
        """Keep a response; what is larger than the whole store is not kept."""
        size = len(json.dumps([response, items]))
        if size > self._max_bytes:
            return
        expires = self._clock() + self._seconds
        self._entries[response["id"]] = StoredResponse(response, items, size, expires)
        self._bytes += size
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._bytes -= self._entries.popitem(last=False)[1].size

    def get(self, id: str) -> StoredResponse | None:
        """The response of this id, unless it was deleted, pushed out or has expired."""
        found = self._entries.get(id)
        if found is None:
            return None
        if found.expires < self._clock():
            self.delete(id)
            return None
        self._entries.move_to_end(id)
        return found

    def item(self, id: str) -> dict[str, Any] | None:
        """An item of a kept conversation by its own id."""
        now = self._clock()
        for kept in reversed(self._entries.values()):
            items: tuple[dict[str, Any], ...] = (*kept.response["output"], *kept.items)
            found = [item for item in items if item.get("id") == id]
            if found and kept.expires >= now:
                return found[0]
        return None

    def delete(self, id: str) -> bool:
        """Forget a response; whether there was one."""
        found = self._entries.pop(id, None)
        if found is not None:
            self._bytes -= found.size
        return found is not None
