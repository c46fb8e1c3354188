"""What a computation hands back, and SymPy objects as people read them."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import sympy as sp

Expr = Any

SHOWN_CHARACTERS = 2000
DIGITS = 15


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the working: a sentence in both languages and perhaps a formula."""

    en: str
    zh: str
    latex: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """How the result was checked, and whether it held (None: could not be decided)."""

    en: str
    zh: str
    passed: bool | None = True


@dataclass(kw_only=True)
class Result:
    """An answer. ``exact`` and ``latex`` hold it exactly, ``decimal`` as a decimal number."""

    operation: str
    question: str
    """LaTeX of what was computed."""

    exact: str
    latex: str
    decimal: str | None = None
    values: list[str] = field(default_factory=list)
    """The single answers in plain notation (solutions, eigenvalues, ...); else just ``exact``."""

    prefer_decimal: bool = False
    steps: list[Step] = field(default_factory=list)
    notes: list[Step] = field(default_factory=list)
    check: Check | None = None
    computed_by: str = f"SymPy {sp.__version__}"

    def json(self) -> dict[str, Any]:
        """As plain data."""
        whole = {**asdict(self), "values": self.values or [self.exact]}
        if self.check is not None and self.check.passed is not None:
            whole["check"]["passed"] = bool(self.check.passed)  # SymPy has truths of its own
        return whole


def answer(operation: str, question: str, value: Expr, **more: Any) -> Result:
    """A result whose answer is one SymPy object."""
    return Result(
        operation=operation,
        question=question,
        exact=more.pop("exact", None) or plain(value),
        latex=more.pop("latex", None) or latex(value),
        decimal=more.pop("decimal", None) or decimal(value),
        **more,
    )


def together(results: list[Result]) -> Result:
    """Several answers to one question, in order."""
    checks = [r.check for r in results if r.check is not None]
    check = next((c for c in checks if c.passed is False), checks[0] if checks else None)
    decimals = [r.decimal or r.exact for r in results]
    return Result(
        operation=results[0].operation,
        question=r",\; ".join(r.question for r in results),
        exact=", ".join(r.exact for r in results),
        latex=r",\; ".join(r.latex for r in results),
        decimal=", ".join(decimals) if any(r.decimal for r in results) else None,
        values=[value for r in results for value in (r.values or [r.exact])],
        prefer_decimal=all(r.prefer_decimal or r.decimal is None for r in results),
        steps=[step for r in results for step in r.steps],
        notes=list(dict.fromkeys(note for r in results for note in r.notes)),
        check=check,
    )


def latex(value: Expr) -> str:
    """LaTeX of a SymPy object; a very long number is cut in the middle."""
    if isinstance(value, (list, tuple)):
        return r",\; ".join(latex(item) for item in value)
    if getattr(value, "is_Integer", False) and abs(value) > 10**60:
        return _cut(str(value))
    text = str(sp.latex(value, ln_notation=True, mat_str="pmatrix", mat_delim=""))
    return text if len(text) <= 4 * SHOWN_CHARACTERS else r"\text{(too long to show)}"


def plain(value: Expr) -> str:
    """Plain notation, as the grammar reads it; cut in the middle where very long."""
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, sp.MatrixBase):
        return f"[{', '.join(f'[{plain(row)}]' for row in value.tolist())}]"
    text = str(sp.sstr(value))
    text = text.replace("**", "^").replace("log(", "ln(").replace("Abs(", "abs(")
    text = re.sub(r"\bE\b", "e", text)
    text = re.sub(r"\bI\b", "i", text)
    text = re.sub(r"\boo\b", "∞", text)
    return text if len(text) <= SHOWN_CHARACTERS else _cut(text, 400)


def decimal(value: Expr, digits: int = DIGITS) -> str | None:
    """The decimal form of a number that is not whole, to ``digits`` digits; None for others."""
    if isinstance(value, (list, tuple)):
        parts = [decimal(item, digits) or plain(item) for item in value]
        return ", ".join(parts) if any(decimal(item, digits) for item in value) else None
    if isinstance(value, sp.MatrixBase):
        if any(decimal(x, digits) for x in value) and all(x.is_number for x in value):
            rows = [
                [decimal(x, digits) or plain(x) for x in value.row(i)] for i in range(value.rows)
            ]
            return "[" + ", ".join(f"[{', '.join(row)}]" for row in rows) + "]"
        return None
    if not getattr(value, "is_number", False) or value.is_Integer or value.is_finite is False:
        return None
    if value.has(sp.Integral, sp.Sum, sp.Product):
        value = value.evalf(digits)
    if value.is_real is False or value.has(sp.I):
        real, imaginary = (sp.N(part, digits) for part in value.as_real_imag())
        if abs(imaginary) > sp.Float(10) ** (3 - digits):
            sign = "-" if imaginary < 0 else "+"
            size = number(abs(imaginary), digits).removesuffix(".0")
            part = "i" if size == "1" else f"{size}i"
            return f"{number(real, digits)} {sign} {part}" if real else sign.strip("+") + part
        value = real
    return number(value, digits)


def number(value: Expr, digits: int = DIGITS) -> str:
    """A real number as a decimal without trailing zeros; exact where it ends within ``digits``."""
    if value.is_Integer and abs(value) < 10**digits:
        return str(value)
    numeric = sp.N(value, digits)
    if not numeric.is_Float:
        return plain(numeric)
    text = str(numeric)
    mantissa, _, exponent = text.partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _cut(text: str, kept: int = 25) -> str:
    digits = sum(c.isdigit() for c in text)
    return f"{text[:kept]} … {text[-kept:]} ({digits} digits)"
