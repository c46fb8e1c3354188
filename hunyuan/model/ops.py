"""What the model computes between its matrix products, and the seam where a trainer replaces it.

These are a tenth of the arithmetic and, written as single torch operations, half of the time of
a training step on a CPU. `Ops` gathers them, so that kernels with the same meaning and their own
gradients can be handed to a forward pass (`hunyuan.train.kernels`); `REFERENCE` is the meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from hunyuan.model.rope import rotate

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each (B, T, 1, C/2) float32."""


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """gain * x / sqrt(mean(x^2) + eps) over the last axis, in float32; the type of ``x``."""
    return F.rms_norm(x.float(), gain.shape, gain, eps).to(x.dtype)


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """``x`` (..., C) in float32 scaled to root mean square 1 over the last axis."""
    x = x.float()
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, element by element."""
    return F.silu(gate) * up


def rotate_unit(x: Tensor, rotation: Rotation, eps: float | None, gain: Tensor | None) -> Tensor:
    """Heads (B, T, heads, C): rotated; with ``eps`` scaled to root mean square 1, times ``gain``.

    ``gain`` (C,) needs ``eps``. In float32, the result in the type of ``x``.
    """
    out = rotate(x, *rotation)
    if eps is not None:
        out = unit_rms(out, eps)
    if gain is not None:
        out = out * gain
    return out.to(x.dtype)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """T tokens among themselves: q (B, T, H, C) and k, v (B, T, K, C) -> (B, T, H, C)."""
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        is_causal=True,
        enable_gqa=True,
    )
    return out.transpose(1, 2)


def as_projected(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """K and V (B, T, K, C) of the tokens at hand, which are all there are."""
    return k, v


@dataclass(frozen=True, kw_only=True)
class Ops:
    """The operations; each must equal the function of this module that is its default."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm
    """`rms_norm`."""

    swiglu: Callable[[Tensor, Tensor], Tensor] = swiglu
    """`swiglu`."""

    rotate_unit: Callable[[Tensor, Rotation, float | None, Tensor | None], Tensor] = rotate_unit
    """`rotate_unit`."""

    attend: Callable[[Tensor, Tensor, Tensor], Tensor] = causal_attention
    """`causal_attention`; a trainer's may keep documents of one row apart or apply dropout."""

    share: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = as_projected
    """`as_projected`: what an owner layer hands to its group, itself included. Where processes hold
    parts of one row it gathers them here, once for all layers of the group, and ``attend`` is given
    queries of the part and keys of the whole."""


REFERENCE = Ops()
