"""Judging answers of the mathematics place against known ones (tests/data/maths.jsonl).

The known answers are written in Python's notation by hand; SymPy compares, reading nothing but
them and the plain notation of the tool's values.
"""

import json
import re
from pathlib import Path
from typing import Any

import sympy as sp

QUESTIONS = Path(__file__).parent / "data" / "maths.jsonl"


def questions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]


def grade(known: dict[str, Any], event: dict[str, Any]) -> str:
    """``correct``, ``wrong`` or ``refused`` for the last event of /workbench/maths/ask."""
    if event["type"] != "result" or event["kind"] == "not_understood":
        return "refused"
    return "correct" if _right(known, event) else "wrong"


def _right(known: dict[str, Any], event: dict[str, Any]) -> bool:
    if "formula" in known:
        return event["kind"] == "formula" and event["formula"]["id"] == known["formula"]
    if "points" in known:
        return event["kind"] == "chart" and _drawn(known["points"], event["chart"])
    if event["kind"] != "value":
        return False
    result = event["result"]
    if result["check"] is not None and result["check"]["passed"] is False:
        return False
    match known:
        case {"values": wanted}:
            return _same_set([_value(v) for v in wanted], [_value(v) for v in result["values"]])
        case {"exact": text}:
            return bool(result["exact"] == text)
        case {"decimal": text}:
            return _close(text, result, known.get("tolerance", 1e-12))
        case {"digits": text}:
            return bool(result["decimal"] == text)
        case {"antiderivative": text}:
            plain, real = sp.Symbol("x"), sp.Symbol("x", real=True)
            found = sp.diff(_value(result["values"][0]).subs(plain, real), real)
            rest = found - _value(text).subs(plain, real)
            return all(abs(complex(rest.subs(real, p))) < 1e-9 for p in (0.3, 1.7, 2.9))
        case {"system": pairs}:
            found = dict(part.split(" = ") for part in result["values"][0].split(", "))
            return {k: _value(v) for k, v in found.items()} == {
                k: _value(v) for k, v in pairs.items()
            }
        case {"matrix": rows}:
            return bool(sp.Matrix(_value(result["exact"])) == sp.Matrix(_value(str(rows))))
    raise AssertionError(known)


def _value(text: str) -> Any:
    text = text.replace("^", "**").replace("∞", "oo").replace("'", "")
    text = re.sub(r"\bln\(", "log(", text)
    text = re.sub(r"\be\b", "E", re.sub(r"\bi\b", "I", text))
    text = re.sub(r"\babs\(", "Abs(", text)
    return sp.sympify(text, rational=True)


def _same_set(wanted: list[Any], found: list[Any]) -> bool:
    if len(wanted) != len(found):
        return False
    left = list(found)
    for value in wanted:
        match = next((f for f in left if _same(value, f)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, sp.Expr) or not isinstance(b, sp.Expr):
        return bool(a == b)
    return bool(a == b or sp.simplify(a - b) == 0)


def _close(text: str, result: dict[str, Any], tolerance: float) -> bool:
    shown = result["decimal"] or result["values"][0]
    number = re.search(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", shown)
    return number is not None and abs(float(number[0]) - float(text)) <= tolerance * abs(
        float(text)
    )


def _drawn(wanted: list[list[list[str]]], chart: dict[str, Any]) -> bool:
    if chart["kind"] != "function" or len(chart["series"]) != len(wanted):
        return False
    for points, series in zip(wanted, chart["series"], strict=True):
        known = [(x, y) for x, y in series["points"] if y is not None]
        for x, y in points:
            near = min(known, key=lambda p: abs(p[0] - float(x)))
            if abs(near[0] - float(x)) > 0.06 or abs(near[1] - float(y)) > 0.25:
                return False
    return True
