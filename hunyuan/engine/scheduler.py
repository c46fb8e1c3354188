"""Which tokens of which requests run in the next step; plain Python, no torch, no clock.

Continuous batching: every step carries one token of each answering request and, beside them, a
chunk of an unfinished prompt. The chunk is short while others answer, so that a long prompt delays
their tokens little; prompts take turns, so that a short one need not wait for a long one. While
nobody answers, prompts share the step until it is full. When the
cache is full the request that came last is put back into the queue, and goes on later from what
the cache still knows of it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from hunyuan.engine.blocks import BlockPool, Table
from hunyuan.engine.request import Request

SCORED_ROWS = 128
"""Logits of one step at most."""


@dataclass(frozen=True)
class Segment:
    """``count`` tokens of one request, from position ``start`` on."""

    request: Request
    start: int
    count: int
    blocks: Sequence[int]
    """The cache blocks of the request, in order of position; they cover start + count tokens."""

    @property
    def complete(self) -> bool:
        """Whether nothing known is left to run after this segment."""
        return self.count == self.request.pending

    @property
    def rows(self) -> range:
        """Places, counted within the segment, whose logits are wanted."""
        first = self.request.first_row(self.start, self.count)
        return range(first - self.start, self.count)


class Scheduler:
    """Requests waiting and running, and the cache blocks they hold.

    At most ``max_sequences`` run at once. Prompts run ``prefill_chunk`` tokens a step, or
    ``shared_chunk`` while others answer. The pool must have room for any one request.
    """

    def __init__(
        self, pool: BlockPool, *, max_sequences: int, prefill_chunk: int, shared_chunk: int
    ) -> None:
        self._pool = pool
        self._max_sequences = max_sequences
        self._prefill_chunk = prefill_chunk
        self._shared_chunk = min(shared_chunk, prefill_chunk)
        self._waiting: deque[Request] = deque()
        self._running: dict[Request, Table] = {}
        self._turns: deque[Request] = deque()
        # Who found no room at how many free blocks: a long prompt is not looked up every step.
        self._refused: tuple[Request, int] | None = None

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
        """Forget a finished or cancelled request; its blocks are free at once."""
        if request in self._running:
            self._release(request)
        else:
            self._waiting.remove(request)

    def cancelled(self) -> list[Request]:
        """Requests whose callers gave up."""
        return [r for r in (*self._waiting, *self._running) if r.cancelled]

    def plan(self) -> list[Segment]:
        """Admit what fits, then say what the next step runs; empty when there is nothing."""
        self._admit()
        segments: list[Segment] = []
        for request in [r for r in self._running if not _prefilling(r)]:
            if request in self._running and self._make_room(request, 1):
                segments.append(self._segment(request, 1))
        chunks = (
            self._chunks(self._shared_chunk, 1) if segments else self._chunks(self._prefill_chunk)
        )
        # Making room may have put back a request that was planned before.
        return [s for s in (*segments, *chunks) if s.request in self._running]

    def ran(self, request: Request, computed: int) -> None:
        """Note that ``computed`` tokens of a running request are in the cache."""
        self._pool.publish(self._running[request], computed, request.known)

    # ------------------------------------------------------------

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._max_sequences:
            request = self._waiting[0]
            if self._refused == (request, self._pool.free):
                return
            known = len(request.prompt) + len(request.generated)
            # What is to be scored has to run, known or not.
            reusable = known if request.scored_from is None else request.scored_from + 1
            table = self._pool.open(request.known(0, reusable))
            # Room for what is known and what follows, or a request would come and go without end.
            if not self._pool.extend(table, known + min(1, request.limit)):
                self._pool.close(table)
                self._refused = (request, self._pool.free)
                return
            self._waiting.popleft()
            self._running[request] = table
            self._turns.append(request)
            request.cached = table.known_tokens
            if request.started is None:
                request.reused = request.cached

    def _chunks(self, limit: int, most: int | None = None) -> list[Segment]:
        """At most ``limit`` tokens of the prompts whose turn it is, ``most`` prompts at most."""
        chunks: list[Segment] = []
        rows = 0
        for request in list(self._turns):
            if limit == 0 or rows >= SCORED_ROWS or len(chunks) == most:
                break
            if request not in self._running:
                continue  # gave way a moment ago
            if not _prefilling(request):
                self._turns.remove(request)
                continue
            count = min(request.pending, limit, _most_tokens(request))
            if not self._make_room(request, count):
                continue
            self._turns.remove(request)
            self._turns.append(request)
            chunks.append(self._segment(request, count))
            limit -= count
            rows += len(chunks[-1].rows)
        return chunks

    def _segment(self, request: Request, count: int) -> Segment:
        return Segment(request, request.cached, count, tuple(self._running[request].blocks))

    def _make_room(self, request: Request, count: int) -> bool:
        """Room for ``count`` more tokens, if need be at the cost of requests that came later.

        False if ``request`` itself had to give way.
        """
        while not self._pool.extend(self._running[request], request.cached + count):
            last = next(reversed(self._running))
            self._release(last)
            last.cached = 0
            self._waiting.appendleft(last)
            if last is request:
                return False
        return True

    def _release(self, request: Request) -> None:
        self._pool.close(self._running.pop(request))
        if request in self._turns:
            self._turns.remove(request)


def _prefilling(request: Request) -> bool:
    return request.pending > 1 or not request.generated


def _most_tokens(request: Request) -> int:
    """Tokens of one step: few where each is scored, as its logits are as wide as the vocabulary."""
    if request.scored_from is None:
        return request.pending
    before = request.scored_from - request.cached
    return before if before > 0 else SCORED_ROWS
