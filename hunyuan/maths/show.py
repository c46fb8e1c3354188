"""A tree of `hunyuan.maths.grammar` as LaTeX and as plain text, in the form it was written.

SymPy's printer would show what it has already simplified; people want to see their own question.
"""

from hunyuan.maths.grammar import (
    GREEK,
    Call,
    Name,
    Number,
    Operation,
    Relation,
    Sequence,
    Tree,
    is_matrix,
)

NATIVE = {
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "exp", "ln", "lg",
    "log", "det", "gcd", "min", "max", "arg",
}  # fmt: skip
ARC = {"asin": r"\arcsin", "acos": r"\arccos", "atan": r"\arctan"}
RELATIONS = {"=": "=", "!=": r"\neq", "<": "<", "<=": r"\leq", ">": ">", ">=": r"\geq"}
ATOM, POWER, PRODUCT, SUM, RELATION = 5, 4, 3, 2, 1


def latex(tree: Tree) -> str:
    """LaTeX of a tree."""
    return _latex(tree)[0]


def plain(tree: Tree) -> str:
    """Plain notation that `parse` reads back to an equal tree."""
    return _plain(tree)[0]


def name_latex(name: str) -> str:
    r"""``x1`` -> ``x_{1}``, ``alpha`` -> ``\alpha``, ``oo`` -> ``\infty``."""
    fixed = {"oo": r"\infty", "inf": r"\infty", "infinity": r"\infty", "pi": r"\pi", "I": "i"}
    if name in fixed:
        return fixed[name]
    letters = name.rstrip("0123456789")
    base = f"\\{letters}" if letters in GREEK else letters
    if letters == "lambda" or letters in GREEK or len(letters) == 1:
        return base if letters == name else f"{base}_{{{name[len(letters) :]}}}"
    return rf"\mathrm{{{name}}}"


def _within(part: tuple[str, int], least: int) -> str:
    text, strength = part
    return text if strength >= least else rf"\left({text}\right)"


def _latex(tree: Tree) -> tuple[str, int]:
    """LaTeX and how tightly it binds."""
    match tree:
        case Number(text):
            mantissa, _, exponent = text.lower().partition("e")
            if exponent:
                return rf"{mantissa} \times 10^{{{int(exponent)}}}", PRODUCT
            return text, ATOM
        case Name(name):
            return name_latex(name), ATOM
        case Relation(operator, left, right):
            return f"{latex(left)} {RELATIONS[operator]} {latex(right)}", RELATION
        case Sequence(items) if items and all(isinstance(i, Relation) for i in items):
            rows = r" \\ ".join(latex(item) for item in items)
            return rf"\begin{{cases}} {rows} \end{{cases}}", ATOM
        case Sequence(items) if is_matrix(tree):
            rows = r" \\ ".join(
                " & ".join(latex(x) for x in row.items)
                for row in items
                if isinstance(row, Sequence)
            )
            return rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}", ATOM
        case Sequence(items):
            return rf"\left[{', '.join(latex(i) for i in items)}\right]", ATOM
        case Operation(operator, operands):
            return _operation(operator, operands)
        case Call(function, arguments):
            return _call(function, arguments)


def _operation(operator: str, operands: tuple[Tree, ...]) -> tuple[str, int]:
    first = _latex(operands[0])
    if operator == "neg":
        return f"-{_within(first, PRODUCT)}", SUM
    if operator in ("!", "%", "deg"):
        sign = {"!": "!", "%": r"\%", "deg": r"^{\circ}"}[operator]
        return _within(first, ATOM) + sign, POWER
    second = _latex(operands[1])
    if operator == "+":
        return f"{first[0]} + {second[0]}", SUM
    if operator == "-":
        return f"{first[0]} - {_within(second, PRODUCT)}", SUM
    if operator == "/":
        return rf"\frac{{{first[0]}}}{{{second[0]}}}", ATOM
    if operator == "^":
        if isinstance(operands[0], Call) and operands[0].function in ("sin", "cos", "tan", "ln"):
            name, argument = operands[0].function, latex(operands[0].arguments[0])
            return rf"\{name}^{{{second[0]}}}\left({argument}\right)", POWER
        strong = (
            ATOM if not isinstance(operands[0], Operation) or operands[0].operator != "/" else 6
        )
        return f"{_within(first, strong)}^{{{second[0]}}}", POWER
    left, right = _within(first, PRODUCT), _within(second, PRODUCT)
    if isinstance(operands[1], Operation) and operands[1].operator == "neg":
        right = rf"\left({second[0]}\right)"
    digits = right[:1].isdigit() or (left[-1:].isdigit() and right.startswith(r"\frac"))
    if digits or left.endswith(r"\%"):
        return rf"{left} \times {right}", PRODUCT
    if left[-1:].isalpha() and right.startswith("\\left("):
        return rf"{left} \cdot {right}", PRODUCT
    return f"{left} {right}", PRODUCT


def _call(function: str, arguments: tuple[Tree, ...]) -> tuple[str, int]:
    parts = [latex(argument) for argument in arguments]
    first = parts[0]
    match function:
        case "sqrt":
            return rf"\sqrt{{{first}}}", ATOM
        case "cbrt":
            return rf"\sqrt[3]{{{first}}}", ATOM
        case "root":
            return rf"\sqrt[{parts[1]}]{{{first}}}", ATOM
        case "mod":
            left, right = (_within(_latex(a), POWER) for a in arguments)
            return rf"{left} \bmod {right}", PRODUCT
        case "abs":
            return rf"\left|{first}\right|", ATOM
        case "floor":
            return rf"\left\lfloor {first} \right\rfloor", ATOM
        case "ceil":
            return rf"\left\lceil {first} \right\rceil", ATOM
        case "factorial":
            return f"{_within(_latex(arguments[0]), ATOM)}!", POWER
        case "binomial":
            return rf"\binom{{{first}}}{{{parts[1]}}}", ATOM
        case "exp":
            return f"e^{{{first}}}", POWER
        case "log" if len(parts) == 2:
            return rf"\log_{{{parts[1]}}}\left({first}\right)", POWER
        case "log2" | "log10":
            return rf"\log_{{{function[3:]}}}\left({first}\right)", POWER
        case "inv":
            return f"{_within(_latex(arguments[0]), ATOM)}^{{-1}}", POWER
        case "transpose":
            return rf"{_within(_latex(arguments[0]), ATOM)}^{{\mathsf{{T}}}}", POWER
        case "conj":
            return rf"\overline{{{first}}}", ATOM
        case "integrate":
            variable = parts[1] if len(parts) > 1 else "x"
            bounds = rf"_{{{parts[2]}}}^{{{parts[3]}}}" if len(parts) == 4 else ""
            body = _within(_latex(arguments[0]), PRODUCT)
            return rf"\int{bounds} {body} \, d{variable}", PRODUCT
        case "diff":
            variable = parts[1] if len(parts) > 1 else "x"
            body = _within(_latex(arguments[0]), PRODUCT)
            if len(parts) == 3 and parts[2] != "1":
                return (
                    rf"\frac{{d^{{{parts[2]}}}}}{{d{variable}^{{{parts[2]}}}}} {body}",
                    PRODUCT,
                )
            return rf"\frac{{d}}{{d{variable}}} {body}", PRODUCT
        case "limit":
            side = {"-1": "^{-}", "+1": "^{+}", "1": "^{+}"}.get("".join(parts[3:]), "")
            body = _within(_latex(arguments[0]), PRODUCT)
            return rf"\lim_{{{parts[1]} \to {parts[2]}{side}}} {body}", PRODUCT
        case "sum" | "product":
            sign = r"\sum" if function == "sum" else r"\prod"
            body = _within(_latex(arguments[0]), PRODUCT)
            return rf"{sign}_{{{parts[1]}={parts[2]}}}^{{{parts[3]}}} {body}", PRODUCT
    name = ARC.get(function) or (
        f"\\{function}" if function in NATIVE else rf"\operatorname{{{function}}}"
    )
    return rf"{name}\left({', '.join(parts)}\right)", POWER


def _bracket(part: tuple[str, int], least: int) -> str:
    return part[0] if part[1] >= least else f"({part[0]})"


def _plain(tree: Tree) -> tuple[str, int]:
    match tree:
        case Number(text):
            return text, ATOM
        case Name(name):
            return name, ATOM
        case Relation(operator, left, right):
            return f"{plain(left)} {operator} {plain(right)}", RELATION
        case Sequence(items):
            return f"[{', '.join(plain(item) for item in items)}]", ATOM
        case Call(function, arguments):
            return f"{function}({', '.join(plain(a) for a in arguments)})", ATOM
        case Operation(operator, operands):
            first = _plain(operands[0])
            if operator == "neg":
                return f"-{_bracket(first, POWER)}", SUM
            if operator in ("!", "%", "deg"):
                sign = {"deg": "°"}.get(operator, operator)
                text = _bracket(first, ATOM) + sign
                return (f"({text})", ATOM) if operator == "%" else (text, POWER)
            second = _plain(operands[1])
            if operator in "+-":
                least = SUM if operator == "+" else PRODUCT
                return f"{first[0]} {operator} {_bracket(second, max(least, PRODUCT))}", SUM
            if operator == "^":
                return f"{_bracket(first, ATOM)}^{_bracket(second, ATOM)}", POWER
            return f"{_bracket(first, PRODUCT)}{operator}{_bracket(second, POWER)}", PRODUCT
