"""Calls of functions: whole and streamed, in every format, by models that would rather not."""

import json
from collections.abc import Callable
from typing import Any

import api_setting
import pytest
from api_setting import BEIJING, HI, NOW, TOOLS, WEATHER, Setting, called
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import HERMES, conversation

from hunyuan.serve.json_check import problem
from hunyuan.serve.tools import PLAIN

open_setting = api_setting.open_setting
any_format = api_setting.any_format
hermes = api_setting.hermes


@pytest.mark.parametrize("choice", ["auto", "required", None])
def test_a_call(any_format: Setting, choice: str | None) -> None:
    asked = {} if choice is None else {"tool_choice": choice}
    answer = any_format.say("", BEIJING).ask(tools=TOOLS, **asked)
    assert called(answer) == [BEIJING]
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"


def test_several_calls(any_format: Setting) -> None:
    answer = any_format.say("", BEIJING, NOW, BEIJING).ask(tools=TOOLS)
    assert called(answer) == [BEIJING, NOW, BEIJING]


def test_one_call_where_only_one_is_wanted(any_format: Setting) -> None:
    answer = any_format.say("", BEIJING, NOW).ask(
        tools=TOOLS, parallel_tool_calls=False, max_tokens=400
    )
    assert called(answer) == [BEIJING]
    assert answer.choices[0].finish_reason == "tool_calls"


def test_words_before_a_call(hermes: Setting) -> None:
    answer = hermes.say("I look it up. 我查一下。", BEIJING).ask(tools=TOOLS)
    assert answer.choices[0].message.content == "I look it up. 我查一下。"
    assert called(answer) == [BEIJING]


PRETTY = '{\n  "name": "weather",\n  "arguments": {\n    "city": "北京",\n    "days": 3\n  }\n}'


@pytest.mark.parametrize(
    "text",
    [PRETTY, f"```json\n{PRETTY}\n```", f"```\n{PRETTY}", '{ "name": "now", "arguments": {}}'],
)
def test_bare_calls_of_small_models_count(any_format: Setting, text: str) -> None:
    answer = any_format.say(text).ask(tools=TOOLS, max_tokens=300)
    assert called(answer) == [NOW if "now" in text else BEIJING]
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"
    said = any_format.say(text).ask()
    assert said.choices[0].message.content == text, "nothing was offered"


@pytest.mark.parametrize("text", [PRETTY.replace("weather", "other"), f"Look: {PRETTY}"])
def test_json_that_is_no_call_is_text(any_format: Setting, text: str) -> None:
    answer = any_format.say(text).ask(tools=TOOLS)
    assert (answer.choices[0].message.content, called(answer)) == (text, [])


@pytest.mark.parametrize(
    "text",
    [
        "It rains. 下雨了。",
        '{"city": "x"} <tool',
        "a <tool_cal l> b",
        '{"nam',
        "x\n\n```py\n1\n```",
    ],
)
def test_text_passes_freely_beside_tools(any_format: Setting, text: str) -> None:
    answer = any_format.say(text).ask(tools=TOOLS)
    assert answer.choices[0].message.content == text
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "now"}}])
def test_a_model_that_will_not_call_has_to(any_format: Setting, choice: Any, seed: int) -> None:
    """It would say something else; the grammar leaves it no other way."""
    answer = any_format.say("I would rather talk.").ask(
        tools=TOOLS, tool_choice=choice, temperature=2, seed=seed, max_tokens=600, top_p=1
    )
    (name, arguments), *_ = called(answer)
    if choice != "required":
        assert (name, arguments) == NOW
        assert len(called(answer)) == 1
    for name, arguments in called(answer):
        assert problem(arguments, {"weather": WEATHER, "now": {"maxProperties": 0}}[name]) is None
    assert answer.choices[0].finish_reason in ("tool_calls", "length")


def test_a_call_once_begun_is_valid(any_format: Setting) -> None:
    """A wrong name and a missing argument cannot be said."""
    form = any_format._form
    any_format._said.text = f'{form.begin}{{"name": "wrong", "arguments": {{"x": 1'
    answer = any_format.ask(tools=TOOLS, max_tokens=600, temperature=0.7, seed=1)
    for name, arguments in called(answer):
        assert name in ("weather", "now")
        assert problem(arguments, WEATHER if name == "weather" else {}) is None


def test_no_calls_where_none_are_wanted(any_format: Setting) -> None:
    any_format.say("", BEIJING)
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        answer = any_format.ask(**fields)
        assert answer.choices[0].message.tool_calls is None
        assert "北京" in answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"


def test_a_call_that_is_cut_off_says_so(any_format: Setting) -> None:
    any_format.say("", BEIJING)
    for limit in (10, 45, 60):
        answer = any_format.ask(tools=TOOLS, max_tokens=limit)
        assert answer.choices[0].finish_reason == "length"
        for call in answer.choices[0].message.tool_calls or []:
            begun = call.function.arguments.rstrip("�")  # a character may be cut, too
            assert json.dumps(BEIJING[1], ensure_ascii=False).startswith(begun)


def test_each_choice_has_calls_of_its_own(hermes: Setting) -> None:
    answer = hermes.say("", BEIJING, NOW).ask(tools=TOOLS, n=3)
    assert [called(answer, i) for i in range(3)] == [[BEIJING, NOW]] * 3


@settings(max_examples=8, deadline=None)
@given(city=st.text(st.characters(codec="utf-8", categories=("L", "P", "S")), max_size=12))
def test_any_argument_comes_through(open_setting: Callable[[str], Setting], city: str) -> None:
    answer = open_setting(HERMES).say("", ("weather", {"city": city})).ask(tools=TOOLS)
    assert called(answer) == [("weather", {"city": city})]


def test_what_the_model_is_told(any_format: Setting) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    history = [
        {"role": "system", "content": "Be kind."},
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    any_format.say("It is noon.").ask(tools=TOOLS, messages=history)
    messages, tools = conversation(any_format.prompt)
    text = json.dumps([messages, tools], ensure_ascii=False)
    for part in ("weather", "Time of day.", "noon", "Be kind.", "maxLength"):
        assert part in text
    if any_format._form is PLAIN:
        assert not tools
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
        assert messages[2]["content"] == '{"name": "now", "arguments": {}}'
    else:
        assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool"]
        assert [tool["function"]["name"] for tool in tools] == ["weather", "now"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ([{"role": "tool", "tool_call_id": "c9", "content": "x"}], "messages.3.tool_call_id"),
        ([{"role": "tool", "content": "x"}], "messages.3.tool_call_id"),
        ([{"role": "user", "content": "x"}], "messages"),
        ([], "messages"),
        ([{"role": "tool", "tool_call_id": "c1", "content": "x"}] * 2, "messages.4.tool_call_id"),
    ],
)
def test_calls_and_replies_must_belong_together(hermes: Setting, change: Any, param: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    begin = [*HI, {"role": "assistant", "content": "", "tool_calls": [call]}]
    messages = [{"role": "user", "content": "x"}, *begin, *change]
    error = hermes.refused(messages=messages)
    assert error["param"] == param
    assert "c9" in error["message"] or "'c1'" in error["message"] or "missing" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "x"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools.2.function.name"),
        ({"tools": [{"function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": TOOLS * 65}, "tools"),
        ({"tools": [{"function": {"name": "f", "parameters": {"type": "spoon"}}}]}, "tools"),
        ({"tools": TOOLS, "structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
    ],
)
def test_bad_tools_are_named(hermes: Setting, fields: Any, param: str) -> None:
    assert hermes.refused(**fields)["param"].startswith(param)
