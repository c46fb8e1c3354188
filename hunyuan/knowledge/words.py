"""Texts as words that can be looked up, in Chinese and in languages with spaces.

Chinese is cut into overlapping pairs of characters, which needs no dictionary and finds any word of
two characters or more; single characters are kept beside them for questions of one character.
"""

import re
import unicodedata
from collections.abc import Iterable

from hunyuan.knowledge.radicals import RADICALS

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3040-\u30ff"
_HANGUL = "\uac00-\ud7af"
CJK = HAN + _KANA + _HANGUL
"""Like `HAN`, Chinese characters, for use inside a regular expression's brackets."""

_PIECES = re.compile(
    rf"(?P<cjk>[{CJK}]+)"
    r"|(?P<number>\d+(?:\.\d+)*)(?P<unit>[a-z]{0,8})"
    rf"|(?P<word>(?:(?![{CJK}])[^\W_])+)"
)
_HAN_CHARACTER = re.compile(f"[{HAN}]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_BROKEN_LINE = re.compile(rf"(?<=[{CJK}])\s*\n\s*(?=[{CJK}])")

_STOP = """
a an and any are as at be been being but by can could did do does for from had has have how i if in
into is it its me my of on or our please say said shall should so tell than that the their them then
there these they this those to us was we were what when where which who whom whose why will with
would you your about according document documents much many
什么 是什 什 么 怎么 怎样 如何 哪些 哪个 哪里 哪一 哪 多少 几个 为什 何时 何 谁 吗 呢
请问 问 请 的 了 是 在 有 和 与 或 及 也 都 就 这 那 个 之 其 吧 啊 它 他 她 们 它们
这个 那个 一个 是多 少个 是哪 是谁 有哪 有多 是怎 么样 有什 是否 可以 根据 文档 告诉 诉我
"""
STOP_WORDS = frozenset(_STOP.split())
"""Words, and pairs that Chinese questions are made of, that say nothing of what is asked."""

_FUNCTION_CHARACTERS = frozenset(
    "的了是在有和与或及也都就这那个之其吧啊吗呢么多几谁何哪被把对从到为上中下里让给"
)


_QUESTION_WORDS = re.compile(
    "请问|为什么|是什么|有什么|什么|有多少|是多少|多少|怎么样|怎么|怎样|如何|是谁|有哪些|是哪|哪[个些里年种位家]?"
    "|(?<=[有第])几|几(?=[个年月天次层种座台])|有多(?=[长高大深远重久快宽])|需要|应该|应当|能否|可以|是否"
)
_NAME = re.compile(
    r"(?<![.!?] )(?<!^)(?<![\w.])(?:\d+(?:\.\d+)+|\b(?=\w*[A-Z0-9])[^\W_]*[A-Z0-9][^\W_]*)"
)
_TITLE = re.compile("《([^《》]{1,40})》")


def normalise(text: str) -> str:
    """One form for what a reader takes for the same: NFKC, characters for radicals, small."""
    return unicodedata.normalize("NFKC", text.translate(RADICALS)).casefold()


def index_terms(text: str) -> list[str]:
    """Everything a text can be found by, in order, with repetitions."""
    return list(_terms(text, singles=True))


def query_terms(text: str) -> list[str]:
    """What to look for, each once, without words that only make up the question.

    If nothing else is left, those words.
    """
    bare = dict.fromkeys(_terms(_QUESTION_WORDS.sub(" ", text), singles=False))
    found = [term for term in bare if term not in STOP_WORDS]
    return found or list(dict.fromkeys(_terms(text, singles=False)))


def names(question: str) -> set[str]:
    """Terms of an English name, a code or a 《title》 in a question: without them it is another.

    A capital at the beginning of a sentence says nothing.
    """
    plain = unicodedata.normalize("NFKC", question)
    return {
        term
        for found in [*_NAME.findall(plain), *_TITLE.findall(plain)]
        for term in index_terms(found)
        if term not in STOP_WORDS and (len(term) > 1 or not _HAN_CHARACTER.match(term))
    }


def is_chinese(text: str) -> bool:
    """Whether a text is rather Chinese than of a language with spaces."""
    return 2 * len(_HAN_CHARACTER.findall(text)) >= len(_LATIN_WORD.findall(text))


def is_seam(term: str) -> bool:
    """Whether a pair may be no word at all but the end of one and a particle: 数是 in 参数是."""
    return len(term) == 2 and (term[0] in _FUNCTION_CHARACTERS or term[1] in _FUNCTION_CHARACTERS)


def _terms(text: str, *, singles: bool) -> Iterable[str]:
    plain = _BROKEN_LINE.sub("", _THOUSANDS.sub("", normalise(text)))
    for piece in _PIECES.finditer(plain):
        if run := piece["cjk"]:
            if singles or len(run) == 1:
                yield from run
            yield from (run[i : i + 2] for i in range(len(run) - 1))
        elif number := piece["number"]:
            yield number
            if unit := piece["unit"]:
                yield number + unit
        else:
            yield _singular(piece["word"])


def _singular(word: str) -> str:
    """The plural s of English, off; both sides are treated alike, so mistakes do no harm."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
