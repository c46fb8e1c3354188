# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: known formulas, shown or computed with the numbers of a question."""

import re

from hunyuan.maths import formulas, numerals, slots
from hunyuan.maths.call import ToolCall, tool_call
from hunyuan.maths.formulas import Formula

VALUE = r"([-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?%?)"
IS = r"\s*(?:of|is|are|=|:|：|为|是|等于|分别为|长为?|equal to|equals|(?<=半径)|)\s*"
UNIT = r"\s*(?:cm|mm|km|m|kg|g|s|厘米|米|毫米|公里|千米|千克|公斤|秒|m/s|米每秒|inches|feet|metres?|meters?)?"

# Other words for the quantities of formulas.
SYNONYMS: dict[str, str] = {
    "半径": "半径|r", "radius": "radius|r", "底": "底边长?|底长?|底", "高": "高度|高", "height": "height|high|h",
    "base": "base", "边长": "边长|边", "side": "sides?|side length|edge", "长": "长度?|长", "宽": "宽度?|宽",
    "length": "length|long", "width": "width|wide", "棱长": "棱长|边长|棱", "edge": "edge|side",
    "质量": "质量", "mass": "mass", "速度": "速度", "velocity": "velocity|speed", "本金": "本金",
    "principal": "principal|deposit", "年利率": "年利率|利率", "annual rate": "annual rate|interest rate|rate",
    "年数": "年数|期限|时间", "years": "years|time", "利率": "利率", "rate": "rate", "期数": "期数|时间",
    "上底": "上底", "下底": "下底", "母线长": "母线长?", "base area": "base area", "底面积": "底面积",
}  # fmt: skip
FORMULA_WORDS = re.compile(
    r"formula|equation|theorem|identity|law|rule|公式|定理|定律|恒等式|法则|方程|不等式",
    re.IGNORECASE,
)
ASKING = re.compile(
    r"^(?:what(?:'s| is) )?(?:the )?(?:formula|equation) (?:for|of) (?:the )?|^(?:write|give|show)(?: me)? "
    r"(?:down )?(?:the )?(?:formula (?:for|of) )?(?:the )?|(?:的)?(?:计算)?公式(?:是什么|怎么写|是)?$|^(?:写出|给出)",
    re.IGNORECASE,
)
LEGS = [
    (re.compile(rf"(?:legs?|直角边)(?:\s*(?:长)?(?:of|are|is|为|是|分别为|分别是|长分别为|的长分别为))?\s*{VALUE}{UNIT}\s*(?:and|,|，|和|、|与)\s*{VALUE}", re.IGNORECASE), "pythagoras", ("a", "b")),
    (re.compile(rf"(?:sides|三边|三条边|边长)(?:\s*(?:长)?(?:of|are|is|为|是|分别为|分别是|:|：))?\s*{VALUE}{UNIT}\s*[,，、 ]\s*{VALUE}{UNIT}\s*(?:,\s*and|and|[,，、和与 ])\s*{VALUE}", re.IGNORECASE), "heron", ("a", "b", "c")),
]  # fmt: skip
POINTS = re.compile(
    r"(?:distance|距离|midpoint|slope|斜率).*?\(\s*([-\d.]+)\s*[,，]\s*([-\d.]+)\s*\).*?\(\s*([-\d.]+)\s*[,，]\s*([-\d.]+)\s*\)|"
    r"\(\s*([-\d.]+)\s*[,，]\s*([-\d.]+)\s*\).*?\(\s*([-\d.]+)\s*[,，]\s*([-\d.]+)\s*\).*?(?:distance|距离|斜率|slope)",
    re.IGNORECASE,
)


def with_values(text: str) -> ToolCall | None:
    """``area of a circle with radius 3``, ``底为 3 高为 4 的三角形的面积``."""
    text = numerals.digits(text) if not re.search(r"\d", text) else text
    if not re.search(r"\d", text) or len(text) > 200:
        return None
    if points := POINTS.search(text):
        found = [g for g in points.groups() if g is not None]
        name = "slope" if re.search(r"slope|斜率", text, re.IGNORECASE) else "distance"
        listed = ", ".join(
            f"{n} = {v}" for n, v in zip(("x1", "y1", "x2", "y2"), found, strict=True)
        )
        return tool_call("formula", name=name, values=listed)
    for pattern, name, names in LEGS:
        if (match := pattern.search(text)) and (name != "heron" or re.search("area|面积", text)):
            listed = ", ".join(f"{n} = {v}" for n, v in zip(names, match.groups(), strict=True))
            return tool_call("formula", name=name, values=listed)
    prose = re.sub(r"\d[\d.,/%]*\s*(?:cm|mm|km|kg|m)?\b|[=:：,，]", " ", text)
    for score, formula in formulas.search(prose, 4):
        if score < 0.3 or not formula.plain:
            continue
        given = _given(formula, text)
        missing = [name for name, _, _ in formula.variables if name not in given]
        if len(missing) == 1 and len(given) == _numbers(text) and given and _title(formula, text):
            listed = ", ".join(f"{name} = {value}" for name, value in given.items())
            return tool_call("formula", name=formula.id, values=listed, target=missing[0])
    return None


def _numbers(text: str) -> int:
    return len(re.findall(r"\d[\d,]*(?:\.\d+)?(?:/\d+)?", text))


def _title(formula: Formula, text: str) -> bool:
    """The things a formula is about must all be named: circle, triangle, interest."""
    lowered = text.lower()
    english = [
        w
        for w in re.findall(r"[a-z']+", formula.en.lower())
        if w not in formulas.NOISE and len(w) > 3
    ]
    chinese = re.sub(r"公式|的|（.*?）|计算", " ", formula.zh).split()
    return (bool(english) and all(w.rstrip("s") in lowered for w in english)) or (
        bool(chinese) and all(part in text for part in chinese)
    )


def _given(formula: Formula, text: str) -> dict[str, str]:
    """The quantities of a formula that a text gives: ``radius 3``, ``半径为 3``, ``r = 3``."""
    given: dict[str, str] = {}
    taken: list[tuple[int, int]] = []
    for name, en, zh in formula.variables:
        words = [SYNONYMS.get(en, re.escape(en)), SYNONYMS.get(zh, re.escape(zh)), re.escape(name)]
        diameter = re.search(rf"(?:diameter|直径){IS}{VALUE}", text, re.IGNORECASE)
        if en == "radius" and diameter:
            given[name] = f"({_value(diameter[1])})/2"
            continue
        for word in words:
            before = rf"(?<![A-Za-z])(?:{word})(?![a-z]){IS}{VALUE}"
            after = rf"{VALUE}{UNIT}\s*(?:{word})(?![a-z])"
            found = re.search(before, text, re.IGNORECASE if len(word) > 1 else 0)
            if not found and re.fullmatch(r"[a-z|\- ?]+", word) and len(word) > 2:
                found = re.search(after, text, re.IGNORECASE)
            if found and not any(a < found.end(1) and found.start(1) < b for a, b in taken):
                given[name] = _value(found[1])
                taken.append(found.span(1))
                break
    return given


def _value(text: str) -> str:
    text = text.replace(",", "")
    return f"{text[:-1]}/100" if text.endswith("%") else text


def lookup(text: str) -> ToolCall | None:
    """``quadratic formula``, ``圆的面积公式``: the formula itself."""
    asked = FORMULA_WORDS.search(text)
    bare = ASKING.sub("", text).strip(slots.EDGES)
    if not bare or re.search(r"\d\s*[-+*/=^]\s*[\dx]", bare):
        return None
    formula = formulas.best(bare, 0.7 if asked else 0.95)
    return tool_call("formula", name=formula.id) if formula else None
