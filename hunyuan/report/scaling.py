"""Scaling laws by budget: what size and how many tokens are best for a given compute.

N is active parameters, D training tokens, C compute in FLOPs, L the final loss. The forms are those
of the Hunyuan-Large report, arXiv 2411.02265, section 2.3.1:

- C = 9.59 N D + 2.3e8 D in place of 6 N D. The report does not say where the constants come from.
  They belong to its own models: below about 24 million active parameters the second term is the
  larger one, so `SIX` is offered for small runs.
- At each budget the loss is a parabola in log N. Its lowest points give N_opt = a C^alpha and
  D_opt = b C^beta, each a straight line in logarithms.
- C_min = C / (1 + B / B_crit(L)) takes out what large batches cost. This printed form is that of
  Kaplan et al., arXiv 2001.08361, section 5: the least compute, reached for B far below B_crit.
  Often quoted is the factor with B_crit / B; there it belongs to the least number of *steps*. It is
  offered as ``inverse``, because whether the report used what it printed cannot be checked. The
  report gives no B_crit; Kaplan's form is B_crit(L) = scale / L^(1 / exponent), in tokens.

Intervals are 95 % percentiles of a bootstrap of residuals: those of all parabolas are pooled, each
freed from its leverage, and drawn anew for every budget. They tell how noise of the losses carries
over, not whether a parabola or a power law is the right form. Costs milliseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hunyuan.errors import UsageError

Floats = NDArray[np.float64]
Interval = tuple[float, float] | None
CminForm = Literal["printed", "inverse"]

LEAST_SIZES = 3
LEAST_BUDGETS = 3
SAME_BUDGET = 1.1
"""Runs whose compute differs by less than this factor share a budget."""
DRAWS = 500


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One finished run."""

    name: str
    parameters: float
    """Active parameters N."""
    tokens: float
    """Training tokens D."""
    loss: float
    """Final loss in nats per token."""
    batch_tokens: float
    """Tokens of one step B."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """C = pair * N * D + token * D."""

    pair: float
    """FLOPs per active parameter and token."""
    token: float
    """FLOPs per token whatever the size."""

    def flops(self, parameters: float, tokens: float) -> float:
        """Compute of a run."""
        return (self.pair * parameters + self.token) * tokens

    def tokens(self, parameters: float, flops: float) -> float:
        """Tokens that a budget pays for."""
        return flops / (self.pair * parameters + self.token)

    def fixed_share(self, parameters: float) -> float:
        """Share of the compute that does not depend on the size."""
        return self.token / (self.pair * parameters + self.token)


PAPER = Compute(pair=9.59, token=2.3e8)
SIX = Compute(pair=6.0, token=0.0)


@dataclass(frozen=True, kw_only=True)
class CriticalBatch:
    """B_crit(L) = scale / L^(1 / exponent) in tokens, and the form of C_min that uses it."""

    scale: float
    """Critical batch at a loss of 1 nat."""
    exponent: float
    """Kaplan's alpha_B."""
    form: CminForm = "printed"
    """``printed``: C / (1 + B / B_crit). ``inverse``: C / (1 + B_crit / B)."""

    def __post_init__(self) -> None:
        for name in ("scale", "exponent"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(
                    f"critical batch: {name}={value} must be above 0 and finite",
                    f"临界批量：{name}={value} 必须大于 0 且有限",
                )

    def at(self, loss: float) -> float:
        """Critical batch at a loss."""
        return float(self.scale / loss ** (1 / self.exponent))

    def least_compute(self, flops: float, batch_tokens: float, loss: float) -> float:
        """C_min of a run."""
        ratio = batch_tokens / self.at(loss)
        return flops / (1 + (ratio if self.form == "printed" else 1 / ratio))


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = factor * C^exponent."""

    factor: float
    exponent: float

    def at(self, flops: float) -> float:
        """The value at a budget."""
        return float(self.factor * flops**self.exponent)

    def inverse(self, value: float) -> float:
        """The budget at which the law has a value."""
        return float((value / self.factor) ** (1 / self.exponent))


PAPER_SIZE = PowerLaw(factor=5.9e-3, exponent=0.5305)
"""The report's N_opt(C_min)."""
PAPER_TOKENS = PowerLaw(factor=3.2, exponent=0.50)
"""The report's D_opt(C_min)."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One compute budget and its parabola."""

    flops: float
    least_flops: float
    """C_min at the lowest point; the budget itself without a critical batch."""
    runs: tuple[str, ...]
    curve: tuple[float, float, float]
    """Loss = curve[0] x^2 + curve[1] x + curve[2] with x = log10 N."""
    size: float
    """N at the lowest point."""
    tokens: float
    """What the budget pays for at that size."""
    loss: float
    """Loss at the lowest point."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval, where there is one."""

    value: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class BudgetLaws:
    """N_opt and D_opt as power laws of compute."""

    budgets: tuple[Budget, ...]
    skipped: tuple[tuple[str, str], ...]
    """Budgets without a lowest point, and why: English and Chinese."""
    size: PowerLaw
    tokens: PowerLaw
    draws: Floats | None
    """Bootstrap: rows of log factor and exponent of N_opt, then of D_opt."""

    def size_exponent(self) -> Estimate:
        """Alpha."""
        return Estimate(value=self.size.exponent, interval=self._interval(1))

    def tokens_exponent(self) -> Estimate:
        """Beta."""
        return Estimate(value=self.tokens.exponent, interval=self._interval(3))

    def best_size(self, flops: float) -> Estimate:
        """N_opt at a budget."""
        return Estimate(value=self.size.at(flops), interval=self._interval(0, flops))

    def best_tokens(self, flops: float) -> Estimate:
        """D_opt at a budget."""
        return Estimate(value=self.tokens.at(flops), interval=self._interval(2, flops))

    def _interval(self, column: int, flops: float | None = None) -> Interval:
        if self.draws is None:
            return None
        values = self.draws[:, column]
        if flops is not None:
            values = np.exp(values + self.draws[:, column + 1] * math.log(flops))
        return interval_of(values)


def interval_of(draws: Floats) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def fit_budgets(
    runs: Sequence[Measurement],
    compute: Compute = PAPER,
    critical: CriticalBatch | None = None,
    *,
    seed: int = 0,
) -> BudgetLaws:
    """Fit parabolas by budget and power laws through their lowest points, or say why not."""
    groups = [(group, _middle(group, compute)) for group in group_by_budget(runs, compute)]
    fitted, skipped = [], []
    for group, flops in groups:
        reason = _why_no_parabola(group, flops)
        if reason:
            skipped.append(reason)
        else:
            fitted.append((group, flops))
    if len(fitted) < LEAST_BUDGETS:
        raise _too_few_budgets(len(fitted), skipped)
    budgets = tuple(_budget(group, flops, compute, critical) for group, flops in fitted)
    size, tokens = _laws(budgets)
    return BudgetLaws(
        budgets=budgets,
        skipped=tuple(skipped),
        size=size,
        tokens=tokens,
        draws=_bootstrap(fitted, compute, critical, np.random.default_rng(seed)),
    )


def group_by_budget(runs: Sequence[Measurement], compute: Compute) -> list[list[Measurement]]:
    """Runs of about the same compute, by ascending compute."""
    groups: list[list[Measurement]] = []
    lowest = 0.0
    for run in sorted(runs, key=lambda run: compute.flops(run.parameters, run.tokens)):
        flops = compute.flops(run.parameters, run.tokens)
        if not groups or flops > lowest * SAME_BUDGET:
            groups.append([])
            lowest = flops
        groups[-1].append(run)
    return groups


def _middle(group: Sequence[Measurement], compute: Compute) -> float:
    """The budget of a group: the geometric mean."""
    logs = [math.log(compute.flops(run.parameters, run.tokens)) for run in group]
    return math.exp(sum(logs) / len(logs))


def _points(group: Sequence[Measurement]) -> tuple[Floats, Floats]:
    x = np.log10([run.parameters for run in group])
    return x, np.array([run.loss for run in group])


def _why_no_parabola(group: Sequence[Measurement], flops: float) -> tuple[str, str] | None:
    """Why a budget has no lowest point, in English and Chinese."""
    sizes = sorted({run.parameters for run in group})
    if len(sizes) < LEAST_SIZES:
        return (
            f"{flops:.3g} FLOPs: {len(sizes)} size{'s' * (len(sizes) != 1)}, a parabola needs "
            f"{LEAST_SIZES}; train other sizes with the same compute",
            f"{flops:.3g} FLOPs：只有 {len(sizes)} 种规模，抛物线需要 {LEAST_SIZES} 种；"
            "请用相同计算量训练其他规模",
        )
    x, y = _points(group)
    a, b, _ = np.polyfit(x, y, 2)
    lowest = -b / (2 * a) if a > 0 else math.nan
    if not x.min() <= lowest <= x.max():
        where, wo = _beyond(float(x[np.argmin(y)]), x)
        return (
            f"{flops:.3g} FLOPs: no lowest loss between {sizes[0]:.3g} and {sizes[-1]:.3g} "
            f"parameters; train {where} sizes",
            f"{flops:.3g} FLOPs：在 {sizes[0]:.3g} 与 {sizes[-1]:.3g} 参数之间没有损失最低点；"
            f"请训练{wo}的规模",
        )
    return None


def _beyond(best: float, x: Floats) -> tuple[str, str]:
    if best == x.max():
        return "larger", "更大"
    return ("smaller", "更小") if best == x.min() else ("more", "更多")


def _too_few_budgets(found: int, skipped: Sequence[tuple[str, str]]) -> UsageError:
    en = "; ".join(reason for reason, _ in skipped[:3])
    zh = "；".join(reason for _, reason in skipped[:3])
    return UsageError(
        f"{found} budget{'s' * (found != 1)} with a lowest loss, power laws need {LEAST_BUDGETS}"
        + (f" ({en})" if en else "; train several sizes at further budgets"),
        f"有损失最低点的预算只有 {found} 个，幂律需要 {LEAST_BUDGETS} 个"
        + (f"（{zh}）" if zh else "；请在更多预算下训练多种规模"),
    )


def _budget(
    group: Sequence[Measurement],
    flops: float,
    compute: Compute,
    critical: CriticalBatch | None,
) -> Budget:
    """The parabola of a budget."""
    x, y = _points(group)
    # Centred: powers of log10 N lie too close together to be told apart well.
    shift = x.mean()
    a, b, c = np.polyfit(x - shift, y, 2)
    lowest = -b / (2 * a)
    size, loss = 10 ** (lowest + shift), float(c + b * lowest / 2)
    batch = float(np.median([run.batch_tokens for run in group]))
    return Budget(
        flops=flops,
        least_flops=_least(critical, flops, batch, loss),
        runs=tuple(run.name for run in group),
        curve=(float(a), float(b - 2 * a * shift), float(c - b * shift + a * shift**2)),
        size=float(size),
        tokens=compute.tokens(float(size), flops),
        loss=loss,
    )


def _laws(budgets: Sequence[Budget]) -> tuple[PowerLaw, PowerLaw]:
    x = np.log([budget.least_flops for budget in budgets])
    laws = []
    for values in ([b.size for b in budgets], [b.tokens for b in budgets]):
        exponent, factor = np.polyfit(x - x.mean(), np.log(values), 1)
        laws.append(
            PowerLaw(factor=math.exp(float(factor - exponent * x.mean())), exponent=float(exponent))
        )
    return laws[0], laws[1]


def _bootstrap(
    fitted: Sequence[tuple[Sequence[Measurement], float]],
    compute: Compute,
    critical: CriticalBatch | None,
    random: np.random.Generator,
) -> Floats | None:
    """Laws of losses drawn anew; None where three points a parabola leave no residual."""
    smooth, residuals = [], []
    for group, _ in fitted:
        x, y = _points(group)
        basis = np.vander(x - x.mean(), 3)
        hat = basis @ np.linalg.pinv(basis)
        smooth.append(hat @ y)
        freedom = 1 - np.diag(hat)
        free = freedom > 1e-6
        residuals.extend(((y - hat @ y)[free] / np.sqrt(freedom[free])).tolist())
    if not residuals:
        return None
    sizes, losses, least = [], [], []
    for (group, flops), base in zip(fitted, smooth, strict=True):
        drawn = base[:, None] + random.choice(residuals, (len(base), DRAWS))
        x, _ = _points(group)
        a, b, c = np.polyfit(x - x.mean(), drawn, 2)
        # Parabolas that noise turns upside down have no lowest point.
        lowest = np.where(a > 0, -b / (2 * a), np.nan)
        sizes.append(np.log(10) * (lowest + x.mean()))
        losses.append(c + b * lowest / 2)
        batch = float(np.median([run.batch_tokens for run in group]))
        least.append([_least(critical, flops, batch, loss) for loss in losses[-1].tolist()])
    log_size, log_least = np.array(sizes), np.log(np.array(least))
    budgets = np.array([[flops] for _, flops in fitted])
    log_tokens = np.log(budgets / (compute.pair * np.exp(log_size) + compute.token))
    rows = np.stack([*_lines(log_least, log_size), *_lines(log_least, log_tokens)], axis=1)
    sound = rows[np.isfinite(rows).all(axis=1)]
    # Where more than a few draws fail nothing is certain enough for an interval.
    return sound if len(sound) >= 0.95 * DRAWS else None


def _least(critical: CriticalBatch | None, flops: float, batch: float, loss: float) -> float:
    if critical is None:
        return flops
    return critical.least_compute(flops, batch, loss) if loss > 0 else math.nan


def _lines(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Intercept and slope of the least squares line in each column."""
    across = x - x.mean(axis=0)
    slope = (across * y).sum(axis=0) / (across**2).sum(axis=0)
    return y.mean(axis=0) - slope * x.mean(axis=0), slope
