"""OpenAI's client in strict validation against the whole server: random and sensible answers."""

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from served import served_by_a_good_model, served_by_a_random_model
from serving import openai_client

from hunyuan.serve.embeddings import installed_embedders

HI: list[Any] = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "day": {"enum": ["now"]}},
        "required": ["city", "day"],
        "additionalProperties": False,
    },
}
CHAT_TOOL: Any = {"type": "function", "function": WEATHER}
RESPONSE_TOOL: Any = {"type": "function", "strict": True, **WEATHER}


class Answer(BaseModel):
    """What a schema asks for."""

    yes: bool
    reason: str


@pytest.fixture(scope="module")
def good() -> Iterator[openai.OpenAI]:
    with served_by_a_good_model() as address:
        yield openai_client(address)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with served_by_a_random_model(tmp_path_factory.mktemp("tiny")) as address:
        yield openai_client(address)


@pytest.fixture(params=["scripted", "tiny"])
def server(request: pytest.FixtureRequest) -> tuple[openai.OpenAI, str]:
    """A client and the name of the model behind it."""
    fixture = "good" if request.param == "scripted" else "tiny"
    return request.getfixturevalue(fixture), request.param


def test_models(server: tuple[openai.OpenAI, str]) -> None:
    client, model = server
    listed = [card.id for card in client.models.list()]
    assert listed == [model, *(["multilingual-e5-small"] if installed_embedders() else [])]
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_a_chat_streamed_is_the_chat_whole(server: tuple[openai.OpenAI, str]) -> None:
    client, model = server
    asked: Any = {"model": model, "messages": HI, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [reason for reason in reasons if reason] == [whole.choices[0].finish_reason]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_forced_call_has_arguments_of_the_schema(
    server: tuple[openai.OpenAI, str], choice: Any
) -> None:
    client, model = server
    asked: Any = {
        **{"model": model, "messages": HI, "tools": [CHAT_TOOL], "tool_choice": choice},
        **{"seed": 1, "max_tokens": 200, "parallel_tool_calls": False},
    }
    completion = client.chat.completions.create(**asked)
    assert completion.choices[0].finish_reason == "tool_calls"
    [call] = completion.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert set(json.loads(call.function.arguments)) == {"city", "day"}
    with client.chat.completions.stream(**asked) as stream:
        [again] = stream.get_final_completion().choices[0].message.tool_calls or ()
    assert set(json.loads(again.function.arguments)) == {"city", "day"}

    messages = [
        *HI,
        completion.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]
    told = client.chat.completions.create(
        model=model, messages=messages, tools=[CHAT_TOOL], tool_choice="none", max_tokens=5
    )
    assert told.choices[0].message.tool_calls is None


def test_a_schema_is_followed(server: tuple[openai.OpenAI, str]) -> None:
    client, model = server
    form: Any = {
        "type": "json_schema",
        "json_schema": {
            "name": "answer",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
                "required": ["n"],
                "additionalProperties": False,
            },
        },
    }
    completion = client.chat.completions.create(
        model=model, messages=HI, response_format=form, max_tokens=50
    )
    assert isinstance(json.loads(completion.choices[0].message.content or "")["n"], int)


def test_the_parsing_helpers_work(good: openai.OpenAI) -> None:
    chat = good.chat.completions.parse(model="scripted", messages=HI, response_format=Answer)
    assert chat.choices[0].message.parsed == Answer(yes=True, reason="some text")
    response = good.responses.parse(model="scripted", input="hi", text_format=Answer)
    assert response.output_parsed == Answer(yes=True, reason="some text")


def test_logprobs(tiny: openai.OpenAI) -> None:
    completion = tiny.chat.completions.create(
        model="tiny", messages=HI, max_tokens=5, logprobs=True, top_logprobs=3, temperature=0
    )
    [choice] = completion.choices
    assert choice.logprobs is not None
    entries = choice.logprobs.content or []
    text = b"".join(bytes(entry.bytes or []) for entry in entries).decode("utf-8", "replace")
    assert text == choice.message.content
    assert all(len(entry.top_logprobs) == 3 for entry in entries)
    response = tiny.responses.create(
        model="tiny", input="hi", max_output_tokens=5, top_logprobs=3, temperature=0
    )
    part: Any = response.output[0]
    assert [entry.logprob for entry in part.content[0].logprobs] == pytest.approx(
        [entry.logprob for entry in entries]
    )


def test_completions(tiny: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "prompt": "abc", "max_tokens": 6, "temperature": 0}
    # Nothing precedes the first echoed token, so it has no log-probability, and a piece of a stream
    # has no reason to end. OpenAI's API says null in both places; the client's types do not know
    # it, and its strict validation refuses it.
    lenient = openai.OpenAI(base_url=str(tiny.base_url), api_key="none")
    whole = lenient.completions.create(**asked, logprobs=2, echo=True)
    assert whole.choices[0].text.startswith("abc")
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[0] is None
    made = tiny.completions.create(**asked, logprobs=2).choices[0].logprobs
    assert made is not None
    assert made.token_logprobs == logprobs.token_logprobs[3:]
    pieces = list(lenient.completions.create(**asked, stream=True))
    assert "abc" + "".join(p.choices[0].text for p in pieces) == whole.choices[0].text
    several = tiny.completions.create(**asked | {"prompt": ["a", "b"], "n": 2})
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]


def test_a_response_streamed_is_the_response_whole(server: tuple[openai.OpenAI, str]) -> None:
    client, model = server
    asked: Any = {"model": model, "input": "hi", "temperature": 0, "max_output_tokens": 40}
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        events = list(stream)
    final: Any = events[-1]
    assert final.response.output_text == whole.output_text
    assert final.response.status == whole.status
    assert final.response.usage.output_tokens == whole.usage.output_tokens  # type: ignore[union-attr]
    again = client.responses.create(
        model=model, input="more", previous_response_id=whole.id, max_output_tokens=3
    )
    assert again.usage is not None
    assert whole.usage is not None
    assert again.usage.input_tokens > whole.usage.input_tokens


def test_a_forced_call_in_responses(server: tuple[openai.OpenAI, str]) -> None:
    client, model = server
    asked: Any = {
        **{"model": model, "input": "hi", "tools": [RESPONSE_TOOL], "tool_choice": "required"},
        **{"max_output_tokens": 200, "parallel_tool_calls": False},
    }
    [call] = client.responses.create(**asked).output
    assert call.type == "function_call"
    assert set(json.loads(call.arguments)) == {"city", "day"}
    *_, last = client.responses.create(**asked, stream=True)
    assert last.type == "response.completed"
    assert last.response.output[0].type == "function_call"


def test_embeddings(server: tuple[openai.OpenAI, str]) -> None:
    client, model = server
    models = [model] if model == "tiny" else []
    for name in models + (["multilingual-e5-small"] if installed_embedders() else []):
        found = client.embeddings.create(
            model=name, input=["one text", "two texts"], encoding_format="float"
        )
        first, second = (entry.embedding for entry in found.data)
        assert len(first) == len(second)
        assert first != second
        assert sum(x * x for x in first) == pytest.approx(1, abs=1e-4)
        raw = client.embeddings.with_raw_response.create(
            model=name, input="one text", encoding_format="base64"
        )
        decoded = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
        assert struct.unpack(f"<{len(first)}f", decoded) == pytest.approx(first, abs=1e-4)


def test_the_own_model_reads_its_own_tokens(tiny: openai.OpenAI) -> None:
    by_text = tiny.embeddings.create(model="tiny", input="abc", encoding_format="float")
    tokens = [97, 98, 99]
    for given in (tokens, [tokens]):
        by_tokens = tiny.embeddings.create(model="tiny", input=given, encoding_format="float")
        assert len(by_tokens.data[0].embedding) == len(by_text.data[0].embedding)
    with pytest.raises(openai.BadRequestError):
        tiny.embeddings.create(model="tiny", input=[10**6], encoding_format="float")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model": "other"}, 404),
        ({"messages": []}, 400),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400),
        ({"temperature": 3}, 400),
        ({"stream_options": {"include_usage": True}}, 400),
        ({"logprobs": True, "top_logprobs": 21}, 400),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, 400),
        ({"messages": [{"role": "user", "content": "long " * 100_000}]}, 400),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "nothing"}},
                }
            },
            400,
        ),
        ({"extra_body": {"structured_outputs": {"regex": "("}}}, 400),
    ],
)
def test_mistakes_have_the_right_status(
    tiny: openai.OpenAI, fields: dict[str, Any], status: int
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        tiny.chat.completions.create(**{"model": "tiny", "messages": HI, "max_tokens": 3, **fields})
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert set(body) == {"message", "type", "param", "code"}
    assert tiny.chat.completions.create(model="tiny", messages=HI, max_tokens=1)
