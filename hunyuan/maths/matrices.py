"""Matrices: determinant, inverse, rank, eigenvalues, products, linear systems."""

from collections.abc import Callable
from typing import Any

import sympy as sp

from hunyuan.maths.build import Builder, MathsProblem, matrix_function, power
from hunyuan.maths.grammar import Sequence, parse, parse_list
from hunyuan.maths.result import Check, Result, Step, answer, latex, plain

Expr = Any

MAX_SYMBOLIC = 6


def matrix(action: str, a: str, b: str = "") -> Result:
    """One of `hunyuan.maths.call.ACTIONS` on ``a`` (and ``b``)."""
    first = read_matrix(a)
    one: dict[str, Callable[[Expr], Result]] = {
        "determinant": _determinant,
        "inverse": _inverse,
        "eigenvalues": _eigenvalues,
        "rank": _rank,
        "rref": _rref,
        "charpoly": _charpoly,
        "transpose": lambda m: _plain("transpose", m, rf"{latex(m)}^{{\mathsf{{T}}}}"),
        "trace": lambda m: _plain("trace", m, rf"\operatorname{{tr}} {latex(m)}"),
    }
    if action in one:
        return one[action](first)
    if not b:
        raise MathsProblem(f"{action} needs a second matrix", f"{action} 需要第二个矩阵")
    if action == "power":
        exponent = Builder().expression(parse(b))
        return answer("matrix", f"{latex(first)}^{{{latex(exponent)}}}", power(first, exponent))
    if action == "solve":
        return _solve(first, b)
    second = read_matrix(b)
    sign = {"multiply": r"\cdot", "add": "+", "subtract": "-"}[action]
    fits = first.cols == second.rows if action == "multiply" else first.shape == second.shape
    if not fits:
        shapes = f"{first.rows}×{first.cols}", f"{second.rows}×{second.cols}"
        raise MathsProblem(
            f"{action}: the shapes {shapes[0]} and {shapes[1]} do not fit",
            f"{action}：形状 {shapes[0]} 与 {shapes[1]} 不匹配",
        )
    value = {
        "multiply": lambda: first * second,
        "add": lambda: first + second,
        "subtract": lambda: first - second,
    }[action]()
    steps = []
    if action == "multiply":
        terms = " + ".join(
            rf"{latex(first[0, k])} \cdot {latex(second[k, 0])}" for k in range(first.cols)
        )
        steps.append(
            Step(
                "Each entry is a row times a column; the first one:",
                "每个元素是行乘列，例如第一个：",
                f"{terms} = {latex(value[0, 0])}",
            )
        )
    return answer("matrix", f"{latex(first)} {sign} {latex(second)}", value, steps=steps)


def read_matrix(text: str) -> Expr:
    """A matrix from ``[[1, 2], [3, 4]]`` or ``[1 2; 3 4]``; a plain list is a column."""
    value = Builder().value(parse(text))
    if isinstance(value, list) and value and not isinstance(value[0], list):
        value = sp.ImmutableMatrix(value)
    if not isinstance(value, sp.MatrixBase):
        raise MathsProblem(
            f"{text[:40]!r} is not a matrix; write [[1, 2], [3, 4]]",
            f"{text[:40]!r} 不是矩阵；请写成 [[1, 2], [3, 4]]",
        )
    if value.free_symbols and max(value.shape) > MAX_SYMBOLIC:
        raise MathsProblem(
            f"matrices with letters have at most {MAX_SYMBOLIC} rows",
            f"含字母的矩阵最多 {MAX_SYMBOLIC} 行",
        )
    return value


def _plain(name: str, m: Expr, question: str) -> Result:
    return answer("matrix", question, matrix_function(name, m))


def _determinant(m: Expr) -> Result:
    value = matrix_function("det", m)
    steps = []
    if m.shape == (2, 2):
        a, b, c, d = (latex(x) for x in m)
        steps.append(
            Step("ad - bc:", "ad - bc：", rf"{a} \cdot {d} - {b} \cdot {c} = {latex(value)}")
        )
    elif m.rows <= 5:
        terms = [
            rf"{'-' if j % 2 else '+'} {latex(m[0, j])} \cdot {latex(m.minor(0, j))}"
            for j in range(m.cols)
        ]
        steps.append(
            Step(
                "Expand along the first row (entry times minor):",
                "按第一行展开（元素乘余子式）：",
                " ".join(terms).lstrip("+ ") + f" = {latex(value)}",
            )
        )
    product = sp.prod(m.eigenvals(multiple=True)) if m.rows <= 2 and not m.free_symbols else None
    check = None
    if product is not None:
        check = Check(
            "equals the product of the eigenvalues",
            "等于各特征值之积",
            sp.simplify(product - value) == 0,
        )
    return answer("matrix", rf"\det {latex(m)}", value, steps=steps, check=check)


def _inverse(m: Expr) -> Result:
    value = matrix_function("inv", m)
    steps = [Step("Determinant:", "行列式：", rf"\det = {latex(matrix_function('det', m))}")]
    if m.shape == (2, 2):
        steps.append(
            Step(
                "For two rows:",
                "二阶矩阵：",
                r"\begin{pmatrix}a&b\\c&d\end{pmatrix}^{-1} = \frac{1}{ad-bc}"
                r"\begin{pmatrix}d&-b\\-c&a\end{pmatrix}",
            )
        )
    else:
        steps.append(
            Step(
                "Eliminate in (A | I) until the left side is I.",
                "对 (A | I) 做行变换，直到左边变为 I。",
            )
        )
    held = (m * value).applyfunc(sp.simplify) == sp.eye(m.rows)
    check = Check("matrix times inverse is the identity", "与逆矩阵相乘得到单位矩阵", held)
    return answer("matrix", f"{latex(m)}^{{-1}}", value, steps=steps, check=check)


def _rank(m: Expr) -> Result:
    steps = [Step("Row echelon form:", "行阶梯形：", latex(m.rref()[0]))]
    return answer("matrix", rf"\operatorname{{rank}} {latex(m)}", sp.Integer(m.rank()), steps=steps)


def _rref(m: Expr) -> Result:
    return answer("matrix", rf"\operatorname{{rref}} {latex(m)}", m.rref()[0])


def _square(m: Expr) -> None:
    if not m.is_square:
        raise MathsProblem(
            f"a square matrix is needed, not {m.rows} by {m.cols}",
            f"需要方阵，而不是 {m.rows} 行 {m.cols} 列的矩阵",
        )


def _characteristic(m: Expr) -> Expr:
    symbol = sp.Symbol("lambda")
    return m.charpoly(symbol).as_expr()


def _charpoly(m: Expr) -> Result:
    _square(m)
    return answer("matrix", rf"\det\left(\lambda I - {latex(m)}\right)", _characteristic(m))


def _eigenvalues(m: Expr) -> Result:
    _square(m)
    polynomial = _characteristic(m)
    steps = [
        Step("Characteristic polynomial:", "特征多项式：", rf"{latex(polynomial)} = 0"),
    ]
    factored = sp.factor(polynomial)
    if factored != polynomial:
        steps.append(Step("Factored:", "因式分解：", f"{latex(factored)} = 0"))
    found = m.eigenvals()
    if sum(found.values()) < m.rows or any(sp.count_ops(v) > 60 for v in found):
        numbers = [sp.N(v, 15) for v in sp.Poly(polynomial).nroots(n=15)]
        values = [v for v in numbers]
        notes = [
            Step("Decimal values; there is no short exact form.", "没有简短的精确形式，给出小数。")
        ]
    else:
        values, notes = [], []
        for value, times in found.items():
            values.extend([sp.simplify(value)] * times)
        for value, times, vectors in m.eigenvects() if m.rows <= 4 and not m.free_symbols else ():
            shown = r",\; ".join(latex(v.applyfunc(sp.simplify)) for v in vectors)
            steps.append(
                Step(
                    f"Eigenvectors for {plain(value)} (multiplicity {times}):",
                    f"特征值 {plain(value)}（重数 {times}）的特征向量：",
                    shown,
                )
            )
    values.sort(key=lambda v: (complex(v).real, complex(v).imag) if v.is_number else (0, 0))
    total = sp.simplify(sum(values) - m.trace())
    check = (
        Check("their sum is the trace", "特征值之和等于迹", abs(sp.N(total)) < 1e-9)
        if total.is_number
        else None
    )
    return answer(
        "matrix",
        rf"\lambda\left({latex(m)}\right)",
        values,
        latex=r",\quad ".join(rf"\lambda_{{{i}}} = {latex(v)}" for i, v in enumerate(values, 1)),
        values=[plain(v) for v in values],
        steps=steps,
        notes=notes,
        check=check,
    )


def _solve(m: Expr, text: str) -> Result:
    trees = parse_list(text)
    if len(trees) == 1 and isinstance(trees[0], Sequence):
        right = read_matrix(text)
    else:
        right = sp.ImmutableMatrix([Builder().expression(tree) for tree in trees])
    if right.rows != m.rows:
        raise MathsProblem(
            f"the right-hand side has {right.rows} rows, the matrix {m.rows}",
            f"右端有 {right.rows} 行，而矩阵有 {m.rows} 行",
        )
    symbols = sp.symbols(f"x1:{m.cols + 1}")
    found = sp.linsolve((m, right), *symbols)
    augmented = m.row_join(right)
    steps = [Step("Eliminate:", "消元：", rf"{latex(augmented)} \to {latex(augmented.rref()[0])}")]
    question = rf"{latex(m)} x = {latex(right)}"
    if not found:
        return Result(
            operation="matrix", question=question, exact="∅", latex=r"\varnothing", steps=steps,
            notes=[Step("The system has no solution.", "方程组无解。")],
        )  # fmt: skip
    vector = sp.ImmutableMatrix(list(next(iter(found))))
    held = (m * vector - right).applyfunc(sp.simplify).is_zero_matrix
    check = Check("A·x equals the right-hand side", "A·x 等于右端", held)
    values = [plain(v) for v in vector]
    return answer("matrix", question, vector, steps=steps, check=check, values=values)
