"""What people want from the tools: words for the phrases, and the arguments of the call."""

import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

Slots = dict[str, str]
Made = tuple[Slots, dict[str, str]]
"""Fields for the phrases, and the call's arguments by their usual names."""

_UNITS = (
    ("km", "mi", "kilometres", "miles", "公里", "英里"),
    ("mi", "km", "miles", "kilometres", "英里", "公里"),
    ("kg", "lb", "kilograms", "pounds", "千克", "磅"),
    ("lb", "kg", "pounds", "kilograms", "磅", "千克"),
    ("cm", "inch", "centimetres", "inches", "厘米", "英寸"),
    ("m", "ft", "metres", "feet", "米", "英尺"),
    ("h", "min", "hours", "minutes", "小时", "分钟"),
    ("day", "h", "days", "hours", "天", "小时"),
    ("L", "mL", "litres", "millilitres", "升", "毫升"),
    ("°C", "°F", "degrees Celsius", "degrees Fahrenheit", "摄氏度", "华氏度"),
)
_FIGURES = {
    "mean": ("mean", "平均数"),
    "median": ("median", "中位数"),
    "max": ("largest value", "最大值"),
    "min": ("smallest value", "最小值"),
    "range": ("range", "极差"),
    "sum": ("sum", "总和"),
}
_CURVES = (
    "x^2",
    "sin(x)",
    "cos(x)",
    "x^3-3*x",
    "exp(-x^2)",
    "2*x+1",
    "x^2-4",
    "abs(x)",
    "1/(1+x^2)",
)
_CITIES = (
    ("Paris", "巴黎"),
    ("London", "伦敦"),
    ("Beijing", "北京"),
    ("Shanghai", "上海"),
    ("Rome", "罗马"),
)
_NAMES = (("Anna", "小安"), ("Li Ming", "李明"), ("Tom", "小汤"), ("Wang Fang", "王芳"))


@dataclass(frozen=True)
class Task:
    """One kind of wish: which phrases, which tool, and how its numbers are drawn."""

    name: str
    tool: str
    make: Callable[[random.Random], Made]


@cache
def phrases() -> dict[str, Any]:
    """The file of phrases."""
    text = (resources.files("hunyuan.workbench.tool_data") / "phrases.toml").read_text("utf-8")
    return tomllib.loads(text)


def _arithmetic(rng: random.Random) -> Made:
    a, b, c = (rng.randint(2, 99) for _ in range(3))
    forms = (
        *(f"{a}+{b}", f"{a * 37}-{b}", f"{a}*{b}", f"{a}*{b}+{c}", f"({a}+{b})*{c}"),
        *(f"{a}/{b}", f"{a}^2+{b}", f"sqrt({a * a})", f"{a}.{b}+{c}", f"({a}-{b})/{c}"),
        *(f"2^{b % 40 + 3}", f"{a}*{b}*{c}", f"sqrt({a}+{b})"),
    )
    expression = rng.choice(forms)
    return {"expression": expression}, {"expression": expression}


def _shopping(rng: random.Random) -> Made:
    a, b = rng.randint(3, 400), rng.randint(2, 60)
    expression = f"{a}*{b}"
    return {"a": str(a), "b": str(b), "expression": expression}, {"expression": expression}


def _percent(rng: random.Random) -> Made:
    p, n = rng.randint(1, 95), rng.randint(2, 200) * 5
    return {"p": str(p), "n": str(n)}, {"expression": f"{n}*{p}/100"}


def _division(rng: random.Random) -> Made:
    b = rng.randint(2, 24)
    a = b * rng.randint(2, 90) if rng.random() < 0.5 else rng.randint(b, 900)
    return {"a": str(a), "b": str(b)}, {"expression": f"{a}/{b}"}


def _equation(rng: random.Random) -> Made:
    variable = rng.choice("xyzt")
    a, root, c = rng.randint(2, 9), rng.randint(-12, 12), rng.randint(1, 20)
    if rng.random() < 0.6:
        equation = f"{a}*{variable}+{c}={a * root + c}"
    else:
        other = root + rng.randint(1, 9)
        equation = f"{variable}^2{-(root + other):+d}*{variable}{root * other:+d}=0"
    slots = {"equation": equation, "variable": variable}
    return slots, dict(slots)


def _units(rng: random.Random) -> Made:
    source, target, source_en, target_en, source_zh, target_zh = rng.choice(_UNITS)
    value = str(rng.randint(2, 300)) if rng.random() < 0.7 else f"{rng.randint(1, 90)}.5"
    slots = {
        "value": value,
        "source_en": source_en,
        "target_en": target_en,
        "source_zh": source_zh,
        "target_zh": target_zh,
    }
    return slots, {"value": value, "source": source, "target": target}


def _figures(rng: random.Random) -> Made:
    action = rng.choice(list(_FIGURES))
    data = ", ".join(str(rng.randint(1, 99)) for _ in range(rng.randint(3, 8)))
    slots = {"action_en": _FIGURES[action][0], "action_zh": _FIGURES[action][1], "data": data}
    return slots, {"action": action, "data": data}


def _graph(rng: random.Random) -> Made:
    lower = -rng.randint(1, 10)
    slots = {
        "expression": rng.choice(_CURVES),
        "lower": str(lower),
        "upper": str(rng.randint(1, 10)),
    }
    return slots, dict(slots)


def _digits(rng: random.Random) -> Made:
    a, b = rng.randint(2, 9), rng.randint(10, 90)
    slots = {"a": str(a), "b": str(b)}
    return slots, {"code": f"print(sum(int(d) for d in str({a} ** {b})))"}


def _counting(rng: random.Random) -> Made:
    n, a, b = rng.randint(5, 90) * 20, rng.randint(2, 6), rng.randint(7, 12)
    slots = {"n": str(n), "a": str(a), "b": str(b)}
    code = f"print(sum(1 for n in range(1, {n} + 1) if n % {a} == 0 and n % {b} == 0))"
    return slots, {"code": code}


def undefined(rng: random.Random) -> Made:
    """A division by zero."""
    a = str(rng.randint(1, 999))
    return {"a": a}, {"expression": f"{a}/0"}


def names(rng: random.Random) -> dict[str, tuple[str, str]]:
    """A city, a name and a number, each in English and Chinese."""
    n = str(rng.randint(2, 30))
    return {"city": rng.choice(_CITIES), "name": rng.choice(_NAMES), "n": (n, n)}


TASKS = (
    Task("arithmetic", "calculate", _arithmetic),
    Task("shopping", "calculate", _shopping),
    Task("percent", "calculate", _percent),
    Task("division", "calculate", _division),
    Task("equation", "solve", _equation),
    Task("units", "convert", _units),
    Task("figures", "statistics", _figures),
    Task("graph", "plot", _graph),
    Task("digits", "run_python", _digits),
    Task("counting", "run_python", _counting),
)
BY_NAME = {task.name: task for task in TASKS}
