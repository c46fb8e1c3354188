"""A folder of finished training runs as measurements for a scaling law.

Every folder below with a log counts, at any depth. The loss is that of a held-out text at its last
evaluation, or the mean training loss over the last 2 % of the tokens where there is none. A run
that has logged nothing or diverged is passed over and named.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hunyuan.errors import UsageError
from hunyuan.report.metrics import METRICS
from hunyuan.report.run import EmptyRunError, Run, load_run
from hunyuan.report.scaling import Measurement


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What was measured, by which loss, and what was passed over."""

    measurements: tuple[Measurement, ...]
    loss_name: str | None
    """The held-out text; None is the training loss."""
    passed_over: tuple[tuple[str, str], ...]
    """Why a run does not count: English and Chinese."""


def finished_runs(folder: Path, loss_name: str | None = None) -> Finished:
    """Measure the runs below a folder."""
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: is no folder; give one that holds training runs",
            f"{folder}：不是目录；请给出存放训练运行的目录",
        )
    runs, passed_over = [], []
    for path in sorted(folder.rglob(METRICS)):
        try:
            runs.append(load_run(path.parent))
        except EmptyRunError as error:
            passed_over.append((error.en, error.zh))
    if not runs:
        raise UsageError(
            f"{folder}: holds no training run with a logged step; give the folder above the runs",
            f"{folder}：其中没有记录过训练步的运行；请给出各次运行的上级目录",
        )
    name = _chosen_loss(runs, loss_name)
    measurements = []
    for run in runs:
        found = _measure(run, str(run.folder.relative_to(folder)), name)
        if math.isfinite(found.loss) and found.loss > 0 and found.parameters and found.tokens:
            measurements.append(found)
        else:
            passed_over.append(
                (
                    f"{run.folder}: loss {found.loss:.3g}, {found.parameters:.3g} parameters, "
                    f"{found.tokens:.3g} tokens: all must be above 0 and finite",
                    f"{run.folder}：损失 {found.loss:.3g}，参数 {found.parameters:.3g}，"
                    f"词元 {found.tokens:.3g}：都必须大于 0 且有限",
                )
            )
    return Finished(
        measurements=tuple(measurements), loss_name=name, passed_over=tuple(passed_over)
    )


def _chosen_loss(runs: Sequence[Run], wanted: str | None) -> str | None:
    """The held-out text that all runs have; what is ambiguous must be chosen."""
    common = set(runs[0].evals).intersection(*(run.evals for run in runs))
    if wanted is not None:
        if wanted in common:
            return wanted
        lacking = next((run for run in runs if wanted not in run.evals), runs[0])
        known = ", ".join(sorted(common)) or "none"
        raise UsageError(
            f"--eval {wanted}: {lacking.folder} never measured it; all runs have: {known}",
            f"--eval {wanted}：{lacking.folder} 从未测过它；所有运行共有：{known}",
        )
    if len(common) > 1:
        raise UsageError(
            f"{len(common)} held-out texts ({', '.join(sorted(common))}): choose one with --eval",
            f"有 {len(common)} 个留出集（{'、'.join(sorted(common))}）：请用 --eval 选择一个",
        )
    return next(iter(common), None)


def _measure(run: Run, name: str, loss_name: str | None) -> Measurement:
    tokens, loss = run.tokens, math.nan
    if loss_name is None:
        loss = run.final_loss()
    else:
        curve = run.evals[loss_name]
        tokens, loss = float(curve.at.tokens[-1]), float(curve.loss[-1])
    return Measurement(
        name=name,
        parameters=float(run.start.active_parameters),
        tokens=tokens,
        loss=loss,
        batch_tokens=run.batch_tokens,
    )
