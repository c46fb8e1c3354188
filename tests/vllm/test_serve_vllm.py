"""``hunyuan serve --engine vllm`` with a real vLLM: answers, the page, and how it ends.

Not in the default run: every test starts vLLM. ``make vllm`` runs them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import psutil
import pytest
from asking import make_large, vllm_command, vllm_environment

MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def _vllm() -> None:
    vllm_command()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_large(tmp_path_factory.mktemp("served") / "tiny-large")


@contextmanager
def served(model: Path, data: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command and, once it is ready, its address."""
    command = [sys.executable, "-m", "hunyuan", "serve", str(model), "--port", "0"]
    vllm = ["--engine", "vllm", "--vllm", str(vllm_command()), "--vllm-option", "--enforce-eager"]
    process = subprocess.Popen(
        [*command, *vllm, "--dtype", "float32", "--data", str(data), *words],
        env=os.environ | vllm_environment() | {"HUNYUAN_LANG": "en"},
        stdout=subprocess.PIPE,
        stderr=(data.parent / "stderr").open("w"),
        text=True,
    )
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("ready: ")), "")
        assert line, (data.parent / "stderr").read_text()[-4000:]
        yield process, line.split()[1]
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if alive(process) else []
        process.kill()
        process.wait()
        psutil.wait_procs(family, timeout=30)


def alive(process: subprocess.Popen[str]) -> bool:
    return process.poll() is None


def family_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) >= 2, "vLLM's server and its engine"
    return found


def test_answers_are_those_of_our_engine(model: Path, tmp_path: Path) -> None:
    chat = ["generate", str(model), "hi", "--chat", "--dtype", "float32", "--temperature", "0"]
    ours = subprocess.run(
        [sys.executable, "-m", "hunyuan", *chat, "--max-tokens", "12"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    with served(model, tmp_path / "data") as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        asked = {"model": "tiny-large", "messages": MESSAGES, "temperature": 0, "max_tokens": 12}
        answer = client.chat.completions.create(**asked).choices[0].message.content
        assert answer == ours.removesuffix("\n")
        chunks = client.chat.completions.create(**asked, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer
        assert "<title>" in httpx2.get(url).text  # the workbench
        # vLLM itself is behind a key that only its environment holds.
        ports = {
            connection.laddr
            for one in family_of(process)
            for connection in one.net_connections("tcp")
            if connection.status == "LISTEN"
        }
        assert {port.ip for port in ports} <= {"127.0.0.1", "::1"}
        process.terminate()
        assert process.wait(60) == 0


def test_all_end_when_vllm_is_killed(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path / "data") as (process, _):
        family = family_of(process)
        (leader,) = psutil.Process(process.pid).children()
        leader.send_signal(signal.SIGKILL)
        assert process.wait(60) == 1
        _, left = psutil.wait_procs(family, timeout=60)
        assert not left
    assert "vLLM ended with status -9" in (tmp_path / "stderr").read_text()


def test_vllm_ends_when_we_are_killed(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path / "data") as (process, _):
        family = family_of(process)
        process.kill()
        process.wait()
        _, left = psutil.wait_procs(family, timeout=60)
        assert not left


def test_alone_it_wants_a_key(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path / "data", "--vllm-only", "--api-key", "sesame") as (process, url):
        assert httpx2.get(f"{url}/models").status_code == 401
        key = {"Authorization": "Bearer sesame"}
        assert httpx2.get(f"{url}/models", headers=key).json()["data"][0]["id"] == "tiny-large"
        process.terminate()  # a process in the background may ignore SIGINT
        assert process.wait(60) == 0
