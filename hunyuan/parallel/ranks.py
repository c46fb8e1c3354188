"""What training asks of the other processes; see `hunyuan.train.ranks.Ranks`."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.fsdp import FSDPModule
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from hunyuan.model.ops import Ops
from hunyuan.model.transformer import Transformer
from hunyuan.parallel import tensor
from hunyuan.parallel.apply import fill, parallelise
from hunyuan.parallel.context import divided_rows
from hunyuan.parallel.layout import Layout, Place
from hunyuan.parallel.mesh import Mesh, processes
from hunyuan.parallel.pipeline import Pipeline, Stage
from hunyuan.parallel.state import OwnState, Pieces, held_of, write_pieces

T = TypeVar("T")

# Reading and writing checkpoints, when one process may wait for another's disk.
_PATIENCE = timedelta(hours=2)

# Between two looks for processes that have come.
_POLL = 0.01

# Until a process that failed gives up asking whether another was first.
_ASKING = timedelta(seconds=5)


class ManyRanks:
    """One of many processes."""

    def __init__(self, mesh: Mesh, plain: Callable[..., Tensor]) -> None:
        """``plain`` is the cross-entropy where the head is whole."""
        self.mesh = mesh
        self._plain = plain
        self._aside = dist.new_group(backend="gloo", timeout=_PATIENCE)
        self._weights: dict[str, DTensor] = {}
        self.stage: Stage | None = None
        """What this process runs, where the layers are divided."""

    @property
    def layout(self) -> Layout:
        """How many do what."""
        return self.mesh.layout

    @property
    def place(self) -> Place:
        """Where this one stands."""
        return self.mesh.place

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return dist.get_rank() == 0

    @property
    def number(self) -> int:
        """Of this one, from 0."""
        return dist.get_rank()

    @property
    def count(self) -> int:
        """Of all."""
        return dist.get_world_size()

    @property
    def stream(self) -> int:
        """Number of its random generator: ranks that differ in tensor alone have the same."""
        return dist.get_rank() // self.layout.tensor

    def lay(self, model: Transformer, values: Mapping[str, Tensor]) -> Transformer:
        """``model``, on the meta device, divided over the processes, each with its ``values``."""
        laid = parallelise(model, self.mesh)
        laid.to_empty(device=self.mesh.device)
        if isinstance(laid, Stage):
            self.stage = laid
        fill(model, values)
        for name, weight in model.named_parameters():
            assert isinstance(weight, DTensor), name
            self._weights[name] = weight
        return model

    def sum(self, values: Tensor) -> Tensor:
        """Sums over the ranks with different tokens or layers, float64."""
        total = values.double()
        for mesh in (self.mesh.data, self.mesh.pipeline):
            if mesh.size() > 1:
                dist.all_reduce(total, group=mesh.get_group())
        return total

    def largest(self, value: float) -> float:
        """Of all ranks."""
        found = torch.tensor(value, dtype=torch.float64, device=self.mesh.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)

    def together(self, work: Callable[[], T]) -> list[T]:
        """The results of all ranks; an error of one is raised by all."""
        result: T | None = None
        own: Exception | None = None
        try:
            result = work()
        except Exception as error:
            own = error
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, (result, own), group=self._aside)
        if own is not None:
            raise own
        for _, failure in found:
            if failure is not None:
                raise failure
        return [result for result, _ in found]

    def pipeline(
        self, *, rows: int, tokens: int, micro: int, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> Pipeline:
        """All stages, for steps of ``micro`` micro-batches; (rows, tokens) are held here."""
        assert self.stage is not None
        return Pipeline(self.stage, self.mesh, rows=rows, tokens=tokens, micro=micro, loss=loss)

    def local(self, tensor: Tensor) -> Tensor:
        """What this process holds of a parameter, in the same memory."""
        if not isinstance(tensor, DTensor):
            return tensor
        with torch.no_grad():
            held: Tensor = tensor.to_local()
            return held.detach()

    def gradient(self, weight: Tensor) -> Tensor:
        """Of what this process holds of a parameter."""
        grad = weight.grad
        assert grad is not None
        if not isinstance(grad, DTensor) or not isinstance(weight, DTensor):
            return grad
        return grad.redistribute(placements=weight.placements).to_local()

    def norm(self, gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
        """Of all gradients together: squares are summed over all ranks, copies counted once."""
        norms = torch.stack([n.double() for n in torch._foreach_norm(list(gradients))])
        copies = torch.tensor(
            [self._copies(weight) for weight in weights], dtype=torch.float64, device=norms.device
        )
        total = (norms.square() / copies).sum()
        dist.all_reduce(total)
        return math.sqrt(float(total)) if float(total) >= 0 else math.nan

    @property
    def _tied(self) -> Tensor | None:
        """The embedding of a tied model, where this process has it."""
        assert self.stage is not None
        tied = self.stage.model.config.tied
        return self._weights.get("model.embed_tokens.weight") if tied else None

    def _copies(self, weight: Tensor) -> int:
        """How many ranks hold what this one holds of a parameter."""
        stage = self.layout.world // self.layout.pipeline
        if self.stage is not None and weight is self._tied:
            stage *= 2  # the first stage has it as embedding, the last one as head
        parts = 1
        assert isinstance(weight, DTensor)
        for axis, placement in enumerate(weight.placements):
            if placement.is_shard():
                parts *= weight.device_mesh.size(axis)
        return stage // parts

    def ops(self, ops: Ops, first_seen: Tensor, dropout: float) -> Ops:
        """``ops`` for rows that are divided."""
        return divided_rows(ops, first_seen, self.mesh, dropout)

    def cross_entropy(
        self, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """Sum of weights * cross-entropy of the targets held here."""
        if isinstance(head, DTensor):
            return tensor.cross_entropy(hidden, head, targets, weights)
        return self._plain(hidden, head, targets, weights)

    def evaluated(self, model: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum of the cross-entropy of normed hidden states (N, D).

        Logits are in float32; where the vocabulary is divided, in the type of the model.
        """
        head = (model.model.embed_tokens if model.config.tied else model.lm_head).weight
        if not isinstance(head, DTensor):
            return F.cross_entropy(model.logits(hidden), targets, reduction="sum")
        weights = torch.ones(len(hidden), device=hidden.device)
        return tensor.cross_entropy(hidden, head, targets, weights)

    def settle(self, model: nn.Module) -> None:
        """Let go of gathered weights after a forward pass that has no backward."""
        for module in (model if self.stage is None else self.stage).modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def write_state(self, tensors: Mapping[str, Tensor], checkpoint: Path) -> None:
        """Write what is held here; all ranks call it, and all fail if one does."""
        write_pieces(tensors, self._weights, checkpoint, self._aside)

    def read_state(self, checkpoint: Path) -> Mapping[str, Tensor]:
        """What belongs here of a checkpoint of any layout."""
        held = {name: held_of(weight) for name, weight in self._weights.items()}
        return OwnState(Pieces(checkpoint), held)


@contextmanager
def many_ranks(layout: Layout, plain: Callable[..., Tensor]) -> Iterator[ManyRanks]:
    """Join the processes that torchrun started, for as long as the block lasts."""
    with processes(layout, **_meeting()) as mesh:
        yield ManyRanks(mesh, plain)


def _meeting() -> dict[str, Any]:
    """Store, rank and number of processes for `init_process_group`, by torchrun's environment.

    After a restart torchrun's c10d rendezvous hands out the store of the start before, with the
    addresses of processes that are gone. So the first process names a part of it that is new, and
    tells only those that are there now: they prove it by a word that nobody used before.
    """
    store, rank, world = next(rendezvous("env://"))
    word = uuid4().hex
    if rank:
        store.set(f"hunyuan/hello/{rank}", word)
        name = store.get(f"hunyuan/welcome/{word}").decode()
        store.set(f"hunyuan/{name}/{rank}", "here")
    else:
        name = word
        missing = set(range(1, world))
        while missing:
            for other in sorted(missing):
                hello = f"hunyuan/hello/{other}"
                if store.check([hello]):
                    store.set(f"hunyuan/welcome/{store.get(hello).decode()}", name)
            missing = {other for other in missing if not store.check([f"hunyuan/{name}/{other}"])}
            time.sleep(_POLL)
    return {"store": PrefixStore(name, store), "rank": rank, "world_size": world}


def first_to_fail() -> bool:
    """Whether no other process of this start has failed before; the one that asks first is."""
    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=_ASKING,
        )
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return int(store.add(f"hunyuan/failed/{start}", 1)) == 1
    except (KeyError, ValueError, RuntimeError):
        return True  # nobody is left to be asked


def lost(error: BaseException) -> bool:
    """Whether an error means that another process is gone."""
    words = ("Connection closed", "Connection reset", "Broken pipe", "gloo", "NCCL", "timed out")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
