"""How an antiderivative is found by hand, told from SymPy's tree of integration rules."""

from typing import Any

import sympy as sp
from sympy.integrals import manualintegrate as rules

from hunyuan.maths.result import Step, latex

Expr = Any

MAX_STEPS = 14

SENTENCES: dict[str, tuple[str, str]] = {
    "ConstantRule": ("The integral of a constant.", "常数的积分。"),
    "PowerRule": ("Power rule: ∫xⁿ dx = xⁿ⁺¹/(n+1).", "幂函数：∫xⁿ dx = xⁿ⁺¹/(n+1)。"),
    "ReciprocalRule": ("∫1/x dx = ln|x|.", "∫1/x dx = ln|x|。"),
    "ExpRule": ("Exponential function.", "指数函数的积分。"),
    "SinRule": ("∫sin x dx = -cos x.", "∫sin x dx = -cos x。"),
    "CosRule": ("∫cos x dx = sin x.", "∫cos x dx = sin x。"),
    "Sec2Rule": ("∫sec² x dx = tan x.", "∫sec² x dx = tan x。"),
    "Csc2Rule": ("∫csc² x dx = -cot x.", "∫csc² x dx = -cot x。"),
    "ArctanRule": ("An inverse tangent.", "反正切型积分。"),
    "ArcsinRule": ("An inverse sine.", "反正弦型积分。"),
    "ErfRule": ("The Gaussian error function.", "高斯误差函数型积分。"),
}


def integral_steps(function: Expr, symbol: Expr) -> list[Step]:
    """The rules from the outside in; empty where SymPy did not go by hand."""
    try:
        rule = rules.integral_steps(function, symbol)
    except (NotImplementedError, ValueError, TypeError):
        return []
    if rule.contains_dont_know():
        return [
            Step(
                "Found by SymPy's general algorithm (Risch, Meijer G), which has no school steps.",
                "由 SymPy 的通用算法（Risch 与 Meijer G）求得，没有教科书式的步骤。",
            )
        ]
    steps: list[Step] = []
    _tell(rule, steps)
    return steps


def _tell(rule: Any, steps: list[Step]) -> None:
    if len(steps) >= MAX_STEPS:
        return
    name = type(rule).__name__
    x = latex(rule.variable)
    integrand = latex(rule.integrand)
    if isinstance(rule.integrand, sp.Add):
        integrand = rf"\left({integrand}\right)"
    left = rf"\int {integrand} \, d{x}"
    if name == "AddRule":
        steps.append(Step("Sum rule: term by term.", "加法法则：逐项积分。", left))
        for part in rule.substeps:
            _tell(part, steps)
    elif name == "ConstantTimesRule":
        inner = rf"{latex(rule.constant)} \int {latex(rule.other)} \, d{x}"
        steps.append(
            Step("A constant factor goes outside.", "常数因子提到积分号外。", f"{left} = {inner}")
        )
        _tell(rule.substep, steps)
    elif name == "URule":
        inner = rule.substep
        u = latex(rule.u_var)
        slope = latex(sp.diff(rule.u_func, rule.variable))
        steps.append(
            Step(
                "Substitution:",
                "换元：",
                rf"{u} = {latex(rule.u_func)},\quad d{u} = {slope} \, d{x},"
                rf"\quad {left} = \int {latex(inner.integrand)} \, d{u}",
            )
        )
        _tell(inner, steps)
    elif name == "PartsRule":
        u, dv = latex(rule.u), latex(rule.dv)
        v = latex(rule.v_step.eval())
        steps.append(
            Step(
                "By parts, ∫u dv = uv - ∫v du:",
                "分部积分 ∫u dv = uv - ∫v du：",
                rf"u = {u},\quad dv = {dv} \, d{x},\quad v = {v}",
            )
        )
        if rule.second_step is not None:
            _tell(rule.second_step, steps)
    elif name == "CyclicPartsRule":
        steps.append(
            Step(
                "By parts twice; the integral comes back and is solved for.",
                "两次分部积分后原积分重新出现，解方程即得。",
                f"{left} = {latex(rule.eval())}",
            )
        )
    elif name == "AlternativeRule":
        _tell(rule.alternatives[0], steps)
    elif name in ("RewriteRule", "CompleteSquareRule"):
        steps.append(
            Step(
                "Rewrite the integrand:", "改写被积函数：", f"{integrand} = {latex(rule.rewritten)}"
            )
        )
        _tell(rule.substep, steps)
    elif name == "TrigSubstitutionRule":
        steps.append(
            Step(
                "Trigonometric substitution:",
                "三角换元：",
                rf"{x} = {latex(rule.func)}",
            )
        )
        _tell(rule.substep, steps)
    else:
        en, zh = SENTENCES.get(name, ("Known integral:", "基本积分："))
        steps.append(Step(en, zh, f"{left} = {latex(sp.simplify(rule.eval()))}"))
