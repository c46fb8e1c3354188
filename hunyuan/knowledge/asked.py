"""What kind of answer a question asks for, as far as its words tell: a date, an age, an amount.

A sentence without anything of that kind does not answer it, however near its words are. This is
the old question classification of answer-finding systems, by rules: English and Chinese say
plainly what they ask for ("how old", 多长时间), and the units that answer it are few.
"""

import re
from collections.abc import Sequence

_N = "[0-9〇零一二三四五六七八九十百千万亿两半]"
_MONTH = (
    "January|February|March|April|May|June|July|August|September|October|November|December|"
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"
)
_COUNT = (
    r"(?:\d[\d,.]*|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|"
    r"sixty|seventy|eighty|ninety|hundred|thousand|million|billion|single|half|twice|once|dozen)\b)"
)
_MEASURES = "条票集次部所座位名种倍本卷辆枚章篇页台艘架层级分届项件份"
_SPAN = rf"{_N}\s*[多余几]?\s*个?(?:工作日|年|月|日|天|周|星期|小时|分钟|秒|时)"
_DAY = rf"{_N}\s*月\s*{_N}+\s*[日号]|\b\d{{4}}-\d\d-\d\d\b|\b(?:{_MONTH})\.? \d|\d (?:{_MONTH})\b"

# The first that fits decides.
_CHINESE: Sequence[tuple[str, str]] = (
    (r"几点", rf"{_N}\s*[时点]|\d:\d\d"),
    (r"几个?小时|多少个?小时", rf"{_N}\s*个?(?:小时|钟头)"),
    (r"几分钟|多少分钟", rf"{_N}\s*分钟?"),
    (r"百分之几|百分之多少|占多[少大]|比例", r"%|百分之"),
    (
        r"几岁|年龄|多大年纪|(?:当时|现在|今年)多大|多[大小]的(?:孩子|儿童|小孩|人)",
        rf"{_N}\s*周?岁",
    ),
    *((rf"(?:多少|几){m}", rf"{_N}\s*[多余]?\s*{m}") for m in _MEASURES),
    (
        r"多少(?:钱|元|块)|(?:费|款|津贴|补贴|工资|租金|价格|学费|门票)\S{0,3}(?:多少|几)"
        r"|(?:多少|几)\S{0,3}(?:费|款(?!项|式)|津贴|补贴|工资|租金|价)(?!\S{0,2}票)",
        rf"{_N}\s*[多余]?\s*(?:元|美元|英镑|欧元|角|块)|[¥$£€]\s*\d|{_N}\s*倍|%|百分之",
    ),
    (r"哪一?天|几号|几月几日|哪一?日|从哪天", _DAY),
    (r"哪一?年哪一?月|几月|哪一?个?月", rf"{_N}\s*月"),
    (r"哪一?年", rf"{_N}\s*年|\b[12]\d{{3}}\b"),
    (
        r"多久|多长时间|多少时间|[几多]少?个?[天日年月周]|多少个?工作日",
        rf"{_SPAN}|每[年月日周天]|终身",
    ),
    (r"什么时候|何时", rf"{_N}\s*(?:年|月|日|世纪|时)|\b[12]\d{{3}}\b"),
    (
        r"多[长远高深宽]|几[米公]",
        rf"{_N}\s*[多余]?\s*(?:公里|千米|米|公分|厘米|毫米|海里|英里|英尺|尺|里|[kcm]?m\b)",
    ),
    (r"面积|多大", rf"{_N}\s*[多余]?\s*(?:平方|公顷|亩|[kKcm]?m[²2])|{_N}"),
    (r"多少|几[个只支张]|第几|多快|时速", _N),
)
_ENGLISH: Sequence[tuple[str, str]] = (
    (r"\bhow (?:many|much) (?:giga|mega|kilo)?bytes\b", r"\b[\d.,]+ ?(?:[KMGT]i?)?(?:B\b|byte)"),
    (r"\bhow many (?:percent|per cent)\b|\bpercentage\b", r"%|\bper ?cent\b"),
    (
        r"\b(?:on )?(?:what|which) (?:day|date)\b",
        rf"\b(?:{_MONTH})\b\.? \d|\d(?:st|nd|rd|th)?(?: of)? (?:{_MONTH})\b|\b\d{{4}}-\d\d-\d\d\b",
    ),
    (
        r"^(?:and |but |so )?(?:since |until )?when\b|\b(?:what|which) (?:year|month)\b",
        rf"\b[12]\d{{3}}\b|\b(?:{_MONTH})\b|\bcentury\b",
    ),
    (
        r"^who(?! is| are| was)\b|^who (?:is|are|was|were) the\b",
        r"\b[A-Z][a-z]+ (?:[A-Z]\S* )*[A-Z][a-z]+",
    ),
    (r"\bhow old\b|\bwhat age\b", _COUNT),
    (r"\bhow (?:many|much|long|far|tall|high|fast|deep|often|wide|big)\b|\bwhat factor\b", _COUNT),
)
_RULES = {
    chinese: [
        (re.compile(asks, re.IGNORECASE), re.compile(answers))
        for asks, answers in (_CHINESE if chinese else _ENGLISH)
    ]
    for chinese in (True, False)
}
_COUNTED = re.compile(r"\bhow many (?!of\b|more\b|times\b|percent\b)([a-z]+)", re.IGNORECASE)
_HAN = re.compile("[\u4e00-\u9fff]")


def expected(question: str) -> re.Pattern[str] | None:
    """What must stand in a sentence that answers; None where the question does not tell."""
    for asks, answers in _RULES[_HAN.search(question) is not None]:
        if asks.search(question):
            return answers
    return None


def counted(question: str) -> str:
    """The word after "how many", which a passage that answers is likely to have; else empty."""
    found = _COUNTED.search(question)
    return found[1] if found else ""
