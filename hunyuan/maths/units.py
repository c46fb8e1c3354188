"""Units of measurement: an exact table of the common ones, Pint for the rest where installed."""

import tomllib
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from hunyuan.maths.call import CallError

OFFSETS = {"K": (Fraction(1), Fraction(0)), "C": (Fraction(1), Fraction("273.15")),
           "F": (Fraction(5, 9), Fraction("459.67") * Fraction(5, 9))}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of the table; ``scale`` is a fraction of the base, or K, C, F, rad."""

    quantity: str
    scale: str
    symbol: str
    english: str
    chinese: str


@cache
def table() -> dict[str, Unit]:
    """Every known name -> its unit. Symbols are case-sensitive, words are stored lower-case."""
    found: dict[str, Unit] = {}
    lowered: dict[str, Unit] = {}
    text = (Path(__file__).parent / "units.toml").read_text(encoding="utf-8")
    for quantity, entry in tomllib.loads(text).items():
        for scale, *names in entry["units"]:
            unit = Unit(quantity, scale, names[0], names[1], names[2])
            for name in names:
                found.setdefault(name, unit)
                lowered.setdefault(name.lower(), unit)
                if name.isascii() and len(name) > 2 and name[-1].isalpha():
                    lowered.setdefault(name.lower() + "s", unit)
    return {**lowered, **found}


def find(name: str) -> Unit | None:
    """The unit of a name in either language, singular or plural; None where unknown."""
    name = " ".join(name.split()).strip(" .")
    known = table()
    if name in known:
        return known[name]
    if unit := known.get(name.lower()):
        return unit
    for ending in ("es", "s"):
        if unit := known.get(name.lower().removesuffix(ending)):
            return unit if len(name) > 2 else None
    return known.get(name.removeprefix("个"))


def factor(unit: Unit) -> Fraction | None:
    """What one of the unit is in base units; None for radians and temperatures."""
    return Fraction(unit.scale) if unit.scale[0].isdigit() else None


def mismatch(source: Unit, target: Unit) -> CallError:
    """The error for units of different quantities."""
    names = {
        "length": "长度", "mass": "质量", "time": "时间", "area": "面积", "volume": "体积",
        "speed": "速度", "energy": "能量", "power": "功率", "pressure": "压强", "force": "力",
        "data": "数据量", "angle": "角度", "temperature": "温度", "frequency": "频率",
    }  # fmt: skip
    return CallError(
        f"{source.symbol} is a unit of {source.quantity}, {target.symbol} of {target.quantity}: "
        "they cannot be converted",
        f"{source.symbol} 是{names[source.quantity]}单位，"
        f"{target.symbol} 是{names[target.quantity]}单位，不能互相换算",
    )
