"""Calculation, percentages, complex numbers and number theory."""

import math
from collections.abc import Callable
from typing import Any

import sympy as sp

from hunyuan.maths.build import Builder, MathsProblem
from hunyuan.maths.grammar import (
    Call,
    Number,
    Operation,
    Tree,
    children,
    has_decimal,
    parse,
    parse_list,
    variables,
    walk,
)
from hunyuan.maths.result import Check, Result, Step, answer, decimal, latex, plain
from hunyuan.maths.show import latex as tree_latex
from hunyuan.maths.trees import with_children

Expr = Any

MAX_DIGITS = 1000
MAX_STEPS = 12


def calculate(expression: str, digits: str = "") -> Result:
    """The value of an expression, exactly and to ``digits`` digits."""
    tree = parse(expression)
    value = Builder().expression(tree)
    places = _digits(digits)
    if value.has(sp.nan, sp.zoo):
        raise MathsProblem("the expression has no defined value", "该表达式没有确定的值")
    if not variables(tree) and not isinstance(value, sp.MatrixBase):
        short = value if value.is_Rational else _shorter(value)
    else:
        short = sp.simplify(value)
    return answer(
        "calculate",
        tree_latex(tree),
        short,
        decimal=decimal(short, _shown_places(tree, short) if not digits else places),
        prefer_decimal=bool(digits)
        or _rounded(tree)
        or (has_decimal(tree) and bool(getattr(short, "is_Rational", 0))),
        steps=arithmetic_steps(tree),
        notes=[*_radians(tree), *_natural_log(tree)],
        check=_numeric_check(value, short),
    )


def _rounded(tree: Tree) -> bool:
    return isinstance(tree, Call) and tree.function == "round"


def _shown_places(tree: Tree, value: Expr) -> int:
    """Enough digits for the places that were asked for: ``round(pi, 20)``."""
    if _rounded(tree) and value.is_Rational and not value.is_Integer:
        return max(15, len(str(abs(int(value)))) + len(str(value.q)))
    return 15


def _digits(text: str) -> int:
    if not text:
        return 15
    if not text.isdigit() or not 1 <= int(text) <= MAX_DIGITS:
        raise MathsProblem(
            f"digits={text[:20]}: must be a whole number from 1 to {MAX_DIGITS}",
            f"digits={text[:20]}：必须是 1 到 {MAX_DIGITS} 的整数",
        )
    return int(text)


def _shorter(value: Expr) -> Expr:
    simple = sp.simplify(value)
    simple = sp.radsimp(sp.nsimplify(simple) if simple.is_Rational else simple)
    return simple if sp.count_ops(simple) <= sp.count_ops(value) else value


def _numeric_check(before: Expr, after: Expr) -> Check | None:
    if isinstance(before, sp.MatrixBase) or before.free_symbols or before == after:
        return None
    try:
        held = bool(abs(sp.N(before - after, 30)) < sp.Float(10) ** -20)
    except (TypeError, ValueError):
        return None
    return Check(
        "evaluated numerically before and after simplifying: equal to 20 digits",
        "化简前后分别做数值计算：20 位一致",
        held,
    )


def _radians(tree: Tree) -> list[Step]:
    """A word of warning where a trigonometric function takes a plain whole number such as 30."""
    for node in walk(tree):
        if isinstance(node, Call) and node.function in ("sin", "cos", "tan", "cot", "sec", "csc"):
            argument = node.arguments[0]
            if isinstance(argument, Number) and float(argument.text) >= 10:
                return [
                    Step(
                        f"The angle {argument.text} is in radians; write {argument.text}° for "
                        "degrees.",
                        f"角 {argument.text} 按弧度计算；若为角度请写作 {argument.text}°。",
                    )
                ]
    return []


def _natural_log(tree: Tree) -> list[Step]:
    if any(
        isinstance(n, Call) and n.function == "log" and len(n.arguments) == 1 for n in walk(tree)
    ):
        return [
            Step(
                "log without a base is the natural logarithm; write lg for base 10.",
                "不写底数的 log 按自然对数计算；以 10 为底请写 lg。",
            )
        ]
    return []


# -- the working of an arithmetic expression, one level of operations at a time -------------------


def arithmetic_steps(tree: Tree) -> list[Step]:
    """``2 + 3 * 4`` -> ``2 + 12`` -> ``14``; nothing for expressions with names or functions."""
    if any(not isinstance(node, (Number, Operation)) for node in walk(tree)):
        return []
    steps: list[Step] = []
    for _ in range(MAX_STEPS):
        if _leaf(tree):
            return steps
        common = _common_denominator(tree)
        if common is not None:
            steps.append(
                Step("Bring the fractions to a common denominator:", "通分：", tree_latex(common))
            )
        reduced, operators = _reduced(tree)
        if reduced == tree:
            return steps  # a value too long to write out
        en, zh = _named(operators)
        steps.append(Step(en, zh, f"= {tree_latex(reduced)}"))
        tree = reduced
    return steps


def _named(operators: set[str]) -> tuple[str, str]:
    names = {
        "^": ("Powers", "先算乘方"), "!": ("Factorials", "计算阶乘"),
        "*": ("Multiply", "计算乘法"), "/": ("Divide", "计算除法"),
        "+": ("Add", "计算加法"), "-": ("Subtract", "计算减法"),
        "%": ("Percent is a hundredth", "百分数化为分数"), "neg": ("Sign", "处理符号"),
 "deg": ("Degrees to radians", "角度化为弧度"),
    }  # fmt: skip
    found = [names[o] for o in names if o in operators]
    return ", ".join(en for en, _ in found) + ":", "，".join(zh for _, zh in found) + "："


def _leaf(tree: Tree) -> bool:
    if isinstance(tree, Number):
        return True
    if isinstance(tree, Operation) and tree.operator == "neg":
        return _leaf(tree.operands[0])
    if isinstance(tree, Operation) and tree.operator == "/":
        parts = tree.operands
        if all(isinstance(p, Number) and p.text.isdigit() for p in parts):
            p, q = (int(part.text) for part in parts if isinstance(part, Number))
            return q > 1 and math.gcd(p, q) == 1
    return False


def _reduced(tree: Tree) -> tuple[Tree, set[str]]:
    """The tree with every operation on plain values carried out, and which operators those were."""
    if _leaf(tree):
        return tree, set()
    parts = children(tree)
    if isinstance(tree, Operation) and all(_leaf(part) for part in parts):
        value = Builder().expression(tree)
        if value.is_Rational and abs(value.p) < 10**40:
            return _as_tree(value, has_decimal(tree)), {tree.operator}
        return tree, set()
    done = [_reduced(part) for part in parts]
    return with_children(tree, tuple(t for t, _ in done)), set().union(*(o for _, o in done))


def _as_tree(value: Expr, decimals: bool) -> Tree:
    if value < 0:
        return Operation("neg", (_as_tree(-value, decimals),))
    if value.is_Integer:
        return Number(str(value))
    places = decimal(value, 15)
    if decimals and places is not None and sp.Rational(places) == value:
        return Number(places)
    return Operation("/", (Number(str(value.p)), Number(str(value.q))))


def _common_denominator(tree: Tree) -> Tree | None:
    """``3/4 + 1/6`` as ``9/12 + 2/12``."""
    if not isinstance(tree, Operation) or tree.operator not in ("+", "-"):
        return None
    pairs = []
    for part in tree.operands:
        if not isinstance(part, Operation) or part.operator != "/" or not _leaf(part):
            return None
        pairs.append([int(p.text) for p in part.operands if isinstance(p, Number)])
    (a, b), (c, d) = pairs
    if b == d:
        return None
    common = math.lcm(b, d)
    scaled = [
        Operation("/", (Number(str(n * common // m)), Number(str(common))))
        for n, m in ((a, b), (c, d))
    ]
    return Operation(tree.operator, tuple(scaled))


# -- percentages ---------------------------------------------------------------------------------


def percent(action: str, a: str, b: str = "") -> Result:
    """``of``: a % of b. ``what``: a is how many % of b. ``change``: from a to b, in %.
    ``increase``, ``decrease``: a by b %. ``whole``: a is b % of what."""
    x, y = (_real(text) for text in (a, b))
    if action in ("what", "change", "whole"):
        below = {"what": y, "change": x, "whole": y}[action]
        if below == 0:
            raise MathsProblem("a percentage of 0 is not defined", "不能以 0 为基数计算百分比")
    value, formula = {
        "of": lambda: (x * y / 100, rf"{latex(x)}\% \times {latex(y)}"),
        "what": lambda: (x / y * 100, rf"\frac{{{latex(x)}}}{{{latex(y)}}} \times 100\%"),
        "change": lambda: (
            (y - x) / x * 100,
            rf"\frac{{{latex(y)} - {latex(x)}}}{{{latex(x)}}} \times 100\%",
        ),
        "increase": lambda: (
            x * (1 + y / 100),
            rf"{latex(x)} \times \left(1 + {latex(y)}\%\right)",
        ),
        "decrease": lambda: (
            x * (1 - y / 100),
            rf"{latex(x)} \times \left(1 - {latex(y)}\%\right)",
        ),
        "whole": lambda: (x / (y / 100), rf"\frac{{{latex(x)}}}{{{latex(y)}\%}}"),
    }[action]()
    sign = "%" if action in ("what", "change") else ""
    shown = decimal(value) or plain(value)
    steps = [
        Step("Percent means hundredths:", "百分数就是百分之几：", formula),
        Step(
            "Computed:",
            "计算得：",
            f"= {latex(value)}{chr(92) + sign if sign else ''}"
            + (rf" \approx {shown}{chr(92) + sign if sign else ''}" if decimal(value) else ""),
        ),
    ]
    return Result(
        operation="percent",
        question=formula,
        exact=plain(value) + sign,
        latex=latex(value) + (rf"\{sign}" if sign else ""),
        decimal=shown + sign if decimal(value) else None,
        prefer_decimal=decimal(value) is not None,
        values=[plain(value)],
        steps=steps,
    )


def _real(text: str) -> Expr:
    value = Builder().expression(parse(text.rstrip("%"))) if text else None
    if value is None or not value.is_real or not value.is_number:
        raise MathsProblem(f"{text[:40]!r} is not a number", f"{text[:40]!r} 不是数")
    return value


# -- complex numbers -----------------------------------------------------------------------------


def complex_number(action: str, expression: str) -> Result:
    """Modulus, argument, conjugate, parts or polar form."""
    tree = parse(expression)
    z = sp.simplify(Builder().expression(tree))
    shown = tree_latex(tree)
    real, imaginary = (sp.simplify(part) for part in z.as_real_imag())
    parts = Step(
        "Real and imaginary part:",
        "实部与虚部：",
        rf"\operatorname{{Re}} = {latex(real)},\quad \operatorname{{Im}} = {latex(imaginary)}",
    )
    value, question, rule = _complex_parts(action, z, shown, real, imaginary)
    argument = sp.simplify(sp.arg(z)) if z != 0 else sp.Integer(0)
    modulus = sp.simplify(sp.sqrt(real**2 + imaginary**2))
    steps = [parts, *([Step("Definition:", "定义：", rule)] if rule else [])]
    if action == "polar":
        text = rf"{latex(modulus)} \, e^{{{latex(argument)} i}}"
        exact = f"{plain(modulus)}*e^({plain(argument)}*i)"
        return answer("complex", question, z, steps=steps, latex=text, exact=exact)
    return answer("complex", question, value, steps=steps)


def _complex_parts(
    action: str, z: Expr, shown: str, real: Expr, imaginary: Expr
) -> tuple[Expr, str, str]:
    """(value, question, definition) of one action."""
    match action:
        case "modulus":
            size = sp.simplify(sp.sqrt(real**2 + imaginary**2))
            return size, rf"\left|{shown}\right|", r"|a+bi| = \sqrt{a^2+b^2}"
        case "argument":
            if z == 0:
                raise MathsProblem("0 has no argument", "0 没有辐角")
            definition = r"\arg(a+bi) = \operatorname{atan2}(b, a)"
            return sp.simplify(sp.arg(z)), rf"\arg\left({shown}\right)", definition
        case "conjugate":
            definition = r"\overline{a+bi} = a-bi"
            return real - sp.I * imaginary, rf"\overline{{{shown}}}", definition
        case "real":
            return real, rf"\operatorname{{Re}}\left({shown}\right)", ""
        case "imaginary":
            return imaginary, rf"\operatorname{{Im}}\left({shown}\right)", ""
        case _:
            definition = r"z = r\left(\cos\varphi + i\sin\varphi\right) = r e^{i\varphi}"
            return z, shown, definition


# -- number theory -------------------------------------------------------------------------------


def number_theory(action: str, numbers: str) -> Result:
    """Divisors, primes, common factors and bases of whole numbers."""
    if action == "from_base":
        return _from_base(numbers)
    values = [_integer(tree) for tree in parse_list(numbers.strip("[] "))]
    listed = ", ".join(str(v) for v in values)
    functions: dict[str, tuple[int, Callable[..., Result]]] = {
        "gcd": (0, _gcd),
        "lcm": (0, _lcm),
        "factorize": (1, _factorize),
        "is_prime": (1, _is_prime),
        "divisors": (1, _divisors),
        "primes": (2, _primes),
        "next_prime": (1, _next_prime),
        "nth_prime": (1, _nth_prime),
        "base": (2, _base),
        "euler_phi": (1, _euler_phi),
        "modular_inverse": (2, _modular_inverse),
    }
    count, function = functions[action]
    if action == "primes" and len(values) == 1:
        values = [2, values[0]]
    if count and len(values) != count:
        raise MathsProblem(
            f"{action} takes {count} whole numbers, not {len(values)} ({listed[:60]})",
            f"{action} 需要 {count} 个整数，而不是 {len(values)} 个（{listed[:60]}）",
        )
    return function(*values)


def _integer(tree: Tree) -> int:
    value = Builder().expression(tree)
    if not value.is_Integer or abs(value) > 10**100:
        raise MathsProblem(
            f"whole numbers of at most 100 digits are needed, not {plain(value)[:40]}",
            f"需要不超过 100 位的整数，而不是 {plain(value)[:40]}",
        )
    return int(value)


def _natural(n: int, least: int = 1, most: int = 10**100) -> None:
    if not least <= n <= most:
        raise MathsProblem(
            f"{n} is outside what this works for ({least} to {most})"[:200],
            f"{n} 超出可计算的范围（{least} 到 {most}）"[:200],
        )


def _factors_latex(n: int) -> str:
    parts = [str(p) if k == 1 else f"{p}^{{{k}}}" for p, k in sorted(sp.factorint(n).items())]
    return r" \times ".join(parts) or "1"


def _gcd(*values: int) -> Result:
    steps: list[Step] = []
    if len(values) == 2 and 0 not in values:
        a, b = (abs(v) for v in values)
        while b and len(steps) < 30:
            steps.append(
                Step(
                    "Divide with remainder:", "辗转相除：", rf"{a} = {a // b} \times {b} + {a % b}"
                )
            )
            a, b = b, a % b
    value = math.gcd(*values)
    check = Check(
        f"{value} divides each of them",
        f"{value} 整除每个数",
        all(value and v % value == 0 for v in values),
    )
    question = rf"\gcd\left({', '.join(map(str, values))}\right)"
    return answer("number", question, sp.Integer(value), steps=steps, check=check)


def _lcm(*values: int) -> Result:
    for value in values:
        _natural(abs(value), 1, 10**15)
    steps = [
        Step(f"Factors of {v}:", f"{v} 的质因数分解：", f"{v} = {_factors_latex(abs(v))}")
        for v in values
    ]
    steps.append(Step("Take each prime with its highest power.", "取每个质因数的最高次幂相乘。"))
    value = math.lcm(*values)
    question = rf"\operatorname{{lcm}}\left({', '.join(map(str, values))}\right)"
    check = Check("every number divides it", "每个数都整除它", all(value % v == 0 for v in values))
    return answer("number", question, sp.Integer(value), steps=steps, check=check)


def _factorize(n: int) -> Result:
    _natural(abs(n))
    factors = sp.factorint(abs(n))
    sign = "-" if n < 0 else ""
    exact = sign + (
        "*".join(f"{p}^{k}" if k > 1 else str(p) for p, k in sorted(factors.items())) or "1"
    )
    steps: list[Step] = []
    rest = abs(n)
    for p, k in sorted(factors.items()):
        for _ in range(min(k, 20)):
            if len(steps) < 20 and rest != p:
                steps.append(
                    Step(f"Divide by {p}:", f"除以 {p}：", rf"{rest} = {p} \times {rest // p}")
                )
            rest //= p
    product = math.prod(p**k for p, k in factors.items())
    return Result(
        operation="number",
        question=str(n),
        exact=exact,
        latex=sign + _factors_latex(abs(n)),
        steps=steps,
        check=Check("the factors multiply back", "各因数相乘还原", product == abs(n)),
    )


def _is_prime(n: int) -> Result:
    _natural(n, 0)
    if sp.isprime(n):
        note = Step(f"{n} is a prime number.", f"{n} 是质数。")
        exact, shown = "true", rf"{n} \in \mathbb{{P}}"
    else:
        least = min(sp.factorint(n, limit=10**6)) if n > 1 else None
        why = f": {n} = {least} × {n // least}" if least and least != n else ""
        note = Step(f"{n} is not a prime number{why}.", f"{n} 不是质数{why.replace(': ', '：')}。")
        exact, shown = "false", rf"{n} \notin \mathbb{{P}}"
    return Result(
        operation="number", question=str(n), exact=exact, latex=shown, steps=[note], notes=[note]
    )


def _divisors(n: int) -> Result:
    _natural(n, 1, 10**15)
    found = sp.divisors(n)
    steps = [Step("Prime factors:", "质因数分解：", f"{n} = {_factors_latex(n)}")]
    steps.append(Step(f"{len(found)} divisors.", f"共 {len(found)} 个约数。"))
    return _listing(str(n), found, steps)


def _primes(low: int, high: int) -> Result:
    _natural(high, 1, 100_000)
    found = list(sp.primerange(max(low, 2), high + 1))
    steps = [
        Step(
            f"{len(found)} primes from {low} to {high}.",
            f"{low} 到 {high} 之间共有 {len(found)} 个质数。",
        )
    ]
    return _listing(rf"{low} \le p \le {high}", found, steps)


def _listing(question: str, found: list[int], steps: list[Step]) -> Result:
    text = ", ".join(map(str, found))
    shown = text if len(found) <= 200 else ", ".join(map(str, found[:200])) + ", …"
    return Result(
        operation="number",
        question=question,
        exact=text[:6000],
        latex=shown.replace(", ", r",\, "),
        values=[str(v) for v in found[:2000]],
        steps=steps,
    )


def _next_prime(n: int) -> Result:
    _natural(n, 0, 10**40)
    value = sp.Integer(sp.nextprime(n))
    return answer(
        "number",
        rf"p > {n}",
        value,
        steps=[Step(f"The least prime above {n}.", f"大于 {n} 的最小质数。")],
    )


def _nth_prime(n: int) -> Result:
    _natural(n, 1, 100_000)
    return answer("number", f"p_{{{n}}}", sp.Integer(sp.prime(n)))


def _base(n: int, base: int) -> Result:
    _natural(base, 2, 36)
    signs = "0123456789abcdefghijklmnopqrstuvwxyz"
    digits, rest = "", abs(n)
    steps: list[Step] = []
    while rest or not digits:
        if len(steps) < 40:
            steps.append(
                Step(
                    "Divide:",
                    "除以底数取余：",
                    rf"{rest} = {rest // base} \times {base} + {rest % base}",
                )
            )
        digits, rest = signs[rest % base] + digits, rest // base
    text = ("-" if n < 0 else "") + digits
    return Result(
        operation="number",
        question=f"{n}_{{(10)}}",
        exact=text,
        latex=rf"\mathtt{{{text}}}_{{({base})}}",
        steps=steps,
        check=Check("read back to the same number", "还原后与原数相同", int(text, base) == n),
    )


def _from_base(text: str) -> Result:
    digits, _, base_text = (part.strip() for part in text.partition(","))
    base = int(base_text) if base_text.isdigit() else 0
    _natural(base, 2, 36)
    try:
        if len(digits) > 200:
            raise ValueError
        value = int(digits, base)
    except ValueError as error:
        raise MathsProblem(
            f"{digits[:40]!r} is not a number in base {base}",
            f"{digits[:40]!r} 不是 {base} 进制数",
        ) from error
    terms = [
        rf"{int(digit, base)} \times {base}^{{{k}}}"
        for k, digit in zip(range(len(digits) - 1, -1, -1), digits, strict=True)
        if digit not in "0-+_"
    ]
    steps = [Step("Place values:", "按位展开：", " + ".join(terms[:40]) + f" = {value}")]
    question = rf"\mathtt{{{digits.replace('_', '')}}}_{{({base})}}"
    return answer("number", question, sp.Integer(value), steps=steps)


def _euler_phi(n: int) -> Result:
    _natural(n, 1, 10**30)
    steps = [Step("Prime factors:", "质因数分解：", f"{n} = {_factors_latex(n)}")]
    return answer("number", rf"\varphi({n})", sp.Integer(sp.totient(n)), steps=steps)


def _modular_inverse(a: int, m: int) -> Result:
    _natural(m, 2)
    if math.gcd(a, m) != 1:
        raise MathsProblem(
            f"{a} has no inverse modulo {m}: they have the common factor {math.gcd(a, m)}",
            f"{a} 模 {m} 没有逆元：两者有公因数 {math.gcd(a, m)}",
        )
    value = pow(a, -1, m)
    check = Check("multiplied back: 1", "相乘取余得 1", a * value % m == 1)
    return answer("number", rf"{a}^{{-1}} \bmod {m}", sp.Integer(value), check=check)
