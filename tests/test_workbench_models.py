"""The routes of code, models, runs and benchmarks over a real server."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from scripted import ScriptedBackend
from serving import app_of, http, listening

from hunyuan.catalogue.entries import Entry, HubFile, Licence, WeightFile, entries
from hunyuan.catalogue.store import store
from hunyuan.errors import UsageError
from hunyuan.report.run import load_run
from hunyuan.sandbox.cpython import CPythonRunner
from hunyuan.sandbox.monty import MontyRunner
from hunyuan.sandbox.result import Limits
from hunyuan.sandbox.walls import Bubblewrap
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.stats import ServingStats
from hunyuan.train.metrics import MetricsFile
from hunyuan.workbench.benchmarks import result_table
from hunyuan.workbench.code import FIELDS, code_router
from hunyuan.workbench.good_for import PLACES, good_for
from hunyuan.workbench.live import Recent
from hunyuan.workbench.models import models_router
from hunyuan.workbench.program_text import program_in, syntax_problem
from hunyuan.workbench.runs import Follower, is_listed_checkpoint, run_folders, runs_router
from hunyuan.workbench.templates import Templates

ZH = {"Accept-Language": "zh-CN"}


@contextmanager
def client(*routers: APIRouter) -> Iterator[Any]:
    with listening(app_of(*routers)) as address, http(address) as opened:
        yield opened


def events(reply: Any) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]


# --- code -----------------------------------------------------------------------------------


def code(backend: ScriptedBackend | None = None, **runners: Any) -> APIRouter:
    chosen = backend or ScriptedBackend()
    return code_router(lambda: chosen, Templates(), **runners)


def test_a_program_runs_and_says_what_became_of_it() -> None:
    with client(code()) as web:
        ran = web.post("/workbench/code/run", json={"code": "print('hi')\n6 * 7"}).json()
        assert (ran["stdout"], ran["value"], ran["error"]) == ("hi\n", "42", None)
        assert ran["runner"] == "monty"
        failed = web.post("/workbench/code/run", json={"code": "x = 1\nx / 0"}, headers=ZH).json()
        assert failed["error"]["line"] == 2
        assert failed["error"]["message"].startswith("第 2 行：ZeroDivisionError")
        assert failed["error"]["detail"] == "division by zero"


def test_going_away_stops_the_program() -> None:
    """With one place for programs, the next one runs at once and not when the first is over."""
    monty = MontyRunner(Limits(seconds=30, memory_bytes=1 << 26), workers=1)
    with client(code(monty=monty)) as web:
        web.post("/workbench/code/run", json={"code": "1"})
        began = time.monotonic()
        with pytest.raises(Exception, match=r"(?i)time"):
            web.post("/workbench/code/run", json={"code": "while True: pass"}, timeout=0.5)
        assert web.post("/workbench/code/run", json={"code": "6 * 7"}).json()["value"] == "42"
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": 1},
        {"code": "1", "runner": "bash"},
        {"code": "1", "file": "/etc/passwd"},
        {"code": "#" * 70_000},
    ],
)
def test_wrong_requests_to_run_are_refused_by_name(body: dict[str, Any]) -> None:
    with client(code()) as web:
        reply = web.post("/workbench/code/run", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]


def test_the_page_is_told_which_layers_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    none = CPythonRunner(choices=[Bubblewrap()])
    with client(code(cpython=none)) as web:
        told = {
            one["name"]: one for one in web.get("/workbench/code", headers=ZH).json()["runners"]
        }
        assert told["monty"]["available"]
        assert all(layer["on"] for layer in told["monty"]["layers"])
        assert not told["cpython"]["available"]
        assert any("未安装" in (layer["missing"] or "") for layer in told["cpython"]["layers"])
        refused = web.post("/workbench/code/run", json={"code": "1", "runner": "cpython"})
        assert refused.status_code == 400
        assert "bubblewrap" in refused.json()["error"]["message"]


def test_the_model_writes_and_nothing_runs() -> None:
    said = "Sure:\n```python\nprint(1)\n```\nThat is it."
    backend = ScriptedBackend([said])
    with client(code(backend)) as web:
        seen = events(web.post("/workbench/code/ask", json={"task": "打印一"}))
    assert "".join(e["text"] for e in seen if e["type"] == "delta") == said
    result = next(e for e in seen if e["type"] == "result")
    assert result == {"type": "result", "code": "print(1)", "problem": None, "cut": False}
    assert seen[-1]["type"] == "done"
    # A task in Chinese is put in Chinese, whatever the page speaks.
    assert "Python 程序" in str(backend.requests[0].messages[0].content)


def test_an_answer_without_a_program_is_an_error_that_says_so() -> None:
    with client(code(ScriptedBackend(["I cannot do that."]))) as web:
        last = events(web.post("/workbench/code/ask", json={"task": "x"}))[-1]
    assert last["type"] == "error"
    assert "without a program" in last["error"]["message"]


def test_explaining_and_fixing() -> None:
    backend = ScriptedBackend(["It prints.", "```python\nprint(2)\n```"])
    with client(code(backend)) as web:
        told = events(web.post("/workbench/code/explain", json={"code": "print(1)"}, headers=ZH))
        assert [e["type"] for e in told][-1] == "done"
        assert "解释" in str(backend.requests[0].messages[-1].content)
        body = {"code": "x = 1\nprin(2)", "error": "line 2: NameError", "line": 2}
        fixed = events(web.post("/workbench/code/fix", json=body))
        same = events(web.post("/workbench/code/fix", json={**body, "code": "print(2)"}))
    assert next(e for e in fixed if e["type"] == "result")["code"] == "print(2)"
    assert "The wrong line: prin(2)" in str(backend.requests[1].messages[-1].content)
    # A line that is not there is not asked about.
    assert "wrong line" not in str(backend.requests[2].messages[-1].content)
    assert "changed nothing" in same[-1]["error"]["message"]


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("a\n```\nx = 1\n```", "x = 1"),
        ("```text\nno\n```\n```py\nx = 1\n```", "x = 1"),
        ("```python\nfor i in x:\n    cut off", "for i in x:\n    cut off"),
        ("print(1)", "print(1)"),
        ("Sorry, I cannot.", ""),
    ],
)
def test_programs_are_found_in_answers(text: str, program: str) -> None:
    assert program_in(text) == program


def test_mistakes_in_grammar_are_seen_before_a_person_runs_them() -> None:
    assert syntax_problem("x = 1") is None
    assert (syntax_problem("x = 1\ny = = 2") or {})["line"] == 2


def test_the_prompts_of_this_place_are_whole() -> None:
    wanted = {("code", name): fields for name, fields in FIELDS.items()}
    assert all(one.error is None for one in Templates().listed(wanted))  # type: ignore[arg-type]


# --- models ---------------------------------------------------------------------------------

CONTENT = hashlib.shake_128(b"a model").digest(4_000_000)
FREE = Licence("MIT", "https://example.org/mit", "free", "自由", must_accept=False)
ENTRY = Entry(
    name="tiny",
    title="Tiny",
    architecture="none",
    parameters=1_000_000,
    context=128,
    languages=("en",),
    licence=FREE,
    download_bytes=len(CONTENT),
    file=WeightFile("tiny.gguf", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),
    sources=(HubFile("o/r", "tiny.gguf"),),
)
BOUND = replace(ENTRY, name="bound", licence=replace(FREE, must_accept=True))


class Host:
    """Loads whatever it is told to, a step at a time."""

    def __init__(self) -> None:
        self.backend = ScriptedBackend()
        self.counters: ServingStats | None = None
        self.loaded: list[str] = []

    def models(self) -> list[ModelCard]:
        return [self.backend.model, ModelCard(id="another", created=0, context=64)]

    def stats(self) -> ServingStats | None:
        return self.counters

    async def load(self, name: str, on_progress: Any, *, model_id: str | None = None) -> None:
        on_progress(1, 2)
        if name == "another":
            raise UsageError("it does not fit", "放不下")
        self.loaded.append(name)
        if model_id is not None:
            self.backend.model = ModelCard(id=model_id, created=0, context=64)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUNYUAN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A hub with one file; ``hold`` bytes are sent before it waits for ``go``."""
    state: dict[str, Any] = {"hold": None, "go": threading.Event(), "asked": []}
    listing = {
        "sha": "c" * 40,
        "siblings": [
            {
                "rfilename": "tiny.gguf",
                "lfs": {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()},
            }
        ],
    }

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            body = json.dumps(listing).encode() if "/api/" in self.path else CONTENT
            start = int((self.headers["Range"] or "bytes=0-")[6:-1])
            if body is CONTENT:
                state["asked"].append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            hold = state["hold"]
            if body is CONTENT and hold is not None:
                self.wfile.write(body[start:hold])
                self.wfile.flush()
                state["go"].wait(20)
                start = hold
            self.wfile.write(body[start:])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield state
        state["go"].set()
        server.shutdown()
        thread.join()


def models(host: Host | None = None) -> APIRouter:
    return models_router(host or Host(), catalogue=[ENTRY, BOUND])


def test_a_model_is_downloaded_listed_and_deleted(hub: dict[str, Any], home: Path) -> None:
    with client(models()) as web:
        before = web.get("/workbench/models").json()
        assert before["current"]["id"] == "scripted"
        assert [m["installed"] for m in before["models"][:2]] == [False, False]
        seen = events(web.post("/workbench/models/download", json={"model": "tiny"}))
        assert seen[-1] == {"type": "done", "model": "tiny"}
        assert all(e["done"] <= len(CONTENT) for e in seen if e.get("phase") == "downloading")
        assert (home / "models/tiny/tiny.gguf").read_bytes() == CONTENT
        assert web.get("/workbench/models").json()["models"][0]["installed"]
        freed = web.request("DELETE", "/workbench/models/tiny").json()
        assert freed["freed_bytes"] >= len(CONTENT)
        assert not (home / "models/tiny").exists()
        assert web.request("DELETE", "/workbench/models/tiny").status_code == 404


def test_a_download_stops_with_its_reader_and_goes_on_later(hub: dict[str, Any]) -> None:
    hub["hold"] = 2_500_000
    with client(models()) as web:
        with web.stream("POST", "/workbench/models/download", json={"model": "tiny"}) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: ") and json.loads(line[6:]).get("done", 0) > 1_000_000:
                    break
        hub["hold"] = None
        hub["go"].set()
        seen = events(web.post("/workbench/models/download", json={"model": "tiny"}))
        assert seen[-1]["type"] == "done", seen[-1]
    assert hub["asked"][0] == 0
    assert (store() / "tiny/tiny.gguf").read_bytes() == CONTENT


def test_a_download_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with client(models()) as web:
        last = events(web.post("/workbench/models/download", json={"model": "tiny"}))[-1]
    assert last["type"] == "error"
    assert "HF_HUB_OFFLINE" in last["error"]["message"]


def test_a_licence_that_binds_is_accepted_first(hub: dict[str, Any]) -> None:
    with client(models()) as web:
        refused = web.post("/workbench/models/download", json={"model": "bound"}, headers=ZH)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["code"] == "licence_not_accepted"
        assert error["licence"]["notice"] == "自由"
        body = {"model": "bound", "accept_licence": True}
        assert events(web.post("/workbench/models/download", json=body))[-1]["type"] == "done"


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "..", "nope", ".", "tiny/../tiny"])
def test_no_name_becomes_a_path(name: str) -> None:
    with client(models()) as web:
        for action in ("download", "load"):
            reply = web.post(f"/workbench/models/{action}", json={"model": name})
            assert reply.status_code == 404, (action, reply.text)
        assert web.request("DELETE", f"/workbench/models/{name}").status_code in (404, 405)


def test_loading_reports_and_fails_in_words(hub: dict[str, Any]) -> None:
    host = Host()
    with client(models(host)) as web:
        assert web.post("/workbench/models/load", json={"model": "tiny"}).status_code == 409
        seen = events(web.post("/workbench/models/load", json={"model": "scripted"}))
        assert seen[-1] == {"type": "done", "model": "scripted"}
        assert host.loaded == ["scripted"]
        last = events(web.post("/workbench/models/load", json={"model": "another"}, headers=ZH))[-1]
        assert last["error"]["message"] == "放不下"


def test_the_model_that_answers_is_not_deleted(hub: dict[str, Any]) -> None:
    host = Host()
    with client(models(host)) as web:
        web.post("/workbench/models/download", json={"model": "tiny"})
        host.backend.model = ModelCard(id="tiny", created=0, context=64)
        assert web.request("DELETE", "/workbench/models/tiny").status_code == 409
        listed = web.get("/workbench/models").json()
        assert listed["current"]["parameters"] == 1_000_000
        assert listed["models"][0]["loaded"]


def counters(generated: int, experts: list[list[int]] | None) -> ServingStats:
    return ServingStats(
        running=1,
        waiting=0,
        cache_used=0.25,
        cache_tokens=4096,
        prompt_tokens=200,
        reused_tokens=50,
        generation_tokens=generated,
        expert_layers=[1, 3] if experts else [],
        expert_tokens=experts,
    )


def test_live_numbers_of_a_mixture() -> None:
    host = Host()
    with client(models(host)) as web:
        assert web.get("/workbench/models/live").json()["engine"] is None
        host.counters = counters(10, [[30, 10], [20, 20]])
        told = web.get("/workbench/models/live").json()
        assert told["engine"]["prefix_hit_share"] == 0.25
        assert told["engine"]["cache_share"] == 0.25
        assert told["experts"]["layer_numbers"] == [1, 3]
        assert told["experts"]["total"] == [[1.5, 0.5], [1.0, 1.0]]


def test_rates_and_loads_lately() -> None:
    now = [0.0]
    recent = Recent(lambda: now[0])
    assert recent.look("m", 0, 0, [[0, 0]])["generation_tokens_per_second"] is None
    now[0] = 2.0
    looked = recent.look("m", 100, 50, [[30, 10]])
    assert looked["generation_tokens_per_second"] == 25
    assert looked["prompt_tokens_per_second"] == 50
    assert looked["experts"]["recent"] == [[1.5, 0.5]]
    # Long after, the traffic of then is not of lately.
    for now[0] in range(3, 200):
        looked = recent.look("m", 100, 50, [[30, 10]])
    assert looked["generation_tokens_per_second"] == 0
    assert looked["experts"]["recent"] is None
    assert looked["experts"]["total"] == [[1.5, 0.5]]
    # Another model, or counters that fell, begin anew.
    assert recent.look("n", 500, 900, [[40, 40]])["generation_tokens_per_second"] is None
    assert recent.look("n", 1, 1, [[1, 1]])["generation_tokens_per_second"] is None


def test_every_size_and_language_has_its_words() -> None:
    for parameters in (None, 1e8, 5e8, 2e9, 1.5e10, 4e11):
        for languages in (None, ("en",), ("zh", "en"), ("zh", "en", "code")):
            words = good_for(None if parameters is None else int(parameters), languages)
            assert set(words) == set(PLACES)
            for one in words.values():
                assert one["en"].isascii()
                assert not one["zh"].isascii()
            if languages == ("en",):
                assert all("English only" in one["en"] for one in words.values())
    small, large = (good_for(n, None)["chat"]["en"] for n in (10**8, 10**11))
    assert small != large


def test_the_packaged_catalogue_is_listed() -> None:
    with client(models_router(Host())) as web:
        listed = web.get("/workbench/models").json()["models"]
    assert [m["id"] for m in listed[: len(entries())]] == [e.name for e in entries()]
    large = next(m for m in listed if m["id"] == "hunyuan-large-instruct")
    assert large["licence"]["must_accept"]
    assert not large["fits_memory"]


# --- runs and benchmarks --------------------------------------------------------------------


def write_run(folder: Path, steps: range, *, start: bool = True) -> None:
    log = MetricsFile(folder / "metrics.jsonl")
    if start:
        log(
            {
                **{"kind": "start", "time": 1.0, "command": "hunyuan train x", "version": "1"},
                **{"parameters": 10, "active_parameters": 10, "resumed_at_step": 0},
                "config": {"experts": 4},
            }
        )
    for step in steps:
        at = {"step": step, "tokens": step * 100, "time": 1.0 + step}
        log(
            {
                **{"kind": "train", **at, "loss": 5 / step, "learning_rate": 0.1, "grad_norm": 1.0},
                **{"tokens_per_second": 100.0, "memory_bytes": 1000, "progress": step / 100},
            }
        )
        if step % 10 == 0:
            layer = {
                **{"max_violation": 0.5, "dead": 1, "router_entropy": 0.9, "load_entropy": 0.8},
                **{"top1_weight": 0.6, "recycled": 0.0, "dropped": 0.0, "balance_loss": 1.0},
            }
            layers = [{"layer": n, "load": [0.0, 1.0, 1.0, 2.0], **layer} for n in (0, 2)]
            log({"kind": "moe", **at, "layers": layers})
            log({"kind": "eval", **at, "name": "held out", "loss": 6 / step})
    log.close()


def test_runs_are_listed_shown_and_followed(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a/b", range(1, 21))
    write_run(tmp_path / "runs/c", range(0))
    with client(runs_router(Host(), tmp_path / "runs", None)) as web:
        listed = {run["name"]: run for run in web.get("/workbench/runs").json()["runs"]}
        assert set(listed) == {"a/b", "c"}
        assert listed["a/b"]["step"] == 20
        assert listed["a/b"]["live"]
        assert listed["c"]["step"] is None
        assert web.get(f"/workbench/runs/{listed['c']['id']}").json()["empty"]

        path = f"/workbench/runs/{listed['a/b']['id']}"
        first = web.get(path).json()
        assert first["train"]["loss"]["step"] == list(range(1, 21))
        assert first["train"]["loss"]["y"][-1] == 0.25
        assert first["evals"]["held out"]["loss"]["y"] == [0.6, 0.3]
        assert first["experts"]["layers"] == [0, 2]
        assert first["experts"]["final"] == [[0.0, 1.0, 1.0, 2.0]] * 2
        assert first["experts"]["figures"]["dead"]["y"] == [2, 2]
        again = web.get(path, params={"after": first["offset"]}).json()
        assert again["changed"] is False
        assert "train" not in again

        write_run(tmp_path / "runs/a/b", range(21, 31), start=False)
        grown = web.get(path, params={"after": first["offset"]}).json()
        assert grown["summary"]["step"] == 30
        assert grown["offset"] > first["offset"]


def test_following_equals_reading_whole(tmp_path: Path) -> None:
    """Whatever the pieces in which a log arrives, torn lines and a replaced file included."""
    folder = tmp_path / "run"
    write_run(folder, range(1, 40))
    whole = (folder / "metrics.jsonl").read_bytes()
    log = tmp_path / "live" / "metrics.jsonl"
    log.parent.mkdir()
    log.write_bytes(b"")
    follower = Follower(log)
    for end in [*range(0, len(whole), 997), len(whole)]:
        with log.open("r+b") as file:
            file.write(whole[:end])
        follower.catch_up()
    wanted = load_run(folder)
    followed = follower.run(folder)
    assert followed.columns["loss"].tolist() == wanted.columns["loss"].tolist()
    assert followed.experts is not None
    assert wanted.experts is not None
    assert followed.experts.load.tolist() == wanted.experts.load.tolist()
    # A shorter file is another run.
    log.write_bytes(whole[: whole.index(b"\n", 600) + 1])
    follower.catch_up()
    assert len(follower.run(folder).columns["loss"]) < 10


@pytest.mark.parametrize("run_id", ["..", "..%2F..%2Fetc", "a/b", "%2Fetc%2Fpasswd", "0" * 16])
def test_runs_are_found_by_id_alone(tmp_path: Path, run_id: str) -> None:
    write_run(tmp_path / "runs/a/b", range(1, 3))
    with client(runs_router(Host(), tmp_path / "runs", None)) as web:
        assert web.get(f"/workbench/runs/{run_id}").status_code == 404


def test_a_link_out_of_the_folder_is_no_run(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere", range(1, 3))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs/file").mkdir()
    (tmp_path / "runs/file/metrics.jsonl").symlink_to(tmp_path / "elsewhere/metrics.jsonl")
    assert run_folders(tmp_path / "runs") == []


def test_a_checkpoint_is_loaded_by_run_and_step(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    write_run(root / "a/b", range(1, 3))
    folder = root / "a/b/checkpoints/step-00000002"
    folder.mkdir(parents=True)
    for other in ("damaged-step-00000001", "step-x"):
        (folder.parent / other).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder.parent / "step-00000003").symlink_to(tmp_path / "elsewhere")
    host = Host()
    with client(runs_router(host, root, None)) as web:
        path = f"/workbench/runs/{web.get('/workbench/runs').json()['runs'][0]['id']}"
        assert web.get(path).json()["checkpoints"] == [2]
        seen = events(web.post(f"{path}/load", json={"step": 2}))
        assert seen[0] == {"type": "progress", "phase": "loading", "done": 1, "total": 2}
        assert seen[-1] == {"type": "done", "model": "a/b@2"}
        assert host.loaded == [str(folder)]
        for wrong in (0, 1, 3, -2):
            assert web.post(f"{path}/load", json={"step": wrong}).status_code == 404
        for body in ({"step": "2"}, {"step": "../.."}, {"step": 2, "path": "/"}, {}):
            assert web.post(f"{path}/load", json=body).status_code in (400, 422)
        unknown = f"/workbench/runs/{'0' * 16}/load"
        assert web.post(unknown, json={"step": 2}).status_code == 404
    assert host.loaded == [str(folder)]
    assert is_listed_checkpoint(root, str(folder))
    for name in (str(folder.parent / "step-00000003"), str(root), "tiny", f"{folder}/../.."):
        assert not is_listed_checkpoint(root, name)


def test_a_damaged_log_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/a", range(1, 3))
    with (tmp_path / "runs/a/metrics.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    with client(runs_router(Host(), tmp_path / "runs", None)) as web:
        run = web.get("/workbench/runs").json()["runs"][0]
        reply = web.get(f"/workbench/runs/{run['id']}")
    assert reply.status_code == 422
    assert "metrics.jsonl:4" in reply.json()["error"]["message"]
    assert str(tmp_path) not in reply.text


def test_a_long_run_makes_a_small_answer(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/long", range(1, 20_001))
    with client(runs_router(Host(), tmp_path / "runs", None)) as web:
        run = web.get("/workbench/runs").json()["runs"][0]
        shown = web.get(f"/workbench/runs/{run['id']}")
    assert len(shown.content) < 600_000
    loss = shown.json()["train"]["loss"]["y"]
    assert len(loss) < 1000
    assert (loss[0], loss[-1]) == (5, 0.00025)


def test_without_folders_there_is_nothing(tmp_path: Path) -> None:
    with client(runs_router(Host(), None, tmp_path / "none")) as web:
        assert web.get("/workbench/runs").json() == {"folder": None, "runs": []}
        assert web.get("/workbench/benchmarks").json() == {"folder": None, "files": []}


def test_result_files_become_tables(tmp_path: Path) -> None:
    values = {
        "model": "m",
        "ratio": {"median": 2.0, "all": [1.0, 2.0, 4.0]},
        "machine": {"threads": 2},
        "speed": {"ours": [1, 2, 3], "theirs": [2]},
        "rows": [{"tokens": 1, "ms": 0.5}, {"tokens": 2, "mb": True}],
        "nested": {"a": {"x": {"y": 1}}, "b": {"x": {"y": 2}}},
    }
    (tmp_path / "one.json").write_text(json.dumps(values))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1, 2, 3]")
    table = result_table(tmp_path / "one.json")
    assert table["facts"] == [["model", "m"], ["ratio", "2 (1–4)"], ["machine / threads", 2]]
    speed, rows, nested = table["tables"]
    assert speed["rows"] == [["ours", "2 (1–3)"], ["theirs", "2"]]
    assert rows["columns"] == ["tokens", "ms", "mb"]
    assert rows["rows"] == [[1, 0.5, None], [2, None, True]]
    assert nested["columns"] == ["", "x / y"]
    assert result_table(tmp_path / "broken.json")["problem"] == "not JSON"
    assert result_table(tmp_path / "list.json")["facts"] == [["results", "2 (1–3)"]]


def test_the_projects_own_results_can_be_read() -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "results"
    with client(runs_router(Host(), None, folder)) as web:
        files = web.get("/workbench/benchmarks").json()["files"]
    assert len(files) >= 5
    for file in files:
        assert file["problem"] is None
        assert file["facts"]
        for table in file["tables"]:
            assert all(len(row) == len(table["columns"]) for row in table["rows"])
