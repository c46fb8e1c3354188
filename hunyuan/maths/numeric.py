"""Trees evaluated on arrays of numbers, for graphs: NumPy functions, nothing compiled from text."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hunyuan.errors import UsageError
from hunyuan.maths.grammar import Call, Name, Number, Operation, Relation, Sequence, Tree

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "sqrt": np.sqrt, "cbrt": np.cbrt, "exp": np.exp,
    "ln": np.log, "lg": np.log10, "log10": np.log10, "log2": np.log2, "abs": np.abs,
    "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "atan2": np.arctan2,
    "cot": lambda x: 1 / np.tan(x), "sec": lambda x: 1 / np.cos(x), "csc": lambda x: 1 / np.sin(x),
    "coth": lambda x: 1 / np.tanh(x), "sech": lambda x: 1 / np.cosh(x),
    "csch": lambda x: 1 / np.sinh(x), "acot": lambda x: np.arctan(1 / x),
    "mod": np.mod, "min": lambda *v: _fold(np.minimum, v), "max": lambda *v: _fold(np.maximum, v),
}  # fmt: skip
CONSTANTS = {"pi": np.pi, "e": np.e, "E": np.e, "oo": np.inf, "inf": np.inf, "infinity": np.inf}


class PlotError(UsageError):
    """This cannot be drawn."""


def function_of(tree: Tree, variable: str) -> Function:
    """``tree`` as a function of an array; poles and gaps give inf and NaN.

    Raises `PlotError` for what has no real value at each point.
    """
    _value(tree, {variable: np.array([0.5])})

    def evaluate(points: Array) -> Array:
        with np.errstate(all="ignore"):
            value = _value(tree, {variable: points})
        return np.broadcast_to(np.asarray(value, dtype=np.float64), points.shape)

    return evaluate


def evaluated(function: Function, low: float, high: float) -> tuple[list[float], list[float]]:
    """A function at 1601 even steps."""
    points = np.linspace(low, high, 1601)
    return points.tolist(), np.asarray(function(points)).tolist()


def constant(tree: Tree) -> float:
    """The value of a tree without variables."""
    with np.errstate(all="ignore"):
        return float(_value(tree, {}))


def _value(tree: Tree, names: Mapping[str, Array]) -> Any:
    match tree:
        case Number(text):
            return float(text)
        case Name(name) if name in names:
            return names[name]
        case Name(name) if name in CONSTANTS:
            return CONSTANTS[name]
        case Name(name):
            raise PlotError(
                f"the graph has no value for {name}: use one variable",
                f"图像中没有给出 {name} 的值：只能含一个变量",
            )
        case Operation(operator, operands):
            with np.errstate(all="ignore"):
                return _operate(operator, [_value(operand, names) for operand in operands])
        case Call(function, arguments):
            with np.errstate(all="ignore"):
                return _call(function, [_value(argument, names) for argument in arguments])
        case Relation() | Sequence():
            raise PlotError(
                "an equation or list cannot be drawn as a function; write y = ...",
                "方程或列表不能当作函数作图；请写成 y = ... 的形式",
            )


def _operate(operator: str, values: list[Any]) -> Any:
    first = np.asarray(values[0], dtype=np.float64)
    if len(values) == 1:
        if operator == "!":
            return _factorial(first)
        return {"neg": -first, "%": first / 100, "deg": np.deg2rad(first)}[operator]
    second = np.asarray(values[1], dtype=np.float64)
    match operator:
        case "+":
            return first + second
        case "-":
            return first - second
        case "*":
            return first * second
        case "/":
            return first / second
        case _:
            return _power(first, second)


def _power(base: Array, exponent: Array) -> Array:
    """Real powers; x^(1/3) of a negative x is its real cube root."""
    value = np.power(base, exponent)
    if exponent.ndim == 0 and np.isfinite(exponent) and np.any(base < 0):
        for root in (3, 5, 7):
            power = float(exponent) * root
            if float(exponent) != round(float(exponent)) and abs(power - round(power)) < 1e-12:
                size = np.power(np.abs(base), exponent)
                return np.where(base < 0, size * (-1.0) ** round(power), value)
    return value


def _factorial(x: Array) -> Array:
    from math import gamma

    def single(value: float) -> float:
        try:
            return gamma(value + 1)
        except (ValueError, OverflowError):
            return float("nan")

    return np.array([single(float(value)) for value in x.ravel()]).reshape(x.shape)


def _call(name: str, values: list[Any]) -> Any:
    if name == "log":
        return np.log(values[0]) / (np.log(values[1]) if len(values) > 1 else 1.0)
    if name == "root":
        return _power(np.asarray(values[0]), 1.0 / np.asarray(values[1], dtype=np.float64))
    if name == "round":
        return np.floor(np.asarray(values[0]) + 0.5)
    if name in ("factorial", "gamma"):
        return _factorial(np.asarray(values[0], dtype=np.float64) - (name == "gamma"))
    if name in FUNCTIONS:
        return FUNCTIONS[name](*values)
    raise PlotError(f"{name} cannot be drawn", f"无法绘制 {name}")


def _fold(combine: Callable[[Any, Any], Any], values: tuple[Any, ...]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = combine(result, value)
    return result
