# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: interest, loans and savings. Every number of the question must have found its place."""

import re
from decimal import Decimal

from hunyuan.maths import numerals
from hunyuan.maths.call import ToolCall, tool_call

RATE = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:%|percent|per cent)|百分之\s*(\d+(?:\.\d+)?)", re.IGNORECASE
)
YEARS = re.compile(
    r"(\d+(?:\.\d+)?)\s*(?:-\s*)?(?:years?|yrs?|年)(?!利率|化|息|期利率)", re.IGNORECASE
)
MONTHS = re.compile(r"(\d+)\s*(?:-\s*)?(?:months?|个月|期)", re.IGNORECASE)
MONEY = re.compile(r"(\d+(?:\.\d+)?)\s*(k\b|million\b|thousand\b)?", re.IGNORECASE)
SCALES = {"": 1, "k": 1000, "thousand": 1000, "million": 10**6}
PERIODS: list[tuple[str, int]] = [
    (r"semi-?\s?annual(?:ly)?|half-?\s?yearly|twice a year|每半年", 2),
    (r"quarterly|every quarter|每季", 4),
    (r"monthly|every month|each month|per month|每月|按月", 12),
    (r"weekly|every week|每周", 52),
    (r"daily|every day|每[日天]", 365),
    (r"annual(?:ly)?|yearly|every year|each year|per year|a year|每年|按年", 1),
]
INTEREST = re.compile(
    r"how much interest|(?:the |total )?interest (?:earned|paid|only|on|is|will)|compound interest|simple interest|多少利息|利息(?:是|有|共|总共|为|一共)?\s*(?:多少|几)|的?利息$|利息(?:是|为)?$",
    re.IGNORECASE,
)
TOTAL = re.compile(
    r"grow|total|amount|balance|worth|will (?:i|you|it|there) (?:have|be)|become|本息|本利|一共|总共|取出|取回|拿到|有多少钱|多少钱|变成|终值|(?:是|有|为)多少(?!利息)",
    re.IGNORECASE,
)


def money(text: str) -> ToolCall | None:
    """``$1000 at 5% compounded monthly for 10 years``, ``本金 1 万，年利率 3%，复利 5 年``."""
    if not re.search(
        r"interest|compound|loan|mortgage|grow|double|deposit|invest|sav|利率|利息|复利|单利|贷款|房贷|月供|存款|存|本金",
        text,
        re.IGNORECASE,
    ):
        return None
    text = numerals.digits(re.sub(r"(?<=\d),(?=\d{3})", "", text))
    text = re.sub(r"百分之\s*(\d+(?:\.\d+)?)", r"\1%", text)
    rates = RATE.findall(text)
    if len(rates) != 1:
        return None
    rate = str(Decimal(rates[0][0] or rates[0][1]) / 100)
    bare = RATE.sub(" ", text)
    years = YEARS.findall(bare)
    bare = YEARS.sub(" ", bare)
    months = MONTHS.findall(bare)
    bare = MONTHS.sub(" ", bare)
    amounts = [Decimal(n) * SCALES[(unit or "").lower()] for n, unit in MONEY.findall(bare)]
    if len(years) + len(months) > 1:
        return None
    if _per_month(text):
        return None
    time = years[0] if years else (f"{months[0]}/12" if months else "")
    if (
        re.search(r"\bdouble|翻倍|翻一番|翻番", text, re.IGNORECASE)
        and not time
        and len(amounts) <= 1
    ):
        return _doubling(text, rate)
    if not time or len(amounts) != 1:
        return None
    principal = f"{amounts[0]:f}"
    if re.search(r"loan|mortgage|borrow|贷款|房贷|月供|按揭", text, re.IGNORECASE):
        return _loan(text, principal, rate, time)
    return _growth(text, principal, rate, time)


def _per_month(text: str) -> bool:
    """A rate by the month is another formula."""
    return bool(
        re.search(r"%\s*(?:per|a|each) month|月利率|月息|per month at", text, re.IGNORECASE)
    )


def _frequency(text: str) -> int | None:
    spoken = re.sub(
        r"annual (?:interest )?rate|(?:per|a) (?:year|annum)|年利率|年化",
        " ",
        text,
        flags=re.IGNORECASE,
    )
    found = {
        n
        for pattern, n in PERIODS
        if re.search(rf"(?<![a-z-])(?:{pattern})", spoken, re.IGNORECASE)
    }
    if 2 in found:
        found.discard(1)
    return (found.pop() if len(found) == 1 else None) if found else 1


def _growth(text: str, principal: str, rate: str, time: str) -> ToolCall | None:
    simple = re.search(r"simple|单利", text, re.IGNORECASE)
    compound = re.search(r"compound|复利|利滚利", text, re.IGNORECASE)
    if bool(simple) == bool(compound):
        return None
    wants_total = bool(
        TOTAL.search(
            re.sub(
                r"(?:多少|几)\s*利息|利息(?:一共|总共|共)?(?:是|有|为)?(?:多少|几).*", "利息", text
            )
        )
    )
    wants_interest = bool(INTEREST.search(text)) and not (
        wants_total
        and not re.search(
            r"how much interest|利息\s*(?:是|有|一共|共)?\s*(?:多少|几)|多少利息|interest earned",
            text,
            re.IGNORECASE,
        )
    )
    if simple:
        gained = f"{principal}*{rate}*{time}"
        return (
            tool_call(
                "calculate", expression=gained if wants_interest else f"{principal} + {gained}"
            )
            if wants_interest or wants_total
            else None
        )
    if re.search(r"continuous|连续", text, re.IGNORECASE):
        whole = f"{principal}*exp({rate}*{time})"
    else:
        n = _frequency(text)
        if n is None:
            return None
        whole = (
            f"{principal}*(1 + {rate})^({time})"
            if n == 1
            else f"{principal}*(1 + {rate}/{n})^({n}*{time})"
        )
    if wants_interest:
        return tool_call("calculate", expression=f"{whole} - {principal}", digits="12")
    return tool_call("calculate", expression=whole, digits="12")


def _loan(text: str, principal: str, rate: str, time: str) -> ToolCall | None:
    if not re.search(
        r"payment|repay|instal?ment|pay (?:each|every|per|a) month|月供|每月还|每月.{0,4}还|月还款",
        text,
        re.IGNORECASE,
    ):
        return None
    if re.search(
        r"等额本金|interest[- ]only|down payment|首付", text, re.IGNORECASE
    ) or not re.search(r"month|月", text, re.IGNORECASE):
        return None
    if re.search(r"total (?:interest|paid|payment)|总利息|一共还|总共还", text, re.IGNORECASE):
        return None
    return tool_call(
        "formula", name="loan_payment", values=f"P = {principal}, r = {rate}/12, n = 12*{time}"
    )


def _doubling(text: str, rate: str) -> ToolCall | None:
    if not re.search(
        r"how long|how many years|多久|多长时间|几年|多少年", text, re.IGNORECASE
    ) or re.search("simple|单利", text):
        return None
    if re.search(r"continuous|连续", text, re.IGNORECASE):
        return tool_call("calculate", expression=f"ln(2)/{rate}", digits="10")
    n = _frequency(text)
    if n is None:
        return None
    return tool_call("calculate", expression=f"ln(2)/({n}*ln(1 + {rate}/{n}))", digits="10")
