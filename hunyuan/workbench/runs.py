"""Training runs of one folder, followed while they are written.

A run is found by listing the folder; its id says nothing of the file system, and a request names
ids only. A log is read once and then from where the last look ended, so that watching a long run
costs what is new. Curves are thinned, and answer and cost do not grow with the run.
"""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool

from hunyuan.errors import BadDataError
from hunyuan.files import disk_errors
from hunyuan.report.document import rounded
from hunyuan.report.heat import columns_of
from hunyuan.report.metrics import METRICS, Start, Train, read_line
from hunyuan.report.page import summary
from hunyuan.report.run import EmptyRunError, EvalCurve, Experts, Floats, Gathered, Run, Track
from hunyuan.report.sample import smooth, smoothing_window, thin
from hunyuan.workbench.benchmarks import result_files, result_table
from hunyuan.workbench.refusal import RefusedError, not_found
from hunyuan.workbench.streaming import WorkbenchRoute

BUCKETS = 400
"""Of a curve; a page is not wider."""
HEAT_CELLS = 40_000
MOST_RUNS = 200
MOST_ALARMS = 100
MOST_FOLLOWED = 12
"""Logs kept in memory at once."""

LIVE_SECONDS = 120.0
"""A log that was written to this lately belongs to a run that goes on."""

_GLANCE_BYTES = 64 * 1024


@dataclass(frozen=True)
class RunFolder:
    """A run as the listing found it."""

    id: str
    name: str
    """Path below the folder of runs."""

    path: Path


def run_folders(root: Path | None) -> list[RunFolder]:
    """The runs of a folder, at any depth, the last written first."""
    if root is None or not root.is_dir():
        return []
    found = []
    for log in root.rglob(METRICS):
        # A link could lead anywhere.
        if log.is_symlink() or not log.resolve().is_relative_to(root.resolve()):
            continue
        name = log.parent.relative_to(root).as_posix()
        run_id = hashlib.sha256(name.encode()).hexdigest()[:16]
        found.append(
            (log.stat().st_mtime, RunFolder(run_id, name if name != "." else root.name, log.parent))
        )
    return [folder for _, folder in sorted(found, key=lambda pair: -pair[0])[:MOST_RUNS]]


class Follower:
    """One log, read on from where the last look ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._gathered = Gathered(self._path)
        self._lines = 0
        self._file: int | None = None
        self.offset = 0

    def catch_up(self) -> int:
        """Read what is new and return the offset; a file that was replaced is read anew."""
        with disk_errors(self._path), self._path.open("rb") as file:
            number = self._path.stat().st_ino
            if self._file not in (None, number) or self._path.stat().st_size < self.offset:
                self._begin()
            self._file = number
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._lines += 1
                self.offset += len(line)
                record = read_line(f"{self._path.name}:{self._lines}", line)
                assert record is not None, "a whole line is a record or an error"
                self._gathered.add(record)
        return self.offset

    def run(self, folder: Path) -> Run:
        """The run up to the last look; `EmptyRunError` before its first step."""
        return self._gathered.run(folder)


class Runs:
    """The runs of a folder and the logs that somebody watches."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._followed: dict[Path, Follower] = {}
        self._lock = threading.Lock()

    def listed(self) -> list[dict[str, Any]]:
        """A line about each run, from the two ends of its log."""
        return [_glance(folder) for folder in run_folders(self._root)]

    def found(self, run_id: str) -> RunFolder:
        """The run with an id of the listing; `RefusedError` if there is none."""
        for folder in run_folders(self._root):
            if folder.id == run_id:
                return folder
        raise not_found("run", "训练运行", run_id)

    def detail(self, run_id: str, after: int) -> dict[str, Any]:
        """Everything that is drawn of a run; only ``offset`` if its log ends where it did.

        Raises `RefusedError` for an unknown id and for a log that cannot be understood.
        """
        folder = self.found(run_id)
        try:
            with self._lock:
                return self._detail(folder, after)
        except BadDataError as error:
            self._followed.pop(folder.path / METRICS, None)
            raise RefusedError(error.en, error.zh, status=422, code="bad_data") from error

    def _detail(self, folder: RunFolder, after: int) -> dict[str, Any]:
        log = folder.path / METRICS
        follower = self._followed.pop(log, None) or Follower(log)
        # The last looked at is the last to go.
        self._followed[log] = follower
        while len(self._followed) > MOST_FOLLOWED:
            del self._followed[next(iter(self._followed))]
        offset = follower.catch_up()
        head = {"id": folder.id, "name": folder.name, "offset": offset, "live": _live(log)}
        if after == offset and offset:
            return {**head, "changed": False}
        try:
            run = follower.run(folder.path)
        except EmptyRunError:
            return {**head, "changed": True, "empty": True}
        return {
            **head,
            "changed": True,
            "empty": False,
            **_drawn(run),
            "checkpoints": _checkpoints(folder.path),
        }


def runs_router(runs: Path | None, results: Path | None) -> APIRouter:
    """Routes for the runs below ``runs`` and the result files of ``results``, where given."""
    router = APIRouter(prefix="/workbench", route_class=WorkbenchRoute)
    known = Runs(runs)

    @router.get("/runs")
    async def listed() -> dict[str, Any]:
        """All runs, the last written first."""
        found = await run_in_threadpool(known.listed)
        return {"folder": runs.name if runs is not None and runs.is_dir() else None, "runs": found}

    @router.get("/runs/{run_id}")
    async def detail(run_id: str, after: int = Query(default=0, ge=0)) -> dict[str, Any]:
        """Curves, experts, alarms and recipe of a run, unless nothing came since ``after``."""
        return await run_in_threadpool(known.detail, run_id, after)

    @router.get("/benchmarks")
    async def benchmarks() -> dict[str, Any]:
        """The result files as tables."""

        def read() -> list[dict[str, Any]]:
            if results is None or not results.is_dir():
                return []
            return [result_table(path) for path in result_files(results)]

        shown = results.name if results is not None and results.is_dir() else None
        return {"folder": shown, "files": await run_in_threadpool(read)}

    return router


def _live(log: Path) -> bool:
    return time.time() - log.stat().st_mtime < LIVE_SECONDS


def _checkpoints(folder: Path) -> list[int]:
    """Steps of the checkpoints that can be loaded."""
    steps = [path.name.removeprefix("step-") for path in folder.glob("checkpoints/step-*")]
    return sorted(int(step) for step in steps if step.isdigit())


def _glance(folder: RunFolder) -> dict[str, Any]:
    """What the first line and the last lines of a log say."""
    log = folder.path / METRICS
    shown: dict[str, Any] = {
        "id": folder.id,
        "name": folder.name,
        "updated": log.stat().st_mtime,
        "live": _live(log),
        "step": None,
        "tokens": None,
        "loss": None,
        "progress": None,
        "parameters": None,
        "experts": None,
    }
    with disk_errors(log), log.open("rb") as file:
        head = file.read(_GLANCE_BYTES).split(b"\n")
        size = file.seek(0, 2)
        file.seek(max(size - _GLANCE_BYTES, 0))
        tail = file.read(_GLANCE_BYTES).split(b"\n")[:-1]
    for line in head[:1]:
        record = _record(line)
        if isinstance(record, Start):
            experts = record.config.get("experts")
            shown["parameters"] = record.parameters
            shown["experts"] = experts if isinstance(experts, int) else None
    for line in reversed(tail):
        record = _record(line)
        if isinstance(record, Train):
            shown |= {
                "step": record.step,
                "tokens": record.tokens,
                "loss": rounded(record.loss),
                "progress": record.progress,
            }
            break
    return shown


def _record(line: bytes) -> object:
    """A line that can be understood, else None: a listing shows what it can."""
    try:
        return read_line("", line)
    except BadDataError:
        return None


def _drawn(run: Run) -> dict[str, Any]:
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
