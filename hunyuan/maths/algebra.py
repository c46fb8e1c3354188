"""Rewriting expressions, putting values in."""

import random
from collections.abc import Callable
from typing import Any

import sympy as sp

from hunyuan.maths.build import Builder, MathsProblem
from hunyuan.maths.grammar import Name, Relation, Tree, parse, parse_list, variables
from hunyuan.maths.result import Check, Result, Step, answer, latex
from hunyuan.maths.show import latex as tree_latex
from hunyuan.maths.trees import substituted

Expr = Any


def simplify(expression: str) -> Result:
    """The shortest form SymPy finds."""

    def shortest(value: Expr) -> Expr:
        candidates = [sp.simplify(value), sp.radsimp(sp.simplify(value)), sp.trigsimp(value)]
        if value.is_rational_function():
            candidates.append(sp.cancel(value))
        return min(candidates, key=sp.count_ops)

    return _rewritten("simplify", expression, shortest, "Simplify:", "化简：")


def expand(expression: str) -> Result:
    """Products and powers multiplied out."""
    return _rewritten("expand", expression, sp.expand, "Multiply out:", "逐项展开：")


def factor(expression: str) -> Result:
    """Into factors over the rational numbers; numbers into primes."""

    def factored(value: Expr) -> Expr:
        return sp.factor(value)

    return _rewritten(
        "factor",
        expression,
        factored,
        "Factor over the rational numbers:",
        "在有理数范围内分解因式：",
    )


def apart(expression: str, variable: str = "") -> Result:
    """Partial fractions."""
    tree = parse(expression)
    name = variable or main_variable(variables(tree))
    symbol = Builder().symbol(name)
    return _rewritten(
        "apart",
        expression,
        lambda value: sp.apart(value, symbol),
        "Partial fractions:",
        "分解为部分分式：",
    )


def _rewritten(
    operation: str, expression: str, rewrite: Callable[[Expr], Expr], en: str, zh: str
) -> Result:
    tree = parse(expression)
    if isinstance(tree, Relation):
        raise MathsProblem(
            "an equation cannot be rewritten like this; give one side, or solve it",
            "不能这样改写方程；请只给出一边，或改为求解",
        )
    value = Builder().expression(tree)
    done = rewrite(value)
    return answer(
        operation,
        tree_latex(tree),
        done,
        steps=[Step(en, zh, f"{tree_latex(tree)} = {latex(done)}")],
        check=same_values(value, done),
    )


def substitute(expression: str, values: str) -> Result:
    """The value where names have the given values, as in ``x = 3, y = 1/2``."""
    tree = parse(expression)
    given: dict[str, Tree] = {}
    for item in parse_list(values):
        if (
            not isinstance(item, Relation)
            or item.operator != "="
            or not isinstance(item.left, Name)
        ):
            raise MathsProblem(
                f"values={values[:40]!r}: write them as x = 3, y = 2",
                f"values={values[:40]!r}：请写成 x = 3, y = 2 的形式",
            )
        given[item.left.name] = item.right
    replaced = substituted(tree, given)
    value = sp.simplify(Builder().expression(replaced))
    listed = ", ".join(f"{name} = {tree_latex(t)}" for name, t in given.items())
    return answer(
        "substitute",
        rf"{tree_latex(tree)} \quad \left({listed}\right)",
        value,
        steps=[Step("Put the values in:", "代入数值：", tree_latex(replaced))],
    )


def main_variable(names: list[str]) -> str:
    """The one that is meant where nothing is said: x, y, z, t before others."""
    for preferred in ("x", "y", "z", "t", "n", "u", "theta"):
        if preferred in names:
            return preferred
    return names[0] if names else "x"


def same_values(before: Expr, after: Expr) -> Check | None:
    """Both evaluated at random points."""
    if isinstance(before, sp.MatrixBase) or isinstance(after, sp.MatrixBase):
        return None
    symbols = sorted(before.free_symbols | after.free_symbols, key=str)
    draw = random.Random(7)
    compared = 0
    for _ in range(6):
        point = {s: sp.Rational(draw.randint(11, 97), 37) for s in symbols}
        try:
            a, b = (complex(sp.N(value.subs(point), 20)) for value in (before, after))
        except (TypeError, ValueError, OverflowError, ZeroDivisionError):
            continue
        if a != a or b != b:
            continue
        compared += 1
        if abs(a - b) > 1e-9 * max(1.0, abs(a)):
            return Check("the two forms differ at a test point", "两种形式在检验点处不相等", False)
    if not compared:
        return None
    if not symbols:
        return Check("both forms evaluated numerically: equal", "两种形式数值相等")
    return Check(
        f"both forms evaluated at {compared} points: equal",
        f"在 {compared} 个点上代入检验：两式相等",
    )
