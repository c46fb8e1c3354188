"""Everything of torch that is used here and is not public, so that an upgrade is one file's work.

Written against torch 2.13. The collectives are those that can be traced into one graph and have
gradients; the rest is about meshes and about sharding the weights of one module in several groups.
"""

from typing import Any

import torch.distributed._functional_collectives as functional
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp._fully_shard._fsdp_common import (
    FSDPMeshInfo,
)
from torch.distributed.fsdp._fully_shard._fsdp_common import (
    ShardPlacementResult as ShardPlacementResult,
)
from torch.distributed.tensor import Shard


def all_to_all(
    x: Tensor, group: Any, received: list[int] | None = None, sent: list[int] | None = None
) -> Tensor:
    """Rows of ``x`` in equal parts, one for each rank, exchanged; has a gradient.

    With ``received`` and ``sent`` the parts have so many rows instead.
    """
    return _there(functional.all_to_all_single_autograd(x.contiguous(), received, sent, group))


def all_gather(x: Tensor, axis: int, group: Any) -> Tensor:
    """The ranks' ``x`` side by side along ``axis``; the gradient is summed and scattered."""
    return _there(functional.all_gather_single_autograd(x.contiguous(), axis, group))


def all_reduce(x: Tensor, group: Any, operation: str = "sum") -> Tensor:
    """Sum or ``max`` over ranks, in a new tensor; no gradient."""
    return _there(functional.all_reduce(x.contiguous(), operation, group))


def _there(x: Tensor) -> Tensor:
    """``x`` once it has arrived."""
    y: Tensor = functional.wait_tensor(x)  # type: ignore[no-untyped-call]
    return y


def divide(
    mesh: DeviceMesh, name: str, sizes: dict[str, int], backend: str | None = None
) -> DeviceMesh:
    """``mesh`` with its dimension ``name`` seen as several; each has process groups of its own.

    A dimension of all processes has the default group, unless a ``backend`` is named.
    """
    own: dict[str, Any] | None = None if backend is None else dict.fromkeys(sizes, backend)
    return mesh._unflatten(name, tuple(sizes.values()), tuple(sizes), own)


class Sharding:
    """Where FSDP puts the shards of a weight: along an axis, over the ranks of a 1-D mesh.

    Weights with different meshes are gathered by themselves; those of one module must have one
    number type per mesh.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self._info = FSDPMeshInfo(mesh, shard_mesh_dim=0)

    def along(self, axis: int) -> ShardPlacementResult:
        """For `fully_shard`'s ``shard_placement_fn``."""
        return ShardPlacementResult(Shard(axis), self._info)


def fake_store() -> Any:
    """What a process group of backend ``fake`` is begun with."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    return FakeStore()
