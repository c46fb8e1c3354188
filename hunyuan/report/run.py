"""One training run as curves: what its log says once every resumption has had its say.

A process that resumes at step S takes back whatever was logged after S: the model never saw it.
Should a step appear twice all the same, the later line counts. Alarms stay, whatever came after.

``seconds`` is the time spent on steps that count: the pauses between processes, and work that was
lost with a process, are left out. Columns are float64, NaN where a line had no such field; the
load of experts is float32 of shape (lines, layers, experts). A million steps take about 100 MB.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hunyuan.errors import BadDataError
from hunyuan.files import disk_errors
from hunyuan.report.metrics import (
    Alarm,
    Eval,
    Moe,
    MoeLayer,
    Start,
    Train,
    metrics_file,
    read_metrics,
)

Floats = NDArray[np.float64]

RECIPE = "recipe.toml"
_AXES = ("step", "tokens", "time")
_LAYER_COLUMNS = [f.name for f in fields(MoeLayer) if f.name not in ("layer", "load")]


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where along the run something was written down: three axes of the same length."""

    steps: Floats
    tokens: Floats
    seconds: Floats


@dataclass(frozen=True, kw_only=True)
class EvalCurve:
    """One held-out text over the run."""

    at: Track
    loss: Floats
    bits_per_byte: Floats


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The use of the experts over the run."""

    at: Track
    layers: tuple[int, ...]
    load: NDArray[np.float32]
    """Load by line, layer and expert; 1 is the even share."""
    columns: Mapping[str, Floats]
    """The other figures of `MoeLayer`, each of shape (lines, layers)."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run, read whole."""

    folder: Path
    start: Start
    """Its latest process."""
    processes: int
    at: Track
    """Of the training lines."""
    columns: Mapping[str, Floats]
    """Curves of the training lines by the field's or the scalar's name."""
    evals: Mapping[str, EvalCurve]
    experts: Experts | None
    alarms: tuple[Alarm, ...]
    recipe: str | None

    @property
    def tokens(self) -> float:
        """Tokens seen."""
        return float(self.at.tokens[-1])

    @property
    def batch_tokens(self) -> float:
        """Tokens of one step, on average."""
        return self.tokens / max(float(self.at.steps[-1]), 1.0)

    def final_loss(self, share: float = 0.02) -> float:
        """Mean training loss over the last ``share`` of the tokens; NaN if it diverged."""
        last = self.at.tokens > self.tokens * (1 - share)
        return float(np.mean(self.columns["loss"][last]))


class EmptyRunError(BadDataError):
    """Nothing has been logged that could be drawn: the run has only just begun."""


def load_run(folder: Path) -> Run:
    """Read a run folder."""
    path = metrics_file(folder)
    gathered = Gathered(path)
    for record in read_metrics(path):
        gathered.add(record)
    return gathered.run(folder)


class _Table:
    """Rows of numbers in the order they came, columns as flat arrays."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns: dict[str, array[float]] = {}

    def add(self, values: Mapping[str, float | None]) -> None:
        for name in values.keys() - self.columns.keys():
            self.columns[name] = array("d", [np.nan]) * self.rows
        self.rows += 1
        for name, column in self.columns.items():
            value = values.get(name)
            column.append(np.nan if value is None else value)

    def take_back_after(self, step: float) -> None:
        """Drop the rows at the end that lie after a step."""
        kept = self.rows
        steps = self.columns.get("step", ())
        while kept and steps[kept - 1] > step:
            kept -= 1
        for column in self.columns.values():
            del column[kept:]
        self.rows = kept

    def done(self) -> dict[str, Floats]:
        """Columns by step, ascending, each step once and as it was last written."""
        arrays = {name: np.frombuffer(column) for name, column in self.columns.items()}
        if not self.rows:
            return arrays
        back = np.unique(arrays["step"][::-1], return_index=True)[1]
        order = self.rows - 1 - back
        return {name: column[order] for name, column in arrays.items()}


class Gathered:
    """Records of one file, put where they belong as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: list[Start] = []
        self._offset = 0.0
        self._train = _Table()
        self._evals: dict[str, _Table] = {}
        self._moe: dict[int, tuple[Moe, float]] = {}
        self._alarms: dict[tuple[int, str, str], Alarm] = {}
        self._moe_shape: tuple[tuple[int, ...], int] | None = None

    def add(self, record: Start | Train | Eval | Moe | Alarm) -> None:
        """Take the next record of the file."""
        if isinstance(record, Start):
            self._begin(record)
            return
        if not self._starts:
            raise BadDataError(
                f"{self._path}: a line of step {record.step} comes before the first 'start' line; "
                "restore the beginning of the file",
                f"{self._path}：步 {record.step} 的记录出现在第一条 start 记录之前；请恢复文件开头",
            )
        if isinstance(record, Alarm):
            self._alarms[record.step, record.level, record.code] = record
            return
        seconds = max(self._offset + record.time - self._starts[-1].time, 0.0)
        if isinstance(record, Train):
            self._train.add({**_numbers(record), **record.scalars, "time": seconds})
        elif isinstance(record, Eval):
            table = self._evals.setdefault(record.name, _Table())
            table.add({**_numbers(record), "time": seconds})
        else:
            self._check_shape(record)
            self._moe[record.step] = record, seconds

    def _begin(self, start: Start) -> None:
        """A process goes on at a checkpoint: what came after that checkpoint is void."""
        for table in (self._train, *self._evals.values()):
            table.take_back_after(start.resumed_at_step)
        for step in [step for step in self._moe if step > start.resumed_at_step]:
            del self._moe[step]
        self._offset = self._train.columns["time"][-1] if self._train.rows else 0.0
        self._starts.append(start)

    def _check_shape(self, record: Moe) -> None:
        shape = tuple(layer.layer for layer in record.layers), len(record.layers[0].load)
        if self._moe_shape not in (None, shape):
            assert self._moe_shape is not None
            old = f"{len(self._moe_shape[0])} x {self._moe_shape[1]}"
            new = f"{len(shape[0])} x {shape[1]}"
            raise BadDataError(
                f"{self._path}: the 'moe' line of step {record.step} has {new} layers x experts, "
                f"earlier ones {old}; one folder holds one run, move the other elsewhere",
                f"{self._path}：步 {record.step} 的 moe 记录为 {new}（层 x 专家），之前为 {old}；"
                "一个目录只放一次运行，请把另一次移走",
            )
        self._moe_shape = shape

    def run(self, folder: Path) -> Run:
        """What has been taken so far; `EmptyRunError` before the first step."""
        columns = self._train.done()
        if not self._train.rows:
            raise EmptyRunError(
                f"{self._path}: holds no training step yet; wait for the first one to be logged",
                f"{self._path}：尚无训练步；请等待第一步写入日志",
            )
        recipe = folder / RECIPE
        text = None
        if recipe.is_file():
            with disk_errors(recipe):
                text = recipe.read_bytes().decode("utf-8", "replace")
        return Run(
            folder=folder,
            start=self._starts[-1],
            processes=len(self._starts),
            at=_track(columns),
            columns=_without_axes(columns),
            evals={name: _eval_curve(t.done()) for name, t in self._evals.items() if t.rows},
            experts=_experts([self._moe[step] for step in sorted(self._moe)]),
            alarms=tuple(self._alarms.values()),
            recipe=text,
        )


def _numbers(record: Train | Eval) -> dict[str, float | None]:
    names = [f.name for f in fields(record) if f.name not in ("scalars", "name", "progress")]
    return {name: getattr(record, name) for name in names}


def _track(columns: Mapping[str, Floats]) -> Track:
    steps, tokens, seconds = (columns[name] for name in _AXES)
    # A clock that is set back must not bend a curve back.
    return Track(steps=steps, tokens=tokens, seconds=np.maximum.accumulate(seconds))


def _without_axes(columns: Mapping[str, Floats]) -> dict[str, Floats]:
    """The curves; those that never had a value are none."""
    return {
        name: column
        for name, column in columns.items()
        if name not in _AXES and (name == "loss" or not np.isnan(column).all())
    }


def _eval_curve(columns: Mapping[str, Floats]) -> EvalCurve:
    return EvalCurve(
        at=_track(columns), loss=columns["loss"], bits_per_byte=columns["bits_per_byte"]
    )


def _experts(lines: Sequence[tuple[Moe, float]]) -> Experts | None:
    if not lines:
        return None
    columns = {
        name: np.array(
            [[getattr(layer, name) for layer in moe.layers] for moe, _ in lines], np.float64
        )
        for name in _LAYER_COLUMNS
    }
    axes = ([moe.step, moe.tokens, seconds] for moe, seconds in lines)
    steps, tokens, seconds = np.array(list(axes), np.float64).T
    return Experts(
        at=_track({"step": steps, "tokens": tokens, "time": seconds}),
        layers=tuple(layer.layer for layer in lines[0][0].layers),
        load=np.array([[layer.load for layer in moe.layers] for moe, _ in lines], np.float32),
        columns={name: c for name, c in columns.items() if not np.isnan(c).all()},
    )
