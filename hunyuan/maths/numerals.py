# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Numbers and arithmetic said in words, in Chinese and English, turned into notation."""

import re
from decimal import Decimal

ZH_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
ZH_SCALES = {"十": 10, "百": 100, "千": 1000}
ZH_NUMBER = "[零〇一二两三四五六七八九十百千万亿点]+"

EN_UNITS = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
EN_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2
    )
}
EN_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
EN_WORD = "|".join([*EN_UNITS, *EN_TENS, *EN_SCALES])
EN_NUMBER = re.compile(
    rf"\b(?:{EN_WORD})(?:(?:[\s-]+and)?[\s-]+(?:{EN_WORD}))*(?:\s+point(?:\s+(?:{EN_WORD}))+)?\b",
    re.IGNORECASE,
)


def zh_number(text: str) -> str | None:
    """``一百二十三`` -> ``123``, ``三点一四`` -> ``3.14``; None where it is no number."""
    whole, point, fraction = text.partition("点")
    if not set(whole) & (ZH_DIGITS.keys() | {"十"}):
        return None  # 万 alone is a word
    if not whole or (point and not fraction):
        return None
    value = _zh_whole(whole)
    if value is None:
        return None
    if not point:
        return str(value)
    if any(c not in ZH_DIGITS for c in fraction):
        return None
    return f"{value}.{''.join(str(ZH_DIGITS[c]) for c in fraction)}"


def _zh_whole(text: str) -> int | None:
    if all(c in ZH_DIGITS for c in text):  # 二〇二四
        return int("".join(str(ZH_DIGITS[c]) for c in text))
    for sign, scale in (("亿", 10**8), ("万", 10**4)):
        if sign in text:
            head, _, tail = text.partition(sign)
            high, low = _zh_whole(head), _zh_whole(tail) if tail else 0
            return None if high is None or low is None else high * scale + low
    total, digit = 0, None
    for c in text:
        if c in ZH_DIGITS:
            digit = ZH_DIGITS[c]
        elif c in ZH_SCALES:
            total += (1 if digit is None else digit) * ZH_SCALES[c]
            digit = None
        else:
            return None
    return total + (digit or 0)


def en_number(text: str) -> str | None:
    """``twenty-five`` -> ``25``, ``three hundred and four`` -> ``304``, ``two point five`` -> ``2.5``."""
    whole, point, fraction = text.lower().partition(" point")
    total = current = 0
    for word in re.split(r"[\s-]+", whole.strip()):
        if word in EN_UNITS:
            current += EN_UNITS[word]
        elif word in EN_TENS:
            current += EN_TENS[word]
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word in EN_SCALES:
            total += max(current, 1) * EN_SCALES[word]
            current = 0
        elif word != "and":
            return None
    value = str(total + current)
    if not point:
        return value
    digits = [EN_UNITS.get(word, 99) for word in fraction.split()]
    return f"{value}.{''.join(map(str, digits))}" if all(d < 10 for d in digits) else None


def digits(text: str) -> str:
    """A text with every number in words as digits."""
    text = EN_NUMBER.sub(lambda m: en_number(m[0]) or m[0], text)
    text = re.sub(r"(\d+(?:\.\d+)?)\s*([万亿])(?![零一二两三四五六七八九十百千\d])", _scaled, text)
    text = re.sub(
        rf"({ZH_NUMBER}|\d+)分之({ZH_NUMBER}|\d+(?:\.\d+)?)",
        lambda m: f"({_digits(m[2])}/{_digits(m[1])})",
        text,
    )
    return re.sub(ZH_NUMBER, lambda m: zh_number(m[0]) or m[0], text)


def _scaled(found: re.Match[str]) -> str:
    """``1.5万`` -> ``15000``."""
    value = Decimal(found[1]) * {"万": 10**4, "亿": 10**8}[found[2]]
    return f"{value.normalize():f}"


def _digits(text: str) -> str:
    return text if text[0].isdigit() else (zh_number(text) or text)


OPERAND = r"(\([^()]*\)|[A-Za-z0-9.]{1,24}(?:\([^()]*\))?°?)"

EN_WORDS: list[tuple[str, str]] = [
    (r"\b(?:the )?(?:principal )?square root of\b", " sqrt "),
    (r"\b(?:the )?(?:cube|cubic) root of\b", " cbrt "),
    (r"\b(?:the )?factorial of\b", " factorial "),
    (r"\b(?:the )?absolute value of\b", " abs "),
    (r"\b(?:the )?natural log(?:arithm)? of\b", " ln "),
    (r"\b(?:the )?log(?:arithm)? of (\S+) (?:to (?:the )?)?base (\S+)", r" log(\1, \2) "),
    (r"\b(?:the )?log(?:arithm)? (?:to )?base (\S+) of (\S+)", r" log(\2, \1) "),
    (r"\b(?:the )?(?:common )?log(?:arithm)? of\b", " log10 "),
    (r"\b(?:the )?sine? of\b", " sin "),
    (r"\b(?:the )?cos(?:ine)? of\b", " cos "),
    (r"\b(?:the )?tan(?:gent)? of\b", " tan "),
    (r"\b(?:the )?square of " + OPERAND, r"(\1)^2"),
    (r"\b(?:the )?cube of " + OPERAND, r"(\1)^3"),
    (r"\b(?:the )?sum of " + OPERAND + r" and " + OPERAND, r"(\1 + \2)"),
    (r"\b(?:the )?product of " + OPERAND + r" and " + OPERAND, r"(\1 * \2)"),
    (r"\b(?:the )?difference (?:of|between) " + OPERAND + r" and " + OPERAND, r"(\1 - \2)"),
    (r"\b(?:the )?quotient of " + OPERAND + r" and " + OPERAND, r"(\1 / \2)"),
    (r"\b(?:one |a |1 )?half of\b", " (1/2) * "),
    (r"\b(?:one |a |1 )third of\b", " (1/3) * "),
    (r"\b(?:one |a |1 )quarter of\b", " (1/4) * "),
    (r"\b(?:two|2)[ -]thirds of\b", " (2/3) * "),
    (r"\b(?:three|3)[ -]quarters of\b", " (3/4) * "),
    (r"(?<![\d/])(\d+\s*/\s*\d+) of\b", r"(\1) * "),
    (r"\b(?:one|a) half\b", " (1/2) "),
    (r"\b(?:one|a|1)[ -]third\b", " (1/3) "),
    (r"\b(?:one|a|1)[ -]quarter\b", " (1/4) "),
    (r"\b(?:two|2)[ -]thirds\b", " (2/3) "),
    (r"\b(?:three|3)[ -]quarters\b", " (3/4) "),
    (r"\b(?:twice|double)\b", " 2 * "),
    (r"\btriple\b", " 3 * "),
    (r"\bmultiplied by\b|\btimes\b", " * "),
    (r"\bdivided by\b|\bover\b", " / "),
    (r"\bplus\b|\badded to\b", " + "),
    (r"\bminus\b", " - "),
    (r"\b(?:raised )?to the power (?:of )?", " ^ "),
    (r"\braised to (?:the )?", " ^ "),
    (r"\bto the (\d+)(?:st|nd|rd|th)(?: power)?\b", r" ^ \1 "),
    (r"\bto the (?:third|3) power\b", " ^ 3 "),
    (r"\bto the (\w+) power\b", r" ^ \1 "),
    (r"\bsquared\b", " ^2 "),
    (r"\bcubed\b", " ^3 "),
    (r"\bfactorial\b(?!\s*\()(?=\s*$|\s*[+\-*/)])", "!"),
    (r"\b(?:modulo|mod)\b(?!\()", " % "),
    (r"\bdegrees?\b", "°"),
    (r"\bpercent\b|\bper cent\b", "%"),
    (r"%\s+of\b", "% * "),
    (r"\bx\b(?=\s*\d)(?<=\d x)", "*"),
]
ZH_WORDS: list[tuple[str, str]] = [
    (r"圆周率", " pi "),
    (r"正无穷大?|无穷大|无穷", " oo "),
    (r"百分之(\d+(?:\.\d+)?)", r"\1%"),
    (r"以\s*(\S+?)\s*为底\s*(?:的)?\s*" + OPERAND + r"\s*的对数", r" log(\2, \1) "),
    (r"以\s*(\S+?)\s*为底\s*的?\s*" + OPERAND, r" log(\2, \1) "),
    (r"立方根号|三次根号|3次根号", " cbrt "),
    (r"根号(?:下)?", " sqrt "),
    (r"负(?=\s*\d)", "-"),
    (r"度", "°"),
    (OPERAND + r"\s*的?\s*(?:算术)?平方根", r"sqrt(\1)"),
    (OPERAND + r"\s*开(?:平方|方|二次方)", r"sqrt(\1)"),
    (OPERAND + r"\s*开(?:立方|三次方)", r"cbrt(\1)"),
    (r"(\d+(?:\.\d+)?%)\s*的\s*" + OPERAND, r"\1 * (\2)"),
    (OPERAND + r"\s*的?\s*(?:立方根|三次方根|3次方根)", r"cbrt(\1)"),
    (OPERAND + r"\s*的\s*(\d+)\s*次方根", r"root(\1, \2)"),
    (OPERAND + r"\s*的?\s*(?:平方|二次方|2次方)", r"(\1)^2"),
    (OPERAND + r"\s*的?\s*(?:立方|三次方|3次方)", r"(\1)^3"),
    (OPERAND + r"\s*的?\s*\(?(-?[A-Za-z0-9]+)\)?\s*次(?:方|幂)", r"(\1)^(\2)"),
    (OPERAND + r"\s*的?\s*阶乘", r"(\1)!"),
    (OPERAND + r"\s*的?\s*绝对值", r"abs(\1)"),
    (r"(-\d+(?:\.\d+)?)\s*的?\s*绝对值", r"abs(\1)"),
    (OPERAND + r"\s*的?\s*倒数", r"(1/(\1))"),
    (OPERAND + r"\s*的?\s*相反数", r"(-(\1))"),
    (OPERAND + r"\s*的?\s*自然对数", r"ln(\1)"),
    (OPERAND + r"\s*的?\s*常用对数", r"log10(\1)"),
    (OPERAND + r"\s*的?\s*正弦(?:值)?", r"sin(\1)"),
    (OPERAND + r"\s*的?\s*余弦(?:值)?", r"cos(\1)"),
    (OPERAND + r"\s*的?\s*正切(?:值)?", r"tan(\1)"),
    (OPERAND + r"\s*[和与]\s*" + OPERAND + r"\s*的?和", r"(\1 + \2)"),
    (OPERAND + r"\s*[和与]\s*" + OPERAND + r"\s*的?差", r"(\1 - \2)"),
    (OPERAND + r"\s*[和与]\s*" + OPERAND + r"\s*的?(?:乘积|积)", r"(\1 * \2)"),
    (OPERAND + r"\s*[和与除以]\s*" + OPERAND + r"\s*的?商", r"(\1 / \2)"),
    (r"正弦", " sin "),
    (r"余弦", " cos "),
    (r"正切", " tan "),
    (r"加上|加", " + "),
    (r"减去|减", " - "),
    (r"乘以|乘上|乘", " * "),
    (r"除以", " / "),
    (OPERAND + r"\s*的\s*(\d+(?:\.\d+)?%)", r"(\1) * \2"),
    (OPERAND + r"\s*的\s*(\(\d+/\d+\))", r"(\1) * \2"),
    (OPERAND + r"\s*的\s*(\d+)\s*倍", r"(\1) * \2"),
    (OPERAND + r"\s*的\s*[一1]?半", r"(\1) / 2"),
]
COMPILED = [(re.compile(pattern, re.IGNORECASE), new) for pattern, new in EN_WORDS]
COMPILED_ZH = [(re.compile(pattern), new) for pattern, new in ZH_WORDS]


def notation(text: str) -> str:
    """Arithmetic in words as notation: ``三加五``, ``5 squared plus 2``, ``25 的平方根``."""
    # Before digits: "one half", "two thirds" would lose their words.
    for pattern, new in COMPILED:
        text = pattern.sub(new, text)
    text = digits(text)
    if text.isascii():
        return text
    # A base may itself be a power; two rounds reach "3 的平方的平方根".
    for _ in range(2):
        for pattern, new in COMPILED_ZH:
            text = pattern.sub(new, text)
    return text
