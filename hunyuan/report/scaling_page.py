"""Scaling fits as plain data, for JSON and for one HTML page."""

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from hunyuan import __version__
from hunyuan.errors import UsageError
from hunyuan.report.document import document, rounded
from hunyuan.report.finished import Finished
from hunyuan.report.scaling import (
    BudgetLaws,
    Compute,
    CriticalBatch,
    Estimate,
    Floats,
    PowerLaw,
    fit_budgets,
)
from hunyuan.report.surface import SurfaceFit, fit_surface

SCRIPTS = ("texts.js", "element.js", "chart.js", "scaling.js")
CURVE_POINTS = 60


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Both fits of a set of runs; one that was refused is the error that says why."""

    finished: Finished
    compute: Compute
    critical: CriticalBatch | None
    budgets: BudgetLaws | UsageError
    surface: SurfaceFit | UsageError

    @property
    def fixed_share(self) -> float:
        """Largest share of a run's compute that does not depend on its size."""
        sizes = [run.parameters for run in self.finished.measurements]
        return max((self.compute.fixed_share(size) for size in sizes), default=0.0)


def fit(finished: Finished, compute: Compute, critical: CriticalBatch | None) -> Fits:
    """Fit what can be fitted; if nothing can, the error names both reasons."""
    budgets: BudgetLaws | UsageError
    surface: SurfaceFit | UsageError
    try:
        budgets = fit_budgets(finished.measurements, compute, critical)
    except UsageError as error:
        budgets = error
    try:
        surface = fit_surface(finished.measurements)
    except UsageError as error:
        surface = error
    if isinstance(budgets, UsageError) and isinstance(surface, UsageError):
        raise UsageError(
            f"nothing can be fitted: {budgets.en}; and {surface.en}",
            f"无法拟合：{budgets.zh}；并且{surface.zh}",
        )
    return Fits(
        finished=finished, compute=compute, critical=critical, budgets=budgets, surface=surface
    )


def plain(fits: Fits, flops: float | None) -> dict[str, Any]:
    """Everything that was found; ``flops`` asks for the best size at a budget."""
    return {
        "loss": fits.finished.loss_name or "training",
        "compute": asdict(fits.compute),
        "critical_batch": asdict(fits.critical) if fits.critical else None,
        "fixed_share": rounded(fits.fixed_share),
        "runs": [
            {**asdict(run), "flops": fits.compute.flops(run.parameters, run.tokens)}
            for run in fits.finished.measurements
        ],
        "passed_over": [_both(en, zh) for en, zh in fits.finished.passed_over],
        "budgets": _budgets(fits.budgets, flops),
        "surface": _surface(fits.surface, fits.compute, flops),
        "flops": flops,
    }


def scaling_page(fits: Fits, flops: float | None) -> bytes:
    """The page."""
    data = {
        **plain(fits, flops),
        "curves": _curves(fits),
        "version": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return document("hunyuan scaling", SCRIPTS, data)


def _both(en: str, zh: str) -> dict[str, str]:
    return {"en": en, "zh": zh}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    low_high = estimate.interval
    return {
        "value": rounded(estimate.value, 6),
        "interval": [rounded(end, 6) for end in low_high] if low_high else None,
    }


def _budgets(laws: BudgetLaws | UsageError, flops: float | None) -> dict[str, Any]:
    if isinstance(laws, UsageError):
        return {"reason": _both(laws.en, laws.zh)}
    return {
        "alpha": _estimate(laws.size_exponent()),
        "beta": _estimate(laws.tokens_exponent()),
        "a": rounded(laws.size.factor, 6),
        "b": rounded(laws.tokens.factor, 6),
        "budgets": [asdict(budget) for budget in laws.budgets],
        "skipped": [_both(en, zh) for en, zh in laws.skipped],
        "prediction": flops
        and {
            "size": _estimate(laws.best_size(flops)),
            "tokens": _estimate(laws.best_tokens(flops)),
        },
    }


def _surface(
    fitted: SurfaceFit | UsageError, compute: Compute, flops: float | None
) -> dict[str, Any]:
    if isinstance(fitted, UsageError):
        return {"reason": _both(fitted.en, fitted.zh)}
    figures = {
        "E": "floor",
        "A": "size_factor",
        "B": "data_factor",
        "a": "size_exponent",
        "b": "data_exponent",
    }
    return {
        **{name: _estimate(fitted.estimate(figure)) for name, figure in figures.items()},
        "alpha": _estimate(fitted.growth()),
        "prediction": flops
        and {
            "size": _estimate(fitted.best_size(flops, compute)),
            "tokens": _estimate(fitted.best_tokens(flops, compute)),
        },
    }


def _curves(fits: Fits) -> dict[str, Any]:
    """What the page draws besides the measurements."""
    curves: dict[str, Any] = {}
    if isinstance(fits.budgets, BudgetLaws):
        laws = fits.budgets
        curves["parabolas"] = [_parabola(fits, i) for i in range(len(laws.budgets))]
        ends = [b.least_flops for b in laws.budgets]
        x = np.geomspace(min(ends), max(ends), CURVE_POINTS)
        curves["laws"] = {
            "x": _short(x),
            "size": _law(x, laws.size, laws.draws, 0),
            "tokens": _law(x, laws.tokens, laws.draws, 2),
        }
    if isinstance(fits.surface, SurfaceFit):
        law = fits.surface.law
        runs = fits.finished.measurements
        curves["predicted"] = [rounded(law.loss(run.parameters, run.tokens)) for run in runs]
    return curves


def _parabola(fits: Fits, index: int) -> dict[str, Any]:
    assert isinstance(fits.budgets, BudgetLaws)
    budget = fits.budgets.budgets[index]
    sizes = [run.parameters for run in fits.finished.measurements if run.name in budget.runs]
    x = np.geomspace(min(sizes), max(sizes), CURVE_POINTS)
    return {"x": _short(x), "y": _short(np.polyval(budget.curve, np.log10(x)).astype(np.float64))}


def _law(x: Floats, law: PowerLaw, draws: Floats | None, column: int) -> dict[str, Any]:
    found = {"y": _short(np.array([law.at(flops) for flops in x.tolist()]))}
    if draws is not None:
        values = draws[:, [column]] + draws[:, [column + 1]] * np.log(x)
        low, high = np.exp(np.percentile(values, [2.5, 97.5], axis=0))
        found |= {"low": _short(low), "high": _short(high)}
    return found


def _short(values: Floats) -> list[float | None]:
    return [rounded(value, 5) if math.isfinite(value) else None for value in values.tolist()]
