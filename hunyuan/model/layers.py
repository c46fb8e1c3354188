"""RMSNorm and the SwiGLU MLP, the two blocks that everything else is made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """``x`` (..., C) in float32 scaled to root mean square 1 over the last axis."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class RMSNorm(nn.Module):
    """w * x / sqrt(mean(x^2) + eps), computed in float32 (specification, section 3.1).

    The weight stays float32 in a bfloat16 model: it is tiny, and rounding it costs accuracy in
    every channel of every token.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (..., width); the result has the type of ``x``."""
        normed = F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)
        return normed.to(x.dtype)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), the dense MLP and the shared expert."""

    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, ffn, bias=False)
        self.up_proj = nn.Linear(hidden, ffn, bias=False)
        self.down_proj = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out
