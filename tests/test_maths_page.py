"""The mathematics screen in a real Chromium, over its real routes."""

import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from maths_app import NOT_MATHS
from scripted import ScriptedBackend
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

import hunyuan.workbench
from hunyuan.serve.guard import SECURITY_HEADERS
from hunyuan.serve.schema import ChatRequest
from hunyuan.workbench.maths import maths_router
from hunyuan.workbench.templates import Templates

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: the page is not tested"
)
expect = sync_api.expect
pytestmark = pytest.mark.browser

PAGE = Path(hunyuan.workbench.__file__).parent / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass
class Site:
    """A served page and the backend behind it."""

    address: str
    backend: ScriptedBackend


def reply(request: ChatRequest) -> Any:
    """The model: reads one word problem, knows nothing else, explains wrongly."""
    question = str(request.messages[-1].content)
    if request.tools is None:
        return "It is 8.\nAnswer: 8" if "wrong" in question else "Take 5 from 12.\nAnswer: 7"
    if "apples" in question:
        return {"name": "calculate", "arguments": {"expression": "12 - 5"}}
    if request.tools[0].function.name == "write_formula":
        return {"name": "write_formula", "arguments": {"latex": r"g = \frac{n}{2}"}}
    return NOT_MATHS


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    backend = ScriptedBackend(reply)
    app = FastAPI()
    app.include_router(maths_router(lambda: backend, Templates()))
    app.add_api_route("/", lambda: FileResponse(PAGE / "index.html"))
    # What the shell asks of other places.
    app.add_api_route("/workbench/models", lambda: {"models": [], "current": None})
    app.add_api_route("/health", lambda: {"status": "ok"})
    app.mount("/static", StaticFiles(directory=PAGE))

    @app.middleware("http")
    async def secured(request: Any, go_on: Any) -> Response:
        answer: Response = await go_on(request)
        answer.headers.update(SECURITY_HEADERS)
        return answer

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}/", backend)
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not tested")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


def is_problem(message: Any) -> bool:
    """An error in the console, other than that a request of the reader was refused."""
    return message.type == "error" and "status of 400" not in message.text


@pytest.fixture
def page(browser: Any, site: Site, request: pytest.FixtureRequest) -> Iterator[Any]:
    options = getattr(request, "param", {})
    context = browser.new_context(**{"locale": "en-GB", **options})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.address)
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    problems: list[str] = []
    opened.on("console", lambda m: problems.append(m.text) if is_problem(m) else None)
    opened.on("pageerror", lambda e: problems.append(str(e)))
    opened.goto(f"{site.address}#/maths")
    expect(opened.locator(".maths-input textarea")).to_be_visible()
    yield opened
    context.close()
    assert problems == []


def ask(page: Any, question: str) -> Any:
    """Ask, and the finished card."""
    box = page.locator(".maths-input textarea")
    box.fill(question)
    box.press("Enter")
    card = page.locator(".maths-card").first
    expect(card.locator(".maths-question")).to_have_text(question)
    expect(card).to_have_attribute("aria-busy", "false")
    return card


def test_typing_shows_how_it_is_understood_and_enter_computes(page: Any) -> None:
    page.locator(".maths-input textarea").fill("derivative of sin(x)^2")
    expect(page.locator(".maths-reading-kind")).to_have_text("Differentiate")
    expect(page.locator(".maths-reading-formula .katex")).to_be_visible()
    card = ask(page, "derivative of sin(x)^2")
    expect(card.locator(".maths-value .katex").first).to_be_visible()
    expect(card.locator(".maths-foot")).to_contain_text("Computed by SymPy")
    expect(card.locator(".maths-check.good")).to_contain_text("difference quotient")
    card.get_by_role("button", name="Show 2 steps").click()
    expect(card.locator(".maths-steps li")).to_have_count(2)


def test_exact_and_decimal_and_the_three_ways_to_copy(page: Any) -> None:
    card = ask(page, "3/4 + 1/6")
    expect(card.locator(".maths-value")).to_contain_text("11")
    card.get_by_role("radio", name="Decimal").check()
    expect(card.locator(".maths-value")).to_contain_text("0.916666666666667")
    for name, text in (("LaTeX", r"\frac{11}{12}"), ("Plain text", "11/12")):
        card.get_by_role("button", name="Copy").click()
        page.get_by_role("menuitem", name=name).click()
        assert page.evaluate("navigator.clipboard.readText()") == text
    card.get_by_role("button", name="Copy").click()
    page.get_by_role("menuitem", name="MathML").click()
    page.wait_for_function("navigator.clipboard.readText().then((t) => t.startsWith('<math'))")


def test_the_buttons_work_on_what_is_meant(page: Any) -> None:
    page.locator(".maths-input textarea").fill("x^2 - 5x + 6")
    page.get_by_role("button", name="Factor").click()
    card = page.locator(".maths-card").first
    expect(card.locator(".maths-question")).to_have_text("Factor: x^2 - 5x + 6")
    expect(card.locator(".maths-value .katex").first).to_be_visible()


def test_what_the_model_read_is_marked_and_refusals_teach(page: Any, site: Site) -> None:
    card = ask(page, "Tom has 12 apples and eats 5. How many are left?")
    expect(card.locator(".notice.warning")).to_contain_text("12 - 5")
    expect(card.locator(".maths-value")).to_contain_text("7")
    card.get_by_role("button", name="Explain in words").click()
    expect(card.locator(".maths-explained")).to_contain_text("agree with the tool")
    refused = ask(page, "what is the meaning of it all")
    expect(refused.locator(".notice")).to_contain_text("not understood")
    refused.locator(".maths-example").first.click()
    expect(page.locator(".maths-card").first.locator(".maths-value")).to_contain_text("11")


def test_an_error_is_one_sentence_in_its_card(page: Any) -> None:
    expect(ask(page, "1/0").locator(".notice.error")).to_have_text(
        "division by zero is not defined"
    )


def test_a_graph_is_moved_enlarged_and_exported(page: Any) -> None:
    card = ask(page, "plot sin x and cos x from -pi to pi")
    expect(card.locator(".chart canvas")).to_be_visible()
    ends = card.locator(".maths-end")
    expect(ends.nth(0)).to_have_value("-3.141592654")
    card.get_by_role("button", name="Zoom in").click()
    expect(ends.nth(0)).to_have_value("-1.57")
    card.locator(".maths-functions").fill("x^2, y = 1/x")
    ends.nth(0).fill("-2 pi")
    ends.nth(1).fill("3")
    card.get_by_role("button", name="Draw").click()
    expect(ends.nth(0)).to_have_value("-6.283185307")
    for name, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"\xef\xbb\xbfx,")):
        card.get_by_role("button", name="Export").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=name).click()
        content = Path(download.value.path()).read_bytes()
        assert content.startswith(start)
        assert len(content) > 2000


def test_a_table_becomes_each_kind_of_chart(page: Any, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Data charts").click()
    file = tmp_path / "sales.csv"
    file.write_text("city,when,n,m\nA,2024-01-01,1,4\nB,2024-01-02,2,3\nA,2024-01-03,3,1\n")
    page.locator("input[type=file]").set_input_files(file)
    expect(page.locator(".maths-table-head")).to_contain_text("3 rows")
    for kind in ("Bars", "Lines", "Scatter", "Pie", "Histogram", "Heat-map"):
        page.get_by_role("radio", name=kind).check()
        expect(page.locator(".maths-data .chart canvas")).to_be_visible()
        expect(page.locator(".maths-card.busy")).to_have_count(0)
        expect(page.locator(".notice.error")).to_have_count(0)


def test_a_bad_file_says_why(page: Any, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Data charts").click()
    file = tmp_path / "empty.csv"
    file.write_text("a,b\n")
    with page.expect_response("**/charts/table**"):
        page.locator("input[type=file]").set_input_files(file)
    expect(page.locator(".notice.error")).to_contain_text("headings")


def test_formulas_are_found_computed_and_written(page: Any) -> None:
    page.get_by_role("tab", name="Formulas").click()
    page.get_by_role("button", name="area of a circle").click()
    card = page.locator(".maths-found .maths-card")
    expect(card.locator("h3")).to_have_text("Area of a circle")
    card.locator(".maths-variables input").nth(1).fill("3")
    card.get_by_role("button", name="Compute with this formula").click()
    expect(card.locator(".maths-decimal")).to_contain_text("28.27")
    page.locator(".maths-find input").fill("half of the grey geese")
    page.get_by_role("button", name="Find").click()
    expect(page.locator(".maths-found")).to_contain_text("Written by the model")


def test_answers_outlast_a_reload_and_can_be_cleared(page: Any) -> None:
    ask(page, "2+2")
    page.reload()
    expect(page.locator(".maths-question")).to_have_text("2+2")
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator(".maths-card")).to_have_count(0)
    page.reload()
    expect(page.locator(".empty")).to_be_visible()


NARROW = {"viewport": {"width": 360, "height": 740}}
VIEWS = [
    {"locale": "zh-CN", **NARROW},
    {"locale": "zh-CN", "color_scheme": "dark", "viewport": {"width": 1920, "height": 1000}},
    {"locale": "en-GB", "color_scheme": "dark", **NARROW},
]


@pytest.mark.parametrize(
    "page", VIEWS, indirect=True, ids=["zh-360", "zh-1920-dark", "en-360-dark"]
)
def test_nothing_runs_off_the_page_and_everyone_can_read_it(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    ask(page, "求 x^2-5x+6=0 的解").locator(".maths-actions button").first.click()
    ask(page, "plot x^2")
    ask(page, "100!")
    for place in ("maths", "maths/data", "maths/formulas"):
        page.evaluate("hash => { location.hash = hash }", f"#/{place}")
        page.wait_for_function("document.querySelector('[role=tab][aria-selected=true]')")
        wide = page.evaluate(
            "document.querySelector('.page-body').scrollWidth"
            " - document.querySelector('.page-body').clientWidth"
        )
        assert wide <= 0, place
        if place != "maths" and page.viewport_size["width"] != 1920:
            continue
        found = axe.Axe().run(page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert serious == [], [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in serious]
