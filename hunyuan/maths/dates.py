"""Days between dates, dates before and after, days of the week (the Gregorian calendar)."""

import re
from datetime import date as Day
from datetime import timedelta

from hunyuan.maths.build import MathsProblem
from hunyuan.maths.result import Check, Result, Step

WEEKDAYS = [
    ("Monday", "星期一"),
    ("Tuesday", "星期二"),
    ("Wednesday", "星期三"),
    ("Thursday", "星期四"),
    ("Friday", "星期五"),
    ("Saturday", "星期六"),
    ("Sunday", "星期日"),
]
MAX_DAYS = 400_000


def date(action: str, a: str, b: str = "") -> Result:
    """``between``: days from a to b. ``after``, ``before``: b days from a. ``weekday`` of a.

    Dates are written ``2024-03-10``.
    """
    first = _day(a)
    if action == "weekday":
        en, zh = WEEKDAYS[first.weekday()]
        return _result(_text(first), en, _text(en), [Step(f"It is a {en}.", f"这一天是{zh}。")])
    if action == "between":
        second = _day(b)
        days = (second - first).days
        step = Step("The first day is not counted, the last one is.", "不计起始日，计结束日。")
        held = first + timedelta(days=days) == second
        check = Check(f"{a} plus {days} days is {b}", f"{a} 加 {days} 天是 {b}", held)
        question = rf"{_text(first)} \to {_text(second)}"
        latex = rf"{days}\ \text{{days}}"
        return _result(question, str(days), latex, [step], check)
    if not re.fullmatch(r"\d{1,6}", b) or int(b) > MAX_DAYS:
        raise MathsProblem(
            f"b={b[:20]!r}: the number of days must be whole and at most {MAX_DAYS}",
            f"b={b[:20]!r}：天数必须是不超过 {MAX_DAYS} 的整数",
        )
    days = int(b) if action == "after" else -int(b)
    try:
        found = first + timedelta(days=days)
    except OverflowError as error:
        raise MathsProblem("that is beyond the calendar", "超出日历范围") from error
    en, zh = WEEKDAYS[found.weekday()]
    sign = "+" if days >= 0 else "-"
    question = rf"{_text(first)} {sign} {abs(days)}\ \text{{days}}"
    step = Step(f"It is a {en}.", f"这一天是{zh}。")
    return _result(question, found.isoformat(), _text(found), [step])


def _result(
    question: str, exact: str, latex: str, steps: list[Step], check: Check | None = None
) -> Result:
    return Result(
        operation="date", question=question, exact=exact, latex=latex, steps=steps, check=check,
        computed_by="Python datetime",
    )  # fmt: skip


def _text(what: Day | str) -> str:
    return rf"\text{{{what}}}"


def _day(text: str) -> Day:
    try:
        return Day.fromisoformat(text.strip())
    except ValueError as error:
        raise MathsProblem(
            f"{text[:20]!r} is not a date of the calendar; write 2024-03-10",
            f"{text[:20]!r} 不是日历上的日期；请写成 2024-03-10",
        ) from error
