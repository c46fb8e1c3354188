"""Checkpoints: folders any program reads, from which a run goes on to the bit.

    RUN/checkpoints/step-00000100/
        config.json, model.safetensors, tokenizer...   a Hugging Face folder, served as it is
        training/state.safetensors                     masters, moments, generators; of many
                                                       processes a file each, see
                                                       `hunyuan.parallel.state`
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from hunyuan.errors import BadDataError, HunyuanError
from hunyuan.files import atomic_file, atomic_folder, disk_errors
from hunyuan.parallel.state import Pieces, WholeState
from hunyuan.train.ranks import ALONE, Ranks

T = TypeVar("T")

STATE_JSON = "training/state.json"
_BEST = "best.json"

WriteModel = Callable[[Path, Mapping[str, Tensor]], None]
"""Writes the model into a folder from its trained weights, by parameter name."""


class Snapshot(NamedTuple):
    """A copy of everything, taken between two steps."""

    step: int
    state: dict[str, Any]
    """JSON values: where the run is."""

    tensors: dict[str, Tensor]
    """Masters, moments, averages and generators, as far as this process holds them."""

    types: dict[str, torch.dtype]
    """Of every trained parameter its number type in the model."""


class Served(Mapping[str, Tensor]):
    """Trained weights as the model is served with them: averages if there are any, else masters.

    One is made at a time, when it is asked for.
    """

    def __init__(self, state: Mapping[str, Tensor], types: Mapping[str, torch.dtype]) -> None:
        self._state = state
        self._types = types
        self._last: tuple[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if self._last is None or self._last[0] != name:  # experts of one bank are asked for in turn
            average = f"average.{name}"
            stored = average if average in self._state else f"master.{name}"
            self._last = name, self._state[stored].detach().to(self._types[name])
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)


class Saved(NamedTuple):
    """A checkpoint that was read back."""

    path: Path
    state: dict[str, Any]
    tensors: Mapping[str, Tensor]


class Saver:
    """Writes checkpoints of one run, one at a time, and removes those no longer kept."""

    def __init__(
        self,
        folder: Path,
        write_model: WriteModel,
        *,
        keep_last: int,
        keep_best: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        """``folder`` is RUN/checkpoints, the same for all of ``ranks``."""
        self.folder = folder
        self._ranks = ranks
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

        def move() -> None:
            with disk_errors(path):
                if aside.exists():
                    shutil.rmtree(aside)
                path.rename(aside)

        self._on_main(move)
        return aside

    def _on_main(self, work: Callable[[], T]) -> T | None:
        """What the main process has to do alone; if it fails, all of them do."""
        ranks = self._ranks
        return ranks.together(lambda: work() if ranks.main else None)[0]

    def _run(self, snapshot: Snapshot, best: float | None) -> None:
        try:
            with disk_errors(self.folder):
                self._write(snapshot)
                self._on_main(lambda: self._tidy(snapshot.step, best))
        except HunyuanError as error:
            self._error = error
        except Exception as error:  # of the other processes, or of ours: the run goes on
            said = " ".join(str(error).split()) or type(error).__name__
            self._error = HunyuanError(said, said)

    def _tidy(self, step: int, best: float | None) -> None:
        with disk_errors(self.folder):
            if best is not None:
                self._note_best(step, best)
            self._remove_old()

    def _write(self, snapshot: Snapshot) -> None:
        """All processes take every step of it together, and leave it together."""
        target = self.folder / step_name(snapshot.step)
        if self._on_main(target.exists):
            return
        with ExitStack() as stack:  # of the main process; leaving it in an error clears up

            def begin() -> Path:
                folder = stack.enter_context(atomic_folder(target))
                (folder / STATE_JSON).parent.mkdir()
                return folder

            folder = self._on_main(begin)
            assert folder is not None
            self._ranks.write_state(snapshot.tensors, folder)
            self._on_main(lambda: self._finish(folder, snapshot))
            hashes = self._hashes(folder)
            state = json.dumps(snapshot.state | {"sha256": hashes}, indent=1)

            def end() -> None:
                with disk_errors(target):
                    (folder / STATE_JSON).write_text(state, encoding="utf-8")
                stack.close()

            self._on_main(end)
        self.saved_at = time.monotonic()

    def _finish(self, folder: Path, snapshot: Snapshot) -> None:
        """The model, from the state that was written: no process holds all of it."""
        with disk_errors(folder):
            state = snapshot.tensors if self._ranks is ALONE else WholeState(Pieces(folder))
            self._write_model(folder, Served(state, snapshot.types))

    def _hashes(self, folder: Path) -> dict[str, str]:
        """Of all files; each process reads some."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        own = files[self._ranks.number :: self._ranks.count]
        found: dict[str, str] = {}
        for part in self._ranks.together(
            lambda: {path.relative_to(folder).as_posix(): _sha256(path) for path in own}
        ):
            found |= part
        return dict(sorted(found.items()))

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


def read_newest(folder: Path, ranks: Ranks = ALONE) -> tuple[Saved | None, list[Path]]:
    """The newest checkpoint that is intact, and those that turned out damaged.

    All of ``ranks`` find the same one, and get of its state what belongs to them. Raises
    `BadDataError` if there are checkpoints but all are damaged.
    """
    damaged: list[Path] = []
    for path in reversed(ranks.together(lambda: checkpoints(folder))[0]):
        state = ranks.together(partial(_read_state, path))[0]
        if state is not None and _intact(path, state.pop("sha256", None), ranks):
            return Saved(path, state, ranks.read_state(path)), damaged
        damaged.append(path)
    if damaged:
        raise BadDataError(
            f"{folder}: every checkpoint is damaged; remove the folder to begin anew",
            f"{folder}：所有检查点均已损坏；请删除该目录后重新开始",
        )
    return None, damaged


def generators_state(generator: torch.Generator, stream: int = 0) -> dict[str, Tensor]:
    """States of torch's own generator, of which every ``stream`` has one, and of the run's."""
    return {
        _stream_name(stream): torch.get_rng_state(),
        "generator.routing": generator.get_state(),
    }


def restore_generators(
    tensors: Mapping[str, Tensor], generator: torch.Generator, stream: int = 0, seed: int = 0
) -> None:
    """The reverse of `generators_state`; a stream that was not there begins with ``seed``."""
    if _stream_name(stream) in tensors:
        torch.set_rng_state(tensors[_stream_name(stream)])
    else:
        torch.manual_seed(seed)
    generator.set_state(tensors["generator.routing"])


def _stream_name(stream: int) -> str:
    return f"generator.torch.{stream}" if stream else "generator.torch"


def _read_state(path: Path) -> dict[str, Any] | None:
    """What is in a checkpoint's state.json, if it is whole."""
    try:
        state = json.loads((path / STATE_JSON).read_bytes())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _intact(path: Path, hashes: Any, ranks: Ranks) -> bool:
    """Whether every file of a checkpoint is what it was when it was written."""
    if not isinstance(hashes, dict) or not any(name.startswith("training/") for name in hashes):
        return False
    own = [*hashes.items()][ranks.number :: ranks.count]
    return all(ranks.together(lambda: all(_sha256(path / n) == wanted for n, wanted in own)))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
