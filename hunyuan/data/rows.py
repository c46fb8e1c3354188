"""Documents to rows of fixed length whose attention never crosses a document.

Documents, or pieces of long ones, are laid end to end and cut every T tokens: no token is lost,
none is padding. What goes on in the next row begins anew there. Every token predicts the next one
of its own document; the end-of-text token, which is a document's last, predicts nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NO_TARGET = -1
"""Target of a token from which nothing is to be learned."""


class Row(NamedTuple):
    """T tokens of one or more documents."""

    ids: NDArray[np.int64]
    """(T,) token ids."""

    targets: NDArray[np.int64]
    """(T,) the token to predict, `NO_TARGET` where there is none."""

    positions: NDArray[np.int64]
    """(T,) place in its document."""

    first_seen: NDArray[np.int32]
    """(T,) index in this row of the first token that this one may attend to."""


def pack(pieces: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], length: int) -> Row:
    """A row of ``length`` tokens from (ids, targets) of its documents, padded with lone tokens.

    Padding has id 0, no target, and attends to itself alone.
    """
    ids = np.zeros(length, np.int64)
    targets = np.full(length, NO_TARGET, np.int64)
    positions = np.zeros(length, np.int64)
    first_seen = np.arange(length, dtype=np.int32)
    at = 0
    for document, wanted in pieces:
        end = at + len(document)
        assert end <= length, (end, length)
        ids[at:end] = document
        targets[at:end] = wanted
        positions[at:end] = np.arange(len(document))
        first_seen[at:end] = at
        at = end
    return Row(ids, targets, positions, first_seen)
