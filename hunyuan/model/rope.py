"""Rotary position embedding, NeoX half-rotation: channel j turns with channel j + C/2.

Angles are float32 from integer positions; cosines and sines are computed once per forward pass
and shared by all layers. Cost: T * C/2 angles, nothing next to one projection.
"""

import math

import torch
from torch import Tensor

from hunyuan.model.config import Llama3Scaling, Rope


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """(C/2,) float32: base^(-2j/C), after the scaling the configuration asks for."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    inverse = rope.base(head_dim) ** -exponents
    if rope.linear_factor is not None:
        inverse = inverse / rope.linear_factor
    if rope.llama3 is not None:
        inverse = _llama3(inverse, rope.llama3)
    return inverse.float()


def _llama3(inverse: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Long wavelengths are divided by the factor, short ones kept, those between blended."""
    wavelength = 2 * math.pi / inverse
    ratio = scaling.original_context / wavelength
    blend = (ratio - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = blend.clamp(0, 1)
    return inverse / scaling.factor * (1 - blend) + inverse * blend


def rotation(inverse: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (B, T, 1, C/2) float32, for integer ``positions`` (B, T)."""
    angles = positions[..., None, None].float() * inverse
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x`` (B, T, heads, C) in float32; the result is float32."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
