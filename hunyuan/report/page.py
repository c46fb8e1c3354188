"""Training runs as one HTML page: curves, experts, alarms and recipe of each.

The page's size is bounded whatever the length of the runs: a budget of points and one of heat map
cells are shared among the runs, so that a million steps of a large model stay under 2 MB.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hunyuan import __version__
from hunyuan.errors import UsageError
from hunyuan.report.document import document, rounded
from hunyuan.report.heat import heat_map
from hunyuan.report.run import EvalCurve, Experts, Floats, Run, Track
from hunyuan.report.sample import smooth, smoothing_window, thin

MOST_RUNS = 12
"""Six colours, each solid and dashed: more curves nobody can tell apart."""
BUCKETS = 500
"""Buckets of all runs together, per curve."""
HEAT_CELLS = 360_000
"""Heat map cells of all runs together, where their columns can be made fewer."""
MOST_ALARMS = 200
"""Of a run; the middle ones are left out, and the page says how many."""
SCRIPTS = ("texts.js", "element.js", "chart.js", "heat.js", "run.js")


def report_page(runs: Sequence[Run]) -> bytes:
    """The page of one or several runs."""
    return document(", ".join(names(runs)) + " · hunyuan", SCRIPTS, page_data(runs))


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """What the page draws, as plain data."""
    if len(runs) > MOST_RUNS:
        raise UsageError(
            f"{len(runs)} runs: one page shows at most {MOST_RUNS}; make several pages",
            f"{len(runs)} 次运行：一页最多显示 {MOST_RUNS} 次；请分成多页",
        )
    return {
        "version": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "runs": [
            _run_data(run, name, len(runs)) for run, name in zip(runs, names(runs), strict=True)
        ],
    }


def names(runs: Sequence[Run]) -> list[str]:
    """A short name for each run, with as many parent folders as make it unique."""
    paths = [Path(run.folder).resolve() for run in runs]
    for depth in range(1, max((len(path.parts) for path in paths), default=1)):
        short = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(short)) == len(set(paths)):
            return short
    return [str(path) for path in paths]


def summary(run: Run) -> dict[str, Any]:
    """The figures a run ended with, or has reached."""
    loss = run.columns["loss"]
    bad = np.flatnonzero(~np.isfinite(loss))
    return {
        "step": int(run.at.steps[-1]),
        "tokens": int(run.at.tokens[-1]),
        "seconds": rounded(float(run.at.seconds[-1]), 8),
        "loss": rounded(run.final_loss()),
        "evals": {
            name: {
                "loss": rounded(float(curve.loss[-1])),
                "bits_per_byte": rounded(float(curve.bits_per_byte[-1])),
            }
            for name, curve in run.evals.items()
        },
        "tokens_per_second": _median(run.columns, "tokens_per_second"),
        "peak_share": _median(run.columns, "peak_share"),
        "memory_bytes": _highest(run.columns, "memory_bytes"),
        "parameters": run.start.parameters,
        "active_parameters": run.start.active_parameters,
        "processes": run.processes,
        "alarms": len(run.alarms),
        "not_finite": {"count": len(bad), "step": int(run.at.steps[bad[0]])} if len(bad) else None,
    }


def _median(columns: Mapping[str, Floats], name: str) -> float | None:
    return rounded(float(np.nanmedian(columns[name]))) if name in columns else None


def _highest(columns: Mapping[str, Floats], name: str) -> float | None:
    return rounded(float(np.nanmax(columns[name]))) if name in columns else None


def _run_data(run: Run, name: str, runs: int) -> dict[str, Any]:
    buckets = max(BUCKETS // runs, 40)
    window = smoothing_window(len(run.at.steps))
    return {
        "name": name,
        "start": {
            "time": run.start.time,
            "command": run.start.command,
            "version": run.start.version,
            "commit": run.start.commit,
        },
        "model": {name: n for name, n in run.start.config.items() if type(n) is int},
        "config": json.dumps(dict(run.start.config), ensure_ascii=False, indent=2),
        "summary": summary(run),
        "window": window,
        "train": _curves(run.at, run.columns, buckets),
        "smooth": _curves(run.at, _smoothed(run.columns, window), max(buckets // 4, 60)),
        "evals": {name: _eval_data(curve, buckets) for name, curve in run.evals.items()},
        "experts": _experts_data(run.experts, buckets, runs) if run.experts else None,
        "alarms": _alarms(run),
        "recipe": run.recipe,
    }


def _smoothed(columns: Mapping[str, Floats], window: int) -> dict[str, Floats]:
    """What is measured, smoothed where it was measured; a learning rate is set, not measured."""
    if window == 1:
        return {}
    return {
        name: np.where(np.isfinite(column), smooth(column, window), np.nan)
        for name, column in columns.items()
        if name not in ("learning_rate", "expert_learning_rate")
    }


def _curves(at: Track, columns: Mapping[str, Floats], buckets: int) -> dict[str, Any]:
    """Thinned curves over one list of points; each says which of the points it has."""
    kept = {name: thin(column, buckets) for name, column in columns.items()}
    union = np.unique(np.concatenate([*kept.values(), np.empty(0, np.intp)])).astype(np.intp)
    return {
        **_axes(at, union),
        "series": {
            name: {
                "at": _steps_between(np.searchsorted(union, rows)),
                "y": [rounded(value) for value in columns[name][rows].tolist()],
            }
            for name, rows in kept.items()
        },
    }


def _axes(at: Track, rows: NDArray[np.intp]) -> dict[str, list[int]]:
    """Where the points lie, each as the distance from the one before; time in tenths of seconds."""
    return {
        "step": _steps_between(at.steps[rows]),
        "tokens": _steps_between(at.tokens[rows]),
        "tenths": _steps_between(np.rint(at.seconds[rows] * 10)),
    }


def _steps_between(numbers: NDArray[Any]) -> list[int]:
    return [int(step) for step in np.diff(numbers, prepend=0)]


def _eval_data(curve: EvalCurve, buckets: int) -> dict[str, Any]:
    columns = {"loss": curve.loss}
    if not np.isnan(curve.bits_per_byte).all():
        columns["bits_per_byte"] = curve.bits_per_byte
    return _curves(curve.at, columns, buckets)


def _experts_data(experts: Experts, buckets: int, runs: int) -> dict[str, Any]:
    """Heat maps, and for each figure its mean, least and greatest over the layers."""
    columns = {}
    for name, column in experts.columns.items():
        columns[f"{name}.mean"] = column.sum(1) if name == "dead" else _over_layers(np.mean, column)
        if len(experts.layers) > 1 and name != "dead":
            columns[f"{name}.low"] = _over_layers(np.min, column)
            columns[f"{name}.high"] = _over_layers(np.max, column)
    return {
        "heat": heat_map(experts, HEAT_CELLS // runs),
        "curves": _curves(experts.at, columns, max(buckets // 3, 30)),
    }


def _over_layers(reduce: Any, column: Floats) -> Floats:
    """One figure per line; NaN only where no layer has one."""
    masked = np.ma.masked_invalid(column)
    found: Floats = np.ma.filled(reduce(masked, axis=1), np.nan)
    return found


def _alarms(run: Run) -> list[dict[str, Any]]:
    """Alarms, each with the place on the curves where it belongs."""
    steps = run.at.steps
    shown = run.alarms
    if len(shown) > MOST_ALARMS:
        shown = shown[: MOST_ALARMS // 2] + shown[-MOST_ALARMS // 2 :]
    return [
        {
            "step": alarm.step,
            "tokens": rounded(float(np.interp(alarm.step, steps, run.at.tokens)), 12),
            "seconds": rounded(float(np.interp(alarm.step, steps, run.at.seconds)), 8),
            "time": alarm.time,
            "level": alarm.level,
            "code": alarm.code,
            "en": alarm.en,
            "zh": alarm.zh,
        }
        for alarm in shown
    ]
