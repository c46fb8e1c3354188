"""One process among those of a run: what the loop asks of the others.

`Ranks` is the seam; `hunyuan.parallel.ranks` talks to other processes through it, and `ALONE`
answers for a process that has none, so that the loop is one and the same.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunyuan.formats.safetensors_writer import (
    DTYPE_NAMES,
    SafetensorsSpec,
    tensor_bytes,
    write_safetensors,
)
from hunyuan.model.ops import Ops
from hunyuan.model.transformer import Transformer
from hunyuan.parallel.layout import Layout, Place
from hunyuan.parallel.state import Pieces, WholeState
from hunyuan.train import kernels

T = TypeVar("T")

STATE = "training/state.safetensors"
"""Where a process alone keeps its state, in a checkpoint."""


class Ranks(Protocol):
    """All processes of a run, seen from one of them."""

    @property
    def layout(self) -> Layout:
        """How many do what."""

    @property
    def place(self) -> Place:
        """Where this one stands."""

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""

    @property
    def number(self) -> int:
        """Of this one, from 0."""

    @property
    def count(self) -> int:
        """Of all."""

    @property
    def stream(self) -> int:
        """Number of its random generator; those that hold the same tokens have the same."""

    def sum(self, values: Tensor) -> Tensor:
        """Sums over the ranks with different tokens or layers, (...) float64."""

    def largest(self, value: float) -> float:
        """Of all ranks."""

    def together(self, work: Callable[[], T]) -> list[T]:
        """The results of all ranks; an error of one is raised by all.

        May be called by a second thread while the first computes.
        """

    def lay(self, model: Transformer, values: Mapping[str, Tensor]) -> Transformer:
        """``model``, on the meta device, divided over the processes, each with its ``values``."""

    @property
    def stage(self) -> Any:
        """Where the layers are divided, the `hunyuan.parallel.pipeline.Stage` of this process."""

    def pipeline(self, *, rows: int, tokens: int, micro: int, loss: Any) -> Any:
        """A `hunyuan.parallel.pipeline.Pipeline` of all stages."""

    def local(self, tensor: Tensor) -> Tensor:
        """What this process holds of a parameter, in the same memory."""

    def gradient(self, weight: Tensor) -> Tensor:
        """Of what this process holds of a parameter."""

    def norm(self, gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
        """Of all gradients together; each belongs to what is held of a parameter."""

    def ops(self, ops: Ops, first_seen: Tensor, dropout: float) -> Ops:
        """``ops`` for the tokens held here."""

    def cross_entropy(
        self, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """As `hunyuan.train.kernels.cross_entropy`."""

    def evaluated(self, model: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum of the cross-entropy of normed hidden states (N, D), logits in float32."""

    def settle(self, model: nn.Module) -> None:
        """Let go of gathered weights after a forward pass that has no backward."""

    def write_state(self, tensors: Mapping[str, Tensor], checkpoint: Path) -> None:
        """Write what `local` has of everything; all ranks call it, and all fail if one does."""

    def read_state(self, checkpoint: Path) -> Mapping[str, Tensor]:
        """What `write_state` wrote, by whatever processes, as far as it belongs here."""


class _Alone:
    """One process."""

    layout = Layout()
    place = Place(0, 0, 0, 0, 0)
    main = True
    number = 0
    count = 1
    stream = 0
    stage = None

    def sum(self, values: Tensor) -> Tensor:
        return values

    def largest(self, value: float) -> float:
        return value

    def together(self, work: Callable[[], T]) -> list[T]:
        return [work()]

    def lay(self, model: Transformer, values: Mapping[str, Tensor]) -> Transformer:
        raise AssertionError("one process holds the model as it is")

    def pipeline(self, *, rows: int, tokens: int, micro: int, loss: Any) -> Any:
        raise AssertionError("one process runs all layers")

    def local(self, tensor: Tensor) -> Tensor:
        return tensor

    def gradient(self, weight: Tensor) -> Tensor:
        assert weight.grad is not None
        return weight.grad

    def norm(self, gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
        return float(nn.utils.get_total_norm(gradients))

    def ops(self, ops: Ops, first_seen: Tensor, dropout: float) -> Ops:
        return ops

    def cross_entropy(
        self, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        return kernels.cross_entropy(hidden, head, targets, weights)

    def evaluated(self, model: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model.logits(hidden), targets, reduction="sum")

    def settle(self, model: nn.Module) -> None:
        pass

    def write_state(self, tensors: Mapping[str, Tensor], checkpoint: Path) -> None:
        """A safetensors file; the library's own writer reports a full disk as no OSError."""
        ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
        specs = [
            SafetensorsSpec(
                name, DTYPE_NAMES[t.dtype], tuple(t.shape), [tensor_bytes(t.contiguous())]
            )
            for name, t in ordered
        ]
        with (checkpoint / STATE).open("wb") as file:
            write_safetensors(file, specs, {"format": "pt"})

    def read_state(self, checkpoint: Path) -> Mapping[str, Tensor]:
        return WholeState(Pieces(checkpoint))


ALONE: Ranks = _Alone()
"""The process that has no others."""


def seeded(seed: int, stream: int, step: int) -> int:
    """Seed of a stream of dropout that has no state to go on from."""
    mixed = torch.Generator().manual_seed(seed)
    for number in (stream, step):
        drawn = int(torch.randint(2**62, (), generator=mixed))
        mixed.manual_seed((drawn + number) % 2**63)
    return int(torch.randint(2**62, (), generator=mixed))
