"""Responses: OpenAI's own client against the routes, over a backend that says what it is told."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedBackend
from serving import app_of, http, listening, openai_client

from hunyuan.errors import HunyuanError
from hunyuan.serve import responses, streams
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.responses_output import ResponseBuilder
from hunyuan.serve.responses_schema import ResponseRequest
from hunyuan.serve.responses_store import ResponseStore
from hunyuan.serve.schema import FieldError

ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
CALL = {"name": "add", "arguments": {"a": 1}}


class Scene:
    """A server whose backend says what it is told, and a client of it."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.backend = ScriptedBackend(lambda request: self.replies.pop(0))
        self.app = app_of(responses.router(lambda model: self.backend, ResponseStore()))
        self.client: openai.OpenAI
        self.address = ""

    def create(self, *replies: Any, **fields: Any) -> Any:
        self.replies = list(replies) or ["ok"]
        return self.client.responses.create(**{"model": "scripted", "input": "hi", **fields})

    def asked(self) -> dict[str, Any]:
        return self.backend.requests[-1].model_dump(exclude_none=True, by_alias=True)

    def messages(self) -> list[tuple[str, Any]]:
        return [(m["role"], m.get("content")) for m in self.asked()["messages"]]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    made = Scene()
    with listening(made.app) as made.address:
        made.client = openai_client(made.address)
        yield made


def test_a_text_is_answered(scene: Scene) -> None:
    response = scene.create(
        "Hello", instructions="Be kind.", max_output_tokens=5, temperature=0, metadata={"a": "b"}
    )
    assert response.output_text == "Hello"
    assert (response.status, response.error, response.metadata) == ("completed", None, {"a": "b"})
    assert response.usage.total_tokens == response.usage.input_tokens + 5
    assert scene.messages() == [("system", "Be kind."), ("user", "hi")]
    asked = scene.asked()
    assert (asked["max_completion_tokens"], asked["temperature"]) == (5, 0)


def test_a_stream_has_the_events_in_order(scene: Scene) -> None:
    events = list(scene.create("Hello", stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].response.status == "in_progress"
    assert events[0].response.output == []
    assert events[-1].response.usage.output_tokens == 5


def test_a_function_is_called_and_its_output_read(scene: Scene) -> None:
    response = scene.create(CALL, tools=[ADD], tool_choice="required", parallel_tool_calls=False)
    [call] = response.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "add", {"a": 1})
    asked = scene.asked()
    assert asked["tools"][0]["function"]["parameters"] == ADD["parameters"]
    assert (asked["tool_choice"], asked["parallel_tool_calls"]) == ("required", False)

    output = {"type": "function_call_output", "call_id": call.call_id, "output": "2"}
    again = scene.create("It is 2.", input=[output], tools=[ADD], previous_response_id=response.id)
    assert again.output_text == "It is 2."
    assert scene.messages() == [("user", "hi"), ("assistant", None), ("tool", "2")]
    spoken, told = scene.asked()["messages"][1:]
    assert spoken["tool_calls"][0]["id"] == told["tool_call_id"] == call.call_id


def test_arguments_are_streamed(scene: Scene) -> None:
    events = list(scene.create(CALL, tools=[ADD], stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[2:] == [
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done"),
        *("output_item.done", "completed"),
    ]
    assert events[2].item.arguments == ""
    assert json.loads(events[4].arguments) == {"a": 1}


def test_one_tool_can_be_named_or_a_few_allowed(scene: Scene) -> None:
    other = {**ADD, "name": "subtract"}
    scene.create(CALL, tools=[ADD, other], tool_choice={"type": "function", "name": "add"})
    assert scene.asked()["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "add"}],
    }
    scene.create(CALL, tools=[ADD, other], tool_choice=allowed)
    asked = scene.asked()
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["add"]
    assert asked["tool_choice"] == "required"


def test_a_schema_reaches_the_backend(scene: Scene) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    response = scene.create('{"n": 1}', text={"format": form})
    assert scene.asked()["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": schema, "strict": True},
    }
    assert response.text.format.schema_ == schema
    scene.create("{}", text={"format": {"type": "json_object"}})
    assert scene.asked()["response_format"] == {"type": "json_object"}


def test_a_conversation_goes_on(scene: Scene) -> None:
    first = scene.create("I am Ann.", input="Who are you?", instructions="You are Ann.")
    second = scene.create("Ann.", input="Again?", previous_response_id=first.id)
    third = scene.create("ok", input="Thanks", previous_response_id=second.id)
    # Instructions hold for their own response only.
    assert scene.messages() == [
        *(("user", "Who are you?"), ("assistant", "I am Ann.")),
        *(("user", "Again?"), ("assistant", "Ann."), ("user", "Thanks")),
    ]
    client = scene.client
    assert client.responses.retrieve(third.id).output_text == "ok"
    items = client.responses.input_items.list(third.id, order="asc", limit=2)
    assert [item.role for item in items] == ["user", "assistant", "user", "assistant", "user"]
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)
    with pytest.raises(openai.BadRequestError) as caught:
        scene.create(previous_response_id=second.id)
    assert caught.value.param == "previous_response_id"
    # The third keeps what it was made from.
    assert scene.create("yes", previous_response_id=third.id).output_text == "yes"


def test_what_is_not_stored_is_not_found(scene: Scene) -> None:
    response = scene.create("Hello", store=False)
    with pytest.raises(openai.NotFoundError):
        scene.client.responses.retrieve(response.id)
    events = list(scene.create("Hello", stream=True))
    assert scene.client.responses.retrieve(events[-1].response.id).output_text == "Hello"


def test_an_item_can_be_named_by_its_id(scene: Scene) -> None:
    said = scene.create("Hello").output[0]
    again = {"role": "user", "content": "Again"}
    scene.create("Hello", input=[{"type": "item_reference", "id": said.id}, again])
    assert scene.messages() == [("assistant", "Hello"), ("user", "Again")]


def test_what_codex_sends(scene: Scene) -> None:
    """The shape of its requests: a developer's message, hosted tools, nothing stored."""
    message = {"type": "message", "role": "developer", "content": [text("input_text", "rules")]}
    shell = {**ADD, "name": "shell", "strict": False}
    hosted = [{"type": "web_search", "external_web_access": False}, {"type": "image_generation"}]
    history = [
        message,
        {"type": "message", "role": "user", "content": [text("input_text", "list the files")]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AAAA"},
        {"type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{}"},
        {"type": "reasoning", "id": "rs_2", "summary": []},
        {"type": "function_call", "call_id": "c2", "name": "shell", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "a.txt"},
        {"type": "function_call_output", "call_id": "c2", "output": [text("input_text", "b.txt")]},
    ]
    events = scene.create(
        "Two.",
        instructions="You are Codex.",
        input=history,
        tools=[shell, *hosted],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning={"effort": "medium", "summary": "auto"},
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        text={"verbosity": "low"},
        extra_body={"client_metadata": {"x": "y"}},
    )
    last = list(events)[-1].response
    assert last.output_text == "Two."
    assert [tool.name for tool in last.tools] == ["shell"]
    roles = [message["role"] for message in scene.asked()["messages"]]
    assert roles == ["system", "developer", "user", "assistant", "tool", "tool"]
    assert [call["id"] for call in scene.asked()["messages"][3]["tool_calls"]] == ["c1", "c2"]


def text(kind: str, words: str) -> dict[str, str]:
    return {"type": kind, "text": words}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools.0.name"),
        ({"tools": [ADD, ADD]}, "tools.1.function.name"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "messages.0.tool_call_id",
        ),
        ({"tools": [ADD], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tools": [ADD], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tools": [ADD], "tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.id"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input.0.type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "x"}]}, "input.0.arguments"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    scene: Scene, fields: dict[str, Any], param: str
) -> None:
    asked = len(scene.backend.requests)
    for language in ("en", "zh"):
        with pytest.raises(openai.BadRequestError) as caught:
            scene.create(**fields, extra_headers={"Accept-Language": language})
        assert caught.value.param == param
        assert param.split(".")[0] in caught.value.body["message"]  # type: ignore[index]
    assert len(scene.backend.requests) == asked


def test_errors_before_and_within_a_stream(scene: Scene) -> None:
    with pytest.raises(openai.InternalServerError):
        scene.create(HunyuanError("it broke", "出错了"))
    with pytest.raises(openai.InternalServerError):
        scene.create(HunyuanError("it broke", "出错了"), stream=True)


def test_a_stream_that_breaks_ends_with_failed() -> None:
    class Breaking(ScriptedBackend):
        async def stream(self, *args: Any) -> Any:
            async for chunk in super().stream(*args):
                yield chunk
                if chunk["choices"][0]["delta"].get("content"):
                    raise HunyuanError("it broke", "出错了")

    app = app_of(responses.router(lambda model: Breaking(["Hello"]), ResponseStore()))
    with listening(app) as address:
        client = openai_client(address)
        for language, message in (("en", "it broke"), ("zh", "出错了")):
            *_, last = client.responses.create(
                model="m", input="hi", stream=True, extra_headers={"Accept-Language": language}
            )
            assert last.type == "response.failed"
            assert last.response.status == "failed"
            assert last.response.error is not None
            assert last.response.error.message == message


def test_unknown_ids_and_odd_queries(scene: Scene) -> None:
    with http(scene.address) as client:
        for method, path in (
            ("GET", "/v1/responses/nothing"),
            ("DELETE", "/v1/responses/nothing"),
            ("GET", "/v1/responses/nothing/input_items"),
        ):
            reply = client.request(method, path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "response_not_found")
        id = scene.create("Hello").id
        assert client.get(f"/v1/responses/{id}?stream=true").status_code == 400
        assert client.get(f"/v1/responses/{id}/input_items?limit=0").status_code == 400
        assert client.get(f"/v1/responses/{id}/input_items?after=x").json()["data"] == []


def test_what_is_no_json_does_not_come_back(scene: Scene) -> None:
    """Python reads NaN and lone surrogates in JSON; neither may break a reply that repeats them."""
    odd = '{"type": "function", "name": "f", "parameters": {"a": NaN, "b": "\\ud800"}}'
    item = '{"role": "user", "content": "hi", "id": "\\ud800"}'
    for stream in ("false", "true"):
        scene.replies = ["Hello"]
        body = f'{{"model": "m", "input": [{item}], "tools": [{odd}], "stream": {stream}}}'
        with http(scene.address) as client:
            headers = {"content-type": "application/json"}
            reply = client.post("/v1/responses", content=body, headers=headers)
            assert reply.status_code == 200
            data = [line[6:] for line in reply.text.split("\n") if line.startswith("data: ")]
            last = json.loads(data[-1])["response"] if data else reply.json()
            assert last["tools"][0]["parameters"] == {"a": None, "b": "\ud800"}
            items = client.get(f"/v1/responses/{last['id']}/input_items")
            assert items.json()["first_id"] == "\ud800"


class Endless(ScriptedBackend):
    """Begins an answer, then says nothing more; notes when it is given up."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.given_up = threading.Event()

    async def stream(self, *args: Any) -> Any:
        try:
            self.begun.set()
            yield chunk(role="assistant", content="")
            yield chunk(content="Hel")
            await asyncio.Event().wait()
        finally:
            self.given_up.set()

    async def complete(self, *args: Any) -> Any:
        async for _ in self.stream():
            pass


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_ends_the_generation(stream: bool) -> None:
    backend = Endless()
    with listening(app_of(responses.router(lambda model: backend, ResponseStore()))) as address:
        host, _, port = address.removeprefix("http://").partition(":")
        body = json.dumps({"model": "m", "input": "hi", "stream": stream}).encode()
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/responses HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            assert backend.begun.wait(10)
            if stream:
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
            assert not backend.given_up.is_set()
        assert backend.given_up.wait(10)


def test_silence_is_filled_and_nothing_lost() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        for _ in range(2):
            await quiet.wait()
            quiet.clear()
        yield 2

    async def collected() -> list[int | None]:
        found: list[int | None] = []
        async for item in streams.with_silences(items(), seconds=0.01):
            found.append(item)
            if item is None:
                quiet.set()
        return found

    quiet = asyncio.Event()
    assert asyncio.run(collected()) == [1, None, None, 2]


# ---------------------------------------------------------------- the builder


def chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}


def build(chunks: list[dict[str, Any]], **fields: Any) -> tuple[dict[str, Any], list[Any]]:
    """The response, and the events as they were sent."""
    request = ResponseRequest.model_validate({"model": "m", "input": "hi", **fields})
    builder = ResponseBuilder(request, ModelCard(id="m", created=0, context=9))
    sent = [json.loads(json.dumps(event)) for event in builder.start()]
    for one in chunks:
        sent += [json.loads(json.dumps(event)) for event in builder.feed(one)]
    sent += [json.loads(json.dumps(event)) for event in builder.finish()]
    return builder.response, sent


def ending(reason: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def test_reasoning_text_and_calls_are_items_of_their_own() -> None:
    first, rest = {"name": "add", "arguments": ""}, {"arguments": "{}"}
    response, events = build(
        [
            chunk(role="assistant", content=""),
            chunk(reasoning_content="Hm"),
            chunk(reasoning_content="m."),
            chunk(content="Well"),
            chunk(tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": first}]),
            chunk(tool_calls=[{"index": 0, "function": rest}]),
            chunk(tool_calls=[{"index": 1, "id": "c2", "type": "function", "function": first}]),
            ending("tool_calls"),
        ]
    )
    kinds = [item["type"] for item in response["output"]]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    assert response["output"][0]["content"][0]["text"] == "Hmm."
    assert [item["status"] for item in response["output"]] == ["completed"] * 4
    assert [item.get("arguments") for item in response["output"]] == [None, None, "{}", ""]
    assert [e["output_index"] for e in events if e["type"].endswith("item.done")] == [0, 1, 2, 3]


def test_an_answer_cut_off_is_incomplete() -> None:
    response, events = build([chunk(content="Hel"), ending("length")])
    assert response["status"] == response["output"][0]["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-1]["type"] == "response.incomplete"


def test_an_empty_answer_is_an_empty_message() -> None:
    response, _ = build([chunk(role="assistant", content=""), ending("stop")])
    assert response["output"][0]["content"][0]["text"] == ""


def test_logprobs_come_if_asked_for() -> None:
    entry = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}
    said = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [entry]}}]}
    for fields, kept in (({}, []), ({"top_logprobs": 1}, [entry])):
        response, events = build([said, ending("stop")], **fields)
        assert response["output"][0]["content"][0]["logprobs"] == kept
        [delta] = [event for event in events if event["type"] == "response.output_text.delta"]
        assert delta["logprobs"] == kept


DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, st.text(max_size=3)),
    st.builds(lambda text: {"reasoning_content": text}, st.text(max_size=3)),
    st.builds(
        lambda index, text: {
            "tool_calls": [{"index": index, "id": f"c{index}", "function": {"arguments": text}}]
        },
        st.integers(0, 2),
        st.text(max_size=3),
    ),
)


@given(st.lists(DELTAS, max_size=12), st.sampled_from(["stop", "length", "tool_calls"]))
def test_the_events_joined_are_the_response(deltas: list[dict[str, Any]], reason: str) -> None:
    """A client that only adds up events has the same items as the final object."""
    response, events = build([*(chunk(**delta) for delta in deltas), ending(reason)])
    items: list[Any] = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
        elif kind == "content_part.added":
            items[event["output_index"]]["content"].append(event["part"])
        elif kind in ("output_text.delta", "reasoning_text.delta"):
            items[-1]["content"][event["content_index"]]["text"] += event["delta"]
        elif kind == "function_call_arguments.delta":
            items[-1]["arguments"] += event["delta"]
        elif kind == "output_item.done":
            assert items[-1] | {"status": event["item"]["status"]} == event["item"]
            items[-1] = event["item"]
    assert items == events[-1]["response"]["output"] == response["output"]
    assert events[-1]["response"]["status"] in ("completed", "incomplete")


# ---------------------------------------------------------------- the request and the store


def test_a_turn_of_the_model_is_one_message() -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "summary": [text("summary_text", "Hm.")]},
        {"role": "assistant", "content": [text("output_text", "Well")]},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "2"},
        {"role": "assistant", "content": "It is"},
        {"role": "assistant", "content": "2."},
        {"type": "reasoning", "summary": []},
    ]
    request = ResponseRequest.model_validate({"model": "m", "input": items})
    chat = request.chat(request.items()).model_dump(exclude_none=True)["messages"]
    assert [m["role"] for m in chat] == [
        *("user", "assistant", "tool", "assistant", "assistant", "assistant")
    ]
    assert chat[1]["content"] == "Well"
    assert chat[1]["reasoning_content"] == "Hm."
    assert len(chat[1]["tool_calls"]) == 1


ITEMS = st.lists(
    st.dictionaries(
        st.sampled_from(["type", "role", "content", "call_id", "name", "arguments", "output"]),
        st.one_of(
            st.none(),
            st.text(max_size=3),
            st.integers(),
            st.sampled_from(["message", "function_call", "function_call_output", "user"]),
            st.lists(st.dictionaries(st.sampled_from(["type", "text"]), st.text(max_size=2))),
        ),
    ),
    max_size=4,
)


@given(ITEMS)
def test_any_items_are_read_or_refused_by_place(items: list[dict[str, Any]]) -> None:
    request = ResponseRequest.model_validate({"model": "m", "input": items})
    refused = None
    try:
        assert 0 < len(request.chat(request.items()).messages) <= len(items)
    except FieldError as error:
        refused = error.param
    assert refused is None or refused.startswith("input")


def test_the_store_is_bounded_and_forgets() -> None:
    now = 0.0
    store = ResponseStore(max_entries=2, max_bytes=1000, seconds=10, clock=lambda: now)
    for name in "abc":
        store.put({"id": name, "output": []}, ())
    assert [store.get(name) is not None for name in "abc"] == [False, True, True]
    store.get("b")
    store.put({"id": "d"}, ())
    assert store.get("c") is None, "the one unused for longest goes first"
    store.put({"id": "large", "text": "x" * 2000}, ())
    assert store.get("large") is None
    store.put({"id": "e", "text": "x" * 960}, ())
    assert store.get("b") is None, "the bytes are bounded"
    assert store.get("e") is not None
    now = 11.0
    assert store.get("e") is None
    store.put({"id": "f", "text": "x" * 960}, ())
    assert store.get("f") is not None, "what was forgotten takes no room"
