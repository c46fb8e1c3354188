# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Rules: charts of named numbers that stand in the question."""

import re

from hunyuan.maths.call import ToolCall, tool_call
from hunyuan.maths.grammar import normalise

KINDS = [
    ("bar", re.compile(r"\b(?:bar|column)s?[ -]?(?:chart|graph|plot|diagram)s?\b|\bhistogram\b|柱状图|条形图|柱形图|直方图", re.IGNORECASE)),
    ("pie", re.compile(r"\bpie[ -]?(?:chart|graph|diagram)?s?\b|饼状?图|扇形(?:统计)?图", re.IGNORECASE)),
    ("line", re.compile(r"\bline[ -]?(?:chart|graph|plot|diagram)s?\b|折线(?:统计)?图|曲线统计图", re.IGNORECASE)),
]  # fmt: skip
FILLER = re.compile(
    r"\b(?:please|pls|plot|draw|make|create|show|sketch|build|give|me|us|a|an|the|of|for|with|these|this|following|data|values?|showing|using|as|i|want|to|see|can|you|in)\b(?!\s*[:=]\s*-?\d)|"
    r"请|帮我|给我|麻烦|用|以|画出?|绘制|做|生成|一下|一?[个张幅]|表示|展示|显示|数据|分别(?:是|为)?|如下|根据|把|将|的(?![\u4e00-\u9fff]{1,6}\s*[:：=]?\s*\d)",
    re.IGNORECASE,
)
NUMBER = r"[-+]?\d+(?:\.\d+)?"
UNIT = (
    r"(?:%|[A-Za-z$€£]{1,6}(?![A-Za-z])|[\u4e00-\u9fff]{1,3}(?=\s*(?:[,，、;；.。]|和|及|与|$)))?"
)
NAMED = re.compile(
    rf"\s*(?P<name>[^,，、;；:：=]*?(?:\d{{1,4}}\s*(?:年|月|日|号|季度|班|周|级)|[Qq]\d|[^\d\s,，、;；:：=]|(?<=\w)\d+(?=\s*[:：=])))\s*(?:[:：=]|是|为|有|\bis\b|\bare\b|\bhas\b|-(?=\s))?\s*(?P<value>{NUMBER})\s*{UNIT}\s*(?:[,，、;；.。]|\band\b|和|与|及|\s|$)",
)


def chart(text: str) -> ToolCall | None:
    """``bar chart: apples 5, bananas 8``, ``画个饼图：苹果30，香蕉20``."""
    kind = next((kind for kind, pattern in KINDS if pattern.search(text)), None)
    if kind is None:
        return None
    for _, pattern in KINDS:
        text = pattern.sub(" ", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", normalise(text).replace("−", "-"))
    text = FILLER.sub(" ", text).strip(" :：,，.。;；")
    # "sales: Jan 12, Feb 15" has a title.
    text = re.sub(r"^[^:：\d,，;；]{1,40}[:：]\s*(?=[^\s\d:：]+\s*\d)", "", text)
    pairs, at = [], 0
    while at < len(text):
        found = NAMED.match(text, at)
        if found is None:
            return None
        pairs.append((found["name"].strip(" :：-"), found["value"]))
        at = found.end()
    if len(pairs) < 2 or not all(name and len(name) <= 40 for name, _ in pairs):
        return None
    return tool_call(
        "chart", kind=kind, data="; ".join(f"{name} = {value}" for name, value in pairs)
    )
