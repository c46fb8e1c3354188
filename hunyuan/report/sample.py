"""Fewer points, the same picture: smoothing, and thinning that keeps every spike.

Thinning cuts a curve into buckets of equally many points and keeps the lowest and the highest of
each, besides the two ends: at a bucket per pixel nothing that was visible is lost. One pass each.
"""

import numpy as np
from numpy.typing import NDArray

from hunyuan.report.run import Floats


def thin(values: Floats, buckets: int) -> NDArray[np.intp]:
    """Positions to keep, ascending, at most ``2 * buckets + 2``; what is not finite is left out."""
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) <= 2 * buckets + 2:
        return finite
    kept = {int(finite[0]), int(finite[-1])}
    for part in np.array_split(finite, buckets):
        kept.add(int(part[np.argmin(values[part])]))
        kept.add(int(part[np.argmax(values[part])]))
    return np.array(sorted(kept), np.intp)


def smooth(values: Floats, window: float) -> Floats:
    """Two-sided exponential mean over about ``window`` points; skips what is no number.

    Looking both ways it lags behind no slope; the window is narrower at the beginning, a tenth of
    the points so far, or it would blunt the steep fall there. Each value is a weighted mean of the
    curve, so that it never leaves its range.
    """
    places = np.arange(len(values), dtype=np.float64)
    widths = np.clip(places / 10, 1.0, max(window, 1.0))
    keep = (widths - 1) / (widths + 1)
    finite = np.isfinite(values)
    total = _decaying_sums(np.where(finite, values, 0.0), keep)
    weight = _decaying_sums(finite.astype(np.float64), keep)
    unknown: Floats = np.full(len(values), np.nan)
    return np.divide(total, weight, out=unknown, where=weight > 0)


def _decaying_sums(values: Floats, keep: Floats) -> Floats:
    """For each place the sum of all values, each times the ``keep`` of all borders between them.

    ``keep[i]`` belongs to the border before place i.
    """

    def one_way(values: Floats, keep: Floats) -> Floats:
        sum_ = 0.0
        found = np.empty_like(values)
        for i, (value, factor) in enumerate(zip(values.tolist(), keep.tolist(), strict=True)):
            sum_ = factor * sum_ + value
            found[i] = sum_
        return found

    back = one_way(values[::-1], np.roll(keep, -1)[::-1])[::-1]
    return one_way(values, keep) + back - values


def smoothing_window(points: int) -> int:
    """How many points to smooth over: a fiftieth of the curve."""
    return max(points // 50, 1)
