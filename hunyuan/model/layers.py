"""RMSNorm and the SwiGLU MLP, the two blocks that everything else is made of."""

import torch
from torch import Tensor, nn

from hunyuan.model.ops import REFERENCE, Ops


class RMSNorm(nn.Module):
    """w * x / sqrt(mean(x^2) + eps), computed in float32 (specification, section 3.1).

    The weight stays float32 in a bfloat16 model: it is tiny, and rounding it costs accuracy in
    every channel of every token.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float32))
        self.eps = eps

    def forward(self, x: Tensor, ops: Ops = REFERENCE) -> Tensor:
        """Normalise ``x`` (..., width); the result has the type of ``x``."""
        return ops.rms_norm(x, self.weight, self.eps)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), the dense MLP and the shared expert."""

    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, ffn, bias=False)
        self.up_proj = nn.Linear(hidden, ffn, bias=False)
        self.down_proj = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x: Tensor, ops: Ops = REFERENCE) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.down_proj(ops.swiglu(self.gate_proj(x), self.up_proj(x)))
        return out
