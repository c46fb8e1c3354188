"""The chat's routes over a real server and a real disk, with a model that says what it is told."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from scripted import Reply, ScriptedBackend
from serving import app_of, http, listening

from hunyuan.errors import HunyuanError, Language, OverloadedError
from hunyuan.serve.backend import Backend, ModelCard
from hunyuan.serve.schema import ChatRequest
from hunyuan.workbench.answers import Answers
from hunyuan.workbench.app import workbench_routers
from hunyuan.workbench.attachments import document_reader
from hunyuan.workbench.chat import chat_router
from hunyuan.workbench.cleaning import without_overlap
from hunyuan.workbench.folder import DataFolder
from hunyuan.workbench.store import Store
from hunyuan.workbench.templates import Templates
from hunyuan.workbench.titles import clean_title, first_words

Event = dict[str, Any]


class PacedBackend(ScriptedBackend):
    """Asked to count it stops before its last piece until a test lets it go on."""

    def __init__(self, text: str = "one two three four") -> None:
        super().__init__([text])
        self.closed = False
        self.going = threading.Event()

    async def stream(
        self, request: ChatRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        try:
            async for chunk in super().stream(request, lang):
                last = chunk["choices"] and chunk["choices"][0]["finish_reason"]
                while last and request.messages[-1].content == "count" and not self.going.is_set():
                    await asyncio.sleep(0.001)
                yield chunk
        finally:
            self.closed = True


def chat_app(backend: Backend, folder: Path) -> FastAPI:
    store = Store(folder / "workbench.db")
    templates = Templates(folder / "prompts")
    answers = Answers(lambda: backend, store.conversations)
    router = chat_router(
        lambda: backend, store.conversations, templates, answers, document_reader(), uploads=folder
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await answers.close()
        store.close()

    app = app_of(router)
    app.router.lifespan_context = lifespan
    return app


@contextmanager
def chatting(backend: Backend, folder: Path) -> Iterator[httpx2.Client]:
    with listening(chat_app(backend, folder)) as address, http(address) as client:
        yield client


def events(client: httpx2.Client, path: str, body: Any, **options: Any) -> list[Event]:
    with client.stream("POST", path, json=body, **options) as response:
        assert response.status_code == 200, response.read()
        return list(read(response))


def read(response: httpx2.Response) -> Iterator[Event]:
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line[6:])


def new(client: httpx2.Client, **fields: Any) -> str:
    response = client.post("/workbench/chat", json=fields)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def ask(client: httpx2.Client, conversation: str, content: str, **fields: Any) -> list[Event]:
    path = f"/workbench/chat/{conversation}/messages"
    return events(client, path, {"content": content, **fields})


def said(stream: list[Event]) -> str:
    return "".join(event["text"] for event in stream if event["type"] == "delta")


def replies(*texts: Reply) -> ScriptedBackend:
    return ScriptedBackend(texts)


# ---------------------------------------------------------------- asking


def test_a_full_disk_is_not_called_a_long_conversation(tmp_path: Path) -> None:
    backend = replies("unsaid")
    store = Store(tmp_path / "workbench.db")
    answers = Answers(lambda: backend, store.conversations)
    router = chat_router(
        lambda: backend,
        store.conversations,
        Templates(),
        answers,
        document_reader(),
        uploads=tmp_path,
    )
    with store, listening(app_of(router)) as address, http(address) as client:
        with store._database._lock:
            store._database._connection.execute("PRAGMA max_page_count = 1")
        full = client.post("/workbench/chat", json={"system": "x" * 200_000})
        assert (full.status_code, full.json()["error"]["code"]) == (507, "storage_full")
        assert "left on the disk" in full.json()["error"]["message"]


def test_a_question_its_answer_and_what_is_kept(tmp_path: Path) -> None:
    backend = replies("因为盐。")
    with chatting(backend, tmp_path) as client:
        talk = new(client, system="be brief", settings={"temperature": 0.1})
        stream = ask(client, talk, "海水为什么是咸的？")
        assert stream[0]["type"] == "start"
        assert stream[0]["user"]["content"] == "海水为什么是咸的？"
        assert stream[0]["assistant"]["status"] == "streaming"
        assert said(stream) == "因为盐。"
        usage, done = stream[-2:]
        assert (usage["type"], done["type"]) == ("usage", "done")
        assert usage["completion_tokens"] == 4
        assert usage["first_token_seconds"] >= 0
        tree = client.get(f"/workbench/chat/{talk}").json()
        assert tree["messages"][1] == done["message"]
        assert tree["conversation"] == done["conversation"]
        assert done["message"]["model"] == "scripted"
        assert done["message"]["finish_reason"] == "stop"
        sent = backend.requests[0]
        assert sent.temperature == 0.1
        assert [(m.role, m.content) for m in sent.messages] == [
            ("system", "be brief"),
            ("user", "海水为什么是咸的？"),
        ]
        ask(client, talk, "sure?", settings={"temperature": 1.5})
        assert backend.requests[1].temperature == 1.5
        assert len(backend.requests[1].messages) == 4


def test_branches(tmp_path: Path) -> None:
    backend = replies("1", "uno", "I", "2")
    with chatting(backend, tmp_path) as client:
        talk = new(client)
        first = ask(client, talk, "one?")[-1]["message"]
        path = f"/workbench/chat/{talk}/messages"
        again = events(client, f"{path}/{first['id']}/regenerate", {})[-1]["message"]
        assert again["parent"] == first["parent"]
        edited = events(client, f"{path}/{first['parent']}/edit", {"content": "ONE?"})
        assert edited[0]["user"]["parent"] is None
        assert edited[-1]["message"]["content"] == "I"
        head = client.patch(f"/workbench/chat/{talk}", json={"active": first["id"]}).json()
        assert head["active"] == first["id"]
        ask(client, talk, "two?")
        assert [m.content for m in backend.requests[-1].messages] == ["one?", "1", "two?"]
        own = events(client, f"{path}/{first['id']}/edit", {"content": "mine"})
        assert [event["type"] for event in own] == ["start", "done"]
        assert own[-1]["message"]["edited"]
        assert len(backend.requests) == 4, "no model was asked"
        left = client.delete(f"{path}/{first['parent']}").json()
        assert left["messages"] == 2


def test_a_question_must_follow_an_answer(tmp_path: Path) -> None:
    with chatting(replies("ok"), tmp_path) as client:
        talk = new(client)
        question = ask(client, talk, "?")[0]["user"]["id"]
        path = f"/workbench/chat/{talk}/messages"
        refused = client.post(path, json={"content": "!", "parent": question})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "parent")
        empty = client.post(path, json={"content": "  "})
        assert (empty.status_code, empty.json()["error"]["param"]) == (400, "content")
        gone = client.post(path, json={"content": "!", "parent": "nothing"})
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
        lost = client.post("/workbench/chat/nothing/messages", json={"content": "!"})
        assert lost.status_code == 404
        assert ask(client, talk, "and the conversation is free")[-1]["type"] == "done"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_failure_is_said_and_kept(tmp_path: Path, lang: str) -> None:
    full = OverloadedError("64 requests wait", "已有 64 个请求在等待")
    with chatting(replies(full, "ok"), tmp_path) as client:
        client.headers["Accept-Language"] = lang
        talk = new(client)
        stream = ask(client, talk, "?")
        failed = stream[-1]
        assert (failed["type"], failed["status"]) == ("error", 429)
        assert failed["error"]["message"] == full.text("zh" if lang == "zh" else "en")
        assert failed["message"]["status"] == "failed"
        assert failed["message"]["error"]["code"] == "rate_limit_exceeded"
        path = f"/workbench/chat/{talk}/messages/{failed['message']['id']}/regenerate"
        assert events(client, path, {})[-1]["message"]["content"] == "ok"


def test_our_own_mistakes_are_not_quoted(tmp_path: Path) -> None:
    class Broken(ScriptedBackend):
        async def stream(
            self, request: ChatRequest, lang: Language = "en"
        ) -> AsyncGenerator[dict[str, Any], None]:
            raise RuntimeError("the secret of the prompt")
            yield {}

    with chatting(Broken(), tmp_path) as client:
        stream = ask(client, new(client), "?")
        assert stream[-1]["status"] == 500
        assert "secret" not in json.dumps(stream)


# ---------------------------------------------------------------- stopping


def test_closing_the_stream_stops_the_model_and_keeps_the_text(tmp_path: Path) -> None:
    backend = PacedBackend()
    with chatting(backend, tmp_path) as client:
        talk = new(client)
        path = f"/workbench/chat/{talk}/messages"
        with client.stream("POST", path, json={"content": "count"}) as response:
            got = ""
            for event in read(response):
                got += event.get("text", "")
                if got == "one two three four":
                    break
        # The next request waits until the stopped answer is stored.
        second = ask(client, talk, "again")
        stopped = client.get(f"/workbench/chat/{talk}").json()["messages"][1]
        assert stopped["status"] == "stopped"
        assert stopped["content"] == "one two three four"
        assert backend.closed
        assert second[-1]["message"]["status"] == "complete"


def test_leaving_at_the_very_end_loses_nothing(tmp_path: Path) -> None:
    """Whenever the reader goes away, the answer is stored with an end."""
    with chatting(replies("one two three four five six"), tmp_path) as client:
        talk = new(client)
        path = f"/workbench/chat/{talk}/messages"
        for leave_after in range(1, 14):
            with client.stream("POST", path, json={"content": "?"}) as response:
                stream = read(response)
                for _ in range(leave_after):
                    next(stream, None)
        ask(client, talk, "the last waits for the others")
        tree = client.get(f"/workbench/chat/{talk}").json()["messages"]
        answers = [message for message in tree if message["role"] == "assistant"]
        assert len(answers) == 14
        for answer in answers:
            assert answer["status"] in ("stopped", "complete")
            assert "one two three four five six".startswith(answer["content"])


def test_one_answer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hunyuan.workbench.answers._CLAIM_SECONDS", 0.05)
    backend = PacedBackend()
    with chatting(backend, tmp_path) as client:
        talk, other = new(client), new(client)
        path = f"/workbench/chat/{talk}/messages"
        with client.stream("POST", path, json={"content": "count"}) as response:
            stream = read(response)
            assert next(stream)["type"] == "start"
            busy = client.post(path, json={"content": "me too"})
            assert (busy.status_code, busy.json()["error"]["code"]) == (409, "busy")
            backend.going.set()
            assert ask(client, other, "elsewhere")[-1]["type"] == "done"
            assert list(stream)[-1]["type"] == "done"


def test_a_deleted_conversation_does_not_disturb_its_answer(tmp_path: Path) -> None:
    backend = PacedBackend()
    with chatting(backend, tmp_path) as client:
        talk = new(client)
        path = f"/workbench/chat/{talk}/messages"
        with client.stream("POST", path, json={"content": "count"}) as response:
            stream = read(response)
            next(stream)
            assert client.delete(f"/workbench/chat/{talk}").json() == {"deleted": True}
            backend.going.set()
            last = list(stream)[-1]
            assert (last["type"], last["message"]) == ("done", None)


SERVER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_workbench_chat as here
import hunyuan.workbench.answers as answers
answers.SAVE_SECONDS = 0.02
import uvicorn

class Endless(here.ScriptedBackend):
    async def stream(self, request, lang="en"):
        for i in range(100_000):
            yield {"choices": [{"index": 0, "delta": {"content": f"{i} "}, "finish_reason": None}]}
            await asyncio.sleep(0.002)

app = here.chat_app(Endless(), Path(sys.argv[1]))
config = uvicorn.Config(app, port=0, log_level="error")
server = uvicorn.Server(config)

async def main():
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await task

asyncio.run(main())
"""


def test_a_kill_in_the_middle_keeps_what_was_said(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path), here], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        port = int(child.stdout.readline())
        with http(f"http://127.0.0.1:{port}") as client:
            talk = new(client)
            path = f"/workbench/chat/{talk}/messages"
            with client.stream("POST", path, json={"content": "count"}) as response:
                for event in read(response):
                    if event.get("text", "").strip() == "300":
                        os.kill(child.pid, signal.SIGKILL)
                        break
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    with Store(tmp_path / "workbench.db") as store:
        question, answer = store.conversations.messages(talk)
        assert question.content == "count"
        assert answer.status == "interrupted"
        numbers = [int(word) for word in answer.content.split()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 150


# ---------------------------------------------------------------- going on


def test_a_cut_off_answer_goes_on_in_place(tmp_path: Path) -> None:
    backend = replies("The sea is salty because \ufffd", "of what rivers bring.", "of")
    with chatting(backend, tmp_path) as client:
        talk = new(client)
        cut = ask(client, talk, "why?")[-1]["message"]
        path = f"/workbench/chat/{talk}/messages/{cut['id']}/continue"
        stream = events(client, path, {})
        whole = stream[-1]["message"]
        assert whole["id"] == cut["id"]
        # Half a character at the end of what was cut off is dropped.
        assert stream[0]["assistant"]["content"] == "The sea is salty because "
        assert whole["content"] == "The sea is salty because of what rivers bring."
        assert said(stream) == "of what rivers bring."
        assert client.get(f"/workbench/chat/{talk}").json()["messages"][-1] == whole
        request = backend.requests[1]
        assert [m.role for m in request.messages] == ["user", "assistant"]
        assert request.messages[-1].content == "The sea is salty because "
        assert (request.continue_final_message, request.add_generation_prompt) == (True, False)
        request.check()
        question = f"/workbench/chat/{talk}/messages/{cut['parent']}/continue"
        assert client.post(question, json={}).status_code == 400
        again = events(client, f"/workbench/chat/{talk}/messages/{cut['id']}/regenerate", {})
        assert not backend.requests[-1].continue_final_message
        assert again[-1]["message"]["content"] == "of"


def test_a_server_elsewhere_is_asked_to_go_on_in_words(tmp_path: Path) -> None:
    backend = replies("The sea is salty because", "salty because rivers bring salt.")
    backend.model = replace(backend.model, local=False)
    with chatting(backend, tmp_path) as client:
        talk = new(client)
        cut = ask(client, talk, "why?")[-1]["message"]
        path = f"/workbench/chat/{talk}/messages/{cut['id']}/continue"
        stream = events(client, path, {})
        whole = stream[-1]["message"]
        assert whole["id"] == cut["id"]
        assert whole["content"] == "The sea is salty because rivers bring salt."
        assert said(stream) == " rivers bring salt."
        assert "salty because" in str(backend.requests[1].messages[-1].content)
        assert backend.requests[1].continue_final_message is None
        question = f"/workbench/chat/{talk}/messages/{cut['parent']}/continue"
        assert client.post(question, json={}).status_code == 400


@pytest.mark.parametrize(
    ("before", "after", "rest"),
    [
        ("The sea is salty because", "is salty because of salt", " of salt"),
        ("The sea is salty because", " of salt", " of salt"),
        ("The end", "The end of it", "The end of it"),
        ("海水之所以是咸的，是因为河流", "是咸的，是因为河流带来盐", "带来盐"),
    ],
)
def test_repeated_ends_are_dropped(before: str, after: str, rest: str) -> None:
    assert without_overlap(before, after) == rest


# ---------------------------------------------------------------- the context


def small(context: int, *texts: str) -> ScriptedBackend:
    backend = replies(*texts or ("ok",))
    backend.model = ModelCard(id="small", created=0, context=context, parameters=1)
    return backend


def test_what_does_not_fit_is_refused_with_both_numbers_and_nothing_is_stored(
    tmp_path: Path,
) -> None:
    with chatting(small(200), tmp_path) as client:
        talk = new(client)
        path = f"/workbench/chat/{talk}/messages"
        for lang, word in (("en", "shorten"), ("zh", "缩短")):
            refused = client.post(
                path, json={"content": "x" * 500}, headers={"Accept-Language": lang}
            )
            error = refused.json()["error"]
            assert refused.status_code == 400
            assert error["code"] == "context_length_exceeded"
            assert (error["needed"], error["available"]) == (500, 175)
            assert "500" in error["message"]
            assert "175" in error["message"]
            assert word in error["message"]
        trimmed = client.post(path, json={"content": "x" * 500, "overflow": "trim"})
        assert trimmed.status_code == 400, "there is nothing to leave out"
        assert client.get(f"/workbench/chat/{talk}").json()["messages"] == []


def test_trimming_is_reported(tmp_path: Path) -> None:
    backend = small(200)
    with chatting(backend, tmp_path) as client:
        talk = new(client, system="s" * 20)
        for i in range(3):
            ask(client, talk, f"{i}" * 40)
        path = f"/workbench/chat/{talk}/messages"
        assert client.post(path, json={"content": "y" * 100}).status_code == 400
        stream = ask(client, talk, "y" * 100, overflow="trim")
        # 20 + 100 + 2 * 42 > 175 >= 20 + 100 + 42
        assert stream[0]["assistant"]["trimmed"] == {"messages": 4, "tokens": 84}
        assert [str(m.content)[:1] for m in backend.requests[-1].messages] == ["s", "2", "o", "y"]
        kept = client.get(f"/workbench/chat/{talk}").json()["messages"]
        assert len(kept) == 8, "left out of the prompt, not of the conversation"
        again = f"{path}/{stream[-1]['message']['id']}/regenerate"
        assert client.post(again, json={}).status_code == 400
        assert events(client, again, {"overflow": "trim"})[-1]["message"]["trimmed"]


def test_more_messages_than_a_request_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hunyuan.workbench.prompt.MAX_MESSAGES", 4)
    backend = replies("ok")
    with chatting(backend, tmp_path) as client:
        talk = new(client, system="s")
        ask(client, talk, "1")
        path = f"/workbench/chat/{talk}/messages"
        assert len(ask(client, talk, "2")) > 0
        refused = client.post(path, json={"content": "3"}).json()["error"]
        assert (refused["needed"], refused["available"]) == (6, 4)
        stream = ask(client, talk, "3", overflow="trim")
        assert stream[0]["assistant"]["trimmed"] == {"messages": 2, "tokens": 3}
        assert [str(m.content) for m in backend.requests[-1].messages] == ["s", "2", "ok", "3"]


def test_a_wish_for_a_long_answer_takes_room(tmp_path: Path) -> None:
    with chatting(small(200), tmp_path) as client:
        talk = new(client, settings={"max_tokens": 150})
        refused = client.post(f"/workbench/chat/{talk}/messages", json={"content": "x" * 60})
        assert refused.json()["error"]["available"] == 50


def test_counting(tmp_path: Path) -> None:
    with chatting(small(200), tmp_path) as client:
        count = "/workbench/chat/count"
        draft = client.post(count, json={"content": "12345", "system": "abc"}).json()
        assert draft == {"tokens": 8, "context": 200, "left": 167}
        talk = new(client)
        ask(client, talk, "123")
        both = client.post(count, json={"conversation": talk, "content": "4567"}).json()
        assert both["tokens"] == 3 + 2 + 4
        new_branch = {"conversation": talk, "parent": None, "content": "4567"}
        assert client.post(count, json=new_branch).json()["tokens"] == 4


def test_an_upstream_that_cannot_count(tmp_path: Path) -> None:
    class Vague(ScriptedBackend):
        async def count_tokens(self, request: ChatRequest) -> int | None:
            return None

    backend = Vague(["ok"])
    backend.model = ModelCard(id="far", created=0, context=None, local=False)
    with chatting(backend, tmp_path) as client:
        nothing = client.post("/workbench/chat/count", json={"content": "x"}).json()
        assert nothing == {"tokens": None, "context": None, "left": None}
        assert ask(client, new(client), "x" * 9999)[-1]["type"] == "done"


# ---------------------------------------------------------------- titles


def test_titles(tmp_path: Path) -> None:
    broken = HunyuanError("no", "不")
    with chatting(replies("a", "Title: “Salty Sea”.\nmore", "b", broken), tmp_path) as client:
        talk = new(client)
        ask(client, talk, "Why is the sea salty?")
        titled = client.post(f"/workbench/chat/{talk}/title", json={}).json()
        assert titled == {"title": "Salty Sea", "by": "model"}
        assert client.get(f"/workbench/chat/{talk}").json()["conversation"]["title"] == "Salty Sea"
        other = new(client)
        ask(client, other, "海水为什么是咸的？")
        titled = client.post(f"/workbench/chat/{other}/title", json={}).json()
        assert titled == {"title": "海水为什么是咸的？", "by": "words"}


def test_what_is_no_title() -> None:
    assert clean_title("**海水**", "zh") == "海水"
    assert clean_title("The sea", "zh") is None
    assert clean_title("x" * 80, "en") is None
    assert clean_title("  \n", "en") is None
    assert first_words("word " * 30).endswith("word…")
    assert first_words("海" * 50) == "海" * 24 + "…"


# ---------------------------------------------------------------- attachments


def upload(client: httpx2.Client, name: str, data: bytes) -> httpx2.Response:
    headers = {"Content-Type": "application/octet-stream"}
    return client.put(
        "/workbench/chat/attachments", params={"name": name}, content=data, headers=headers
    )


def test_an_attachment_is_quoted_before_the_question(tmp_path: Path) -> None:
    backend = replies("ok")
    with chatting(backend, tmp_path) as client:
        found = upload(client, "笔记.md", "# 海水\n\n盐度 3.5 %".encode())
        assert found.status_code == 201
        note = found.json()
        assert (note["kind"], note["pages"]) == ("markdown", None)
        assert note["tokens"] > note["characters"]
        text = client.get(f"/workbench/chat/attachments/{note['id']}").json()["text"]
        assert "盐度 3.5 %" in text
        talk = new(client)
        count = {"conversation": talk, "attachments": [note["id"]], "content": "?"}
        tokens = client.post("/workbench/chat/count", json=count).json()["tokens"]
        stream = ask(client, talk, "?", attachments=[note["id"]])
        assert stream[0]["user"]["attachments"] == [note]
        sent = str(backend.requests[0].messages[0].content)
        assert sent.endswith("?")
        assert text in sent
        assert tokens == len(sent)
        question = stream[0]["user"]["id"]
        path = f"/workbench/chat/{talk}/messages/{question}/edit"
        assert events(client, path, {"content": "??"})[0]["user"]["attachments"] == [note]
        used = client.delete(f"/workbench/chat/attachments/{note['id']}")
        assert (used.status_code, used.json()["error"]["code"]) == (409, "in_use")


def test_attachments_that_cannot_be_read(tmp_path: Path) -> None:
    with chatting(small(400), tmp_path) as client:
        assert upload(client, "a.exe", b"MZ").status_code == 400
        assert upload(client, "a.pdf", b"%PDF-1.4 nonsense").json()["error"]["code"] == "unreadable"
        large = upload(client, "a.txt", b"word " * 200)
        error = large.json()["error"]
        assert (large.status_code, error["code"]) == (400, "context_length_exceeded")
        assert error["needed"] > error["available"]
        spare = upload(client, "a.txt", b"word").json()["id"]
        assert client.delete(f"/workbench/chat/attachments/{spare}").json() == {"deleted": True}
        assert client.delete(f"/workbench/chat/attachments/{spare}").status_code == 404
        talk = new(client)
        path = f"/workbench/chat/{talk}/messages"
        gone = client.post(path, json={"content": "?", "attachments": [spare]})
        assert gone.status_code == 404
        assert not list(tmp_path.glob(".upload-*")), "no copy is left"


# ---------------------------------------------------------------- all places together


class OneModel:
    """A host of a scripted model."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def models(self) -> list[ModelCard]:
        return [self.backend.model]

    async def load(self, name: str, on_progress: object) -> None:
        raise AssertionError


def test_all_places_over_one_folder(tmp_path: Path) -> None:
    backend = PacedBackend()
    with DataFolder(tmp_path) as folder:
        routers = workbench_routers(OneModel(backend), folder)
        with listening(app_of(*routers)) as address, http(address) as client:
            for place in ("chat", "write", "knowledge", "code", "models", "runs"):
                found = client.get(f"/workbench/{place}")
                assert found.status_code == 200, (place, found.text)
            talk = new(client)
            path = f"/workbench/chat/{talk}/messages"
            with client.stream("POST", path, json={"content": "count"}) as response:
                got = ""
                for event in read(response):
                    got += event.get("text", "")
                    if got == "one two three four":
                        break
        # The server has ended, and what was being written is stored.
        with Store(folder.database) as store:
            answer = store.conversations.messages(talk)[1]
            assert (answer.status, answer.content) == ("stopped", "one two three four")
    DataFolder(tmp_path).close()


# ---------------------------------------------------------------- lists, feedback, files


def test_lists_and_search_over_http(tmp_path: Path) -> None:
    with chatting(replies("因为盐。"), tmp_path) as client:
        for title in ("a", "b", "c"):
            ask(client, new(client, title=title), "海水为什么是咸的？")
        page = client.get("/workbench/chat", params={"limit": 2}).json()
        assert [found["title"] for found in page["conversations"]] == ["c", "b"]
        rest = client.get("/workbench/chat", params={"limit": 2, "after": page["next"]}).json()
        assert [found["title"] for found in rest["conversations"]] == ["a"]
        assert rest["next"] is None
        found = client.get("/workbench/chat", params={"query": "因为盐"}).json()
        match = found["conversations"][0]["match"]
        assert [match["text"][a:b] for a, b in match["spans"]] == ["因为盐"]
        assert client.get("/workbench/chat", params={"after": "x"}).status_code == 400


def test_feedback_becomes_pairs(tmp_path: Path) -> None:
    with chatting(replies("bad", "good"), tmp_path) as client:
        talk = new(client)
        bad = ask(client, talk, "?")[-1]["message"]["id"]
        path = f"/workbench/chat/{talk}/messages"
        good = events(client, f"{path}/{bad}/regenerate", {})[-1]["message"]["id"]
        down = client.put(f"{path}/{bad}/feedback", json={"rating": "down", "comment": "no"})
        assert down.json() == {"feedback": {"rating": "down", "comment": "no"}}
        client.put(f"{path}/{good}/feedback", json={"rating": "up"})
        assert client.get("/workbench/chat/feedback").json() == {"up": 1, "down": 1, "pairs": 1}
        file = client.get("/workbench/chat/feedback/pairs")
        assert "attachment" in file.headers["content-disposition"]
        assert json.loads(file.text) == {
            "messages": [{"role": "user", "content": "?"}],
            "chosen": "good",
            "rejected": "bad",
        }
        none = client.put(f"{path}/{bad}/feedback", json={"rating": None})
        assert none.json() == {"feedback": None}


def test_export_and_import_over_http(tmp_path: Path) -> None:
    with chatting(replies("因为盐。"), tmp_path) as client:
        talk = new(client, title="海水?/..")
        ask(client, talk, "为什么")
        markdown = client.get(f"/workbench/chat/{talk}/export")
        assert "filename*=UTF-8''" in markdown.headers["content-disposition"]
        assert "/" not in markdown.headers["content-disposition"].split("''")[1]
        assert "因为盐。" in markdown.text
        exported = client.get(f"/workbench/chat/{talk}/export", params={"format": "json"})
        copy = client.post("/workbench/chat/import", json=exported.json())
        assert copy.status_code == 201
        assert copy.json()["messages"] == 2
        assert client.post("/workbench/chat/import", json={"messages": []}).status_code in (
            400,
            422,
        )


def test_wrong_fields_are_named(tmp_path: Path) -> None:
    with chatting(replies("ok"), tmp_path) as client:
        for body in ({"settings": {"temperature": 9}}, {"settings": {"warmth": 1}}, {"x": 1}):
            assert client.post("/workbench/chat", json=body).status_code in (400, 422), body
        talk = new(client)
        assert client.patch(f"/workbench/chat/{talk}", json={"title": "t"}).json()["title"] == "t"
        assert client.patch(f"/workbench/chat/{talk}", json={}).json()["title"] == "t"
