"""Which blocks of the cache belong to whom, and which hold a prefix that can be used again.

A full block never changes, so any request whose tokens begin alike can share it: a system prompt
or an earlier turn of a conversation is computed once. Blocks that nobody uses keep their contents
until they are needed, the longest unused first. Plain Python, no torch.

A block is known by its tokens and by the *node* of the block before it; a node is a number that
is never used twice, so equal keys mean equal tokens from the very first one on.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hunyuan.native.library import BLOCK_TOKENS

Key = tuple[int, tuple[int, ...]]

ROOT = 0
"""Node before the first block."""


@dataclass
class Table:
    """The blocks of one request, in order of position."""

    blocks: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    """Nodes of the full blocks that are known, from the start."""

    @property
    def known_tokens(self) -> int:
        """Tokens in the known blocks."""
        return len(self.nodes) * BLOCK_TOKENS


class BlockPool:
    """Hands out ``count`` blocks."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._users = [0] * count
        self._known: dict[Key, tuple[int, int]] = {}
        self._keys: dict[int, Key] = {}
        self._next_node = ROOT + 1

    @property
    def free(self) -> int:
        """Blocks that nobody uses, whether or not they hold a known prefix."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return len(self._users) - len(self._free)

    def open(self, tokens: Sequence[int]) -> Table:
        """A table that starts with the longest known prefix of ``tokens``.

        At least one token stays outside, since its logits are wanted.
        """
        table = Table()
        for block, node in self.known(tokens):
            self._free.pop(block, None)
            self._users[block] += 1
            table.blocks.append(block)
            table.nodes.append(node)
        return table

    def known(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Blocks and nodes of the longest known prefix of ``tokens``, short of the last token."""
        prefix: list[tuple[int, int]] = []
        node = ROOT
        for start in range(0, len(tokens) - BLOCK_TOKENS, BLOCK_TOKENS):
            found = self._known.get((node, tuple(tokens[start : start + BLOCK_TOKENS])))
            if found is None:
                break
            prefix.append(found)
            node = found[1]
        return prefix

    def extend(self, table: Table, tokens: int) -> bool:
        """Give the table room for ``tokens`` in all; False, changing nothing, if there is none."""
        wanted = -(-tokens // BLOCK_TOKENS) - len(table.blocks)
        if wanted > len(self._free):
            return False
        for _ in range(wanted):
            block, _ = self._free.popitem(last=False)
            if (key := self._keys.pop(block, None)) is not None:
                del self._known[key]
            self._users[block] = 1
            table.blocks.append(block)
        return True

    def publish(
        self, table: Table, computed: int, tokens: Callable[[int, int], Sequence[int]]
    ) -> None:
        """Make the table's full blocks known; ``computed`` tokens are in the cache.

        ``tokens(start, count)`` are the request's own.
        """
        for i in range(len(table.nodes), computed // BLOCK_TOKENS):
            before = table.nodes[-1] if table.nodes else ROOT
            key = (before, tuple(tokens(i * BLOCK_TOKENS, BLOCK_TOKENS)))
            if (found := self._known.get(key)) is None:
                block, node = table.blocks[i], self._next_node
                self._next_node += 1
                self._known[key] = (block, node)
                self._keys[block] = key
            else:  # somebody computed the same at the same time
                node = found[1]
            table.nodes.append(node)

    def close(self, table: Table) -> None:
        """Give the blocks back. The last go first when room is needed: a prefix lives longest."""
        for block in reversed(table.blocks):
            self._users[block] -= 1
            if not self._users[block]:
                self._free[block] = None
                if block not in self._keys:
                    self._free.move_to_end(block, last=False)
        table.blocks.clear()
        table.nodes.clear()
