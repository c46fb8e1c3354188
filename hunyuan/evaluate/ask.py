"""One conversation to one answer: by the engine here or an OpenAI-compatible server elsewhere."""

import os
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hunyuan.errors import HunyuanError, UsageError
from hunyuan.evaluate.judge import Ask, Messages

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PAUSES = (1.0, 4.0, 15.0, 60.0)
_TIMEOUT = 600.0


def split_server(spec: str) -> tuple[str, str]:
    """``api:URL#MODEL`` -> URL and model; raises `UsageError`."""
    url, mark, name = spec.removeprefix("api:").partition("#")
    if not spec.startswith("api:") or not mark or not name or not urlsplit(url).hostname:
        raise UsageError(
            f"{spec!r}: a server is written api:URL#MODEL, "
            "such as api:http://127.0.0.1:8000/v1#my-model",
            f"{spec!r}：服务应写作 api:URL#模型名，例如 api:http://127.0.0.1:8000/v1#my-model",
        )
    return url.rstrip("/"), name


def is_elsewhere(url: str) -> bool:
    """Whether a server is on another machine, where asking may cost money."""
    return urlsplit(url).hostname not in LOOPBACK


def ask_engine(engine: "Engine", *, max_tokens: int) -> Ask:
    """Greedy answers of a model loaded here."""

    def ask(messages: Messages) -> str:
        return engine.generate(messages, max_tokens=max_tokens, temperature=0).text

    return ask


def ask_server(url: str, model: str, *, max_tokens: int) -> Ask:
    """Answers of a server at temperature 0; its key is ``HUNYUAN_UPSTREAM_KEY``.

    Tries again after a pause where it is overloaded or gone; then raises `HunyuanError`.
    """
    import httpx2

    key = os.environ.get("HUNYUAN_UPSTREAM_KEY")
    client = httpx2.Client(
        timeout=_TIMEOUT, headers={"Authorization": f"Bearer {key}"} if key else {}
    )

    def ask(messages: Messages) -> str:
        body = {
            "model": model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        reason = ""
        for pause in (*_PAUSES, None):
            try:
                answer = client.post(f"{url}/chat/completions", json=body)
                if answer.status_code == 200:
                    return str(answer.json()["choices"][0]["message"]["content"] or "")
                reason = f"{answer.status_code} {answer.text[:120]}"
                if answer.status_code < 500 and answer.status_code != 429:
                    break
            except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
                reason = f"{type(error).__name__}: {error}"
            if pause is not None:
                time.sleep(pause)
        reason = " ".join(reason.split())
        raise HunyuanError(
            f"{url} does not answer ({reason}); correct it and run the same command again, "
            "what was answered is kept",
            f"{url} 没有应答（{reason}）；请排除故障后重新运行同一命令，已有的回答不会丢失",
        )

    return ask
