"""Training runs of one folder, followed while they are written.

A run is found by listing the folder; its id says nothing of the file system, and a request names
ids only. A log is read once and then from where the last look ended, so that watching a long run
costs what is new. Curves are thinned, and answer and cost do not grow with the run.
"""

import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from hunyuan.errors import BadDataError
from hunyuan.files import disk_errors
from hunyuan.report.document import rounded
from hunyuan.report.metrics import METRICS, Start, Train, read_line
from hunyuan.report.run import EmptyRunError, Gathered, Run
from hunyuan.workbench.benchmarks import result_files, result_table
from hunyuan.workbench.loading import Host, loading
from hunyuan.workbench.refusal import RefusedError, not_found
from hunyuan.workbench.run_curves import drawn
from hunyuan.workbench.streaming import Body, WorkbenchRoute, event_stream, language_of

MOST_RUNS = 200
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


def checkpoint_folders(run: RunFolder) -> dict[int, Path]:
    """The checkpoints of a run that can be loaded, by their step; none behind a link."""
    folder = run.path / "checkpoints"
    if folder.is_symlink():
        return {}
    found = {}
    for path in folder.glob("step-*"):
        step = path.name.removeprefix("step-")
        if step.isdigit() and path.is_dir() and not path.is_symlink():
            found[int(step)] = path
    return dict(sorted(found.items()))


def is_listed_checkpoint(root: Path, name: str) -> bool:
    """Whether ``name`` is the path of a checkpoint of a run below ``root``."""
    listed = (path for run in run_folders(root) for path in checkpoint_folders(run).values())
    return any(str(path) == name for path in listed)


class LoadBody(Body):
    """POST /workbench/runs/{run_id}/load."""

    step: int


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

    def checkpoint(self, run_id: str, step: int) -> tuple[str, Path]:
        """What a model of that checkpoint is called, and its folder; `RefusedError` if none."""
        run = self.found(run_id)
        folder = checkpoint_folders(run).get(step)
        if folder is None:
            raise not_found("checkpoint", "检查点", str(step))
        return f"{run.name}@{step}", folder

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
            **drawn(run),
            "checkpoints": list(checkpoint_folders(folder)),
        }


def runs_router(host: Host, runs: Path | None, results: Path | None) -> APIRouter:
    """Routes for the runs below ``runs`` and the result files of ``results``, where given.

    ``host`` loads their checkpoints.
    """
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

    @router.post("/runs/{run_id}/load")
    async def load(request: Request, run_id: str, body: LoadBody) -> Response:
        """Answer with a checkpoint of a run from now on."""
        name, folder = await run_in_threadpool(known.checkpoint, run_id, body.step)
        return event_stream(loading(host, str(folder), model_id=name), language_of(request))

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
