"""A training run as a page draws it: curves thinned, experts in few columns, alarms, the recipe."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hunyuan.report.document import rounded
from hunyuan.report.heat import columns_of
from hunyuan.report.page import summary
from hunyuan.report.run import EvalCurve, Experts, Floats, Run, Track
from hunyuan.report.sample import smooth, smoothing_window, thin

BUCKETS = 400
"""Of a curve; a page is not wider."""
HEAT_CELLS = 40_000
MOST_ALARMS = 100


def drawn(run: Run) -> dict[str, Any]:
    """Everything of a run that a page draws or lists."""
    window = smoothing_window(len(run.at.steps))
    return {
        "summary": summary(run),
        "start": {
            "time": run.start.time,
            "command": run.start.command,
            "version": run.start.version,
            "commit": run.start.commit,
        },
        "config": dict(run.start.config),
        "train": _curves(run.at, run.columns),
        "smooth": _curves(run.at, {"loss": _smoothed(run.columns["loss"], window)}),
        "evals": {name: _eval(curve) for name, curve in run.evals.items()},
        "experts": _experts(run.experts) if run.experts else None,
        "alarms": [
            {
                "step": a.step,
                "time": a.time,
                "level": a.level,
                "code": a.code,
                "en": a.en,
                "zh": a.zh,
            }
            for a in run.alarms[-MOST_ALARMS:]
        ],
        "recipe": run.recipe,
    }


def _smoothed(values: Floats, window: int) -> Floats:
    return np.where(np.isfinite(values), smooth(values, window), np.nan)


def _curves(at: Track, columns: Mapping[str, Floats]) -> dict[str, Any]:
    """Each curve thinned on its own: ``{name: {step, tokens, seconds, y}}``."""
    shown = {}
    for name, values in columns.items():
        kept = thin(values, BUCKETS)
        shown[name] = {
            "step": at.steps[kept].astype(np.int64).tolist(),
            "tokens": at.tokens[kept].astype(np.int64).tolist(),
            "seconds": np.round(at.seconds[kept], 1).tolist(),
            "y": [rounded(value) for value in values[kept].tolist()],
        }
    return shown


def _eval(curve: EvalCurve) -> dict[str, Any]:
    return _curves(curve.at, {"loss": curve.loss, "bits_per_byte": curve.bits_per_byte})


def _experts(experts: Experts) -> dict[str, Any]:
    """Loads at the end and over the run; each figure as mean, least and most over the layers."""
    figures: dict[str, Floats] = {}
    for name, column in experts.columns.items():
        if name == "dead":
            figures[name] = column.sum(1)
            continue
        figures[name] = _over_layers(np.nanmean, column)
        if len(experts.layers) > 1:
            figures[f"{name}.low"] = _over_layers(np.nanmin, column)
            figures[f"{name}.high"] = _over_layers(np.nanmax, column)
    columns = columns_of(experts, HEAT_CELLS)
    means = np.stack([experts.load[lines].mean(0) for lines in columns]).transpose(1, 2, 0)
    return {
        "layers": list(experts.layers),
        "experts": experts.load.shape[2],
        "final": _short(experts.load[-1]),
        "history": {
            "step": [int(experts.at.steps[int(lines[-1])]) for lines in columns],
            "load": [_short(layer) for layer in means],
        },
        "figures": _curves(experts.at, figures),
    }


def _over_layers(reduce: Any, column: Floats) -> Floats:
    known = ~np.isnan(column).all(1)
    found: Floats = np.full(len(column), np.nan)
    found[known] = reduce(column[known], axis=1)
    return found


def _short(values: Any) -> Sequence[Sequence[float]]:
    return [[float(f"{x:.3g}") for x in row] for row in values.tolist()]
