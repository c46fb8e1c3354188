"""The processes of a layout: begin, who talks to whom, end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from hunyuan.parallel import unstable
from hunyuan.parallel.layout import Layout, Place


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """The processes as this one sees them; each mesh is 1-D and holds this process."""

    layout: Layout
    place: Place
    device: torch.device

    data: DeviceMesh
    """All ranks with different tokens: data and context together. Weights are sharded over it."""

    norms: DeviceMesh
    """The same ranks once more, for the float32 weights of a bfloat16 model."""

    context: DeviceMesh
    """Ranks that hold the parts of the same rows."""

    tensor: DeviceMesh
    """Ranks that hold the same tokens and layers."""

    pipeline: DeviceMesh
    """Ranks that hold the layers, one stage after another."""

    expert: DeviceMesh
    """Ranks that together hold the experts of a layer."""

    expert_data: DeviceMesh
    """Ranks that hold the same experts: their weights are sharded over it."""

    expert_tensor: DeviceMesh
    """2-D: expert and tensor."""


def local_device() -> torch.device:
    """This process's accelerator, by torchrun's ``LOCAL_RANK``, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))


def mesh_of(layout: Layout, device: torch.device) -> Mesh:
    """The mesh of a process group that has begun and has ``layout.world`` processes."""
    world = init_device_mesh(device.type, (layout.world,), mesh_dim_names=("world",))
    dense = unstable.divide(
        world,
        "world",
        {"pipeline": layout.pipeline, "tokens": layout.shards, "tensor": layout.tensor},
    )
    rows = unstable.divide(dense, "tokens", {"data": layout.data, "context": layout.context})
    norms = unstable.divide(dense, "tokens", {"norms": layout.shards}, dist.get_backend())
    sparse = unstable.divide(
        dense, "tokens", {"expert_data": layout.expert_shards, "expert": layout.expert}
    )
    return Mesh(
        layout=layout,
        place=layout.place(dist.get_rank()),
        device=device,
        data=dense["tokens"],
        norms=norms["norms"],
        context=rows["context"],
        tensor=dense["tensor"],
        pipeline=dense["pipeline"],
        expert=sparse["expert"],
        expert_data=sparse["expert_data"],
        expert_tensor=sparse["expert", "tensor"],
    )


@contextmanager
def processes(layout: Layout, device: torch.device | None = None, **group: Any) -> Iterator[Mesh]:
    """Join the other processes for as long as the block lasts.

    Under torchrun its environment says who is who; otherwise ``group`` is what
    `torch.distributed.init_process_group` takes.
    """
    device = local_device() if device is None else device
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
        group.setdefault("device_id", device)
    group.setdefault("backend", dist.get_default_backend_for_device(device))
    dist.init_process_group(**group)
    try:
        yield mesh_of(layout, device)
        # A process that leaves while another still talks to it aborts the other at exit.
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextmanager
def pretended(layout: Layout, rank: int = 0) -> Iterator[Mesh]:
    """One process that stands for ``rank`` of a world of any size; nothing is communicated."""
    dist.init_process_group("fake", store=unstable.fake_store(), rank=rank, world_size=layout.world)
    try:
        yield mesh_of(layout, torch.device("cpu"))
    finally:
        dist.destroy_process_group()
