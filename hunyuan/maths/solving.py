"""Equations, systems and inequalities."""

from typing import Any

import sympy as sp
from sympy.logic.boolalg import BooleanAtom

from hunyuan.maths.algebra import main_variable
from hunyuan.maths.build import Builder, MathsProblem
from hunyuan.maths.grammar import (
    Operation,
    Relation,
    Sequence,
    Tree,
    parse,
    parse_list,
    variables,
)
from hunyuan.maths.numeric import evaluated, function_of
from hunyuan.maths.result import Check, Result, Step, decimal, latex, plain
from hunyuan.maths.show import latex as tree_latex
from hunyuan.maths.show import name_latex

Expr = Any

MAX_EQUATIONS = 12
LONG = 40  # operations; a longer root is shown as a decimal


def solve(
    equations: str, names: str = "", *, positive: bool = False, lower: str = "", upper: str = ""
) -> Result:
    """Solutions of one equation, an inequality, or a system of them; an expression means ``= 0``.

    ``positive`` keeps only positive numbers, where lengths are meant. With ``lower`` and ``upper``
    the real solutions between them, both ends included.
    """
    trees: list[Tree] = []
    for tree in parse_list(equations):
        trees.extend(tree.items if isinstance(tree, Sequence) else [tree])
    if len(trees) > MAX_EQUATIONS:
        raise MathsProblem(
            f"at most {MAX_EQUATIONS} equations are solved together, not {len(trees)}",
            f"最多联立 {MAX_EQUATIONS} 个方程，而不是 {len(trees)} 个",
        )
    question = _question(trees)
    free = sorted(set().union(*(variables(tree) for tree in trees)))
    wanted = [name.strip() for name in names.split(",") if name.strip()] or free
    unknown = [name for name in wanted if name not in free]
    if unknown and free:
        raise MathsProblem(
            f"variable {unknown[0][:20]!r} does not occur in the equation",
            f"方程中没有变量 {unknown[0][:20]!r}",
        )
    if not free:
        return _without_variable(trees, question)
    if any(isinstance(tree, Relation) and tree.operator != "=" for tree in trees):
        name = wanted[0] if names else main_variable(free)
        return _inequality(trees, name, free, question)
    if len(trees) == 1:
        name = wanted[0] if names else main_variable(free)
        if lower and upper:
            return _between(trees[0], name, question, lower, upper)
        return _one_equation(trees[0], name, question, positive)
    return _system(trees, wanted, question)


def _question(trees: list[Tree]) -> str:
    lines = [tree_latex(t) + ("" if isinstance(t, Relation) else " = 0") for t in trees]
    rows = r" \\ ".join(lines)
    return lines[0] if len(lines) == 1 else rf"\begin{{cases}} {rows} \end{{cases}}"


def _sides(tree: Tree, builder: Builder) -> tuple[Expr, Expr]:
    if isinstance(tree, Relation):
        return builder.expression(tree.left), builder.expression(tree.right)
    return builder.expression(tree), sp.Integer(0)


def _without_variable(trees: list[Tree], question: str) -> Result:
    builder = Builder()
    truths = []
    for tree in trees:
        value = sp.simplify(builder.value(tree)) if isinstance(tree, Relation) else None
        if not isinstance(value, BooleanAtom):
            raise MathsProblem("there is no variable to solve for", "式中没有可以求解的变量")
        truths.append(bool(value))
    true = all(truths)
    note = Step("The statement is true." if true else "The statement is false.",
                "该式成立。" if true else "该式不成立。")  # fmt: skip
    return Result(
        operation="solve",
        question=question,
        exact="true" if true else "false",
        latex=r"\text{true}" if true else r"\text{false}",
        notes=[note],
    )


# -- one equation --------------------------------------------------------------------------------


def _one_equation(tree: Tree, name: str, question: str, positive: bool) -> Result:
    real_only = Builder().expression(_left(tree)).has(sp.Abs, sp.sign, sp.floor, sp.ceiling) or (
        isinstance(tree, Relation) and Builder().expression(tree.right).has(sp.Abs, sp.floor)
    )
    builder = Builder(real=real_only)
    left, right = _sides(tree, builder)
    symbol = builder.symbol(name)
    difference = sp.expand(left - right) if not real_only else left - right
    if sp.simplify(difference) == 0:
        note = Step(f"True for every {name}.", f"对任意 {name} 都成立。")
        return Result(
            operation="solve", question=question, exact="all", notes=[note],
            latex=rf"{name_latex(name)} \in \mathbb{{R}}",
        )  # fmt: skip
    if difference.has(*TRIGONOMETRIC) and difference.free_symbols == {symbol}:
        periodic = _periodic(tree, name, question)
        if periodic is not None:
            return periodic
    steps = equation_steps(left, right, symbol)
    numeric = False
    try:
        roots = list(dict.fromkeys(sp.solve(left - right, symbol)))
    except NotImplementedError:
        roots, numeric = _numeric_roots(tree, left - right, symbol), True
        steps.append(
            Step(
                "There is no formula for this equation; its roots between -100 and 100 were sought "
                "numerically.",
                "该方程没有求根公式；在 -100 到 100 之间用数值方法求根。",
            )
        )
    roots = [_tidy(root) for root in roots]
    if any(root.has(sp.Piecewise) for root in roots):
        roots = [sp.piecewise_fold(r) for r in roots]
    roots.sort(key=_order)
    real = [root for root in roots if root.is_number and _order(root)[0] == 0]
    if real and len(real) < len(roots) and not difference.is_rational_function(symbol):
        # Of endlessly many complex solutions SymPy lists some; people mean the real ones.
        roots = real
    if positive and any(root.is_positive for root in roots):
        roots = [root for root in roots if root.is_positive]
    check = _substituted(left - right, symbol, roots, numeric)
    return _roots_result(question, name, roots, steps, check, numeric)


def _between(tree: Tree, name: str, question: str, lower: str, upper: str) -> Result:
    """The real solutions in a closed interval, where they can be listed."""
    builder = Builder()
    left, right = _sides(tree, builder)
    symbol = builder.symbol(name)
    low, high = (builder.expression(parse(bound)) for bound in (lower, upper))
    if not (low.is_real and high.is_real and low < high):
        raise MathsProblem(
            f"the interval from {lower[:20]} to {upper[:20]} is empty or not real",
            f"从 {lower[:20]} 到 {upper[:20]} 的区间为空或不是实数",
        )
    found = sp.solveset(left - right, symbol, sp.Interval(low, high))
    if found is not sp.S.EmptySet and not isinstance(found, sp.FiniteSet):
        raise MathsProblem(
            "the solutions in this interval cannot be listed", "无法逐一列出该区间内的解"
        )
    roots = sorted((_tidy(root) for root in found), key=_order)
    x = name_latex(name)
    steps = [
        Step("Only here:", "只取区间：", rf"{latex(low)} \le {x} \le {latex(high)}"),
    ]
    check = _substituted(left - right, symbol, roots, numeric=False)
    return _roots_result(question, name, roots, steps, check, False)


TRIGONOMETRIC = (sp.sin, sp.cos, sp.tan, sp.cot, sp.sec, sp.csc)


def _left(tree: Tree) -> Tree:
    return tree.left if isinstance(tree, Relation) else tree


def _tidy(root: Expr) -> Expr:
    short = sp.simplify(root) if sp.count_ops(root) < LONG else root
    return (
        sp.radsimp(short) if not short.has(sp.Piecewise) and sp.count_ops(short) < LONG else short
    )


def _order(root: Expr) -> tuple[int, float, float]:
    try:
        value = complex(sp.N(root))
    except (TypeError, ValueError):
        return (2, 0.0, 0.0)
    return (0 if abs(value.imag) < 1e-12 else 1, value.real, value.imag)


def _roots_result(
    question: str,
    name: str,
    roots: list[Expr],
    steps: list[Step],
    check: Check | None,
    numeric: bool,
) -> Result:
    symbol = name_latex(name)
    notes = []
    if not roots:
        notes.append(Step("There is no solution.", "方程无解。"))
        return Result(
            operation="solve", question=question, exact="∅", latex=r"\varnothing",
            steps=steps, notes=notes,
        )  # fmt: skip
    real = [r for r in roots if abs(_order(r)[2]) < 1e-12 and _order(r)[0] == 0]
    if not real and all(root.is_number for root in roots):
        notes.append(
            Step("There is no real solution; the solutions are complex.", "没有实数解；解为复数。")
        )
    elif len(real) < len(roots) and all(root.is_number for root in roots):
        notes.append(
            Step(f"{len(real)} of the solutions are real.", f"其中 {len(real)} 个为实数解。")
        )
    long = numeric or any(sp.count_ops(root) > LONG for root in roots)
    shown = [decimal(root, 12) or plain(root) if long else plain(root) for root in roots]
    tex = shown if long else [latex(root) for root in roots]
    sign = r"\approx" if long else "="
    if len(roots) == 1:
        exact, formula = f"{name} = {shown[0]}", f"{symbol} {sign} {tex[0]}"
    else:
        exact = ", ".join(f"{name} = {text}" for text in shown)
        formula = r",\quad ".join(
            f"{symbol}_{{{i}}} {sign} {text}" if "_" not in symbol else f"{symbol} {sign} {text}"
            for i, text in enumerate(tex, 1)
        )
    decimals = [decimal(root) for root in roots]
    values = [plain(root) for root in roots] if not long else shown
    return Result(
        operation="solve",
        question=question,
        exact=exact,
        latex=formula,
        decimal=", ".join(f"{name} ≈ {d or plain(r)}" for d, r in zip(decimals, roots, strict=True))
        if any(decimals) and not long
        else None,
        values=values,
        steps=steps,
        notes=notes,
        check=check,
    )


def _substituted(difference: Expr, symbol: Expr, roots: list[Expr], numeric: bool) -> Check | None:
    if not roots:
        return None
    for root in roots:
        rest = difference.subs(symbol, root)
        try:
            held = abs(complex(sp.N(rest, 30))) < (1e-8 if numeric else 1e-12)
        except (TypeError, ValueError):
            held = sp.simplify(rest) == 0
        if not held:
            return Check(
                f"putting {plain(root)[:60]} back in does not give equality",
                f"将 {plain(root)[:60]} 代回后等式不成立",
                False,
            )
    return Check(
        "every solution put back into the equation: both sides are equal",
        "将每个解代回原方程：左右两边相等",
    )


def _numeric_roots(tree: Tree, function: Expr, symbol: Expr) -> list[Expr]:
    """Roots of a real function between -100 and 100, by sign changes and bisection."""
    if function.free_symbols != {symbol}:
        raise MathsProblem(
            "SymPy finds no closed solution, and with several variables none is sought numerically",
            "SymPy 求不出解析解；含有多个变量时也无法数值求解",
        )
    difference = Operation("-", (tree.left, tree.right)) if isinstance(tree, Relation) else tree
    at = function_of(difference, str(symbol))
    grid, values = evaluated(at, -100.0, 100.0)
    found: list[Expr] = []
    for a, b, fa, fb in zip(grid, grid[1:], values, values[1:], strict=False):
        if fa == 0:
            found.append(sp.Float(a, 15))
        elif fa * fb < 0:
            try:
                root = sp.nsolve(function, symbol, (a, b), solver="anderson", prec=20)
            except (ValueError, ZeroDivisionError):
                continue
            # A change of sign at a pole is no root.
            if abs(complex(function.subs(symbol, root).evalf(15))) < 1e-6:
                found.append(sp.Float(root, 15))
        if len(found) >= 20:
            break
    if not found:
        raise MathsProblem(
            "SymPy finds no solution in closed form, and none was found between -100 and 100",
            "SymPy 求不出解析解，在 -100 到 100 之间也没有找到数值解",
        )
    return list(dict.fromkeys(found))


def _periodic(tree: Tree, name: str, question: str) -> Result | None:
    """General solutions of trigonometric equations, with a whole number n in them."""
    builder = Builder()
    left, right = _sides(tree, builder)
    symbol = builder.symbol(name)
    try:
        found = sp.solveset(left - right, symbol, sp.S.Reals)
    except (NotImplementedError, ValueError):
        return None
    families: list[Expr] = []
    for part in found.args if isinstance(found, sp.Union) else (found,):
        if not isinstance(part, sp.ImageSet):
            return None
        n = sp.Symbol("n", integer=True)
        families.append(sp.expand(part.lamda(n)))
    if not families or any(f.has(sp.im, sp.re, sp.arg) for f in families):
        return None
    n = sp.Symbol("n", integer=True)
    merged = _merged(families, n)
    held = all(
        abs(complex(sp.N((left - right).subs(symbol, f.subs(n, k))))) < 1e-10
        for f in merged
        for k in (-1, 0, 2)
    )
    return Result(
        operation="solve",
        question=question,
        exact=", ".join(f"{name} = {plain(f)}" for f in merged),
        latex=r",\quad ".join(f"{name_latex(name)} = {latex(f)}" for f in merged)
        + r"\quad (n \in \mathbb{Z})",
        values=[plain(f) for f in merged],
        steps=[
            Step(
                "The function is periodic: n is any whole number.", "函数具有周期性：n 为任意整数。"
            )
        ],
        check=Check(
            "put back for n = -1, 0 and 2: both sides are equal",
            "取 n = -1、0、2 代回检验：左右两边相等",
            held,
        ),
    )


def _merged(families: list[Expr], n: Expr) -> list[Expr]:
    """``2 pi n`` and ``2 pi n + pi`` are ``pi n``."""
    families = sorted(set(families), key=lambda f: float(sp.N(f.subs(n, 0))))
    if len(families) == 2:
        a, b = families
        period = a.coeff(n)
        if b.coeff(n) == period and sp.simplify(2 * (b - a) - period) == 0:
            return [sp.expand(period / 2 * n + a.subs(n, 0))]
    return families


def equation_steps(left: Expr, right: Expr, symbol: Expr) -> list[Step]:
    """The school way for linear and quadratic equations; factors for higher degrees."""
    difference = sp.expand(left - right)
    if not difference.is_polynomial(symbol):
        return []
    polynomial = sp.Poly(difference, symbol)
    steps = []
    if right != 0 or sp.expand(left) != left:
        steps.append(
            Step(
                "Bring everything to one side:", "移项整理：", f"{latex(polynomial.as_expr())} = 0"
            )
        )
    x = latex(symbol)
    if polynomial.degree() == 1:
        a, b = polynomial.all_coeffs()
        steps.append(
            Step("Isolate the variable:", "把变量移到一边：", f"{latex(a * symbol)} = {latex(-b)}")
        )
        steps.append(
            Step(
                f"Divide by {plain(a)}:",
                f"两边除以 {plain(a)}：",
                f"{x} = {latex(sp.simplify(-b / a))}",
            )
        )
    elif polynomial.degree() == 2:
        a, b, c = polynomial.all_coeffs()
        discriminant = sp.simplify(b**2 - 4 * a * c)
        steps.append(
            Step("Coefficients:", "系数：", f"a = {latex(a)},\\; b = {latex(b)},\\; c = {latex(c)}")
        )
        steps.append(
            Step("Discriminant:", "判别式：", rf"\Delta = b^2 - 4ac = {latex(discriminant)}")
        )
        factored = sp.factor(polynomial.as_expr())
        if factored.is_Mul or factored.is_Pow:
            steps.append(Step("It factors:", "可以因式分解：", f"{latex(factored)} = 0"))
        steps.append(
            Step(
                "Quadratic formula:",
                "求根公式：",
                rf"{x} = \frac{{-b \pm \sqrt{{\Delta}}}}{{2a}} = "
                rf"\frac{{{latex(-b)} \pm {latex(sp.sqrt(discriminant))}}}{{{latex(2 * a)}}}",
            )
        )
    elif polynomial.degree() > 2:
        factored = sp.factor(polynomial.as_expr())
        if factored.is_Mul or factored.is_Pow:
            steps.append(Step("Factor:", "因式分解：", f"{latex(factored)} = 0"))
            steps.append(
                Step("A product is 0 where a factor is 0.", "乘积为 0，则至少有一个因式为 0。")
            )
    return steps


# -- systems -------------------------------------------------------------------------------------


def _system(trees: list[Tree], names: list[str], question: str) -> Result:
    builder = Builder(real=False)
    pairs = [_sides(tree, builder) for tree in trees]
    symbols = [builder.symbol(name) for name in names]
    differences = [left - right for left, right in pairs]
    try:
        found = sp.solve(differences, symbols, dict=True)
    except NotImplementedError as error:
        raise MathsProblem(
            "SymPy knows no way to solve this system", "SymPy 无法求解这个方程组"
        ) from error
    if not found:
        return Result(
            operation="solve", question=question, exact="∅", latex=r"\varnothing",
            notes=[Step("The system has no solution.", "方程组无解。")],
        )  # fmt: skip
    rows = [{s: _tidy(solution[s]) for s in symbols if s in solution} for solution in found[:50]]
    held = all(sp.simplify(d.subs(row)) == 0 for d in differences for row in rows)
    linear = all(
        d.is_polynomial(*symbols) and sp.Poly(d, *symbols).total_degree() == 1 for d in differences
    )
    steps = _elimination(differences, symbols) if linear else []
    notes = []
    if len(rows[0]) < len(symbols):
        notes.append(Step("There are infinitely many solutions.", "方程组有无穷多解。"))
    lines = [", ".join(f"{s} = {plain(v)}" for s, v in row.items()) for row in rows]
    tex = [r",\; ".join(f"{latex(s)} = {latex(v)}" for s, v in row.items()) for row in rows]
    decimals = [
        ", ".join(f"{s} ≈ {decimal(v) or plain(v)}" for s, v in row.items()) for row in rows
    ]
    rows_latex = r" \\ ".join(tex)
    any_decimal = any(decimal(v) for row in rows for v in row.values())
    return Result(
        operation="solve",
        question=question,
        exact="; ".join(lines),
        latex=tex[0] if len(tex) == 1 else rf"\begin{{array}}{{l}} {rows_latex} \end{{array}}",
        decimal="; ".join(decimals) if any_decimal else None,
        values=lines,
        steps=steps,
        notes=notes,
        check=Check("put back into every equation: all hold", "代回每个方程检验：全部成立", held),
    )


def _elimination(differences: list[Expr], symbols: list[Expr]) -> list[Step]:
    matrix, rhs = sp.linear_eq_to_matrix(differences, *symbols)
    reduced, _ = matrix.row_join(rhs).rref()
    return [
        Step(
            "As a matrix with the right-hand sides:", "写成增广矩阵：", latex(matrix.row_join(rhs))
        ),
        Step("After elimination (reduced row echelon form):", "消元得到行最简形：", latex(reduced)),
    ]


# -- inequalities --------------------------------------------------------------------------------


def _inequality(trees: list[Tree], name: str, free: list[str], question: str) -> Result:
    if free != [name]:
        raise MathsProblem(
            f"inequalities are solved in one variable, not in {', '.join(free)[:60]}",
            f"不等式只能含一个变量，而不是 {', '.join(free)[:60]}",
        )
    builder = Builder()
    symbol = builder.symbol(name)
    answer_set: Expr = sp.S.Reals
    steps: list[Step] = []
    for tree in trees:
        left, right = _sides(tree, builder)
        if not isinstance(tree, Relation) or tree.operator == "=":
            part = sp.solveset(left - right, symbol, sp.S.Reals)
        elif tree.operator == "!=":
            part = sp.S.Reals - sp.solveset(left - right, symbol, sp.S.Reals)
        else:
            steps.extend(_critical(left, right, symbol))
            kind = {"<": sp.Lt, "<=": sp.Le, ">": sp.Gt, ">=": sp.Ge}[tree.operator]
            statement = kind(left, right)
            if isinstance(statement, BooleanAtom):
                part = sp.S.Reals if statement else sp.S.EmptySet
            else:
                try:
                    part = sp.solve_univariate_inequality(statement, symbol, relational=False)
                except NotImplementedError as error:
                    raise MathsProblem(
                        "SymPy knows no way to solve this inequality", "SymPy 无法求解这个不等式"
                    ) from error
        answer_set = answer_set.intersect(part)
    if answer_set == sp.S.EmptySet:
        return Result(
            operation="solve", question=question, exact="∅", latex=r"\varnothing", steps=steps,
            notes=[Step("There is no real solution.", "没有实数解。")],
        )  # fmt: skip
    if answer_set == sp.S.Reals:
        return Result(
            operation="solve", question=question, exact="all", steps=steps,
            latex=rf"{name_latex(name)} \in \mathbb{{R}}",
            notes=[Step(f"True for every real {name}.", f"对任意实数 {name} 都成立。")],
        )  # fmt: skip
    pieces = list(answer_set.args) if isinstance(answer_set, sp.Union) else [answer_set]
    texts = [_interval(piece, name) for piece in pieces]
    return Result(
        operation="solve",
        question=question,
        exact=" or ".join(text for text, _ in texts),
        latex=r" \;\lor\; ".join(tex for _, tex in texts),
        values=[text for text, _ in texts],
        steps=[
            *steps,
            Step("As a set:", "写成集合：", rf"{name_latex(name)} \in {latex(answer_set)}"),
        ],
        check=_inside(trees, builder, symbol, answer_set),
    )


def _critical(left: Expr, right: Expr, symbol: Expr) -> list[Step]:
    difference = sp.together(left - right)
    if not difference.is_rational_function(symbol):
        return []
    factored = sp.factor(difference)
    return [
        Step("Compare with zero:", "移项并与 0 比较：", latex(factored)),
        Step("The sign can only change at the zeros and poles.", "符号只在零点和无定义点处改变。"),
    ]


def _interval(piece: Expr, name: str) -> tuple[str, str]:
    x = name_latex(name)
    if isinstance(piece, sp.FiniteSet):
        values = sorted(piece.args, key=_order)
        return (
            " or ".join(f"{name} = {plain(v)}" for v in values),
            r" \;\lor\; ".join(f"{x} = {latex(v)}" for v in values),
        )
    if not isinstance(piece, sp.Interval):
        return f"{name} in {plain(piece)}", rf"{x} \in {latex(piece)}"
    low, high = piece.start, piece.end
    before = ("<", "<") if piece.left_open else ("<=", r"\leq")
    after = ("<", "<") if piece.right_open else ("<=", r"\leq")
    if low == -sp.oo:
        return f"{name} {after[0]} {plain(high)}", f"{x} {after[1]} {latex(high)}"
    if high == sp.oo:
        sign = (">", ">") if piece.left_open else (">=", r"\geq")
        return f"{name} {sign[0]} {plain(low)}", f"{x} {sign[1]} {latex(low)}"
    return (
        f"{plain(low)} {before[0]} {name} {after[0]} {plain(high)}",
        f"{latex(low)} {before[1]} {x} {after[1]} {latex(high)}",
    )


def _inside(trees: list[Tree], builder: Builder, symbol: Expr, found: Expr) -> Check | None:
    """Test points inside and outside the solution set."""
    relations = [builder.value(tree) for tree in trees if isinstance(tree, Relation)]
    tested = 0
    for k in range(-20, 21):
        point = sp.Rational(2 * k, 2) + sp.Rational(1, 97)
        try:
            truth = all(bool(relation.subs(symbol, point)) for relation in relations)
            member = bool(found.contains(point))
        except TypeError:
            continue
        tested += 1
        if truth != member:
            return Check(
                f"test point {point}: the inequality and the answer disagree",
                f"检验点 {point}：不等式与答案不符",
                False,
            )
    if not tested:
        return None
    return Check(
        f"{tested} test points from -20 to 20 agree with the inequality",
        f"在 -20 到 20 之间取 {tested} 个点检验，与不等式一致",
    )
