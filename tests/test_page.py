"""The chat page in a real Chromium, over a stand-in server whose every byte is scripted.

One test at the end joins the page to the real server.
"""

import json
import re
import select
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: the page is not tested"
)
expect = sync_api.expect

pytestmark = pytest.mark.browser

STATIC = Path(__file__).parents[1] / "hunyuan" / "serve" / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'"
)
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

CODE = "Look:\n```python\nprint('海')\n```\nDone."
HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script> [a](javascript:alert(3)) **b**\n"
    "```<b>\n</code></pre><svg onload=alert(4)>\n```"
)

Piece = bytes | float | threading.Event
"""What an answer is made of: bytes to send at once, seconds to wait, or a word to wait for."""


def event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def delta(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def ending(tokens: int = 7, finish: str = "stop") -> bytes:
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}
    return last + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def saying(text: str, **options: Any) -> list[Piece]:
    return [delta(text), ending(**options)]


def refusal(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": None, "code": None}}


class StandIn(ThreadingHTTPServer):
    """Serves the page's files; each answer takes the next script, each request is kept."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/"
        self.reset()

    def reset(self) -> None:
        self.scripts: list[list[Piece] | tuple[int, dict[str, Any]]] = []
        self.asked: list[dict[str, Any]] = []
        self.languages: list[str] = []
        self.key: str | None = None
        self.left = threading.Event()
        """Set when the browser closes a stream before its end."""

    def turns(self) -> list[tuple[str, str]]:
        return [(m["role"], m["content"]) for m in self.asked[-1]["messages"]]


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", CSP)
        self.end_headers()
        self.wfile.write(body)

    def json(self, status: int, value: dict[str, Any]) -> None:
        self.answer(status, "application/json", json.dumps(value).encode())

    def refused(self) -> bool:
        key = self.server.key
        # http.server reads headers as Latin-1; the page sends the bytes of UTF-8.
        given = self.headers.get("Authorization", "").encode("latin-1").decode()
        if key is None or given == f"Bearer {key}":
            return False
        self.json(401, refusal("the key is missing or wrong"))
        return True

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.refused() or self.json(200, {"data": [{"id": "tiny"}]})
            return
        name = "index.html" if self.path == "/" else self.path.removeprefix("/static/")
        path = STATIC / name
        self.answer(200, KINDS[path.suffix], path.read_bytes())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused():
            return
        self.server.asked.append(body)
        self.server.languages.append(self.headers["Accept-Language"])
        script = self.server.scripts.pop(0)
        if isinstance(script, tuple):
            self.json(*script)
            return
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in script:
            if isinstance(piece, bytes):
                self.wfile.write(piece)
            elif isinstance(piece, threading.Event):
                assert piece.wait(5)
            # The request has been read: what becomes readable now is the end of the connection.
            elif select.select([self.connection], [], [], piece)[0]:
                self.server.left.set()
                return


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: the page is not tested")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
    with sync_api.sync_playwright() as play:
        launched = play.chromium.launch(executable_path=chromium, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with StandIn() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def server(stand_in: StandIn) -> StandIn:
    stand_in.reset()
    return stand_in


@contextmanager
def watched(page: Any) -> Iterator[None]:
    """Any console error, policy violation or dialog fails the test."""
    complaints: list[str] = []
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("dialog", lambda d: complaints.append(d.message) or d.dismiss())
    yield
    # Chromium reports every 4xx and every cut connection; the page shows them to the reader.
    assert not [c for c in complaints if not c.startswith("Failed to load resource")]


@contextmanager
def opened(browser: Any, address: str, locale: str = "en-US", **options: Any) -> Iterator[Any]:
    """A page in a browser profile of its own."""
    context = browser.new_context(locale=locale, **options)
    context.set_default_timeout(5000)
    page = context.new_page()
    try:
        with watched(page):
            page.goto(address)
            yield page
    finally:
        context.close()


@pytest.fixture(scope="module")
def tab(browser: Any, stand_in: StandIn) -> Iterator[Any]:
    """One tab for all tests in English that leave no trace outside the page's own memory."""
    with opened(browser, stand_in.address) as made:
        yield made


@pytest.fixture
def page(tab: Any, server: StandIn) -> Iterator[Any]:
    """The page as on a first visit."""
    tab.goto(server.address + "static/style.css")  # no script runs there
    tab.evaluate("localStorage.clear(); sessionStorage.clear()")
    with watched(tab):
        tab.goto(server.address)
        yield tab


def until(true: Callable[[], Any], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def shows(locator: Any, text: str) -> None:
    """Wait for the text; Playwright's own waiting looks too rarely for tests as short as these."""
    seen: list[str] = []

    def found() -> bool:
        seen[:] = locator.all_inner_texts()
        return seen == [text]

    try:
        until(found)
    except AssertionError:
        assert seen == [text]
        raise


def ask(page: Any, text: str) -> None:
    page.fill("#input", text)
    page.press("#input", "Enter")


def last_body(page: Any) -> Any:
    return page.locator("li.assistant:last-child .body")


def last_note(page: Any) -> Any:
    return page.locator("li.assistant:last-child .note")


def finished(page: Any) -> None:
    """The last message is an answer that has its end."""
    until(page.locator("li.assistant:last-child[aria-busy=false]").count)


def stored(page: Any) -> list[dict[str, Any]]:
    return page.evaluate("JSON.parse(localStorage.hunyuan).messages")  # type: ignore[no-any-return]


# ---- Streaming


def test_an_answer_is_streamed_and_counted(page: Any, server: StandIn) -> None:
    rest = threading.Event()
    server.scripts = [[delta("你好，"), rest, delta("world! 😀"), 0.05, ending(1001)]]
    asked_at = time.monotonic()
    ask(page, "hi")
    shows(last_body(page), "你好，")
    assert page.locator("li.writing").get_attribute("aria-busy") == "true"
    rest.set()
    shows(last_body(page), "你好，world! 😀")
    finished(page)
    count, rate = re.findall(r"[\d.]+", last_note(page).inner_text())
    assert last_note(page).inner_text() == f"{count} tokens · {rate} tokens/s"
    assert count == "1001"
    assert 1000 / (time.monotonic() - asked_at) < float(rate) < 1000 / 0.05
    assert page.inner_text("li.user .body") == "hi"
    assert page.input_value("#input") == ""
    assert page.inner_text("#model") == "tiny"
    assert not page.is_visible("#empty")
    assert not page.is_visible("#key")
    (asked,) = server.asked
    assert asked == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.7,
        "max_tokens": 1024,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_network_borders_mean_nothing(page: Any, server: StandIn) -> None:
    """Borders inside characters, line ends and field names, with keep-alives between."""
    whole = b": keep-alive\n\n" + delta("海😀\n") + b": keep-alive\r\n\r\n" + delta("```py\nx\n")
    whole = (whole + delta("```\n好")).replace(b"\n", b"\r\n")
    pieces: list[Piece] = []
    for at in range(0, len(whole), 3):
        pieces += [whole[at : at + 3], 0.001]
    server.scripts = [[*pieces, ending()]]
    ask(page, "hi")
    finished(page)
    assert page.locator("li.assistant .body > p").all_inner_texts() == ["海😀", "好"]
    assert page.inner_text("pre code") == "x"


def test_events_byte_by_byte(page: Any) -> None:
    text = ': keep-alive\n\ndata: {"a": "海😀"}\n\ndata:{"b":\ndata: 1}\n\ndata: [DONE]\n\n'
    for line_end in ("\n", "\r\n", "\r"):
        found = page.evaluate(
            """async (text) => {
              const { events } = await import('/static/api.js');
              const bytes = new TextEncoder().encode(text);
              const stream = new ReadableStream({ start(c) {
                for (const byte of bytes) c.enqueue(new Uint8Array([byte]));
                c.close();
              }});
              const all = [];
              for await (const event of events(stream)) all.push(event);
              return all;
            }""",
            text.replace("\n", line_end),
        )
        assert found == [{"a": "海😀"}, {"b": 1}]


def test_stop_ends_the_request(page: Any, server: StandIn) -> None:
    server.scripts = [[delta("one "), delta("two"), 10.0, ending()], saying("again")]
    ask(page, "go on")
    shows(last_body(page), "one two")
    assert page.inner_text("#send") == "Stop"
    page.fill("#input", "a draft")
    page.press("#input", "Enter")  # waits: the draft is kept
    assert page.input_value("#input") == "a draft"
    page.click("#send")
    assert server.left.wait(3)
    shows(last_note(page), "Stopped")
    assert page.inner_text("#send") == "Send"
    page.click("#send")
    finished(page)
    assert server.turns() == [("user", "go on"), ("assistant", "one two"), ("user", "a draft")]


def test_escape_stops_too(page: Any, server: StandIn) -> None:
    server.scripts = [[delta("one"), 10.0]]
    ask(page, "go on")
    shows(last_body(page), "one")
    page.keyboard.press("Escape")
    assert server.left.wait(3)
    shows(last_note(page), "Stopped")


def test_an_answer_cut_short_says_so(page: Any, server: StandIn) -> None:
    server.scripts = [saying("and then", tokens=1, finish="length")]
    ask(page, "hi")
    finished(page)
    assert last_note(page).inner_text() == "1 token · cut off at the longest answer set"


# ---- What goes wrong


def test_an_error_before_the_stream_can_be_retried(page: Any, server: StandIn) -> None:
    server.scripts = [(400, refusal("the context has 512")), saying("fine")]
    ask(page, "hi")
    shows(last_note(page), "the context has 512")
    page.click(".retry")
    shows(last_body(page), "fine")
    finished(page)
    assert page.locator("li").count() == 2
    assert server.turns() == [("user", "hi")]


def test_an_error_in_the_stream_keeps_what_was_said(page: Any, server: StandIn) -> None:
    broken = "The connection ended before the answer did."
    for i, (last, note) in enumerate(
        [
            (event(refusal("the engine died")), "the engine died"),
            (b"", broken),
            (b"data: {not json\n\n", broken),
        ]
    ):
        server.scripts = [[delta(f"half of {i}"), 0.02, last, *([10.0] if b"not" in last else [])]]
        ask(page, "hi")
        shows(last_body(page), f"half of {i}")
        shows(last_note(page), note)
    assert server.left.wait(3)  # who makes no sense is not listened to any longer
    page.reload()
    shows(last_note(page), broken)
    shows(last_body(page), "half of 2")
    assert page.is_visible("li:last-child .retry")
    assert page.locator(".retry:visible").count() == 1


def test_a_server_that_is_gone(browser: Any, server: StandIn) -> None:
    with opened(browser, server.address) as page:
        shows(page.locator("#model"), "tiny")
        page.context.set_offline(True)
        ask(page, "hi")
        shows(last_note(page), "The server cannot be reached. Is it still running?")


def test_an_unanswered_question_is_not_sent_with_the_next(page: Any, server: StandIn) -> None:
    server.scripts = [(500, refusal("no")), saying("fine")]
    ask(page, "unlucky")
    shows(last_note(page), "no")
    ask(page, "next")
    finished(page)
    assert server.turns() == [("user", "next")]


def test_a_key_is_asked_for_only_when_needed(browser: Any, server: StandIn) -> None:
    server.key = "密钥-1"
    server.scripts = [saying("Hello.")]
    with opened(browser, server.address) as page:
        page.wait_for_selector("#key")
        ask(page, "hi")
        shows(last_note(page), "the key is missing or wrong")
        page.fill("#key", "wrong")
        page.press("#key", "Enter")
        expect(page.locator("#key")).to_be_focused()
        shows(last_note(page), "the key is missing or wrong")
        page.fill("#key", server.key)
        page.press("#key", "Enter")
        shows(last_body(page), "Hello.")
        assert not page.is_visible("#key")
        page.reload()
        shows(page.locator("#model"), "tiny")
        assert not page.is_visible("#key")
        assert server.key not in page.evaluate("localStorage.hunyuan")
    with opened(browser, server.address) as page:
        page.wait_for_selector("#key")


# ---- What is shown


def test_hostile_text_stays_text(page: Any, server: StandIn) -> None:
    server.scripts = [[delta(HOSTILE[:9]), 0.02, delta(HOSTILE[9:]), ending()]]
    ask(page, "<b>bold</b>")
    finished(page)
    before, code = HOSTILE.split("\n```<b>\n")
    assert page.inner_text("li.assistant .body > p") == before
    assert page.inner_text("pre code") == code.removesuffix("\n```")
    assert page.inner_text(".code-head span") == "<b>"
    assert page.inner_text("li.user .body") == "<b>bold</b>"
    assert page.locator("li").locator("img, script, svg, a, b").count() == 0


def test_code_is_a_block_that_can_be_copied(browser: Any, server: StandIn) -> None:
    server.scripts = [[p for c in CODE for p in (delta(c), 0.002)] + [ending()]]
    with opened(browser, server.address, permissions=["clipboard-read", "clipboard-write"]) as page:
        ask(page, "code")
        finished(page)
        assert page.inner_text("pre code") == "print('海')"
        assert page.inner_text(".code-head span") == "python"
        assert page.locator("li.assistant .body > p").all_inner_texts() == ["Look:", "Done."]
        for button, text in ((".code-head .copy", "print('海')"), (".foot .copy", CODE)):
            page.click(button)
            shows(page.locator(button), "Copied")
            assert page.evaluate("navigator.clipboard.readText()") == text


def test_code_that_cannot_be_copied_is_selected(page: Any, server: StandIn) -> None:
    """Browsers give pages on plain HTTP from another machine no clipboard."""
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    server.scripts = [saying(CODE)]
    ask(page, "code")
    finished(page)
    page.click(".code-head .copy")
    shows(page.locator(".code-head .copy"), "Selected: press Ctrl+C")
    assert page.evaluate("getSelection().toString()") == "print('海')"


FENCES = [
    ("a ```b``` c", [["P", "a ```b``` c"]]),
    ("````md\n```\nx\n```\n````\nend", [["DIV", "```\nx\n```"], ["P", "end"]]),
    ("~~~\nopen", [["DIV", "open"]]),
    ("```\n~~~\n``` x\n```", [["DIV", "~~~\n``` x"]]),
    ("one\n```\n\n```", [["P", "one"], ["DIV", ""]]),
]


def test_fences_at_any_state_of_writing(page: Any) -> None:
    """Letter by letter and at once end in the same elements."""
    for text, parts in FENCES:
        for first in (0, len(text)):
            found = page.evaluate(
                """async (texts) => {
                  const { render } = await import('/static/render.js');
                  const target = document.createElement('div');
                  for (const text of texts) render(target, text);
                  return [...target.children].map(
                    (n) => [n.tagName, (n.querySelector('code') ?? n).textContent]);
                }""",
                [text[:n] for n in range(first, len(text) + 1)],
            )
            assert found == parts


def test_only_a_reader_at_the_end_is_taken_along(page: Any, server: StandIn) -> None:
    lines = "line\n" * 80
    more, rest = threading.Event(), threading.Event()
    server.scripts = [[delta(lines), more, delta(lines), rest, delta(lines), ending()]]
    box = "document.getElementById('scroll')"

    def below() -> float:
        gap: float = page.evaluate(f"{box}.scrollHeight - {box}.scrollTop - {box}.clientHeight")
        return gap

    def height() -> float:
        whole: float = page.evaluate(f"{box}.scrollHeight")
        return whole

    ask(page, "long")
    until(lambda: height() > 1000)
    assert below() < 2
    first = height()
    more.set()
    until(lambda: height() > first + 1000)
    assert below() < 2
    page.evaluate(f"{box}.scrollTo(0, 100)")
    until(lambda: page.is_visible("#latest"))
    rest.set()
    finished(page)
    assert page.evaluate(f"{box}.scrollTop") == 100
    page.click("#latest")
    until(lambda: below() < 2)
    until(lambda: not page.is_visible("#latest"))


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_it_fits_a_narrow_screen(browser: Any, server: StandIn, locale: str) -> None:
    server.scripts = [saying(CODE + "w" * 300 + "\n```\n" + "c" * 300)]
    size = {"width": 360, "height": 640}
    with opened(browser, server.address, locale, viewport=size) as page:
        wide = "document.documentElement.scrollWidth"
        assert page.evaluate(wide) <= 360
        page.click("#settings-button")
        ask(page, "长" * 30 + "u" * 300)
        finished(page)
        assert page.evaluate(wide) <= 360
        assert page.evaluate("document.getElementById('scroll').scrollWidth") <= 360
        pre = page.locator("pre").last
        assert pre.evaluate("(n) => { n.scrollTo(99, 0); return n.scrollLeft; }") == 99
        for button in ("#new", "#settings-button", "#language", "#send"):
            box = page.locator(button).bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
            assert box["y"] + box["height"] <= 640


# ---- Keys, languages, memory


def test_enter_sends_and_shift_enter_does_not(page: Any, server: StandIn) -> None:
    server.scripts = [saying("ok")]
    page.fill("#input", "one")
    page.press("#input", "Shift+Enter")
    page.type("#input", "two")
    assert page.locator("li").count() == 0
    page.press("#input", "Enter")
    finished(page)
    assert page.inner_text("li.user .body") == "one\ntwo"


def test_neither_nothing_nor_a_composition_is_sent(page: Any) -> None:
    ask(page, " \n ")
    page.click("#send")
    assert page.locator("li").count() == 0
    page.fill("#input", "ni hao")
    for mark in ("isComposing: true", "keyCode: 229"):
        page.evaluate(
            "document.getElementById('input').dispatchEvent(new KeyboardEvent('keydown', "
            f"{{key: 'Enter', bubbles: true, cancelable: true, {mark}}}))"
        )
    assert page.locator("li").count() == 0


def test_everything_can_be_done_with_the_keyboard(page: Any, server: StandIn) -> None:
    server.scripts = [saying("ok")]
    expect(page.locator("#input")).to_be_focused()
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert [r for r in reached if r != "BODY"][:8] == [
        *("send", "new", "settings-button", "language", "scroll"),
        *("BUTTON", "BUTTON", "BUTTON"),
    ]
    page.locator(".examples button").first.focus()
    page.keyboard.press("Enter")
    finished(page)
    assert server.turns()[0][1].startswith("Write a short, friendly email")


def test_every_control_has_a_name_in_both_languages(page: Any, server: StandIn) -> None:
    server.scripts = [saying(CODE)]
    ask(page, "hi")
    finished(page)
    page.click("#settings-button")
    for _ in range(2):
        page.click("#language")
        for control in page.locator("button, input, textarea").all():
            name = control.evaluate(
                "n => n.textContent || n.ariaLabel || n.labels?.[0]?.textContent"
            )
            assert name, control.get_attribute("id")


def test_the_language_can_be_switched_even_while_an_answer_is_written(
    browser: Any, server: StandIn
) -> None:
    rest = threading.Event()
    server.scripts = [[delta("好"), rest, delta("的"), ending(2)], (400, refusal("坏"))]
    with opened(browser, server.address, "zh-CN") as page:
        shows(page.locator("#send"), "发送")
        page.click(".examples button >> nth=1")
        shows(last_body(page), "好")
        assert "海水" in page.inner_text("li.user .body")
        page.click("#language")
        assert page.inner_text("#send") == "Stop"
        rest.set()
        shows(last_body(page), "好的")
        finished(page)
        assert last_note(page).inner_text().startswith("2 tokens")
        page.click("#language")
        assert last_note(page).inner_text().startswith("2 个词元")
        assert page.get_attribute("html", "lang") == "zh-CN"
        page.click("#language")
        page.reload()
        shows(page.locator("#send"), "Send")
        assert page.get_attribute("html", "lang") == "en"
        ask(page, "x")
        finished(page)
    assert server.languages == ["zh", "en"]


def test_both_languages_have_the_same_strings(page: Any) -> None:
    english, chinese = page.evaluate(
        """import('/static/texts.js').then(({texts}) => [texts.en, texts.zh].map((t) =>
          Object.entries(t).map(([k, v]) => [k, typeof v === 'function' ? v(2, '1') : v])))"""
    )
    assert [k for k, _ in english] == [k for k, _ in chinese]
    for name, text in english:
        assert (
            text.isascii()
            or name == "otherLanguage"
            or set(re.sub("[ -~]", "", text)) <= set("…↓·")
        ), name
    for name, text in chinese:
        assert re.search("[\u4e00-\u9fff]", text) or name == "otherLanguage", name


def test_every_string_is_used_and_exists(page: Any) -> None:
    sources = "".join(p.read_text(encoding="utf-8") for p in STATIC.iterdir())
    asked = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', sources))
    names = set(
        page.evaluate("import('/static/texts.js').then(({texts}) => Object.keys(texts.en))")
    )
    assert asked <= names
    for name in names:
        used = len(re.findall(rf"\b{name}\b", sources))
        assert used > 2, f"{name} is only defined"


def test_settings_are_used_and_remembered(page: Any, server: StandIn) -> None:
    server.scripts = [saying("ok")]
    page.click("#settings-button")
    assert page.get_attribute("#settings-button", "aria-expanded") == "true"
    page.fill("#system", "Be brief.")
    page.fill("#temperature", "9")
    page.press("#temperature", "Tab")
    assert page.input_value("#temperature") == "2"
    page.fill("#max-tokens", "")
    page.press("#max-tokens", "Tab")
    assert page.input_value("#max-tokens") == "1024"
    page.fill("#max-tokens", "50.5")
    page.reload()
    page.click("#settings-button")
    assert page.input_value("#system") == "Be brief."
    ask(page, "hi")
    finished(page)
    assert server.turns() == [("system", "Be brief."), ("user", "hi")]
    assert (server.asked[0]["temperature"], server.asked[0]["max_tokens"]) == (2, 50)


def test_a_conversation_survives_a_reload_and_can_be_cleared(page: Any, server: StandIn) -> None:
    server.scripts = [saying("kept"), saying("more")]
    ask(page, "remember")
    finished(page)
    page.reload()
    shows(last_body(page), "kept")
    ask(page, "and")
    finished(page)
    assert server.turns() == [("user", "remember"), ("assistant", "kept"), ("user", "and")]
    page.click("#new")
    assert page.locator("li").count() == 0
    page.reload()
    expect(page.locator("#empty")).to_be_visible()
    assert page.locator("li").count() == 0


def test_leaving_while_an_answer_is_written_keeps_its_part(page: Any, server: StandIn) -> None:
    server.scripts = [[delta("half"), 10.0], saying("whole")]
    ask(page, "hi")
    shows(last_body(page), "half")
    page.reload()
    assert server.left.wait(3)
    shows(last_body(page), "half")
    page.click(".retry")
    shows(last_body(page), "whole")


def test_a_new_chat_takes_nothing_from_the_answer_it_interrupts(page: Any, server: StandIn) -> None:
    server.scripts = [[delta("old"), 10.0], saying("new")]
    ask(page, "first")
    shows(last_body(page), "old")
    page.click("#new")
    assert server.left.wait(3)
    shows(page.locator("#send"), "Send")
    assert stored(page) == []
    ask(page, "second")
    finished(page)
    assert server.turns() == [("user", "second")]
    assert [m["content"] for m in stored(page)] == ["second", "new"]


def test_what_is_kept_has_a_bound(page: Any) -> None:
    """Of a conversation too long for the browser the end is kept, from a question on."""
    kept = page.evaluate(
        """async () => {
          const { load, save } = await import('/static/store.js');
          const messages = [];
          for (let i = 0; i < 9; i++) {
            messages.push({ role: 'user', content: 'q'.repeat(150_000) });
            messages.push({ role: 'assistant', content: `${i}`, end: { kind: 'stopped' } });
          }
          messages.push({ role: 'user', content: 'x'.repeat(250_000) });
          save({ ...load(), messages });
          return load().messages.map((m) => m.content.length);
        }"""
    )
    assert kept == [*[150_000, 1] * 4, 250_000]


def test_a_damaged_store_does_not_break_the_page(page: Any) -> None:
    for text in (
        *('{"messages": 5}', '{"messages": [{"role": "user"}, null, 5]}', "[", '"x"', "null"),
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", '
        '"end": 5}], "settings": {"system": 5, "temperature": "x"}, "language": "fr"}',
    ):
        page.evaluate("text => localStorage.setItem('hunyuan', text)", text)
        # Leaving the page must not put its good state back.
        page.evaluate("Storage.prototype.setItem = () => {}")
        page.reload()
        shows(page.locator("#send"), "Send")
        assert page.evaluate("localStorage.hunyuan") == text
    assert page.input_value("#temperature") == "0.7"
    assert last_note(page).inner_text() == "The connection ended before the answer did."


def test_a_browser_without_memory_still_chats(browser: Any, server: StandIn) -> None:
    server.scripts = [saying("ok")]
    with opened(browser, server.address) as page:
        for name in ("localStorage", "sessionStorage"):
            page.add_init_script(
                f"Object.defineProperty(window, '{name}', {{get() {{ throw new Error('no') }}}})"
            )
        page.goto(server.address)
        ask(page, "hi")
        shows(last_body(page), "ok")


# ---- The files, and the real server


def test_the_page_names_no_other_host_and_makes_no_markup_of_text() -> None:
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "//" not in re.sub(r"^\s*//.*$|\s// .*$", "", text, flags=re.MULTILINE)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_with_the_real_server(browser: Any, tmp_path: Path) -> None:
    """Its policy, its paths, its events and its errors are the ones the page is made for."""
    from conftest import random_transformer, write_byte_tokenizer
    from test_serve import serving

    from hunyuan import Engine
    from hunyuan.model.config import preset
    from hunyuan.tokenizer.load import load_tokenizer

    tokenizer = load_tokenizer(write_byte_tokenizer(tmp_path))
    with (
        serving(Engine(random_transformer(preset("tiny")), tokenizer)) as served,
        opened(browser, f"http://127.0.0.1:{served.port}/") as page,
    ):
        shows(page.locator("#model"), "tiny")
        ask(page, "hi")
        expect(last_note(page)).to_contain_text("512")  # the context, and 1024 tokens are asked for
        page.click("#settings-button")
        page.fill("#max-tokens", "5")
        page.click(".retry")
        expect(last_note(page)).to_contain_text("token")
        finished(page)
