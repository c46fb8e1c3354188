"""Function graphs: expressions and a domain -> a chart."""

from hunyuan.charts.sample import sample
from hunyuan.charts.spec import Axis, ChartSpec, Series
from hunyuan.maths.grammar import (
    Call,
    Name,
    Operation,
    Relation,
    Tree,
    parse,
    parse_list,
    variables,
    walk,
)
from hunyuan.maths.numeric import PlotError, constant, function_of
from hunyuan.maths.show import plain

MAX_FUNCTIONS = 8
DEFAULT = (-10.0, 10.0)
PERIODIC = {"sin", "cos", "tan", "cot", "sec", "csc"}


def data_graph(kind: str, data: str) -> ChartSpec:
    """Bars, a line or a pie of named numbers: ``apples = 5; pears = 3``."""
    names, heights = [], []
    for part in data.split(";"):
        name, _, value = part.rpartition("=")
        try:
            heights.append(float(value))
        except ValueError as error:
            raise PlotError(
                f"{part.strip()[:40]!r}: write name = number",
                f"{part.strip()[:40]!r}：请写成 名称 = 数值",
            ) from error
        names.append(name.strip()[:200])
    if kind == "pie" and min(heights) < 0:
        raise PlotError(
            "a pie cannot show negative numbers; choose bars", "饼图不能表示负数；请改用柱状图"
        )
    return ChartSpec(
        kind="pie" if kind == "pie" else "line" if kind == "line" else "bar",
        x=Axis(categories=names),
        series=[Series(points=[(float(i), height) for i, height in enumerate(heights)])],
        computed_by="hunyuan",
    )


def function_graph(expressions: str, lower: str = "", upper: str = "") -> ChartSpec:
    """The graph of one or several functions of one variable, in plain notation.

    ``lower`` and ``upper`` may be expressions such as ``-2 pi``. Raises `PlotError`.
    """
    trees = [_right_side(tree) for tree in parse_list(expressions)]
    if len(trees) > MAX_FUNCTIONS:
        raise PlotError(
            f"at most {MAX_FUNCTIONS} functions are drawn together, not {len(trees)}",
            f"最多同时绘制 {MAX_FUNCTIONS} 个函数，而不是 {len(trees)} 个",
        )
    names = sorted(set().union(*(variables(tree) for tree in trees)))
    if len(names) > 1:
        raise PlotError(
            f"the functions depend on {', '.join(names)[:40]}; one variable can be drawn",
            f"函数含有多个变量（{', '.join(names)[:40]}）；只能绘制一元函数",
        )
    name = names[0] if names else "x"
    low, high = _domain(trees, lower, upper)
    series = []
    for tree in trees:
        points = sample(function_of(tree, name), low, high)
        series.append(Series(name=plain(tree), points=points))
    if all(y is None for s in series for _, y in s.points):
        raise PlotError(
            f"the function has no real value anywhere from {low:g} to {high:g}",
            f"函数在 {low:g} 到 {high:g} 之间没有实数值",
        )
    title = ", ".join(f"y = {s.name}" for s in series)
    return ChartSpec(
        kind="function",
        title=title[:200],
        x=Axis(label=name),
        y=Axis(label="y"),
        series=series,
        source=f"{name} = {low:g} .. {high:g}",
        computed_by="NumPy",
    )


def _right_side(tree: Tree) -> Tree:
    """``y = x^2`` -> ``x^2``."""
    if isinstance(tree, Relation):
        left, right = tree.left, tree.right
        equal = tree.operator == "="
        if equal and isinstance(left, Name) and left.name not in variables(right):
            return right
        if equal and right == Name("y"):
            return left
        raise PlotError(
            f"{plain(tree)[:60]} is no function y = f(x); solve it for y first",
            f"{plain(tree)[:60]} 不是 y = f(x) 形式的函数；请先解出 y",
        )
    return tree


def _domain(trees: list[Tree], lower: str, upper: str) -> tuple[float, float]:
    if bool(lower) != bool(upper):
        raise PlotError("give both ends of the domain", "请同时给出定义域的两端")
    if not lower:
        return _fitting(trees)
    low, high = (constant(parse(text)) for text in (lower, upper))
    if not low < high or not abs(low) < 1e9 or not abs(high) < 1e9:
        raise PlotError(
            f"the domain {lower[:20]} to {upper[:20]} must be finite and increasing",
            f"定义域 {lower[:20]} 到 {upper[:20]} 必须有限，且左端小于右端",
        )
    return low, high


def _fitting(trees: list[Tree]) -> tuple[float, float]:
    """The usual window; for trigonometric functions two periods, for steep ones a narrow one."""
    calls = {node.function for tree in trees for node in walk(tree) if isinstance(node, Call)}
    steep = any(
        isinstance(node, Operation) and node.operator == "^" and variables(node.operands[1])
        for tree in trees
        for node in walk(tree)
    )
    if calls & PERIODIC:
        return -6.5, 6.5
    if steep or calls & {"exp", "sinh", "cosh"}:
        return -4.0, 4.0
    cubic = any(
        isinstance(node, Operation) and node.operator == "^" and plain(node.operands[1]).isdigit()
        for tree in trees
        for node in walk(tree)
    )
    return (-5.0, 5.0) if cubic else DEFAULT
