"""Derivatives, integrals, limits, series, sums and products, with the rules that were used."""

from typing import Any

import sympy as sp

from hunyuan.maths.algebra import main_variable, same_values
from hunyuan.maths.build import Builder, MathsProblem
from hunyuan.maths.grammar import Relation, Tree, parse, variables
from hunyuan.maths.integral_steps import integral_steps
from hunyuan.maths.result import Check, Result, Step, answer, latex, plain
from hunyuan.maths.show import latex as tree_latex
from hunyuan.maths.show import name_latex

Expr = Any

MAX_ORDER = 30
MAX_STEPS = 16


def _body(expression: str, variable: str) -> tuple[Tree, str]:
    """The tree (the right side of ``y = ...``) and its variable."""
    tree = parse(expression)
    if isinstance(tree, Relation) and tree.operator == "=":
        tree = tree.right
    return tree, variable or main_variable(variables(tree))


def _whole(name: str, text: str, default: int, most: int) -> int:
    if not text:
        return default
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise MathsProblem(
            f"{name}={text[:20]}: must be a whole number from 1 to {most}",
            f"{name}={text[:20]}：必须是 1 到 {most} 的整数",
        )
    return int(text)


# -- derivatives ---------------------------------------------------------------------------------


def differentiate(expression: str, variable: str = "", order: str = "", at: str = "") -> Result:
    """The derivative of some order, perhaps at a point."""
    tree, name = _body(expression, variable)
    times = _whole("order", order, 1, MAX_ORDER)
    builder = Builder()
    symbol = builder.symbol(name)
    function = builder.expression(tree)
    steps = derivative_steps(function, symbol)
    derivative = sp.diff(function, symbol)
    for k in range(2, times + 1):
        derivative = sp.diff(derivative, symbol)
        steps.append(
            Step(f"Derivative number {k}:", f"第 {k} 次求导：", latex(sp.simplify(derivative)))
        )
    short = _shorter(derivative)
    x = name_latex(name)
    d = rf"\frac{{d}}{{d{x}}}" if times == 1 else rf"\frac{{d^{{{times}}}}}{{d{x}^{{{times}}}}}"
    question = rf"{d} \left({tree_latex(tree)}\right)"
    check = _difference_quotient(function, derivative, symbol) if times == 1 else None
    if not at:
        return answer("differentiate", question, short, steps=steps, check=check)
    point = builder.expression(parse(at))
    value = sp.simplify(derivative.subs(symbol, point))
    steps.append(
        Step(
            f"At {name} = {plain(point)}:",
            f"在 {name} = {plain(point)} 处：",
            rf"\left.{latex(short)}\right|_{{{x}={latex(point)}}} = {latex(value)}",
        )
    )
    question = rf"\left.{question}\right|_{{{x}={latex(point)}}}"
    return answer("differentiate", question, value, steps=steps, check=check)


def _shorter(value: Expr) -> Expr:
    candidates = [value, sp.simplify(value), sp.factor(value)]
    return min(candidates, key=lambda v: (sp.count_ops(v), len(str(v))))


def _difference_quotient(function: Expr, derivative: Expr, symbol: Expr) -> Check | None:
    if function.free_symbols != {symbol}:
        return None
    h = sp.Float("1e-12", 40)
    tested = 0
    for point in (sp.Rational(7, 10), sp.Rational(13, 10), sp.Rational(-3, 10)):
        try:
            around = [complex(sp.N(function.subs(symbol, point + s * h), 40)) for s in (1, -1)]
            exact = complex(sp.N(derivative.subs(symbol, point), 40))
            quotient = complex(
                sp.N(
                    (function.subs(symbol, point + h) - function.subs(symbol, point - h)) / (2 * h),
                    20,
                )
            )
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            continue
        if any(v != v or abs(v.imag) > 1e-12 for v in (*around, exact)):
            continue
        tested += 1
        if abs(quotient - exact) > 1e-6 * max(1.0, abs(exact)):
            return Check("the difference quotient disagrees", "差商检验不一致", False)
    if not tested:
        return None
    return Check(
        f"compared with the difference quotient at {tested} points: equal",
        f"在 {tested} 个点上与差商比较：一致",
    )


def derivative_steps(function: Expr, symbol: Expr) -> list[Step]:
    """The rules from the outside in, each with its result."""
    steps: list[Step] = []
    _explain(function, symbol, steps)
    return steps


def _explain(f: Expr, x: Expr, steps: list[Step]) -> None:
    if len(steps) >= MAX_STEPS or not f.has(x) or f == x:
        return
    formula = rf"\left({latex(f)}\right)' = {latex(sp.diff(f, x))}"
    if f.is_Add:
        steps.append(Step("Sum rule: term by term.", "加法法则：逐项求导。", formula))
        for term in f.as_ordered_terms():
            _explain(term, x, steps)
        return
    if f.is_Mul:
        constant, rest = f.as_independent(x)
        numerator, denominator = rest.as_numer_denom()
        if denominator.has(x) and numerator.has(x):
            steps.append(
                Step(
                    "Quotient rule: (u/v)' = (u'v - uv')/v².",
                    "商法则：(u/v)' = (u'v - uv')/v²。",
                    formula,
                )
            )
            _explain(numerator, x, steps)
            _explain(denominator, x, steps)
            return
        factors = [factor for factor in rest.args if factor.has(x)] if rest.is_Mul else [rest]
        if len(factors) > 1:
            steps.append(
                Step("Product rule: (uv)' = u'v + uv'.", "乘法法则：(uv)' = u'v + uv'。", formula)
            )
        elif constant != 1 and not (rest == x or (rest.is_Pow and rest.base == x)):
            steps.append(Step("A constant factor stays.", "常数因子保留。", formula))
        else:
            steps.append(Step("Power rule: (xⁿ)' = n·xⁿ⁻¹.", "幂法则：(xⁿ)' = n·xⁿ⁻¹。", formula))
            return
        for factor in factors:
            _explain(factor, x, steps)
        return
    if isinstance(f, sp.exp) or (f.is_Pow and not f.base.has(x)):
        inner = f.args[0] if isinstance(f, sp.exp) else f.exp
        _outer(
            f, inner, x, steps, "Exponential: (eᵘ)' = eᵘ·u'.", "指数函数：(eᵘ)' = eᵘ·u'。", formula
        )
        return
    if f.is_Pow:
        if f.exp.has(x):
            steps.append(
                Step(
                    "Write it as e^(v·ln u) and use the chain rule.",
                    "化为 e^(v·ln u) 后用链式法则。",
                    formula,
                )
            )
            return
        _outer(
            f,
            f.base,
            x,
            steps,
            "Power rule: (uⁿ)' = n·uⁿ⁻¹·u'.",
            "幂法则：(uⁿ)' = n·uⁿ⁻¹·u'。",
            formula,
        )
        return
    if len(f.args) == 1:
        inner = f.args[0]
        u = sp.Symbol("u", real=True)
        known = latex(sp.diff(f.func(u), u))
        steps.append(
            Step("Known derivative:", "基本导数：", rf"\left({latex(f.func(u))}\right)' = {known}")
        )
        if inner != x:
            steps.append(
                Step(
                    "Chain rule: outer times inner derivative.",
                    "链式法则：外层导数乘内层导数。",
                    formula,
                )
            )
            _explain(inner, x, steps)


def _outer(
    f: Expr, inner: Expr, x: Expr, steps: list[Step], en: str, zh: str, formula: str
) -> None:
    if inner == x:
        plain_rule = f.is_Pow and not f.exp.has(x)
        en = "Power rule: (xⁿ)' = n·xⁿ⁻¹." if plain_rule else en
        zh = "幂法则：(xⁿ)' = n·xⁿ⁻¹。" if plain_rule else zh
    else:
        en, zh = en[:-1] + " (chain rule).", zh[:-1] + "（链式法则）。"
    steps.append(Step(en, zh, formula))
    if inner != x:
        _explain(inner, x, steps)


# -- integrals -----------------------------------------------------------------------------------


def integrate(expression: str, variable: str = "", lower: str = "", upper: str = "") -> Result:
    """An antiderivative, or the definite integral where both bounds are given."""
    tree, name = _body(expression, variable)
    if bool(lower) != bool(upper):
        raise MathsProblem("a definite integral needs both bounds", "定积分需要给出上下两个积分限")
    builder = Builder()
    symbol = builder.symbol(name)
    function = builder.expression(tree)
    x, shown = name_latex(name), tree_latex(tree)
    body = rf"\left({shown}\right)" if function.is_Add else shown
    if not lower:
        antiderivative = sp.integrate(function, symbol)
        if antiderivative.has(sp.Integral):
            raise MathsProblem(
                "this function has no antiderivative that SymPy can write down",
                "SymPy 写不出这个函数的原函数",
            )
        antiderivative = _constant_free(_tidy(antiderivative), symbol)
        if function.is_rational_function(symbol):
            # On both sides of a pole, as schools write it.
            antiderivative = antiderivative.replace(
                sp.log, lambda u: sp.log(u if u.is_nonnegative else sp.Abs(u))
            )
        return answer(
            "integrate",
            rf"\int {body} \, d{x}",
            antiderivative,
            exact=plain(antiderivative) + " + C",
            latex=latex(antiderivative) + " + C",
            values=[plain(antiderivative)],
            steps=integral_steps(function, symbol),
            check=_differentiated_back(antiderivative, function, symbol),
        )
    bounds = [builder.expression(parse(text)) for text in (lower, upper)]
    question = rf"\int_{{{latex(bounds[0])}}}^{{{latex(bounds[1])}}} {body} \, d{x}"
    value = sp.integrate(function, (symbol, *bounds))
    steps: list[Step] = []
    antiderivative = sp.integrate(function, symbol)
    if not antiderivative.has(sp.Integral, sp.Piecewise):
        antiderivative = _tidy(antiderivative)
        steps = [
            *integral_steps(function, symbol),
            Step(
                "Put in the bounds, upper minus lower:",
                "代入上下限相减（牛顿-莱布尼茨公式）：",
                rf"\left[{latex(antiderivative)}\right]_{{{latex(bounds[0])}}}^{{{latex(bounds[1])}}}"
                rf" = {latex(sp.simplify(value))}",
            ),
        ]
    if value.has(sp.nan) or (value.is_infinite and value.is_real is None):
        raise MathsProblem("the integral has no value", "该积分没有确定的值")
    notes = []
    if value.has(sp.Integral):
        numeric = sp.N(value, 15)
        if not numeric.is_number:
            raise MathsProblem("SymPy finds no value for this integral", "SymPy 求不出这个积分的值")
        value = numeric
        notes.append(
            Step("No closed form; integrated numerically.", "没有解析表达式；用数值积分求得。")
        )
    elif value.is_infinite:
        notes.append(Step("The integral diverges.", "该积分发散。"))
    return answer(
        "integrate",
        question,
        _tidy(value),
        steps=steps,
        notes=notes,
        check=_quadrature(function, symbol, bounds, value),
    )


def _tidy(value: Expr) -> Expr:
    """Simplified where that is shorter."""
    simple = sp.simplify(value)
    return simple if sp.count_ops(simple) < sp.count_ops(value) else value


def _constant_free(value: Expr, symbol: Expr) -> Expr:
    """An antiderivative without an added constant."""
    return value.as_independent(symbol, as_Add=True)[1] if value.is_Add else value


def _differentiated_back(antiderivative: Expr, function: Expr, symbol: Expr) -> Check | None:
    derivative = sp.diff(antiderivative, symbol)
    if sp.simplify(derivative - function) == 0:
        held: bool | None = True
    else:
        compared = same_values(derivative, function)
        held = None if compared is None else compared.passed
    return Check(
        "the derivative of the result is the function again", "对结果求导，得到原来的被积函数", held
    )


def _quadrature(function: Expr, symbol: Expr, bounds: list[Expr], value: Expr) -> Check | None:
    if not value.is_number or not value.is_finite or function.free_symbols - {symbol}:
        return None
    try:
        numeric = sp.Integral(function, (symbol, *bounds)).evalf(10)
        held = abs(complex(numeric) - complex(sp.N(value, 15))) < 1e-6 * max(1, abs(complex(value)))
    except (TypeError, ValueError, OverflowError):
        return None
    return Check("numerical integration gives the same value", "与数值积分的结果一致", held or None)


# -- limits --------------------------------------------------------------------------------------


def limit(expression: str, variable: str = "", point: str = "0", side: str = "") -> Result:
    """The limit at a point; two-sided unless ``side`` is ``+`` or ``-``."""
    tree, name = _body(expression, variable)
    builder = Builder(integers=frozenset())
    symbol = builder.symbol(name)
    function = builder.expression(tree)
    target = builder.expression(parse(point))
    direction = {"": "", "+": "+", "-": "-", "+1": "+", "-1": "-", "1": "+"}.get(side.strip())
    if direction is None:
        raise MathsProblem(f"side={side[:10]}: must be + or -", f"side={side[:10]}：必须是 + 或 -")
    mark = f"^{{{direction}}}" if direction else ""
    body = rf"\left({tree_latex(tree)}\right)" if function.is_Add else tree_latex(tree)
    question = rf"\lim_{{{name_latex(name)} \to {latex(target)}{mark}}} {body}"
    steps = _form(function, symbol, target)
    if direction or target.is_infinite:
        value = sp.limit(function, symbol, target, direction or "+")
    else:
        left = sp.limit(function, symbol, target, "-")
        right = sp.limit(function, symbol, target, "+")
        steps.append(
            Step(
                "From the left and from the right:",
                "左极限与右极限：",
                rf"{latex(left)} \quad\text{{|}}\quad {latex(right)}",
            )
        )
        if sp.simplify(left - right) != 0 and left != right:
            return Result(
                operation="limit",
                question=question,
                exact="does not exist",
                latex=r"\nexists",
                steps=steps,
                notes=[
                    Step(
                        f"The limit does not exist: {plain(left)} from the left, {plain(right)} "
                        "from the right.",
                        f"极限不存在：左极限为 {plain(left)}，右极限为 {plain(right)}。",
                    )
                ],
            )
        value = right
    if isinstance(value, sp.AccumBounds):
        return Result(
            operation="limit", question=question, exact="does not exist", latex=r"\nexists",
            steps=steps, notes=[Step(
                f"The limit does not exist: the function oscillates between {plain(value.min)} and "
                f"{plain(value.max)}.",
                f"极限不存在：函数在 {plain(value.min)} 与 {plain(value.max)} 之间振荡。",
            )],
        )  # fmt: skip
    return answer(
        "limit",
        question,
        sp.simplify(value),
        steps=steps,
        check=_approached(function, symbol, target, value, direction),
    )


def _form(function: Expr, symbol: Expr, target: Expr) -> list[Step]:
    numerator, denominator = sp.together(function).as_numer_denom()
    if not denominator.has(symbol):
        return []
    try:
        above, below = (sp.limit(part, symbol, target) for part in (numerator, denominator))
    except (NotImplementedError, ValueError):
        return []
    if (above == 0 and below == 0) or (above.is_infinite and below.is_infinite):
        sign = "0/0" if above == 0 else "∞/∞"
        derived = sp.diff(numerator, symbol) / sp.diff(denominator, symbol)
        return [
            Step(f"The form {sign} is undetermined.", f"属于 {sign} 型未定式。"),
            Step(
                "L'Hôpital's rule: differentiate above and below.",
                "洛必达法则：分子分母分别求导。",
                latex(derived),
            ),
        ]
    return []


def _approached(
    function: Expr, symbol: Expr, target: Expr, value: Expr, direction: str
) -> Check | None:
    if not value.is_number or not value.is_finite or function.free_symbols != {symbol}:
        return None
    step = sp.Float("1e-9", 40)
    if target.is_infinite:
        near = sp.Float("1e9", 40) * sp.sign(target)
    else:
        near = target + (-step if direction == "-" else step)
    try:
        there = complex(sp.N(function.subs(symbol, near), 30))
    except (TypeError, ValueError, OverflowError):
        return None
    if there != there:
        return None
    held = abs(there - complex(sp.N(value))) < 1e-3 * max(1.0, abs(complex(sp.N(value))))
    return Check(
        "a value very near the point agrees",
        "在极限点附近取值检验，结果接近",
        True if held else None,
    )


# -- series, sums and products -------------------------------------------------------------------


def series(expression: str, variable: str = "", point: str = "0", order: str = "") -> Result:
    """The Taylor series up to, not including, the power ``order``."""
    tree, name = _body(expression, variable)
    builder = Builder()
    symbol = builder.symbol(name)
    function = builder.expression(tree)
    target = builder.expression(parse(point))
    terms = _whole("order", order, 6, MAX_ORDER)
    found = sp.series(function, symbol, target, terms)
    body = found.removeO()
    x = name_latex(name)
    steps = []
    derivative = function
    for k in range(min(terms, 5)):
        value = sp.simplify(sp.limit(derivative, symbol, target))
        steps.append(
            Step(
                f"Coefficient of power {k}:",
                f"{k} 次项系数：",
                rf"\frac{{f^{{({k})}}\left({latex(target)}\right)}}{{{k}!}} = "
                rf"{latex(value / sp.factorial(k))}",
            )
        )
        derivative = sp.diff(derivative, symbol)
    return answer(
        "series",
        rf"{tree_latex(tree)} \quad \left({x} \to {latex(target)}\right)",
        found,
        values=[plain(body)],
        steps=steps,
    )


def summation(
    operation: str, expression: str, variable: str = "", lower: str = "1", upper: str = "n"
) -> Result:
    """The sum or product over whole numbers from ``lower`` to ``upper``."""
    tree = parse(expression)
    name = variable or next(
        (n for n in ("k", "n", "i", "x") if n in variables(tree)), main_variable(variables(tree))
    )
    symbol = sp.Symbol(name, integer=True)
    builder = Builder(integers=frozenset({"n", "m"}) - {name})
    function = builder.expression(tree, {name: symbol})
    bounds = [builder.expression(parse(text)) for text in (lower, upper)]
    sign = r"\sum" if operation == "sum" else r"\prod"
    body = rf"\left({tree_latex(tree)}\right)" if function.is_Add else tree_latex(tree)
    question = f"{sign}_{{{name_latex(name)}={latex(bounds[0])}}}^{{{latex(bounds[1])}}} {body}"
    closed = (sp.summation if operation == "sum" else sp.product)(function, (symbol, *bounds))
    unevaluated = closed.has(sp.Sum, sp.Product)
    notes: list[Step] = []
    if unevaluated:
        if closed.free_symbols:
            raise MathsProblem(
                f"SymPy knows no closed form of this {operation}",
                f"SymPy 求不出这个{'和' if operation == 'sum' else '积'}的封闭形式",
            )
        closed = sp.N(closed, 15)
        notes.append(Step("No closed form; computed numerically.", "没有封闭形式；数值计算得到。"))
    if closed.is_infinite:
        notes.append(Step("It diverges.", "发散。"))
    value = closed if closed.is_number else sp.factor(sp.simplify(closed))
    return answer(
        operation,
        question,
        value,
        steps=_first_terms(operation, function, symbol, bounds),
        notes=notes,
        check=_added_up(operation, function, symbol, bounds, value),
    )


def _first_terms(operation: str, function: Expr, symbol: Expr, bounds: list[Expr]) -> list[Step]:
    low, high = bounds
    if not low.is_Integer:
        return []
    count = 4 if not high.is_Integer else min(4, int(high - low) + 1)
    terms = [latex(function.subs(symbol, low + k)) for k in range(max(count, 0))]
    sign = " + " if operation == "sum" else r" \cdot "
    more = sign + r"\cdots" if not high.is_Integer or high - low > 3 else ""
    return [Step("Written out:", "展开前几项：", sign.join(terms) + more)] if terms else []


def _added_up(
    operation: str, function: Expr, symbol: Expr, bounds: list[Expr], value: Expr
) -> Check | None:
    low, high = bounds
    combine = sum if operation == "sum" else sp.prod
    if low.is_Integer and high.is_Integer and 0 <= high - low < 200:
        total = combine([function.subs(symbol, k) for k in range(int(low), int(high) + 1)])
        held = sp.simplify(total - value) == 0
        return Check("added term by term: the same", "逐项计算：结果相同", held)
    if low.is_Integer and high.is_Symbol:
        held = True
        for n in (3, 5, 8):
            total = combine([function.subs(symbol, k) for k in range(int(low), int(low) + n)])
            expected = value.subs(high, low + n - 1)
            held = held and sp.simplify(total - expected) == 0
        return Check(
            f"compared with the terms for {high} = {low + 2}, {low + 4}, {low + 7}: the same",
            f"取 {high} = {low + 2}、{low + 4}、{low + 7} 逐项检验：相同",
            held,
        )
    return None
