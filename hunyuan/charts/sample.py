"""Points of a function's graph: denser where it bends, with gaps at poles and jumps."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FIRST = 401
MAX_POINTS = 2400
ROUNDS = 5
BEND = 0.004
"""A piece is halved while its middle is further from the chord than this part of the height."""


def sample(
    function: Callable[[Array], Array], low: float, high: float
) -> list[tuple[float, float | None]]:
    """(x, y) from ``low`` to ``high``; y is None where the function has no value or a pole."""
    x = np.linspace(low, high, FIRST)
    y = _values(function, x)
    for _ in range(ROUNDS):
        middle = (x[:-1] + x[1:]) / 2
        chosen = _bent(x, y)
        if not chosen.any() or len(x) + int(chosen.sum()) > MAX_POINTS:
            break
        new = middle[chosen]
        x = np.concatenate([x, new])
        order = np.argsort(x, kind="stable")
        x = x[order]
        y = np.concatenate([y, _values(function, new)])[order]
    return _with_gaps(function, x, y)


def _values(function: Callable[[Array], Array], x: Array) -> Array:
    y = np.array(function(x), dtype=np.float64)
    y[~np.isfinite(y) | (np.abs(y) > 1e12)] = np.nan
    return y


def _height(y: Array) -> float:
    """The height of the picture: most of the values, not what shoots up at a pole."""
    known = y[np.isfinite(y)]
    if not len(known):
        return 1.0
    low, high = np.quantile(known, [0.05, 0.95])
    return float(max(high - low, 1e-9 * (1 + abs(high)), 1e-12))


def _bent(x: Array, y: Array) -> NDArray[np.bool_]:
    """Which pieces to halve: both sides of a bend, and pieces with a value at one end only."""
    slopes = np.diff(y) / np.diff(x)
    turn = np.abs(np.diff(slopes)) * np.minimum(np.diff(x)[:-1], np.diff(x)[1:])
    sharp = turn > BEND * 4 * _height(y)
    chosen = np.zeros(len(x) - 1, dtype=np.bool_)
    chosen[:-1] |= sharp
    chosen[1:] |= sharp
    gap = np.isnan(y)
    chosen |= gap[:-1] != gap[1:]
    return chosen


def _with_gaps(
    function: Callable[[Array], Array], x: Array, y: Array
) -> list[tuple[float, float | None]]:
    """With a None between neighbours that a pole or a jump divides."""
    height = _height(y)
    points: list[tuple[float, float | None]] = []
    for k in range(len(x)):
        if k and np.isfinite(y[k - 1]) and np.isfinite(y[k]) and abs(y[k] - y[k - 1]) > height / 60:
            middle = (x[k - 1] + x[k]) / 2
            if _broken(function, float(x[k - 1]), float(x[k]), float(y[k - 1]), float(y[k])):
                points.append((float(middle), None))
        value = None if np.isnan(y[k]) else float(f"{y[k]:.10g}")
        if value is None and points and points[-1][1] is None:
            continue  # one gap is enough
        points.append((float(f"{x[k]:.10g}"), value))
    return points


def _broken(
    function: Callable[[Array], Array], a: float, b: float, at_a: float, at_b: float
) -> bool:
    """Whether the step from a to b stays however closely one looks: a pole or a jump."""
    step = abs(at_b - at_a)
    for _ in range(20):
        middle = (a + b) / 2
        value = float(_values(function, np.array([middle]))[0])
        if np.isnan(value):
            return True
        left, right = abs(value - at_a), abs(at_b - value)
        if left > right:
            b, at_b = middle, value
        else:
            a, at_a = middle, value
    return max(abs(at_b - at_a), 0.0) > 0.5 * step
