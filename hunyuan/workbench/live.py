"""What the model is doing now, out of counters that only grow.

The engine counts tokens since it began; what a person wants is "lately". The difference between
two looks gives it, and the older looks are kept for as long as "lately" lasts.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATE_SECONDS = 10.0
EXPERT_SECONDS = 60.0
_APART = 0.2
"""Seconds between looks that are kept; several pages may look at once."""

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class _Look:
    at: float
    prompt_tokens: float
    generation_tokens: float
    experts: Counts | None


class Recent:
    """The last looks at one model's counters."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: deque[_Look] = deque()
        self._model: str | None = None

    def look(
        self,
        model: str,
        prompt_tokens: float,
        generation_tokens: float,
        experts: Sequence[Sequence[float]] | None,
    ) -> dict[str, Any]:
        """Rates and expert loads lately, from the counters as they are now.

        ``experts`` has tokens by layer and expert. A new model, or counters that fell, begin anew.
        """
        counts = None if experts is None else np.array(experts, np.float64)
        now = _Look(self._clock(), prompt_tokens, generation_tokens, counts)
        if model != self._model or (self._looks and not _continues(self._looks[-1], now)):
            self._looks.clear()
            self._model = model
        if not self._looks or now.at - self._looks[-1].at >= _APART:
            self._looks.append(now)
        while len(self._looks) > 2 and now.at - self._looks[1].at >= EXPERT_SECONDS:
            self._looks.popleft()
        before = next((one for one in self._looks if now.at - one.at <= RATE_SECONDS), now)
        seconds = now.at - before.at
        rates = {
            "prompt_tokens_per_second": now.prompt_tokens - before.prompt_tokens,
            "generation_tokens_per_second": now.generation_tokens - before.generation_tokens,
        }
        shown: dict[str, Any] = {
            name: round(count / seconds, 2) if seconds >= _APART else None
            for name, count in rates.items()
        }
        shown["experts"] = _experts(counts, self._looks[0].experts)
        return shown


def _continues(before: _Look, now: _Look) -> bool:
    """Whether the counters of a later look can have grown out of those of an earlier one."""
    if now.generation_tokens < before.generation_tokens:
        return False
    if now.experts is None or before.experts is None:
        return now.experts is before.experts
    return now.experts.shape == before.experts.shape and bool((now.experts >= before.experts).all())


def _experts(now: Counts | None, before: Counts | None) -> Mapping[str, Any] | None:
    """Loads as multiples of the even share, by layer and expert, since the start and lately."""
    if now is None or not now.size:
        return None
    lately = now if before is None else now - before
    return {
        "layers": now.shape[0],
        "experts": now.shape[1],
        "tokens": int(now[0].sum()),
        "total": _shares(now),
        "recent": _shares(lately) if lately.sum() else None,
        "recent_tokens": int(lately[0].sum()),
    }


def _shares(counts: Counts) -> list[list[float]]:
    sums = counts.sum(1, keepdims=True)
    shares = np.divide(counts * counts.shape[1], sums, out=np.zeros_like(counts), where=sums > 0)
    return [[float(f"{x:.3g}") for x in row] for row in shares.tolist()]
