"""What running experts from disk has cost so far; no torch here."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExpertStats:
    """Counts since the model was loaded; see ``hy_expert_stats``."""

    slots: int
    """Experts that the cache has room for."""

    resident: int
    """Experts it holds."""

    extent_bytes: int
    """Of one expert."""

    direct: bool
    """Whether reads pass the system's page cache by."""

    steps: int
    tokens: int
    """That the decoder ran, and in how many steps."""

    demanded: int
    """Experts that steps visited, layer by layer."""

    hits: int
    """Of those, the ones that were there when they were demanded."""

    ahead: int
    """Experts whose reading began before they were demanded."""

    ahead_used: int
    """Of those, the ones that were demanded then."""

    expected: int
    """Experts that the routers named ahead, read or not."""

    came_true: int
    """Of those, the ones that were chosen."""

    bytes_read: int
    busy_seconds: float
    """While the disk was being read."""

    waited_seconds: float
    """While the decoder had nothing to do but wait for the disk."""

    @property
    def hit_rate(self) -> float:
        """Share of the visits whose expert was there, 0 to 1."""
        return self.hits / self.demanded if self.demanded else 0.0

    @property
    def foresight(self) -> float:
        """Share of the experts named ahead that were chosen, 0 to 1."""
        return self.came_true / self.expected if self.expected else 0.0

    @property
    def ahead_rate(self) -> float:
        """Share of the experts read ahead that were demanded, 0 to 1."""
        return self.ahead_used / self.ahead if self.ahead else 0.0

    @property
    def bytes_per_token(self) -> float:
        """Read from disk for each token, of prompts and answers."""
        return self.bytes_read / self.tokens if self.tokens else 0.0

    @property
    def read_speed(self) -> float:
        """Bytes a second while the disk was being read."""
        return self.bytes_read / self.busy_seconds if self.busy_seconds else 0.0
