"""The notation of mathematics as people type it, read into a tree that can hold nothing else.

    ``2x^2 - 5x + 1 = 0``  ``sin^2 x + |y|``  ``5! / (3! 2!)``  ``15% * 240``  ``[[1, 2], [3, 4]]``

There is no evaluation of text anywhere: the tree knows numbers, names, a closed list of functions,
operators, relations and lists. `hunyuan.maths.build` makes SymPy objects of it, and
`hunyuan.maths.numeric` evaluates it on arrays. Reading costs time linear in the text, whose size,
nesting and numbers are limited here.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from hunyuan.errors import UsageError

MAX_CHARACTERS = 1000
MAX_NODES = 600
MAX_DEPTH = 40
MAX_DIGITS = 200


class SyntaxProblem(UsageError):
    """The text is not mathematics in this notation, or larger than is read."""


@dataclass(frozen=True, slots=True)
class Number:
    """A literal such as ``3``, ``0.25`` or ``1e-3``, as it was written."""

    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """A variable or a constant."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function of `FUNCTIONS` with its arguments."""

    function: str
    arguments: tuple["Tree", ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """``+ - * / ^`` of two operands, or ``neg ! % deg`` of one."""

    operator: str
    operands: tuple["Tree", ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """``left = right``; the operator is one of ``= != < <= > >=``."""

    operator: str
    left: "Tree"
    right: "Tree"


@dataclass(frozen=True, slots=True)
class Sequence:
    """``[1, 2, 3]``; a sequence of sequences is a matrix."""

    items: tuple["Tree", ...]


Tree = Number | Name | Call | Operation | Relation | Sequence

# Name -> fewest and most arguments.
FUNCTIONS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(
        [
            *("sin", "cos", "tan", "cot", "sec", "csc"),
            *("asin", "acos", "atan", "acot", "asec", "acsc"),
            *("sinh", "cosh", "tanh", "coth", "sech", "csch", "asinh", "acosh", "atanh"),
            *("sqrt", "cbrt", "exp", "ln", "lg", "log2", "log10", "abs", "sign"),
            *("floor", "ceil", "factorial", "gamma", "erf", "zeta", "fibonacci", "prime"),
            *("re", "im", "conj", "arg", "det", "inv", "transpose", "rank", "trace"),
        ],
        (1, 1),
    ),
    "log": (1, 2),
    "round": (1, 2),
    "root": (2, 2),
    "atan2": (2, 2),
    "binomial": (2, 2),
    "permutations": (2, 2),
    "mod": (2, 2),
    "gcd": (2, 50),
    "lcm": (2, 50),
    "min": (1, 50),
    "max": (1, 50),
    "integrate": (1, 4),
    "diff": (1, 3),
    "limit": (3, 4),
    "sum": (4, 4),
    "product": (4, 4),
}
ALIASES = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec",
    "arccsc": "acsc", "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "arcsinh": "asinh",
    "arccosh": "acosh", "arctanh": "atanh", "tg": "tan", "ctg": "cot", "cosec": "csc",
    "arctg": "atan", "sh": "sinh", "ch": "cosh", "th": "tanh", "sgn": "sign", "Abs": "abs",
    "ceiling": "ceil", "nCr": "binomial", "choose": "binomial", "nPr": "permutations",
    "conjugate": "conj", "determinant": "det", "inverse": "inv", "integral": "integrate",
    "derivative": "diff", "lim": "limit", "summation": "sum", "prod": "product", "Mod": "mod",
    "Sum": "sum", "Integral": "integrate", "Derivative": "diff", "fib": "fibonacci",
    "GCD": "gcd", "LCM": "lcm", "Gamma": "gamma", "int": "integrate",
}  # fmt: skip
CONSTANTS = {"pi", "e", "E", "i", "I", "oo", "inf", "infinity"}
GREEK = {
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    "Delta", "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega",
}  # fmt: skip
GREEK_LETTERS = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta",
    "η": "eta", "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu",
    "ξ": "xi", "ρ": "rho", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi",
    "ψ": "psi", "ω": "omega", "ϵ": "epsilon", "ϕ": "phi", "ϑ": "theta", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
# Functions that are also letters of the Greek alphabet are letters unless an argument follows.
BOTH = {"gamma", "zeta"}
CALL_ONLY = {"integrate", "diff", "limit", "sum", "product", "min", "max", "gcd", "lcm", "mod"}

RELATIONS = {"=", "==", "!=", "<", "<=", ">", ">="}
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿˣ", "0123456789+-nx", strict=True))
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
SYMBOLS = str.maketrans(
    {
        "×": "*", "·": "*", "⋅": "*", "∙": "*", "•": "*", "✕": "*", "✖": "*", "∗": "*",
        "÷": "/", "∕": "/", "⁄": "/", "−": "-", "–": "-", "—": "-", "﹣": "-", "‐": "-",
        "≤": "<=", "≥": ">=", "≦": "<=", "≧": ">=", "⩽": "<=", "⩾": ">=", "≠": "!=",
        "π": " pi ", "∞": " oo ", "【": "[", "】": "]", "｛": "(", "｝": ")", "、": ",", "；": ";",
        "，": ",", "（": "(", "）": ")", "：": ":", "。": " ", "∑": "sum", "∏": "product",
        "{": "(", "}": ")", "℃": "°", "º": "°", "˚": "°", "\u200b": "", "\ufeff": "",
    }
)  # fmt: skip

TOKEN = re.compile(
    r"(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4}(?![A-Za-z0-9.]))?)"
    r"|(?P<name>[A-Za-z]+(?:_?[0-9]+)?|√|∛)"
    r"|(?P<operator>\*\*|==|!=|<=|>=|=<|=>|//|[-+*/^%!=<>|(),;\[\]°])"
    r"|(?P<space>\s+)"
)
EXPONENT = re.compile(f"[{''.join(SUPERSCRIPTS)}]+")

ADD, TIMES, NEGATE, POWER, POSTFIX = 10, 20, 24, 40, 50


def normalise(text: str) -> str:
    """Full-width forms, typographic operators, superscripts and Greek letters as ASCII."""
    text = EXPONENT.sub(lambda m: "^(" + "".join(SUPERSCRIPTS[c] for c in m[0]) + ")", text)
    text = text.translate(SYMBOLS).translate(SUBSCRIPTS)
    text = unicodedata.normalize("NFKC", text).translate(SYMBOLS)
    return "".join(f" {GREEK_LETTERS[c]} " if c in GREEK_LETTERS else c for c in text)


def parse(text: str) -> Tree:
    """The tree of one expression, relation, list or matrix.

    Raises `SyntaxProblem`, which says where and what.
    """
    items = parse_list(text)
    if len(items) != 1:
        raise SyntaxProblem(
            f"one expression is expected here, not {len(items)}: {_shown(text)}",
            f"此处只能有一个表达式，而不是 {len(items)} 个：{_shown(text)}",
        )
    return items[0]


@lru_cache(maxsize=256)
def parse_list(text: str) -> tuple[Tree, ...]:
    """The trees of expressions separated by ``,`` or ``;``."""
    if len(text) > MAX_CHARACTERS:
        raise SyntaxProblem(
            f"the expression has {len(text)} characters; at most {MAX_CHARACTERS} are read",
            f"表达式有 {len(text)} 个字符，最多读取 {MAX_CHARACTERS} 个",
        )
    return _Parser(text).whole()


def variables(tree: Tree) -> list[str]:
    """The free names of a tree, constants and bound variables aside, in alphabetical order."""
    return sorted(_free(tree))


def is_matrix(tree: Tree) -> bool:
    """Whether a tree is written as a matrix: a list of lists of one length."""
    return (
        isinstance(tree, Sequence)
        and bool(tree.items)
        and all(isinstance(row, Sequence) for row in tree.items)
        and len({len(row.items) for row in tree.items if isinstance(row, Sequence)}) == 1
    )


def has_decimal(tree: Tree) -> bool:
    """Whether a number with a decimal point occurs: the answer is then wanted as a decimal."""
    return any(isinstance(n, Number) and not n.text.isdigit() for n in walk(tree))


def walk(tree: Tree) -> list[Tree]:
    """All nodes, the root first."""
    found, todo = [], [tree]
    while todo:
        node = todo.pop()
        found.append(node)
        todo.extend(children(node))
    return found


def children(tree: Tree) -> tuple[Tree, ...]:
    """The parts of a node."""
    match tree:
        case Call(_, arguments):
            return arguments
        case Operation(_, operands):
            return operands
        case Relation(_, left, right):
            return (left, right)
        case Sequence(items):
            return items
        case _:
            return ()


BINDERS = ("integrate", "sum", "product", "limit")


def _free(tree: Tree) -> set[str]:
    if isinstance(tree, Name):
        return set() if tree.name in CONSTANTS else {tree.name}
    if isinstance(tree, Call) and tree.function in BINDERS and len(tree.arguments) >= 3:
        body, bound, *rest = tree.arguments
        inner = _free(body) - ({bound.name} if isinstance(bound, Name) else set())
        return inner.union(*(_free(part) for part in rest))
    return set().union(*(_free(part) for part in children(tree)))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, operator, end
    text: str
    start: int
    spaced: bool  # white space stands before it


class _Parser:
    """Operator precedence by recursive descent; `_depth` and `_nodes` bound the work."""

    def __init__(self, text: str) -> None:
        self._text = normalise(text)
        self._tokens = self._scan()
        self._at = 0
        self._depth = 0
        self._nodes = 0
        self._bars = 0

    def whole(self) -> tuple[Tree, ...]:
        items = [self._relation()]
        while self._now.text in (",", ";"):
            self._step()
            if self._now.kind == "end":
                break
            items.append(self._relation())
        if self._now.kind != "end":
            raise self._unexpected()
        return tuple(items)

    # -- tokens ---------------------------------------------------------------------------------

    def _scan(self) -> list[_Token]:
        tokens: list[_Token] = []
        at, spaced = 0, False
        while at < len(self._text):
            found = TOKEN.match(self._text, at)
            if found is None:
                character = self._text[at]
                raise SyntaxProblem(
                    f"{character!r} is not part of the notation (in {_shown(self._text)})",
                    f"{character!r} 不是可用的数学记号（位于 {_shown(self._text)}）",
                )
            kind = found.lastgroup or ""
            if kind == "space":
                spaced = True
            elif kind == "name":
                tokens.extend(self._names(found[0], at, spaced))
                spaced = False
            else:
                if kind == "number" and sum(c.isdigit() for c in found[0]) > MAX_DIGITS:
                    raise SyntaxProblem(
                        f"a number of more than {MAX_DIGITS} digits is not read",
                        f"不读取超过 {MAX_DIGITS} 位的数字",
                    )
                text = {"=<": "<=", "=>": ">=", "==": "=", "**": "^"}.get(found[0], found[0])
                tokens.append(_Token(kind, text, at, spaced))
                spaced = False
            at = found.end()
        tokens.append(_Token("end", "", at, True))
        return tokens

    def _names(self, word: str, at: int, spaced: bool) -> list[_Token]:
        pieces = _split(word)
        if pieces is None:
            raise SyntaxProblem(
                f"{word[:40]!r} is neither a known function nor a variable of one letter",
                f"{word[:40]!r} 既不是已知函数，也不是单字母变量",
            )
        return [
            _Token("number" if piece.isdigit() else "name", piece, at, spaced and index == 0)
            for index, piece in enumerate(pieces)
        ]

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _step(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _take(self, text: str) -> None:
        if self._now.text != text:
            raise self._unexpected(text)
        self._at += 1

    def _unexpected(self, wanted: str = "") -> SyntaxProblem:
        token = self._now
        if token.kind == "end":
            return SyntaxProblem(
                f"the expression ends too early: {_shown(self._text)}"
                + (f"; {wanted!r} is missing" if wanted else ""),
                f"表达式不完整：{_shown(self._text)}" + (f"；缺少 {wanted!r}" if wanted else ""),
            )
        return SyntaxProblem(
            f"{token.text!r} at position {token.start + 1} does not fit in {_shown(self._text)}",
            f"第 {token.start + 1} 个字符 {token.text!r} 放在这里不合语法：{_shown(self._text)}",
        )

    # -- the grammar ----------------------------------------------------------------------------

    def _made(self, tree: Tree) -> Tree:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise SyntaxProblem(
                f"the expression has more than {MAX_NODES} parts",
                f"表达式的组成部分超过 {MAX_NODES} 个",
            )
        return tree

    def _relation(self) -> Tree:
        left = self._expression(0)
        relations: list[Tree] = []
        while self._now.text in RELATIONS:
            operator = self._step().text
            right = self._expression(0)
            relations.append(self._made(Relation(operator, left, right)))
            left = right
        if not relations:
            return left
        # A chain such as 1 < x < 3 is all of its links.
        return relations[0] if len(relations) == 1 else Sequence(tuple(relations))

    def _expression(self, binding: int) -> Tree:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SyntaxProblem(
                f"the expression is nested more than {MAX_DEPTH} deep",
                f"表达式的嵌套超过 {MAX_DEPTH} 层",
            )
        left = self._prefix()
        while (taken := self._infix(left, binding)) is not None:
            left = taken
        self._depth -= 1
        return left

    def _infix(self, left: Tree, binding: int) -> Tree | None:
        token = self._now
        text = token.text
        if text in ("!", "°") or (text == "%" and self._percent_sign()):
            if binding >= POSTFIX:
                return None
            self._step()
            operator = {"!": "!", "°": "deg", "%": "%"}[text]
            return self._made(Operation(operator, (left,)))
        if text == "^":
            if binding >= POWER:
                return None
            self._step()
            return self._made(Operation("^", (left, self._expression(NEGATE))))
        if text in ("*", "/", "%", "//"):
            if binding >= TIMES:
                return None
            self._step()
            right = self._expression(TIMES)
            if text == "//":
                quotient = self._made(Operation("/", (left, right)))
                return self._made(Call("floor", (quotient,)))
            if text == "%":
                return self._made(Call("mod", (left, right)))
            return self._made(Operation(text, (left, right)))
        if text in ("+", "-"):
            if binding >= ADD:
                return None
            self._step()
            return self._made(Operation(text, (left, self._expression(ADD))))
        if self._operand_follows(left):
            if binding >= TIMES:
                return None
            return self._made(Operation("*", (left, self._expression(TIMES))))
        return None

    def _percent_sign(self) -> bool:
        """``15%`` and ``15% * 240`` against ``7 % 3``: a remainder has an operand after it."""
        after = self._tokens[self._at + 1]
        return after.kind not in ("number", "name") and after.text not in ("(", "√")

    def _operand_follows(self, left: Tree) -> bool:
        token = self._now
        if token.kind == "number":
            return not isinstance(left, Number)
        if token.kind == "name" or token.text == "(":
            return True
        return token.text == "|" and self._bars == 0

    def _prefix(self) -> Tree:
        token = self._now
        if token.kind == "number":
            self._step()
            return self._made(Number(token.text))
        if token.kind == "name":
            self._step()
            return self._named(token)
        if token.text in ("-", "+"):
            self._step()
            operand = self._expression(NEGATE)
            return operand if token.text == "+" else self._made(Operation("neg", (operand,)))
        if token.text == "(":
            self._step()
            bars, self._bars = self._bars, 0
            inner = self._relation()
            self._bars = bars
            self._take(")")
            return inner
        if token.text == "|":
            self._step()
            self._bars += 1
            inner = self._expression(0)
            self._bars -= 1
            self._take("|")
            return self._made(Call("abs", (inner,)))
        if token.text == "[":
            return self._sequence()
        raise self._unexpected()

    def _sequence(self) -> Tree:
        self._take("[")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SyntaxProblem("lists are nested too deeply", "列表嵌套过深")
        rows: list[list[Tree]] = [[]]
        while self._now.text != "]":
            rows[-1].append(self._relation())
            if self._now.text == ";":
                rows.append([])
                self._step()
            elif self._now.text == ",":
                self._step()
            elif self._now.kind == "number":
                continue  # [1 2; 3 4]
            elif self._now.text != "]":
                raise self._unexpected("]")
        self._take("]")
        self._depth -= 1
        if len(rows) > 1:
            return self._made(Sequence(tuple(self._made(Sequence(tuple(r))) for r in rows if r)))
        return self._made(Sequence(tuple(rows[0])))

    def _named(self, token: _Token) -> Tree:
        if token.text in ("√", "∛"):
            function = "sqrt" if token.text == "√" else "cbrt"
            return self._made(Call(function, (self._expression(POWER - 1),)))
        name = ALIASES.get(token.text, token.text)
        opens = self._now.text == "("
        if name.startswith("log_"):
            inner = self._call("log")
            return _with_base(inner, Number(name[4:]))
        if opens and name in ("f", "g", "h") and not self._now.spaced:
            raise SyntaxProblem(
                f"the function {name} is not defined; write out its expression",
                f"函数 {name} 没有定义；请直接写出它的表达式",
            )
        if name in FUNCTIONS and (opens or name not in BOTH | CALL_ONLY):
            return self._call(name)
        if name in CALL_ONLY:
            raise self._unexpected("(")
        if name in ("C", "P", "A") and opens and self._two_arguments():
            return self._call("binomial" if name == "C" else "permutations")
        return self._made(Name(name))

    def _two_arguments(self) -> bool:
        """``C(5, 2)`` is a function, ``C(x + 1)`` a product."""
        depth = 0
        for token in self._tokens[self._at :]:
            if token.text in ("(", "["):
                depth += 1
            elif token.text in (")", "]"):
                depth -= 1
                if depth == 0:
                    return False
            elif token.text == "," and depth == 1:
                return True
        return False

    def _call(self, name: str) -> Tree:
        power: Tree | None = None
        if self._now.text == "^":  # sin^2 x
            self._step()
            power = self._expression(POSTFIX - 1)
        arguments = self._arguments() if self._now.text == "(" else (self._bare_argument(),)
        fewest, most = FUNCTIONS[name]
        if not fewest <= len(arguments) <= most:
            count = f"{fewest}" if fewest == most else f"{fewest}-{most}"
            raise SyntaxProblem(
                f"{name} takes {count} arguments, not {len(arguments)}",
                f"{name} 需要 {count} 个参数，而不是 {len(arguments)} 个",
            )
        if power == Operation("neg", (Number("1"),)) and name in ("sin", "cos", "tan", "cot"):
            return self._made(Call("a" + name, arguments))
        call = self._made(Call(name, arguments))
        return call if power is None else self._made(Operation("^", (call, power)))

    def _arguments(self) -> tuple[Tree, ...]:
        self._take("(")
        bars, self._bars = self._bars, 0
        arguments = [self._relation()]
        while self._now.text in (",", ";"):
            self._step()
            arguments.append(self._relation())
        self._bars = bars
        self._take(")")
        return tuple(arguments)

    def _bare_argument(self) -> Tree:
        """``sin 2x cos x``: the factors up to an operator or the next function."""
        argument = self._expression(TIMES) if self._now.text == "-" else self._factor()
        while self._operand_follows(argument) and not self._function_next():
            if self._now.text == "(":
                break
            argument = self._made(Operation("*", (argument, self._factor())))
        return argument

    def _factor(self) -> Tree:
        return self._expression(NEGATE)

    def _function_next(self) -> bool:
        token = self._now
        return token.kind == "name" and ALIASES.get(token.text, token.text) in FUNCTIONS


def _with_base(logarithm: Tree, base: Tree) -> Tree:
    """``log_2 8``: the base joins the call, also inside a power such as ``log_2^2 x``."""
    if isinstance(logarithm, Operation):
        call, power = logarithm.operands
        return Operation("^", (_with_base(call, base), power))
    assert isinstance(logarithm, Call)
    return Call("log", (logarithm.arguments[0], base))


def _split(word: str) -> list[str] | None:
    """``xsin`` -> x, sin; ``ab`` -> a, b; None for what looks like a word of a language."""
    known = (*FUNCTIONS, *ALIASES, *CONSTANTS, *GREEK)
    if word in known or len(word) == 1:
        return [word]
    if re.fullmatch(r"log_?[0-9]+", word):
        return ["log_" + word.removeprefix("log").lstrip("_")]
    if word.lower() in known and len(word) > 2:
        return [word.lower()]
    subscripted = re.fullmatch(r"([A-Za-z])_?([0-9]+)", word)
    if subscripted:
        return [subscripted[1] + subscripted[2]]
    if re.search(r"[0-9_]", word):
        named = re.fullmatch(r"([A-Za-z]+)_?([0-9]+)", word)
        if named and named[1] in GREEK:
            return [named[1] + named[2]]
        if named and "_" not in word and ALIASES.get(named[1], named[1]) in FUNCTIONS:
            return [named[1], named[2]]  # sin60
        return None
    if len(word) > 24:
        return None
    # Fewest pieces first; single letters are dear, so that known names win.
    best: list[tuple[int, list[str]] | None] = [None] * (len(word) + 1)
    best[0] = (0, [])
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - 10), end):
            before = best[start]
            if before is None:
                continue
            piece = word[start:end]
            if len(piece) == 1:
                cost = 3
            elif piece in known and len(piece) > 1 and not _clumsy(piece):
                cost = 1
            else:
                continue
            total = before[0] + cost
            current = best[end]
            if current is None or total < current[0]:
                best[end] = (total, [*before[1], piece])
    found = best[-1]
    if found is None or not _plausible(found[1]):
        return None
    return found[1]


def _plausible(pieces: list[str]) -> bool:
    """``xcosx`` but not ``expand``: few letters, and a function has at most one after it."""
    names = {*FUNCTIONS, *ALIASES}
    if sum(len(piece) == 1 for piece in pieces) > 3:
        return False
    after = 0
    seen = False
    for piece in pieces:
        if piece in names:
            seen, after = True, 0
        else:
            after += 1
            if seen and after > 1:
                return False
    return True


def _clumsy(piece: str) -> bool:
    """Short names that are more likely two variables inside a longer run of letters."""
    return piece in {"re", "im", "sh", "ch", "th", "tg", "int", "inf", "arg", "inv", "oo", "mu"}
