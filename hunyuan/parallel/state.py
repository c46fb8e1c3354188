"""The state of training in a checkpoint: written by many processes, read by any number of them.

    STEP/training/shard-00001-model-00001-of-00001.safetensors   what the first process held
    STEP/training/shard-00002-model-00001-of-00001.safetensors   ...
    STEP/training/state.safetensors                              instead, of a process alone

`write_pieces` is torch's distributed checkpointing (DCP) in its safetensors form: every process
writes its part of each tensor once, with where it begins in the whole. `Pieces` reads any box of
any tensor from such files, mapped and not loaded, so that another number of processes in another
layout goes on, and a model is written leaf by leaf without being held whole.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hunyuan.errors import BadDataError
from hunyuan.model.config import ModelConfig
from hunyuan.parallel.layout import Layout

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

FOLDER = "training"
_SHARDING = "DCP_SHARDING_INFO"

PARAMETER_KINDS = ("master", "exp_avg", "exp_avg_sq", "average")
"""What is kept of every parameter, each in its shape: ``KIND.NAME``."""


class Box(NamedTuple):
    """A part of a tensor."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]


class Held(NamedTuple):
    """What a process holds of a parameter."""

    whole: tuple[int, ...]
    """Shape of the parameter."""

    box: Box


class _Piece(NamedTuple):
    file: Any
    box: Box


class Pieces:
    """The tensors of a checkpoint's state, read box by box."""

    def __init__(self, checkpoint: Path) -> None:
        """``checkpoint`` is a step's folder; raises `BadDataError` if a file is damaged."""
        self._found: dict[str, list[_Piece]] = {}
        for path in sorted((checkpoint / FOLDER).glob("*.safetensors")):
            try:
                self._index(safe_open(str(path), framework="pt"))
            except (SafetensorError, OSError, ValueError, KeyError) as error:
                raise BadDataError(
                    f"{path}: not a whole safetensors file ({error}); use an earlier checkpoint",
                    f"{path}：不是完整的 safetensors 文件（{error}）；请使用更早的检查点",
                ) from error

    def _index(self, file: Any) -> None:
        known = json.loads((file.metadata() or {}).get(_SHARDING, "{}"))
        for name in file.keys():  # noqa: SIM118 - it has no iterator
            shape = tuple(file.get_slice(name).get_shape())
            offset = tuple(known[name]["saved_offsets"]) if known else (0,) * len(shape)
            self._found.setdefault(name, []).append(_Piece(file, Box(offset, shape)))

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        boxes = [piece.box for piece in self._found[name]]
        ends = [[o + n for o, n in zip(*box, strict=True)] for box in boxes]
        return tuple(max(axis) for axis in zip(*ends, strict=True))

    def read(self, name: str, box: Box | None = None) -> Tensor:
        """A tensor, or a box of it."""
        pieces = self._found[name]
        if len(pieces) == 1 and (box is None or box == pieces[0].box):
            whole: Tensor = pieces[0].file.get_tensor(name)
            return whole
        box = Box((0,) * len(self.shape(name)), self.shape(name)) if box is None else box
        out: Tensor | None = None
        for file, (offset, shape) in pieces:
            begins = [max(a, b) for a, b in zip(offset, box.offset, strict=True)]
            ends = [
                min(a + n, b + m)
                for a, n, b, m in zip(offset, shape, box.offset, box.shape, strict=True)
            ]
            if any(b >= e for b, e in zip(begins, ends, strict=True)):
                continue
            there = [slice(b - o, e - o) for b, e, o in zip(begins, ends, offset, strict=True)]
            here = [slice(b - o, e - o) for b, e, o in zip(begins, ends, box.offset, strict=True)]
            part = file.get_slice(name)[tuple(there)]
            if out is None:
                out = part.new_empty(box.shape)
            out[tuple(here)] = part
        return self._empty(name, box) if out is None else out

    def _empty(self, name: str, box: Box) -> Tensor:
        """A box without elements; the type is that of the tensor."""
        file, (_, shape) = self._found[name][0]
        nothing = file.get_slice(name)[tuple(slice(0, 0) for _ in shape)]
        empty: Tensor = nothing.new_empty(box.shape)
        return empty


class WholeState(Mapping[str, Tensor]):
    """Everything in a checkpoint, read when it is asked for."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._pieces:
            raise KeyError(name)
        return self._pieces.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return sum(1 for _ in self._pieces)


class OwnState(Mapping[str, Tensor]):
    """Of a checkpoint what belongs to one process, read when it is asked for."""

    def __init__(self, pieces: Pieces, held: Mapping[str, Held]) -> None:
        """``held``: what the process has of every parameter."""
        self._pieces = pieces
        self._held = held

    def __getitem__(self, name: str) -> Tensor:
        kind, _, parameter = name.partition(".")
        if name not in self._pieces:
            raise KeyError(name)
        if kind in PARAMETER_KINDS:
            whole, box = self._held[parameter]
            stored = self._pieces.shape(name)
            # Of another shape no box is the right one; what uses the state says so.
            return self._pieces.read(
                name, box if stored == whole else Box(stored, (0,) * len(stored))
            )
        return self._pieces.read(name)

    def __iter__(self) -> Iterator[str]:
        for name in self._pieces:
            kind, _, parameter = name.partition(".")
            if kind not in (*PARAMETER_KINDS, "step") or parameter in self._held:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)


def held_of(weight: "DTensor") -> Held:
    """The part of a parameter that this process holds."""
    # Not public, and the only way to learn what a division means for one rank.
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(
        weight.shape, weight.device_mesh, weight.placements
    )
    return Held(tuple(weight.shape), Box(tuple(offset), tuple(shape)))


def write_pieces(
    tensors: Mapping[str, Tensor], weights: Mapping[str, "DTensor"], checkpoint: Path, group: Any
) -> None:
    """Write what every process of ``group`` holds of everything; all of them call it.

    ``weights`` are the parameters, whose division that of ``KIND.NAME`` is. Raises the same
    `OSError` on all of them if a disk is full.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.tensor import DTensor

    state: dict[str, Any] = {}
    for name, tensor in tensors.items():
        kind, _, parameter = name.partition(".")
        if kind not in PARAMETER_KINDS:
            state[name] = tensor
            continue
        like = weights[parameter]
        state[name] = DTensor.from_local(
            tensor,
            like.device_mesh,
            like.placements,
            run_check=False,
            shape=like.shape,
            stride=like.stride(),
        )
    writer = HuggingFaceStorageWriter(str(checkpoint / FOLDER), save_distributed=True)
    try:
        save(state, storage_writer=writer, process_group=group)
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            if isinstance(failure, OSError):
                raise failure from error
        raise


def bytes_per_process(
    config: ModelConfig, dtype: torch.dtype, layout: Layout, rank: int
) -> dict[str, int]:
    """What training keeps of the weights on one process, by kind, when all of them are trained.

    The model is laid over a pretended world on the meta device: no memory, no other process.
    """
    from hunyuan.model.transformer import build
    from hunyuan.parallel.apply import parallelise
    from hunyuan.parallel.mesh import pretended

    with pretended(layout, rank) as mesh:
        model = build(config, dtype)
        parallelise(model, mesh)
        held = [weight.to_local() for weight in model.parameters()]  # type: ignore[attr-defined]
        elements = sum(weight.numel() for weight in held)
        weights = sum(weight.numel() * weight.dtype.itemsize for weight in held)
    return {
        "weights": weights,
        "masters": 4 * elements,
        "gradients": 4 * elements,
        "moments": 8 * elements,
    }
