"""Chinese, English, code or something else, told by what a text is made of.

Enough for a mixture of these three, and works without a model to download: Chinese by Han
characters, English by its most frequent words, code by how its lines look. All else (French,
Japanese, Korean, Russian, tables of numbers) is ``other``. Short texts without any of the signs are
taken for what their letters allow.

A Han character says as much as three Latin letters, so the shares are of information, not of
characters.
"""

import re

from hunyuan.data.recipe import Label

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_OTHER_ASIAN = re.compile("[\u3040-\u30ff\u31f0-\u31ff\uac00-\ud7af\u1100-\u11ff]")
_LATIN = re.compile("[A-Za-z]")
_FOREIGN = re.compile(r"[^\W\d_A-Za-z]")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_CODE_LINE = re.compile(
    r"[{};,(\[:]\s*$|^\s*[})\]]|^\s*(?:#\s*\w*(?:include|define|!)|//|/\*|\*\s|--\s|@\w+)"
    r"|^\s*(?:def|class|import|from|return|if|elif|else|for|while|const|let|var|func|fn|pub|public"
    r"|private|static|void|int|package|use|using|select|create|insert|end)\b.*[\w)\]}:;'\"]$"
    r"|\w+\(.*\)|[\w\])]\s*(?:[-+*/|&]?=|->|=>|:=)\s*\S",
    re.MULTILINE | re.IGNORECASE,
)
_FREQUENT = frozenset(
    re.findall(
        "[a-z]+",
        "the of and to a in that is was he for it with as his on be at by i this had not are "
        "but from or have an they which one you were her all she there would their we him "
        "been has when who will more no if out so said what up its about into than them can "
        "only other new some could time these two may then do first any my now such like our "
        "over me even most after also ",
    )
)
SAMPLE = 9_000
"""Characters looked at, a third each at the beginning, in the middle and at the end."""


def language_of(text: str) -> Label:
    """What a text is, from up to `SAMPLE` of its characters."""
    text = _sample(text)
    han, latin = 3 * len(_HAN.findall(text)), len(_LATIN.findall(text))
    asian = 3 * len(_OTHER_ASIAN.findall(text))
    foreign = len(_FOREIGN.findall(text)) - han // 3 - asian // 3
    letters = han + latin + asian + foreign
    if letters == 0:
        return "other"
    if asian > 0.1 * letters:
        return "other"
    # Comments in Chinese are no reason to take a program for prose, nor are listings in prose.
    if looks_like_code(text):
        return "code"
    if han > 0.3 * letters:
        return "zh"
    if foreign > 0.2 * letters:
        return "other"
    words = _WORD.findall(text.casefold())
    frequent = sum(word in _FREQUENT for word in words)
    if frequent > 0.15 * len(words) or (len(words) < 10 and not han):
        return "en"
    # What is left of Latin letters beside some Chinese are names, commands and formulas.
    return "zh" if han > 0.05 * letters else "other"


def fits(text: str, label: Label) -> bool:
    """Whether a text may well be what its source says, which is asked for less than a proof.

    Chinese with long quotations is still Chinese; English of commands and names has few of the
    frequent words; what is said to be code is believed.
    """
    text = _sample(text)
    han, latin = 3 * len(_HAN.findall(text)), len(_LATIN.findall(text))
    if label == "zh":
        return han > 0.1 * (han + latin) and 3 * len(_OTHER_ASIAN.findall(text)) < 0.3 * han
    if label == "en":
        foreign = len(_FOREIGN.findall(text))
        words = _WORD.findall(text.casefold())
        frequent = sum(word in _FREQUENT for word in words)
        return latin > foreign and (len(words) < 30 or frequent > 0.05 * len(words))
    return True


def looks_like_code(text: str) -> bool:
    """Whether most lines are built like statements."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 3:
        return False
    likely = sum(_CODE_LINE.search(line) is not None for line in lines if len(line) < 200)
    return likely > 0.6 * len(lines)


def _sample(text: str) -> str:
    if len(text) <= SAMPLE:
        return text
    third = SAMPLE // 3
    middle = len(text) // 2
    return text[:third] + text[middle : middle + third] + text[-third:]
