"""Judging answers of the mathematics place against known ones (tests/data/maths.jsonl).

The known answers are written in Python's notation by hand; SymPy compares, reading nothing but
them and the plain notation of the tool's values.
"""

import json
import re
from pathlib import Path
from typing import Any

import sympy as sp

DATA = Path(__file__).parent / "data"
QUESTIONS = DATA / "maths.jsonl"
SECOND = DATA / "maths_second.jsonl"
"""By another hand, in two halves; with ``split``, ``lang`` and ``author``."""


def questions(file: Path = QUESTIONS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def grade(known: dict[str, Any], event: dict[str, Any]) -> str:
    """``correct``, ``wrong`` or ``refused`` for the last event of /workbench/maths/ask."""
    if event["type"] != "result" or event["kind"] == "not_understood":
        return "refused"
    return "correct" if _right(known, event) else "wrong"


def _right(known: dict[str, Any], event: dict[str, Any]) -> bool:
    if "formula" in known:
        return event["kind"] == "formula" and event["formula"]["id"] == known["formula"]
    if "formula_has" in known:
        return event["kind"] == "formula" and all(
            part in event["formula"]["latex"] for part in known["formula_has"]
        )
    if "points" in known:
        return event["kind"] == "chart" and _drawn(known["points"], event["chart"])
    if "bars" in known:
        return event["kind"] == "chart" and _bars(event["chart"]) == {
            name: float(value) for name, value in known["bars"].items()
        }
    if event["kind"] != "value":
        return False
    result = event["result"]
    if result["check"] is not None and result["check"]["passed"] is False:
        return False
    match known:
        case {"values": wanted}:
            return _same_set([_value(v) for v in wanted], [_value(v) for v in result["values"]])
        case {"values_any": several}:
            found = [_value(v) for v in result["values"]]
            return any(_same_set([_value(v) for v in wanted], found) for wanted in several)
        case {"percent": text}:
            shown = result["exact"]
            number = _value(shown.removesuffix("%"))
            return bool(number == (_value(text) / (1 if shown.endswith("%") else 100)))
        case {"factors": text}:
            with sp.evaluate(False):
                product = _value(result["values"][0])
            count = len(product.args) if isinstance(product, sp.Mul) else 1
            return _same(sp.expand(product.doit()), sp.expand(_value(text))) and count == len(
                _value(text).args
            )
        case {"region": text}:
            return _region(result["exact"]) == _region(text)
        case {"digits_any": texts}:
            shown = (result["decimal"] or result["exact"]).rstrip("0")
            return shown in [text.rstrip("0") for text in texts]
        case {"series": text}:
            bare = re.sub(r"\s*\+\s*O\(.*\)$", "", result["exact"])
            return _same(_value(bare), _value(text))
        case {"truth": truth}:
            return bool(result["exact"] == ("true" if truth else "false"))
        case {"prime_factors": powers}:
            parts = [part.partition("^") for part in result["exact"].split("*")]
            return {p: int(n or 1) for p, _, n in parts} == powers
        case {"systems": several}:
            solved = [
                {k: _value(v) for k, v in (p.split(" = ") for p in text.split(", "))}
                for text in result["values"]
            ]
            wanted = [{k: _value(v) for k, v in one.items()} for one in several]
            return len(solved) == len(wanted) and all(one in solved for one in wanted)
        case {"extrema": pairs}:
            return all(f"({x}, {y})" in result["exact"] for x, y in pairs)
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


def _region(text: str) -> sp.Set:
    """The set of real x of ``2 < x < 3``, ``x > 4``, ``(2 < x) & (x < 3)``."""
    x = sp.Symbol("x", real=True)
    whole: sp.Set = sp.S.Reals
    for part in text.split("&"):
        ends = re.split(r"\s*(<=|<|>=|>)\s*", part.strip(" ()"))
        for left, sign, right in zip(ends[::2], ends[1::2], ends[2::2], strict=False):
            pair = [_value(side).subs(sp.Symbol("x"), x) for side in (left, right)]
            whole &= sp.Rel(*pair, sign).as_set()
    return whole


def _bars(chart: dict[str, Any]) -> dict[str, float]:
    """Names and heights of a chart of data with one series."""
    names = chart["x"]["categories"]
    if names is None or len(chart["series"]) != 1:
        return {}
    (series,) = chart["series"]
    return {names[int(x)]: height for x, height in series["points"]}


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
