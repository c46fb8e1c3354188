"""An application with the mathematics routes alone, over a scripted backend."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from scripted import ScriptedBackend
from starlette.testclient import TestClient

from hunyuan.maths.worker import MathsWorker
from hunyuan.workbench.maths import maths_router
from hunyuan.workbench.templates import Templates

NOT_MATHS = {"name": "not_mathematics", "arguments": {}}


@contextmanager
def served(backend: ScriptedBackend, **limits: Any) -> Iterator[TestClient]:
    """A client of the routes; the worker has the given limits."""
    app = FastAPI()
    app.include_router(maths_router(lambda: backend, Templates(), MathsWorker(**limits)))
    with TestClient(app) as client:
        yield client


def events(client: TestClient, path: str, body: dict[str, Any], lang: str = "en") -> list[Any]:
    """The events of a stream."""
    reply = client.post(path, json=body, headers={"Accept-Language": lang})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def asked(client: TestClient, question: str, lang: str = "en", **more: Any) -> Any:
    """The last event of a question."""
    return events(client, "/workbench/maths/ask", {"question": question, **more}, lang)[-1]
