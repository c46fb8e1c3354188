"""Vectors in eight bits, compared by brute force.

100,000 vectors of 384 numbers are 40 MB. Rounding moves a cosine by about 0.0005.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hunyuan.knowledge.embedder import Vectors

# Small enough for BLAS to use one thread: with more, searching waits for whatever else runs.
_BLOCK = 1024
_FIRST_ROWS = 256

Number = TypeVar("Number", np.int8, np.float32, np.int64)


def quantise(vector: Vectors) -> bytes:
    """A vector as its scale (float32) and one signed byte for each number."""
    scale = np.float32(np.abs(vector).max(initial=0) / 127 or 1)
    numbers: bytes = np.rint(vector / scale).astype(np.int8).tobytes()
    head: bytes = scale.astype("<f4").tobytes()
    return head + numbers


class VectorTable:
    """Vectors under integer keys; grows by doubling, forgets by moving the last rows up."""

    def __init__(self, dimensions: int) -> None:
        self._numbers: NDArray[np.int8] = np.empty((_FIRST_ROWS, dimensions), np.int8)
        self._scales: NDArray[np.float32] = np.empty(_FIRST_ROWS, np.float32)
        self._keys: NDArray[np.int64] = np.empty(_FIRST_ROWS, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, keys: Sequence[int], blobs: Sequence[bytes]) -> None:
        """Append what `quantise` made."""
        dimensions = self._numbers.shape[1]
        rows = np.frombuffer(b"".join(blobs), np.uint8).reshape(len(keys), 4 + dimensions)
        start, end = self._count, self._count + len(keys)
        if end > len(self._keys):
            room = max(end, 2 * len(self._keys))
            self._numbers = _grown(self._numbers, room, start)
            self._scales = _grown(self._scales, room, start)
            self._keys = _grown(self._keys, room, start)
        self._numbers[start:end] = rows[:, 4:].view(np.int8)
        self._scales[start:end] = np.ascontiguousarray(rows[:, :4]).view("<f4")[:, 0]
        self._keys[start:end] = keys
        self._count = end

    def remove(self, keys: Sequence[int]) -> None:
        """Forget these; unknown ones do not matter."""
        stays = ~np.isin(self._keys[: self._count], np.asarray(keys, np.int64))
        left = int(stays.sum())
        for array in (self._numbers, self._scales, self._keys):
            array[:left] = array[: self._count][stays]
        self._count = left

    def nearest(self, vector: Vectors, limit: int) -> list[tuple[int, float]]:
        """Keys and cosines of the best ``limit``, best first."""
        if not self._count or limit < 1:
            return []
        scores = np.empty(self._count, np.float32)
        for start in range(0, self._count, _BLOCK):
            end = min(start + _BLOCK, self._count)
            # As float32 a block is multiplied by BLAS; eight bits have no such routine.
            scores[start:end] = self._numbers[start:end].astype(np.float32) @ vector
        scores *= self._scales[: self._count]
        limit = min(limit, self._count)
        best = np.argpartition(-scores, limit - 1)[:limit]
        best = best[np.argsort(-scores[best], kind="stable")]
        return [(int(self._keys[i]), float(scores[i])) for i in best]


def _grown(array: NDArray[Number], rows: int, used: int) -> NDArray[Number]:
    larger: NDArray[Number] = np.empty((rows, *array.shape[1:]), array.dtype)
    larger[:used] = array[:used]
    return larger
