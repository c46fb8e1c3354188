"""Statistics of lists of numbers, exact: means, spread, quartiles, correlation, regression."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import sympy as sp

from hunyuan.maths.build import MathsProblem
from hunyuan.maths.grammar import SyntaxProblem, normalise
from hunyuan.maths.result import Check, Result, Step, answer, decimal, latex, plain

Expr = Any

MAX_NUMBERS = 5000
SHOWN = 12


def statistics(action: str, data: str, other: str = "") -> Result:
    """One of `hunyuan.maths.call.ACTIONS` on ``data``; ``other`` is a second list, the weights,
    or the percentile."""
    numbers = read_numbers(data)
    single: dict[str, Callable[[list[Expr]], Result]] = {
        "mean": _mean,
        "median": _median,
        "mode": _mode,
        "variance": lambda v: _spread(v, root=False, sample=False),
        "std": lambda v: _spread(v, root=True, sample=False),
        "sample_variance": lambda v: _spread(v, root=False, sample=True),
        "sample_std": lambda v: _spread(v, root=True, sample=True),
        "min": lambda v: _simple("min", v, min(v)),
        "max": lambda v: _simple("max", v, max(v)),
        "range": lambda v: _simple("range", v, max(v) - min(v)),
        "sum": lambda v: _simple("sum", v, sum(v, sp.Integer(0))),
        "quartiles": _quartiles,
        "summary": _summary,
        "geometric_mean": _geometric,
        "harmonic_mean": _harmonic,
    }
    if action in single:
        return single[action](numbers)
    second = read_numbers(other) if other else []
    if action == "percentile":
        return _percentile(numbers, second)
    if len(second) != len(numbers):
        raise MathsProblem(
            f"{action} needs two lists of one length, not {len(numbers)} and {len(second)} numbers",
            f"{action} 需要两组个数相同的数据，而不是 {len(numbers)} 个和 {len(second)} 个",
        )
    if action == "weighted_mean":
        return _weighted(numbers, second)
    return _regression(numbers, second, correlation=action == "correlation")


def read_numbers(text: str) -> list[Expr]:
    """Numbers separated by commas, spaces or lines, as exact fractions."""
    cleaned = normalise(text).translate(str.maketrans("[](),;", "      "))
    parts = cleaned.split()
    if len(parts) > MAX_NUMBERS:
        raise MathsProblem(
            f"{len(parts)} numbers; at most {MAX_NUMBERS} are taken",
            f"共有 {len(parts)} 个数，最多 {MAX_NUMBERS} 个",
        )
    numbers = []
    for part in parts:
        try:
            if len(part) > 60:
                raise ValueError
            scale = sp.Rational(1, 100) if part.endswith("%") else sp.Integer(1)
            body = part.removesuffix("%")
            if not body or set(body) - set("0123456789.eE+-/"):
                raise ValueError
            exponent = body.lower().partition("e")[2]
            if exponent and abs(int(exponent)) > 300:
                raise ValueError
            numbers.append(sp.Rational(body) * scale)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise SyntaxProblem(
                f"{part[:30]!r} in the data is not a number", f"数据中的 {part[:30]!r} 不是数"
            ) from error
    if not numbers:
        raise MathsProblem("the list of numbers is empty", "数据为空")
    return numbers


def _listed(values: list[Expr]) -> str:
    shown = ", ".join(_short(v) for v in values[:SHOWN])
    return shown + (r", \ldots" if len(values) > SHOWN else "")


def _short(value: Expr) -> str:
    """A number of the data as it was probably written: as a decimal where that ends."""
    text = decimal(value)
    if text is not None and sp.Rational(text) == value:
        return text
    return latex(value)


def _result(data: list[Expr], name: str, value: Expr, **more: Any) -> Result:
    exact_fraction = bool(getattr(value, "is_Rational", False))
    return answer(
        "statistics",
        rf"\operatorname{{{name}}}\left({_listed(data)}\right)",
        value,
        prefer_decimal=more.pop("prefer_decimal", exact_fraction),
        **more,
    )


def _simple(name: str, values: list[Expr], value: Expr) -> Result:
    return _result(values, name, value)


def _average(values: list[Expr]) -> Expr:
    return sum(values, sp.Integer(0)) / len(values)


def _mean(values: list[Expr]) -> Result:
    total, mean = sum(values, sp.Integer(0)), _average(values)
    step = Step(
        f"Sum divided by the count ({len(values)}):",
        f"总和除以个数（{len(values)}）：",
        rf"\frac{{{_short(total)}}}{{{len(values)}}} = {latex(mean)}",
    )
    zero = sum((v - mean for v in values), sp.Integer(0)) == 0
    check = Check("the deviations from it add up to 0", "各数与它的离差之和为 0", zero)
    return _result(values, "mean", mean, steps=[step], check=check)


def _middle(ordered: list[Expr]) -> Expr:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _median(values: list[Expr]) -> Result:
    ordered = sorted(values)
    steps = [Step("In order:", "从小到大排列：", _listed(ordered))]
    if len(values) % 2:
        steps.append(Step("The middle one.", "取正中间的数。"))
    else:
        steps.append(Step("The mean of the two in the middle.", "取中间两个数的平均数。"))
    return _result(values, "median", _middle(ordered), steps=steps)


def _mode(values: list[Expr]) -> Result:
    counts = Counter(values)
    most = max(counts.values())
    modes = sorted(v for v, n in counts.items() if n == most)
    step = Step(f"Occurs {most} times.", f"出现 {most} 次。")
    return _result(
        values, "mode", modes if len(modes) > 1 else modes[0], steps=[step],
        values=[plain(m) for m in modes],
    )  # fmt: skip


def _variance(values: list[Expr], sample: bool) -> Expr:
    mean = _average(values)
    below = len(values) - (1 if sample else 0)
    if below < 1:
        raise MathsProblem(
            "the sample variance needs at least 2 numbers", "样本方差至少需要 2 个数"
        )
    return sum(((v - mean) ** 2 for v in values), sp.Integer(0)) / below


def _spread(values: list[Expr], *, root: bool, sample: bool) -> Result:
    variance = _variance(values, sample)
    other = _variance(values, not sample) if len(values) > 1 else None
    below = "n-1" if sample else "n"
    steps = [
        Step("Mean:", "平均数：", rf"\bar{{x}} = {_short(_average(values))}"),
        Step(
            "Mean squared deviation:",
            "离差平方的平均：",
            rf"\frac{{1}}{{{below}}}\sum (x_i - \bar{{x}})^2 = {latex(variance)}",
        ),
    ]
    value = sp.sqrt(variance) if root else variance
    if root:
        steps.append(
            Step("Square root:", "开平方：", rf"\sqrt{{{latex(variance)}}} = {latex(value)}")
        )
    notes = []
    if other is not None:
        alternative = sp.sqrt(other) if root else other
        shown = decimal(alternative, 10) or plain(alternative)
        notes.append(
            Step(
                f"Of the whole population (divided by n); as a sample (n - 1): {shown}."
                if not sample
                else f"Of a sample (divided by n - 1); of the whole population (n): {shown}.",
                f"按总体计算（除以 n）；若为样本（除以 n - 1）：{shown}。"
                if not sample
                else f"按样本计算（除以 n - 1）；若为总体（除以 n）：{shown}。",
            )
        )
    name = {(0, 0): "var", (1, 0): "std", (0, 1): "var_{n-1}", (1, 1): "std_{n-1}"}[(root, sample)]
    return _result(values, name, value, steps=steps, notes=notes)


def _quantile(ordered: list[Expr], fraction: Expr) -> Expr:
    """Linear interpolation between the order statistics, as spreadsheets do it."""
    place = fraction * (len(ordered) - 1)
    low = int(sp.floor(place))
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


INTERPOLATED = Step(
    "Interpolated between neighbours, as spreadsheets do (QUARTILE.INC).",
    "在相邻数之间线性插值，与电子表格（QUARTILE.INC）一致。",
)


def _quartiles(values: list[Expr]) -> Result:
    ordered = sorted(values)
    found = [_quantile(ordered, sp.Rational(k, 4)) for k in (1, 2, 3)]
    names = ("Q_1", "Q_2", "Q_3")
    return _result(
        values, "quartiles", found, steps=[Step("In order:", "从小到大排列：", _listed(ordered))],
        notes=[INTERPOLATED], values=[plain(v) for v in found],
        latex=r",\quad ".join(f"{n} = {_short(v)}" for n, v in zip(names, found, strict=True)),
    )  # fmt: skip


def _percentile(values: list[Expr], wanted: list[Expr]) -> Result:
    if len(wanted) != 1 or not 0 <= wanted[0] <= 100:
        raise MathsProblem(
            "the percentile must be one number from 0 to 100", "百分位必须是 0 到 100 之间的一个数"
        )
    value = _quantile(sorted(values), wanted[0] / 100)
    return _result(values, f"P_{{{_short(wanted[0])}}}", value, notes=[INTERPOLATED])


def _summary(values: list[Expr]) -> Result:
    ordered = sorted(values)
    mean, variance = _average(values), _variance(values, sample=False)
    found: list[tuple[str, str, Expr]] = [
        ("count", "个数", sp.Integer(len(values))),
        ("mean", "平均数", mean),
        ("median", "中位数", _middle(ordered)),
        ("std", "标准差", sp.sqrt(variance)),
        ("min", "最小值", ordered[0]),
        ("max", "最大值", ordered[-1]),
    ]
    return Result(
        operation="statistics",
        question=rf"\operatorname{{summary}}\left({_listed(values)}\right)",
        exact=", ".join(f"{en} = {decimal(v) or plain(v)}" for en, _, v in found),
        latex=r"\begin{array}{ll} "
        + r" \\ ".join(rf"\text{{{en}}} & {_approximate(v)}" for en, _, v in found)
        + r" \end{array}",
        steps=[Step(f"{en}:", f"{zh}：", _approximate(v)) for en, zh, v in found],
        values=[plain(v) for _, _, v in found],
    )


def _approximate(value: Expr) -> str:
    return decimal(value, 10) or latex(value)


def _geometric(values: list[Expr]) -> Result:
    if any(v <= 0 for v in values):
        raise MathsProblem("the geometric mean needs positive numbers", "几何平均数要求各数为正")
    value = sp.prod(values) ** sp.Rational(1, len(values))
    step = Step("The n-th root of the product.", "各数乘积开 n 次方。")
    return _result(values, "geometric mean", sp.simplify(value), steps=[step])


def _harmonic(values: list[Expr]) -> Result:
    if any(v <= 0 for v in values):
        raise MathsProblem("the harmonic mean needs positive numbers", "调和平均数要求各数为正")
    value = len(values) / sum((1 / v for v in values), sp.Integer(0))
    step = Step("The count divided by the sum of reciprocals.", "个数除以各数倒数之和。")
    return _result(values, "harmonic mean", value, steps=[step])


def _weighted(values: list[Expr], weights: list[Expr]) -> Result:
    total = sum(weights, sp.Integer(0))
    if total == 0:
        raise MathsProblem("the weights add up to 0", "权重之和为 0")
    value = sum((v * w for v, w in zip(values, weights, strict=True)), sp.Integer(0)) / total
    step = Step(
        "Sum of value times weight, divided by the weights:",
        "数值乘权重之和除以权重之和：",
        rf"\frac{{\sum x_i w_i}}{{{_short(total)}}} = {latex(value)}",
    )
    return _result(values, "weighted mean", value, steps=[step])


def _regression(x: list[Expr], y: list[Expr], *, correlation: bool) -> Result:
    if len(x) < 2:
        raise MathsProblem("at least two pairs are needed", "至少需要两对数据")
    mean_x, mean_y = _average(x), _average(y)
    sxx = sum(((v - mean_x) ** 2 for v in x), sp.Integer(0))
    syy = sum(((v - mean_y) ** 2 for v in y), sp.Integer(0))
    sxy = sum(((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)), sp.Integer(0))
    if sxx == 0 or (correlation and syy == 0):
        raise MathsProblem(
            "all values of one list are equal: there is no line through them",
            "其中一组数据全部相等，无法计算",
        )
    sums = Step(
        "Sums of deviations:",
        "离差之和：",
        rf"S_{{xx}} = {_short(sxx)},\; S_{{yy}} = {_short(syy)},\; S_{{xy}} = {_short(sxy)}",
    )
    if correlation:
        value = sp.simplify(sxy / sp.sqrt(sxx * syy))
        rule = Step("Pearson:", "皮尔逊相关系数：", r"r = \frac{S_{xy}}{\sqrt{S_{xx} S_{yy}}}")
        return _result(x, "r", value, steps=[sums, rule], prefer_decimal=True)
    slope = sxy / sxx
    intercept = mean_y - slope * mean_x
    line = slope * sp.Symbol("x", real=True) + intercept
    residual = sum((b - slope * a - intercept for a, b in zip(x, y, strict=True)), sp.Integer(0))
    steps = [
        sums,
        Step("Slope:", "斜率：", rf"b = \frac{{S_{{xy}}}}{{S_{{xx}}}} = {latex(slope)}"),
        Step("Intercept:", "截距：", rf"a = \bar{{y}} - b\bar{{x}} = {latex(intercept)}"),
    ]
    sign = "+" if intercept >= 0 else "-"
    decimals = [decimal(v, 10) or plain(v) for v in (slope, abs(intercept))]
    constant = f" {sign} {decimals[1]}" if intercept != 0 else ""
    return Result(
        operation="statistics",
        question=rf"\operatorname{{regression}}\left({_listed(x)};\; {_listed(y)}\right)",
        exact=f"y = {plain(line)}",
        latex=f"y = {latex(line)}",
        decimal=f"y ≈ {decimals[0]}x{constant}",
        prefer_decimal=True,
        values=[plain(slope), plain(intercept)],
        steps=steps,
        check=Check("the residuals add up to 0", "残差之和为 0", residual == 0),
    )
