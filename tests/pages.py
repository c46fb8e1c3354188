"""The workbench's page in a real Chromium, over real routes and a backend that is told what to say.

`serving_page` serves the application, `opened` opens a page and fails the test if the browser's
console had anything to complain about. The fixtures at the end are taken over by assignment:
``browser, served, page = pages.browser, pages.served, pages.page``.
"""

import asyncio
import re
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedBackend
from serving import listening

from hunyuan.errors import HunyuanError, Language
from hunyuan.serve.app import create_app
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.host import ModelHost
from hunyuan.serve.schema import ChatRequest
from hunyuan.workbench.app import PAGE, workbench_routers
from hunyuan.workbench.folder import DataFolder
from hunyuan.workbench.store import Store

CARDS = (
    ModelCard(id="qwen2.5-coder-0.5b-instruct", created=0, context=8192, parameters=494_032_768),
    ModelCard(id="smollm2-135m-instruct", created=0, context=2048, parameters=134_515_008),
)


class PacedBackend(ScriptedBackend):
    """Says ``answers`` in turn; a list is said piece by piece, an event in it is waited for."""

    def __init__(self) -> None:
        super().__init__(self._whole)
        self.model = CARDS[0]
        self.title = "A short title"
        self.answers: list[str | list[str | threading.Event]] = []
        self.left = threading.Event()
        """Set when a stream is closed before its end."""

    def _whole(self, _: ChatRequest) -> str:
        answer = self.answers.pop(0) if self.answers else "ok"
        if isinstance(answer, str):
            return answer
        return "".join(piece for piece in answer if isinstance(piece, str))

    async def complete(self, request: ChatRequest, lang: Language = "en") -> dict[str, Any]:
        """Only titles are asked for whole."""
        return await ScriptedBackend([self.title]).complete(request, lang)

    async def stream(
        self, request: ChatRequest, lang: Language = "en"
    ) -> AsyncGenerator[dict[str, Any], None]:
        answer = self.answers[0] if self.answers else "ok"
        chunks = super().stream(request, lang)
        if isinstance(answer, str):
            async for chunk in chunks:
                yield chunk
            return
        head = await anext(chunks)
        yield head
        try:
            for piece in answer:
                if isinstance(piece, threading.Event):
                    while not piece.is_set():
                        await asyncio.sleep(0.005)
                else:
                    delta = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
                    yield {**head, "choices": [delta]}
        except BaseException:
            self.left.set()
            raise
        async for chunk in chunks:
            if not chunk["choices"] or chunk["choices"][0]["finish_reason"]:
                yield chunk

    failure: HunyuanError | None = None

    async def close(self) -> None:
        """Nothing runs."""

    def prompts(self) -> list[tuple[str, str]]:
        """The messages of the last request."""
        return [(m.role, str(m.content)) for m in self.requests[-1].messages]


class TwoModels(ModelHost):
    """A host of two models, of which loading the other takes until ``go`` is set."""

    def __init__(self, backend: PacedBackend) -> None:
        super().__init__(lambda _: backend)
        self.go = threading.Event()
        self.go.set()
        self._paced = backend

    def models(self) -> list[ModelCard]:
        return list(CARDS)

    async def load(
        self, name: str, on_progress: Callable[[int, int], None], *, model_id: str | None = None
    ) -> None:
        on_progress(25, 100)
        while not self.go.is_set():
            await asyncio.sleep(0.005)
        known = {card.id: card for card in CARDS}
        self._paced.model = known.get(name) or ModelCard(id=model_id or name, created=0, context=64)


@dataclass
class Served:
    """A server for one test: its address, the model behind it, and what it stores."""

    address: str
    backend: PacedBackend
    host: TwoModels
    store: Store


@contextmanager
def serving_page(folder: Path, *, api_key: str | None = None) -> Iterator[Served]:
    """Serves the whole application over ``folder``."""
    backend = PacedBackend()
    host = TwoModels(backend)
    with DataFolder(folder / "data") as data:
        routers = workbench_routers(host, data)
        app = create_app(host, routers=routers, page=PAGE, api_key=api_key)
        # A second look at the same file, as the application's own store is its own.
        with Store(data.database) as store, listening(app) as address:
            yield Served(address, backend, host, store)


def chromium() -> str:
    """Chromium's path, or a skip."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium on this machine: the page is not tested")
    return found


@contextmanager
def opened(
    browser: Any,
    address: str,
    locale: str = "en-US",
    *,
    expected: str | None = None,
    **options: Any,
) -> Iterator[Any]:
    """A page in a context of its own; its console must stay clean, but for what ``expected`` fits.

    A response that is an error is always in the console, so a test of errors names the status.
    """
    complaints: list[str] = []
    context = browser.new_context(locale=locale, **options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        page.goto(address)
        yield page
        fine = re.compile(expected) if expected else None
        left = [c for c in complaints if not (fine and fine.search(c))]
        assert not left, left
    finally:
        context.close()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for all tests of a file."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The application over an empty folder."""
    with serving_page(tmp_path) as served:
        yield served


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """Its page in English."""
    with opened(browser, served.address) as page:
        yield page


def ask(page: Any, text: str) -> None:
    """Send a question."""
    page.fill(".composer textarea", text)
    page.press(".composer textarea", "Enter")


def answered(page: Any) -> None:
    """Wait until nothing is being written any more."""
    from playwright.sync_api import expect

    expect(page.locator(".composer .send[type=submit]")).to_be_visible()
    expect(page.locator(".message.assistant").last).to_have_attribute("aria-busy", "false")


def last_answer(page: Any) -> Any:
    """The text of the newest answer."""
    return page.locator(".message.assistant .prose").last


def menu(page: Any, button: Any, item: str) -> None:
    """Choose from the menu behind a button."""
    button.click()
    page.get_by_role("menuitem", name=item).click()
