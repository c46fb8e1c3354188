"""The page in a real Chromium: the shell, what a model writes, and the chat."""

import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: the page is not tested"
)
from pages import PAGE, Served, chromium, opened, serving_page, until  # noqa: E402

expect = sync_api.expect
pytestmark = pytest.mark.browser

CODE = "Look:\n\n```python\nprint('海')\n```\n\nDone."
HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>
[a](javascript:window.hacked=3) [b](data:text/html,x) ![c](http://127.0.0.1:9/x.png)
<iframe src="/"></iframe> <b onclick="hacked=4">bold</b> $\\href{javascript:window.hacked=5}{x}$
$\\htmlStyle{color:red}{y}$ <style>body{display:none}</style> **fine**

```<b>
</code></pre><svg onload="window.hacked=6">
```

| <i>t</i> | x |
|---|---|
| <a href="javascript:hacked=7">u</a> | [v](vbscript:x) |
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving_page(tmp_path) as served:
        yield served


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    with opened(browser, served.address) as page:
        yield page


def ask(page: Any, text: str) -> None:
    page.fill(".composer textarea", text)
    page.press(".composer textarea", "Enter")


def answered(page: Any) -> None:
    """Wait until nothing is being written any more."""
    expect(page.locator(".composer .send[type=submit]")).to_be_visible()
    expect(page.locator(".message.assistant").last).to_have_attribute("aria-busy", "false")


def last_answer(page: Any) -> Any:
    return page.locator(".message.assistant .prose").last


def menu(page: Any, button: Any, item: str) -> None:
    button.click()
    page.get_by_role("menuitem", name=item).click()


# ---- The shell


def test_six_places_in_two_languages(browser: Any, served: Served) -> None:
    names = {
        "en": ["Chat", "Write", "Maths", "Knowledge", "Code", "Models"],
        "zh": ["对话", "写作", "数学", "知识", "代码", "模型"],
    }
    with opened(browser, served.address, "zh-CN") as page:
        expect(page.locator(".place")).to_have_text(names["zh"])
        assert page.get_attribute("html", "lang") == "zh-CN"
        assert page.title() == "对话 · Hunyuan"
        expect(page.locator(".composer textarea")).to_have_attribute("placeholder", "输入消息……")
        page.click(".language-switch")
        expect(page.locator(".place")).to_have_text(names["en"])
        expect(page.locator(".empty h2")).to_have_text("What shall we work on?")
        page.reload()
        expect(page.locator(".place")).to_have_text(names["en"])
        assert page.get_attribute("html", "lang") == "en"
    with opened(browser, served.address, "fr-FR") as page:
        expect(page.locator(".place")).to_have_text(names["en"])


def test_light_dark_and_as_the_system(browser: Any, served: Served) -> None:
    def ground(page: Any) -> float:
        rgb = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(map(int, re.findall(r"\d+", rgb)[:3])) / 3

    with opened(browser, served.address, color_scheme="dark") as page:
        assert ground(page) < 60
        page.get_by_role("button", name="Theme").click()
        page.get_by_role("menuitemradio", name="Light").click()
        assert ground(page) > 200
        page.reload()
        assert ground(page) > 200
        page.get_by_role("button", name="Theme").click()
        page.get_by_role("menuitemradio", name="As the system").click()
        assert ground(page) < 60


def test_the_keyboard_reaches_everything(page: Any) -> None:
    expect(page.locator(".composer textarea")).to_be_focused()
    first = "document.querySelector('a[href], button, input, textarea, [tabindex]')"
    assert page.evaluate(f"{first}.className") == "skip"
    page.evaluate(f"{first}.focus()")
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("dialog .shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    theme = page.get_by_role("button", name="Theme")
    theme.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitemradio", name="As the system")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(theme).to_be_focused()
    assert page.get_attribute("html", "data-theme") == "dark"
    page.keyboard.press("g")
    page.keyboard.press("2")
    expect(page.locator(".place[aria-current]")).to_have_text("Write")
    page.keyboard.press("g")
    page.keyboard.press("c")
    expect(page.locator(".composer textarea")).to_be_focused()
    page.keyboard.type("g2?")
    assert page.input_value(".composer textarea") == "g2?"


def test_what_the_model_is_good_for(page: Any) -> None:
    chip = page.locator(".rail .model-chip .button")
    expect(chip).to_contain_text("Qwen2.5-Coder")
    expect(chip).to_contain_text("Ready")
    chip.click()
    card = page.locator(".model-card").bounding_box()
    assert card["y"] + card["height"] <= page.viewport_size["height"]
    expect(page.locator(".model-card li.here")).to_contain_text("Everyday questions")
    expect(page.locator(".model-card")).to_contain_text("8,192 tokens of context")


def test_a_lost_server_is_said_and_found_again(browser: Any, served: Served) -> None:
    with opened(browser, served.address, expected="Failed to load resource") as page:
        expect(page.locator(".composer textarea")).to_be_visible()
        page.route("**/workbench/**", lambda route: route.abort())
        ask(page, "hello")
        expect(page.locator(".banner")).to_be_visible()
        expect(page.locator(".composer .notice")).to_contain_text("cannot be reached")
        assert page.input_value(".composer textarea") == "hello"
        page.unroute("**/workbench/**")
        expect(page.locator(".banner")).to_have_count(0)


def test_the_key_is_asked_for_once_and_kept_for_the_tab(browser: Any, tmp_path: Path) -> None:
    with (
        serving_page(tmp_path, api_key="s3cret") as served,
        opened(browser, served.address, expected="401") as page,
    ):
        expect(page.locator("dialog input")).to_be_focused()
        page.fill("dialog input", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("dialog .field-error")).to_contain_text("does not accept")
        page.fill("dialog input", "s3cret")
        page.keyboard.press("Enter")
        expect(page.locator("dialog")).to_have_count(0)
        expect(page.locator(".rail .model-chip")).to_contain_text("Qwen")
        page.reload()
        expect(page.locator(".rail .model-chip")).to_contain_text("Qwen")
        assert page.locator("dialog").count() == 0
        assert "s3cret" not in page.evaluate("Object.values(localStorage).join()")


def test_a_screen_that_breaks_leaves_the_others(browser: Any, served: Served) -> None:
    broken = "export default () => { throw new Error('broken on purpose'); }"
    with opened(browser, "about:blank", expected="on purpose") as page:
        page.route(
            "**/screens/write.js",
            lambda route: route.fulfill(body=broken, content_type="text/javascript"),
        )
        page.goto(f"{served.address}/#/write")
        expect(page.locator(".place-content .notice")).to_contain_text("broken on purpose")
        page.click(".place >> nth=0")
        expect(page.locator(".composer textarea")).to_be_visible()


def test_it_is_small(browser: Any, served: Served) -> None:
    """How quick it is stands in benchmarks/page.py."""
    with opened(browser, "about:blank") as page:
        received: list[int] = []
        page.on("response", lambda response: received.append(len(response.body())))
        page.goto(served.address)
        page.wait_for_selector(".composer textarea")
        until(lambda: bool(page.locator(".count").inner_text()))
        assert sum(received) < 3_000_000


def test_every_text_exists_in_both_languages() -> None:
    sources = {
        p: p.read_text(encoding="utf-8") for p in PAGE.rglob("*.js") if "vendor" not in str(p)
    }
    tables = 0
    for path, source in sources.items():
        for table in re.findall(r"texts\(\{(.*?)\n\}\)", source, re.DOTALL):
            halves = re.split(r"^ {2}zh: \{", table, flags=re.MULTILINE)
            if len(halves) != 2:
                continue
            tables += 1
            keys = [re.findall(r"^ {4}(\w+):", half, re.MULTILINE) for half in halves]
            assert keys[0] == keys[1], path
    assert tables >= 5


def test_the_page_makes_no_markup_of_text_and_names_no_other_host() -> None:
    for path in PAGE.rglob("*"):
        if "vendor" in path.parts or path.suffix not in (".js", ".html", ".css"):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), path
        hosts = set(re.findall(r"https?://([\w.]+)", text)) - {"www.w3.org"}
        assert not hosts, (path, hosts)
        assert not re.search(r"<\w+[^>]*\sstyle=", text), path


# ---- What a model writes


def test_hostile_output_stays_text(browser: Any, served: Served) -> None:
    served.backend.answers = [HOSTILE, HOSTILE]
    with opened(browser, served.address) as page:
        ask(page, "<b>bold</b>")
        answered(page)
        expect(page.locator(".bubble")).to_have_text("<b>bold</b>")
        assert "onerror=" in last_answer(page).inner_text()
        found = page.evaluate(
            """() => {
              const all = [...document.querySelectorAll('.prose *')];
              const handled = (n) => [...n.attributes].some((a) => a.name.startsWith('on'));
              const links = all.filter((n) => n.localName === 'a');
              return {
                names: [...new Set(all.map((n) => n.localName))],
                handlers: all.filter(handled).length,
                links: links.map((n) => [n.getAttribute('href'), n.rel]),
                hacked: window.hacked ?? null,
              };
            }"""
        )
        assert not {"img", "script", "svg", "iframe", "style", "object"} & set(found["names"])
        assert "strong" in found["names"]
        assert (found["handlers"], found["hacked"]) == (0, None)
        for href, rel in found["links"]:
            assert href.startswith("http"), href
            assert "noopener" in rel


FORMULAS = [
    ("a $x^2$ b", 1, "inline"),
    (r"a \(x^2\) b", 1, "inline"),
    ("$$\nx = 1\n= 2\n$$", 1, "display"),
    ("\\[\n\\frac{1}{2}\n\\]", 1, "display"),
    ("so $$x$$ it is", 1, "display"),
    ("- item\n  $$\n  y\n  $$\n- next", 1, "display"),
    ("It costs $5 and $10.", 0, ""),
    ("from $1,000 to $2,000, or $3", 0, ""),
    ("between $5-$10", 0, ""),
    ("价格是$5，比$3贵", 0, ""),
    ("价格是 $5 元，共 $30 元", 0, ""),
    ("$20 per seat$", 0, ""),
    ("质量为 $m = 5\\ \\text{千克}$ 的球", 1, "inline"),
    ("an escaped \\$x\\$ sign", 0, ""),
    ("`$x$` and $y$", 1, "inline"),
]


def test_formulas_are_drawn_and_prices_are_not(page: Any) -> None:
    found = page.evaluate(
        """async (texts) => {
          const { html, render } = await import('/static/vendor/preact.js');
          const { Markdown } = await import('/static/lib/markdown.js');
          const shown = [];
          for (const text of texts) {
            const box = document.createElement('div');
            document.body.append(box);
            render(html`<${Markdown} text=${text} />`, box);
            const places = [...box.querySelectorAll('[data-tex]')];
            const kind = places[0]?.dataset.display ? 'display' : 'inline';
            shown.push([places.length, places.length ? kind : '']);
            box.remove();
          }
          return shown;
        }""",
        [text for text, _, _ in FORMULAS],
    )
    assert [tuple(one) for one in found] == [(count, kind) for _, count, kind in FORMULAS]


def test_a_formula_that_cannot_be_read_stays_as_its_source(page: Any, served: Served) -> None:
    served.backend.answers = [r"good $\frac{1}{2}$, bad $\frac{1}{$"]
    ask(page, "x")
    answered(page)
    expect(page.locator(".prose .katex")).to_have_count(1)
    expect(page.locator(".prose .formula-inline.source")).to_have_text(r"\frac{1}{")


def test_letter_by_letter_ends_like_at_once(page: Any) -> None:
    text = CODE + "\n\n1. a\n2. b\n\n| x | y |\n|--|--|\n| $a$ | 2 |\n\n\\[\nz\n\\]\n\nend `c`"
    grown, whole, kept = page.evaluate(
        """async (text) => {
          const { html, render } = await import('/static/vendor/preact.js');
          const { Markdown } = await import('/static/lib/markdown.js');
          const draw = (box, text, streaming) =>
            render(html`<${Markdown} text=${text} streaming=${streaming} />`, box);
          const [a, b] = [document.createElement('div'), document.createElement('div')];
          document.body.append(a, b);
          let first = null;
          let kept = true;
          for (let n = 1; n <= text.length; n += 1) {
            draw(a, text.slice(0, n), true);
            if (n === 10) first = a.firstChild.firstChild;
            if (n > 10) kept &&= a.firstChild.firstChild === first;
          }
          draw(a, text, false);
          draw(b, text, false);
          const settled = new Promise((resolve) => setTimeout(resolve, 600));
          await settled;
          return [a.innerHTML, b.innerHTML, kept];
        }""",
        text,
    )
    assert grown == whole
    assert kept, "the first paragraph was made anew while the rest grew"


def test_code_is_copied_and_run(browser: Any, served: Served) -> None:
    served.backend.answers = [CODE, "```python\n1/0\n```", "```js\n1\n```"]
    with opened(browser, served.address, permissions=["clipboard-read", "clipboard-write"]) as page:
        ask(page, "code")
        answered(page)
        block = page.locator(".code-block").last
        block.get_by_role("button", name="Copy").click()
        expect(page.locator(".toast")).to_contain_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == "print('海')"
        block.get_by_role("button", name="Run").click()
        expect(block.locator(".code-output pre")).to_have_text("海\n")
        ask(page, "more")
        answered(page)
        block = page.locator(".code-block").last
        block.get_by_role("button", name="Run").click()
        expect(block.locator(".code-output pre.bad")).to_contain_text("ZeroDivisionError")
        ask(page, "other")
        answered(page)
        assert page.locator(".code-block").last.get_by_role("button", name="Run").count() == 0


# ---- Chat


def test_a_conversation_is_streamed_kept_and_named(page: Any, served: Served) -> None:
    rest = threading.Event()
    served.backend.answers = [["**so", "me** ", rest, "more"]]
    ask(page, "why?")
    expect(last_answer(page)).to_have_text("some")
    expect(page.locator(".composer textarea")).to_have_value("")
    assert re.search(r"#/chat/\w+", page.url)
    rest.set()
    answered(page)
    expect(last_answer(page)).to_have_text("some more")
    expect(page.locator(".page-title h1")).to_have_text("A short title")
    expect(page.locator(".list-item.current")).to_contain_text("A short title")
    page.reload()
    expect(last_answer(page)).to_have_text("some more")
    expect(page.locator(".facts").last).to_contain_text("tokens")
    served.backend.answers = ["again"]
    ask(page, "and?")
    answered(page)
    assert served.backend.prompts()[-3:] == [
        ("user", "why?"),
        ("assistant", "**some** more"),
        ("user", "and?"),
    ]


def test_examples_are_one_click_away(browser: Any, served: Served) -> None:
    with opened(browser, served.address, "zh-CN") as page:
        expect(page.locator(".example")).to_have_count(3)
        page.locator(".example").nth(1).click()
        answered(page)
        assert "海水" in served.backend.prompts()[-1][1]


def test_stopping_keeps_what_was_said_and_continue_goes_on(page: Any, served: Served) -> None:
    never = threading.Event()
    served.backend.answers = [["The first half", never]]
    ask(page, "tell")
    expect(last_answer(page)).to_have_text("The first half")
    page.keyboard.press("Escape")
    answered(page)
    assert served.backend.left.wait(5)
    expect(page.locator(".facts").last).to_contain_text("Stopped")
    served.backend.answers = [" and the second."]
    page.get_by_role("button", name="Continue").click()
    expect(last_answer(page)).to_have_text("The first half and the second.")
    page.reload()
    expect(last_answer(page)).to_have_text("The first half and the second.")


def test_versions_of_answers_and_questions(page: Any, served: Served) -> None:
    served.backend.answers = ["one"]
    ask(page, "count")
    answered(page)
    served.backend.answers = ["two"]
    page.locator(".message.last").get_by_role("button", name="Answer again").click()
    expect(last_answer(page)).to_have_text("two")
    answered(page)
    expect(page.locator(".versions")).to_have_text("2/2")
    page.get_by_role("button", name="Previous version").click()
    expect(last_answer(page)).to_have_text("one")
    page.locator(".message.user").hover()
    served.backend.answers = ["other"]
    page.locator(".message.user").get_by_role("button", name="Edit").click()
    page.fill(".message-editor textarea", "count more")
    page.keyboard.press("Control+Enter")
    expect(last_answer(page)).to_have_text("other")
    answered(page)
    assert served.backend.prompts() == [("user", "count more")]
    page.reload()
    expect(page.locator(".bubble")).to_have_text("count more")
    page.locator(".message.user").hover()
    page.locator(".message.user").get_by_role("button", name="Previous version").click()
    expect(page.locator(".bubble")).to_have_text("count")
    expect(last_answer(page)).to_have_text("two")  # the latest below it


def test_an_answer_can_be_corrected_by_hand(page: Any, served: Served) -> None:
    served.backend.answers = ["wrogn"]
    ask(page, "spell")
    answered(page)
    menu(page, page.locator(".message.last").get_by_role("button", name="More"), "Edit this answer")
    page.fill(".message-editor textarea", "wrong")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(last_answer(page)).to_have_text("wrong")
    expect(page.locator(".facts").last).to_contain_text("edited by you")
    assert len(served.backend.requests) == 1


def test_enter_sends_but_not_while_composing(page: Any, served: Served) -> None:
    box = page.locator(".composer textarea")
    box.fill("one")
    box.press("Shift+Enter")
    box.type("two")
    for mark in ("isComposing: true", "keyCode: 229"):
        page.evaluate(
            "document.querySelector('.composer textarea').dispatchEvent(new KeyboardEvent("
            f"'keydown', {{key: 'Enter', bubbles: true, cancelable: true, {mark}}}))"
        )
    assert page.locator(".message").count() == 0
    box.press("Enter")
    answered(page)
    assert served.backend.prompts() == [("user", "one\ntwo")]
    ask(page, "  \n ")
    assert page.locator(".message.user").count() == 1


def test_only_a_reader_at_the_end_is_taken_along(page: Any, served: Served) -> None:
    lines = "line\n\n" * 60
    more, rest = threading.Event(), threading.Event()
    served.backend.answers = [[lines, more, lines, rest, lines]]
    box = "document.querySelector('.thread')"

    def below() -> float:
        gap: float = page.evaluate(f"{box}.scrollHeight - {box}.scrollTop - {box}.clientHeight")
        return gap

    def height() -> float:
        whole: float = page.evaluate(f"{box}.scrollHeight")
        return whole

    ask(page, "long")
    page.wait_for_selector(".prose")
    until(lambda: height() > 1500)
    until(lambda: below() < 2)
    first = height()
    more.set()
    until(lambda: height() > first + 1000)
    until(lambda: below() < 2)
    page.evaluate(f"{box}.scrollTo(0, 100)")
    expect(page.locator(".to-end")).to_be_visible()
    second = height()
    rest.set()
    answered(page)
    until(lambda: height() > second + 1000)
    assert page.evaluate(f"{box}.scrollTop") == 100
    page.click(".to-end")
    until(lambda: below() < 2)
    expect(page.locator(".to-end")).to_have_count(0)


def test_an_answer_goes_on_while_another_place_is_open(page: Any, served: Served) -> None:
    rest = threading.Event()
    served.backend.answers = [["half", rest, " and half"]]
    ask(page, "slow")
    expect(last_answer(page)).to_have_text("half")
    page.click(".place >> nth=1")
    expect(page.locator(".place[aria-current]")).to_have_text("Write")
    rest.set()
    page.go_back()
    expect(last_answer(page)).to_have_text("half and half")


def test_feedback_is_kept(page: Any, served: Served) -> None:
    served.backend.answers = ["good"]
    ask(page, "x")
    answered(page)
    page.get_by_role("button", name="Good answer").click()
    page.get_by_label("Comment").fill("well put")
    page.get_by_role("button", name="Save comment").click()
    expect(page.locator(".toast")).to_contain_text("Saved")
    page.reload()
    thumb = page.get_by_role("button", name="Good answer")
    expect(thumb).to_have_attribute("aria-pressed", "true")
    assert served.store.conversations.ratings() == {"up": 1, "down": 0}
    thumb.click()
    expect(thumb).to_have_attribute("aria-pressed", "false")
    until(lambda: served.store.conversations.ratings()["up"] == 0)


def test_search_rename_delete_and_undo(page: Any, served: Served) -> None:
    for title in ("Oceans", "Mountains", "Deserts"):
        served.store.conversations.create(title=title)
    page.reload()
    items = page.locator(".list-item")
    expect(items).to_have_count(3)
    page.fill(".list-search input", "mount")
    expect(items).to_have_count(1)
    expect(items.locator("mark")).to_have_text("Mount")
    page.fill(".list-search input", "")
    expect(items).to_have_count(3)
    menu(page, items.nth(0).get_by_role("button"), "Rename")
    page.keyboard.type("Dunes")
    page.keyboard.press("Enter")
    expect(items.nth(0)).to_contain_text("Dunes")
    menu(page, items.nth(0).get_by_role("button"), "Delete")
    expect(items).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(items).to_have_count(3)
    menu(page, items.nth(2).get_by_role("button"), "Pin to the top")
    expect(items.nth(0)).to_contain_text("Oceans")
    menu(page, items.nth(1).get_by_role("button"), "Delete")
    expect(items).to_have_count(2)
    page.reload()  # leaving does at once what could still have been undone
    expect(items).to_have_count(2)
    until(lambda: len(served.store.conversations.page()[0]) == 2)


def test_export_and_import(page: Any, served: Served, tmp_path: Path) -> None:
    served.backend.answers = ["the answer"]
    ask(page, "the question")
    answered(page)
    expect(page.locator(".page-title h1")).to_have_text("A short title")
    more = page.locator(".page-actions").get_by_role("button", name="More")
    with page.expect_download() as markdown:
        menu(page, more, "Export as Markdown")
    assert markdown.value.suggested_filename == "A short title.md"
    text = Path(markdown.value.path()).read_text(encoding="utf-8")
    assert "the question" in text
    assert "the answer" in text
    with page.expect_download() as exported:
        menu(page, more, "Export as JSON")
    copy = tmp_path / "copy.json"
    exported.value.save_as(copy)
    assert json.loads(copy.read_text(encoding="utf-8"))
    page.set_input_files("input[aria-label^=Import]", copy)
    expect(page.locator(".list-item")).to_have_count(2)
    expect(last_answer(page)).to_have_text("the answer")


def test_settings_reach_the_model_and_are_kept(page: Any, served: Served) -> None:
    page.get_by_role("button", name="Show Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Top-k").fill("-1")
    expect(page.locator(".field-error")).to_contain_text("from 0 to 1000")
    page.wait_for_timeout(500)
    ask(page, "hi")
    answered(page)
    request = served.backend.requests[0]
    assert (request.temperature, request.seed, request.top_k) == (0.3, 7, None)
    assert served.backend.prompts() == [("system", "Be brief."), ("user", "hi")]
    page.reload()
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
    page.get_by_role("button", name="Back to the defaults").click()
    expect(page.locator(".slider output").first).to_have_text("default")


def test_another_model_is_loaded_with_progress(page: Any, served: Served) -> None:
    served.host.go.clear()
    page.get_by_role("button", name="Show Settings").click()
    select = page.get_by_label("Model", exact=True)
    if select.locator("option[value='smollm2-135m-instruct']:not([disabled])").count() == 0:
        pytest.skip("the smaller model is not on this machine: none can be switched to")
    select.select_option("smollm2-135m-instruct")
    expect(page.locator(".details .progress")).to_contain_text("smollm2-135m-instruct")
    expect(page.locator(".rail .model-chip")).to_contain_text("25 %")
    served.host.go.set()
    expect(page.locator(".rail .model-chip")).to_contain_text("SmolLM2")
    expect(page.locator(".rail .model-chip")).to_contain_text("Ready")


def test_tokens_are_counted_and_too_many_are_trimmed(browser: Any, served: Served) -> None:
    with opened(browser, served.address, expected="400") as page:
        served.backend.answers = ["a" * 5000]
        ask(page, "q" * 2000)
        answered(page)
        expect(page.locator(".count")).to_have_text("7,000 of 8,192 tokens")
        expect(page.locator(".count")).to_have_class(re.compile("near"))
        ask(page, "z" * 3000)
        refusal = page.locator(".composer .notice")
        expect(refusal).to_contain_text("7936 fit")
        assert page.input_value(".composer textarea") == "z" * 3000
        served.backend.answers = ["fits"]
        refusal.get_by_role("button", name="Leave out the oldest messages").click()
        expect(last_answer(page)).to_have_text("fits")
        expect(page.locator(".message .notice")).to_contain_text("no longer fit")


def test_attachments_by_button_drop_and_paste(page: Any, served: Served, tmp_path: Path) -> None:
    note = tmp_path / "note.md"
    note.write_text("# The tide\nIt comes at noon.", encoding="utf-8")
    page.set_input_files(".composer input[type=file]", note)
    expect(page.locator(".composer .chip-open")).to_contain_text("note.md")
    for event in ("drop", "paste"):
        page.evaluate(
            """(event) => {
              const data = new DataTransfer();
              data.items.add(new File(['text of ' + event], event + '.txt', {type: 'text/plain'}));
              const at = document.querySelector('.composer textarea');
              const all = {bubbles: true, cancelable: true, dataTransfer: data};
              all.clipboardData = data;
              const Kind = event === 'drop' ? DragEvent : ClipboardEvent;
              at.dispatchEvent(new Kind(event, all));
            }""",
            event,
        )
    expect(page.locator(".composer .chip-open")).to_have_count(3)
    page.locator(".composer").get_by_role("button", name="Remove drop.txt").click()
    expect(page.locator(".composer .chip-open")).to_have_count(2)
    page.locator(".composer .chip-open").first.click()
    expect(page.locator("dialog .reader")).to_contain_text("It comes at noon.")
    page.keyboard.press("Escape")
    ask(page, "When?")
    answered(page)
    prompt = served.backend.prompts()[-1][1]
    assert "It comes at noon." in prompt
    assert "text of paste" in prompt
    assert "text of drop" not in prompt
    expect(page.locator(".message.user .chip-open")).to_have_count(2)


def test_a_failure_is_said_and_can_be_tried_again(page: Any, served: Served) -> None:
    from hunyuan.errors import HunyuanError

    answers: list[Any] = [HunyuanError("the model fell over", "模型出错了"), "better"]
    served.backend._whole = lambda _: answers.pop(0)  # type: ignore[method-assign]
    served.backend._replies = served.backend._whole
    ask(page, "x")
    failed = page.locator(".message .notice.error")
    expect(failed).to_contain_text("the model fell over")
    failed.get_by_role("button").click()
    expect(last_answer(page)).to_have_text("better")


def long_conversation(pairs: int) -> dict[str, Any]:
    messages = []
    for n in range(2 * pairs):
        question = n % 2 == 0
        messages.append(
            {
                "id": f"m{n}",
                "parent": f"m{n - 1}" if n else None,
                "role": "user" if question else "assistant",
                "content": f"question {n}"
                if question
                else f"**answer** {n} is $x_{{{n}}}$\n\n- a\n- b",
                "status": "complete",
                "created": float(n),
            }
        )
    head = {"title": "Long", "active": f"m{2 * pairs - 1}", "created": 0.0}
    return {"conversation": head, "messages": messages}


def test_a_thousand_messages_stay_responsive(page: Any, served: Served) -> None:
    served.backend.model = replace(served.backend.model, context=200_000)
    made = page.request.post(f"{served.address}/workbench/chat/import", data=long_conversation(500))
    assert made.ok, made.text()
    page.goto(f"{served.address}/#/chat/{made.json()['id']}")
    expect(last_answer(page)).to_contain_text("answer 999")
    assert page.locator(".message").count() <= 80
    frames = page.evaluate(
        """async () => {
          const box = document.querySelector('.composer textarea');
          const times = [];
          for (let n = 0; n < 20; n += 1) {
            const start = performance.now();
            box.value += 'x';
            box.dispatchEvent(new Event('input', {bubbles: true}));
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            times.push(performance.now() - start);
          }
          return times.sort((a, b) => a - b);
        }"""
    )
    assert frames[10] < 100, frames
    box = "document.querySelector('.thread')"
    for _ in range(40):
        page.evaluate(f"{box}.scrollTop = 0")
        if page.locator(".bubble", has_text=re.compile("^question 0$")).count():
            break
        page.wait_for_timeout(30)
    expect(page.locator(".message")).to_have_count(1000)
    served.backend.answers = ["still quick"]
    ask(page, "and?")
    expect(last_answer(page)).to_have_text("still quick")
    until(lambda: page.evaluate(f"{box}.scrollHeight - {box}.scrollTop - {box}.clientHeight") < 2)


# ---- Widths, themes, accessibility

LONG = "w" * 300 + " " + "长" * 200
TABLE = f"| {'a | ' * 30}\n|{'--|' * 30}\n| {'b | ' * 30}"
WIDE = f"{LONG}\n\n{TABLE}\n\n```\n{LONG}\n```\n\n$${'x+' * 80}x$$"


def overflow(page: Any) -> list[str]:
    """What sticks out of the window to the right and cannot be scrolled to."""
    found: list[str] = page.evaluate(
        """() => {
          const clips = (n) => getComputedStyle(n).overflowX !== 'visible';
          const scrolls = (n) => n && (clips(n) || scrolls(n.parentElement));
          return [...document.body.querySelectorAll('*')]
            .filter((n) => n.getBoundingClientRect().right > innerWidth + 1)
            .filter((n) => !scrolls(n.parentElement))
            .map((n) => `${n.localName}.${n.className}`);
        }"""
    )
    return found


@pytest.mark.parametrize("width", [360, 1024, 1920])
def test_it_fits(browser: Any, served: Served, width: int) -> None:
    size = {"width": width, "height": 740}
    served.backend.answers = [WIDE]
    with opened(browser, served.address, "zh-CN", viewport=size) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ask(page, LONG)
        answered(page)
        page.wait_for_selector(".katex")
        assert overflow(page) == []
        thread = page.locator(".thread")
        assert thread.evaluate("n => n.scrollWidth <= n.clientWidth")
        for place in page.locator(".place").all():
            box = place.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= 740
        page.get_by_role("button", name="显示设置").click()
        expect(page.locator(".details")).to_be_visible()
        assert overflow(page) == []
        if width == 360:
            page.keyboard.press("Escape")
            expect(page.locator(".details")).to_have_count(0)
            page.get_by_role("button", name="显示对话列表").click()
            expect(page.locator(".overlay .list-item")).to_have_count(1)
            page.locator(".overlay").get_by_role("button", name="新建对话").click()
            expect(page.locator(".overlay")).to_have_count(0)
            expect(page.locator(".empty")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, served: Served, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )

    def check(page: Any, what: str) -> None:
        # A colour half-way through its transition is none.
        page.wait_for_timeout(200)
        violations = axe.Axe().run(page).response["violations"]
        serious = [
            (v["id"], [n["html"][:120] for n in v["nodes"][:3]])
            for v in violations
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == [], what

    served.backend.answers = [CODE + "\n\n| a | b |\n|--|--|\n| $x$ | [l](https://example.org) |"]
    with opened(browser, served.address, color_scheme=scheme) as page:
        check(page, "empty chat")
        ask(page, "hi")
        answered(page)
        page.get_by_role("button", name="Good answer").click()
        page.get_by_role("button", name="Show Settings").click()
        check(page, "a conversation")
        page.keyboard.press("Escape")
        page.locator(".rail .model-chip .button").click()
        check(page, "the model")
        page.keyboard.press("Escape")
        page.click(".place >> nth=1")
        expect(page.locator(".empty")).to_be_visible()
        check(page, "no document")
        served.backend.answers = ["Last week we finished it."]
        page.locator(".example").nth(1).click()
        expect(page.locator(".review .change").first).to_be_visible()
        check(page, "suggestions")
        page.get_by_role("button", name="Reject all").click()
        page.click(".counts")
        check(page, "an editor")


@pytest.mark.parametrize(("locale", "scheme"), [("en-US", "light"), ("zh-CN", "dark")])
def test_every_place_opens_at_every_width(
    browser: Any, served: Served, locale: str, scheme: str
) -> None:
    with opened(browser, served.address, locale, color_scheme=scheme) as page:
        for place in ("chat", "write", "maths", "knowledge", "code", "models"):
            page.goto(f"{served.address}/#/{place}")
            expect(page.locator(".page-title h1")).to_be_visible()
            for width in (1920, 1024, 360):
                page.set_viewport_size({"width": width, "height": 740})
                expect(page.locator(".topbar")).to_have_count(int(width == 360))
                assert overflow(page) == [], (place, width)
                if folder := os.environ.get("HUNYUAN_SCREENSHOTS"):
                    page.screenshot(path=Path(folder) / f"{place}-{width}-{locale}-{scheme}.png")
