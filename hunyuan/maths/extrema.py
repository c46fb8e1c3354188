"""Extreme values of a function, and the area enclosed by two curves."""

from itertools import pairwise
from typing import Any

import sympy as sp

from hunyuan.maths.algebra import main_variable
from hunyuan.maths.build import Builder, MathsProblem
from hunyuan.maths.grammar import Relation, Tree, parse, parse_list, variables
from hunyuan.maths.result import Check, Result, Step, answer, latex, plain
from hunyuan.maths.show import latex as tree_latex
from hunyuan.maths.show import name_latex

Expr = Any

MOST = 20


def extrema(expression: str, variable: str = "") -> Result:
    """Local maxima and minima of a function of one variable, by its first derivatives."""
    tree = _side(parse(expression))
    name = variable or main_variable(variables(tree))
    builder = Builder()
    symbol = builder.symbol(name)
    function = builder.expression(tree)
    _one_variable(function, symbol)
    first = sp.diff(function, symbol)
    places = _real_roots(first, symbol)
    steps = [
        Step("Derivative:", "求导：", latex(sp.simplify(first))),
        Step(
            "Where it is 0:",
            "令导数为 0：",
            r",\; ".join(f"{name_latex(name)} = {latex(p)}" for p in places) or r"\varnothing",
        ),
    ]
    found: list[tuple[str, str, Expr, Expr]] = []
    for place in places:
        kind = _kind(function, symbol, place)
        if kind is not None:
            found.append((*kind, place, sp.simplify(function.subs(symbol, place))))
    steps += [
        Step(f"{en.capitalize()}:", f"{zh}：", f"f({latex(p)}) = {latex(v)}")
        for en, zh, p, v in found
    ]
    question = rf"\operatorname{{extrema}}\left({tree_latex(tree)}\right)"
    if not found:
        return Result(
            operation="extrema", question=question, exact="∅", latex=r"\varnothing", steps=steps,
            notes=[Step("There is no local maximum or minimum.", "没有极大值或极小值。")],
        )  # fmt: skip
    return Result(
        operation="extrema",
        question=question,
        exact=", ".join(f"{en} ({plain(p)}, {plain(v)})" for en, _, p, v in found),
        latex=r",\quad ".join(
            rf"f_{{\mathrm{{{en[:3]}}}}}\left({latex(p)}\right) = {latex(v)}"
            for en, _, p, v in found
        ),
        values=[plain(v) for _, _, _, v in found],
        steps=steps,
        check=Check(
            "the derivative is 0 at each place", "各点处导数为 0", _zero(first, symbol, places)
        ),
    )


def _zero(first: Expr, symbol: Expr, places: list[Expr]) -> bool:
    return all(abs(sp.N(first.subs(symbol, p), 30)) < 1e-15 for p in places)


def _kind(function: Expr, symbol: Expr, place: Expr) -> tuple[str, str] | None:
    """By the first derivative of some order that is not 0 there."""
    derivative = function
    for order in range(1, 9):
        derivative = sp.diff(derivative, symbol)
        value = sp.simplify(derivative.subs(symbol, place))
        if value == 0:
            continue
        if order % 2 or not value.is_real:
            return None
        return ("minimum", "极小值") if value > 0 else ("maximum", "极大值")
    return None


def area(expressions: str, lower: str = "", upper: str = "") -> Result:
    """The area between two curves, between bounds or between where they meet.

    A single curve is taken with the axis of its variable.
    """
    trees = [_side(tree) for tree in parse_list(expressions)]
    if len(trees) not in (1, 2):
        raise MathsProblem(
            f"one or two curves are needed, not {len(trees)}",
            f"需要一条或两条曲线，而不是 {len(trees)} 条",
        )
    builder = Builder()
    name = main_variable(sorted(set().union(*(variables(tree) for tree in trees))))
    symbol = builder.symbol(name)
    first, second = (*(builder.expression(tree) for tree in trees), sp.Integer(0))[:2]
    difference = sp.expand(first - second)
    _one_variable(difference, symbol)
    places = _real_roots(difference, symbol)
    if lower and upper:
        low, high = (builder.expression(parse(bound)) for bound in (lower, upper))
    elif len(places) >= 2:
        low, high = places[0], places[-1]
    else:
        raise MathsProblem(
            "the curves enclose nothing: they meet in fewer than two points",
            "两曲线的交点不足两个，没有围成区域",
        )
    inner = [p for p in places if low < p < high]
    corners = [low, *inner, high]
    pieces = [sp.Abs(sp.integrate(difference, (symbol, a, b))) for a, b in pairwise(corners)]
    value = sp.simplify(sum(pieces, sp.Integer(0)))
    if value.has(sp.Integral) or not value.is_finite:
        raise MathsProblem("this area cannot be computed exactly", "无法精确计算这个面积")
    x = name_latex(name)
    steps = [
        Step("They meet at:", "交点：", r",\; ".join(f"{x} = {latex(p)}" for p in places)),
        Step(
            "Piece by piece:",
            "分段积分：",
            " + ".join(
                rf"\left|\int_{{{latex(a)}}}^{{{latex(b)}}} "
                rf"\left({latex(difference)}\right) d{x}\right|"
                for a, b in pairwise(corners)
            ),
        ),
    ]
    numeric = sp.Integral(sp.Abs(difference), (symbol, low, high)).evalf(8)
    held = bool(abs(numeric - sp.N(value)) < 1e-5 * max(1, abs(sp.N(value))))
    question = rf"\int_{{{latex(low)}}}^{{{latex(high)}}} \left|{latex(difference)}\right| d{x}"
    check = Check("compared with numerical integration", "与数值积分比较", held)
    return answer("area", question, value, steps=steps, check=check)


def _side(tree: Tree) -> Tree:
    return tree.right if isinstance(tree, Relation) and tree.operator == "=" else tree


def _one_variable(function: Expr, symbol: Expr) -> None:
    if function.free_symbols - {symbol}:
        raise MathsProblem("only functions of one variable are handled here", "此处只处理一元函数")


def _real_roots(function: Expr, symbol: Expr) -> list[Expr]:
    """Real zeros in order. Raises where they cannot be listed."""
    found = sp.solveset(function, symbol, sp.S.Reals)
    if not isinstance(found, sp.FiniteSet) or len(found) > MOST:
        if found is sp.S.EmptySet:
            return []
        raise MathsProblem(
            "the places cannot be listed (there may be endlessly many)",
            "无法逐一列出这些点（可能有无穷多个）",
        )
    return sorted((sp.simplify(p) for p in found), key=lambda p: float(sp.N(p)))
