"""The page at every width, in both themes, for everybody."""

import os
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import Served, answered, ask, opened, until

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser
browser, served = pages.browser, pages.served

CODE = "Look:\n\n```python\nprint('海')\n```\n\nDone."


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
        # A colour half-way through its transition is none. Some animations never end.
        running = "document.getAnimations().some((a) => a.effect.getComputedTiming().endTime < 1e6)"
        until(lambda: not page.evaluate(running))
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
