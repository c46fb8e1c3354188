"""From a tool call to its result: which function computes which operation. Runs in the worker."""

import sympy as sp

from hunyuan.maths import (
    algebra,
    arithmetic,
    calculus,
    conversion,
    dates,
    extrema,
    matrices,
    solving,
    statistics,
)
from hunyuan.maths.build import Builder, MathsProblem
from hunyuan.maths.call import SEVERAL, ToolCall, checked
from hunyuan.maths.formulas import with_values
from hunyuan.maths.grammar import Call, Relation, Sequence, Tree, parse_list
from hunyuan.maths.latex import UnknownCommand, looks_like_latex, to_plain
from hunyuan.maths.result import Result, Step, together
from hunyuan.maths.show import plain as tree_plain
from hunyuan.maths.trees import substituted

NOT_MATHS = {"source", "target", "action", "name", "side", "kind"}


def perform(call: ToolCall) -> Result:
    """Compute. Raises `HunyuanError` subclasses for what cannot be."""
    call = checked(call.operation, dict(call.arguments))
    if call.operation in SEVERAL and "," in call.arguments["action"]:
        actions = [part.strip() for part in call.arguments["action"].split(",")]
        singles = [
            perform(ToolCall(call.operation, {**call.arguments, "action": action}))
            for action in dict.fromkeys(actions)
        ]
        return together(singles)
    given = {
        name: text if name in NOT_MATHS else read_latex(text)
        for name, text in call.arguments.items()
    }
    match call.operation:
        case "calculate":
            return _evaluate(**given)
        case "simplify":
            return algebra.simplify(**given)
        case "expand":
            return algebra.expand(**given)
        case "factor":
            return _factor(**given)
        case "apart":
            return algebra.apart(**given)
        case "substitute":
            return algebra.substitute(given["expression"], given.get("values", ""))
        case "solve":
            return solving.solve(
                given["equations"],
                given.get("variables", ""),
                lower=given.get("lower", ""),
                upper=given.get("upper", ""),
            )
        case "extrema":
            return extrema.extrema(**given)
        case "area":
            return extrema.area(**given)
        case "differentiate":
            return calculus.differentiate(**given)
        case "integrate":
            return calculus.integrate(**given)
        case "limit":
            return calculus.limit(**given)
        case "series":
            return calculus.series(**given)
        case "sum" | "product":
            return calculus.summation(call.operation, **given)
        case "matrix":
            return matrices.matrix(given["action"], _needed(given, "a"), given.get("b", ""))
        case "statistics":
            return statistics.statistics(**{"data": "", **given})
        case "number":
            return arithmetic.number_theory(given["action"], _needed(given, "numbers"))
        case "percent":
            return arithmetic.percent(given["action"], _needed(given, "a"), _needed(given, "b"))
        case "complex":
            return arithmetic.complex_number(given["action"], _needed(given, "expression"))
        case "convert":
            return conversion.convert(
                given["value"], _needed(given, "source"), _needed(given, "target")
            )
        case "date":
            return dates.date(given["action"], _needed(given, "a"), given.get("b", ""))
        case "formula":
            return _formula(**given)
    raise MathsProblem(f"{call.operation} is not computed here", f"此处不能执行 {call.operation}")


def _needed(given: dict[str, str], name: str) -> str:
    if name not in given:
        raise MathsProblem(f"{name} is missing", f"缺少 {name}")
    return given[name]


def read_latex(text: str) -> str:
    """Plain notation of a text that may be LaTeX."""
    if not looks_like_latex(text):
        return text
    try:
        return to_plain(text)
    except UnknownCommand as ours:
        try:
            return _second_reader(text)
        except Exception:
            # Whatever went wrong in the other reader, our own message names the construct.
            raise ours from None


def _second_reader(text: str) -> str:
    """Rarer LaTeX by latex2sympy2_extended; what it makes must be readable by our grammar."""
    from latex2sympy2_extended import latex2sympy

    value = latex2sympy(text)
    allowed = (sp.Expr, sp.core.relational.Relational, sp.Tuple)
    if not isinstance(value, sp.Basic) or not all(
        isinstance(node, allowed) for node in sp.preorder_traversal(value)
    ):
        raise TypeError
    written = str(value)
    parse_list(written)
    return written


# -- an expression that itself says what to do ----------------------------------------------------


def _evaluate(expression: str, digits: str = "") -> Result:
    """``2 + 3`` is computed, ``x^2 = 4`` solved, ``integrate(x, x)`` integrated with its steps."""
    trees = parse_list(expression)
    first = trees[0]
    if len(trees) > 1 or isinstance(first, Relation) or _relations(first):
        return solving.solve(expression)
    if isinstance(first, Sequence) and not any(isinstance(i, Sequence) for i in first.items):
        return statistics.statistics("summary", expression)
    if isinstance(first, Call) and not digits and _is_task(first):
        return _task(first)
    return arithmetic.calculate(expression, digits)


def _relations(tree: Tree) -> bool:
    return isinstance(tree, Sequence) and any(isinstance(item, Relation) for item in tree.items)


def _is_task(call: Call) -> bool:
    tasks = {"integrate", "diff", "limit", "sum", "product", "det", "inv", "rank", "gcd", "lcm"}
    return call.function in tasks


def _task(call: Call) -> Result:
    texts = [tree_plain(argument) for argument in call.arguments]
    body, rest = texts[0], texts[1:]
    match call.function:
        case "integrate":
            return calculus.integrate(body, *rest)
        case "diff":
            return calculus.differentiate(body, *rest)
        case "limit":
            return calculus.limit(body, *rest)
        case "sum" | "product":
            return calculus.summation(call.function, body, *rest)
        case "gcd" | "lcm":
            builder = Builder()
            if all(builder.expression(argument).is_Integer for argument in call.arguments):
                return arithmetic.number_theory(call.function, ", ".join(texts))
            return arithmetic.calculate(tree_plain(call))
        case _:
            name = {"det": "determinant", "inv": "inverse", "rank": "rank"}[call.function]
            return matrices.matrix(name, body)


def _factor(expression: str) -> Result:
    """Polynomials into factors; a whole number into primes."""
    value = Builder().value(parse_list(expression)[0])
    if getattr(value, "is_Integer", False):
        return arithmetic.number_theory("factorize", expression)
    return algebra.factor(expression)


def _formula(name: str, values: str = "", target: str = "") -> Result:
    """A known formula with numbers put in, solved for its wanted quantity."""
    formula, expression, given, wanted = with_values(name, values, target)
    if expression is None:
        equation = substituted(parse_list(formula.plain)[0], given)
        result = solving.solve(tree_plain(equation), wanted, positive=formula.topic == "geometry")
        result.steps.insert(0, Step(f"{formula.en}:", f"{formula.zh}：", formula.latex))
        return result
    listed = ", ".join(f"{n} = {tree_plain(v)}" for n, v in given.items())
    result = algebra.substitute(expression, listed) if given else arithmetic.calculate(expression)
    result.operation = "formula"
    result.steps.insert(0, Step(f"{formula.en}:", f"{formula.zh}：", formula.latex))
    result.question = formula.latex
    return result
