"""What can be said of low-rank adapters; no torch here."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

from hunyuan.errors import UsageError

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Where = Literal["attention", "mlp", "shared", "experts"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which matrices are adapted, and how."""

    rank: int = 16
    """Columns of B and rows of A."""

    alpha: float = 32.0
    """The adapter's output is multiplied by alpha / rank."""

    dropout: float = 0.0
    """Share of an adapter's inputs that training drops."""

    targets: tuple[Projection, ...] = get_args(Projection)
    """Projections that are adapted, where they exist."""

    where: tuple[Where, ...] = ("attention", "mlp", "shared")
    """Parts of the model that are adapted: attention, the MLP of a dense model, the shared expert,
    the routed experts."""

    router: bool = False
    """Whether the router is adapted as well."""

    def __post_init__(self) -> None:
        _require(self.rank >= 1, "rank", self.rank, ("1 or more", "不小于 1"))
        _require(0 < self.alpha < 1e6, "alpha", self.alpha, ("between 0 and 1e6", "0 到 1e6 之间"))
        _require(
            0 <= self.dropout < 1,
            "dropout",
            self.dropout,
            ("from 0 to below 1", "不小于 0 且小于 1"),
        )
        for name, kind in (("targets", Projection), ("where", Where)):
            for value in getattr(self, name):
                _require_known(name, value, get_args(kind))
        if not self.router and not (self.targets and self.where):
            raise UsageError(
                "lora: targets and where name nothing; give e.g. where=('attention',)",
                "lora：targets 与 where 为空；请设置，例如 where=('attention',)",
            )


def _require(ok: bool, name: str, value: float, limit: tuple[str, str]) -> None:
    if not ok:
        raise UsageError(
            f"lora.{name}={value}: must be {limit[0]}", f"lora.{name}={value}：必须{limit[1]}"
        )


def _require_known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = get_close_matches(value, known, 1)
        raise UsageError(
            f"lora.{name}: {value!r} is unknown"
            + (f"; did you mean {near[0]}?" if near else f"; use {', '.join(known)}"),
            f"lora.{name}：未知的 {value!r}"
            + (f"；是否想用 {near[0]}？" if near else f"；请使用 {'、'.join(known)}"),
        )
