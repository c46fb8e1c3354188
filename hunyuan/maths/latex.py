r"""LaTeX as people write it, translated into the notation of `hunyuan.maths.grammar`.

``\frac{d^2}{dx^2} x^5`` -> ``diff(x^(5), x, 2)``, ``\lim_{x\to 0^+}`` -> ``limit(..., +)``.
Commands come from a closed list, so nothing but mathematics gets through.
(latex2sympy2_extended, which reads rarer LaTeX in the worker, takes the second derivative above for
a product and 30^\circ for 30, and refuses one-sided limits and systems; so this reader goes first.)
"""

import re

from hunyuan.errors import UsageError
from hunyuan.maths.grammar import ALIASES, FUNCTIONS, GREEK, MAX_CHARACTERS, MAX_DEPTH

TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\d+(?:\.\d+)?|[A-Za-z]|\S", re.DOTALL)

OPERATORS = {
    r"\cdot": "*", r"\times": "*", r"\ast": "*", r"\div": "/", r"\pm": "±", r"\le": "<=",
    r"\leq": "<=", r"\leqslant": "<=", r"\ge": ">=", r"\geq": ">=", r"\geqslant": ">=",
    r"\ne": "!=", r"\neq": "!=", r"\lt": "<", r"\gt": ">", r"\infty": " oo ", r"\pi": " pi ",
    r"\%": "%", r"\circ": "°", r"\degree": "°", r"\lbrack": "[", r"\rbrack": "]", r"\{": "(",
    r"\}": ")", r"\mid": "|", r"\vert": "|", r"\lvert": "|", r"\rvert": "|", r"\colon": ":",
    r"\bmod": "%", r"\mod": "%", r"\div*": "/", r"\prime": "'",
}  # fmt: skip
NOTHING = {
    r"\,", r"\;", r"\:", r"\!", r"\ ", r"\quad", r"\qquad", r"\displaystyle", r"\textstyle",
    r"\limits", r"\nolimits", r"\left", r"\right", r"\big", r"\Big", r"\bigg", r"\Bigg", r"\bigl",
    r"\bigr", r"\Bigl", r"\Bigr", r"\left.", r"\right.", r"\thinspace", r"\>", r"\nonumber",
}  # fmt: skip
WRAPPERS = {r"\mathrm", r"\operatorname", r"\operatorname*", r"\text", r"\mathbf", r"\mathit",
            r"\rm", r"\textbf", r"\boldsymbol", r"\textrm", r"\mathop", r"\boxed"}  # fmt: skip
MATRICES = {"matrix", "pmatrix", "bmatrix", "vmatrix", "array", "Bmatrix", "smallmatrix"}
LETTERS = {"varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi", "varrho": "rho"}


class LatexProblem(UsageError):
    """A LaTeX construct that is not read here."""


class UnknownCommand(LatexProblem):
    """A command or environment outside the closed list; another reader may know it."""


def looks_like_latex(text: str) -> bool:
    """Whether a text is LaTeX rather than plain notation."""
    return re.search(r"\\[A-Za-z]|\\[,;{}%]|[_^]\{|\$", text) is not None


def stripped(text: str) -> str:
    r"""Without the delimiters ``$ $$ \( \[`` around it."""
    text = text.strip()
    for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(left) and text.endswith(right) and len(text) >= len(left + right):
            return text[len(left) : -len(right)].strip()
    return text


def to_plain(text: str) -> str:
    """The plain notation of a LaTeX expression, relation, matrix or system.

    Raises `LatexProblem` for what is not read.
    """
    if len(text) > 2 * MAX_CHARACTERS:
        raise LatexProblem(
            f"the LaTeX has {len(text)} characters; at most {2 * MAX_CHARACTERS} are read",
            f"LaTeX 有 {len(text)} 个字符，最多读取 {2 * MAX_CHARACTERS} 个",
        )
    return _Reader(stripped(text)).whole()


class _Reader:
    def __init__(self, text: str | list[str]) -> None:
        self._tokens = TOKEN.findall(text) if isinstance(text, str) else text
        self._at = 0
        self._depth = 0

    def whole(self) -> str:
        plain = self._until(())
        return re.sub(r"\s+", " ", plain).strip()

    @property
    def _now(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _step(self) -> str:
        token = self._now
        if not token:
            raise LatexProblem("the LaTeX ends too early", "LaTeX 不完整")
        self._at += 1
        return token

    def _until(self, stops: tuple[str, ...]) -> str:
        """Everything before one of the tokens ``stops`` (which is left), or the end."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise LatexProblem(
                f"the LaTeX is nested more than {MAX_DEPTH} deep",
                f"LaTeX 的嵌套超过 {MAX_DEPTH} 层",
            )
        parts: list[str] = []
        while self._now and self._now not in stops:
            parts.append(self._item(stops))
        self._depth -= 1
        return "".join(parts)

    def _group(self) -> str:
        r"""The argument of a command: ``{...}`` or one token, as in ``\frac12``."""
        if self._now == "{":
            self._step()
            inner = self._until(("}",))
            self._close("}")
            return inner
        if self._now.isdigit():  # \frac12 and x^23 take one digit
            digits = self._step()
            if len(digits) > 1:
                self._at -= 1
                self._tokens[self._at] = digits[1:]
            return digits[0]
        return self._item(())

    def _close(self, token: str) -> None:
        if self._now != token:
            raise LatexProblem(f"{token!r} is missing in the LaTeX", f"LaTeX 中缺少 {token!r}")
        self._step()

    def _item(self, stops: tuple[str, ...]) -> str:
        token = self._step()
        if not token.startswith("\\"):
            return self._plain(token)
        if token in NOTHING:
            if token in (r"\left", r"\right") and self._now == ".":
                self._step()
            return " "
        if token in OPERATORS:
            return OPERATORS[token]
        if token in (r"\frac", r"\dfrac", r"\tfrac", r"\cfrac"):
            return self._fraction(stops)
        if token == r"\sqrt":
            return self._root()
        if token in (r"\binom", r"\dbinom", r"\tbinom"):
            return f" binomial({self._group()}, {self._group()})"
        if token in (r"\int", r"\sum", r"\prod", r"\lim"):
            return {
                r"\int": self._integral,
                r"\sum": lambda s: self._series("sum", s),
                r"\prod": lambda s: self._series("product", s),
                r"\lim": self._limit,
            }[token](stops)
        if token == r"\begin":
            return self._environment()
        if token in (r"\lfloor", r"\lceil"):
            end = token.replace("l", "r", 1)
            inner = self._until((end,))
            self._close(end)
            name = "floor" if end == r"\rfloor" else "ceil"
            return f" {name}({inner})"
        if token in (r"\overline", r"\bar"):
            return f" conj({self._group()})"
        if token in WRAPPERS:
            return f" {self._group()} "
        if token in (r"\log", r"\ln", r"\lg"):
            return self._logarithm(token[1:], stops)
        return self._word(token)

    def _plain(self, token: str) -> str:
        if token == "{":
            inner = self._until(("}",))
            self._close("}")
            return f"({inner})"
        if token == "^":
            return f"^({exponent})" if (exponent := self._group()) != "°" else "°"
        if token == "_":
            return f"_{self._group()}"
        if token in ("}", "&"):
            raise LatexProblem(f"{token!r} is out of place", f"{token!r} 的位置不对")
        return "*" if token == "*" else token

    def _word(self, token: str) -> str:
        name = LETTERS.get(token[1:], token[1:])
        if name in FUNCTIONS or name in ALIASES or name in GREEK:
            return f" {name} "
        raise UnknownCommand(
            f"{token[:30]} is not read; write it in another way",
            f"无法识别 {token[:30]}，请换一种写法",
        )

    def _root(self) -> str:
        if self._now != "[":
            return f" sqrt({self._group()})"
        self._step()
        index = self._until(("]",))
        self._close("]")
        return f" root({self._group()}, {index})"

    def _logarithm(self, name: str, stops: tuple[str, ...]) -> str:
        if self._now != "_":
            return f" {name} "
        self._step()
        base = self._group()
        return f" log({self._operand(stops)}, {base})"

    def _operand(self, stops: tuple[str, ...]) -> str:
        r"""What a function without parentheses applies to: a group, or factors up to + - * / = ."""
        while self._now in NOTHING:
            self._step()
        if self._now == "(":
            self._step()
            inner = self._until((")",))
            self._close(")")
            return inner
        parts: list[str] = []
        ends = {"+", "-", "=", "<", ">", ",", ")", "]", "|", "/", "*", *OPERATORS} - {r"\pi"}
        while self._now and self._now not in stops and self._now not in ends:
            if parts and self._now[1:] in FUNCTIONS | ALIASES:
                break
            parts.append(self._item(stops))
        if not parts:
            raise LatexProblem("a function has no argument", "函数缺少参数")
        return "".join(parts)

    def _fraction(self, stops: tuple[str, ...]) -> str:
        start = self._at
        operator = self._differential()
        if operator is None:
            self._at = start
            return f"(({self._group()})/({self._group()}))"
        body, variable, order = operator
        body = body or self._term(stops)
        return f" diff({body}, {variable}, {order})"

    def _differential(self) -> tuple[str, str, str] | None:
        r"""``{d}{dx}``, ``{d^2}{dx^2}``, ``{\partial f}{\partial x}`` after ``\frac``, or None."""
        above, below = self._braces(), self._braces()
        if above is None or below is None:
            return None
        above, below = _without_d(above), _without_d(below)
        if above is None or not below:
            return None
        order, body = _order(above)
        power, rest = _order(below[1:])
        if rest or (power != order and order != "1") or not re.match(r"[A-Za-z\\]", below[0]):
            return None
        if len(body) == 1 and body[0].isalpha():  # dy/dx alone asks for nothing computable
            raise LatexProblem(
                "write what is to be differentiated, as in \\frac{d}{dx}(x^2)",
                "请写出要求导的式子，例如 \\frac{d}{dx}(x^2)",
            )
        return _Reader(body).whole(), below[0].lstrip("\\"), power

    def _braces(self) -> list[str] | None:
        """The tokens inside the braces that open here."""
        if self._now != "{":
            return None
        start, depth = self._at + 1, 0
        while self._now:
            token = self._step()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return self._tokens[start : self._at - 1]
        return None

    def _term(self, stops: tuple[str, ...]) -> str:
        """What an operator such as d/dx, a limit or a sum applies to: up to the next + - or =."""
        parts: list[str] = []
        while self._now and self._now not in stops:
            if parts and self._now in ("+", "-", "=", "<", ">", ",", ";", ")", "]", r"\right"):
                break
            if self._now in (r"\le", r"\ge", r"\leq", r"\geq", r"\ne"):
                break
            parts.append(self._bracketed() if self._now in ("(", "[") else self._item(stops))
        body = "".join(parts).strip()
        if not body:
            raise LatexProblem("an operator has nothing to act on", "运算符号后面缺少式子")
        return body

    def _bracketed(self) -> str:
        opening = self._step()
        closing = ")" if opening == "(" else "]"
        inner = self._until((closing,))
        self._close(closing)
        return f"({inner})"

    def _bounds(self) -> tuple[str, str]:
        """The subscript and superscript of an operator, in either order, each perhaps empty."""
        lower = upper = ""
        while self._now in ("_", "^", *NOTHING):
            token = self._step()
            if token == "_":
                lower = self._group()
            elif token == "^":
                upper = self._group()
        return lower.strip(), upper.strip()

    def _integral(self, stops: tuple[str, ...]) -> str:
        lower, upper = self._bounds()
        parts: list[str] = []
        while self._now and self._now not in stops:
            if (variable := self._measure()) is not None:
                body = "".join(parts).strip() or "1"
                bounds = f", {lower}, {upper}" if lower and upper else ""
                return f" integrate({body}, {variable}{bounds})"
            parts.append(self._item(stops))
        raise LatexProblem("the integral has no dx", "积分缺少 dx")

    def _measure(self) -> str | None:
        r"""``dx``, ``\mathrm{d}x`` or ``\,dx`` at this place: its variable."""
        rest = _without_d(self._tokens[self._at : self._at + 6])
        if not rest or not re.match(r"[A-Za-z]$|\\[a-z]+$", rest[0]) or rest[0] in NOTHING:
            return None
        self._at = min(self._at + 6, len(self._tokens)) - len(rest) + 1
        return rest[0].lstrip("\\")

    def _series(self, name: str, stops: tuple[str, ...]) -> str:
        lower, upper = self._bounds()
        variable, _, start = lower.partition("=")
        if not start or not upper:
            raise LatexProblem(
                "a sum needs an index and both bounds, as in \\sum_{k=1}^{n}",
                "求和需要下标与上下限，例如 \\sum_{k=1}^{n}",
            )
        return f" {name}({self._term(stops)}, {variable.strip()}, {start.strip()}, {upper})"

    def _limit(self, stops: tuple[str, ...]) -> str:
        if self._now in (r"\limits",):
            self._step()
        if self._now != "_":
            raise LatexProblem("a limit needs x \\to a below it", "极限需要写明 x \\to a")
        self._step()
        if self._now != "{":
            raise LatexProblem("a limit needs x \\to a below it", "极限需要写明 x \\to a")
        end = self._at + 1
        while end < len(self._tokens) and self._tokens[end] != "}":
            end = end + 1 if self._tokens[end] != "{" else self._tokens.index("}", end) + 1
        inner = self._tokens[self._at + 1 : end]
        self._at = end + 1
        arrow = next((a for a in (r"\to", r"\rightarrow", "→") if a in inner), None)
        if arrow is None:
            raise LatexProblem("a limit needs x \\to a below it", "极限需要写明 x \\to a")
        place = inner.index(arrow)
        variable = "".join(inner[:place]).strip().lstrip("\\")
        point = inner[place + 1 :]
        side = re.search(r"\^\{?([+-])\}?$", "".join(point))
        if side:
            point = point[: point.index("^")]
        target = _Reader(point).whole()
        ending = f", {side[1]}1" if side else ""
        return f" limit({self._term(stops)}, {variable}, {target}{ending})"

    def _environment(self) -> str:
        name = self._name_in_braces()
        if name in MATRICES:
            if name == "array" and self._now == "{":
                self._name_in_braces()
            rows = [f"[{', '.join(row)}]" for row in self._rows(name)]
            matrix = f"[{', '.join(rows)}]"
            return f" det({matrix})" if name == "vmatrix" else f" {matrix}"
        if name in ("cases", "aligned", "align", "align*", "gathered", "equation"):
            return ", ".join("".join(row) for row in self._rows(name))
        raise UnknownCommand(
            f"the environment {name[:20]!r} is not read", f"无法识别环境 {name[:20]!r}"
        )

    def _name_in_braces(self) -> str:
        self._close("{")
        name = ""
        while self._now and self._now != "}":
            name += self._step()
        self._close("}")
        return name

    def _rows(self, name: str) -> list[list[str]]:
        rows: list[list[str]] = [[]]
        while True:
            rows[-1].append(self._until(("&", r"\\", r"\end")).strip(" ,"))
            token = self._step()
            if token == r"\\":
                rows.append([])
            elif token == r"\end":
                if self._name_in_braces() != name:
                    raise LatexProblem(
                        f"\\end{{{name[:20]}}} is missing", f"缺少 \\end{{{name[:20]}}}"
                    )
                return [row for row in rows if any(row)]


def _without_d(tokens: list[str]) -> list[str] | None:
    r"""What follows a differential sign ``d``, ``\partial`` or ``\mathrm{d}``; None without."""
    if tokens[:1] in (["d"], [r"\partial"]):
        return tokens[1:]
    if tokens[:4] in ([r"\mathrm", "{", "d", "}"], [r"\text", "{", "d", "}"]):
        return tokens[4:]
    return None


def _order(tokens: list[str]) -> tuple[str, list[str]]:
    """The exponent at the start (1 without) and the rest."""
    if tokens[:1] != ["^"]:
        return "1", tokens
    if tokens[1:2] == ["{"] and tokens[3:4] == ["}"]:
        return tokens[2], tokens[4:]
    return (tokens[1] if len(tokens) > 1 else "1"), tokens[2:]


MADE_OF = re.compile(
    r"\\(?:html|href|url|include|input|write|def|let|newcommand|gdef|catcode|csname|immediate|read|"
    r"openin|openout|loop|expandafter|special)",
    re.IGNORECASE,
)


def well_formed(text: str) -> bool:
    r"""Whether LaTeX is balanced and free of commands that do more than set a formula.

    Formulas need not be computable to be shown, so this is less than `to_plain` asks for.
    """
    if not text or len(text) > 2 * MAX_CHARACTERS or MADE_OF.search(text):
        return False
    depth, opened = 0, []
    for token in TOKEN.findall(text):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            return False
        if token in (r"\left", r"\right", r"\begin", r"\end"):
            opened.append(token)
    pairs = {r"\right": r"\left", r"\end": r"\begin"}
    stack: list[str] = []
    for token in opened:
        if token in pairs:
            if not stack or stack.pop() != pairs[token]:
                return False
        else:
            stack.append(token)
    return depth == 0 and not stack
