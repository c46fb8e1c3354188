"""What can be asked of the tools: an operation and a few short texts, flat for small models.

The same shape comes from the rule parser, from the model's forced tool call and from the page's
buttons; the worker computes it.
"""

from dataclasses import dataclass, field
from typing import Any

from hunyuan.errors import UsageError
from hunyuan.maths.grammar import MAX_CHARACTERS

MAX_DATA_CHARACTERS = 20_000
MAX_QUESTION = 2000

# Operation -> its fields; the first is required. Lists and equations are separated by commas.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "calculate": ("expression", "digits"),
    "simplify": ("expression",),
    "expand": ("expression",),
    "factor": ("expression",),
    "apart": ("expression", "variable"),
    "substitute": ("expression", "values"),
    "solve": ("equations", "variables", "lower", "upper"),
    "differentiate": ("expression", "variable", "order", "at"),
    "integrate": ("expression", "variable", "lower", "upper"),
    "extrema": ("expression", "variable"),
    "area": ("expressions", "lower", "upper"),
    "limit": ("expression", "variable", "point", "side"),
    "series": ("expression", "variable", "point", "order"),
    "sum": ("expression", "variable", "lower", "upper"),
    "product": ("expression", "variable", "lower", "upper"),
    "matrix": ("action", "a", "b"),
    "statistics": ("action", "data", "other"),
    "number": ("action", "numbers"),
    "percent": ("action", "a", "b"),
    "complex": ("action", "expression"),
    "convert": ("value", "source", "target"),
    "date": ("action", "a", "b"),
    "formula": ("name", "values", "target"),
    "plot": ("expressions", "lower", "upper"),
    "chart": ("kind", "data"),
}
ACTIONS: dict[str, tuple[str, ...]] = {
    "matrix": (
        *("determinant", "inverse", "transpose", "rank", "trace", "eigenvalues", "multiply"),
        *("add", "subtract", "solve", "rref", "power", "charpoly"),
    ),
    "statistics": (
        *("mean", "median", "mode", "variance", "std", "sample_variance", "sample_std"),
        *("min", "max", "range", "sum", "quartiles", "summary", "correlation", "regression"),
        *("geometric_mean", "harmonic_mean", "weighted_mean", "percentile"),
    ),
    "number": (
        *("gcd", "lcm", "factorize", "is_prime", "divisors", "primes", "next_prime"),
        *("nth_prime", "base", "from_base", "euler_phi", "modular_inverse"),
    ),
    "percent": ("of", "what", "change", "increase", "decrease", "whole"),
    "complex": ("modulus", "argument", "conjugate", "real", "imaginary", "polar"),
    "date": ("between", "after", "before", "weekday"),
}
SEVERAL = ("statistics", "complex", "matrix")
"""Operations whose action may name several, separated by commas: ``mean, variance``."""

CHARTS = ("bar", "line", "pie")


class CallError(UsageError):
    """A tool call with a wrong operation or field."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One operation with its arguments as text."""

    operation: str
    arguments: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """``{"operation": ..., "arguments": {...}}``."""
        return {"operation": self.operation, "arguments": dict(self.arguments)}


def tool_call(operation: str, /, **arguments: str) -> ToolCall:
    """A checked call; empty arguments are left out. Raises `CallError`."""
    return checked(operation, arguments)


def checked(operation: str, arguments: dict[str, Any]) -> ToolCall:
    """A call from outside, checked: known operation and fields, texts of limited length."""
    fields = OPERATIONS.get(operation)
    if fields is None:
        names = ", ".join(OPERATIONS)
        raise CallError(
            f"operation={operation[:40]!r} is not known; use one of {names}",
            f"没有运算 {operation[:40]!r}；可用的有：{names}",
        )
    kept: dict[str, str] = {}
    for name, value in arguments.items():
        if name not in fields:
            raise CallError(
                f"{operation} has no field {name[:40]!r}; it takes {', '.join(fields)}",
                f"{operation} 没有字段 {name[:40]!r}；可用的有：{', '.join(fields)}",
            )
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise CallError(f"{name} must be text", f"{name} 必须是文本")
        text = str(value).strip()
        limit = MAX_DATA_CHARACTERS if name in ("data", "other") else 2 * MAX_CHARACTERS
        if len(text) > limit:
            raise CallError(
                f"{name} has {len(text)} characters; at most {limit} are read",
                f"{name} 有 {len(text)} 个字符，最多读取 {limit} 个",
            )
        if text:
            kept[name] = text
    if fields[0] not in kept:
        raise CallError(f"{operation} needs {fields[0]}", f"{operation} 缺少 {fields[0]}")
    if operation in ACTIONS:
        actions = [kept["action"]]
        if operation in SEVERAL:
            actions = [part.strip() for part in kept["action"].split(",")]
        for action in actions:
            if action not in ACTIONS[operation]:
                names = ", ".join(ACTIONS[operation])
                raise CallError(
                    f"action={action[:40]!r} is not known; use one of {names}",
                    f"没有 {action[:40]!r} 这种操作；可用的有：{names}",
                )
    if operation == "chart" and kept["kind"] not in CHARTS:
        raise CallError(
            f"kind={kept['kind'][:40]!r} is not known; use one of {', '.join(CHARTS)}",
            f"没有 {kept['kind'][:40]!r} 这种图；可用的有：{', '.join(CHARTS)}",
        )
    return ToolCall(operation, kept)
