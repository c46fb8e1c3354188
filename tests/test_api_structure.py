"""Answers of a schema, a choice, a pattern; and thoughts, which are kept apart."""

import json
import re
from collections.abc import Callable
from typing import Any

import api_setting
import pytest
from api_setting import NOW, TEMPLATES, TOOLS, Setting, called
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import CHATML, HERMES, THINKING

from hunyuan.serve.answer import AnswerParser
from hunyuan.serve.json_check import problem
from hunyuan.serve.tools import bare_call_start, tool_format

open_setting = api_setting.open_setting
any_format = api_setting.any_format
hermes = api_setting.hermes
thinker = api_setting.thinker


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
