"""A weighted mixture of sources as an endless stream of packed rows, resumable to the token.

Documents longer than a row are cut into pieces of that length, each of which is a row; what is
left of them and shorter documents share rows. A source's pieces come in a random order that changes
every time it has been used up: neighbouring rows have nothing to do with each other, whatever the
length of books. Which source is next is not left to chance: it is the one furthest behind its share
of tokens. So any prefix of the stream has the wanted proportions, and the state is a few numbers
per source. Costs 16 bytes of memory per piece.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hunyuan.data.rows import NO_TARGET, Row, pack
from hunyuan.errors import BadDataError, UsageError


class Documents(Protocol):
    """What a mixture takes documents from; `hunyuan.data.shards.Source` is one."""

    @property
    def documents(self) -> int:
        """How many there are."""

    def document(self, i: int) -> NDArray[np.int32]:
        """Token ids of document ``i``, its end-of-text last."""

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of every document."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One source of a mixture."""

    name: str
    """Named in the state and in errors; unique."""

    documents: Documents
    """Where the documents come from."""

    weight: float
    """Share of the mixture's tokens, relative to the other parts' weights."""

    min_tokens: int = 1
    """Only documents of at least this many tokens: whole books for the long-context stages."""


class Mixture:
    """Endless rows of ``row_tokens``; iterate, and keep `state` with a checkpoint."""

    def __init__(self, parts: Sequence[Part], row_tokens: int, seed: int) -> None:
        """Raises `UsageError` for weights that are no shares and for a part that is named twice,
        `BadDataError` for empty parts.
        """
        names = [part.name for part in parts]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise UsageError(
                f"{twice[0]}: is in the mixture twice; give it once, with the sum of the weights",
                f"{twice[0]}：在混合中出现两次；请只写一次，权重相加",
            )
        total = sum(part.weight for part in parts)
        for part in parts:
            if part.weight < 0 or not total:
                raise UsageError(
                    f"weight={part.weight} of {part.name}: must not be negative, and not all 0",
                    f"{part.name} 的 weight={part.weight}：不能为负，且不能全为 0",
                )
        self._streams = [
            stream
            for i, part in enumerate(parts)
            if part.weight
            for stream in _streams(part, part.weight / total, row_tokens, (seed, i))
        ]
        self._row_tokens = row_tokens

    def __iter__(self) -> "Mixture":
        return self

    def __next__(self) -> Row:
        pieces = []
        room = self._row_tokens
        while room:
            able = [s for s in self._streams if not s.whole or room == self._row_tokens]
            stream = max(able, key=self._behind)
            if not stream.whole:  # a piece that did not fit into an earlier row goes first
                stream = next((s for s in self._streams if s.unfinished), stream)
            piece = stream.take(room)
            pieces.append(piece)
            room -= len(piece[0])
        return pack(pieces, self._row_tokens)

    def _behind(self, stream: "_Stream") -> float:
        return stream.share * sum(s.taken for s in self._streams) - stream.taken

    @property
    def taken(self) -> dict[str, int]:
        """Tokens taken of each part so far."""
        taken: dict[str, int] = {}
        for stream in self._streams:
            taken[stream.part] = taken.get(stream.part, 0) + stream.taken
        return taken

    def state(self) -> dict[str, Any]:
        """Where the stream is, as JSON values."""
        return {stream.name: stream.state() for stream in self._streams}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`; raises `UsageError` if the parts or their sizes are others."""
        names = {stream.name for stream in self._streams}
        if names != state.keys():
            raise UsageError(
                f"the mixture has the sources {', '.join(sorted(names))}, the checkpoint "
                f"{', '.join(sorted(state))}; use the same data, or start another run",
                f"混合数据源为 {'、'.join(sorted(names))}，检查点中为 {'、'.join(sorted(state))}；"
                "请使用相同的数据，或另开一次训练",
            )
        for stream in self._streams:
            stream.restore(state[stream.name])


def _streams(
    part: Part, share: float, row_tokens: int, seed: tuple[int, int]
) -> Iterator["_Stream"]:
    """A part's pieces that are whole rows, and the shorter ones, each with its share."""
    lengths = part.documents.lengths().astype(np.int64)
    usable = np.flatnonzero(lengths >= part.min_tokens)
    if not len(usable):
        raise BadDataError(
            f"{part.name}: has no document of at least {part.min_tokens} tokens; lower "
            "min_tokens or leave the source out",
            f"{part.name}：没有不少于 {part.min_tokens} 个词元的文档；"
            "请降低 min_tokens 或去掉该数据源",
        )
    # Of each piece its document, and where it begins in it.
    counts = -(-lengths[usable] // row_tokens)
    documents = np.repeat(usable, counts)
    numbers = np.arange(len(documents)) - np.repeat(counts.cumsum() - counts, counts)
    begins = numbers * row_tokens
    sizes = np.minimum(lengths[documents] - begins, row_tokens)
    for whole in (True, False):
        chosen = (sizes == row_tokens) == whole
        if chosen.any():
            yield _Stream(
                part,
                share * float(sizes[chosen].sum() / sizes.sum()),
                row_tokens,
                (documents[chosen], begins[chosen]),
                whole,
                (*seed, int(whole)),
            )


class _Stream:
    """Pieces of one part's documents, shuffled anew each time around."""

    def __init__(
        self,
        part: Part,
        share: float,
        longest: int,
        pieces: tuple[NDArray[np.int64], NDArray[np.int64]],
        whole: bool,
        seed: tuple[int, ...],
    ) -> None:
        self.name = f"{part.name} (whole rows)" if whole else part.name
        self.part = part.name
        self.whole = whole
        self.share = share
        self.taken = 0
        self._documents = part.documents
        self._longest = longest
        self._seed = seed
        self._document, self._begin = pieces
        self._epoch = self._place = self._offset = 0
        self._order = self._shuffled()

    @property
    def unfinished(self) -> bool:
        """Whether the current piece has been begun."""
        return self._offset > 0

    def take(self, room: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """At most ``room`` tokens of the current piece, and their targets."""
        piece = self._order[self._place]
        document = self._documents.document(int(self._document[piece]))
        begin = int(self._begin[piece])
        end = min(begin + self._longest, len(document))
        at = begin + self._offset
        ids = document[at : min(at + room, end)].astype(np.int64)
        targets = np.full(len(ids), NO_TARGET, np.int64)
        following = document[at + 1 : at + 1 + len(ids)]
        targets[: len(following)] = following
        self.taken += len(ids)
        self._offset += len(ids)
        if begin + self._offset == end:
            self._offset = 0
            self._place += 1
            if self._place == len(self._order):
                self._place = 0
                self._epoch += 1
                self._order = self._shuffled()
        return ids, targets

    def state(self) -> dict[str, int]:
        return {
            "epoch": self._epoch,
            "place": self._place,
            "offset": self._offset,
            "taken": self.taken,
            "of": len(self._document),
        }

    def restore(self, state: Mapping[str, int]) -> None:
        pieces = len(self._document)
        if state.get("of") != pieces:
            raise UsageError(
                f"{self.name}: has {pieces} pieces of documents, the checkpoint was made with "
                f"{state.get('of')}; use the same data and row_tokens, or start another run",
                f"{self.name}：有 {pieces} 个文档片段，检查点所用为 {state.get('of')} 个；"
                "请使用相同的数据与 row_tokens，或另开一次训练",
            )
        self._epoch, self._place = state["epoch"], state["place"]
        self._offset, self.taken = state["offset"], state["taken"]
        self._order = self._shuffled()

    def _shuffled(self) -> NDArray[np.int64]:
        generator = np.random.default_rng((*self._seed, self._epoch))
        return generator.permutation(len(self._document))
