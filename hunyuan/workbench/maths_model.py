# ruff: noqa: E501 (a pattern is read best on one line; Chinese counts double)
"""What the model does for mathematics: reads a question, writes a formula, words a result.

It never computes. A question becomes a forced call of one of a few flat tools; the numbers of the
call must stand in the question; what it says of a result is compared with the tool's values.
"""

import contextlib
import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from hunyuan.errors import Language
from hunyuan.maths import latex, numerals, slots
from hunyuan.maths.call import ACTIONS, CallError, ToolCall, checked
from hunyuan.maths.grammar import variables
from hunyuan.maths.worker import MathsWorker
from hunyuan.serve.backend import Backend
from hunyuan.serve.schema import ChatRequest
from hunyuan.workbench.language import text_language
from hunyuan.workbench.prompt import pieces
from hunyuan.workbench.templates import Templates

CALL_TOKENS = 120
FORMULA_TOKENS = 160
EXPLAIN_TOKENS = 220
MAX_FIELD = 160

FIELDS = {
    "call": {"question"},
    "quantities": {"question"},
    "formula": {"description"},
    "explain": {"question", "answer", "steps"},
}
"""Prompt templates of this place and their fields."""


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "maxLength": MAX_FIELD, "minLength": 1, "description": description}


def _choice(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(names)}


def _tool(
    name: str, description: str, fields: dict[str, Any], required: Sequence[str] = ()
) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": fields,
        "required": list(required or fields),
        "additionalProperties": False,
    }
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


# At most three fields each, in the notation every model knows.
TOOLS = [
    _tool("calculate", "value of an arithmetic expression", {"expression": _text("e.g. 12*5 - 3")}),
    _tool("solve", "solve equations", {"equations": _text("e.g. x + y = 10, x - y = 2")}),
    _tool(
        "percent",
        "of: a percent of b; what: a is what percent of b; change: from a to b; "
        "increase, decrease: a by b percent; whole: a is b percent of what",
        {"action": _choice(ACTIONS["percent"]), "a": _text("number"), "b": _text("number")},
    ),
    _tool(
        "statistics",
        "statistics of numbers",
        {
            "action": _choice(("mean", "median", "mode", "std", "variance", "sum", "range")),
            "data": _text("numbers with commas"),
        },
    ),
    _tool(
        "number",
        "whole numbers",
        {
            "action": _choice(("gcd", "lcm", "factorize", "is_prime", "divisors")),
            "numbers": _text("numbers with commas"),
        },
    ),
    _tool(
        "convert",
        "convert units",
        {"value": _text("number"), "source": _text("unit"), "target": _text("unit")},
    ),
    _tool("simplify", "simplify an expression", {"expression": _text("expression")}),
    _tool(
        "differentiate",
        "derivative, perhaps at a point",
        {"expression": _text("expression"), "at": _text("point")},
        ["expression"],
    ),
    _tool(
        "integrate",
        "integral, perhaps between bounds",
        {"expression": _text("expression"), "lower": _text("bound"), "upper": _text("bound")},
        ["expression"],
    ),
    _tool(
        "plot",
        "draw the graph of functions",
        {
            "expressions": _text("e.g. x^2, sin(x)"),
            "lower": _text("left end"),
            "upper": _text("right end"),
        },
        ["expressions"],
    ),
    _tool("not_mathematics", "the question is no mathematics", {}),
]
QUANTITIES_TOOL = _tool(
    "name_quantities",
    "every number of the problem with a name, and the answer as an expression of the names",
    {"known": _text("apples = 12; eaten = 5"), "expression": _text("apples - eaten")},
)
FORMULA_TOOL = _tool("write_formula", "a formula in LaTeX", {"latex": _text("LaTeX")})


@dataclass(frozen=True)
class Reading:
    """What the model made of a question: a call, or why there is none."""

    call: ToolCall | None
    invented: tuple[str, ...] = ()
    """Numbers of its call that the question does not have."""

    ignored: tuple[str, ...] = ()
    """Numbers of the question that its call does not use."""


async def read_question(
    backend: Backend,
    templates: Templates,
    question: str,
    lang: Language,
    temperature: float | None = None,
) -> Reading:
    """Ask the model for a call. Raises what the backend raises."""
    spoken = text_language(question) or lang
    template = templates.get("maths", "call", spoken, FIELDS["call"])
    found = await _forced(
        backend,
        _with_calls(template.messages({"question": question})),
        TOOLS,
        template.temperature if temperature is None else temperature,
        CALL_TOKENS,
        lang,
    )
    if found is None or found[0] == "not_mathematics":
        return Reading(None)
    try:
        call = checked(*found)
    except CallError:
        return Reading(None)
    if not _sensible(call) or not _meant(call, question):
        return Reading(None)
    invented, ignored = _invented(call, question), _ignored(call, question)
    return Reading(None, invented, ignored) if invented or ignored else Reading(call)


def _sensible(call: ToolCall) -> bool:
    """Whether a call can be what was meant: readable, and with something to solve for."""
    given = call.arguments
    if any(not slots.plain(text) for name, text in given.items() if name in EXPRESSIONS):
        return False
    if call.operation != "solve":
        return True
    trees = slots.trees(slots.plain(given["equations"]) or "") or ()
    return any(variables(tree) for tree in trees)


FREE = ("calculate", "solve", "percent")
"""Operations that a model may read into any story: one reading of it is not enough."""

EVIDENCE: dict[str, str] = {
    "percent": r"%|percent|per cent|[一二三四五六七八九\d]折|百分|discount|成",
    "differentiate": r"deriv|differenti|slope|rate of change|how fast|chang|导|斜率|变化",
    "integrate": r"integra|area|accumul|积分|面积",
    "simplify": r"simpl|reduc|shorter|化简|约分|简化",
    "plot": r"plot|graph|draw|show|look|sketch|curve|画|图|样子|长什么样|曲线",
    "convert": r"convert|how many|how much|\bin\b|\bto\b|\binto\b|多少|换|几|转",
    "mean": r"mean|average|平均|均值", "median": r"median|middle|中位", "mode": r"mode|most (?:common|often|frequent)|众数|最多",
    "std": r"deviation|\bstd|\bsd\b|标准差", "variance": r"variance|方差", "sum": r"\bsum|total|add|和|总|共",
    "range": r"range|极差|差", "gcd": r"gcd|hcf|gcf|common (?:divisor|factor)|公约|公因", "lcm": r"lcm|common multiple|公倍",
    "factorize": r"factor|prime|质因|素因|分解", "is_prime": r"prime|质数|素数", "divisors": r"divisor|factor|因数|约数",
}  # fmt: skip
"""What must stand in a question for an operation, or an action, to be what it asks for."""

TOPIC = re.compile(
    r"probab|chance|odds|matri|determinant|eigen|\brank\b|\blimits?\b|series|taylor|integral|integrate|derivative|"
    r"differentiate|correlation|regression|deviation|variance|median|quartile|interest|compound|mortgage|loan|"
    r"\bprime|\bgcd|\blcm|divisor|permutation|combination|arrange|how many ways|logarithm|complex|modulus|argument|"
    r"chart|graph|plot|days? (?:between|from|after|before)|day of the week|formula|simplify|expand|inequality|"
    r"概率|可能性|矩阵|行列式|特征值|秩|极限|级数|展开|积分|导数|求导|偏导|极值|相关系数|标准差|方差|中位数|众数|复利|单利|利率|利息|贷款|"
    r"质数|素数|公约数|公倍数|因数|排列|组合|种(?:不同的?)?[选排方走]法|对数|复数|模|辐角|图|星期几|公式|化简|不等式|通项|数列|正态|分布",
    re.IGNORECASE,
)
"""Subjects whose questions are no plain arithmetic: a sum made of their numbers is a guess."""


HIGHER = re.compile(r"阶|偏|partial|second|third|fourth|\b[2-9](?:nd|rd|th)\b|twice", re.IGNORECASE)


def _meant(call: ToolCall, question: str) -> bool:
    """Whether the question itself says what the call is to do."""
    if call.operation in FREE and TOPIC.search(question):
        return False
    # The flat tool has no order and no second variable.
    if call.operation == "differentiate" and HIGHER.search(question):
        return False
    name = (
        call.arguments.get("action", "")
        if call.operation in ("statistics", "number")
        else call.operation
    )
    wanted = EVIDENCE.get(name)
    return wanted is None or bool(re.search(wanted, question, re.IGNORECASE))


def is_story(question: str) -> bool:
    """Whether a question may be a word problem: words around two numbers or more, no subject."""
    words = re.findall(r"[A-Za-z]{2,}|[\u4e00-\u9fff]", question)
    return (
        len(_numbers(numerals.digits(question))) >= 2
        and len(words) >= 8
        and not TOPIC.search(question)
    )


EXPRESSIONS = {"expression", "expressions", "equations", "value", "a", "b"}
USUAL = {"0", "1", "2", "100"}
"""Numbers that a question may mean without saying them: a half, twice, a percent."""

IMPLIED = {
    "12": r"dozen|year|month|年|月",
    "7": r"week|周|星期",
    "60": r"hour|minute|second|小时|分钟|秒",
    "24": r"day|hour|天|小时",
    "1000": r"k[mg]\b|kilo|千克|公斤|公里|千米|吨",
    "10": r"cm|mm|厘米|毫米|十",
    "180": r"angle|degree|角|度",
    "360": r"angle|degree|角|度",
}
"""Others that its words imply."""

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _numbers(text: str) -> set[str]:
    return {_canonical(number) for number in NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3})", "", text))}


def _invented(call: ToolCall, question: str) -> tuple[str, ...]:
    """Numbers of the call that the question does not have: the model made them up."""
    said = _numbers(question) | _numbers(numerals.digits(question))
    said |= _numbers(numerals.notation(question)) | USUAL
    said |= {n for n, words in IMPLIED.items() if re.search(words, question, re.IGNORECASE)}
    return tuple(sorted(_used(call) - said))


def _ignored(call: ToolCall, question: str) -> tuple[str, ...]:
    """Numbers of the question that the call does not use: the model overlooked them."""
    return tuple(sorted(_numbers(question) - _used(call)))


def _used(call: ToolCall) -> set[str]:
    texts = [text for name, text in call.arguments.items() if name != "action"]
    return set().union(*(_numbers(text) for text in texts))


async def name_quantities(
    backend: Backend, templates: Templates, question: str, lang: Language
) -> ToolCall | None:
    """Another reading of a word problem, by naming its numbers first; None where it fails.

    Raises what the backend raises.
    """
    spoken = text_language(question) or lang
    template = templates.get("maths", "quantities", spoken, FIELDS["quantities"])
    found = await _forced(
        backend,
        _with_calls(template.messages({"question": question})),
        [QUANTITIES_TOOL],
        template.temperature,
        CALL_TOKENS,
        lang,
    )
    if found is None:
        return None
    expression = quantities_expression(*(str(found[1].get(n, "")) for n in ("known", "expression")))
    if expression is None:
        return None
    try:
        call = checked("calculate", {"expression": expression})
    except CallError:
        return None
    if _invented(call, question) or _ignored(call, question) or not _sensible(call):
        return None
    return call


def quantities_expression(known: str, expression: str) -> str | None:
    """``a = 3; b = 4`` and ``a * b`` as ``(3) * (4)``; None where a name is unknown or unused."""
    values: dict[str, str] = {}
    for part in re.split(r"[;,，；\n]", known):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not part.strip():
            continue
        if (
            not sign
            or not re.fullmatch(r"[A-Za-z_]\w*", name)
            or not re.fullmatch(r"[\d./%]+", value)
        ):
            return None
        values[name] = value
    used = set(re.findall(r"[A-Za-z_]\w*", expression))
    if used != values.keys() or not values:
        return None
    if re.search(r"/\s*100\b", expression):
        values = {name: value.removesuffix("%") for name, value in values.items()}
    return re.sub(r"[A-Za-z_]\w*", lambda found: f"({values[found[0]]})", expression)


def _canonical(number: str) -> str:
    whole, _, fraction = number.partition(".")
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{fraction}" if fraction else whole


async def write_formula(
    backend: Backend, templates: Templates, description: str, lang: Language
) -> str | None:
    """LaTeX for a description, checked to be well formed; None where it is not."""
    spoken = text_language(description) or lang
    template = templates.get("maths", "formula", spoken, FIELDS["formula"])
    found = await _forced(
        backend,
        _with_calls(template.messages({"description": description})),
        [FORMULA_TOOL],
        template.temperature,
        FORMULA_TOKENS,
        lang,
    )
    if found is None:
        return None
    text = latex.stripped(str(found[1].get("latex", "")))
    return text if text and latex.well_formed(text) else None


async def _forced(
    backend: Backend,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    temperature: float | None,
    tokens: int,
    lang: Language,
) -> tuple[str, dict[str, Any]] | None:
    """One call that the model must make: (name, arguments); None where it still made none."""
    request = ChatRequest.model_validate(
        {
            "model": backend.model.id,
            "messages": messages,
            "tools": tools,
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "temperature": temperature or 0.0,
            "max_tokens": tokens,
        }
    )
    answer = await backend.complete(request, lang)
    calls = answer["choices"][0]["message"].get("tool_calls") or []
    if not calls:
        return None
    function = calls[0]["function"]
    try:
        arguments = json.loads(function["arguments"])
    except (json.JSONDecodeError, RecursionError):
        return None  # cut off by the limit of tokens
    return (function["name"], arguments) if isinstance(arguments, dict) else None


def _with_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Examples whose answer is a call become real calls, in whatever form the model knows."""
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            turns.append(message)
            continue
        call = json.loads(message["content"])
        function = {
            "name": call["name"],
            "arguments": json.dumps(call["arguments"], ensure_ascii=False),
        }
        made = {"id": f"call_{index}", "type": "function", "function": function}
        turns.append({"role": "assistant", "content": None, "tool_calls": [made]})
        turns.append({"role": "tool", "tool_call_id": made["id"], "content": "ok"})
    return turns


@dataclass(frozen=True)
class Explanation:
    """The model's words on a result, and whether their answer is the tool's."""

    text: str
    agrees: bool


async def explain(
    backend: Backend,
    templates: Templates,
    worker: MathsWorker,
    question: str,
    result: dict[str, Any],
    lang: Language,
) -> AsyncGenerator[str | Explanation, None]:
    """Pieces of text as they come, then the whole with the verdict."""
    template = templates.get("maths", "explain", lang, FIELDS["explain"])
    shown = result["decimal"] if result["prefer_decimal"] and result["decimal"] else result["exact"]
    steps = "; ".join(f"{s[lang]} {s['latex']}".strip() for s in result["steps"][:6])
    values = {"question": question, "answer": shown, "steps": steps}
    request = ChatRequest.model_validate(
        {
            "model": backend.model.id,
            "messages": template.messages(values),
            "temperature": template.temperature or 0.0,
            "max_tokens": EXPLAIN_TOKENS,
            "stream": True,
        }
    )
    text = ""
    async with contextlib.aclosing(pieces(backend, request, lang)) as said:
        async for piece in said:
            text += piece
            yield piece
    yield Explanation(text, await _agrees(worker, text, question, result))


ANSWER = re.compile(r"(?:answer|答案)\s*[:：]\s*(.+)\s*$", re.IGNORECASE | re.MULTILINE)


async def _agrees(worker: MathsWorker, text: str, question: str, result: dict[str, Any]) -> bool:
    """Whether the stated answer equals the tool's, and every other number was given."""
    stated = ANSWER.findall(text)
    if stated:
        last = latex.stripped(stated[-1].strip(" .。`*"))
        same = last in (result["exact"], result["decimal"])
        if not same and not await worker.agrees(last, result["values"]):
            return False
    known = " ".join(
        [
            question,
            numerals.digits(question),
            result["exact"],
            result["decimal"] or "",
            *(step["latex"] + step["en"] for step in result["steps"]),
        ]
    )
    return _numbers(text) <= _numbers(known) | USUAL
