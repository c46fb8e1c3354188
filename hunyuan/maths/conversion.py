"""Unit conversion as a computation with steps."""

from typing import Any

import sympy as sp

from hunyuan.maths.build import Builder, MathsProblem
from hunyuan.maths.grammar import has_decimal, parse
from hunyuan.maths.result import Result, Step, decimal, latex, plain
from hunyuan.maths.units import OFFSETS, Unit, factor, find, mismatch

Expr = Any


def convert(value: str, source: str, target: str) -> Result:
    """``value`` of unit ``source`` in unit ``target``."""
    tree = parse(value)
    amount = Builder().expression(tree)
    if not amount.is_number or not amount.is_real:
        raise MathsProblem(f"{value[:40]!r} is not a number", f"{value[:40]!r} 不是数")
    old, new = find(source), find(target)
    if old is None or new is None:
        return _by_pint(amount, source, target)
    if old.quantity != new.quantity:
        raise mismatch(old, new)
    if old.quantity == "temperature":
        return _temperature(amount, old, new)
    ratio = _scale(old) / _scale(new)
    result = amount * ratio
    steps = [
        Step(
            f"1 {old.symbol} ({old.english}) is {_shown(ratio)} {new.symbol} ({new.english}):",
            f"1 {old.chinese}（{old.symbol}）= {_shown(ratio)} {new.chinese}（{new.symbol}）：",
            rf"{_shown(amount)} \times {_shown(ratio)} = {_shown(result)}",
        )
    ]
    return _converted(amount, old.symbol, result, new.symbol, steps, has_decimal(tree))


def _scale(unit: Unit) -> Expr:
    """In base units, as a SymPy number."""
    exact = factor(unit)
    return 1 / (2 * sp.pi) if exact is None else sp.Rational(exact.numerator, exact.denominator)


def _shown(value: Expr) -> str:
    return decimal(value, 12) or plain(value)


def _unit_latex(symbol: str) -> str:
    if symbol.startswith("°"):
        return rf"{{}}^{{\circ}}\mathrm{{{symbol[1:]}}}"
    base, _, power = symbol.partition("^")
    return rf"\mathrm{{{base}}}" + (f"^{{{power}}}" if power else "")


def _converted(
    amount: Expr, old: str, result: Expr, new: str, steps: list[Step], decimals: bool, by: str = ""
) -> Result:
    ends = decimal(result)
    made = Result(
        operation="convert",
        question=rf"{_shown(amount)} \, {_unit_latex(old)} \to {_unit_latex(new)}",
        exact=f"{plain(result)} {new}",
        latex=rf"{latex(result)} \, {_unit_latex(new)}",
        decimal=f"{ends} {new}" if ends else None,
        prefer_decimal=decimals or ends is not None,
        values=[plain(result)],
        steps=steps,
    )
    if by:
        made.computed_by = by
    return made


def _temperature(amount: Expr, old: Unit, new: Unit) -> Result:
    def exact(unit: Unit) -> tuple[Expr, Expr]:
        scale, offset = OFFSETS[unit.scale]
        return (
            sp.Rational(scale.numerator, scale.denominator),
            sp.Rational(offset.numerator, offset.denominator),
        )

    (scale, offset), (scale_new, offset_new) = exact(old), exact(new)
    kelvin = amount * scale + offset
    if kelvin < 0:
        raise MathsProblem(
            f"{_shown(amount)} {old.symbol} is below absolute zero",
            f"{_shown(amount)} {old.symbol} 低于绝对零度",
        )
    result = (kelvin - offset_new) / scale_new
    rules = {
        ("C", "F"): r"F = \frac{9}{5} C + 32",
        ("F", "C"): r"C = \frac{5}{9} (F - 32)",
        ("C", "K"): "K = C + 273.15",
        ("K", "C"): "C = K - 273.15",
    }
    rule = rules.get((old.scale, new.scale), "")
    steps = [Step("Formula:", "换算公式：", rule)] if rule else []
    return _converted(amount, old.symbol, result, new.symbol, steps, decimals=True)


def _by_pint(amount: Expr, source: str, target: str) -> Result:
    """Units outside the table, by Pint; names are looked up, never evaluated as expressions."""
    unknown = source if find(source) is None else target
    problem = MathsProblem(
        f"the unit {unknown[:30]!r} is not known", f"未知的单位 {unknown[:30]!r}"
    )
    if not all(name.replace("_", "").isalpha() and len(name) <= 40 for name in (source, target)):
        raise problem
    try:
        import pint
    except ImportError:
        raise MathsProblem(
            f"the unit {unknown[:30]!r} is not in the table; Pint knows more: pip install "
            "'hunyuan[units]'",
            f"单位表中没有 {unknown[:30]!r}；安装 Pint 可支持更多单位："
            "pip install 'hunyuan[units]'",
        ) from None
    registry: Any = pint.UnitRegistry(non_int_type=float)
    if source not in registry or target not in registry:
        raise problem
    try:
        value = registry.Quantity(float(amount), source).to(target).magnitude
    except pint.errors.PintError as error:
        raise MathsProblem(
            f"{source} cannot be converted into {target}", f"{source} 不能换算为 {target}"
        ) from error
    result = sp.Float(value, 15)
    by = f"Pint {pint.__version__}"
    return _converted(amount, source, result, target, [], True, by)
