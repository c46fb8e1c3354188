"""What an answer must be: calls, JSON, choices, thoughts, log-probabilities; whole and streamed.

The engine, its grammars and the server are real; only what the model would like to say is given.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from oracle import CHATML, HERMES, HUNYUAN, THINKING, conversation, oracle_engine
from serving import http, listening, openai_client

from hunyuan.engine.request import Conversation
from hunyuan.serve.answer import AnswerParser
from hunyuan.serve.app import create_app
from hunyuan.serve.host import ModelHost
from hunyuan.serve.json_check import problem
from hunyuan.serve.tools import PLAIN, ToolFormat, bare_call_start, tool_format

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now", "description": "Time of day."}},
]
HI: list[Any] = [{"role": "user", "content": "How is the weather?"}]
TEMPLATES = {"hermes": HERMES, "hunyuan": HUNYUAN, "plain": CHATML}
BEIJING = ("weather", {"city": "北京", "days": 3})
NOW = ("now", {})


class Said:
    """The script of an engine, which a test may set for the next answers."""

    def __init__(self) -> None:
        self.text = ""
        self.prompts: list[Any] = []

    def __call__(self, prompt: Any) -> str:
        self.prompts.append(prompt)
        return self.text


class Setting:
    """A server whose model says what it is told to."""

    def __init__(self, address: str, said: Said, form: ToolFormat) -> None:
        self.client = openai_client(address)
        self.http = http(address)
        self._said = said
        self._form = form

    def say(self, text: str = "", *calls: tuple[str, dict[str, Any]]) -> "Setting":
        written = self._form.between.join(
            json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
            for name, arguments in calls
        )
        self._said.text = text + (f"{self._form.begin}{written}{self._form.end}" if calls else "")
        return self

    @property
    def prompt(self) -> Conversation:
        """The last prompt the engine was given."""
        return self._said.prompts[-1]

    def ask(self, **fields: Any) -> ChatCompletion:
        """Whole; and streamed, which must add up to the same."""
        request = {"model": "tiny", "messages": HI, "temperature": 0} | fields
        whole = self.client.chat.completions.create(**request)
        chunks = list(
            self.client.chat.completions.create(
                **request, stream=True, stream_options={"include_usage": True}
            )
        )
        assert joined(chunks) == [plain(choice) for choice in whole.choices]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        return whole

    def pieces(self, **fields: Any) -> Iterator[dict[str, Any]]:
        """The objects of a streamed plain completion."""
        request = {"model": "tiny", "temperature": 0, "stream": True} | fields
        text = self.http.post("/v1/completions", json=request).text
        *events, done = text.strip().split("\n\n")
        assert done == "data: [DONE]"
        return (json.loads(event.removeprefix("data: ")) for event in events)

    def ids(self, text: str) -> list[int]:
        return self.http.post("/tokenize", json={"prompt": text}).json()["tokens"]

    def refused(self, **fields: Any) -> dict[str, Any]:
        request = {"model": "tiny", "messages": HI, "temperature": 0} | fields
        answer = self.http.post("/v1/chat/completions", json=request)
        assert answer.status_code == 400, answer.text
        return answer.json()["error"]


def plain(choice: Any) -> dict[str, Any]:
    """A choice without ids."""
    calls = choice.message.tool_calls or []
    return {
        "index": choice.index,
        "content": choice.message.content or "",
        "reasoning": getattr(choice.message, "reasoning_content", ""),
        "calls": [(call.function.name, call.function.arguments) for call in calls],
        "reason": choice.finish_reason,
        "logprobs": [e.model_dump() for e in (choice.logprobs.content if choice.logprobs else [])],
    }


def joined(chunks: list[ChatCompletionChunk]) -> list[dict[str, Any]]:
    """Choices of a stream, after checking what a stream must keep to."""
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert chunks[-1].choices == []
    assert all(c.usage is None for c in chunks[:-1])
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        delta = choice.delta
        if choice.index not in found:
            assert (delta.role, delta.content) == ("assistant", "")
            empty: dict[str, Any] = {"content": "", "reasoning": "", "calls": [], "logprobs": []}
            found[choice.index] = {"index": choice.index, "reason": None, **empty}
            continue
        one = found[choice.index]
        assert delta.role is None
        assert one["reason"] is None, "nothing comes after the end"
        one["content"] += delta.content or ""
        one["reasoning"] += getattr(delta, "reasoning_content", None) or ""
        for call in delta.tool_calls or []:
            if call.id is not None:
                assert (call.index, call.type) == (len(one["calls"]), "function")
                assert call.function.name
                one["calls"].append((call.function.name, call.function.arguments))
            else:
                assert call.type is None
                assert call.function.name is None
                name, arguments = one["calls"][call.index]
                one["calls"][call.index] = (name, arguments + call.function.arguments)
        if choice.logprobs:
            one["logprobs"] += [entry.model_dump() for entry in choice.logprobs.content]
        one["reason"] = choice.finish_reason
    return [found[index] for index in sorted(found)]


@pytest.fixture(scope="module")
def open_setting() -> Iterator[Callable[[str], Setting]]:
    """Servers by chat template, kept for all tests."""
    with ExitStack() as stack:
        settings: dict[str, Setting] = {}

        def get(template: str) -> Setting:
            if template not in settings:
                said = Said()
                engine = oracle_engine(said, template=template)
                app = create_app(ModelHost.of_engine(engine, "tiny"))
                address = stack.enter_context(listening(app))
                settings[template] = Setting(address, said, tool_format(template))
            return settings[template]

        yield get


@pytest.fixture(params=TEMPLATES)
def any_format(request: Any, open_setting: Callable[[str], Setting]) -> Setting:
    return open_setting(TEMPLATES[request.param])


@pytest.fixture
def hermes(open_setting: Callable[[str], Setting]) -> Setting:
    return open_setting(HERMES)


@pytest.fixture
def thinker(open_setting: Callable[[str], Setting]) -> Setting:
    return open_setting(THINKING)


def called(answer: ChatCompletion, index: int = 0) -> list[tuple[str, Any]]:
    calls = answer.choices[index].message.tool_calls or []
    assert all(call.type == "function" and call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


# ---------------------------------------------------------------- calls


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


# ---------------------------------------------------------------- structure

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["a", "b"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


def of_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


@pytest.mark.parametrize("template", [HERMES, CHATML])
@pytest.mark.parametrize("seed", range(2))
def test_answers_are_of_their_schema_whatever_the_model_wants(
    open_setting: Callable[[str], Setting], template: str, seed: int
) -> None:
    setting = open_setting(template).say("No.")
    answer = setting.ask(
        response_format=of_schema(PERSON), temperature=2, top_p=1, seed=seed, max_tokens=200
    )
    assert answer.choices[0].finish_reason == "stop"
    assert problem(json.loads(answer.choices[0].message.content), PERSON) is None


def test_what_the_model_wants_if_it_is_of_the_schema(hermes: Setting) -> None:
    text = '{"name": "李雷", "age": 30, "kind": "b"}'
    answer = hermes.say(text).ask(response_format=of_schema(PERSON))
    assert answer.choices[0].message.content == text
    vllm = hermes.ask(extra_body={"structured_outputs": {"json": PERSON}})
    assert vllm.choices[0].message.content == text
    any_object = hermes.ask(response_format={"type": "json_object"})
    assert any_object.choices[0].message.content == text


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": "[0-9]{4}-[0-9][0-9]"}, "[0-9]{4}-[0-9][0-9]"),
        ({"choice": ["好", "bad", "bad luck"]}, "好|bad|bad luck"),
        ({"grammar": 'start: "x" (" y" | " z") /[0-9]{3}/'}, "x [yz][0-9]{3}"),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_other_constraints(hermes: Setting, wanted: Any, pattern: str, seed: int) -> None:
    answer = hermes.say("?").ask(
        extra_body={"structured_outputs": wanted}, temperature=2, top_p=1, seed=seed
    )
    assert re.fullmatch(pattern, answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    text = hermes.client.completions.create(
        model="tiny", prompt="a", extra_body={"structured_outputs": wanted}, seed=seed
    )
    assert re.fullmatch(pattern, text.choices[0].text)


def test_a_schema_or_a_call(any_format: Setting) -> None:
    text = '{"name": "x", "age": 1, "kind": "a"}'
    fields = {"tools": TOOLS, "response_format": of_schema(PERSON)}
    assert any_format.say(text).ask(**fields).choices[0].message.content == text
    assert called(any_format.say("", NOW).ask(**fields)) == [NOW]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": of_schema({"type": "spoon"})}, "response_format.json_schema.schema"),
        (
            {"response_format": of_schema({"type": "string", "pattern": "(?=x)"})},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": of_schema({"type": "string", "unevaluatedItems": 1})},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "(?<=a)b"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": [""]}}, "structured_outputs.choice"),
        ({"structured_outputs": {"grammar": "start: nowhere"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs.regex",
        ),
    ],
)
def test_grammars_that_are_none(hermes: Setting, fields: Any, param: str) -> None:
    error = hermes.refused(**fields)
    assert error["param"] == param
    assert hermes.http.get("/health").status_code == 200


# ---------------------------------------------------------------- thoughts


def test_thoughts_are_kept_apart(thinker: Setting) -> None:
    answer = thinker.say("<think>\nHm. 嗯。\n</think>\n\nYes.").ask()
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content) == ("Yes.", "Hm. 嗯。")
    details = answer.usage.completion_tokens_details
    assert len("\nHm. ") < details.reasoning_tokens < answer.usage.completion_tokens
    plain = thinker.say("Yes.").ask()
    assert plain.choices[0].message.content == "Yes."
    assert plain.usage.completion_tokens_details.reasoning_tokens == 0


def test_thoughts_without_an_end(thinker: Setting) -> None:
    answer = thinker.say("<think>\nOn and on").ask(max_tokens=6)
    assert answer.choices[0].message.content == ""
    assert answer.choices[0].message.reasoning_content == "On a"
    assert answer.choices[0].finish_reason == "length"


def test_structure_begins_after_the_thoughts(open_setting: Callable[[str], Setting]) -> None:
    for template in (THINKING, HERMES + "{# <think> </think> #}"):
        setting = open_setting(template)
        text = '<think>\nA or b?\n</think>\n\n{"name": "x", "age": 1, "kind": "a"}'
        answer = setting.say(text).ask(response_format=of_schema(PERSON))
        assert json.loads(answer.choices[0].message.content)["kind"] == "a"
        answer = setting.say("<think>\nNow?\n</think>\n\n", NOW).ask(
            tools=TOOLS, tool_choice="required"
        )
        assert called(answer) == [NOW]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), thinks=st.booleans(), tagged=st.booleans())
def test_pieces_add_up_however_they_are_cut(data: Any, thinks: bool, tagged: bool) -> None:
    parts = st.sampled_from(
        [
            *("a", "b", " ", "\n", "海", "<think>", "</think>", "<answer>", "\n</answer>", "}"),
            *("```json\n", '{ "name": "f", "arguments": '),
            *("<tool_call>", "</tool_call>", '{"name": "', 'f", "arguments": ', '{"x": "}\\""}'),
        ]
    )
    text = "".join(data.draw(st.lists(parts, max_size=14)))
    form = data.draw(st.sampled_from([None, *(tool_format(t) for t in TEMPLATES.values())]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    def parsed(pieces: list[str]) -> list[tuple[str, str]]:
        bare = bare_call_start(["f"], form) if form else None
        parser = AnswerParser(form, bare=bare, thinks=thinks, tagged=tagged)
        found: list[tuple[str, str]] = []
        for piece in [one for text in pieces for one in parser.feed(text)] + parser.finish():
            if found and found[-1][0] == piece.kind != "call":
                found[-1] = (piece.kind, found[-1][1] + piece.text)
            else:
                found.append((piece.kind, piece.text))
        return found

    assert parsed(pieces) == parsed([text])
    if form is None and not thinks:
        assert parsed(pieces) in ([("content", text)], []) or tagged


# ---------------------------------------------------------------- other fields


def test_choices_differ_and_come_again(hermes: Setting) -> None:
    hermes.say("")  # from its stop token on the model is random
    request = {
        "model": "tiny",
        "messages": HI,
        "n": 3,
        "seed": 5,
        "temperature": 1.5,
        "max_tokens": 12,
        "extra_body": {"ignore_eos": True},
    }
    first, second = (hermes.client.chat.completions.create(**request) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert len(set(texts)) == 3
    alone = hermes.client.chat.completions.create(**request | {"n": 1})
    assert alone.choices[0].message.content == texts[0]
    assert first.usage.completion_tokens == 36
    assert first.usage.prompt_tokens == alone.usage.prompt_tokens


def test_logprobs_are_of_the_words(hermes: Setting) -> None:
    asked = {"logprobs": True, "top_logprobs": 2}
    answer = hermes.say("海 ok", NOW).ask(tools=TOOLS, **asked)
    entries = answer.choices[0].logprobs.content
    assert b"".join(bytes(e.bytes) for e in entries).decode().startswith("海 ok")
    assert all(len(e.top_logprobs) == 2 for e in entries)
    text = hermes.say("海水 ok").ask(**asked).choices[0]
    raw = b"".join(bytes(e.bytes) for e in text.logprobs.content)
    assert raw.decode() == text.message.content == "海水 ok"


def test_stop_strings_and_penalties_reach_the_engine(hermes: Setting) -> None:
    answer = hermes.say("one two three").ask(stop=[" three", "zzz"])
    assert answer.choices[0].message.content == "one two"
    biased = hermes.ask(
        logit_bias={str(hermes.ids("o")[0]): -100}, max_tokens=3, temperature=1, seed=1
    )
    assert not biased.choices[0].message.content.startswith("o") or biased.usage.total_tokens


def test_expert_load(hermes: Setting) -> None:
    request = {"model": "tiny", "messages": HI, "temperature": 0, "return_expert_load": True}
    answer = hermes.say("fine").http.post("/v1/chat/completions", json=request).json()
    load = answer["expert_load"]
    usage = answer["usage"]
    computed = usage["total_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
    assert {sum(row) for row in load["tokens"]} == {computed}
    assert load["shared"] is False
    streamed = hermes.http.post("/v1/chat/completions", json=request | {"stream": True}).text
    last = json.loads(streamed.strip().split("\n\n")[-2].removeprefix("data: "))
    assert (last["choices"], len(last["expert_load"]["tokens"])) == ([], len(load["tokens"]))


# ---------------------------------------------------------------- plain completions


def test_a_text_goes_on(hermes: Setting) -> None:
    create = hermes.say(" und weiter").client.completions.create
    answer = create(model="tiny", prompt="Es geht", temperature=0, max_tokens=50)
    assert answer.choices[0].text == " und weiter"
    assert answer.choices[0].finish_reason == "stop"
    # As OpenAI's own, pieces have no reason to end yet, which the client's strict types forbid.
    pieces = list(hermes.pieces(prompt="Es geht", max_tokens=50))
    assert "".join(p["choices"][0]["text"] for p in pieces) == " und weiter"
    reasons = [p["choices"][0]["finish_reason"] for p in pieces]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert create(model="tiny", prompt="x", temperature=0).usage.completion_tokens <= 16


def test_many_prompts_in_every_form(hermes: Setting) -> None:
    create = hermes.say("!").client.completions.create
    fields: dict[str, Any] = {"model": "tiny", "temperature": 0, "echo": True, "n": 2}
    ab, c = hermes.ids("ab"), hermes.ids("c")
    for prompt in (["ab", "c"], [ab, c]):
        answer = create(prompt=prompt, **fields)
        assert [c.text for c in answer.choices] == ["ab!", "ab!", "c!", "c!"]
        assert [c.index for c in answer.choices] == [0, 1, 2, 3]
        assert answer.usage.prompt_tokens == 3
    assert create(prompt=ab, **fields).choices[1].text == "ab!"


def test_scoring_a_text(hermes: Setting) -> None:
    """As an evaluation harness asks: the prompt's own log-probabilities and nothing else."""
    # The first token has no log-probability, as with OpenAI, which the strict types forbid.
    hermes.say("!")
    client = openai.OpenAI(base_url=hermes.client.base_url, api_key="none")
    create = client.completions.create
    fields: dict[str, Any] = {"model": "tiny", "prompt": "a海b", "logprobs": 1, "echo": True}
    answer = create(**fields, max_tokens=0)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("a海b", "length")
    assert answer.usage.completion_tokens == 0
    found = choice.logprobs
    assert len(found.tokens) == 5
    assert found.token_logprobs[0] is found.top_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    assert found.text_offset == [0, 1, 1, 1, 2]
    assert found.tokens[1].startswith("bytes:")
    longer = create(**fields, max_tokens=1).choices[0].logprobs
    assert longer.token_logprobs[:5] == pytest.approx(found.token_logprobs, abs=1e-5)
    assert longer.tokens[5] == "!"
    streamed = [p["choices"][0]["logprobs"] for p in hermes.pieces(**fields, max_tokens=1)]
    pieces = [piece for piece in streamed if piece]
    assert [t for p in pieces for t in p["tokens"]] == longer.tokens
    assert [o for p in pieces for o in p["text_offset"]] == longer.text_offset


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [10**6]}, None),
        ({"prompt": ["a"] * 100, "n": 2}, "n"),
        ({"logprobs": 21}, None),
        ({"model": "other"}, "model"),
    ],
)
def test_bad_completions_name_the_field(hermes: Setting, change: Any, param: str | None) -> None:
    answer = hermes.http.post("/v1/completions", json={"model": "tiny", "prompt": "a"} | change)
    assert answer.status_code == (404 if "model" in change else 400), answer.text
    assert (answer.json()["error"]["param"] or "").startswith(param or "")


# ---------------------------------------------------------------- the rest of the surface


def test_embeddings_of_the_model_itself(hermes: Setting) -> None:
    answer = hermes.client.embeddings.create(
        model="tiny", input=["abc", "abd", "xyz" * 9], encoding_format="float"
    )
    vectors = [entry.embedding for entry in answer.data]
    near, far = (sum(a * b for a, b in zip(vectors[0], v, strict=True)) for v in vectors[1:])
    assert 1.001 > near > far
    assert answer.usage.prompt_tokens == 3 + 3 + 27
    with pytest.raises(openai.BadRequestError):
        hermes.client.embeddings.create(model="tiny", input="x" * 9_000, encoding_format="float")


def test_tokens_and_versions(hermes: Setting) -> None:
    ids = hermes.http.post("/tokenize", json={"model": "tiny", "prompt": "ab"}).json()
    assert (ids["count"], ids["max_model_len"]) == (2, 8192)
    tokens = {"tokens": ids["tokens"]}
    assert hermes.http.post("/detokenize", json=tokens).json() == {"prompt": "ab"}
    assert hermes.http.get("/version").json()["version"]


def test_metrics_count_what_happened(open_setting: Callable[[str], Setting]) -> None:
    setting = open_setting(HERMES)

    def metrics() -> dict[str, float]:
        lines = setting.http.get("/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    before = metrics()
    usage = (
        setting.say("one two three")
        .client.chat.completions.create(model="tiny", messages=HI, temperature=0)
        .usage
    )
    after = metrics()

    def grown(name: str, labels: str = '{model_name="tiny"}') -> float:
        key = f"hunyuan:{name}{labels}"
        return after[key] - before.get(key, 0)

    assert grown("prompt_tokens_total") == usage.prompt_tokens
    assert grown("generation_tokens_total") == usage.completion_tokens
    assert grown("request_success_total", '{finished_reason="stop",model_name="tiny"}') == 1
    assert grown("time_to_first_token_seconds_count") == 1
    assert grown("inter_token_latency_seconds_count") == usage.completion_tokens - 1
    assert after['hunyuan:num_requests_running{model_name="tiny"}'] == 0
    experts = [name for name in after if name.startswith("hunyuan:moe_expert_tokens_total{")]
    assert 'hunyuan:moe_expert_tokens_total{expert="0",layer="0"}' in experts


def test_the_description_names_every_route(hermes: Setting) -> None:
    paths = hermes.http.get("/openapi.json").json()["paths"]
    wanted = {
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"),
        *("/v1/models", "/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize"),
        *("/health", "/version", "/metrics"),
    }
    assert wanted <= set(paths)


def test_httpx2_is_what_the_clients_ride_on() -> None:
    """The tests above count on one HTTP library for all clients."""
    assert issubclass(type(openai.OpenAI(api_key="x")._client), httpx2.Client)
