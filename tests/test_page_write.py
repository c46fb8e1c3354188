"""The write screen in a real Chromium: editing, saving, suggestions taken one by one, versions."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import Served, opened, until

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
pytestmark = pytest.mark.browser

BEFORE = "Last week we has finish the site. It were slow. We fixed it on thursday."
AFTER = "Last week we finished the site. It was slow. We fixed it on Thursday."

browser, served = pages.browser, pages.served


def open_document(page: Any, served: Served, text: str = BEFORE, title: str = "Report") -> Any:
    """A document of this text, open in the editor."""
    made = served.store.documents.create(title=title, text=text)
    page.goto(f"{served.address}/#/write/{made.id}")
    expect(page.locator(".editor")).to_have_value(text)
    expect(page.get_by_role("toolbar").get_by_role("button").first).to_be_visible()
    return made


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    with opened(browser, f"{served.address}/#/write") as page:
        yield page


def act(page: Any, name: str, choice: str | None = None) -> None:
    page.get_by_role("toolbar").get_by_role("button", name=name, exact=True).click()
    if choice:
        page.get_by_role("menuitem", name=choice).click()


def stored(served: Served, document: str) -> str:
    text: str = served.store.documents.get(document).text
    return text


def test_a_text_is_saved_as_it_is_written(page: Any, served: Served) -> None:
    page.locator(".list-head").get_by_role("button", name="New document").click()
    page.fill(".document-title", "Notes")
    page.press(".document-title", "Enter")
    expect(page.locator(".editor")).to_be_focused()
    page.keyboard.type("First line")
    expect(page.locator(".save-state")).to_have_text("Saved")
    (only,) = served.store.documents.page()[0]
    assert (only.title, stored(served, only.id)) == ("Notes", "First line")
    expect(page.locator(".list-item.current")).to_contain_text("Notes")
    page.keyboard.type(" and more")
    page.click(".place >> nth=0")  # leaving saves what was typed last
    until(lambda: stored(served, only.id) == "First line and more")
    page.go_back()
    expect(page.locator(".editor")).to_have_value("First line and more")
    page.keyboard.press("Tab")
    page.locator(".editor").press_sequentially("!")
    page.reload()  # and so does going altogether
    until(lambda: "!" in stored(served, only.id))


def test_changes_are_taken_one_by_one(page: Any, served: Served) -> None:
    made = open_document(page, served)
    served.backend.answers = [AFTER]
    act(page, "Polish", "Grammar")
    expect(page.locator(".review .change")).to_have_count(3)
    expect(page.locator(".review-status")).to_have_text("3 of 3 to decide")
    assert page.locator(".change del").all_inner_texts() == ["has finish", "were", "thursday"]
    assert page.locator(".change ins").all_inner_texts() == ["finished", "was", "Thursday"]
    page.get_by_role("button", name="Accept", exact=True).click()
    expect(page.locator(".review-status")).to_have_text("2 of 3 to decide")
    page.get_by_role("button", name="Reject", exact=True).click()
    page.get_by_role("button", name="Accept", exact=True).click()
    expected = "Last week we finished the site. It were slow. We fixed it on Thursday."
    expect(page.locator(".editor")).to_have_value(expected)
    until(lambda: stored(served, made.id) == expected)
    expect(page.locator(".editor")).to_be_focused()
    page.keyboard.press("Control+z")
    expect(page.locator(".editor")).to_have_value(BEFORE)
    until(lambda: stored(served, made.id) == BEFORE)
    authors = [version.author for version in served.store.documents.versions(made.id)]
    assert "polish" in authors


def test_changes_by_keyboard_and_side_by_side(page: Any, served: Served) -> None:
    open_document(page, served)
    served.backend.answers = [AFTER]
    act(page, "Polish", "Grammar")
    page.get_by_role("radio", name="Side by side").check()
    left, right = (
        page.locator(".review-row:not(.names) > div").nth(n).inner_text() for n in (0, 1)
    )
    assert (left, right) == (BEFORE, AFTER)
    page.locator(".review-body").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    expect(page.locator(".editor")).to_have_value(BEFORE.replace("were", "was"))


def test_chinese_changes_by_words(browser: Any, served: Served) -> None:
    before, after = "这是非常的好，我觉得很满意。", "这是优异，我觉得十分满意。"
    with opened(browser, f"{served.address}/#/write", "zh-CN") as page:
        open_document(page, served, before)
        served.backend.answers = [after]
        act(page, "润色", "清晰")
        expect(page.locator(".change")).to_have_count(2)
        assert page.locator(".change del").all_inner_texts() == ["非常的好", "很"]
        assert page.locator(".change ins").all_inner_texts() == ["优异", "十分"]
        page.get_by_role("button", name="全部接受").click()
        expect(page.locator(".editor")).to_have_value(after)


def test_only_the_selection_is_changed(page: Any, served: Served) -> None:
    made = open_document(page, served)
    start = BEFORE.index("It were slow.")
    page.evaluate(
        "([a, b]) => { const e = document.querySelector('.editor');"
        " e.focus(); e.setSelectionRange(a, b); }",
        [start, start + len("It were slow.")],
    )
    expect(page.locator(".counts")).to_contain_text("Selection · 3 words")
    served.backend.answers = ["It was slow."]
    act(page, "Polish", "Grammar")
    expect(page.locator(".change")).to_have_count(1)
    expect(page.locator(".around").first).to_contain_text("has finish")
    page.get_by_role("button", name="Accept all").click()
    expect(page.locator(".editor")).to_have_value(BEFORE.replace("were", "was"))
    until(lambda: "was slow" in stored(served, made.id))


def test_a_suggestion_can_be_watched_stopped_and_refused(page: Any, served: Served) -> None:
    open_document(page, served)
    never = threading.Event()
    said = f"{AFTER} Next week we shall write the documentation and test it"
    served.backend.answers = [[said, never]]
    act(page, "Polish", "Clarity")
    expect(page.locator(".growing")).to_contain_text("Last week")
    expect(page.locator(".editor")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator(".editor")).to_be_visible()
    assert served.backend.left.wait(5)
    served.backend.answers = [AFTER]
    act(page, "Polish", "Clarity")
    page.get_by_role("button", name="Reject all").click()
    expect(page.locator(".editor")).to_have_value(BEFORE)
    expect(page.locator(".toast").last).to_contain_text("Nothing was changed")


def test_a_draft_from_a_brief(page: Any, served: Served) -> None:
    page.locator(".example").nth(0).click()
    brief = page.get_by_label("What should it say?")
    expect(brief).to_have_value(
        "Invite colleagues to a summer picnic next Friday at 4 pm in the park."
    )
    page.get_by_label("Form").select_option("notice")
    page.get_by_label("Tone").select_option("friendly")
    served.backend.answers = ["Come to our picnic on Friday at 4 pm in the park!"]
    page.get_by_role("button", name="Write it").click()
    expect(page.locator(".change ins")).to_contain_text("Come to our picnic")
    prompt = served.backend.prompts()[-1][1]
    assert "summer picnic" in prompt
    page.get_by_role("button", name="Accept all").click()
    expect(page.locator(".editor")).to_have_value(
        "Come to our picnic on Friday at 4 pm in the park!"
    )


def test_summaries_ideas_and_titles_stand_beside(page: Any, served: Served) -> None:
    made = open_document(page, served)
    served.backend.answers = ["The site is done."]
    act(page, "Summarise", "One line")
    expect(page.locator(".details .prose")).to_have_text("The site is done.")
    expect(page.locator(".editor")).to_have_value(BEFORE)
    page.locator(".details").get_by_role("button", name="Insert at the cursor").click()
    expect(page.locator(".editor")).to_have_value("The site is done." + BEFORE)
    served.backend.answers = ["1. A faster site\n2. Done at last\n3. Week one"]
    act(page, "Title")
    expect(page.locator(".ideas li")).to_have_count(3)
    page.locator(".ideas li").nth(1).get_by_role("button", name="Use as the title").click()
    expect(page.locator(".document-title")).to_have_value("Done at last")
    until(lambda: served.store.documents.get(made.id).title == "Done at last")


def test_two_writers_lose_nothing(browser: Any, served: Served) -> None:
    with opened(browser, f"{served.address}/#/write", expected="409") as page:
        made = open_document(page, served, "one two three")
        other = served.store.documents
        other.save(made.id, version=1, text="one two THREE")
        page.locator(".editor").press("End")
        page.keyboard.type(" four")
        notice = page.locator(".canvas-notice .notice")
        expect(notice).to_contain_text("also changed elsewhere")
        page.keyboard.type(" five")
        assert stored(served, made.id) == "one two THREE"
        notice.get_by_role("button", name="Compare").click()
        expect(page.locator(".change")).to_have_count(1)
        page.get_by_role("button", name="Accept all").click()
        until(lambda: stored(served, made.id) == "one two three four five")
        expect(page.locator(".canvas-notice")).to_have_count(0)
        version = other.get(made.id).version
        other.save(made.id, version=version, text="theirs")
        page.locator(".editor").press("End")
        page.keyboard.type("!")
        notice.get_by_role("button", name="Take the other").click()
        expect(page.locator(".editor")).to_have_value("theirs")
        expect(page.locator(".save-state")).to_have_text("Saved")


def test_versions_are_compared_and_come_back(page: Any, served: Served) -> None:
    made = open_document(page, served)
    served.backend.answers = [AFTER]
    act(page, "Polish", "Grammar")
    page.get_by_role("button", name="Accept all").click()
    expect(page.locator(".save-state")).to_have_text("Saved")
    page.click(".counts")
    page.get_by_role("tab", name="Versions").click()
    expect(page.locator(".version-list li")).to_have_count(2)
    expect(page.locator(".version-list li").first).to_contain_text("Polish")
    page.locator(".version-list").get_by_role("button", name="Compare").click()
    expect(page.locator(".review .change")).to_have_count(3)
    page.locator(".review-foot").get_by_role("button", name="Restore").click()
    expect(page.locator(".editor")).to_have_value(BEFORE)
    assert stored(served, made.id) == BEFORE


def test_counts_and_readability(page: Any, served: Served) -> None:
    open_document(page, served, "The cat sat on the mat. " * 10)
    expect(page.locator(".counts")).to_contain_text("60 words · 240 characters")
    expect(page.locator(".counts")).to_contain_text("easy to read")
    page.click(".counts")
    shown = page.locator(".statistics")
    expect(shown).to_contain_text("Sentences10")
    expect(shown).to_contain_text("Words a sentence6")
    page.fill(".editor", "我们昨天去了北京。天气非常好，我们都很高兴！")
    expect(shown).to_contain_text("Chinese characters19")
    expect(shown).to_contain_text("Sentences2")
    ease = page.evaluate(
        "import('/static/lib/readability.js').then(({measure}) => ["
        "measure('The cat sat on the mat.').ease,"
        "measure('Institutional considerations necessitate organisational deliberation.').ease])"
    )
    assert ease[0] > 90
    assert ease[1] < 10


def test_export_and_preview(page: Any, served: Served) -> None:
    open_document(page, served, "# Head\n\n**bold** <b>x</b>", "My/Report")
    page.get_by_role("radio", name="Preview").check()
    expect(page.locator(".preview h1")).to_have_text("Head")
    expect(page.locator(".preview strong")).to_have_text("bold")
    assert page.locator(".preview b").count() == 0
    with page.expect_download() as saved:
        page.locator(".page-actions").get_by_role("button", name="More").click()
        page.get_by_role("menuitem", name="Export as Markdown").click()
    assert saved.value.suggested_filename == "My Report.md"
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    assert text == "# Head\n\n**bold** <b>x</b>"


def test_a_server_that_is_away_is_waited_for(browser: Any, served: Served) -> None:
    with opened(browser, f"{served.address}/#/write", expected="Failed to load") as page:
        made = open_document(page, served, "text")
        page.route("**/workbench/write/*", lambda route: route.abort())
        page.locator(".editor").press("End")
        page.keyboard.type(" kept")
        expect(page.locator(".save-state")).to_contain_text("cannot be reached")
        page.unroute("**/workbench/write/*")
        expect(page.locator(".save-state")).to_have_text("Saved")
        assert stored(served, made.id) == "text kept"


def test_any_two_texts_are_their_changes(page: Any) -> None:
    """Rejecting all gives the old text back, accepting all the new one, whatever they are."""
    wrong = page.evaluate(
        """async () => {
          const { changes, applied } = await import('/static/lib/diff.js');
          const parts = ['a ', 'b ', 'c', '我', '们 ', '\\n', 'the ', '  ', '，', '👩', 'é'];
          let seed = 7;
          const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
          const part = () => parts[random(parts.length)];
          const text = () => Array.from({length: random(16)}, part).join('');
          const wrong = [];
          for (let n = 0; n < 2000; n += 1) {
            const [before, after] = [text(), text()];
            const list = changes(before, after);
            const back = applied(list, () => false);
            const forth = applied(list, () => true);
            if (back !== before || forth !== after) wrong.push([before, after]);
          }
          return wrong;
        }"""
    )
    assert wrong == []
