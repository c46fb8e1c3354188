# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: graphs of functions."""

import re

from hunyuan.maths import slots
from hunyuan.maths.call import ToolCall, tool_call
from hunyuan.maths.grammar import Relation, Sequence

VERB = re.compile(
    r"^(?:plot|graph|draw|sketch|show)\s+(?:me\s+)?(?:a\s+|the\s+)?(?:graphs?\s+|plots?\s+|curves?\s+|"
    r"functions?\s+)?(?:of\s+|for\s+)?|"
    r"^(?:请)?(?:画出|画一?下|画|绘制|绘出|作出|作|做出|描绘|显示)\s*(?:一下|一?个|一?张)?\s*(?:函数|曲线)?\s*",
    re.IGNORECASE,
)
NOUN = re.compile(
    r"\s*的?\s*(?:函数)?(?:图像|图象|图形|曲线图?|图线|函数图|图)\s*$|\s+(?:graph|plot|curve)s?\s*$",
    re.IGNORECASE,
)
GRAPH_OF = re.compile(r"^(?:the )?(?:graph|plot|curve)s? of\s+", re.IGNORECASE)
BOUND = r"([-+]?[\w.*/π∞()]+?)"
DOMAIN = re.compile(
    rf"(?:[\s,，]+(?:for|with|where|when)\s+(?:[a-z]\s+)?|\s*[,，]\s*(?:[a-z]\s+)?|\s+)"
    rf"(?:from|between|in|on|over|∈)\s*(?:the (?:interval|range|domain)\s+)?(?:[a-z]\s*=\s*)?[\[(]?\s*{BOUND}\s*"
    rf"(?:to|and|,|\.\.|~)\s*{BOUND}\s*[\])]?\s*$|"
    rf"[\s,，]*(?:其中|在|当|对|区间为?|定义域为?)*\s*(?:区间|定义域|范围)?\s*(?:[a-z]\s*(?:∈|属于|从|在)?\s*)?"
    rf"[\[(【]\s*{BOUND}\s*[,，~]\s*{BOUND}\s*[\])】]\s*(?:上|内|之间|范围内|区间上?|区间内)?\s*的?\s*$|"
    rf"[\s,，]*(?:其中|在|当|对)?\s*(?:[a-z]\s*)?从\s*{BOUND}\s*到\s*{BOUND}\s*(?:上|内|之间|范围内)?\s*的?\s*$|"
    rf"[\s,，]*(?:其中|在|当|对|for|where|with)?\s*{BOUND}\s*(?:<=|≤|<)\s*[a-z]\s*(?:<=|≤|<)\s*{BOUND}\s*(?:时|上)?\s*$",
    re.IGNORECASE,
)
LEADING = re.compile(
    r"^在?\s*(?:区间)?\s*[\[(【]\s*([^,，\[\]]+)[,，]\s*([^\[\]]+?)\s*[\])】]\s*(?:上|内|之间|范围内|区间上?)?\s*"
    r"(?:画出|画|绘制|作出)\s*(?:函数|曲线)?\s*"
)


def plot(text: str) -> ToolCall | None:
    """``画出 y=x^2-3x+2 的图像``, ``plot sin x and cos x from -pi to pi``."""
    lower = upper = ""
    if lead := LEADING.match(text):
        lower, upper, body = lead[1], lead[2], text[lead.end() :]
    elif (verb := VERB.match(text)) and verb.end() > 0:
        body = text[verb.end() :]
    elif of := GRAPH_OF.match(text):
        body = text[of.end() :]
    elif NOUN.search(text):
        body = text
    else:
        return None
    body = NOUN.sub("", body)
    if not lower and (found := DOMAIN.search(body)):
        bounds = [group for group in found.groups() if group is not None]
        if all(slots.number(bound) for bound in bounds):
            lower, upper = bounds
            body = NOUN.sub("", body[: found.start()])
    functions = _functions(body)
    if not functions:
        return None
    low, high = slots.number(lower) or "", slots.number(upper) or ""
    return tool_call("plot", expressions=", ".join(functions), lower=low, upper=high)


def _functions(text: str) -> list[str]:
    text = slots.bare(text)
    if (implicit := slots.equations(text)) and (parsed := slots.trees(implicit)):
        shown = []
        for tree, part in zip(parsed, _split(implicit), strict=False):
            if isinstance(tree, Sequence):
                return []
            single = slots.expression(part)
            assert isinstance(tree, Relation)
            shown.append(single if single is not None else part.strip())
        if len(shown) == len(parsed):
            return shown
    whole = slots.expression(text)
    if whole is not None:
        return [whole]
    parts = [slots.expression(part) for part in _split(text)]
    return [part for part in parts if part] if parts and all(parts) else []


def _split(text: str) -> list[str]:
    """At commas outside parentheses and at ``and``."""
    text = re.sub(r"\s+and\s+|\s*(?:和|与|以及|及|、|；|;|，)\s*", ",", text)
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [part for part in [*parts, text[start:]] if part.strip()]
