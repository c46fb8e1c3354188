"""Tensor parallelism: heads, MLP channels and vocabulary divided over ranks that share tokens.

Every rank computes the whole residual stream. A divided block begins with `enter`, which sums
gradients, and ends with a sum of what the ranks computed; two sums per block each way.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from hunyuan.model.attention import Attention
from hunyuan.model.layers import MLP
from hunyuan.model.moe import MoE
from hunyuan.model.transformer import Block, Transformer
from hunyuan.parallel import unstable

# Logits per block of the cross-entropy.
_LOGITS = 4 << 20


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return unstable.all_reduce(grad, ctx.group), None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        return unstable.all_reduce(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def enter(x: Tensor, group: Any) -> Tensor:
    """``x``, the same on all ranks of ``group``, of which each uses a part of the weights."""
    y: Tensor = _Enter.apply(x, group)  # type: ignore[no-untyped-call]
    return y


def leave(x: Tensor, group: Any) -> Tensor:
    """The sum of the ranks' ``x``, used alike by all of them."""
    y: Tensor = _Leave.apply(x, group)  # type: ignore[no-untyped-call]
    return y


def divide(model: Transformer, mesh: DeviceMesh) -> None:
    """Divide attention, dense and shared MLPs, embedding and head over ``mesh``.

    Routed experts are `hunyuan.parallel.experts`' part. The head is not called but used by
    `cross_entropy`.
    """
    if model.model.embed_tokens is not None:
        rows = RowwiseParallel(input_layouts=Replicate())
        parallelize_module(model.model.embed_tokens, mesh, rows)
    if getattr(model, "lm_head", None) is not None:
        local = DTensor.from_local(
            _part(model.lm_head.weight, mesh), mesh, [Shard(0)], run_check=False
        )
        model.lm_head.weight = nn.Parameter(local)
    for block in model.model.layers:
        assert isinstance(block, Block)
        _divide_attention(block.self_attn, mesh)
        mlp = block.mlp
        if isinstance(mlp, MLP):
            _divide_mlp(mlp, mesh)
        elif isinstance(mlp, MoE) and mlp.config.shared_experts:
            _divide_mlp(mlp.shared_mlp, mesh)


def _part(weight: Tensor, mesh: DeviceMesh) -> Tensor:
    return weight.detach().chunk(mesh.size())[mesh.get_local_rank()].clone()


def _divide_attention(attention: Attention, mesh: DeviceMesh) -> None:
    plan = {
        "": PrepareModuleInput(
            input_layouts=(Replicate(), None, None, None, None),
            desired_input_layouts=(Replicate(), None, None, None, None),
        ),
        "q_proj": ColwiseParallel(),
        "o_proj": RowwiseParallel(),
    }
    if attention.owner:
        plan |= {"k_proj": ColwiseParallel(), "v_proj": ColwiseParallel()}
    parallelize_module(attention, mesh, plan)
    group = mesh.get_group()

    def sum_gain(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """All heads share one gain; a rank's gradient of it is that of its heads."""
        *rest, ops = arguments
        plain = ops.rotate_unit

        def rotate_unit(x: Tensor, turn: Any, eps: float | None, gain: Tensor | None) -> Tensor:
            out: Tensor = plain(x, turn, eps, None if gain is None else enter(gain, group))
            return out

        return (*rest, replace(ops, rotate_unit=rotate_unit))

    if attention.qk_norm:
        attention.register_forward_pre_hook(sum_gain)


def _divide_mlp(mlp: MLP, mesh: DeviceMesh) -> None:
    plan = {
        "": PrepareModuleInput(
            input_layouts=(Replicate(), None), desired_input_layouts=(Replicate(), None)
        ),
        "gate_proj": ColwiseParallel(),
        "up_proj": ColwiseParallel(),
        "down_proj": RowwiseParallel(),
    }
    parallelize_module(mlp, mesh, plan)


def cross_entropy(hidden: Tensor, head: DTensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Sum of weights * cross-entropy of each row's target, the vocabulary divided over ranks.

    ``hidden`` (N, D), ``head`` (V, D) with its rows divided, ``targets`` (N,) int64, negative where
    there is none, ``weights`` (N,) float32; as `hunyuan.train.kernels.cross_entropy`. The whole
    logits exist nowhere; the ranks exchange three numbers per row.
    """
    mesh = head.device_mesh
    local = head.to_local()
    first = mesh.get_local_rank() * len(local)
    loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, local, targets, weights, first, mesh.get_group()
    )
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        first: int,
        group: Any,
    ) -> Tensor:
        gradients = torch.empty_like(hidden)
        head_gradient = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
        loss = torch.zeros((), device=hidden.device)
        step = max(1, _LOGITS // len(head))
        for start in range(0, len(hidden), step):
            rows = slice(start, start + step)
            logits = (hidden[rows] @ head.T).float()
            top = unstable.all_reduce(logits.amax(-1), group, "max")
            mine = targets[rows] - first
            here = (mine >= 0) & (mine < len(head))
            mine = mine.clamp(0, len(head) - 1)[:, None]
            chosen = torch.where(here, logits.gather(1, mine)[:, 0], 0)
            powers = (logits - top[:, None]).exp_()
            total, chosen = unstable.all_reduce(torch.stack([powers.sum(-1), chosen]), group)
            weight = weights[rows] * (targets[rows] >= 0)
            loss += ((top + total.log() - chosen) * weight).sum()
            powers /= total[:, None]
            powers.scatter_add_(1, mine, -here.float()[:, None])
            through = powers.mul_(weight[:, None]).to(hidden.dtype)
            torch.mm(through, head, out=gradients[rows])
            head_gradient += through.T @ hidden[rows]
        ctx.save_for_backward(gradients, head_gradient.to(head.dtype))
        ctx.group = group
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients, head_gradient = ctx.saved_tensors
        whole = unstable.all_reduce(gradients * grad.to(gradients.dtype), ctx.group)
        return whole, head_gradient * grad.to(head_gradient.dtype), None, None, None, None
