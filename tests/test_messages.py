"""Messages: Anthropic's own client against the routes, over a backend that says what it is told."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedBackend
from serving import anthropic_client, app_of, http, listening

from hunyuan.errors import HunyuanError, OverloadedError
from hunyuan.serve import messages
from hunyuan.serve.messages_output import MessageBuilder
from hunyuan.serve.messages_schema import MessagesRequest
from hunyuan.serve.schema import FieldError

ADD = {
    "name": "add",
    "description": "Adds",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
CALL = {"name": "add", "arguments": {"a": 1}}
HI = [{"role": "user", "content": "hi"}]


class Scene:
    """A server whose backend says what it is told, and a client of it."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.backend = ScriptedBackend(lambda request: self.replies.pop(0))
        app = app_of(messages.router(lambda model: self.backend))
        app.add_middleware(messages.MessageErrors)
        self.app = app
        self.client: anthropic.Anthropic
        self.address = ""

    def create(self, *replies: Any, **fields: Any) -> Any:
        self.replies = list(replies) or ["ok"]
        fields = {"model": "scripted", "max_tokens": 50, "messages": HI} | fields
        return self.client.messages.create(**fields)

    def asked(self) -> dict[str, Any]:
        return self.backend.requests[-1].model_dump(exclude_none=True, by_alias=True)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    made = Scene()
    with listening(made.app) as made.address:
        made.client = anthropic_client(made.address)
        yield made


def test_a_text_is_answered(scene: Scene) -> None:
    # The newest client has no arguments of its own for sampling.
    sampling = {"temperature": 0, "top_k": 5}
    message = scene.create("Hello", system="Be kind.", stop_sequences=["END"], extra_body=sampling)
    assert message.content[0].text == "Hello"
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 5
    asked = scene.asked()
    assert [(m["role"], m["content"]) for m in asked["messages"]] == [
        *(("system", "Be kind."), ("user", "hi"))
    ]
    assert (asked["max_completion_tokens"], asked["temperature"]) == (50, 0)
    assert (asked["stop"], asked["top_k"]) == (["END"], 5)


def test_a_stream_has_the_events_in_order(scene: Scene) -> None:
    events = list(scene.create("Hello", stream=True))
    assert [event.type for event in events] == [
        *("message_start", "content_block_start", "content_block_delta", "content_block_delta"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    assert events[0].message.usage.input_tokens == 2, "what is known of the prompt comes first"
    assert events[0].message.content == []
    assert (events[-2].delta.stop_reason, events[-2].usage.output_tokens) == ("end_turn", 5)
    with http(scene.address) as client:
        scene.replies = ["Hello"]
        fields = {"model": "m", "max_tokens": 5, "messages": HI, "stream": True}
        text = client.post("/v1/messages", json=fields).text
    assert "event: ping\ndata: {" in text


def test_a_tool_is_used_and_its_result_read(scene: Scene) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    message = scene.create(CALL, tools=[ADD], tool_choice=choice)
    [use] = message.content
    assert (use.type, use.name, use.input) == ("tool_use", "add", {"a": 1})
    assert message.stop_reason == "tool_use"
    asked = scene.asked()
    assert asked["tools"][0]["function"]["parameters"] == ADD["input_schema"]
    assert (asked["tool_choice"], asked["parallel_tool_calls"]) == ("required", False)

    result = {"type": "tool_result", "tool_use_id": use.id, "content": [text("2")]}
    turns = [
        *HI,
        {"role": "assistant", "content": [block.model_dump() for block in message.content]},
        {"role": "user", "content": [result, text("So?")]},
    ]
    again = scene.create("It is 2.", messages=turns, tools=[ADD])
    assert again.content[0].text == "It is 2."
    chat = scene.asked()["messages"]
    assert [m["role"] for m in chat] == ["user", "assistant", "tool", "user"]
    assert chat[1]["tool_calls"][0]["id"] == chat[2]["tool_call_id"] == use.id
    assert (chat[2]["content"], chat[3]["content"]) == ("2", "So?")

    named = {"type": "tool", "name": "add"}
    scene.create(CALL, tools=[ADD], tool_choice=named)
    assert scene.asked()["tool_choice"] == {"type": "function", "function": {"name": "add"}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_a_streamed_tool_use_is_put_together(scene: Scene) -> None:
    scene.replies = [CALL]
    with scene.client.messages.stream(
        model="scripted", max_tokens=50, messages=HI, tools=[ADD]
    ) as stream:
        final = stream.get_final_message()
    assert final.content[0].input == {"a": 1}
    assert final.stop_reason == "tool_use"


def test_what_claude_code_sends(scene: Scene) -> None:
    """Marks for caching, thinking, metadata and its own fields change nothing."""
    cached = {"cache_control": {"type": "ephemeral"}}
    message = scene.create(
        "ok",
        system=[{**text("You are Claude Code."), **cached}, text("Be brief.")],
        messages=[
            {"role": "user", "content": [{**text("first"), **cached}]},
            {"role": "user", "content": "second"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": ""},
                    {"type": "redacted_thinking", "data": "x"},
                    text("Yes"),
                ],
            },
            {"role": "user", "content": "third"},
        ],
        tools=[{**ADD, **cached, "eager_input_streaming": True}],
        thinking={"type": "adaptive"},
        metadata={"user_id": "u"},
        extra_body={"context_management": {"edits": []}},
        extra_query={"beta": "true"},
    )
    assert message.content[0].text == "ok"
    chat = scene.asked()["messages"]
    assert [(m["role"], m["content"]) for m in chat] == [
        ("system", "You are Claude Code.\nBe brief."),
        ("user", "first\nsecond"),
        ("assistant", "Yes"),
        ("user", "third"),
    ]
    assert chat[2]["reasoning_content"] == "Hm."


def test_a_schema_reaches_the_backend(scene: Scene) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    scene.create("{}", output_config={"format": form, "effort": "low"})
    asked = scene.asked()
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert asked["reasoning_effort"] == "low"


def test_tokens_are_counted(scene: Scene) -> None:
    count = scene.client.messages.count_tokens(model="scripted", messages=HI, system="abc")
    assert count.input_tokens == 5


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0.type"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"tools": [{"name": "a b"}]}, "tools.0.name"),
        ({"extra_body": {"mcp_servers": [{"name": "x"}]}}, "mcp_servers"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    scene: Scene, fields: dict[str, Any], place: str
) -> None:
    asked = len(scene.backend.requests)
    for language in ("en", "zh"):
        with pytest.raises(anthropic.BadRequestError) as caught:
            scene.create(**fields, extra_headers={"Accept-Language": language})
        body: Any = caught.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
        assert place in body["error"]["message"]
    assert len(scene.backend.requests) == asked


def test_errors_have_anthropics_shape(scene: Scene) -> None:
    with pytest.raises(anthropic.RateLimitError) as caught:
        scene.create(OverloadedError("too many", "太多"))
    assert caught.value.body["error"] == {  # type: ignore[index]
        "type": "rate_limit_error",
        "message": "too many",
    }
    assert caught.value.response.headers["retry-after"] == "5"
    with http(scene.address) as client:
        for content in (b"{", b"[]", b'{"model": 1}'):
            headers = {"content-type": "application/json"}
            reply = client.post("/v1/messages", content=content, headers=headers)
            assert reply.status_code == 400
            assert reply.json()["error"]["type"] == "invalid_request_error"
        # The neighbours keep OpenAI's.
        assert client.get("/v1/messagesx").json()["error"]["code"] is None


def test_a_stream_that_breaks_ends_with_an_error() -> None:
    class Breaking(ScriptedBackend):
        async def stream(self, *args: Any) -> Any:
            async for chunk in super().stream(*args):
                yield chunk
                if chunk["choices"][0]["delta"].get("content"):
                    raise HunyuanError("it broke", "出错了")

    with listening(app_of(messages.router(lambda model: Breaking(["Hello"])))) as address:
        client = anthropic_client(address)
        with (
            pytest.raises(anthropic.APIStatusError, match="it broke"),
            client.messages.stream(model="m", max_tokens=9, messages=HI) as stream,
        ):
            stream.until_done()


def test_an_upstream_that_does_not_count() -> None:
    class Silent(ScriptedBackend):
        async def count_tokens(self, *args: Any) -> None:
            return None

    app = app_of(messages.router(lambda model: Silent(["Hello"])))
    app.add_middleware(messages.MessageErrors)
    with listening(app) as address:
        client = anthropic_client(address)
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.count_tokens(model="m", messages=HI)
        assert caught.value.status_code == 501
        with client.messages.stream(model="m", max_tokens=9, messages=HI) as stream:
            assert stream.get_final_text() == "Hello"


# ---------------------------------------------------------------- the builder


def build(
    deltas: list[dict[str, Any]], reason: str, **choice: Any
) -> tuple[dict[str, Any], list[Any]]:
    """The message, and the events as they were sent."""
    builder = MessageBuilder("m", 7)
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": reason, **choice}]})
    sent = [json.loads(json.dumps(event)) for event in builder.start()]
    for chunk in chunks:
        sent += [json.loads(json.dumps(event)) for event in builder.feed(chunk)]
    sent += [json.loads(json.dumps(event)) for event in builder.finish()]
    return builder.message, sent


DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, st.text(max_size=3)),
    st.builds(lambda text: {"reasoning_content": text}, st.text(max_size=3)),
    st.builds(
        lambda index, text: {
            "tool_calls": [{"index": index, "id": f"c{index}", "function": {"arguments": text}}]
        },
        st.integers(0, 2),
        st.sampled_from(["{", "}", '"a": 1', ""]),
    ),
)


@given(st.lists(DELTAS, max_size=12), st.sampled_from(["stop", "length", "tool_calls"]))
def test_the_events_joined_are_the_message(deltas: list[dict[str, Any]], reason: str) -> None:
    message, events = build(deltas, reason)
    blocks: list[Any] = []
    inputs: dict[int, str] = {}
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"])
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            delta = event["delta"]
            if delta["type"] == "input_json_delta":
                inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
            else:
                kind = delta["type"].removesuffix("_delta")
                blocks[-1][kind] += delta[kind]
    for index, arguments in inputs.items():
        try:
            blocks[index]["input"] = json.loads(arguments)
        except ValueError:
            blocks[index]["input"] = {}
    assert blocks == message["content"]
    assert events[-2]["delta"]["stop_reason"] == message["stop_reason"]


def test_the_text_that_ended_an_answer_is_named() -> None:
    message, _ = build([{"content": "a"}], "stop", stop_reason="END")
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
    message, _ = build([{"content": "a"}], "stop", stop_reason=None)
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    message, _ = build([{"content": "a"}], "length")
    assert message["stop_reason"] == "max_tokens"


def test_cached_tokens_are_counted_apart() -> None:
    builder = MessageBuilder("m")
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    list(builder.feed({"usage": usage | {"prompt_tokens_details": {"cached_tokens": 8}}}))
    assert builder.message["usage"] == {
        "input_tokens": 2,
        "cache_read_input_tokens": 8,
        "cache_creation_input_tokens": 0,
        "output_tokens": 2,
    }


BLOCKS = st.lists(
    st.dictionaries(
        st.sampled_from(["type", "text", "id", "name", "input", "tool_use_id", "content"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.sampled_from(["text", "tool_use", "tool_result", "thinking"]),
            st.just({}),
            st.just([{"type": "text", "text": "x"}]),
        ),
    ),
    max_size=3,
)


@given(BLOCKS, BLOCKS)
def test_any_blocks_are_read_or_refused_by_place(
    spoken: list[dict[str, Any]], told: list[dict[str, Any]]
) -> None:
    turns = [{"role": "assistant", "content": spoken}, {"role": "user", "content": told}]
    fields = {"model": "m", "max_tokens": 1, "messages": turns}
    refused = None
    try:
        MessagesRequest.model_validate(fields).chat()
    except FieldError as error:
        refused = error.param
    assert refused is None or refused.startswith("messages")
