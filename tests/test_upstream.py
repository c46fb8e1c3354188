"""A model on another server, and models exchanged at run time."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import jsonschema_rs
import openai
import pytest
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import CHATML, OracleEngine, oracle_engine
from serving import anthropic_client, http, listening, openai_client
from starlette.responses import JSONResponse, Response, StreamingResponse

from hunyuan.errors import BadDataError, HunyuanError, UsageError
from hunyuan.serve.app import create_app
from hunyuan.serve.backend import Backend
from hunyuan.serve.bridge import UnavailableError
from hunyuan.serve.errors import UpstreamError
from hunyuan.serve.host import ModelHost
from hunyuan.serve.json_check import problem
from hunyuan.serve.schema import ChatRequest
from hunyuan.serve.upstream import UpstreamBackend

HI: list[Any] = [{"role": "user", "content": "hi"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>'


# ---------------------------------------------------------------- one server behind another


class Behind:
    """A server of ours behind another of ours."""

    def __init__(self, address: str, engine: OracleEngine) -> None:
        self.address = address
        self.engine = engine
        self.client = openai_client(address)

    def say(self, text: str) -> None:
        self.engine._answers = [text]


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    engine = oracle_engine(["hi"])
    inner = create_app(ModelHost.of_engine(engine, "inner"), api_key="upstream-key")
    with listening(inner) as inside:
        backend = UpstreamBackend(f"{inside}/v1", "inner", api_key="upstream-key")
        with listening(create_app(ModelHost(lambda _: backend))) as address:
            yield Behind(address, engine)


def test_words_and_calls_come_through(behind: Behind) -> None:
    create = behind.client.chat.completions.create
    behind.say("你好 world")
    answer = create(model="inner", messages=HI, temperature=0)
    assert (answer.model, answer.choices[0].message.content) == ("inner", "你好 world")
    chunks = list(create(model="inner", messages=HI, temperature=0, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "你好 world"
    behind.say(CALL)
    for choice in ("auto", "required", {"type": "function", "function": {"name": "weather"}}):
        answer = create(model="inner", messages=HI, temperature=0, tools=TOOLS, tool_choice=choice)
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "北京"}')


def test_constraints_are_kept_by_the_model_behind(behind: Behind) -> None:
    behind.say("no JSON")
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}
    answer = behind.client.chat.completions.create(
        model="inner", messages=HI, response_format=form, max_tokens=600
    )
    assert problem(json.loads(answer.choices[0].message.content), CITY) is None
    choice = behind.client.chat.completions.create(
        model="inner", messages=HI, extra_body={"structured_outputs": {"choice": ["好", "bad"]}}
    )
    assert choice.choices[0].message.content in ("好", "bad")


def test_other_routes_of_a_model_behind(behind: Behind) -> None:
    behind.say("!")
    text = behind.client.completions.create(model="inner", prompt="a", temperature=0, echo=True)
    assert text.choices[0].text == "a!"
    message = anthropic_client(behind.address).messages.create(
        model="inner", max_tokens=9, messages=HI
    )
    assert message.content[0].text == "!"
    assert behind.client.responses.create(model="inner", input="hi").output_text == "!"
    card = behind.client.models.list().data[0]
    assert (card.id, card.owned_by) == ("inner", "upstream")
    with http(behind.address) as plain:
        assert plain.get("/health").status_code == 200
        assert plain.get("/metrics").status_code == 200
        for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
            answer = plain.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_implemented")


def test_refusals_of_the_model_behind_keep_their_words(behind: Behind) -> None:
    with pytest.raises(openai.BadRequestError, match="8192") as caught:
        behind.client.chat.completions.create(
            model="inner", messages=[{"role": "user", "content": "x" * 9000}]
        )
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="'inner'"):
        behind.client.chat.completions.create(model="other", messages=HI)


def test_leaving_ends_the_answer_behind(behind: Behind) -> None:
    behind.say("x" * 4000)
    with behind.client.chat.completions.create(model="inner", messages=HI, stream=True) as stream:
        next(iter(stream))
        assert behind.engine.running == 1
    ended = threading.Event()
    for _ in range(500):
        if behind.engine.running == 0:
            break
        ended.wait(0.02)
    assert behind.engine.running == 0


# ---------------------------------------------------------------- servers that misbehave


class Stub:
    """A server that answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Response = Response()
        self.asked: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.app = FastAPI()
        self.app.post("/v1/{path:path}")(self.respond)

    async def respond(self, request: Request) -> Response:
        self.asked.append((await request.json(), dict(request.headers)))
        return self.answer


@pytest.fixture(scope="module")
def stub() -> Iterator[tuple[Stub, str]]:
    made = Stub()
    with listening(made.app) as address:
        yield made, f"{address}/v1"


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": HI} | fields)


def whole(message: dict[str, Any], reason: str = "stop") -> JSONResponse:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    return JSONResponse({"id": "x", "object": "chat.completion", "choices": [choice]})


def calling(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}


def events(*chunks: dict[str, Any], done: bool = True) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        yield ": comment\n\n"
        for chunk in chunks:
            yield f"data: {json.dumps(chunk)}\n\n"
        if done:
            yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def run(work: Callable[[UpstreamBackend], Any], url: str, **options: Any) -> Any:
    async def within() -> Any:
        backend = UpstreamBackend(url, "theirs", **options)
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(within())


def answered(url: str, asked: ChatRequest) -> Any:
    return run(lambda backend: backend.complete(asked), url)


def streamed(url: str, asked: ChatRequest) -> list[dict[str, Any]]:
    async def all_of(backend: UpstreamBackend) -> list[dict[str, Any]]:
        return [chunk async for chunk in backend.stream(asked)]

    return run(all_of, url)


def test_what_is_passed_on(stub: tuple[Stub, str]) -> None:
    made, url = stub
    made.answer = whole({"content": "{}"})
    fields = {
        "tools": TOOLS,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "structured_outputs": {"json": {"type": "object"}},
        "min_p": 0.1,
        "n": 1,
        "chat_template_kwargs": {"x": 1},
    }
    run(lambda backend: backend.complete(request(**fields)), url, api_key="k")
    body, headers = made.asked[-1]
    assert body["model"] == "theirs"
    assert headers["authorization"] == "Bearer k"
    for name, value in fields.items():
        assert body[name] == value or name == "tools"
    assert body["tools"][0]["function"]["parameters"] == CITY
    assert "seed" not in body


@pytest.mark.parametrize(
    ("message", "fields", "words"),
    [
        ({"content": "no"}, {"tools": TOOLS, "tool_choice": "required"}, "called no function"),
        (calling("steal", "{}"), {"tools": TOOLS}, "'steal', which was not offered"),
        (calling("weather", "{}"), {"tools": TOOLS}, "city is missing"),
        (calling("weather", '{"city": 3}'), {"tools": TOOLS}, "type must be string"),
        (calling("weather", '{"city": "x"'), {"tools": TOOLS}, "no JSON"),
        (calling("weather", '{"city": "x"}'), {}, "not offered"),
        ({"content": "[]"}, {"response_format": {"type": "json_object"}}, "type must be object"),
        ({"content": "{}"}, {"structured_outputs": {"json": CITY}}, "city is missing"),
    ],
)
def test_answers_that_break_the_rules_are_refused(
    stub: tuple[Stub, str], message: dict[str, Any], fields: Any, words: str
) -> None:
    made, url = stub
    made.answer = whole(message)
    with pytest.raises(UpstreamError, match=words) as caught:
        answered(url, request(**fields))
    assert (caught.value.status, caught.value.code) == (502, "upstream_answer_invalid")
    pieces = [delta(role="assistant", content="")]
    if message["content"]:
        pieces += [delta(content=letter) for letter in message["content"]]
    for call in message.get("tool_calls", []):
        first = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
        rest = {"index": 0, "function": {"arguments": call["function"]["arguments"]}}
        pieces += [delta(tool_calls=[first]), delta(tool_calls=[rest])]
    made.answer = events(*pieces, delta("stop"))
    with pytest.raises(UpstreamError, match=words):
        streamed(url, request(stream=True, **fields))
    made.answer = whole(message, "length")
    assert answered(url, request(**fields)), "what was cut off says so itself"


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (JSONResponse({"error": {"message": "bad", "param": "n"}}, 400), 400, None),
        (JSONResponse({"error": {"message": "m", "code": "model_not_found"}}, 404), 404, "model"),
        (JSONResponse({"error": {"message": "later"}}, 429), 429, None),
        (JSONResponse({"error": {"message": "key"}}, 401), 502, "upstream_key_refused"),
        (JSONResponse({"error": {"message": "oops"}}, 500), 502, "upstream_failed"),
        (Response("<html>", 502), 502, "upstream_failed"),
        (Response("<html>", 200), 502, "upstream_failed"),
        (Response("[1]", 200), 502, "upstream_failed"),
        (Response("", 302, {"Location": "http://127.0.0.1:9/"}), 502, "upstream_failed"),
        (Response("[" * 100_000, 200), 502, "upstream_failed"),
    ],
)
def test_refusals_and_nonsense(
    stub: tuple[Stub, str], answer: Response, status: int, code: str | None
) -> None:
    made, url = stub
    made.answer = answer
    for asked in (request(), request(stream=True)):
        with pytest.raises(UpstreamError) as caught:
            streamed(url, asked) if asked.stream and answer.status_code != 200 else answered(
                url, asked
            )
        assert caught.value.status == status
        assert (caught.value.code or "").startswith(code or "")


@pytest.mark.parametrize(
    "answer",
    [
        lambda: events(delta(content="a"), done=False),
        lambda: events(delta(content="a"), {"error": {"message": "broke"}}),
        lambda: StreamingResponse(iter(["data: nonsense\n\n"]), media_type="text/event-stream"),
    ],
)
def test_streams_that_break_off(stub: tuple[Stub, str], answer: Callable[[], Response]) -> None:
    made, url = stub
    made.answer = answer()
    with pytest.raises(UpstreamError) as caught:
        streamed(url, request(stream=True))
    assert caught.value.status == 502


def test_servers_that_are_not_there() -> None:
    with pytest.raises(UpstreamError, match="cannot be reached") as caught:
        answered("http://127.0.0.1:9/v1", request())
    assert caught.value.code == "upstream_unreachable"
    for wrong in ("", "ftp://x", "10.0.0.5:8000", "http://"):
        with pytest.raises(UsageError, match="upstream="):
            UpstreamBackend(wrong, "m")


LEAF = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3), st.text("ab"))
VALUES = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    kinds = ["object", "array", "string", "integer", "number", "null", "boolean"]
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": st.sampled_from([*kinds, ["string", "null"]]),
        "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
        "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        "additionalProperties": st.booleans() | inner,
        "items": inner,
        "prefixItems": st.lists(inner, min_size=1, max_size=2),
        "enum": st.lists(LEAF, min_size=1, max_size=3),
        "const": LEAF,
        "minimum": st.integers(-3, 3),
        "exclusiveMaximum": st.integers(-3, 3),
        "maxLength": st.integers(0, 3),
        "minItems": st.integers(0, 2),
        "anyOf": st.lists(inner, min_size=1, max_size=2),
        "allOf": st.lists(inner, min_size=1, max_size=2),
        "pattern": st.sampled_from(["^a", "b$"]),
    }
    return st.fixed_dictionaries({}, optional=keywords)


@settings(max_examples=300, deadline=None)
@given(st.recursive(_schemas(st.just(True)), _schemas, max_leaves=6), VALUES)
def test_values_are_of_a_schema_as_another_library_finds(schema: Any, value: Any) -> None:
    assert (problem(value, schema) is None) == jsonschema_rs.is_valid(schema, value)


def test_references_within_a_schema() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}, "type": "object"}},
    }
    assert problem({"next": {"next": {}}}, tree) is None
    assert problem({"next": {"next": 1}}, tree) == ".next.next: type must be object"


# ---------------------------------------------------------------- models exchanged


class Shelf:
    """Models that can be loaded; one is broken, and loading may be held up."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def load(self, name: str, report: Callable[[int, int], None]) -> OracleEngine:
        report(1, 2)
        self.go_on.wait(20)
        report(2, 2)
        if name.startswith("broken"):
            raise BadDataError("the file is damaged", "文件已损坏")
        self.loaded.append(name)
        return oracle_engine([name], template=CHATML)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def host(shelf: Shelf) -> ModelHost:
    engine = oracle_engine(["one"], template=CHATML)
    return ModelHost.of_engine(engine, "one", source="/models/one", loader=shelf.load)


def quiet(done: int, total: int) -> None:
    """Nobody wants to know."""


async def said(backend: Backend) -> str:
    asked = request(model="any", temperature=0)
    return str((await backend.complete(asked))["choices"][0]["message"]["content"])


def test_another_model_answers(host: ModelHost, shelf: Shelf) -> None:
    async def work() -> None:
        reports: list[tuple[int, int]] = []
        await host.load("two", lambda done, total: reports.append((done, total)))
        assert reports == [(1, 2), (2, 2)]
        assert (host.backend.model.id, await said(host.backend)) == ("two", "two")
        assert [card.id for card in host.models()] == ["two", "one"]
        await host.load("one", quiet)
        assert (host.backend.model.id, await said(host.backend)) == ("one", "/models/one")
        await host.close()

    asyncio.run(work())
    assert shelf.loaded == ["two", "/models/one"]


def test_a_model_that_is_broken_leaves_the_old_one(host: ModelHost, shelf: Shelf) -> None:
    async def work() -> None:
        with pytest.raises(BadDataError):
            await host.load("broken", quiet)
        assert (host.backend.model.id, await said(host.backend)) == ("one", "/models/one")
        await host.close()

    asyncio.run(work())


def test_giving_up_leaves_the_old_one(host: ModelHost, shelf: Shelf) -> None:
    async def work() -> None:
        shelf.go_on.clear()
        loading = asyncio.create_task(host.load("two", quiet))
        await asyncio.sleep(0)
        while host.backend.failure is None:
            await asyncio.sleep(0)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        shelf.go_on.set()
        while host.backend.failure is not None:
            await asyncio.sleep(0.01)
        assert await said(host.backend) == "/models/one"
        await host.close()

    asyncio.run(work())
    assert shelf.loaded == ["/models/one"]


def test_when_nothing_can_be_loaded_it_says_so(host: ModelHost, shelf: Shelf) -> None:
    async def work() -> None:
        host._source = "broken too"
        with pytest.raises(BadDataError):
            await host.load("broken", quiet)
        with pytest.raises(UnavailableError, match="no model is loaded"):
            await said(host.backend)
        await host.load("two", quiet)
        assert await said(host.backend) == "two"
        await host.close()

    asyncio.run(work())


def test_requests_are_told_to_come_back_meanwhile(host: ModelHost, shelf: Shelf) -> None:
    with listening(create_app(host)) as address, http(address) as client:
        shelf.go_on.clear()
        loading: list[Any] = []

        async def load() -> None:
            loading.append(await host.load("two", quiet))

        asked = {"model": "one", "messages": HI, "temperature": 0}
        with client.stream(
            "POST",
            "/v1/chat/completions",
            json={**asked, "stream": True, "ignore_eos": True, "max_tokens": 4000},
        ) as open_stream:
            lines = open_stream.iter_lines()
            next(lines)
            thread = threading.Thread(target=lambda: asyncio.run(load()))
            thread.start()
            rest = "".join(lines)
            assert "the server is stopping" in rest
        for path in ("/v1/chat/completions", "/v1/completions"):
            answer = client.post(path, json={**asked, "prompt": "x"})
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert "being loaded" in answer.json()["error"]["message"]
        assert client.get("/health").status_code == 503
        shelf.go_on.set()
        thread.join()
        assert loading == [None]
        answer = client.post("/v1/chat/completions", json={**asked, "model": "two"})
        assert answer.json()["choices"][0]["message"]["content"] == "two"
        assert client.post("/v1/chat/completions", json=asked).status_code == 404


def test_a_server_without_a_shelf(behind: Behind) -> None:
    host = ModelHost(lambda _: UpstreamBackend("http://127.0.0.1:9", "m"))
    with pytest.raises(UsageError, match="cannot load another model"):
        asyncio.run(host.load("x", quiet))


def test_errors_have_both_languages() -> None:
    for error in (UpstreamError("a", "b", status=502), UnavailableError("a", "b")):
        assert isinstance(error, HunyuanError)
        assert (error.text("en"), error.text("zh")) == ("a", "b")


def test_the_client_is_not_redirected(stub: tuple[Stub, str]) -> None:
    """A key must not follow a redirect to another host."""
    made, url = stub
    made.answer = Response("", 307, {"Location": "http://127.0.0.1:9/v1/chat/completions"})
    with pytest.raises(UpstreamError, match="status 307"):
        answered(url, request())
    assert httpx2.URL(url).host == "127.0.0.1"
