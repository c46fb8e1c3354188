"""The tools as a model is told of them: the same tool under many names, among others.

A model that has only ever seen ``calculate(expression)`` learns the name, not the description;
so names of tools and of arguments change from conversation to conversation.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hunyuan.errors import Language


@dataclass(frozen=True)
class Argument:
    """One argument: its names, the usual one first, and what it is."""

    names: tuple[str, ...]
    en: str
    zh: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tool:
    """One tool: its names, the usual one first, and what it does."""

    names: tuple[str, ...]
    en: tuple[str, ...]
    zh: tuple[str, ...]
    arguments: tuple[Argument, ...] = ()

    @property
    def id(self) -> str:
        """The usual name."""
        return self.names[0]


@dataclass(frozen=True)
class Offer:
    """A tool under the names of one conversation."""

    tool: Tool
    name: str
    arguments: Mapping[str, str]
    """The usual name of each argument, and the one it has here."""

    definition: Mapping[str, Any]

    def call(self, values: Mapping[str, str]) -> dict[str, Any]:
        """``{"name", "arguments"}`` as the model is to write it."""
        return {"name": self.name, "arguments": {self.arguments[k]: v for k, v in values.items()}}


_EXPRESSION = Argument(
    ("expression", "formula", "input", "expr"),
    "in plain notation, such as 2*(3+4)^2",
    "用普通记号书写，例如 2*(3+4)^2",
)

USEFUL = (
    Tool(
        ("calculate", "calculator", "compute", "evaluate_expression", "calc", "do_arithmetic"),
        ("Compute the value of an expression exactly.", "Evaluate arithmetic.", "A calculator."),
        ("精确计算表达式的值。", "计算算式。", "计算器。"),
        (_EXPRESSION,),
    ),
    Tool(
        ("solve", "solve_equation", "equation_solver", "find_roots"),
        ("Solve an equation for a variable.", "Find the solutions of an equation."),
        ("求方程的解。", "对变量求解方程。"),
        (
            Argument(("equation", "eq", "problem"), "such as 3*x+5=20", "例如 3*x+5=20"),
            Argument(("variable", "unknown", "symbol"), "what to solve for", "要求解的未知数"),
        ),
    ),
    Tool(
        ("convert", "convert_units", "unit_converter", "change_unit"),
        ("Convert a value from one unit to another.", "Unit conversion."),
        ("换算单位。", "将数值从一个单位换算为另一个单位。"),
        (
            Argument(("value", "amount", "quantity"), "the number", "数值"),
            Argument(("source", "from_unit", "unit_from"), "its unit, such as km", "原单位，如 km"),
            Argument(("target", "to_unit", "unit_to"), "the new unit, such as mi", "新单位，如 mi"),
        ),
    ),
    Tool(
        ("statistics", "stats", "describe_data", "summarise_numbers"),
        ("Statistics of a list of numbers.", "Mean, median and the like of numbers."),
        ("计算一组数的统计量。", "求平均数、中位数等。"),
        (
            Argument(
                ("action", "measure", "kind"),
                "which figure",
                "统计量",
                ("mean", "median", "max", "min", "range", "sum"),
            ),
            Argument(("data", "numbers", "values"), "separated by commas", "以逗号分隔"),
        ),
    ),
    Tool(
        ("plot", "draw_graph", "plot_function", "graph"),
        ("Draw the graph of a function.", "Plot a function of x over a range."),
        ("画函数图像。", "在给定区间画出 x 的函数图像。"),
        (
            _EXPRESSION,
            Argument(("lower", "x_min", "start"), "left end", "左端点"),
            Argument(("upper", "x_max", "end"), "right end", "右端点"),
        ),
    ),
    Tool(
        ("search_documents", "search", "find_in_documents", "lookup"),
        ("Search the user's documents.", "Find passages in the documents of the user."),
        ("搜索用户的文档。", "在用户的文档中查找段落。"),
        (Argument(("query", "keywords", "q"), "a few words", "几个关键词"),),
    ),
    Tool(
        ("run_python", "python", "execute_code", "run_code"),
        ("Run a short Python program and return what it prints.", "Execute Python."),
        ("运行一段简短的 Python 程序并返回输出。", "执行 Python 代码。"),
        (Argument(("code", "program", "source"), "it must print its result", "须打印结果"),),
    ),
)
"""Tools that are executed."""

_CITY = Argument(("city", "place", "location"), "name of the place", "地名")

DISTRACTORS = (
    Tool(("get_weather", "weather"), ("The weather of a place.",), ("查询天气。",), (_CITY,)),
    Tool(
        ("send_email", "email"),
        ("Send an email.",),
        ("发送邮件。",),
        (
            Argument(("to", "recipient"), "address", "收件人"),
            Argument(("text", "body"), "the message", "正文"),
        ),
    ),
    Tool(
        ("set_timer", "timer"),
        ("Start a timer.",),
        ("设置计时器。",),
        (Argument(("minutes", "duration"), "how long", "分钟数"),),
    ),
    Tool(
        ("play_music", "play"),
        ("Play a song.",),
        ("播放歌曲。",),
        (Argument(("title", "song"), "name of the song", "歌名"),),
    ),
    Tool(
        ("book_table", "reserve_table"),
        ("Reserve a table in a restaurant.",),
        ("预订餐厅座位。",),
        (
            Argument(("people", "guests"), "how many", "人数"),
            Argument(("time", "when"), "such as 19:00", "时间，如 19:00"),
        ),
    ),
    Tool(
        ("stock_price", "get_quote"),
        ("The price of a share.",),
        ("查询股价。",),
        (Argument(("symbol", "ticker"), "its symbol", "股票代码"),),
    ),
    Tool(("current_time", "now"), ("The time now.",), ("查询当前时间。",)),
    Tool(
        ("create_note", "add_note"),
        ("Write a note.",),
        ("新建笔记。",),
        (Argument(("text", "content"), "what it says", "内容"),),
    ),
)
"""Tools that are offered and never the right ones here."""

BY_ID = {tool.id: tool for tool in USEFUL}

_RENAMED = 0.4


def offer(tool: Tool, rng: random.Random, lang: Language) -> Offer:
    """A tool under names drawn for one conversation; usual names in most of them."""
    renamed = rng.random() < _RENAMED
    name = rng.choice(tool.names) if renamed else tool.names[0]
    arguments: dict[str, str] = {}
    properties: dict[str, Any] = {}
    for argument in tool.arguments:
        shown = rng.choice(argument.names) if renamed else argument.names[0]
        arguments[argument.names[0]] = shown
        properties[shown] = {
            "type": "string",
            **({"enum": list(argument.choices)} if argument.choices else {}),
            "description": argument.zh if lang == "zh" else argument.en,
        }
    definition = {
        "type": "function",
        "function": {
            "name": name,
            "description": rng.choice(tool.zh if lang == "zh" else tool.en).rstrip(".。"),
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties),
            },
        },
    }
    return Offer(tool, name, arguments, definition)


def with_others(
    wanted: Sequence[Offer], rng: random.Random, lang: Language, *, without: Sequence[str] = ()
) -> list[Offer]:
    """The wanted tools among up to three others, in any order; never those of ``without``."""
    taken = {one.tool.id for one in wanted} | set(without)
    names = {one.name for one in wanted}
    others = [tool for tool in (*USEFUL, *DISTRACTORS) if tool.id not in taken]
    fill = rng.sample(others, rng.randint(0 if wanted else 1, 3))
    offers = [*wanted]
    for tool in fill:
        other = offer(tool, rng, lang)
        if other.name not in names:
            names.add(other.name)
            offers.append(other)
    rng.shuffle(offers)
    return offers
