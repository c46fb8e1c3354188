"""Trees into SymPy objects, by operators and constructors only: no text reaches SymPy.

Numbers are exact: ``0.1`` is one tenth. Powers, factorials and the like whose value would not fit
are refused before they are computed.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom

from hunyuan.errors import UsageError
from hunyuan.maths.grammar import (
    CONSTANTS,
    Call,
    Name,
    Number,
    Operation,
    Relation,
    Sequence,
    Tree,
    is_matrix,
)

MAX_RESULT_DIGITS = 60_000
MAX_FACTORIAL = 15_000
MAX_MATRIX = 30

Expr = Any  # sympy has no types

SIMPLE: dict[str, Callable[..., Expr]] = {
    "sin": sp.sin, "cos": sp.cos, "tan": sp.tan, "cot": sp.cot, "sec": sp.sec, "csc": sp.csc,
    "asin": sp.asin, "acos": sp.acos, "atan": sp.atan, "acot": sp.acot, "asec": sp.asec,
    "acsc": sp.acsc, "sinh": sp.sinh, "cosh": sp.cosh, "tanh": sp.tanh, "coth": sp.coth,
    "sech": sp.sech, "csch": sp.csch, "asinh": sp.asinh, "acosh": sp.acosh, "atanh": sp.atanh,
    "sqrt": sp.sqrt, "exp": sp.exp, "ln": sp.log, "abs": sp.Abs, "sign": sp.sign,
    "floor": sp.floor, "ceil": sp.ceiling, "gamma": sp.gamma, "erf": sp.erf, "zeta": sp.zeta,
    "re": sp.re, "im": sp.im, "conj": sp.conjugate, "arg": sp.arg, "atan2": sp.atan2,
    "min": sp.Min, "max": sp.Max,
}  # fmt: skip


class MathsProblem(UsageError):
    """Well-formed mathematics that has no value here: undefined, too large, of the wrong kind."""


class Builder:
    """Makes SymPy objects; symbols are real unless ``real`` is False, where solutions may be not.

    ``integers`` names symbols that stand for whole numbers, such as the index of a sum.
    """

    def __init__(self, *, real: bool = True, integers: frozenset[str] = frozenset()) -> None:
        self._real = real
        self._integers = integers

    def symbol(self, name: str) -> Expr:
        """The symbol of a name."""
        if name in self._integers:
            return sp.Symbol(name, integer=True)
        return sp.Symbol(name, real=True) if self._real else sp.Symbol(name)

    def expression(self, tree: Tree, bound: Mapping[str, Expr] | None = None) -> Expr:
        """The value of a tree that is no relation: a number, an expression or a matrix."""
        value = self.value(tree, bound)
        # Not `value in (True, False)`: the number 1 equals True.
        if isinstance(value, (list, Relational, BooleanAtom)):
            raise MathsProblem(
                "an equation or a list stands where an expression is expected",
                "此处应为表达式，而不是方程或列表",
            )
        return value

    def value(self, tree: Tree, bound: Mapping[str, Expr] | None = None) -> Expr:
        """A SymPy object, or a Python list for a list that is no matrix."""
        bound = bound or {}
        match tree:
            case Number(text):
                return sp.Rational(text)
            case Name(name):
                return bound[name] if name in bound else self._name(name)
            case Relation(operator, left, right):
                sides = self.expression(left, bound), self.expression(right, bound)
                return _relation(operator, *sides)
            case Sequence(items) if is_matrix(tree):
                return self._matrix(items, bound)
            case Sequence(items):
                return [self.value(item, bound) for item in items]
            case Operation(operator, operands):
                values = [self.expression(operand, bound) for operand in operands]
                return _operate(operator, values)
            case Call(function, arguments):
                return self._call(function, arguments, bound)

    def _name(self, name: str) -> Expr:
        if name in CONSTANTS:
            return {"pi": sp.pi, "e": sp.E, "E": sp.E, "i": sp.I, "I": sp.I}.get(name, sp.oo)
        return self.symbol(name)

    def _matrix(self, rows: tuple[Tree, ...], bound: Mapping[str, Expr]) -> Expr:
        lists = [row.items for row in rows if isinstance(row, Sequence)]
        if len(lists) > MAX_MATRIX or len(lists[0]) > MAX_MATRIX:
            raise MathsProblem(
                f"matrices have at most {MAX_MATRIX} rows and columns",
                f"矩阵最多 {MAX_MATRIX} 行、{MAX_MATRIX} 列",
            )
        return sp.ImmutableMatrix([[self.expression(x, bound) for x in row] for row in lists])

    def _call(self, name: str, arguments: tuple[Tree, ...], bound: Mapping[str, Expr]) -> Expr:
        if name in ("integrate", "diff", "limit", "sum", "product"):
            return self._calculus(name, arguments, bound)
        values = [self.value(argument, bound) for argument in arguments]
        if (
            name in ("min", "max", "gcd", "lcm")
            and len(values) == 1
            and isinstance(values[0], list)
        ):
            values = values[0]
        if name in ("det", "inv", "transpose", "rank", "trace"):
            return matrix_function(name, values[0])
        if any(isinstance(v, (list, sp.MatrixBase)) for v in values):
            raise MathsProblem(f"{name} does not take a list or matrix", f"{name} 不接受列表或矩阵")
        if name in SIMPLE:
            return SIMPLE[name](*values)
        return _special(name, values)

    def _calculus(self, name: str, arguments: tuple[Tree, ...], bound: Mapping[str, Expr]) -> Expr:
        variable = self.variable(arguments)
        symbol = (
            sp.Symbol(variable, integer=True)
            if name in ("sum", "product")
            else self.symbol(variable)
        )
        body = self.expression(arguments[0], {**bound, variable: symbol})
        rest = [self.expression(argument, bound) for argument in arguments[2:]]
        match name, rest:
            case "diff", [order]:
                return sp.diff(body, symbol, order)
            case "diff", _:
                return sp.diff(body, symbol)
            case "integrate", [lower, upper]:
                return sp.integrate(body, (symbol, lower, upper))
            case "integrate", _:
                return sp.integrate(body, symbol)
            case "limit", [point]:
                return sp.limit(body, symbol, point, "+-" if point.is_finite else "+")
            case "limit", [point, side]:
                return sp.limit(body, symbol, point, "+" if side > 0 else "-")
            case "sum", [lower, upper]:
                return sp.summation(body, (symbol, lower, upper))
            case _:
                return sp.product(body, (symbol, *rest))

    def variable(self, arguments: tuple[Tree, ...]) -> str:
        """The bound variable of a calculus function: its second argument, or x."""
        if len(arguments) < 2:
            return "x"
        if not isinstance(arguments[1], Name):
            raise MathsProblem(
                "the second argument must be a variable, as in integrate(x^2, x)",
                "第二个参数必须是变量，例如 integrate(x^2, x)",
            )
        return arguments[1].name


def power(base: Expr, exponent: Expr) -> Expr:
    """``base ^ exponent``; refuses a number of more than `MAX_RESULT_DIGITS` digits."""
    if isinstance(base, sp.MatrixBase):
        if exponent.is_Integer and abs(int(exponent)) <= 1000 and base.is_square:
            if int(exponent) < 0:
                base = matrix_function("inv", base)
            return base ** abs(int(exponent))
        raise MathsProblem(
            "a matrix power needs a square matrix and a whole exponent up to 1000",
            "矩阵的幂需要方阵和绝对值不超过 1000 的整数指数",
        )
    if base.is_Rational and exponent.is_Rational and base not in (0, 1, -1):
        size = max(abs(int(base.p)), int(base.q))
        # The exponent may itself be too large for a float.
        digits = math.log10(size) if size > 1 else 0.0
        if abs(int(exponent.p)) > 10**9 or abs(float(exponent)) * digits > MAX_RESULT_DIGITS:
            raise _too_large()
    if base.is_zero and exponent.is_negative:
        raise _divided_by_zero()
    return base**exponent


def matrix_function(name: str, matrix: Expr) -> Expr:
    """det, inv, transpose, rank or trace of a matrix."""
    if not isinstance(matrix, sp.MatrixBase):
        raise MathsProblem(
            f"{name} needs a matrix such as [[1, 2], [3, 4]]",
            f"{name} 需要矩阵，例如 [[1, 2], [3, 4]]",
        )
    if name == "transpose":
        return matrix.T
    if name == "rank":
        return sp.Integer(matrix.rank())
    if not matrix.is_square:
        raise MathsProblem(
            f"{name} needs a square matrix, not {matrix.rows} by {matrix.cols}",
            f"{name} 需要方阵，而不是 {matrix.rows} 行 {matrix.cols} 列的矩阵",
        )
    if name == "trace":
        return matrix.trace()
    if name == "det":
        return sp.simplify(matrix.det())
    if sp.simplify(matrix.det()) == 0:
        raise MathsProblem(
            "the matrix has determinant 0 and therefore no inverse",
            "该矩阵的行列式为 0，因此没有逆矩阵",
        )
    return matrix.inv().applyfunc(sp.simplify)


def _relation(operator: str, left: Expr, right: Expr) -> Expr:
    if isinstance(left, sp.MatrixBase) or isinstance(right, sp.MatrixBase):
        raise MathsProblem("equations between matrices are not solved", "不求解矩阵之间的方程")
    kind = {"=": sp.Eq, "!=": sp.Ne, "<": sp.Lt, "<=": sp.Le, ">": sp.Gt, ">=": sp.Ge}[operator]
    if operator not in ("=", "!=") and (left.has(sp.I) or right.has(sp.I)):
        raise MathsProblem(
            "complex numbers are neither greater nor smaller than others",
            "复数之间不能比较大小",
        )
    return kind(left, right, evaluate=False)


def _operate(operator: str, values: list[Expr]) -> Expr:
    first, *rest = values
    matrix = isinstance(first, sp.MatrixBase)
    if not rest:
        if operator == "neg":
            return -first
        if matrix:
            raise MathsProblem("this does not apply to a matrix", "该运算不适用于矩阵")
        if operator == "%":
            return first / 100
        return first * sp.pi / 180 if operator == "deg" else factorial(first)
    second = rest[0]
    both = matrix and isinstance(second, sp.MatrixBase)
    if (matrix or isinstance(second, sp.MatrixBase)) and operator != "^":
        return _matrices(operator, first, second, both)
    match operator:
        case "+":
            return first + second
        case "-":
            return first - second
        case "*":
            return first * second
        case "/":
            if second.is_zero:
                raise _divided_by_zero()
            return first / second
        case _:
            return power(first, second)


def _matrices(operator: str, first: Expr, second: Expr, both: bool) -> Expr:
    if operator in "+-" and both and first.shape == second.shape:
        return first + second if operator == "+" else first - second
    if operator == "*" and (not both or first.cols == second.rows):
        return first * second
    if operator == "/" and not isinstance(second, sp.MatrixBase) and not second.is_zero:
        return first / second
    shapes = " and ".join(
        f"{m.rows}x{m.cols}" for m in (first, second) if isinstance(m, sp.MatrixBase)
    )
    raise MathsProblem(
        f"{operator} is not defined for these matrices ({shapes})",
        f"这些矩阵（{shapes.replace(' and ', ' 与 ')}）之间不能进行 {operator} 运算",
    )


def factorial(value: Expr) -> Expr:
    """``value!``."""
    if value.is_Number and (not value.is_Integer or value < 0):
        raise MathsProblem(
            f"the factorial needs a whole number from 0, not {value}",
            f"阶乘需要非负整数，而不是 {value}",
        )
    if value.is_Integer and value > MAX_FACTORIAL:
        raise MathsProblem(
            f"the factorial of {value} is too large; at most {MAX_FACTORIAL}! is computed",
            f"{value} 的阶乘过大；最多计算 {MAX_FACTORIAL}!",
        )
    return sp.factorial(value)


def _whole(name: str, values: list[Expr], largest: int) -> list[int]:
    for value in values:
        if not value.is_Integer or abs(value) > largest:
            raise MathsProblem(
                f"{name} needs whole numbers of at most {largest}, not {str(value)[:40]}",
                f"{name} 需要绝对值不超过 {largest} 的整数，而不是 {str(value)[:40]}",
            )
    return [int(value) for value in values]


def _special(name: str, values: list[Expr]) -> Expr:
    first = values[0]
    match name:
        case "log":
            base = values[1] if len(values) > 1 else None
            if first.is_zero:
                raise MathsProblem("the logarithm of 0 is not defined", "0 没有对数")
            if base is not None and (base in (0, 1) or base.is_negative):
                raise MathsProblem(
                    "the base of a logarithm is positive and not 1", "对数的底必须为正数且不等于 1"
                )
            return sp.log(first) if base is None else sp.log(first, base)
        case "log2" | "log10" | "lg":
            return sp.log(first, 2 if name == "log2" else 10)
        case "cbrt" | "root":
            index = sp.Integer(3) if name == "cbrt" else values[1]
            if index.is_Integer and index % 2 == 1 and first.is_real:
                return sp.real_root(first, index)
            return power(first, 1 / index)
        case "factorial":
            return factorial(first)
        case "binomial":
            if first.is_Number:
                _whole(name, values, 100_000)
            return sp.binomial(*values)
        case "permutations":
            n, k = _whole(name, values, 10_000)
            return sp.Integer(math.perm(n, k)) if 0 <= k <= n else sp.Integer(0)
        case "mod":
            if values[1].is_zero:
                raise _divided_by_zero()
            return sp.Mod(*values)
        case "gcd" | "lcm":
            return (sp.gcd if name == "gcd" else sp.lcm)(values)
        case "fibonacci":
            return sp.fibonacci(*_whole(name, values, 100_000))
        case "prime":
            (n,) = _whole(name, values, 100_000)
            if n < 1:
                raise MathsProblem("primes are counted from 1", "质数从第 1 个数起")
            return sp.Integer(sp.prime(n))
        case "round":
            places = _whole(name, values[1:], 1000)[0] if len(values) > 1 else 0
            if not first.is_real or not first.is_number:
                raise MathsProblem("round needs a real number", "round 需要实数")
            scale = sp.Integer(10) ** places
            # Half away from zero, as schools teach it.
            half = sp.floor(abs(first) * scale + sp.Rational(1, 2))
            return sp.sign(first) * half / scale
    raise AssertionError(name)


def _divided_by_zero() -> MathsProblem:
    return MathsProblem("division by zero is not defined", "除数不能为零")


def _too_large() -> MathsProblem:
    return MathsProblem(
        f"the result would have more than {MAX_RESULT_DIGITS} digits and is not computed",
        f"结果将超过 {MAX_RESULT_DIGITS} 位，不予计算",
    )
