"""The knowledge screen in a real Chromium, over real routes and a scripted model."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: the page is not tested"
)
from documents import FOLDER, WordEmbedder  # noqa: E402
from pages import PacedBackend, TwoModels, chromium, opened  # noqa: E402
from serving import listening  # noqa: E402

from hunyuan.serve.app import create_app  # noqa: E402
from hunyuan.workbench.app import PAGE, workbench_routers  # noqa: E402
from hunyuan.workbench.folder import DataFolder  # noqa: E402

expect = sync_api.expect
pytestmark = pytest.mark.browser

SAMPLE_ANSWER = (
    "A caravan covered about 30 kilometres a day. [1] It was led by the emperor of Rome. "
    "Each camel carried 500 kilograms. [1]"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def backend() -> PacedBackend:
    return PacedBackend()


@pytest.fixture
def address(tmp_path: Path, backend: PacedBackend, request: pytest.FixtureRequest) -> Iterator[str]:
    embedder = None if getattr(request, "param", "") == "words only" else WordEmbedder()
    host = TwoModels(backend)
    with DataFolder(tmp_path / "data") as data:
        app = create_app(host, routers=workbench_routers(host, data, embedder=embedder), page=PAGE)
        with listening(app) as address:
            yield address


def photograph(page: Any, name: str) -> None:
    """A picture for a designer's eyes, where ``HUNYUAN_SCREENSHOTS`` names a folder."""
    if folder := os.environ.get("HUNYUAN_SCREENSHOTS"):
        page.wait_for_timeout(400)
        page.screenshot(path=Path(folder) / f"knowledge-{name}.png")


@pytest.mark.parametrize(
    ("locale", "width", "scheme"),
    [("en-US", 1920, "light"), ("zh-CN", 1024, "dark"), ("zh-CN", 360, "light")],
)
def test_a_newcomer_is_one_click_from_a_cited_answer(
    browser: Any, address: str, backend: PacedBackend, locale: str, width: int, scheme: str
) -> None:
    chinese = locale == "zh-CN"
    backend.answers = [
        "商队每天大约行进30公里。[1] 它由罗马皇帝带领。" if chinese else SAMPLE_ANSWER
    ]
    size = {"width": width, "height": 800}
    with opened(
        browser, f"{address}/#/knowledge", locale, viewport=size, color_scheme=scheme
    ) as page:
        expect(page.locator(".example")).to_have_count(3)
        photograph(page, f"empty-{locale}-{width}")
        page.locator(".example").first.click()
        quote = page.locator(".quote").first
        expect(quote).to_contain_text("30公里" if chinese else "30 kilometres")
        expect(quote).to_contain_text("与原文逐字一致" if chinese else "word for word")
        doubts = page.locator(".doubt")
        expect(doubts).to_have_count(1 if chinese else 2)
        photograph(page, f"answer-{locale}-{width}")
        quote.locator(".chip").click()
        mark = page.locator(".source-text mark")
        expect(mark).to_be_in_viewport()
        expect(mark).to_have_text(quote.locator("blockquote").inner_text())
        photograph(page, f"source-{locale}-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_documents_are_added_watched_opened_and_deleted(
    browser: Any, address: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nrubbish")
    files = [FOLDER / "handbook.en.pdf", FOLDER / "staff.csv", tmp_path / "broken.pdf"]
    with opened(browser, f"{address}/#/knowledge") as page:
        page.locator("input[type=file]").set_input_files(files)
        rows = page.locator(".document")
        expect(rows).to_have_count(3)
        expect(page.locator(".document.ready")).to_have_count(2)
        expect(page.locator(".document.failed")).to_contain_text("damaged or incomplete")
        expect(page.get_by_role("heading", level=1)).to_have_text("My documents")
        page.get_by_role("button", name="handbook.en.pdf", exact=True).click()
        expect(page.locator(".source-text")).to_contain_text("Ingrid Solheim")
        page.get_by_role("button", name="Next page").click()
        expect(page.locator(".source-text")).to_contain_text("Trips of less than 400 kilometres")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download the file").click()
        assert download.value.suggested_filename == "handbook.en.pdf"
        page.get_by_role("button", name="Delete: broken.pdf").click()
        page.locator("dialog").get_by_role("button", name="Delete").click()
        expect(rows).to_have_count(2)
        # The same file again is recognised.
        page.locator("input[type=file]").set_input_files([FOLDER / "staff.csv"])
        expect(page.get_by_text("is here already")).to_be_visible()
        expect(rows).to_have_count(2)


def test_what_is_not_there_is_said_and_the_model_may_be_asked(
    browser: Any, address: str, backend: PacedBackend
) -> None:
    # The samples are in both languages, so the question is tried in Chinese too.
    backend.answers = [SAMPLE_ANSWER, "谁创作了歌剧《图兰朵》？", "By <b>Puccini</b>, I think."]
    with opened(browser, f"{address}/#/knowledge") as page:
        page.locator(".example").first.click()
        expect(page.locator(".quote").first).to_be_visible()
        expect(page.get_by_text("Copy with sources")).to_be_visible()
        page.get_by_label("Question").fill("Who composed the opera Turandot?")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Not found in your documents.")).to_be_visible()
        photograph(page, "not-found")
        page.get_by_role("button", name="Let the model answer without documents").click()
        expect(page.get_by_text("Uncited: this is what the model believes")).to_be_visible()
        expect(page.locator(".turn").last).to_contain_text("Puccini")
        # A second visit to the collection still has the answers.
        page.goto(f"{address}/#/chat")
        page.go_back()
        expect(page.locator(".turn")).to_have_count(3)
        page.get_by_role("button", name="Start over").click()
        expect(page.locator(".turn")).to_have_count(0)


@pytest.mark.parametrize("address", ["words only"], indirect=True)
def test_without_an_embedding_model_the_page_says_so(browser: Any, address: str) -> None:
    with opened(browser, f"{address}/#/knowledge", "zh-CN") as page:
        expect(page.get_by_text("仅按词语检索。")).to_be_visible()


def test_collections_are_named_renamed_and_deleted_by_keyboard(browser: Any, address: str) -> None:
    with opened(browser, f"{address}/#/knowledge") as page:
        page.get_by_role("button", name="New collection").click()
        expect(page.locator("dialog input")).to_be_focused()
        page.keyboard.type("Travel")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Travel")
        expect(page.get_by_text("This collection is empty")).to_be_visible()
        page.locator(".page-actions").get_by_role("button", name="Travel").click()
        expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
        page.keyboard.press("Enter")
        page.locator("dialog input").fill("旅行")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("旅行")
        page.locator(".page-actions").get_by_role("button", name="旅行").click()
        expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.locator("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("Ask your own documents")).to_be_visible()


def test_axe_finds_nothing_serious(browser: Any, address: str, backend: PacedBackend) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    backend.answers = [SAMPLE_ANSWER]
    for scheme in ("light", "dark"):
        with opened(browser, f"{address}/#/knowledge", color_scheme=scheme) as page:
            page.locator(".example").first.click()
            if scheme == "light":
                expect(page.get_by_text("Copy with sources")).to_be_visible()
                page.locator(".chip").first.click()
                expect(page.locator(".source-text mark")).to_be_visible()
            found = axe.Axe().run(page).response["violations"]
            serious = [v for v in found if v["impact"] in ("serious", "critical")]
            assert not serious, [(v["id"], v["nodes"][0]["html"]) for v in serious]
