"""The server as clients meet it: a real one on a real port, mostly through OpenAI's own client."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from conftest import random_transformer, write_byte_tokenizer

from hunyuan import Engine
from hunyuan.catalogue.store import installed
from hunyuan.model.config import preset
from hunyuan.serve import guard, streams
from hunyuan.serve.app import create_app
from hunyuan.serve.host import ModelHost
from hunyuan.tokenizer.load import load_tokenizer


@dataclass
class Served:
    port: int
    engine: Engine
    app: Any

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            api_key=options.pop("api_key", "none"),
            max_retries=0,
            _strict_response_validation=True,
            **options,
        )

    def raw(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers (lower case) and body, parsed if it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(
            method, path, data, sent | {k.replace("_", "-"): v for k, v in headers.items()}
        )
        response = connection.getresponse()
        content = response.read()
        found = {k.lower(): v for k, v in response.getheaders()}
        connection.close()
        if found.get("content-type", "").startswith("application/json"):
            return response.status, found, json.loads(content)
        return response.status, found, content


@contextmanager
def serving(engine: Engine, *, max_waiting: int = 64, **options: Any) -> Iterator[Served]:
    app = create_app(ModelHost.of_engine(engine, "tiny", max_waiting=max_waiting), **options)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield Served(listener.getsockname()[1], engine, app)
        finally:
            server.should_exit = True
            thread.join()


def wait_until(true: Callable[[], Any], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_tokenizer(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def make_engine(tokenizer_folder: Path) -> Callable[..., Engine]:
    def make(**options: Any) -> Engine:
        return Engine(
            random_transformer(preset("tiny")), load_tokenizer(tokenizer_folder), **options
        )

    return make


@pytest.fixture(scope="module")
def served(make_engine: Callable[..., Engine]) -> Iterator[Served]:
    with serving(make_engine(max_sequences=4)) as running:
        yield running


HI = [{"role": "user", "content": "hi"}]
LONG = {"max_tokens": 400, "extra_body": {"ignore_eos": True}}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": HI, "max_tokens": 4, **fields}


def test_models(served: Served) -> None:
    client = served.client()
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_an_answer_is_the_engines(served: Served) -> None:
    answer = served.client().chat.completions.create(
        model="tiny", messages=HI, temperature=0, max_tokens=12
    )
    choice = answer.choices[0]
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    prompt = served.engine.tokenizer.chat_prompt(HI)
    assert answer.usage.prompt_tokens == len(prompt)
    assert choice.message.content == direct(served.engine, HI, 12)


def direct(engine: Engine, messages: list[dict[str, str]], count: int) -> str:
    """The same answer from an engine of its own."""
    other = Engine(engine.model, engine.tokenizer)
    return other.generate(messages, temperature=0, max_tokens=count).text


@pytest.mark.parametrize("text", ["hi", "海水为什么是咸的？", "x" * 200])
def test_streamed_equals_whole(served: Served, text: str) -> None:
    client = served.client()
    request = {
        "model": "tiny",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 30,
        "seed": 3,
    }
    whole = client.chat.completions.create(**request)
    chunks = list(
        client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(c.choices[0].delta.role is None for c in chunks[1:-1])
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    reasons = [c.choices[0].finish_reason for c in chunks[:-1]]
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    assert reasons[-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert counts(chunks[-1].usage) == counts(whole.usage)
    assert all(c.usage is None for c in chunks[:-1])
    joined = "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    assert joined == whole.choices[0].message.content


def counts(usage: Any) -> tuple[int, int, int]:
    """What two answers to the same prompt have in common: the cache helps the second one."""
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


def test_usage_tells_what_the_cache_knew(served: Served) -> None:
    request = body(messages=[{"role": "user", "content": "一二三四五六七八九十" * 4}])
    usages = [served.raw("POST", "/v1/chat/completions", request)[2]["usage"] for _ in range(2)]
    first, second = (usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert first < 64 <= second < usages[1]["prompt_tokens"]


def test_a_stream_ends_with_done_and_has_no_usage_unless_asked(served: Served) -> None:
    status, headers, content = served.raw("POST", "/v1/chat/completions", body(stream=True))
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    events = content.decode().strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert all("usage" not in json.loads(e.removeprefix("data: ")) for e in events[:-1])


def test_logprobs(served: Served) -> None:
    client = served.client()
    request = {"model": "tiny", "messages": HI, "max_tokens": 6, "seed": 1, "logprobs": True}
    whole = client.chat.completions.create(**request, top_logprobs=3)
    entries = whole.choices[0].logprobs.content
    assert len(entries) == whole.usage.completion_tokens
    assert b"".join(bytes(e.bytes) for e in entries).decode("utf-8", "replace") == (
        whole.choices[0].message.content
    )
    assert all(len(e.top_logprobs) == 3 for e in entries)
    none = client.chat.completions.create(**request, top_logprobs=0)
    assert all(e.top_logprobs == [] for e in none.choices[0].logprobs.content)
    streamed = client.chat.completions.create(**request, top_logprobs=3, stream=True)
    found = [e for c in streamed if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert found == entries


def test_content_parts_and_developer_messages(served: Served) -> None:
    def tokens(messages: list[dict[str, Any]]) -> int:
        answer = served.client().chat.completions.create(
            model="tiny", messages=messages, max_tokens=1
        )
        return answer.usage.prompt_tokens

    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert tokens([{"role": "user", "content": parts}]) == tokens(
        [{"role": "user", "content": "a\nb"}]
    )
    assert tokens([{"role": "developer", "content": "x"}, *HI]) == tokens(
        [{"role": "system", "content": "x"}, *HI]
    )


def test_six_different_requests_at_once_equal_themselves_alone(served: Served) -> None:
    conversations = [[{"role": "user", "content": c * 7}] for c in "abcdef"]
    client = served.client()

    def ask(messages: list[dict[str, str]]) -> str:
        answer = client.chat.completions.create(
            model="tiny", messages=messages, temperature=0, max_tokens=20
        )
        return answer.choices[0].message.content

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, conversations))
    assert together == [direct(served.engine, m, 20) for m in conversations]


# ---------------------------------------------------------------- leaving early


def test_leaving_a_stream_frees_its_place(served: Served) -> None:
    stream = served.client().chat.completions.create(model="tiny", messages=HI, stream=True, **LONG)
    next(iter(stream))
    wait_until(lambda: served.engine.running == 1)
    stream.close()
    wait_until(lambda: served.engine.running == 0)


def test_leaving_without_a_stream_frees_the_place_too(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    data = json.dumps(body(max_tokens=400, ignore_eos=True))
    connection.request("POST", "/v1/chat/completions", data, {"Content-Type": "application/json"})
    wait_until(lambda: served.engine.running == 1)
    connection.close()
    wait_until(lambda: served.engine.running == 0, seconds=2)


def test_too_many_requests_are_told_to_come_back(make_engine: Callable[..., Engine]) -> None:
    with serving(make_engine(max_sequences=1), max_waiting=1) as served:
        client = served.client()
        streams = []
        for _ in range(2):  # one runs, one waits; sent one after the other
            streams.append(
                client.chat.completions.create(model="tiny", messages=HI, stream=True, **LONG)
            )
        wait_until(lambda: served.engine.waiting == 1)
        status, headers, content = served.raw("POST", "/v1/chat/completions", body())
        assert (status, content["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(headers["retry-after"]) > 0
        for stream in streams:
            stream.close()
        wait_until(lambda: served.engine.running == 0)


def test_a_broken_engine_is_reported_not_waited_for(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    with serving(engine) as served:
        stream = served.client().chat.completions.create(
            model="tiny", messages=HI, stream=True, **LONG
        )
        events = iter(stream)
        next(events)

        def broken() -> None:
            raise RuntimeError("out of order")

        monkeypatch.setattr(engine, "step", broken)
        with pytest.raises(openai.APIError, match="out of order"):
            list(events)
        assert served.raw("GET", "/health")[0] == 503
        status, _, content = served.raw("POST", "/v1/chat/completions", body())
        assert (status, content["error"]["code"]) == (503, "unavailable")


def test_one_request_that_breaks_our_code_hurts_no_other(
    make_engine: Callable[..., Engine],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = make_engine()
    encode = engine.encode

    def broken(prompt: Any) -> list[int]:
        if "secret" in str(prompt):
            raise KeyError("secret")
        return encode(prompt)

    monkeypatch.setattr(engine, "encode", broken)
    with serving(engine) as served:
        bad = body(messages=[{"role": "user", "content": "secret"}])
        status, _, content = served.raw("POST", "/v1/chat/completions", bad)
        assert (status, content["error"]["message"]) == (500, "internal error (KeyError)")
        assert served.raw("POST", "/v1/chat/completions", body())[0] == 200
        assert served.raw("GET", "/health")[0] == 200
    assert "KeyError in " in caplog.text
    assert "secret" not in caplog.text


def test_a_broken_route_is_answered_and_logged_without_its_text(
    make_engine: Callable[..., Engine],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: Any) -> None:
        raise KeyError("secret")

    with serving(make_engine()) as served:
        monkeypatch.setattr(served.app.state.host.backend, "complete", broken)
        status, headers, content = served.raw("POST", "/v1/chat/completions", body())
    assert (status, content["error"]["type"]) == (500, "server_error")
    assert "content-security-policy" in headers
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "change", [{"temperature": 1e-40}, {"temperature": 0.0001, "repetition_penalty": 0.01}]
)
def test_extreme_settings_do_not_break_the_engine(served: Served, change: dict) -> None:
    assert served.raw("POST", "/v1/chat/completions", body(**change))[0] == 200
    assert served.raw("GET", "/health")[0] == 200


def test_keep_alives_while_a_prompt_is_computed(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)
    engine = make_engine()
    step = engine.step

    def slow() -> Any:
        time.sleep(0.3)
        return step()

    monkeypatch.setattr(engine, "step", slow)
    with serving(engine) as served:
        content = served.raw("POST", "/v1/chat/completions", body(stream=True, max_tokens=1))[2]
    assert b": keep-alive\n\n" in content
    assert content.endswith(b"data: [DONE]\n\n")


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": []}, "messages", ""),
        ({"messages": None}, "messages", ""),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", ""),
        ({"messages": [{"role": "user"}]}, "messages.0.content", ""),
        ({"temperature": 9}, None, "temperature=9"),
        ({"temperature": "0.5"}, "temperature", ""),
        ({"max_tokens": True}, "max_tokens", ""),
        ({"repetition_penalty": 1e-300}, None, "repetition_penalty=1e-300: must be at least 0.01"),
        ({"stream": "yes"}, "stream", ""),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content.0",
            "'image_url' cannot be read",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", ""),
        ({"functions": [{"name": "f"}]}, "functions", "functions="),
        ({"audio": {"voice": "x"}}, "audio", "audio="),
        ({"n": 17}, "n", "16"),
        ({"n": 0}, "n", ""),
        ({"tools": [{"type": "function"}]}, "tools.0.function", ""),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", ""),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
        ({"logprobs": True, "top_logprobs": 21}, None, "21"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs=true"),
        ({"max_tokens": 0}, None, "max_tokens=0"),
        ({"logit_bias": {"x": 1}}, None, ""),
        ({"stop": [""]}, None, "stop"),
    ],
)
def test_bad_requests_name_the_field(
    served: Served, change: dict, param: str | None, words: str
) -> None:
    status, _, content = served.raw("POST", "/v1/chat/completions", body(**change))
    assert status == 400
    assert set(content["error"]) == {"message", "type", "param", "code"}
    assert content["error"]["type"] == "invalid_request_error"
    assert words in content["error"]["message"]
    if param is not None:
        assert content["error"]["param"].startswith(param)


def test_harmless_unknown_fields_are_ignored(served: Served) -> None:
    assert served.raw("POST", "/v1/chat/completions", body(store=True, user="me", x=1))[0] == 200


def test_other_refusals_have_the_same_shape(served: Served) -> None:
    chat = "/v1/chat/completions"
    cases = [
        ("POST", chat, b"{", 400, "invalid_json"),
        ("POST", chat, body(model="gpt"), 404, "model_not_found"),
        ("GET", chat, None, 405, None),
        ("GET", "/v1/nothing", None, 404, None),
        (
            "POST",
            chat,
            body(messages=[{"role": "user", "content": "x" * 600}]),
            400,
            "context_length_exceeded",
        ),
        ("POST", chat, b'"' + b"x" * (guard.MAX_BODY_BYTES + 1) + b'"', 413, "request_too_large"),
    ]
    for method, path, content, status, code in cases:
        found, _, answer = served.raw(method, path, content)
        assert (found, answer["error"]["code"]) == (status, code), path


def test_overflow_names_both_numbers_in_the_readers_language(served: Served) -> None:
    request = body(messages=[{"role": "user", "content": "x" * 600}])
    english = served.raw("POST", "/v1/chat/completions", request)[2]["error"]["message"]
    chinese = served.raw(
        "POST", "/v1/chat/completions", request, Accept_Language="zh-CN,zh;q=0.9,en;q=0.8"
    )[2]["error"]["message"]
    for text in (english, chinese):
        assert "512" in text
        assert "623" in text
    assert "shorten the prompt" in english
    assert "请缩短提示" in chinese


def test_a_body_without_length_is_limited_while_it_is_read(served: Served) -> None:
    """Chunked transfer gives no length beforehand."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"x" * 65536
        answer = b""
        try:
            for _ in range(guard.MAX_BODY_BYTES // len(piece) + 20):
                connection.sendall(b"10000\r\n" + piece + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            pytest.skip("the connection was reset before the answer could be read")
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_checking_an_address_does_not_wait_for_torch() -> None:
    code = "import hunyuan.serve.run, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- the command

SERVER = """
import sys, time
from pathlib import Path
from conftest import random_transformer
from hunyuan import Engine
from hunyuan.model.config import preset
from hunyuan.serve.app import create_app
from hunyuan.serve.host import ModelHost
from hunyuan.serve.run import run
from hunyuan.tokenizer.load import load_tokenizer
engine = Engine(random_transformer(preset("tiny")), load_tokenizer(Path(sys.argv[1])))
step = engine.step
def slow():
    time.sleep(0.02)
    return step()
engine.step = slow
app = create_app(ModelHost.of_engine(engine, "tiny"))
run(app, "127.0.0.1", 0, on_ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_open_streams_and_the_server(number: int, tokenizer_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tokenizer_folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        stream = client.chat.completions.create(model="tiny", messages=HI, stream=True, **LONG)
        events = iter(stream)
        next(events)
        process.send_signal(number)
        with pytest.raises(openai.APIError, match="the server is stopping"):
            list(events)
        client.close()
        assert process.wait(timeout=10) == 0
        assert process.stdout.read() == "ended\n"
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()


@pytest.mark.weights
def test_serve_answers_with_a_real_model_and_stops_cleanly(tmp_path: Path) -> None:
    """`hunyuan serve` as a person starts it; the smallest model of the catalogue."""
    here = {model.entry.name for model in installed()}
    if "smollm2-135m-instruct" not in here:
        pytest.skip("smollm2-135m-instruct is not pulled: hunyuan pull smollm2-135m-instruct")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hunyuan", "serve", "smollm2-135m-instruct"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--context", "512", "--data", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HUNYUAN_LANG": "en"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"ready: http://127.0.0.1:{port}")
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        answer = client.chat.completions.create(
            model="smollm2-135m-instruct",
            # A question whose answer no rounding can tip: every token leads by 1.7 nats.
            messages=[
                {"role": "user", "content": "Complete the sentence: The capital of France is"}
            ],
            temperature=0,
            max_tokens=20,
        )
        assert "Paris" in answer.choices[0].message.content
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
