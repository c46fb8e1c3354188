"""Eight-bit floats of published checkpoints: e4m3 or e5m2 numbers, and their scales beside them.

    X.weight             F8_E4M3 or F8_E5M2
    X.weight_scale       float32 or bfloat16 factors: one, one a row, or one a block of 128 x 128
    X.weight_scale_inv   the same under another name

A weight is number times factor. Scales of activations and of an eight-bit cache lie beside them in
releases that compute in eight bits; here nothing is rounded but what the release rounded, so they
are not needed.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Rows = int | slice | None

TYPES = ("F8_E4M3", "F8_E5M2")

BLOCK = 128

_SCALES = (".weight_scale", ".weight_scale_inv")
_OF_ACTIVATIONS = (".input_scale", ".output_scale", ".k_scale", ".v_scale", ".kv_scale")


def is_fp8(raw: Mapping[str, Any]) -> bool:
    """Whether a config.json says that its matrices are eight-bit floats."""
    found = raw.get("quantization_config")
    if not isinstance(found, dict):
        return False
    if found.get("quant_method") == "fp8":
        return True
    return (
        found.get("quant_method") == "compressed-tensors"
        and found.get("format") == "float-quantized"
    )


def scale_of(name: str, stored: Mapping[str, str]) -> str | None:
    """The tensor with the factors of an eight-bit weight."""
    base = name.removesuffix(".weight")
    return next((base + end for end in _SCALES if base + end in stored), None)


def beside(stored: Mapping[str, str]) -> set[str]:
    """Tensors that are no weights but belong to eight-bit ones."""
    if not any(kind in TYPES for kind in stored.values()):
        return set()
    return {name for name in stored if name.endswith((*_SCALES, *_OF_ACTIVATIONS))}


def fits(shape: tuple[int, ...], scale: tuple[int, ...]) -> bool:
    """Whether factors of one shape belong to a weight of another."""
    return _spread(shape, scale) is not None


def widened(numbers: Tensor, factors: Tensor, shape: tuple[int, ...], rows: Rows) -> Tensor:
    """Float32 weights: ``rows`` of a weight of ``shape``, whose ``factors`` are given whole."""
    steps = _spread(shape, tuple(factors.shape))
    assert steps is not None
    counts = [-(-size // step) for size, step in zip(shape, steps, strict=True)]
    # The first axis is cut before the others grow to the weight's size.
    taken = torch.arange(shape[0])[slice(None) if rows is None else rows]
    part = factors.float().reshape(counts)[taken // steps[0]]
    for axis in range(1, len(shape)):
        if 1 < steps[axis] < shape[axis]:
            at = axis - len(shape)
            part = part.repeat_interleave(steps[axis], at).narrow(at, 0, shape[axis])
    return numbers.float() * part


def _spread(shape: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, ...] | None:
    """How many neighbours along each axis share a factor; None if the shapes do not belong."""
    experts, matrix = shape[:-2], shape[-2:]
    single = (1,) * len(experts)
    blocks = tuple(-(-n // BLOCK) for n in matrix)
    rows, columns = matrix
    for lead, steps in ((experts, single), (single, experts)):
        found = {
            (*lead, *blocks): (BLOCK, BLOCK),
            (*lead, rows, 1): (1, columns),
            (*lead, rows): (1, columns),
            (*lead, 1, 1): (rows, columns),
            (*lead, 1): (rows, columns),
            lead: (rows, columns),
        }
        if scale in found:
            return (*steps, *found[scale])
    return None
