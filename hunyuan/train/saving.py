"""Checkpoints: folders any program reads, from which a run goes on to the bit.

    RUN/checkpoints/step-00000100/
        config.json, model.safetensors, tokenizer...   a Hugging Face folder, served as it is
        training/state.safetensors                     masters, moments, generators
        training/state.json                            step, position in the data, all files' hashes

A checkpoint is copied in memory first and written by a thread, aside, then renamed: the run waits
only for the copy, and what has the name is complete. Its cost is the size of the state in memory.
If writing fails, the run goes on and says so; the last good checkpoint stays.
"""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from hunyuan.errors import BadDataError, HunyuanError
from hunyuan.files import atomic_file, atomic_folder, disk_errors
from hunyuan.formats.safetensors_writer import (
    DTYPE_NAMES,
    SafetensorsSpec,
    tensor_bytes,
    write_safetensors,
)

STATE = "training/state.safetensors"
STATE_JSON = "training/state.json"
_BEST = "best.json"

WriteModel = Callable[[Path, Mapping[str, Tensor]], None]
"""Writes the model into a folder from a copy of its trained weights, by parameter name."""


class Snapshot(NamedTuple):
    """A copy of everything, taken between two steps."""

    step: int
    state: dict[str, Any]
    """JSON values: where the run is."""

    tensors: dict[str, Tensor]
    """Masters, moments and generators."""

    weights: dict[str, Tensor]
    """What the model is served with, by parameter name."""


class Saved(NamedTuple):
    """A checkpoint that was read back."""

    path: Path
    state: dict[str, Any]
    tensors: dict[str, Tensor]


class Saver:
    """Writes checkpoints of one run, one at a time, and removes those no longer kept."""

    def __init__(
        self, folder: Path, write_model: WriteModel, *, keep_last: int, keep_best: bool
    ) -> None:
        """``folder`` is RUN/checkpoints."""
        self.folder = folder
        self._write_model = write_model
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._thread: threading.Thread | None = None
        self._error: HunyuanError | None = None
        self.saved_at = time.monotonic()

    def save(self, snapshot: Snapshot, *, best: float | None = None) -> None:
        """Write in the background; waits for an earlier one first.

        ``best`` is the evaluation loss, if it is the lowest so far: that checkpoint is kept.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(snapshot, best), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written any more."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def take_error(self) -> HunyuanError | None:
        """What went wrong with the last checkpoint, once."""
        error, self._error = self._error, None
        return error

    def set_aside(self, path: Path) -> Path:
        """Give a damaged checkpoint another name, so that its step can be written again."""
        aside = path.with_name(f"damaged-{path.name}")
        with disk_errors(path):
            if aside.exists():
                shutil.rmtree(aside)
            return path.rename(aside)

    def _run(self, snapshot: Snapshot, best: float | None) -> None:
        try:
            with disk_errors(self.folder):
                self._write(snapshot)
                if best is not None:
                    self._note_best(snapshot.step, best)
                self._remove_old()
        except HunyuanError as error:
            self._error = error

    def _write(self, snapshot: Snapshot) -> None:
        target = self.folder / step_name(snapshot.step)
        if target.exists():
            return
        with atomic_folder(target) as folder:
            self._write_model(folder, snapshot.weights)
            (folder / STATE).parent.mkdir()
            _write_tensors(snapshot.tensors, folder / STATE)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            hashes = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
            state = snapshot.state | {"sha256": hashes}
            (folder / STATE_JSON).write_text(json.dumps(state, indent=1), encoding="utf-8")
        self.saved_at = time.monotonic()

    def _note_best(self, step: int, loss: float) -> None:
        with atomic_file(self.folder / _BEST) as file:
            file.write(json.dumps({"step": step, "loss": loss}).encode())

    def _remove_old(self) -> None:
        kept = {best_step(self.folder)} if self._keep_best else set()
        for path in checkpoints(self.folder)[: -self._keep_last]:
            if step_of(path) not in kept:
                shutil.rmtree(path)


def step_name(step: int) -> str:
    """``step-00000100``."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(path.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of RUN/checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if (p / STATE_JSON).is_file())


def best_step(folder: Path) -> int | None:
    """The step with the lowest evaluation loss, if one was noted."""
    try:
        return int(json.loads((folder / _BEST).read_bytes())["step"])
    except (OSError, ValueError, KeyError):
        return None


def read_newest(folder: Path) -> tuple[Saved | None, list[Path]]:
    """The newest checkpoint that is intact, and those that turned out damaged.

    Raises `BadDataError` if there are checkpoints but all are damaged.
    """
    damaged: list[Path] = []
    for path in reversed(checkpoints(folder)):
        state = _read_state(path)
        if state is not None and _intact(path, state.pop("sha256", None)):
            return Saved(path, state, load_file(path / STATE)), damaged
        damaged.append(path)
    if damaged:
        raise BadDataError(
            f"{folder}: every checkpoint is damaged; remove the folder to begin anew",
            f"{folder}：所有检查点均已损坏；请删除该目录后重新开始",
        )
    return None, damaged


def generators_state(generator: torch.Generator) -> dict[str, Tensor]:
    """States of torch's own generator and of the run's."""
    return {"generator.torch": torch.get_rng_state(), "generator.routing": generator.get_state()}


def restore_generators(tensors: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """The reverse of `generators_state`."""
    torch.set_rng_state(tensors["generator.torch"])
    generator.set_state(tensors["generator.routing"])


def _read_state(path: Path) -> dict[str, Any] | None:
    """What is in a checkpoint's state.json, if it is whole."""
    try:
        state = json.loads((path / STATE_JSON).read_bytes())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _intact(path: Path, hashes: Any) -> bool:
    """Whether every file of a checkpoint is what it was when it was written."""
    return (
        isinstance(hashes, dict)
        and STATE in hashes
        and all(_sha256(path / name) == wanted for name, wanted in hashes.items())
    )


def _write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """A safetensors file; the library's own writer reports a full disk as no OSError."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    specs = [
        SafetensorsSpec(name, DTYPE_NAMES[t.dtype], tuple(t.shape), [tensor_bytes(t.contiguous())])
        for name, t in ordered
    ]
    with path.open("wb") as file:
        write_safetensors(file, specs, {"format": "pt"})


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
