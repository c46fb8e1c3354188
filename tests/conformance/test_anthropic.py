"""Anthropic's client in strict validation against the whole server."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from served import served_by_a_good_model, served_by_a_random_model
from serving import anthropic_client

HI: list[Any] = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def good() -> Iterator[anthropic.Anthropic]:
    with served_by_a_good_model() as address:
        yield anthropic_client(address)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    folder = tmp_path_factory.mktemp("tiny")
    with served_by_a_random_model(folder, api_key="secret") as address:
        yield anthropic_client(address, api_key="secret")


@pytest.fixture(params=["scripted", "tiny"])
def server(request: pytest.FixtureRequest) -> tuple[anthropic.Anthropic, str]:
    """A client and the name of the model behind it."""
    fixture = "good" if request.param == "scripted" else "tiny"
    return request.getfixturevalue(fixture), request.param


def test_a_message_streamed_is_the_message_whole(server: tuple[anthropic.Anthropic, str]) -> None:
    client, model = server
    asked: Any = {
        **{"model": model, "max_tokens": 40, "messages": HI, "system": "Be kind."},
        "extra_body": {"temperature": 0},
    }
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert [block.text for block in final.content] == [block.text for block in whole.content]
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    tokens = client.messages.count_tokens(model=model, messages=HI, system="Be kind.")
    cached = whole.usage.cache_read_input_tokens or 0
    assert tokens.input_tokens == whole.usage.input_tokens + cached


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_forced_use_has_an_input_of_the_schema(
    server: tuple[anthropic.Anthropic, str], choice: Any
) -> None:
    client, model = server
    asked: Any = {
        **{"model": model, "max_tokens": 200, "messages": HI, "tools": [WEATHER]},
        "tool_choice": {**choice, "disable_parallel_tool_use": True},
    }
    message = client.messages.create(**asked)
    [use] = message.content
    assert use.type == "tool_use"
    assert isinstance(use.input["city"], str)
    assert message.stop_reason == "tool_use"
    with client.messages.stream(**asked) as stream:
        [again] = stream.get_final_message().content
    assert again.type == "tool_use"
    assert set(again.input) == {"city"}

    turns = [
        *HI,
        message.to_param(),
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Sunny."}],
        },
    ]
    told = client.messages.create(model=model, max_tokens=5, messages=turns, tools=[WEATHER])
    assert told.usage.output_tokens > 0


def test_a_schema_is_followed(server: tuple[anthropic.Anthropic, str]) -> None:
    client, model = server
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "schema": schema}}
    message = client.messages.create(model=model, max_tokens=50, messages=HI, output_config=form)
    assert message.content[0].type == "text"
    assert message.content[0].text.replace(" ", "") in ('{"yes":true}', '{"yes":false}')


def test_mistakes_have_anthropics_shape(tiny: anthropic.Anthropic) -> None:
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"model": "other"}, 404, "not_found_error"),
        ({"messages": []}, 400, "invalid_request_error"),
        (
            {"messages": [{"role": "user", "content": "long " * 100_000}]},
            400,
            "invalid_request_error",
        ),
        ({"messages": [{"role": "user", "content": "x" * 5_000_000}]}, 413, "request_too_large"),
    ]
    for fields, status, kind in wrong:
        with pytest.raises(anthropic.APIStatusError) as caught:
            tiny.messages.create(**{"model": "tiny", "max_tokens": 3, "messages": HI, **fields})
        body: Any = caught.value.body
        assert (caught.value.status_code, body["type"], body["error"]["type"]) == (
            *(status, "error", kind),
        )


def test_a_wrong_key_is_refused(tiny: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError) as caught:
        tiny.with_options(api_key="guess").messages.create(model="tiny", max_tokens=3, messages=HI)
    body: Any = caught.value.body
    assert body["error"]["type"] == "authentication_error"
