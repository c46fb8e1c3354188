# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""Questions of two steps: the first one's answer is what the second is about."""

import re
from collections.abc import Callable

from hunyuan.maths import slots
from hunyuan.maths.call import ToolCall, tool_call

Reader = Callable[[str], ToolCall | None]

THEN = re.compile(
    r"\s*(?:[,，;；.。]\s*)?(?:\band then\b|\bthen\b|\band after that\b|\bafter that\b|\band\b(?=\s+(?:evaluate|find|differentiate|simplify|expand|factor|integrate|solve|plug|substitute|give|tell|calculate|compute|add|multiply|divide|subtract))|"
    r"(?<!\d)[,，](?=\s*(?:evaluate|plug|substitute|then))|[,，;；。]?\s*(?:再|然后|接着|之后|最后)|[,，]\s*(?:并|求|把|将|代入))\s*,?\s*",
    re.IGNORECASE,
)
POINT = re.compile(
    r"^(?:evaluate|find|calculate|compute|give|get|plug|substitute|put|what is|tell me)?\s*(?:me\s+)?(?:in\s+)?(?:it|the (?:result|value|derivative|answer)|its value|that|the slope)?\s*(?:at|for|when|where|with|in)?\s*(?:the point\s+)?([a-z])\s*=\s*([^,，=]+?)(?:\s+(?:in|into it|into that))?$|"
    r"^(?:把|将|求|算|计算|代入|令)?\s*(?:它|其|结果|导数|导函数|函数)?\s*(?:在|当)?\s*([a-z])\s*=\s*([^,，=]+?)\s*(?:带入|代入?(?:进去?|求值|计算)?|处|时|点)?\s*(?:的?(?:值|导数|导数值|结果|斜率))?(?:是|为)?$",
    re.IGNORECASE,
)
PRONOUN = re.compile(
    r"\b(?:it|the (?:result|answer|expression|product|sum|derivative)|that|this)\b|结果|它|所得(?:的)?(?:式子|结果)?|得数",
    re.IGNORECASE,
)
NOW = re.compile(
    r"\s*[,，;；]\s*(?:现在|最后|实际|一共|结果|得|要|应|what|how).*$|\s*(?:是|等于|得)?(?:多少|几)\S{0,2}$",
    re.IGNORECASE,
)
SAME = {"simplify", "expand", "factor", "apart"}
FIRST_ZH = re.compile(r"^(?:首先|先)\s*(?:对|把|将|求)?")
ROOTS = re.compile(
    r"^(?:find|give|tell me|get|list|write)?\s*(?:me\s+)?(?:the|its)?\s*(?:roots?|zeros?|solutions?)$|^(?:求|写出)?(?:它|其)?的?(?:根|零点|解)$",
    re.IGNORECASE,
)
ARITHMETIC: list[tuple[str, str]] = [
    (r"add\s+(.+)|plus\s+(.+)|加上?\s*(.+)", "+"),
    (r"subtract\s+(.+)|minus\s+(.+)|take away\s+(.+)|减去?\s*(.+)", "-"),
    (
        r"(?:multiply|multiplied)\s+(?:it\s+|the result\s+)?by\s+(.+)|times\s+(.+)|乘以?上?\s*(.+)",
        "*",
    ),
    (r"(?:divide|divided)\s+(?:it\s+|the result\s+)?by\s+(.+)|除以\s*(.+)", "/"),
]
OPERATIONS = [
    (re.compile(rf"^(?:{pattern})$", re.IGNORECASE), sign) for pattern, sign in ARITHMETIC
]


def steps(text: str, read: Reader) -> ToolCall | None:
    """``differentiate x^3 - 2x and then evaluate at x = 2``, ``12 加 8 再除以 4``.

    ``read`` understands one step.
    """
    for found in THEN.finditer(text):
        first, second = text[: found.start()].strip(), text[found.end() :].strip()
        if found[0].strip(" ,，") == "求" or found[0].endswith("求"):
            second = second.removeprefix("求")
        first = FIRST_ZH.sub("", first).strip() if FIRST_ZH.match(first) else first
        if not first or not second:
            continue
        call = read(first) or (read(f"求{first}") if not first.isascii() else None)
        if call and (made := _second(call, second, read)):
            return made
    return None


def _second(call: ToolCall, second: str, read: Reader) -> ToolCall | None:
    given = call.arguments
    body = _percentage(call) or given.get("expression")
    if body is None or slots.trees(body) is None:
        return None
    if (point := POINT.match(second)) and call.operation in ("differentiate", *SAME):
        name, value = point[1] or point[3], slots.number(point[2] or point[4])
        if value is None:
            return None
        if call.operation == "differentiate":
            return (
                None
                if "at" in given
                else tool_call("differentiate", **{**given, "variable": name, "at": value})
            )
        return tool_call("substitute", expression=body, values=f"{name} = {value}")
    whole = _whole(call)
    if whole is None:
        return None
    asked = NOW.sub("", second)
    for pattern, sign in OPERATIONS:
        if found := pattern.match(asked):
            value = slots.number(
                re.sub(
                    r"(?<=\d)\s*(?:元|块钱?|dollars?)$", "", next(g for g in found.groups() if g)
                )
            )
            return tool_call("calculate", expression=f"{whole}{sign}({value})") if value else None
    if ROOTS.match(second):
        return tool_call("solve", equations=whole) if call.operation in SAME else None
    replaced = PRONOUN.sub(f" {whole} ", second)
    return read(replaced if replaced != second else f"{second} {whole}")


def _percentage(call: ToolCall) -> str | None:
    """A part of a number, or the number after it went up or down, as an expression."""
    if call.operation != "percent":
        return None
    a, b = call.arguments["a"], call.arguments["b"]
    shapes = {
        "of": f"{b}*{a}/100",
        "increase": f"{a}*(100 + {b})/100",
        "decrease": f"{a}*(100 - {b})/100",
    }
    return shapes.get(call.arguments["action"])


def _whole(call: ToolCall) -> str | None:
    """The result of the first step as an expression."""
    given = call.arguments
    if percentage := _percentage(call):
        return f"({percentage})"
    body = f"({given['expression']})"
    if call.operation in SAME or (call.operation == "calculate" and "digits" not in given):
        return body
    if call.operation == "integrate" and "lower" in given and "upper" in given:
        parts = [given["expression"], given.get("variable") or "x", given["lower"], given["upper"]]
        return f"integrate({', '.join(parts)})"
    if call.operation == "differentiate" and "at" not in given:
        parts = [given["expression"], given.get("variable") or "x", given.get("order") or "1"]
        return f"diff({', '.join(parts)})"
    return None
