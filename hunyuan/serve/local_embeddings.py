"""Embeddings by the model that answers: the mean of its last hidden states."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from hunyuan.serve.bridge import Bridge
from hunyuan.serve.embeddings import Embedded

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine


class EngineEmbeddings:
    """Vectors of texts by an engine, on its own thread."""

    def __init__(self, model_id: str, engine: "Engine", bridge: Bridge) -> None:
        self._id = model_id
        self._engine = engine
        self._bridge = bridge

    @property
    def id(self) -> str:
        """Its name in requests."""
        return self._id

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._engine.model.config.hidden

    async def embed(
        self, inputs: Sequence[str] | Sequence[Sequence[int]], input_type: str | None
    ) -> Embedded:
        """Vectors of texts or of token lists; questions and documents are the same to it."""
        import numpy as np

        encode = self._engine.encode
        ids = await asyncio.to_thread(lambda: [encode(given) for given in inputs])
        # One at a time: between two of them other requests get their next token.
        rows = [await self._bridge.call(partial(self._engine.embed, [one])) for one in ids]
        return Embedded(np.array([row for one in rows for row in one], np.float32), _total(ids))


def _total(ids: Sequence[Sequence[int]]) -> int:
    return sum(map(len, ids))
