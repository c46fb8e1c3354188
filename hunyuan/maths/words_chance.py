# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: probabilities of coins, dice and draws, and of the usual distributions."""

import re
from itertools import product

from hunyuan.maths import numerals, slots
from hunyuan.maths.call import ToolCall, tool_call

ASKED = re.compile(
    r"probabilit|chance|odds of|likelihood|(?<![A-Za-z])P\s*\(|概率|几率|可能性|期望|方差|expect|mean|variance",
    re.IGNORECASE,
)
SMALL = {
    "once": "1",
    "twice": "2",
    "a fair": "1",
    "a": "1",
    "an": "1",
    "no": "0",
    "all": "",
    "both": "2",
}
NUMBER = r"(\d+)"
LEAST = re.compile(
    r"exactly|precisely|at least|at most|no more than|no fewer than|more than|fewer than|less than|恰好|恰有|正好|刚好|至少|至多|最多|不少于|不超过|多于|少于",
    re.IGNORECASE,
)
OTHERWISE = re.compile(
    r"\bor\b|consecutive|in a row|\bfirst\b|\blast\b|given|连续|或|第一|最后|已知|如果",
    re.IGNORECASE,
)
REAL = r"([-+]?\d+(?:\.\d+)?(?:\s*/\s*\d+)?)"


def probability(text: str) -> ToolCall | None:
    """``probability of 3 heads in 5 flips``, ``X~N(100, 15^2), P(X>130)``, ``掷两枚骰子和为 7 的概率``."""
    if not ASKED.search(text):
        return None
    text = re.sub(
        r"\bstandard normal(?: distribution)?\b|标准正态分布?",
        " N(0,1) ",
        text,
        flags=re.IGNORECASE,
    )
    for rule in (_distribution, _coins, _dice, _drawn):
        if call := rule(text):
            return call
    return None


# -- distributions -------------------------------------------------------------------------------

NORMAL = [
    re.compile(rf"(?<![A-Za-z])N\s*\(\s*{REAL}\s*[,，]\s*{REAL}\s*(\^\s*\(?2\)?|²)?\s*\)"),
    re.compile(
        rf"normal(?:ly)?.*?(?:mean|mu|μ)\s*(?:of|=|is)?\s*{REAL}.*?(?:standard deviation|std(?:ev)?|sd|sigma|σ)\s*(?:of|=|is)?\s*{REAL}()",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:mean|mu|μ)\s*(?:of|=|is)?\s*{REAL}.*?(?:standard deviation|std(?:ev)?|sd|sigma|σ)\s*(?:of|=|is)?\s*{REAL}.*?normal()",
        re.IGNORECASE,
    ),
    re.compile(rf"正态分布.*?均值\s*(?:为|是|=)?\s*{REAL}.*?标准差\s*(?:为|是|=)?\s*{REAL}()"),
    re.compile(rf"均值\s*(?:为|是|=)?\s*{REAL}.*?标准差\s*(?:为|是|=)?\s*{REAL}.*?正态分布()"),
]
BINOMIAL = [
    re.compile(
        rf"(?<![A-Za-z])(?:B|Bin|Binomial)\s*\(\s*(?:n\s*=\s*)?{NUMBER}\s*[,，]\s*(?:p\s*=\s*)?{REAL}\s*\)",
        re.IGNORECASE,
    ),
    re.compile(rf"binomial.*?\bn\s*=\s*{NUMBER}.*?\bp\s*=\s*{REAL}", re.IGNORECASE),
    re.compile(rf"二项分布.*?n\s*=\s*{NUMBER}.*?p\s*=\s*{REAL}"),
]
POISSON = [
    re.compile(
        rf"(?<![A-Za-z])(?:P|Po|Pois|Poisson|π)\s*\(\s*(?:λ|lambda)?\s*=?\s*{REAL}\s*\)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:poisson|泊松分布).*?(?:λ|lambda|mean|rate|参数|均值)\s*(?:of|=|is|为|是)?\s*{REAL}",
        re.IGNORECASE,
    ),
]
SIGN = r"(<=|>=|=|<|>|≤|≥|＜|＞)"
EVENT = re.compile(
    rf"P\s*[({{]\s*(?:{REAL}\s*{SIGN}\s*)?[A-Za-z]\s*(?:{SIGN}\s*{REAL})?\s*[)}}]|"
    rf"(?:that|概率|probability (?:of|that))\s*[A-Z]\s*(?:is\s+)?(?:{SIGN}|(above|over|greater than|more than|exceeds|大于|超过)|(below|under|less than|小于|低于)|(between|介于))\s*{REAL}(?:\s*(?:and|和|与|到)\s*{REAL})?",
    re.IGNORECASE,
)


def _event(text: str) -> tuple[tuple[str, str] | None, tuple[str, str] | None, int] | None:
    """(lower sign and bound, upper sign and bound or the equality, numbers used) of an event."""
    found = EVENT.search(text)
    if not found:
        return None
    low, low_sign, sign, value, other, above, below, between, first, second = found.groups()
    plain = {"≤": "<=", "≥": ">=", "＜": "<", "＞": ">"}
    lower = upper = None
    if first is not None:
        mark = plain.get(other or "", other or "")
        if between:
            return ((">=", first), ("<=", second), 2) if second else None
        if second:
            return None
        mark = ">" if above else "<" if below else mark
        return ((mark, first), None, 1) if mark[0] == ">" else (None, (mark, first), 1)
    if low is not None:
        mark = plain.get(low_sign, low_sign)
        turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(mark)
        if turned is None:
            return None
        if turned[0] == ">":
            lower = (turned, low)
        else:
            upper = (turned, low)
    if value is not None:
        mark = plain.get(sign, sign)
        if mark[0] == ">":
            if lower:
                return None
            lower = (mark, value)
        else:
            if upper:
                return None
            upper = (mark, value)
    if lower is None and upper is None:
        return None
    return lower, upper, (lower is not None) + (upper is not None)


def _count(text: str) -> int:
    return len(
        re.findall(r"\d+(?:\.\d+)?(?:\s*/\s*\d+)?", re.sub(r"²|\^\s*\(?2\)?(?=\s*\))", "", text))
    )


def _distribution(text: str) -> ToolCall | None:
    if any(pattern.search(text) for pattern in NORMAL):
        return _normal(text)
    for patterns, terms in ((BINOMIAL, _binomial), (POISSON, _poisson)):
        found = next((f for p in patterns if (f := p.search(text))), None)
        if found is None:
            continue
        rest = text[: found.start()] + " " + text[found.end() :]
        if not (event := _event(rest)) or _count(rest) != event[2]:
            continue
        return terms(event, *found.groups())
    return None


def _normal(text: str) -> ToolCall | None:
    found = next(f for p in NORMAL if (f := p.search(text)))
    mean, spread, squared = found.groups()
    rest = text[: found.start()] + " " + text[found.end() :]
    event = _event(rest)
    if event is None or _count(rest) != event[2]:
        return None
    lower, upper, _ = event
    if upper and upper[0] == "=":
        return None
    # N(mu, sigma^2) has the variance; words name the standard deviation.
    deviation = spread if squared or not found[0].startswith("N") else f"sqrt({spread})"

    def below(value: str) -> str:
        return f"erf(({value} - ({mean}))/({deviation}*sqrt(2)))"

    if lower and upper:
        return _decimal(f"({below(upper[1])} - {below(lower[1])})/2")
    if upper:
        return _decimal(f"(1 + {below(upper[1])})/2")
    assert lower is not None
    return _decimal(f"(1 - {below(lower[1])})/2")


def _decimal(expression: str) -> ToolCall:
    return tool_call("calculate", expression=expression, digits="10")


Event = tuple[tuple[str, str] | None, tuple[str, str] | None, int]


def _between(event: Event, most: str) -> tuple[str, str] | None:
    """First and last whole number of an event."""
    lower, upper, _ = event
    first, last = "0", most
    for bound in (lower, upper):
        if bound is None:
            continue
        sign, value = bound
        if not value.isdigit():
            return None
        if sign == "=":
            first = last = value
        elif sign[0] == ">":
            first = value if sign == ">=" else str(int(value) + 1)
        else:
            last = value if sign == "<=" else str(int(value) - 1)
    return first, last


def _binomial(event: Event, n: str, p: str) -> ToolCall | None:
    ends = _between(event, n)
    if ends is None:
        return None
    first, last = ends
    if first == last:
        return tool_call(
            "calculate", expression=f"binomial({n}, {first})*({p})^{first}*(1-({p}))^({n}-{first})"
        )
    return _added(f"binomial({n}, k)*({p})^k*(1-({p}))^({n}-k)", int(first), int(last))


def _added(term: str, first: int, last: int) -> ToolCall | None:
    """Terms in k, written out one by one."""
    if not 0 <= last - first < 20:
        return None
    parts = [re.sub(r"\bk\b", str(k), term) for k in range(first, last + 1)]
    return tool_call("calculate", expression=" + ".join(parts))


def _poisson(event: Event, rate: str) -> ToolCall | None:
    ends = _between(event, "oo")
    if ends is None:
        return None
    first, last = ends
    term = f"({rate})^k*exp(-({rate}))/k!"
    if first == last:
        return tool_call("calculate", expression=term.replace("k", first))
    if last == "oo":
        before = int(first) - 1
        if before < 0:
            return None
        listed = " - ".join(term.replace("k", str(k)) for k in range(before + 1))
        return tool_call("calculate", expression=f"1 - {listed}") if before < 20 else None
    return _added(term, int(first), int(last))


# -- coins and dice ------------------------------------------------------------------------------

HEADS = r"(?:heads?|tails?)"
TIMES = r"(?:\s*(?:coin|fair|unbiased|a))*\s*(?:coin\s*)?(?:flips?|toss(?:es)?|throws?|coins|times|flips of a (?:fair )?coin)"
COINS = [
    re.compile(
        rf"{HEADS}\s+{NUMBER}\s+times?\s+(?:in|out of|from|when|after|if|with|on)\D*?{NUMBER}\D*$",
        re.IGNORECASE,
    ),
    re.compile(
        rf"{NUMBER}\s+{HEADS}\s+(?:in|out of|from|when|after|if|with|on)\D*?{NUMBER}\D*$",
        re.IGNORECASE,
    ),
    re.compile(rf"(?:flip|toss|throw)\D*?{NUMBER}\D*?{NUMBER}\s+{HEADS}\D*$", re.IGNORECASE),
    re.compile(rf"{NUMBER}\s*(?:coins|flips|tosses)\D*?{NUMBER}\s+{HEADS}\D*$", re.IGNORECASE),
    re.compile(rf"硬币\D*?{NUMBER}\s*次\D*?{NUMBER}\s*次?(?:是|为|出现)?(?:正面|反面)\D*$"),
    re.compile(rf"硬币\D*?{NUMBER}\s*次\D*?(?:正面|反面)\D*?{NUMBER}\s*次\D*$"),
    re.compile(rf"{NUMBER}\s*[枚个]硬币\D*?{NUMBER}\s*[枚个]?(?:是|为)?(?:正面|反面)\D*$"),
]


def _coins(text: str) -> ToolCall | None:
    if not re.search(r"coin|flip|toss|heads|tails|硬币", text, re.IGNORECASE):
        return None
    if re.search(r"biased|unfair|不均匀", re.sub("unbiased", "", text)):
        return None
    text = _counted(text)
    for index, pattern in enumerate(COINS):
        found = pattern.search(text)
        if not found or _count(text) != 2:
            continue
        k, n = found.groups() if index in (0, 1) else (found[2], found[1])
        kinds = {kind.lower() for kind in LEAST.findall(text)}
        if len(kinds) > 1 or OTHERWISE.search(text):
            return None
        kind = kinds.pop() if kinds else ""
        if int(k) > int(n) or int(n) > 1000:
            return None
        first, last = _range(kind, int(k), int(n))
        if first == last:
            return tool_call("calculate", expression=f"binomial({n}, {first})/2^{n}")
        return _added(f"binomial({n}, k)/2^{n}", first, last)
    return None


def _range(kind: str, k: int, n: int) -> tuple[int, int]:
    match kind:
        case "at least" | "no fewer than" | "至少" | "不少于":
            return k, n
        case "at most" | "no more than" | "至多" | "最多" | "不超过":
            return 0, k
        case "more than" | "多于":
            return k + 1, n
        case "fewer than" | "less than" | "少于":
            return 0, k - 1
        case _:
            return k, k


def _counted(text: str) -> str:
    """Small counts in words as digits."""
    text = re.sub(r"\b(twice|two times|两次)\b|两次", "2 times" if text.isascii() else "2次", text)
    text = re.sub(r"(?<![\u4e00-\u9fff])一次性|一(?=[枚个颗])", "", text)
    return numerals.digits(text)


DICE_SUM = [
    re.compile(r"(?:sum|total)\w*\s*(?:of|is|to|equal to|=|being|up to)*\s*(\d+)", re.IGNORECASE),
    re.compile(r"(?:点数)?(?:之|的)?和\s*(?:为|是|等于|=)\s*(\d+)"),
]
DICE = re.compile(
    r"(\d+)\s*(?:fair |standard |six-sided )*(?:dice|die)|(\d+)\s*(?:枚|个|颗|粒)?\s*(?:均匀的?)?骰子",
    re.IGNORECASE,
)
FACE = re.compile(
    r"(?:roll(?:ing)?|get(?:ting)?|throw(?:ing)?)\s+an?\s+(\d)\b|(?:掷出|出现|得到|点数为|点数是)\s*(\d)\s*点?",
    re.IGNORECASE,
)


def _dice(text: str) -> ToolCall | None:
    if not re.search(r"\bdice\b|\bdie\b|骰子", text, re.IGNORECASE):
        return None
    text = _counted(text)
    many = DICE.search(text)
    count = int(many[1] or many[2]) if many else 1
    if count > 4:
        return None
    total = next((f for p in DICE_SUM if (f := p.search(text))), None)
    numbers = _count(text)
    if total and many and numbers == 2:
        ways = sum(sum(faces) == int(total[1]) for faces in product(range(1, 7), repeat=count))
        return tool_call("calculate", expression=f"{ways}/6^{count}")
    face = FACE.search(text)
    if face and count == 1 and numbers == 1 + bool(many) and 1 <= int(face[1] or face[2]) <= 6:
        return tool_call("calculate", expression="1/6")
    if (
        count == 1
        and numbers == bool(many)
        and re.search(r"\beven\b|\bodd\b|偶数|奇数", text, re.IGNORECASE)
    ):
        return tool_call("calculate", expression="3/6")
    return None


# -- one draw from things of several colours ------------------------------------------------------

COLOUR = r"(red|blue|green|white|black|yellow|orange|purple|pink|brown|gr[ae]y)"
COLOUR_ZH = r"([红蓝绿白黑黄橙紫粉])"


def _drawn(text: str) -> ToolCall | None:
    """One draw; of several draws nothing is said here."""
    plural = re.search(
        r"\b(?:two|three|both|2|3|without|with replacement|another|again|then)\b|[两二三2-9]\s*[个只球]?(?:都|均)|放回|再|同时",
        text,
        re.IGNORECASE,
    )
    text = numerals.digits(re.sub(r"\bone\b", "a", text)) if text.isascii() else text
    for have, want in (
        (
            rf"(\d+)\s+{COLOUR}\b",
            rf"(?:draw|pick|choos|select|get|tak|pull|grab)\w*\s+(?:out\s+)?(?:an?|one)\s+{COLOUR}\b|(?:it|ball|marble) is {COLOUR}\b",
        ),
        (
            rf"(\d+)\s*[个只颗枚]?\s*{COLOUR_ZH}",
            rf"(?:到|出|得|是|为)(?:的?是|一?个|的)*{COLOUR_ZH}[球色]",
        ),
    ):
        held = re.findall(have, text, re.IGNORECASE)
        wanted = [g for f in re.finditer(want, text, re.IGNORECASE) for g in f.groups() if g]
        if len(held) < 2 or len(wanted) != 1 or _count(text) != len(held):
            continue
        if plural and re.search(
            r"without|replacement|放回|再|both|都|均|同时|again|then|another", plural[0]
        ):
            return None
        counts: dict[str, int] = {}
        for number, name in held:
            counts[name.lower()] = counts.get(name.lower(), 0) + int(number)
        mine = counts.get(wanted[0].lower())
        if mine is None:
            return None
        listed = " + ".join(str(v) for v in counts.values())
        return tool_call("calculate", expression=f"{mine}/({listed})")
    return None


# -- letters in a row ----------------------------------------------------------------------------

LETTERS = [
    re.compile(
        r"(?:arrangements?|permutations?|anagrams?|ways|words?|rearrange\w*|arrange\w*)\b.{0,40}?\b(?:letters?|word|anagrams? of|arrangements? of|permutations? of)\s+(?:(?:of|in|from)\s+)?(?:the\s+)?(?:word\s+)?[\"'“‘]?([A-Za-z]{3,20})[\"'”’]?(?:\s+be (?:arranged|permuted|rearranged|ordered))?$",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:单词|字母)?\s*[\"“]?([A-Za-z]{3,20})[\"”]?\s*(?:中|里|这个单词)?的?(?:所有)?(?:各个)?字母.{0,8}?(?:排列|排法|排成).{0,6}$"
    ),
]


def letters(text: str) -> ToolCall | None:
    """``arrangements of the letters in BANANA``: n! over the factorials of repeated letters."""
    for pattern in LETTERS:
        if (found := pattern.search(text)) and found[1].lower() not in slots.COMMON | {
            "word",
            "letters",
        }:
            word = found[1].lower()
            if re.search(r"\d|vowel|consonant|together|元音|相邻", text):
                return None
            repeated = [f"{word.count(c)}!" for c in sorted(set(word)) if word.count(c) > 1]
            below = f"/({'*'.join(repeated)})" if repeated else ""
            return tool_call("calculate", expression=f"{len(word)}!{below}")
    return None
