# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Questions in words, notation or LaTeX, in Chinese or English, understood by rules.

    ``what is 15% of 240``  ``求 x^2-5x+6=0 的解``  ``derivative of sin(x)^2``  ``把 5 英里换算成公里``

Each rule is a pattern whose gaps must themselves be readable mathematics (`hunyuan.maths.slots`),
so that a sentence about something else is not mistaken for a question. What no rule understands is
left to the model; nothing is guessed here.
"""

import re
from collections.abc import Callable
from itertools import pairwise

from hunyuan.maths import (
    slots,
    spelling,
    words_algebra,
    words_calculus,
    words_chance,
    words_data,
    words_dates,
    words_formula,
    words_money,
    words_numbers,
    words_plot,
    words_steps,
)
from hunyuan.maths.call import MAX_QUESTION, ToolCall, tool_call
from hunyuan.maths.grammar import ALIASES, CONSTANTS, FUNCTIONS, GREEK
from hunyuan.maths.latex import LatexProblem, looks_like_latex, stripped, to_plain

MAX_PROSE = 400
"""Longer questions are not matched against patterns, whose time grows faster than the text."""

POLITE = re.compile(
    r"^(?:(?:please|pls|plz|can (?:you|u|i)|could (?:you|i)|would you|will you|kindly|help(?: me)?(?: with| to)?|"
    r"i(?:'d| would) like (?:you )?to(?: know)?|i (?:want|need)(?: you)? to(?: know)?|i (?:want|need)(?= the)|let's|lets|now|"
    r"tell me|hey|hi|hello|so|ok|okay|um+|well|quick question|just|do you know|any idea|question|yo|thanks)\b[\s,:.!]*|"
    r"(?:请问|请教|请你|请|麻烦(?:你|您)?|劳驾|帮(?:我|忙)(?=\S)|你能|您能|能(?=帮|不能|告)|能不能|能否|可以|可否|我想(?:要|知道|问)?|你知道|"
    r"我要|告诉我|给我|替我|来|一下|下面的?|你好|您好|老师|那么|那|嗯|快速)[\s,，!！]*)+",
    re.IGNORECASE,
)
COMMAND = re.compile(
    r"^(?:(?:what(?:'s|s|’s| is| are| r| would be| does)(?: the (?:values?|results?|answers?) (?:of|to))?|wats|how much (?:is|are|does)|"
    r"calculate|calc|compute|evaluate|find(?: out)?|determine|work out|figure out|give(?: me)?|show(?: me)?|get|the (?:exact )?value of|"
    r"solve for the value of|the answer to)\b\s*(?:the (?:exact )?(?:values?|results?) of\s+)?|"
    r"(?:计算|试计算|算一下|算算|算|求出|求一下|试求|求得|求(?!导|和|积(?!分)|解|极限|根|值|证|不定|定积)|"
    r"问|已知问|得出|给出)\s*(?:一下|出)?\s*[:：]?\s*)+",
    re.IGNORECASE,
)
ENDING = re.compile(
    r"(?:\s*(?:(?:是|等于|=|为|的结果是|的值是|结果是|得)?\s*(?:多少|几|什么|啥)(?:呢|啊|呀)?|的值|的结果|"
    r"等于|是多大|多大|equals?( what)?|please|pls|plz|thanks?(?: you| u)?|thx|for me|exactly|is what|"
    r"\b(?:i|we) (?:need|want)|谢谢(?:你|您|啦)?|多谢|好吗|可以吗|行吗|[吗嘛呗吧哈]|\?|？|。|\.|!|！|,|，|=|\bequal to\b)\s*)+$",
    re.IGNORECASE,
)

INDIRECT = re.compile(
    r"^(?:what|how much|how many)\s+(.+?)\s+(?:is|are|equals?|makes?|comes? to)[\s?.]*$",
    re.IGNORECASE,
)
"""``(tell me) what 7 factorial is``."""

PROSE = re.compile(r"(?<![A-Za-z\\])(?:is|[A-Za-z]{3,})(?![A-Za-z(])")

FULL_WIDTH = {
    code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "，：；？！．"
}
"""Letters, digits and signs typed with a Chinese keyboard; its punctuation stays."""

OPERATOR = re.compile(r"[d∂](?:\^\d)?\s*/\s*d[a-z]")
"""``d/dx ...`` is no quotient."""

Rule = Callable[[str], ToolCall | None]

# From the special to the general. A rule sees the question without courtesies around it.
RULES: tuple[Rule, ...] = (
    words_data.chart,
    words_plot.plot,
    words_dates.dates,
    words_money.money,
    words_chance.probability,
    words_chance.letters,
    words_numbers.conversion,
    words_numbers.percentage,
    words_numbers.statistics,
    words_numbers.number_theory,
    words_numbers.combinatorics,
    words_algebra.matrices,
    words_algebra.named_matrices,
    words_calculus.sums,
    words_calculus.limits,
    words_calculus.series,
    words_calculus.extrema,
    words_calculus.derivatives,
    words_calculus.areas,
    words_calculus.integrals,
    words_algebra.complex_numbers,
    words_algebra.substitution,
    words_algebra.rewriting,
    words_algebra.solving,
    words_formula.with_values,
    words_numbers.rounding,
)


def understand(question: str) -> ToolCall | None:
    """The tool call a question asks for; None where no rule understands it."""
    text = question.strip()
    if not text or len(text) > MAX_QUESTION:
        return None
    if call := _notation(text):
        return call
    if len(text) > MAX_PROSE:
        return words_numbers.statistics(text) if len(re.sub(r"[\d\s,.;]", "", text)) < 60 else None
    text = _undelimited(text)
    text = re.sub(r"\s+", " ", text.translate(FULL_WIDTH))
    text = re.sub(r"(?<=\d) [xX×] ?(?=\d)|(?<=\d)×(?=\d)", " * ", text)
    # As it is written; with slips of the pen mended; as two steps.
    mended = spelling.corrected(text)
    for version in dict.fromkeys((text, mended)):
        if call := _understood(version):
            return call
    bare = ENDING.sub("", POLITE.sub("", mended)).strip()
    return words_steps.steps(bare, _understood)


def _understood(text: str) -> ToolCall | None:
    """One request, with its courtesies."""
    text = POLITE.sub("", text).strip()
    asked = COMMAND.sub("", text).strip()
    asked = INDIRECT.sub(r"\1", asked)
    short = ENDING.sub("", asked).strip()
    for version in dict.fromkeys((short, asked, text)):
        if not version:
            continue
        for rule in RULES:
            if call := rule(version):
                return call
    for version in dict.fromkeys((short, asked)):
        if call := _expression(version) or _embedded(version):
            return call
    return words_formula.lookup(short) or words_formula.lookup(text)


def _notation(text: str) -> ToolCall | None:
    """A question that is nothing but notation or LaTeX."""
    if looks_like_latex(text):
        bare = stripped(text).rstrip(" .。?？")
        if re.search(r"[\u4e00-\u9fff]", bare) or re.match(r"[A-Za-z]{3,}[\s:]", bare):
            return None
        bare = re.sub(r"=\s*\??$", "", bare)
        try:
            plain = to_plain(bare)
        except LatexProblem:
            return tool_call("calculate", expression=bare)  # the worker has a second reader
        if slots.trees(plain) is None:
            return None
        return tool_call("calculate", expression=plain)
    if OPERATOR.match(text):
        return None
    return _expression(re.sub(r"\s*=\s*[?？]?\s*$", "", text.strip(slots.EDGES)))


def _undelimited(text: str) -> str:
    r"""Without the signs ``$`` and ``\(`` around formulas."""
    return re.sub(r"\$\$?|\\[()\[\]]", " ", text)


def _embedded(text: str) -> ToolCall | None:
    """LaTeX that says itself what to do, with a few words around it."""
    if not looks_like_latex(text):
        return None
    bare = re.sub(r"^[\u4e00-\u9fff\s:：,，]+|[\u4e00-\u9fff\s:：,，]+$", "", text)
    bare = re.sub(r"^(?:[A-Za-z]{2,}\s+|a\s+)+(?=\\)", "", bare)
    plain = slots.plain(bare)
    if plain and re.search(r"\b(?:integrate|limit|diff|sum|product|det)\(", plain):
        return tool_call("calculate", expression=plain)
    return None


def _prose(text: str) -> bool:
    """Whether a run of letters is rather a word than a product: ``wat``, not ``abc`` or ``cosx``."""
    if " " not in text.strip():
        return False
    for word in PROSE.findall(text):
        known = word in FUNCTIONS or word in ALIASES or word in GREEK or word in CONSTANTS
        inside = any(name in word for name in (*FUNCTIONS, *ALIASES, *GREEK) if len(name) > 1)
        ascending = all(ord(b) - ord(a) == 1 for a, b in pairwise(word))
        if not (known or inside or ascending):
            return True
    return False


def _expression(text: str) -> ToolCall | None:
    """An expression to be computed, an equation to be solved or a matrix to be shown."""
    text = re.sub(r"\s*=\s*[?？]?\s*$", "", text)
    if (found := slots.equations(text)) and "=" in found + text:
        return tool_call("solve", equations=found)
    found = slots.expression(text)
    if found is None:
        return None
    parsed = slots.trees(found)
    if _prose(found):
        return None
    # One letter or a lone word is no question.
    if parsed is None or (len(text) == 1 and not text.isdigit()):
        return None
    return tool_call("calculate", expression=found)
