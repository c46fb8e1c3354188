"""Evaluation through a server that fails: a real server, the real command."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from test_evaluate import small_folder

from hunyuan.cli.main import run
from hunyuan.evaluate import server as serving
from hunyuan.evaluate.run_folder import EvaluationRun
from hunyuan.evaluate.server import Server

pytest.importorskip("lm_eval")


class Answering(ThreadingHTTPServer):
    """Completions whose text and log-probabilities depend on the prompt alone.

    ``trouble`` may answer a request its own way: a status, ``close`` or ``hang``; None is none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.answered: list[str] = []
        self.trouble: Callable[[int], int | str | None] = lambda number: None
        self.logprobs = True
        self.released = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is what the tests are about."""

    @property
    def spec(self) -> str:
        return f"api:http://127.0.0.1:{self.server_port}/v1#model"


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append(body)
        trouble = self.server.trouble(number)
        if trouble == "close":
            self.connection.close()
            return
        if trouble == "hang":
            self.server.released.wait(20)
            return
        status = trouble if isinstance(trouble, int) else 200
        content = json.dumps(self._answer(body) if status == 200 else {"error": "no"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)
        if status == 200:
            with self.server.lock:
                self.server.answered.append(json.dumps(body, sort_keys=True))

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body.get("prompt") or body["messages"][-1]["content"]
        text = f" It is #### {len(prompt) % 80}. Question: more"
        choice: dict[str, Any] = {"index": 0, "text": text, "message": {"content": text}}
        if body.get("echo") and self.server.logprobs:
            words = [*prompt.split(" "), "!"]
            offsets = [len(" ".join(words[:i])) for i in range(len(words))]
            logs = [None, *(-float(len(word)) for word in words[1:])]
            tops = [None, *({"x": log} for log in logs[1:])]
            told = {"text_offset": offsets, "token_logprobs": logs, "top_logprobs": tops}
            choice["logprobs"] = {"tokens": words, **told}
        return {"choices": [choice]}


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as answering:
        Thread(target=answering.serve_forever, args=(0.01,), daemon=True).start()
        yield answering
        answering.released.set()
        answering.shutdown()


@pytest.fixture
def command(server: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(serving, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    data = small_folder(tmp_path / "data")
    fixed = ["--shots", "1", "--timeout", "0.5", "-o", str(tmp_path / "run")]
    return ["eval", server.spec, "gsm8k", "--data", str(data), *fixed]


@pytest.mark.parametrize("trouble", [429, 500, "close", "hang"])
def test_a_server_that_recovers_is_waited_for(
    server: Answering, command: list[str], tmp_path: Path, trouble: int | str
) -> None:
    server.trouble = lambda number: trouble if number in (3, 4, 11) else None
    assert run(command) == 0
    assert len(server.answered) == len(set(server.answered)) == 32
    (result,) = EvaluationRun(tmp_path / "run").results().values()
    assert result.score.items == 32
    item = next(EvaluationRun(tmp_path / "run").items("gsm8k"))
    assert item["output"][0][0].endswith(". "), "what follows a stop string is left out"


def test_a_server_that_is_gone_ends_the_run_and_the_same_command_goes_on(
    server: Answering, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.trouble = lambda number: None if number < 20 else 503
    assert run(command) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "does not answer (503" in told
    assert "run the same command again" in told
    assert EvaluationRun(tmp_path / "run").results() == {}
    before = list(server.answered)
    assert 0 < len(before) < 32
    server.trouble = lambda number: None
    assert run(command) == 0
    assert len(server.answered) == len(set(server.answered)) == 32, "none was asked again"
    other = [*command[:-1], str(tmp_path / "whole")]
    assert run(other) == 0
    items = "items/gsm8k.jsonl"
    whole = (tmp_path / "whole" / items).read_text()
    assert (tmp_path / "run" / items).read_text() == whole


def test_a_request_that_is_refused_is_not_repeated(
    server: Answering, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.trouble = lambda number: 400
    assert run([*command, "--parallel", "1"]) == 1
    # The second may be under way before the first is known to have failed.
    assert len(server.bodies) <= 2
    assert "400" in capsys.readouterr().err


def test_multiple_choice_is_scored_by_the_tokens_of_the_ending(
    server: Answering, command: list[str], tmp_path: Path
) -> None:
    command[2] = "piqa"
    assert run(command) == 0
    item = next(EvaluationRun(tmp_path / "run").items("piqa"))
    # " use a bag" is "use", "a", "bag": the server makes a word's length its log-probability.
    assert item["choices"] == [" use a bag", " use a sieve of water"]
    # The word before an ending reaches to the space that the ending begins with.
    assert [answer[0][0] for answer in item["output"]] == [-7.0, -16.0]
    assert all(answer[0][1] for answer in item["output"])


@pytest.mark.parametrize("chat", [False, True])
def test_multiple_choice_without_logprobs_is_refused(
    server: Answering, command: list[str], chat: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    server.logprobs = False
    command[2] = "piqa"
    assert run([*command, *(["--chat"] if chat else [])]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "offers no log-probabilities" in told
    assert len(server.bodies) <= 8, "it is not asked on and on"


def test_answers_in_a_chat_are_drawn_with_seeds(
    server: Answering, command: list[str], tmp_path: Path
) -> None:
    assert run([*command, "--chat", "--repeats", "3", "--seed", "7"]) == 0
    assert len(server.bodies) == 96
    assert {body["seed"] for body in server.bodies} == {7, 8, 9}
    assert {body["temperature"] for body in server.bodies} == {0.8}
    assert [message["role"] for message in server.bodies[0]["messages"]][-1] == "user"
    (result,) = EvaluationRun(tmp_path / "run").results().values()
    assert result.repeats == 3
    assert list(result.more) == ["pass@1", "pass@2", "pass@3", "maj@3"]


def test_a_server_that_asks_for_a_pause_gets_it(
    server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PAUSES", (100.0,))
    server.trouble = lambda number: 429 if number == 0 else None
    url, _ = serving.split_server(server.spec)
    began = time.monotonic()
    answer = Server(url).post("completions", {"prompt": "x"}, lambda found: found["choices"][0])
    assert answer["index"] == 0
    assert time.monotonic() - began < 50, "Retry-After: 0 stands for the pause"
