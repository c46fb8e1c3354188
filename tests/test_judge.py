"""Judged answers: a real server in between, a judge that says what the test wants."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from hunyuan.cli.main import run
from hunyuan.errors import BadDataError, HunyuanError
from hunyuan.evaluate import server as serving
from hunyuan.evaluate.ask import ask_server
from hunyuan.evaluate.judge import FOLDER, rating, read_questions, verdict
from hunyuan.evaluate.server import is_elsewhere


class Judge(ThreadingHTTPServer):
    """Answers chat completions by ``say``; ``asked`` are the prompts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.say: Any = lambda prompt: "an answer"
        self.fail: list[int] = []

    @property
    def spec(self) -> str:
        return f"api:http://127.0.0.1:{self.server_port}/v1#judge"


class _Handler(BaseHTTPRequestHandler):
    server: Judge

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.fail.pop(0) if self.server.fail else 200
        prompt = body["messages"][-1]["content"]
        self.server.asked.append(prompt)
        message = {"role": "assistant", "content": self.server.say(prompt)}
        content = json.dumps({"choices": [{"message": message}]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[Judge]:
    with Judge() as judge:
        Thread(target=judge.serve_forever, args=(0.01,), daemon=True).start()
        yield judge
        judge.shutdown()


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("Good. Rating: [[7]]", 7.0),
        ("评分：[[8.5]]", 8.5),
        ("[[3]] no, [[4]]", 4.0),
        ("[[11]]", None),
        ("Rating: 7", None),
    ],
)
def test_points_are_read_from_the_last_brackets(text: str, points: float | None) -> None:
    assert rating(text) == points


@pytest.mark.parametrize(
    ("text", "swapped", "who"),
    [
        ("[[A]]", False, "first"),
        ("[[A]]", True, "second"),
        ("[[B]]", False, "second"),
        ("[[B]]", True, "first"),
        ("[[A]] at first, then [[C]]", True, "tie"),
        ("A is better", False, "unclear"),
    ],
)
def test_verdicts_are_those_of_the_places_before_the_swap(
    text: str, swapped: bool, who: str
) -> None:
    assert verdict(text, swapped=swapped) == who


def test_the_questions_are_bilingual_and_the_prompts_complete() -> None:
    questions = read_questions()
    assert len({question.id for question in questions}) == len(questions)
    languages = [question.language for question in questions]
    assert languages.count("en") == languages.count("zh")
    for language in ("en", "zh"):
        for kind, names in (("score", "question1 answer1"), ("pair", "first1 second2 question2")):
            text = (FOLDER / f"{kind}.{language}.txt").read_text(encoding="utf-8")
            assert all(f"{{{name}}}" in text for name in names.split())


def test_points_and_resuming(server: Judge, tmp_path: Path, capsys: Any) -> None:
    server.say = lambda prompt: "Rating: [[6]]" if "Rating" in prompt or "评分" in prompt else "hm"
    command = ["judge", server.spec, "--judge", server.spec, "-o", str(tmp_path / "out")]
    assert run([*command, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    questions = len(read_questions())
    assert scores["all"] == {"value": 6.0, "stderr": 0.0, "questions": questions}
    assert len(server.asked) == 3 * questions
    assert run(command) == 0
    assert len(server.asked) == 3 * questions, "nothing is asked twice"


def test_a_judge_that_likes_the_first_place_decides_nothing(
    server: Judge, tmp_path: Path, capsys: Any
) -> None:
    server.say = lambda prompt: "[[A]]" if "[[A]]" in prompt else "hm"
    first, second = str(tmp_path / "1"), str(tmp_path / "2")
    assert run(["judge", server.spec, "--judge", server.spec, "-o", first]) == 0
    capsys.readouterr()
    command = ["judge", server.spec, "--judge", server.spec, "-o", second, "--against", first]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["value"] == 0.5


def test_a_judge_elsewhere_is_not_asked_silently(tmp_path: Path, capsys: Any) -> None:
    command = ["judge", "x", "--judge", "api:https://example.com/v1#big", "-o", str(tmp_path)]
    assert run(command) == 2
    assert "allow it with --yes" in capsys.readouterr().err
    command = ["judge", "api:https://example.com/v1#x", "--judge", "api:http://127.0.0.1:9/v1#j"]
    assert run([*command, "-o", str(tmp_path)]) == 2
    assert "https://example.com/v1 would be asked" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert is_elsewhere("https://127.0.0.1.example.com/v1")
    assert not is_elsewhere("http://[::1]:80/v1")


def test_an_overloaded_server_is_asked_again_and_a_refusing_one_is_not(
    server: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PAUSES", (0.0, 0.0))
    ask = ask_server(server.spec[4:].partition("#")[0], "judge", max_tokens=16)
    server.fail = [503, 429]
    assert ask([{"role": "user", "content": "hello"}]) == "an answer"
    assert len(server.asked) == 3
    server.fail = [401]
    with pytest.raises(HunyuanError, match=r"does not answer \(401"):
        ask([{"role": "user", "content": "hello"}])
    assert len(server.asked) == 4


def test_a_broken_question_is_named(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "turns": ["one"]}')
    with pytest.raises(BadDataError, match=r"questions.jsonl:1: no question"):
        read_questions(tmp_path)
