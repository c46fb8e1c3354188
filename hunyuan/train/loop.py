"""The loop: batches in, loss, gradients, a step; checkpoints, evaluation and metrics beside it.

There is one, for every task. What it is given decides what is learned. A run that was killed goes
on from its newest checkpoint as if nothing had happened: on a CPU the losses are the same to the
bit, because data order, dropout and recycle routing are part of the state.
"""

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from hunyuan.data.rows import Row
from hunyuan.errors import HunyuanError, InterruptedWorkError
from hunyuan.model.routing import Routes
from hunyuan.native.machine import resident_memory
from hunyuan.train.batch import Batch, held, steps
from hunyuan.train.lora import TrainableGroup
from hunyuan.train.losses import Forward, Loss
from hunyuan.train.metrics import Alarm, Listener, Watch
from hunyuan.train.optimizer import Average, Optimizer, rate_at
from hunyuan.train.ranks import ALONE, Ranks, seeded
from hunyuan.train.recipe import Recipe
from hunyuan.train.routing_report import layer_records
from hunyuan.train.saving import (
    Saved,
    Saver,
    Snapshot,
    generators_state,
    restore_generators,
)
from hunyuan.train.stages import Staged


class Rows(Protocol):
    """Rows of token ids with a position that can be kept."""

    def __iter__(self) -> Iterator[Row]:
        """The rows."""

    def __next__(self) -> Row:
        """The next row."""

    def state(self) -> dict[str, Any]:
        """Where the stream is, as JSON values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class Evaluate(Protocol):
    """Measures the model as it is now."""

    def __call__(self) -> list[dict[str, Any]]:
        """Records with ``name`` and ``loss``, the first the one that counts."""


@dataclass(kw_only=True)
class Run:
    """Everything the loop is given."""

    recipe: Recipe
    forward: Forward
    """The model, and how training runs it."""

    loss: Loss
    optimizer: Optimizer
    rows: Rows
    total: int
    """Length of the run in `measure`'s unit."""

    saver: Saver
    evaluate: Evaluate
    generator: torch.Generator
    flops_per_token: int
    """Of forward and backward."""

    peak: float
    """Operations per second the matrix products of all processes reach together."""

    types: dict[str, torch.dtype]
    """Of every trained parameter, of all processes, its number type."""

    parts: Sequence[TrainableGroup]
    """How much is trained of each part of the model."""

    ranks: Ranks = ALONE
    """The other processes."""

    staged: Staged | None = None
    """What computes a step where the layers are divided."""

    pairs: bool = False
    """Whether a step's weight is its pairs of rows rather than its targets."""

    average: Average | None = None
    listeners: Sequence[Listener] = ()
    stop_after: int | None = None
    """Stop, resumably, after this many steps of this process."""

    step: int = 0
    done: int = 0
    """Tokens (or rows, where the run is measured in epochs) so far."""

    tokens: int = 0
    best: float = math.inf
    evaluated: float = -1.0
    """Share of the run at the last evaluation."""

    watch: Watch = field(default_factory=Watch)

    @property
    def share(self) -> float:
        """How much of the run is over, 0 to 1."""
        return min(self.done / self.total, 1.0)

    def restore(self, saved: Saved) -> None:
        """Go on from a checkpoint."""
        self.optimizer.restore(saved.tensors)
        if self.average is not None:
            for one, value in zip(self.optimizer.trained, self.average.values, strict=True):
                # A run that averages only from here on begins with what it has.
                value.copy_(saved.tensors.get(f"average.{one.name}", one.master.detach()))
        ranks = self.ranks
        fresh = seeded(self.recipe.seed, ranks.stream, saved.state["step"])
        restore_generators(saved.tensors, self.generator, ranks.stream, fresh)
        self.rows.restore(saved.state["rows"])
        for name in ("step", "done", "tokens", "best", "evaluated"):
            setattr(self, name, saved.state[name])
        self.best = math.inf if self.best is None else self.best

    def snapshot(self) -> Snapshot:
        """A copy of everything, from which `restore` goes on."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.optimizer.tensors()}
        tensors |= generators_state(self.generator, self.ranks.stream)
        if self.average is not None:
            for one, value in zip(self.optimizer.trained, self.average.values, strict=True):
                tensors[f"average.{one.name}"] = value.clone()
        state = {
            "rows": self.rows.state(),
            "step": self.step,
            "done": self.done,
            "tokens": self.tokens,
            "best": None if math.isinf(self.best) else self.best,
            "evaluated": self.evaluated,
        }
        return Snapshot(self.step, state, tensors, self.types)

    def tell(self, kind: str, **values: Any) -> None:
        """Give a record to every listener."""
        record = {"kind": kind, "step": self.step, "tokens": self.tokens, "time": time.time()}
        for listener in self.listeners:
            listener(record | values)

    def alarm(self, alarm: Alarm | None, level: str = "warning") -> None:
        """Give an alarm to every listener."""
        if alarm is not None:
            for listener in self.listeners:
                listener(alarm.record(self.step, level))


def fit(run: Run) -> None:
    """Train until the run's end.

    Raises `InterruptedWorkError` on SIGTERM or Ctrl-C, after a checkpoint, and `HunyuanError` if
    the loss is no number; then the last checkpoint stands.
    """
    if run.share >= 1:
        return  # it was finished before
    recipe = run.recipe
    model = run.forward.model
    began = run.step
    clock = _Clock(run)
    with _stopping() as stopping:
        if run.evaluated < 0:
            _evaluate(run)
            clock.restart()
        # Everything is saved at the end of a turn: in between, rows are taken but not learned.
        for batches in steps(iter(run.rows), recipe.batch.rows, recipe.batch.accumulate):
            model.train()
            scalars, routes = _gradients(run, batches)
            # The rate of a step is that of its end: the first learns, the last has the final one.
            length = _length(run, batches)
            rate = rate_at(recipe.schedule, min((run.done + length) / run.total, 1.0))
            loss = float(scalars["loss"])
            norm = run.optimizer.step(rate) if math.isfinite(loss) else math.nan
            if not math.isfinite(norm):
                _stop_at_nonsense(run, loss, norm)
            if run.average is not None:
                run.average.update()
            run.step += 1
            learned = sum(batch.ids.numel() for batch in batches)
            run.tokens += learned
            run.done += length
            clock.count(learned)
            run.alarm(run.watch.loss(run.step, loss))
            if run.step % recipe.log.every == 0 or run.share >= 1:
                _log(run, scalars, rate, norm, clock)
            if routes and (run.step % recipe.log.experts_every == 0 or run.share >= 1):
                layers = layer_records(model, routes, run.ranks)
                run.tell("moe", layers=layers)
                run.alarm(run.watch.experts(run.step, layers))
            _report_failed_save(run)
            if run.share >= 1:
                break
            # Of a run of ten steps the third is done when 0.3 - 0.2 is 0.1, in floating point less.
            if run.share - run.evaluated > recipe.evaluation.every - 1e-9:
                _evaluate(run)
                clock.restart()
            due = time.monotonic() - run.saver.saved_at > 60 * recipe.saving.every_minutes
            # Clocks differ and signals come at different moments: all do what one wants.
            wish = run.ranks.largest(2 * bool(stopping()) + due)
            if wish in (1, 3):
                run.saver.save(run.snapshot())
                run.saver.saved_at = time.monotonic()
            if wish >= 2 or (run.stop_after and run.step - began >= run.stop_after):
                _save_now(run)
                raise InterruptedWorkError(
                    f"stopped at step {run.step}; the same command goes on from there",
                    f"已在第 {run.step} 步停止；运行同一命令即可继续",
                )
        # Online pairs can be fewer than were asked for.
        run.done = max(run.done, run.total)
    _evaluate(run)
    _save_now(run)


def _gradients(run: Run, batches: Sequence[Batch]) -> tuple[dict[str, torch.Tensor], list[Routes]]:
    """Add up the gradients of one step; the routes are those of its last micro-batch."""
    weight = sum(len(b.ids) // 2 if run.pairs else b.learned for b in batches)
    sums: dict[str, torch.Tensor] = {}
    routes: list[Routes] = []
    ranks = run.ranks
    if run.staged is not None:
        sums, routes = run.staged.gradients(batches, 1 / max(weight, 1))
        for one in run.optimizer.trained:
            if one.name.startswith("model.embed_tokens.") and one.master.grad is not None:
                run.staged.sum_tied(one.master.grad)
        batches = ()
    for whole in batches:
        batch = held(whole, ranks.layout, ranks.place, run.recipe.batch.rows, pairs=run.pairs)
        parts = run.loss(run.forward, batch, 1 / max(weight, 1) if batch.share else 0.0)
        parts.total.backward()  # type: ignore[no-untyped-call]
        for name, value in parts.scalars.items():
            sums[name] = sums[name] + value if name in sums else value
        routes = parts.routes if batch.share else [_nothing(one) for one in parts.routes]
    summed = ranks.sum(torch.stack([*sums.values()]))
    return dict(zip(sums, summed, strict=True)), routes


def _nothing(routes: Routes) -> Routes:
    """Of a process that had no row: it takes part and counts for nothing."""
    return Routes(*(part[:0] for part in routes))


def _length(run: Run, batches: Sequence[Batch]) -> int:
    """A step's part of `Run.total`."""
    rows = sum(len(batch.ids) for batch in batches)
    return rows if run.recipe.schedule.epochs else rows * run.recipe.batch.row_tokens


class _Clock:
    """Tokens per second since the last time it was asked, without evaluations."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.restart()

    def restart(self) -> None:
        self._tokens = 0
        self._begin = time.perf_counter()

    def count(self, tokens: int) -> None:
        self._tokens += tokens

    def speed(self) -> float:
        speed = self._tokens / max(time.perf_counter() - self._begin, 1e-9)
        self.restart()
        return speed


def _log(
    run: Run, scalars: dict[str, torch.Tensor], rate: float, norm: float, clock: _Clock
) -> None:
    learning_rate, expert_rate = run.optimizer.rates(rate)
    speed = clock.speed()
    values = {name: float(value) for name, value in scalars.items()}
    values |= {
        "learning_rate": learning_rate,
        "grad_norm": norm,
        "tokens_per_second": speed,
        "peak_share": speed * run.flops_per_token / run.peak,
        "memory_bytes": int(run.ranks.largest(resident_memory())),
        "progress": run.share,
    }
    if expert_rate is not None:
        values["expert_learning_rate"] = expert_rate
    run.tell("train", **values)


def _evaluate(run: Run) -> None:
    records = run.evaluate()
    run.evaluated = run.share
    for record in records:
        run.tell("eval", **record)
    if records and run.step and records[0]["loss"] < run.best:
        run.best = records[0]["loss"]
        if run.recipe.saving.keep_best:
            run.saver.save(run.snapshot(), best=run.best)


def _save_now(run: Run) -> None:
    run.saver.save(run.snapshot())
    run.saver.wait()
    error = run.saver.take_error()
    if error is not None:
        raise error


def _report_failed_save(run: Run) -> None:
    error = run.saver.take_error()
    if error is not None:
        run.alarm(
            Alarm(
                "checkpoint",
                f"the checkpoint could not be written, training goes on: {error.en}",
                f"检查点写入失败，训练继续：{error.zh}",
            )
        )


def _stop_at_nonsense(run: Run, loss: float, norm: float) -> None:
    run.saver.wait()
    alarm = Alarm(
        "nonfinite",
        f"loss {loss} with a gradient norm of {norm} at step {run.step + 1}: nothing was learned "
        "from it; lower optimizer.learning_rate and go on from the last checkpoint with "
        "--accept-changes",
        f"第 {run.step + 1} 步损失为 {loss}、梯度范数为 {norm}：该步未更新权重；"
        "请降低 optimizer.learning_rate，并加 --accept-changes 从上一个检查点继续",
    )
    run.alarm(alarm, "stop")
    raise HunyuanError(alarm.en, alarm.zh)


@contextmanager
def _stopping() -> Iterator[Any]:
    """A function that says whether SIGTERM or Ctrl-C has come; the step at hand is finished."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:  # somebody is in a hurry
            raise KeyboardInterrupt
        asked = True

    before = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
