"""One figure of a plan, and what it rests on."""

from dataclasses import dataclass
from typing import Literal

Basis = Literal["measured", "calculated", "assumed", "published"]
"""Seen on this machine; follows from the shape; taken for granted; somebody's data sheet."""


@dataclass(frozen=True)
class Figure:
    """A named quantity of a plan."""

    name: str
    value: float
    unit: str
    """``B``, ``B/s``, ``s``, ``FLOP/s``, ``tokens/s``, ``tokens`` or ``1`` for a share."""

    basis: Basis
