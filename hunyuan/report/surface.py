"""One law through all runs: L(N, D) = E + A / N^a + B / D^b.

As in Hoffmann et al., arXiv 2203.15556, the Huber loss of log predicted less log measured loss is
minimised, with delta = 1e-3, from a grid of starting points. Needs SciPy, the extra ``scaling``.
The best size at a budget follows from the law alone: N_opt grows like C^(b / (a + b)), exactly so
where compute is proportional to N D.

Intervals are 95 % percentiles of a bootstrap of the residuals in log loss, each enlarged by
sqrt(n / (n - 5)) for the five fitted figures. A few seconds.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import numpy as np

from hunyuan.errors import UsageError
from hunyuan.report.scaling import Compute, Estimate, Floats, Measurement, interval_of

DELTA = 1e-3
DRAWS = 200
LEAST_RUNS = 7
LEAST_VALUES = 3
STEEPEST = 3.0
"""Exponents are looked for between 0 and this."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The law: figures as ``E``, ``A``, ``B``, ``a``, ``b`` and what the bootstrap drew."""

    floor: float
    """E, the loss that neither size nor data reduce."""
    size_factor: float
    """A."""
    size_exponent: float
    """a."""
    data_factor: float
    """B."""
    data_exponent: float
    """b."""

    def loss(self, parameters: float, tokens: float) -> float:
        """Predicted loss."""
        by_size = self.size_factor / parameters**self.size_exponent
        by_data = self.data_factor / tokens**self.data_exponent
        return float(self.floor + by_size + by_data)

    def growth(self) -> float:
        """Alpha, the exponent of N_opt in compute proportional to N D."""
        return self.data_exponent / (self.size_exponent + self.data_exponent)

    def best_size(self, flops: float, compute: Compute) -> float:
        """The size with the least loss at a budget."""
        low, high = 0.0, math.log(flops)
        for _ in range(4):
            grid = np.linspace(low, high, 201)
            losses = [self.loss(n, compute.tokens(n, flops)) for n in np.exp(grid).tolist()]
            best = int(np.argmin(losses))
            low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 200)])
        return math.exp((low + high) / 2)


@dataclass(frozen=True, kw_only=True)
class SurfaceFit:
    """The fitted law and those of the bootstrap."""

    law: Surface
    draws: tuple[Surface, ...]

    def estimate(self, figure: str) -> Estimate:
        """A field of `Surface` with its interval."""
        draws = np.array([getattr(law, figure) for law in self.draws])
        return Estimate(value=getattr(self.law, figure), interval=interval_of(draws))

    def growth(self) -> Estimate:
        """Alpha with its interval."""
        draws = np.array([law.growth() for law in self.draws])
        return Estimate(value=self.law.growth(), interval=interval_of(draws))

    def best_size(self, flops: float, compute: Compute) -> Estimate:
        """N_opt at a budget."""
        draws = np.array([law.best_size(flops, compute) for law in self.draws])
        return Estimate(value=self.law.best_size(flops, compute), interval=interval_of(draws))

    def best_tokens(self, flops: float, compute: Compute) -> Estimate:
        """D_opt at a budget."""
        laws = [self.law, *self.draws]
        found = [compute.tokens(law.best_size(flops, compute), flops) for law in laws]
        return Estimate(value=found[0], interval=interval_of(np.array(found[1:])))


def fit_surface(runs: Sequence[Measurement], *, seed: int = 0) -> SurfaceFit:
    """Fit the law to all runs, or say why not."""
    _refuse_what_cannot_be_told_apart(runs)
    optimize = _scipy()
    problem = _Problem(runs)
    starts = [problem.start(*point) for point in problem.grid()]
    best = min((problem.solve(optimize, start, problem.log_loss) for start in starts), key=_cost)
    predicted = problem.predict(best.x)
    residuals = (problem.log_loss - predicted) * math.sqrt(len(runs) / (len(runs) - 5))
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        drawn = predicted + random.choice(residuals, len(runs))
        draws.append(problem.law(problem.solve(optimize, best.x, drawn).x))
    return SurfaceFit(law=problem.law(best.x), draws=tuple(draws))


def _refuse_what_cannot_be_told_apart(runs: Sequence[Measurement]) -> None:
    sizes = {run.parameters for run in runs}
    tokens = {run.tokens for run in runs}
    for count, least, en, zh in (
        (len(runs), LEAST_RUNS, "runs", "次运行"),
        (len(sizes), LEAST_VALUES, "sizes", "种规模"),
        (len(tokens), LEAST_VALUES, "numbers of tokens", "种词元数"),
    ):
        if count < least:
            raise UsageError(
                f"{count} {en}: E + A/N^a + B/D^b needs at least {least}; train more",
                f"只有 {count} {zh}：E + A/N^a + B/D^b 至少需要 {least}；请再训练一些",
            )
    x = np.log([[run.parameters, run.tokens] for run in runs])
    if abs(np.corrcoef(x.T)[0, 1]) > 0.999:
        raise UsageError(
            "the number of tokens follows from the size in all runs, so that the effects of both "
            "cannot be told apart; train a size with other numbers of tokens",
            "所有运行的词元数都由规模决定，无法区分二者的影响；请对同一规模训练不同的词元数",
        )


def _scipy() -> ModuleType:
    try:
        return import_module("scipy.optimize")
    except ModuleNotFoundError as error:
        raise UsageError(
            "E + A/N^a + B/D^b is fitted with SciPy, which is not installed; run "
            "pip install 'hunyuan[scaling]'",
            "拟合 E + A/N^a + B/D^b 需要 SciPy，但尚未安装；请运行 pip install 'hunyuan[scaling]'",
        ) from error


def _cost(solution: "_Solution") -> float:
    return solution.cost


class _Solution:
    """What SciPy found, with types."""

    def __init__(self, x: Floats, cost: float) -> None:
        self.x = x
        self.cost = cost


class _Problem:
    """Least squares in log E, log A', log B', a, b, where A' and B' belong to mean log N and D.

    About the means the factors hardly depend on the exponents, which is what makes it well posed.
    """

    def __init__(self, runs: Sequence[Measurement]) -> None:
        log_n = np.log([run.parameters for run in runs])
        log_d = np.log([run.tokens for run in runs])
        self._mean_n, self._mean_d = float(log_n.mean()), float(log_d.mean())
        self._n, self._d = log_n - self._mean_n, log_d - self._mean_d
        self.log_loss = np.log([run.loss for run in runs])

    def grid(self) -> Iterable[tuple[float, float, float]]:
        """Starting points: share of the least loss that is E, and both exponents."""
        return itertools.product((0.3, 0.6, 0.9), (0.2, 0.4, 0.8), (0.2, 0.4, 0.8))

    def start(self, floor_share: float, a: float, b: float) -> Floats:
        """A point of the grid as unknowns; size and data begin with equal parts of the rest."""
        least, mean = math.exp(self.log_loss.min()), math.exp(self.log_loss.mean())
        floor = floor_share * least
        rest = math.log(max(mean - floor, 1e-6) / 2)
        return np.array([math.log(floor), rest, rest, a, b])

    def _terms(self, x: Floats) -> Floats:
        a, b = x[3], x[4]
        return np.stack([np.full(len(self._n), x[0]), x[1] - a * self._n, x[2] - b * self._d])

    def predict(self, x: Floats) -> Floats:
        """Log loss of every run."""
        predicted: Floats = np.logaddexp.reduce(self._terms(x), axis=0)
        return predicted

    def _slopes(self, x: Floats) -> Floats:
        terms = self._terms(x)
        shares = np.exp(terms - np.logaddexp.reduce(terms, axis=0))
        return np.stack([*shares, -self._n * shares[1], -self._d * shares[2]], axis=1)

    def solve(self, optimize: ModuleType, start: Floats, log_loss: Floats) -> _Solution:
        """The best law from one starting point."""
        free = [-np.inf] * 3, [np.inf] * 3
        found = optimize.least_squares(
            lambda x: self.predict(x) - log_loss,
            start,
            jac=self._slopes,
            bounds=([*free[0], 0.0, 0.0], [*free[1], STEEPEST, STEEPEST]),
            loss="huber",
            f_scale=DELTA,
        )
        return _Solution(np.asarray(found.x, np.float64), float(found.cost))

    def law(self, x: Floats) -> Surface:
        """The unknowns as a law."""
        e, log_a, log_b, a, b = x.tolist()
        return Surface(
            floor=math.exp(e),
            size_factor=math.exp(log_a + a * self._mean_n),
            size_exponent=a,
            data_factor=math.exp(log_b + b * self._mean_d),
            data_exponent=b,
        )
