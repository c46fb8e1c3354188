"""The chat page in a real browser, over the real server; only the model's words are scripted."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_transformer, write_byte_tokenizer
from test_serve import Served, serving, wait_until

from hunyuan import Engine
from hunyuan.model.config import preset
from hunyuan.tokenizer.load import load_tokenizer

pytestmark = pytest.mark.browser

CODE = "Look:\n```python\nprint('海')\n```\nDone."
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> **a**"


class Script:
    """An engine that says what it is told to, then its end token; None lets it ramble for ever."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.text: str | None = "Hello."
        engine.model.logits = self.logits  # type: ignore[method-assign]
        self._ids: list[int] = []

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(hidden), self.engine.model.config.vocab)
        if self.text is None:
            out[:, self.engine.tokenizer.encode("x")[0]] = 100
            return out
        if not self._ids:
            self._ids = [*self.engine.tokenizer.encode(self.text), 258]
        out[:, self._ids.pop(0)] = 100
        return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: the page is not tested")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
    with playwright.sync_playwright() as play:
        launched = play.chromium.launch(executable_path=chromium, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def make_engine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Engine]:
    folder = write_byte_tokenizer(tmp_path_factory.mktemp("page"))
    return lambda: Engine(random_transformer(preset("tiny")), load_tokenizer(folder))


@pytest.fixture(scope="module")
def served(make_engine: Callable[[], Engine]) -> Iterator[Served]:
    with serving(make_engine()) as running:
        yield running


@pytest.fixture
def script(served: Served) -> Script:
    return Script(served.engine)


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    yield from opened(browser, served, "en-US")


def opened(browser: Any, served: Served, locale: str, **options: Any) -> Iterator[Any]:
    """A page that has never been here; fails on any console error or policy violation."""
    context = browser.new_context(locale=locale, **options)
    made = context.new_page()
    complaints: list[str] = []
    made.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    made.on("pageerror", lambda e: complaints.append(str(e)))
    made.on("dialog", lambda d: complaints.append(d.message) or d.dismiss())
    made.goto(f"http://127.0.0.1:{served.port}/")
    until(made, "document.getElementById('model').textContent === 'tiny'")
    # The page keeps the answer short enough for the tiny model's context of 512.
    made.click("#settings-button")
    made.fill("#max-tokens", "300")
    made.click("#settings-button")
    yield made
    context.close()
    expected = [c for c in complaints if "Failed to load resource" not in c]
    assert not expected


def until(page: Any, expression: str) -> None:
    """Wait for something to be true; Playwright's own way needs eval, which the policy forbids."""
    wait_until(lambda: page.evaluate(expression))


def ask(page: Any, text: str) -> None:
    page.fill("#input", text)
    page.press("#input", "Enter")


def finished(page: Any) -> None:
    until(
        page,
        "document.querySelector('li.assistant:last-child') && !document.querySelector('.writing')",
    )


def test_an_answer_is_streamed_and_counted(page: Any, script: Script) -> None:
    script.text = "你好，world! 😀"
    ask(page, "hi")
    finished(page)
    assert page.inner_text("li.user .body") == "hi"
    assert page.inner_text("li.assistant .body") == "你好，world! 😀"
    assert re.fullmatch(r"\d+ tokens · [\d.]+ tokens/s", page.inner_text("li.assistant .note"))
    assert page.input_value("#input") == ""
    assert not page.is_visible("#empty")


def test_enter_sends_and_shift_enter_does_not(page: Any, script: Script) -> None:
    page.fill("#input", "one")
    page.press("#input", "Shift+Enter")
    page.type("#input", "two")
    assert page.locator("li").count() == 0
    page.press("#input", "Enter")
    finished(page)
    assert page.inner_text("li.user .body") == "one\ntwo"


def test_code_is_a_block_and_can_be_copied(page: Any, script: Script) -> None:
    script.text = CODE
    ask(page, "code")
    finished(page)
    assert page.inner_text("pre code") == "print('海')"
    assert page.inner_text(".code-head span") == "python"
    assert page.locator("li.assistant .body > p").all_inner_texts() == ["Look:", "Done."]


def test_hostile_text_stays_text(page: Any, script: Script) -> None:
    script.text = HOSTILE
    ask(page, "<b>bold</b>")
    finished(page)
    assert page.inner_text("li.assistant .body") == HOSTILE
    assert page.inner_text("li.user .body") == "<b>bold</b>"
    assert page.locator("li img, li script, li b").count() == 0


def test_stop_ends_the_answer_on_the_server_too(page: Any, script: Script, served: Served) -> None:
    script.text = None
    page.click("#settings-button")
    page.fill("#max-tokens", "480")
    ask(page, "go on")
    until(page, "document.querySelector('li.assistant .body').textContent.length > 5")
    assert page.inner_text("#send") == "Stop"
    page.click("#send")
    wait_until(lambda: served.engine.running == 0, seconds=3)
    finished(page)
    assert "Stopped" in page.inner_text("li.assistant .note")
    assert page.inner_text("#send") == "Send"


def test_an_error_is_shown_in_place_and_can_be_retried(page: Any, script: Script) -> None:
    script.text = "fine"
    page.click("#settings-button")
    page.fill("#max-tokens", "9999")
    ask(page, "hi")
    finished(page)
    assert "the context has 512" in page.inner_text("li.assistant .note")
    page.fill("#max-tokens", "50")
    page.click("li.assistant .note button")
    finished(page)
    assert page.inner_text("li.assistant .body") == "fine"
    assert page.locator("li").count() == 2


def test_a_conversation_survives_a_reload_and_can_be_cleared(page: Any, script: Script) -> None:
    script.text = "kept"
    ask(page, "remember")
    finished(page)
    page.reload()
    page.wait_for_selector("li.assistant")
    assert page.inner_text("li.assistant .body") == "kept"
    page.click("#new")
    assert page.locator("li").count() == 0
    page.reload()
    page.wait_for_selector("#examples button")
    assert page.locator("li").count() == 0


def test_a_new_chat_takes_nothing_from_the_answer_it_interrupts(page: Any, script: Script) -> None:
    script.text = None
    ask(page, "old")
    until(page, "document.querySelector('li.assistant .body').textContent.length > 5")
    page.click("#new")
    until(page, "document.getElementById('send').textContent === 'Send'")
    assert page.evaluate("JSON.parse(localStorage.hunyuan).messages") == []
    assert page.locator("li").count() == 0


def test_an_unanswered_question_is_not_sent_with_the_next(page: Any, script: Script) -> None:
    page.click("#settings-button")
    page.fill("#max-tokens", "9999")
    ask(page, "too long an answer")
    finished(page)
    page.fill("#max-tokens", "50")
    script.text = "fine"
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "next")
    assert [m["content"] for m in sent.value.post_data_json["messages"]] == ["next"]
    finished(page)


def test_a_foreign_store_does_not_break_the_page(page: Any, script: Script) -> None:
    for stored in ('{"messages": 5}', '{"messages": [{"role": "user"}]}', "[", '"x"'):
        page.evaluate("text => localStorage.setItem('hunyuan', text)", stored)
        page.reload()
        page.wait_for_selector("#examples button")


def test_enter_that_ends_a_composition_does_not_send(page: Any, script: Script) -> None:
    page.fill("#input", "ni hao")
    for mark in ("isComposing: true", "keyCode: 229"):
        page.evaluate(
            "document.getElementById('input').dispatchEvent(new KeyboardEvent('keydown', "
            f"{{key: 'Enter', bubbles: true, cancelable: true, {mark}}}))"
        )
    assert page.locator("li").count() == 0


def test_code_that_cannot_be_copied_is_selected(page: Any, script: Script) -> None:
    """Browsers give pages on plain HTTP elsewhere no clipboard."""
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    script.text = CODE
    ask(page, "code")
    finished(page)
    page.click(".code-head button")
    until(page, "document.querySelector('.code-head button').textContent.startsWith('Selected')")
    assert page.evaluate("getSelection().toString()") == "print('海')"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a ```b``` c", [["P", "a ```b``` c"]]),
        ("````md\n```\nx\n```\n````\nend", [["DIV", "```\nx\n```"], ["P", "end"]]),
        ("~~~\nopen", [["DIV", "open"]]),
        ("one\n```\n\n```", [["P", "one"], ["DIV", ""]]),
    ],
)
def test_fences_at_any_state_of_writing(page: Any, text: str, parts: list[list[str]]) -> None:
    """Letter by letter and at once end in the same elements."""
    for steps in (range(len(text), len(text) + 1), range(len(text) + 1)):
        found = page.evaluate(
            """async ([texts]) => {
              const { render } = await import('/static/render.js');
              const target = document.createElement('div');
              for (const text of texts) render(target, text, {copy: ''});
              return [...target.children].map(
                (n) => [n.tagName, (n.querySelector('code') ?? n).textContent]);
            }""",
            [[text[:n] for n in steps]],
        )
        assert found == parts


def test_both_languages(browser: Any, served: Served, script: Script) -> None:
    script.text = "好"
    for page in opened(browser, served, "zh-CN"):
        assert page.inner_text("#send") == "发送"
        page.click("#examples button >> nth=1")
        finished(page)
        assert "海水" in page.inner_text("li.user .body")
        assert "个词元" in page.inner_text("li.assistant .note")
        page.click("#language")
        assert page.inner_text("#send") == "Send"
        page.reload()
        page.wait_for_selector("li.assistant")
        assert page.inner_text("#send") == "Send"


def test_both_languages_have_the_same_strings(page: Any) -> None:
    shapes = page.evaluate(
        "import('/static/texts.js').then(({texts}) => Object.values(texts).map("
        "t => Object.entries(t).map(([k, v]) => k + typeof v + Array.isArray(v) * v.length)))"
    )
    assert shapes[0] == shapes[1]


def test_events_survive_any_network_border(page: Any) -> None:
    """The parser is fed one byte at a time, characters and line ends cut in two."""
    found = page.evaluate(
        """async () => {
          const { events } = await import('/static/api.js');
          const text = ': keep-alive\\n\\ndata: {"a": "海😀"}\\n\\n'
            + 'data: {"b":\\r\\ndata: 1}\\r\\n\\r\\ndata: [DONE]\\n\\n';
          const bytes = new TextEncoder().encode(text);
          const stream = new ReadableStream({ start(c) {
            for (const byte of bytes) c.enqueue(new Uint8Array([byte]));
            c.close();
          }});
          const all = [];
          for await (const event of events(stream)) all.push(event);
          return all;
        }"""
    )
    assert found == [{"a": "海😀"}, {"b": 1}]


def test_a_key_is_asked_for_only_when_needed(
    browser: Any, make_engine: Callable[[], Engine]
) -> None:
    engine = make_engine()
    Script(engine)
    with serving(engine, host="0.0.0.0", api_key="secret") as served:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{served.port}/")
        page.wait_for_selector("#key")
        page.click("#settings-button")
        page.fill("#max-tokens", "50")
        ask(page, "hi")
        finished(page)
        page.fill("#key", "secret")
        page.press("#key", "Enter")
        until(page, "document.querySelector('li.assistant .body')?.textContent === 'Hello.'")
        assert not page.is_visible("#key")
        context.close()


def test_it_fits_a_narrow_screen(browser: Any, served: Served, script: Script) -> None:
    script.text = CODE + "w" * 120
    for page in opened(browser, served, "zh-CN", viewport={"width": 360, "height": 640}):
        ask(page, "长" * 30)
        finished(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_page_names_no_other_host() -> None:
    static = Path(__file__).parents[1] / "hunyuan" / "serve" / "static"
    for path in static.iterdir():
        assert "//" not in re.sub(r"^\s*//.*$|\s// .*$", "", path.read_text(), flags=re.MULTILINE)
