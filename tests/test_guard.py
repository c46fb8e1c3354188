"""What the server refuses, and what it lets through: Hosts, origins, keys, sizes, kinds of body."""

import json
import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from fastapi import APIRouter, Request
from hypothesis import given
from hypothesis import strategies as st
from oracle import oracle_engine
from serving import anthropic_client, http, listening, openai_client
from starlette.datastructures import Headers

from hunyuan.cli.main import main as command
from hunyuan.errors import HunyuanError, UsageError
from hunyuan.serve import exposure, guard
from hunyuan.serve.app import create_app
from hunyuan.serve.cross_origin import CrossOrigin, check_origin
from hunyuan.serve.host import ModelHost
from hunyuan.serve.run import check_address

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
FRIEND = "https://tools.example.org"


def uploads() -> APIRouter:
    """Stands for the workbench: counts what it is sent."""
    routes = APIRouter(prefix="/workbench")

    @routes.put("/files")
    async def put(request: Request) -> dict[str, int]:
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return {"size": size}

    @routes.delete("/files")
    async def delete() -> dict[str, bool]:
        return {"deleted": True}

    return routes


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "app.js").write_text("export {}")
    return folder


@pytest.fixture(scope="module")
def make_app(page: Path) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        host = ModelHost.of_engine(oracle_engine(["said"]), "tiny")
        return create_app(host, routers=[uploads()], page=page, **options)

    return make


@pytest.fixture(scope="module")
def local(make_app: Callable[..., Any]) -> Iterator[httpx2.Client]:
    with listening(make_app(origins=[FRIEND])) as address, http(address) as client:
        yield client


@pytest.fixture(scope="module")
def exposed(make_app: Callable[..., Any]) -> Iterator[str]:
    with listening(make_app(address="0.0.0.0", api_key="secret")) as address:
        yield address


# ---------------------------------------------------------------- pages elsewhere


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_foreign_hosts_are_refused(local: httpx2.Client, host: str) -> None:
    answer = local.get("/v1/models", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1234", "[::1]:80"])
def test_names_of_this_machine_are_not(local: httpx2.Client, host: str) -> None:
    assert local.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", f"{FRIEND}.evil.example"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_pages_elsewhere_can_do_nothing(local: httpx2.Client, origin: str, method: str) -> None:
    answer = local.request(method, "/v1/models", headers={"Origin": origin}, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_own_page_is_none_of_them(local: httpx2.Client) -> None:
    own = str(local.base_url).rstrip("/")
    answer = local.post(CHAT, json=ASK, headers={"Origin": own})
    assert answer.json()["choices"][0]["message"]["content"] == "said"
    assert "access-control-allow-origin" not in answer.headers


def test_listed_origins_may_ask_and_read(local: httpx2.Client) -> None:
    asks = {"Origin": FRIEND, "Access-Control-Request-Method": "POST"}
    before = local.options(CHAT, headers=asks)
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == FRIEND
    assert "Authorization" in before.headers["access-control-allow-headers"]
    answer = local.post(CHAT, json=ASK, headers={"Origin": FRIEND})
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert "access-control-allow-credentials" not in answer.headers
    refused = local.post(CHAT, json={}, headers={"Origin": FRIEND})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, FRIEND)


@given(st.text("abc.:/-", max_size=20), st.text("abc.:-", max_size=12))
def test_only_exact_origins_are_friends(origin: str, host: str) -> None:
    foreign = CrossOrigin([FRIEND]).is_foreign(Headers({"origin": origin, "host": host}))
    assert foreign == (origin not in (f"http://{host}", f"https://{host}", FRIEND))


@pytest.mark.parametrize("origin", ["*", "tools.example.org", "https://a.b/", "https://*.b", ""])
def test_origins_must_be_exact(origin: str) -> None:
    with pytest.raises(UsageError, match="exact origin"):
        check_origin(origin)


def test_no_script_from_elsewhere_runs_in_the_page(local: httpx2.Client) -> None:
    for path in ("/v1/models", "/", "/nothing", "/static/app.js"):
        headers = local.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["worker-src"] == "'self'"
        assert policy["img-src"] == "'self' data: blob:"
        assert headers["x-content-type-options"] == "nosniff"


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "path",
    ["/v1/models", CHAT, "/metrics", "/version", "/tokenize", "/openapi.json", "/workbench/files"],
)
def test_everything_asks_for_the_key(exposed: str, path: str) -> None:
    with http(exposed) as client:
        for sent in ({}, {"Authorization": "Bearer secre"}, {"X-API-Key": "secret2"}):
            answer = client.get(path, headers=sent)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        for wrong in ("Basic secret", "secret", "Bearer sécret", "bearer"):
            sent = {"Authorization": wrong.encode()}
            assert client.get(path, headers=sent).status_code == 401
        assert client.get(path, headers={"Authorization": "Bearer secret"}).status_code != 401
        assert client.get(path, headers={"X-API-Key": "secret"}).status_code != 401


@pytest.mark.parametrize("path", ["/", "/health", "/static/app.js"])
def test_the_page_that_asks_for_it_does_not(exposed: str, path: str) -> None:
    with http(exposed) as client:
        assert client.get(path, headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/static/../v1/models", "/static/%2e%2e/%2e%2e/etc/passwd", "//v1/models", "/health/"]
)
def test_no_way_around_the_key(exposed: str, path: str) -> None:
    with socket.create_connection(("127.0.0.1", int(exposed.rsplit(":", 1)[1]))) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert int(answer.split()[1]) in (401, 404, 307)
    assert b"tiny" not in answer
    assert b"root:" not in answer


def test_both_providers_clients_send_it(exposed: str) -> None:
    assert openai_client(exposed, api_key="secret").models.list().data[0].id == "tiny"
    message = {"model": "tiny", "max_tokens": 8, "messages": ASK["messages"]}
    answer = anthropic_client(exposed, api_key="secret").messages.create(**message)
    assert answer.content[0].text == "said"
    with pytest.raises(openai.AuthenticationError):
        openai_client(exposed, api_key="wrong").models.list()
    with pytest.raises(anthropic.AuthenticationError):
        anthropic_client(exposed, api_key="wrong").messages.create(**message)


def test_an_open_address_is_told_about() -> None:
    assert exposure.notices("127.0.0.1", generated_key=None, encrypted=False) == []
    key = exposure.new_key()
    assert len(key) >= 40 != exposure.new_key()
    english = [en for en, _ in exposure.notices("0.0.0.0", generated_key=key, encrypted=False)]
    assert "0.0.0.0" in english[0]
    assert key in english[1]
    assert "without TLS" in english[2]
    assert len(exposure.notices("0.0.0.0", generated_key=None, encrypted=True)) == 1


def test_ports_must_be_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HunyuanError, match=f"127.0.0.1:{port} cannot be listened on"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a MODEL"),
        (["m", "--upstream", "http://x/v1", "--upstream-model", "y"], "not both"),
        (["--upstream", "http://x/v1"], "belong together"),
        (["m", "--tls-cert", __file__], "belong together"),
        (["m", "--cors-origin", "*"], "exact origin"),
    ],
)
def test_contradicting_options(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command(["serve", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


# ---------------------------------------------------------------- TLS

TLS_SERVER = """
import sys
from pathlib import Path
from oracle import oracle_engine
from hunyuan.serve.app import create_app
from hunyuan.serve.host import ModelHost
from hunyuan.serve.run import run
certificate, key = map(Path, sys.argv[1:])
app = create_app(ModelHost.of_engine(oracle_engine(["said"]), "tiny"))
run(app, "127.0.0.1", 0, on_ready=lambda url: print(url, flush=True),
    certificate=certificate, key=key)
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no openssl command here to make a certificate with")
    return folder / "cert.pem", folder / "key.pem"


def test_answers_over_tls(certificate: tuple[Path, Path]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TLS_SERVER, *map(str, certificate)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=str(certificate[0]))
        answer = httpx2.post(f"{url}{CHAT}", json=ASK, verify=trust)
        assert answer.json()["choices"][0]["message"]["content"] == "said"
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    from hunyuan.serve.run import run

    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    app = create_app(ModelHost(lambda _: _nobody()))
    with pytest.raises(UsageError, match="--tls-cert"):
        run(app, "127.0.0.1", 0, on_ready=lambda url: None, certificate=bad, key=bad)


def _nobody() -> Any:
    from hunyuan.serve.upstream import UpstreamBackend

    return UpstreamBackend("http://127.0.0.1:9/v1", "m")


# ---------------------------------------------------------------- bodies


def test_bodies_say_what_they_are(local: httpx2.Client) -> None:
    text = json.dumps(ASK)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        for method, path in (("POST", CHAT), ("PUT", "/workbench/files"), ("DELETE", CHAT)):
            sent = {"Content-Type": kind} if kind else {}
            answer = local.request(method, path, content=text, headers=sent)
            assert answer.status_code == 415, (method, kind)
    raw = {"Content-Type": "application/octet-stream"}
    assert local.post("/workbench/files", content=b"x", headers=raw).status_code == 415
    assert local.put("/v1/files", content=b"x", headers=raw).status_code == 415
    assert local.post(CHAT).status_code == 415
    assert local.delete("/workbench/files").json() == {"deleted": True}


def test_uploads_may_be_larger_than_requests(
    local: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {"Content-Type": "application/octet-stream"}
    large = b"x" * (guard.MAX_BODY_BYTES + 1)
    assert local.put("/workbench/files", content=large, headers=raw).json()["size"] == len(large)
    monkeypatch.setattr(guard, "MAX_UPLOAD_BYTES", 100_000)
    too_large = b"x" * 100_001

    def pieces() -> Iterator[bytes]:
        yield too_large[:60_000]
        yield too_large[60_000:]

    for content in (too_large, pieces()):
        answer = local.put("/workbench/files", content=content, headers=raw)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"


def test_logs_carry_no_text(local: httpx2.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="hunyuan")
    caplog.set_level(logging.INFO)
    secret = {**ASK, "messages": [{"role": "user", "content": "geheim"}]}
    assert local.post(CHAT, json=secret).status_code == 200
    assert local.post(CHAT, json={**secret, "temperature": "geheim"}).status_code == 400
    assert "geheim" not in caplog.text


def test_many_clients_at_once_are_told_apart(local: httpx2.Client) -> None:
    """Refusals and answers of parallel requests do not mix."""
    statuses: dict[int, int] = {}

    def ask(i: int) -> None:
        headers = {"Origin": "https://evil.example"} if i % 2 else {}
        with http(str(local.base_url)) as client:
            statuses[i] = client.post(CHAT, json=ASK, headers=headers).status_code

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {i: 403 if i % 2 else 200 for i in range(12)}
