"""The shell of the page in a real Chromium: places, themes, keyboard, the key, texts."""

import re
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import PAGE, Served, ask, opened, serving_page, until

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser
browser, served, page = pages.browser, pages.served, pages.page


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
