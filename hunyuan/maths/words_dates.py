# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: days between dates, dates after some days, days of the week."""

import re
from datetime import date as Day

from hunyuan.maths import numerals
from hunyuan.maths.call import ToolCall, tool_call

MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september",
          "october", "november", "december"]  # fmt: skip
MONTH = "|".join(f"{name[:3]}(?:{name[3:]}|t)?" if name[3:] else name for name in MONTHS)
DATE = re.compile(
    rf"(?P<y1>\d{{4}})\s*[-/.年]\s*(?P<m1>\d{{1,2}})\s*[-/.月]\s*(?P<d1>\d{{1,2}})\s*[日号]?|"
    rf"(?P<m2>{MONTH})\.?\s+(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?\s*,?\s+(?P<y2>\d{{4}})|"
    rf"(?P<d3>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<m3>{MONTH})\.?\s*,?\s+(?P<y3>\d{{4}})",
    re.IGNORECASE,
)
BETWEEN = re.compile(
    r"how many days|number of days|days (?:are there )?(?:between|from|until|to)|几天|多少天|天数|相差|相隔|间隔|隔了",
    re.IGNORECASE,
)
WEEKDAY = re.compile(
    r"(?:which|what) (?:day of the week|weekday|day)|weekday|星期几|周几|礼拜几", re.IGNORECASE
)
AFTER = re.compile(
    r"(\d+)\s*(weeks?|days?|周|天|星期)\s*(after|from|before|prior to)\s*@|@\s*(?:的|再|往|之|以)*\s*(后|前)?\s*(\+|-|plus|minus|过|之?后|之?前|加|减)?\s*(?:再)?(?:过|的)?\s*(?:第)?\s*(\d+)\s*(weeks?|days?|个?星期|周|天)\s*(后|前|之后|之前|以后|以前)?",
    re.IGNORECASE,
)


def dates(text: str) -> ToolCall | None:
    """``days between 2024-01-15 and 2024-03-10``, ``2024年5月1日是星期几``."""
    found = list(DATE.finditer(text))
    if not 1 <= len(found) <= 2:
        return None
    days = [_iso(one) for one in found]
    if None in days:
        return None
    rest = DATE.sub("@", text)
    first = days[0] or ""
    if len(days) == 2:
        if BETWEEN.search(rest) and not re.search(
            r"\d|work|business|inclusive|工作日|包括|含首尾", rest, re.IGNORECASE
        ):
            return tool_call("date", action="between", a=first, b=days[1] or "")
        return None
    if WEEKDAY.search(rest) and not re.search(r"\d", rest):
        return tool_call("date", action="weekday", a=first)
    rest = numerals.digits(rest)
    if (shift := AFTER.search(rest)) and len(re.findall(r"\d+", rest)) == 1:
        count = shift[1] or shift[6]
        unit = (shift[2] or shift[7]).lower()
        words = " ".join(g for g in (shift[3], shift[4], shift[5], shift[8]) if g).lower()
        if not words:
            return None
        many = int(count) * (7 if re.match(r"week|周|个?星期", unit) else 1)
        earlier = re.search(r"before|prior|前|减|minus|-", words)
        return tool_call("date", action="before" if earlier else "after", a=first, b=str(many))
    return None


def _iso(found: re.Match[str]) -> str | None:
    parts = {k[0]: v for k, v in found.groupdict().items() if v}
    month = parts["m"]
    number = int(month) if month.isdigit() else [m[:3] for m in MONTHS].index(month[:3].lower()) + 1
    try:
        return Day(int(parts["y"]), number, int(parts["d"])).isoformat()
    except ValueError:
        return None
