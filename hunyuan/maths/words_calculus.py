# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: derivatives, integrals, limits, series, sums."""

import re
from fractions import Fraction
from itertools import pairwise

from hunyuan.maths import slots
from hunyuan.maths.call import ToolCall, tool_call

# -- derivatives ---------------------------------------------------------------------------------

ORDERS = {
    "first": "1", "second": "2", "third": "3", "fourth": "4", "fifth": "5", "1st": "1", "2nd": "2",
    "3rd": "3", "4th": "4", "5th": "5", "一": "1", "二": "2", "两": "2", "三": "3", "四": "4", "五": "5",
    "1": "1", "2": "2", "3": "3", "4": "4", "5": "5", "6": "6", "六": "6", "double": "2",
}  # fmt: skip
AT = re.compile(
    r"\s*,?\s*(?:evaluated\s+)?(?:at|when|where|for)\s+(?:the point\s+)?([a-z])\s*=\s*([^,，=]+)$|"
    r"\s*,?\s*at\s+(?:the point\s+)?()([-+]?[\w./()]+)$|"
    r"\s*[,，]?\s*(?:在|当)\s*(?:点)?\s*([a-z])\s*=\s*([^,，=]+?)\s*(?:处|时|点处?|这一点)?\s*(?:的值)?$",
    re.IGNORECASE,
)
WITH_RESPECT = re.compile(
    r"\s*,?\s*(?:with respect to|w\.?r\.?t\.?|by)\s+([a-z]|theta)$|\s*[,，]?\s*求?(?:关于|对)\s*([a-z])\s*(?:的|求)?$",
    re.IGNORECASE,
)
ORDER = r"(?:(first|second|third|fourth|fifth|1st|2nd|3rd|4th|5th)(?:[- ]order)?\s+)?"
DERIVATIVES = [
    re.compile(rf"^(?:the )?{ORDER}(?:partial )?derivative of\s+(.+)$", re.IGNORECASE),
    re.compile(r"^()(?:differentiate|derive)\s+(.+)$", re.IGNORECASE),
    re.compile(
        r"^(?:[d∂](?:\^(\d))?\s*/\s*[d∂]([a-z])(?:\^\d)?)\s*(?:of\s+)?\[?(.+?)\]?$", re.IGNORECASE
    ),
    re.compile(r"^(?:求)?\s*([一二两三四五六1-6])\s*阶(?:导数|导函数|导)\s*[:：]?\s*(.+)$"),
    re.compile(
        r"^(?:对|求)?\s*(.+?)\s*(?:的)?\s*([一二两三四五六1-6])\s*阶(?:导数|导函数|偏导数?|导)$"
    ),
    re.compile(
        r"^(?:对|求)?\s*(.+?)\s*(?:的|求)\s*()(?:导数|导函数|微分|偏导数?|一阶导数?)(?:是|为)?$"
    ),
    re.compile(r"^(?:对|把|将)?\s*(.+?)\s*()(?:求导数?|求微分)$"),
    re.compile(r"^(?:求导数?|求微分|导数|微分)\s*[:：]?\s*(.+)()$"),
    re.compile(r"^(.+?)\s*()(?:derivative)$", re.IGNORECASE),
]
IN_THE_MIDDLE = re.compile(
    r"^(?:函数|曲线)?\s*(.+?)\s*[,，]?\s*在\s*(?:点)?\s*([a-z])\s*=\s*([^,，=]+?)\s*(?:处|时|点)?\s*的?\s*(?:导数|切线斜率|斜率|导数值)(?:值)?$"
)
TANGENT = re.compile(
    r"^(?:the )?slope of (?:the tangent (?:line )?(?:to|of)\s+)?(.+?)\s+at\s+([a-z])\s*=\s*(\S+)$",
    re.IGNORECASE,
)


def derivatives(text: str) -> ToolCall | None:
    """``derivative of sin(x)^2``, ``x^3 在 x=2 处的导数``."""
    for pattern in (IN_THE_MIDDLE, TANGENT):
        if (found := pattern.match(text)) and (body := slots.expression(found[1])):
            point = slots.number(found[3])
            if point:
                return tool_call("differentiate", expression=body, variable=found[2], at=point)
    for index, pattern in enumerate(DERIVATIVES):
        found = pattern.match(text)
        if not found:
            continue
        order = variable = ""
        if index in (0, 3):
            order, body = found[1] or "", found[2]
        elif index == 1:
            body = found[2]
        elif index == 2:
            order, variable, body = found[1] or "", found[2], found[3]
        else:
            body, order = found[1], found[2]
        if call := _derivative(body, ORDERS.get(order.lower(), ""), variable):
            return call
    return None


def _derivative(body: str, order: str, variable: str) -> ToolCall | None:
    point = ""
    if (found := AT.search(body)) and (
        value := slots.number(found[2] or found[4] or found[6] or "")
    ):
        point, body = value, body[: found.start()]
        variable = variable or found[1] or found[5] or ""
    if found := WITH_RESPECT.search(body):
        variable, body = found[1] or found[2], body[: found.start()]
    expression = slots.expression(body)
    if expression is None:
        return None
    return tool_call(
        "differentiate", expression=expression, variable=variable, order=order, at=point
    )


# -- extreme values and areas --------------------------------------------------------------------

EXTREME = r"(?:local |relative |global |absolute )?(?:extrema|extremum|extreme (?:values?|points?)|(?:maxima|maximums?) and (?:the )?(?:minima|minimums?)|minima and maxima|turning points?|critical points?)"
EXTREMA = [
    re.compile(rf"^(?:the )?(?:all )?{EXTREME}\s+(?:of|for|on)\s+(.+)$", re.IGNORECASE),
    re.compile(r"^(?:函数|曲线)?\s*(.+?)\s*的?\s*(?:所有|全部)?(?:极值点?|极大值(?:和|与|及|、)极小值|极大极小值|驻点)(?:点)?(?:是|为|有哪些)?$"),
]  # fmt: skip
AREA_BETWEEN = [
    re.compile(r"^(?:the )?area\s+(?:of the region\s+)?(?:between|enclosed by|bounded by|enclosed between)\s+(?:the )?(?:curves?|graphs?|lines?|parabolas?|functions?)?\s*(?:of\s+)?(.+?)\s+and\s+(?:the )?(?:curve|line|graph|parabola)?\s*(?:of\s+)?(.+)$", re.IGNORECASE),
    re.compile(r"^(?:由)?(?:曲线|抛物线|直线|函数)?\s*(.+?)\s*(?:和|与|及|、)\s*(?:曲线|抛物线|直线|函数)?\s*(.+?)\s*(?:所)?(?:围成|围|之间)的?(?:封闭)?(?:图形|区域|部分)?的?面积$"),
]  # fmt: skip


def extrema(text: str) -> ToolCall | None:
    """``local extrema of x^3 - 3x``, ``函数 x^3-3x 的极值``."""
    for pattern in EXTREMA:
        if (found := pattern.match(text)) and (body := slots.expression(found[1])):
            return tool_call("extrema", expression=body)
    return None


def areas(text: str) -> ToolCall | None:
    """``area between y = x^2 and y = x``, ``曲线 y=x² 和 y=x 围成的面积``."""
    for pattern in AREA_BETWEEN:
        found = pattern.match(text)
        if not found:
            continue
        second, lower, upper = found[2], "", ""
        for bounds in BOUNDS:
            if inner := bounds.search(second):
                lower, upper = inner[1], inner[2]
                second = second[: inner.start()]
                break
        if re.fullmatch(r"(?:the )?x[- ]?axis|x\s*轴", second.strip(), re.IGNORECASE):
            second = "0"
        curves = slots.expression(found[1]), slots.expression(second)
        if curves[0] and curves[1]:
            return tool_call(
                "area",
                expressions=", ".join(c for c in curves if c),
                lower=_bound(lower) or "",
                upper=_bound(upper) or "",
            )
    return None


# -- integrals -----------------------------------------------------------------------------------

B = r"([-+]?[^\s,，]+?)"
BOUNDS = [
    re.compile(rf"\s*,?\s*(?:from|between|over)\s+(?:[a-z]\s*=\s*)?{B}\s+(?:to|and)\s+{B}$", re.IGNORECASE),
    re.compile(r"\s*,?\s*(?:on|over|in)\s+(?:the interval\s+)?[\[(]\s*([^,\[\]]+),\s*([^\[\]]+?)\s*[\])]$", re.IGNORECASE),
    re.compile(r"\s*,?\s*for\s+[a-z]\s+from\s+" + B + r"\s+to\s+" + B + "$", re.IGNORECASE),
    re.compile(r"\s*[,，]?\s*在\s*(?:区间)?\s*[\[(]\s*([^,，\[\]]+?)\s*[,，]\s*([^\[\]]+?)\s*[\])]\s*(?:上|内|区间上?|区间内)?$"),
    re.compile(rf"\s*[,，]?\s*(?:[a-z]\s*)?从\s*{B}\s*(?:积分)?到\s*{B}(?:\s*(?:上|之间))?$"),
    re.compile(r"\s*[,，]?\s*(?:积分)?(?:区间|上下限|下上限)(?:为|是)?\s*[\[(]?\s*([^,，\[\]]+?)\s*[,，]\s*([^\[\]]+?)\s*[\])]?$"),
]  # fmt: skip
INTEGRALS = [
    re.compile(r"^(?:the )?(?:(?:in)?definite |improper )?(?:integral|integrals|antiderivative|anti-derivative|primitive)\s+(?:of\s+)?(.+)$", re.IGNORECASE),
    re.compile(r"^integrate\s+(.+)$", re.IGNORECASE),
    re.compile(r"^(?:the )?area under (?:the (?:curve|graph) (?:of )?)?(.+)$", re.IGNORECASE),
    re.compile(r"^(?:曲线|函数)?\s*(.+?)\s*(?:之间)?(?:的)?(?:曲线下)的?面积$"),
    re.compile(r"^(?:对)?\s*(.+?)\s*的?\s*(?:不定积分|定积分|积分|原函数|反导数)(?:是|为|值)?$"),
    re.compile(r"^(?:对|把|将)?\s*(.+?)\s*(?:求积分|积分|求不定积分|求定积分)$"),
    re.compile(r"^(?:求)?(?:不定积分|定积分|积分|原函数)\s*[:：]?\s*(.+)$"),
]  # fmt: skip
SIGN = re.compile(
    r"^∫\s*(?:_\s*[{(]?\s*([^\s^_{}]+?)\s*[})]?\s*\^\s*[{(]?\s*([^\s^_{}]+?)\s*[})]?\s+|"
    r"_?\s*[\[(]\s*([^,]+?)\s*,\s*([^\])]+?)\s*[\])]\s*|"
    r"\(?\s*从?\s*(\S+?)\s*到\s*([^\s)]+?)(?:\s*\)\s*|\s+)|(?:from\s+)?(\S+)\s+to\s+(\S+)\s+)?(.+?)\s*d\s*([a-z])$"
)
SIGN_AFTER = re.compile(
    rf"^∫\s*(.+?)\s*d\s*([a-z])\s*,?\s*(?:from|从)\s*{B}\s*(?:to|到)\s*{B}$", re.IGNORECASE
)
BIG_SUM = re.compile(
    r"^(∑|Σ|∏)\s*_?\s*[{(]?\s*([a-z])\s*=\s*([^\s^{}()]+?)\s*[})]?\s*\^\s*[{(]?\s*([^\s^{}()]+?)\s*[})]?\s+(.+)$"
)
MEASURE = re.compile(r"(?<![a-z])\s*d([a-zθ])$")
LEAD_BOUNDS = re.compile(
    r"^(?:从\s*(\S+?)\s*到\s*(\S+?)\s*(?:对)?|from\s+(\S+)\s+to\s+(\S+)\s+(?:of\s+)?)\s*(.+)$",
    re.IGNORECASE,
)


def integrals(text: str) -> ToolCall | None:
    """``integrate x^2 from 0 to 1``, ``sin x 的不定积分``, ``∫ x^2 dx``."""
    text = re.sub(r"\s+(?:的?值)$", "", text)
    sign = re.sub(
        r"^(?:求)?(?:不定积分|定积分|积分|the integral|integral|integrate)\s*[:：]?\s*(?=∫)",
        "",
        text,
    )
    if found := SIGN_AFTER.match(sign):
        return _integral(found[1], found[3], found[4], found[2])
    if found := SIGN.match(sign):
        lower, upper = (
            next((g for g in pair if g), "")
            for pair in (found.group(1, 3, 5, 7), found.group(2, 4, 6, 8))
        )
        return _integral(found[9], lower, upper, found[10])
    for pattern in INTEGRALS:
        found = pattern.match(text)
        if not found:
            continue
        body, lower, upper = found[1], "", ""
        if lead := LEAD_BOUNDS.match(body):
            lower, upper = lead[1] or lead[3], lead[2] or lead[4]
            body = lead[5]
        else:
            for bounds in BOUNDS:
                if inner := bounds.search(body):
                    lower, upper, body = inner[1], inner[2], body[: inner.start()]
                    break
        if call := _integral(body, lower, upper, ""):
            return call
    return None


def _integral(body: str, lower: str, upper: str, variable: str) -> ToolCall | None:
    body = re.sub(r"\s*(?:的|在)$", "", body.strip())
    if found := WITH_RESPECT.search(body):
        variable, body = found[1] or found[2], body[: found.start()]
    if (found := MEASURE.search(body)) and slots.expression(body[: found.start()]):
        variable, body = found[1], body[: found.start()]
    expression = slots.expression(body)
    bounds = [_bound(text) for text in (lower, upper)]
    if expression is None or (lower and None in bounds):
        return None
    return tool_call(
        "integrate",
        expression=expression,
        variable=variable,
        lower=bounds[0] or "",
        upper=bounds[1] or "",
    )


def _bound(text: str | None) -> str | None:
    """A number, an infinity or a letter."""
    if not text:
        return None
    text = re.sub(
        r"^(?:positive |\+)?infinity$|^正?无穷大?$|^\+?∞$", "oo", text.strip(), flags=re.IGNORECASE
    )
    text = re.sub(
        r"^(?:negative |minus |-)infinity$|^负无穷大?$|^-∞$", "-oo", text, flags=re.IGNORECASE
    )
    return slots.expression(text)


# -- limits --------------------------------------------------------------------------------------

ARROW = r"(?:->|→|-->|=>|approaches|goes to|tends to|tending to|going to|approaching|to|趋近于|趋于|趋向于?|接近于?|趋近|\\to)"
INFINITE = r"[+-]?\s*(?:positive |negative |minus )?infinity|[正负+-]?无穷大?|[+-]?∞|[+-]?oo"
TO = rf"(?P<v>[a-z])\s*{ARROW}\s*(?P<p>{INFINITE}|[^,，\s)）时的]+)"
BODY = r"(?P<b>.+?)"
SIDE = r"(?:\s*(?:from the\s+)?(?P<s1>right|left|above|below)(?:\s*-?\s*(?:hand )?side)?|\s*的?(?P<s2>右|左)侧?)?"
LIMITS = [
    re.compile(rf"^(?:the )?(?:(?P<s3>right|left)[- ]hand(?:ed)? )?limit (?:of\s+)?{BODY}[\s,]+(?:as|when|for|where)\s+{TO}{SIDE}$", re.IGNORECASE),
    re.compile(rf"^(?:the )?(?:limit|lim)(?: as)?\s*_?\s*[({{\[]?\s*{TO}\s*[)}}\]]?{SIDE}\s*,?\s*(?:of|for|,)?\s+{BODY}$", re.IGNORECASE),
    re.compile(rf"^(?:the )?lim\s*_?\s*[({{\[]\s*{TO}\s*[)}}\]]\s*{BODY}$", re.IGNORECASE),
    re.compile(rf"^当?\s*{TO}\s*(?:时)?[,，]?\s*(?:函数)?\s*{BODY}\s*的?(?P<s3>左|右)?极限(?:值)?$"),
    re.compile(rf"^(?:函数)?\s*{BODY}\s*[,，]?\s*(?:在|当)?\s*{TO}\s*(?:时|处)?\s*的?(?P<s3>左|右)?极限(?:值)?$"),
    re.compile(rf"^(?:求)?极限\s*[:：]?\s*lim\s*_?\s*[({{\[]?\s*{TO}\s*[)}}\]]?\s*{BODY}$"),
    re.compile(rf"^(?:函数)?\s*{BODY}\s*在\s*(?P<v>[a-z])\s*=\s*(?P<p>\S+?)\s*处?的(?P<s3>左|右)?极限(?:值)?$"),
]  # fmt: skip


def limits(text: str) -> ToolCall | None:
    """``limit of sin(x)/x as x approaches 0``, ``x 趋于 0 时 sin(x)/x 的极限``."""
    if not re.search(r"lim|极限", text, re.IGNORECASE):
        return None
    for pattern in LIMITS:
        found = pattern.match(text)
        if not found:
            continue
        groups = found.groupdict()
        side = groups.get("s1") or groups.get("s2") or groups.get("s3")
        variable, point, body = groups["v"], groups["p"], groups["b"]
        sign = {"right": "+", "above": "+", "右": "+", "left": "-", "below": "-", "左": "-"}.get(
            (side or "").lower(), ""
        )
        if marked := re.match(r"^(.+?)\^?([+-])$", point):
            point, sign = marked[1], marked[2]
        expression, target = slots.expression(body), _bound(point)
        if expression and target:
            return tool_call(
                "limit", expression=expression, variable=variable, point=target, side=sign
            )
    return None


# -- series --------------------------------------------------------------------------------------

NTH = r"(?:to|up to|upto|through|until|of)\s+(?:and including\s+)?(?:the\s+)?(?:order|degree|power|[a-z]\^)?\s*\(?(\d+)\)?(?:th|rd|nd|st)?(?:[- ]*(?:order|degree|power))?(?:\s*terms?)?"
POINT = r"(?:at|around|about|near)\s+(?:the point\s+)?(?:[a-z]\s*=\s*)?(\S+?)"
SERIES = [
    re.compile(
        r"^(?:把|将|函数)?\s*(.+?)\s*(?:在|关于)\s*(?:点)?\s*(?:[a-z]\s*=\s*)?(\S+?)\s*(?:处|点处?|附近)?\s*的?\s*"
        r"([一二三四五六七八九十\d]+)\s*阶(?:泰勒|麦克劳林)(?:级数|展开式?|公式|多项式)*$"
    ),
    re.compile(
        r"^(?:把|将|函数)?\s*(.+?)\s*的?\s*()([一二三四五六七八九十\d]+)\s*阶(?:泰勒|麦克劳林)(?:级数|展开式?|公式|多项式)*$"
    ),
    re.compile(rf"^(?:the )?(?:taylor|maclaurin|power)?\s*(?:series|expansion|polynomial)(?:\s+(?:expansion|approximation))?\s*(?:of|for)\s+(.+?)(?:\s+{POINT})?(?:[\s,]+{NTH})?$", re.IGNORECASE),
    re.compile(rf"^(?:expand|develop)\s+(.+?)\s+(?:in|into|as)\s+(?:a\s+)?(?:taylor|maclaurin|power) series(?:\s+{POINT})?(?:[\s,]+{NTH})?$", re.IGNORECASE),
    re.compile(r"^(?:把|将|函数)?\s*(.+?)\s*(?:在|关于)\s*(?:点)?\s*(?:[a-z]\s*=\s*)?(\S+?)\s*(?:处|点处?|附近)\s*(?:展开|泰勒展开)(?:成|为)?\s*(?:到|至)?\s*(?:第|[a-z]\s*的?)?\s*(?:[a-z]\^)?([一二三四五六七八九十\d]+)\s*(?:阶|次|项)?(?:方|幂|多项式)?$"),
    re.compile(r"^(?:把|将|函数)?\s*(.+?)\s*(?:在|关于)\s*(?:点)?\s*(?:[a-z]\s*=\s*)?(\S+?)\s*(?:处|点处?|附近)?\s*的?\s*(?:泰勒|幂级数|级数|麦克劳林)(?:级数|展开式?|公式|多项式|展开成?)*\s*(?:展开)?\s*[,，(（]?\s*(?:到|至|展开到|前|取到?)?\s*(?:第)?\s*(?:x\^?)?(\d+)?\s*(?:阶|次|项)?[)）]?$"),
    re.compile(r"^(?:把|将|函数)?\s*(.+?)\s*的?\s*()(?:泰勒|麦克劳林|幂级数)(?:级数|展开式?|公式|多项式)*\s*[,，(（]?\s*(?:到|至|展开到|前|取到?)?\s*(?:第)?\s*(?:[a-z]\^)?(\d+)?\s*(?:阶|次|项)?[)）]?$"),
]  # fmt: skip


def series(text: str) -> ToolCall | None:
    """``taylor series of sin x at 0 to order 5``, ``e^x 在 x=0 处的泰勒展开``."""
    if not re.search(
        r"series|taylor|maclaurin|泰勒|麦克劳林|级数|expansion|展开", text, re.IGNORECASE
    ):
        return None
    for pattern in SERIES:
        found = pattern.match(text)
        if not found:
            continue
        expression, point = slots.expression(found[1]), _bound(found[2]) if found[2] else "0"
        if expression and point:
            # "To order 5" includes the fifth power; SymPy's order is the first power left out.
            power = slots.number(found[3]) if found[3] else None
            order = str(int(power) + 1) if power and power.isdigit() else ""
            return tool_call("series", expression=expression, point=point, order=order)
    return None


# -- sums and products ---------------------------------------------------------------------------

RANGE_EN = rf"(?:for|from|as|where|with|over)\s+(?:([a-z])\s*(?:=|from)\s*)?{B}\s*(?:to|\.\.|through)\s*{B}"
SUMS = [
    re.compile(rf"^(?:the )?(sum|summation|product) (?:of\s+)?(.+?)\s*,?\s*{RANGE_EN}$", re.IGNORECASE),
    re.compile(rf"^(?:the )?(sum|summation|product)\s+{RANGE_EN}\s+of\s+(.+)$", re.IGNORECASE),
    re.compile(rf"^()(.+?)\s*[,，]?\s*(?:对|当)?\s*([a-z])\s*(?:=|从)\s*{B}\s*(?:到|至)\s*{B}\s*(?:的)?(?:求和|的?和|累加|的?总和)$"),
    re.compile(rf"^()(?:求和|求?\s*[∑Σ])\s*[:：]?\s*([a-z])\s*(?:=|从)\s*{B}\s*(?:到|至)\s*{B}(?:\s*(?:的|时|[:：,，])\s*|\s+)(.+)$"),
    re.compile(rf"^()(?:求和)\s*[:：]?\s*(.+?)\s*[,，]\s*([a-z])\s*(?:=|从)\s*{B}\s*(?:到|至)\s*{B}$"),
    re.compile(rf"^(积)?(?:对)?\s*([a-z])\s*从\s*{B}\s*到\s*{B}\s*(?:时)?\s*[,，]?\s*(?:对)?\s*(.+?)\s*(?:求和|的和)$"),
    re.compile(rf"^(product)?(.+?)\s*[,，]?\s*(?:对|当)?\s*([a-z])\s*(?:=|从)\s*{B}\s*(?:到|至)\s*{B}\s*(?:的)?(?:求积|连乘积?|的?乘积|的积)$"),
]  # fmt: skip
COUNT = r"[0-9]+|[a-z]|[零一二三四五六七八九十百千万]+"
NATURALS = [
    (re.compile(r"^(?:the )?sum of (?:the )?(?:first\s+)(\w+)\s+(?:natural|positive|counting)?\s*(?:numbers|integers|positive integers|natural numbers|whole numbers)$", re.IGNORECASE), "k"),
    (re.compile(r"^(?:the )?sum of (?:the )?first\s+(\w+)\s+(?:positive )?odd (?:numbers|integers)$", re.IGNORECASE), "2k-1"),
    (re.compile(r"^(?:the )?sum of (?:the )?first\s+(\w+)\s+(?:positive )?even (?:numbers|integers)$", re.IGNORECASE), "2k"),
    (re.compile(r"^(?:the )?sum of (?:the )?first\s+(\w+)\s+(?:perfect )?squares$", re.IGNORECASE), "k^2"),
    (re.compile(r"^(?:the )?sum of (?:the )?first\s+(\w+)\s+(?:perfect )?cubes$", re.IGNORECASE), "k^3"),
    (re.compile(rf"^前\s*({COUNT})\s*个\s*(?:自然数|正整数|整数)的?(?:之)?和$"), "k"),
    (re.compile(rf"^前\s*({COUNT})\s*个\s*(?:正)?奇数的?(?:之)?和$"), "2k-1"),
    (re.compile(rf"^前\s*({COUNT})\s*个\s*(?:正)?偶数的?(?:之)?和$"), "2k"),
    (re.compile(rf"^前\s*({COUNT})\s*个\s*(?:自然数|正整数)?的?平方数?的?(?:之)?和$"), "k^2"),
]  # fmt: skip
POWERS = re.compile(
    rf"^(?:从)?\s*1\s*到\s*({COUNT})\s*(?:各数|所有整数|的?自然数)?的?\s*(平方|立方)(?:的?(?:总)?和|相加)$"
)
POWERS_EN = re.compile(
    r"^(?:the )?sum of (?:the )?(squares|cubes) (?:from|of)\s+(\d+)\s+to\s+(\d+|[a-z])$",
    re.IGNORECASE,
)
FROM_TO = [
    re.compile(r"^(?:the )?sum of (?:all )?(?:the )?(?:numbers|integers|natural numbers|whole numbers)\s+(?:from|between)\s+(\w+)\s+(?:to|and)\s+(\w+)$", re.IGNORECASE),
    re.compile(r"^(?:the )?sum (?:from|of)\s+(\d+)\s+(?:to|through)\s+(\w+)$", re.IGNORECASE),
    re.compile(rf"^(?:从)?\s*(\d+)\s*(?:加)?到\s*({COUNT})\s*(?:的)?(?:所有)?(?:的)?(?:自然数|整数|正整数|连续自然数|数)?(?:的|之)?(?:总?和|求和|相加|累加)$"),
    re.compile(rf"^(?:从)?\s*(\d+)\s*(?:一直)?加到\s*({COUNT})$"),
]  # fmt: skip
DOTS = re.compile(r"^([^\s+]+)\s*\+\s*([^\s+]+)\s*\+\s*(?:([^\s+.…⋯]+)\s*\+\s*)?(?:\.{2,}|…+|⋯+|\\cdots|\\dots|\\ldots)\s*\+\s*(\w+(?:\^\d)?|\S+)$")  # fmt: skip


def sums(text: str) -> ToolCall | None:
    """``sum of k^2 from k=1 to 10``, ``1 到 100 的和``, ``1+2+...+100``."""
    if call := _dots(text):
        return call
    for pattern, term in NATURALS:
        if (found := pattern.match(text)) and (
            count := slots.number(found[1]) or slots.variable(found[1])
        ):
            return tool_call("sum", expression=term, variable="k", lower="1", upper=count)
    if found := POWERS_EN.match(text):
        power = {"squares": "2", "cubes": "3"}[found[1].lower()]
        return tool_call(
            "sum", expression=f"k^{power}", variable="k", lower=found[2], upper=found[3]
        )
    if found := POWERS.match(text):
        power = "2" if found[2] == "平方" else "3"
        count = slots.number(found[1]) or found[1]
        return tool_call("sum", expression=f"k^{power}", variable="k", lower="1", upper=count)
    if (found := BIG_SUM.match(text)) and (body := slots.expression(found[5])):
        low, high = _bound(found[3]), _bound(found[4])
        if low and high:
            name = "product" if found[1] == "∏" else "sum"
            return tool_call(name, expression=body, variable=found[2], lower=low, upper=high)
    for pattern in FROM_TO:
        if found := pattern.match(text):
            low, high = slots.number(found[1]), slots.number(found[2]) or slots.variable(found[2])
            if low and high:
                return tool_call("sum", expression="k", variable="k", lower=low, upper=high)
    for index, pattern in enumerate(SUMS):
        found = pattern.match(text)
        if not found:
            continue
        if index in (1, 3, 5):
            name, variable, low, high, body = found.groups()
        else:
            name, body, variable, low, high = found.groups()
        expression, lower, upper = slots.expression(body), _bound(low), _bound(high)
        if expression and lower and upper:
            product = (name or "").lower() in ("product", "积") or index == 6
            return tool_call(
                "product" if product else "sum",
                expression=expression,
                variable=variable or "",
                lower=lower,
                upper=upper,
            )
    return None


ENDLESS = re.compile(
    r"^(.+?)\s*\+\s*(?:\.{2,}|…+|⋯+|\\cdots|\\dots|\\ldots)\s*(?:的?(?:总|之)?和|to infinity|and so on|无穷)?$"
)


def _geometric(text: str) -> ToolCall | None:
    """``1/2 + 1/4 + 1/8 + ...``: three terms or more of one ratio below 1."""
    text = re.sub(
        r"^(?:the )?(?:infinite )?(?:sum|series)\s*(?:of\s+)?(?=[\d-])",
        "",
        text,
        flags=re.IGNORECASE,
    )
    found = ENDLESS.match(text)
    if not found:
        return None
    try:
        terms = [Fraction(part.replace(" ", "")) for part in found[1].split("+")]
    except (ValueError, ZeroDivisionError):
        return None
    if len(terms) < 3 or 0 in terms:
        return None
    ratios = {after / before for before, after in pairwise(terms)}
    if len(ratios) != 1 or not abs(ratio := ratios.pop()) < 1:
        return None
    return tool_call(
        "sum", expression=f"({terms[0]})*({ratio})^k", variable="k", lower="0", upper="oo"
    )


def _dots(text: str) -> ToolCall | None:
    """``1+2+3+...+100``, ``2+4+6+...+100``, ``1^2+2^2+...+n^2``, ``1/2+1/4+1/8+...``."""
    if call := _geometric(text):
        return call
    found = DOTS.match(
        re.sub(
            r"^(?:等[差比])?(?:数列|级数)?(?:求和|的?和)\s*[:：]?\s*(?=\d)|^(?:the )?sum (?:of )?(?:the )?(?:series )?(?=\d)",
            "",
            text,
        )
    )
    if not found:
        return None
    first, second, third, last = found.groups()
    powers = [re.fullmatch(r"(\d+|[a-z])\^(\d)", t) for t in (first, second, last)]
    if all(powers):
        one, two, end = (p for p in powers if p)
        if one[2] == two[2] == end[2] and (one[1], two[1]) == ("1", "2"):
            return tool_call("sum", expression=f"k^{one[2]}", variable="k", lower="1", upper=end[1])
        return None
    if not (first.isdigit() and second.isdigit()) or (third and not third.isdigit()):
        return None
    a, step = int(first), int(second) - int(first)
    if third and int(third) - int(second) != step:
        return None
    if re.fullmatch(r"[a-z]", last) and a == 1 and step == 1:
        return tool_call("sum", expression="k", variable="k", lower="1", upper=last)
    if not last.isdigit() or step == 0 or (int(last) - a) % step or (int(last) - a) // step < 1:
        return None
    count = (int(last) - a) // step
    return tool_call(
        "sum", expression=f"{a} + ({step})*k", variable="k", lower="0", upper=str(count)
    )
