"""Which tokens of which requests run in the next step; plain Python, no torch.

Continuous batching: every step carries one token of each answering request and, beside them, at
most one chunk of the oldest unfinished prompt, so that a long prompt delays nobody by more than
one chunk.
"""

from collections import deque
from dataclasses import dataclass

from hunyuan.engine.request import Request


@dataclass(frozen=True)
class Segment:
    """``count`` tokens of one request, from position ``start`` on, in cache row ``row``."""

    request: Request
    row: int
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the next token is chosen after this segment: nothing known is left to run."""
        return self.count == self.request.pending


class Scheduler:
    """Requests waiting and running; rows are the places in the cache."""

    def __init__(self, rows: int, prefill_chunk: int) -> None:
        self._free = list(range(rows - 1, -1, -1))
        self._prefill_chunk = prefill_chunk
        self._waiting: deque[Request] = deque()
        self._running: dict[Request, int] = {}

    @property
    def waiting(self) -> int:
        """Requests without a place yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests with a place in the cache."""
        return len(self._running)

    def add(self, request: Request) -> None:
        """Queue a request, first come first served."""
        self._waiting.append(request)

    def remove(self, request: Request) -> None:
        """Forget a finished or cancelled request; its row is free at once."""
        row = self._running.pop(request, None)
        if row is None:
            self._waiting.remove(request)
        else:
            self._free.append(row)

    def cancelled(self) -> list[Request]:
        """Requests whose callers gave up."""
        return [r for r in (*self._waiting, *self._running) if r.cancelled]

    def plan(self) -> list[Segment]:
        """Admit what fits, then say what the next step runs; empty when there is nothing."""
        while self._waiting and self._free:
            self._running[self._waiting.popleft()] = self._free.pop()
        segments = []
        prefilling = False
        for request, row in self._running.items():  # in order of admission
            count = request.pending
            if count > 1 or not request.generated:
                if prefilling:
                    continue
                prefilling = True
                count = min(count, self._prefill_chunk)
            segments.append(Segment(request, row, request.cached, count))
        return segments
