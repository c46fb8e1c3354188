"""What a small model puts around its answer and nobody asked for: found and taken away."""

import re
from typing import Literal

from hunyuan.errors import Language
from hunyuan.knowledge.words import HAN
from hunyuan.workbench.language import text_language, text_size

Fault = Literal[
    "empty",
    "unchanged",
    "wrong_language",
    "longer",
    "shorter",
    "length",
    "cut",
    "untranslated",
    "repeated",
    "copied",
]

_FENCE = re.compile(r"\A\s*(?:```|~~~)[\w-]*\n(.*?)\n?(?:```|~~~)\s*\Z", re.DOTALL)

# A line that announces the answer: it begins so and ends with a colon.
_ANNOUNCEMENT = re.compile(
    r"\A\s*(?:\*\*)?(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[^\n:]{0,120}"
    r"|(?:here(?:'s|’s| is| are)|below is|below are|this is|the following)\b[^\n:]{0,120}"
    r"|(?:好的|当然|没问题|以下是|以下为|下面是|这是|如下是)[^\n：:]{0,60})"
    r"(?:[:：](?:\*\*)?\s*|[!！。.]\s*\n+)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\A\s*(?:\*\*|#+\s*)?(?:(?:the\s+)?(?:text|answer|result|output|translation|summary|title|"
    r"continuation|(?:polished|corrected|revised|rewritten|improved|shortened|shorter|expanded|"
    r"longer|edited|final)(?:\s+(?:text|version|paragraph|draft))?|english|chinese)"
    r"|(?:正文|答案|结果|输出|翻译|译文|摘要|总结|标题|续写|英文|中文|英语|汉语"
    r"|(?:润色|修改|改写|改进|缩写|精简|扩写|编辑|翻译)(?:后)?(?:的)?(?:文本|文字|文章|版本|内容|结果)?))"
    r"(?:\*\*)?\s*[:：](?:\*\*)?\s*",
    re.IGNORECASE,
)
_AFTERWORD = re.compile(
    r"\n+\s*(?:[-*_]{3,}\s*\n+\s*)?(?:\(?\s*note\b[^\n]*"
    r"|(?:i hope|let me know|feel free|please let me)[^\n]*"
    r"|this (?:revised |rewritten |polished |new )?(?:version|text|summary|translation)\b"
    r"[^\n]*|(?:希望这|希望对|如果您?需要|如有需要|请注意|注[:：]|这样修改|这个版本|以上是|以上就是)[^\n]*)\s*\Z",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "「": "」", "《": "》"}
_BULLET = re.compile(r"\A\s*(?:[-*•·–—]|\(?\d{1,2}[.)、）:：]|[一二三四五六七八九十]{1,2}[、.])\s*")
_SHORTER, _LONGER = 0.85, 1.2
"""Shares of the old length that count as shorter and longer."""

_SCALES = {
    "hundred": 1e2,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "百": 1e2,
    "千": 1e3,
    "万": 1e4,
    "百万": 1e6,
    "千万": 1e7,
    "亿": 1e8,
}
_NUMBER = re.compile(
    r"(\d+(?:,\d{3})*(?:\.\d+)?)(?:\s*(hundred|thousand|million|billion|百万|千万|[百千万亿]))?",
    re.IGNORECASE,
)
_NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve"
_SMALL_NUMBERS = {word: n for n, word in enumerate(_NUMBER_WORDS.split(), 1)}
_SMALL_NUMBERS |= {word: n for n, word in enumerate("一二三四五六七八九十", 1)} | {"两": 2}

_WEEK = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_DAYS = {name: day for day, name in enumerate(_WEEK)}
_DAYS |= {f"{week}{day}": n for week in ("周", "星期") for n, day in enumerate("一二三四五六日")}
_DAYS |= {"周天": 6, "星期天": 6}
_DAY = re.compile("|".join(sorted(_DAYS, key=len, reverse=True)), re.IGNORECASE)

_HAN = re.compile(f"[{HAN}]")
_SMALL_WORD = re.compile(r"(?<![A-Za-z])[a-z]{3,}(?![A-Za-z])")


def cleaned(answer: str, original: str = "") -> str:
    """The answer itself: no announcement, label, fence, quotes around it, or afterword."""
    text = answer.strip()
    if (fenced := _FENCE.match(text)) and not original.lstrip().startswith(("```", "~~~")):
        text = fenced[1].strip()
    text = without_announcement(text, original)
    if (fenced := _FENCE.match(text)) and not original.lstrip().startswith(("```", "~~~")):
        text = fenced[1].strip()
    while (shorter := _AFTERWORD.sub("", text)) != text and not _AFTERWORD.search(
        "\n" + original.rstrip()
    ):
        text = shorter.strip()
    closing = _QUOTES.get(text[:1])
    if closing is not None and len(text) > 1 and text.endswith(closing):
        own = original.startswith(text[0]) or closing in text[1:-1]
        text = text if own else text[1:-1].strip()
    return text


def without_announcement(text: str, original: str = "") -> str:
    """``text`` without "Here is ..." and labels before it, unless ``original`` begins so too."""
    for pattern in (_ANNOUNCEMENT, _LABEL):
        if not pattern.match(original):
            text = pattern.sub("", text, count=1)
    return text.lstrip("\n") if text.startswith("\n") else text


def listed(answer: str, count: int) -> list[str]:
    """The items of an answer that is a list, one a line: without bullets, quotes, repetitions."""
    items: list[str] = []
    for line in cleaned(answer).splitlines():
        item = _BULLET.sub("", line).strip().replace("**", "").strip(" \t\"“”'")
        item = re.sub(r"\A(?:title|标题|idea|想法|点子)\s*\d*\s*[:：]\s*", "", item, flags=re.I)
        known = {known.casefold() for known in items}
        if item and item.casefold() not in known and not item.endswith((":", "：")):
            items.append(item)
    return items[:count]


def fault(
    original: str,
    result: str,
    language: Language,
    *,
    shorter: bool = False,
    longer: bool = False,
    same_length: bool = False,
) -> Fault | None:
    """What is wrong with ``result`` as a new version of ``original``.

    ``shorter`` and ``longer`` say what it must be; ``same_length`` that less than half and more
    than the double are too little and too much.
    """
    if not result.strip():
        return "empty"
    spoken = text_language(result)
    if spoken is not None and spoken != language:
        return "wrong_language"
    if original and _plain(original) == _plain(result):
        return "unchanged"
    if shorter and len(result) > _SHORTER * len(original):
        return "longer"
    if longer and len(result) < _LONGER * len(original):
        return "shorter"
    before, after = text_size(original), text_size(result)
    if same_length and not before / 2.5 <= after <= 2.5 * before + 10:
        return "length"
    return None


def untranslated(original: str, result: str, language: Language) -> bool:
    """Whether words of the original's language were left in a translation."""
    if language == "en":
        return _HAN.search(result) is not None
    left = set(_SMALL_WORD.findall(result))
    return bool(left & set(_SMALL_WORD.findall(original)))


def loops(answer: str) -> bool:
    """Whether a model has begun to say the same again and again."""
    return len(answer) > 200 and answer.count(answer[-40:]) > 2


def without_loop(answer: str) -> str:
    """A looping answer up to where its end has been said once."""
    end = answer[-40:]
    first = answer.index(end) + len(end)
    again = answer.index(end, first - len(end) + 1)
    period = again + len(end) - first
    return answer[: max(first - period, 0) + period].rstrip()


def language_pattern(original: str, language: Language) -> str:
    """A regular expression that only a text in ``language`` has.

    Names in the original may stay as they are.
    """
    if language == "en":
        return "[^\u3400-\u4dbf\u4e00-\u9fff]+"
    names = {word for word in re.findall(r"[A-Za-z]+", original) if word[0].isupper()}
    return "([^a-z]" + "".join(f"|{name}" for name in sorted(names)[:20]) + ")+"


def hardly_changed(original: str, result: str) -> bool:
    """Whether a text in another tone is, but for a word or two, the old one."""
    before, after = _plain(original).casefold(), _plain(result).casefold()
    pairs = [{text[i : i + 2] for i in range(len(text) - 1)} for text in (before, after)]
    everything = pairs[0] | pairs[1]
    return bool(everything) and len(pairs[0] & pairs[1]) > 0.85 * len(everything)


def repeats(before: str, after: str) -> bool:
    """Whether ``after`` says for the most part what ``before`` says."""
    pieces = {after[i : i + 8] for i in range(0, max(len(after) - 7, 1))}
    return sum(piece in before for piece in pieces) > len(pieces) / 2


def without_overlap(before: str, after: str) -> str:
    """``after`` without a beginning that repeats the end of ``before``.

    Shorter repetitions than eight characters may be meant.
    """
    stripped = after.lstrip()
    for length in range(min(len(stripped), len(before)), 7, -1):
        if before.endswith(stripped[:length]):
            return stripped[length:]
    return after


def changed_numbers(original: str, result: str, *, both_ways: bool) -> list[str]:
    """Numbers and days in ``result`` that ``original`` lacks, and if ``both_ways`` those it lost.

    12 million and 1200 万 are the same number, 周五 and Friday the same day, and a small number may
    be a word.
    """
    before, after = _numbers(original), _numbers(result)
    worded = _worded(original)
    new = [text for value, text in after.items() if value not in before | worded]
    known = after.keys() | _worded(result).keys()
    lost = [text for value, text in before.items() if value not in known]
    days, days_after = _days(original), _days(result)
    new += [text for day, text in days_after.items() if day not in days]
    lost += [text for day, text in days.items() if day not in days_after]
    return [*new, *(lost if both_ways else ())]


def _days(text: str) -> dict[int, str]:
    return {_DAYS[found.lower()]: found for found in _DAY.findall(text)}


def _numbers(text: str) -> dict[float, str]:
    found = {}
    for digits, scale in _NUMBER.findall(text):
        value = float(digits.replace(",", "")) * _SCALES.get(scale.lower(), 1)
        found[round(value, 6)] = f"{digits}{scale}"
    return found


def _worded(text: str) -> dict[float, str]:
    words = re.findall(r"[a-z]+|[一二两三四五六七八九十]", text.lower())
    return {float(_SMALL_NUMBERS[word]): word for word in words if word in _SMALL_NUMBERS}


class Preview:
    """The text of an answer as it comes, without its announcement.

    The beginning is held back until it is clear whether it is one.
    """

    def __init__(self, original: str) -> None:
        self._original = original
        self._held: str | None = ""

    def take(self, text: str) -> str:
        """What to show next."""
        if self._held is None:
            return text
        self._held += text
        if len(self._held) < 100 and "\n" not in self._held.strip():
            return ""
        return self.rest()

    def rest(self) -> str:
        """What is still held back, at the end."""
        held, self._held = self._held, None
        if held is None:
            return ""
        text = re.sub(r"\A\s*(?:```|~~~)[\w-]*\n", "", held)
        return without_announcement(text.lstrip(), self._original)


def _plain(text: str) -> str:
    return " ".join(text.split())
