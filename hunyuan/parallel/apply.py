"""Puts a layout on a `Transformer` from outside, and gives the divided weights their values."""

import warnings
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from hunyuan.model.moe import ExpertBank
from hunyuan.model.transformer import Transformer
from hunyuan.parallel import experts, tensor
from hunyuan.parallel.mesh import Mesh
from hunyuan.parallel.pipeline import Stage, cut
from hunyuan.parallel.unstable import Sharding, ShardPlacementResult


def parallelise(model: Transformer, mesh: Mesh) -> Transformer | Stage:
    """Lay ``model``, built on the meta device, over the processes of ``mesh``.

    Returns the model itself, or what this process runs of it where the layers are divided
    (`Stage.model` is the model then, without the other layers). Every parameter becomes a DTensor
    without memory; `fill` or ``to_empty`` gives it some. Gradients are *summed* over ranks, in
    float32, so a loss must be divided by the tokens of all of them. Recomputation of activations
    is put on before (`hunyuan.train.outside.recompute_blocks`).

    Call ``model.hidden``, not ``model.model``: the embedding and the head stay gathered from there
    to the end of the backward pass.
    """
    layout = mesh.layout
    module: Transformer | Stage = model
    if layout.pipeline > 1:
        module = cut(model, mesh)
    if layout.tensor > 1:
        tensor.divide(model, mesh.tensor)
    if model.config.experts and (layout.expert > 1 or layout.tensor > 1):
        experts.divide(model, mesh)
    _shard(module, model, mesh)
    return module


def _shard(module: Transformer | Stage, model: Transformer, mesh: Mesh) -> None:
    """FSDP: each block by itself, then what is left."""
    dense, norms, sparse = Sharding(mesh.data), Sharding(mesh.norms), Sharding(mesh.expert_data)
    in_bank = {
        id(weight)
        for bank in model.modules()
        if isinstance(bank, ExpertBank)
        for weight in bank.parameters()
    }
    axes = {
        id(weight): _width_axis(name)
        if id(weight) in in_bank or _divided(weight)
        else _even_axis(weight, mesh.layout.shards)
        for name, weight in model.named_parameters()
    }

    def place(weight: nn.Parameter) -> ShardPlacementResult:
        if id(weight) in in_bank and isinstance(weight, DTensor):
            return sparse.along(axes[id(weight)])
        # The weights of one collective are of one type.
        return (dense if weight.dtype == model.dtype else norms).along(axes[id(weight)])

    # V leaves a block as a view, and nothing here or in the model writes into what a block returns.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    shard = partial(
        fully_shard,
        mesh=mesh.data,
        shard_placement_fn=place,
        mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False),
    )
    for block in model.model.layers:
        # A stage runs many micro-batches in turn; gathering for each would take its time.
        shard(block, reshard_after_forward=mesh.layout.pipeline == 1)
    shard(module, reshard_after_forward=False)
    if isinstance(module, Transformer):
        register_fsdp_forward_method(module, "hidden")
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def _divided(weight: Tensor) -> bool:
    return isinstance(weight, DTensor) and weight.dim() > 1


def _even_axis(weight: Tensor, shards: int) -> int:
    """The first axis that gives every rank as much, else the first: padding costs memory."""
    return next((axis for axis, size in enumerate(weight.shape) if size % shards == 0), 0)


def _width_axis(name: str) -> int:
    """The axis of D, along which nothing else divides a weight."""
    bank = ".experts." in name
    if name.endswith(("down_proj", "down_proj.weight", "o_proj.weight")):
        return 1 if bank else 0
    return 2 if bank else 1


def fill(model: Transformer, values: Mapping[str, Tensor]) -> None:
    """Give every parameter the part of its value in ``values`` that belongs here.

    ``values`` are whole tensors by parameter name, the same on all processes; read lazily, one
    after another, so that a mapping may load them from files.
    """
    for name, weight in model.named_parameters():
        assert isinstance(weight, DTensor)
        with torch.no_grad():
            weight.copy_(local_part(values[name].to(weight.dtype), weight))


def local_part(whole: Tensor, like: DTensor) -> DTensor:
    """``whole``, which every process has, divided as ``like`` is; nothing is communicated."""
    return distribute_tensor(
        whole.to(like.device_mesh.device_type),
        like.device_mesh,
        like.placements,
        src_data_rank=None,
    )
