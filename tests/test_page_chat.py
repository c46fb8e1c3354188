"""The chat in a real Chromium."""

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import Served, answered, ask, last_answer, menu, opened, until

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser
browser, served, page = pages.browser, pages.served, pages.page


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
    bubbles = "[...document.querySelectorAll('.bubble')]"
    first = f"{bubbles}.some((one) => one.textContent.trim() === 'question 0')"
    page.wait_for_function(f"() => {{ {box}.scrollTop = 0; return {first}; }}")
    expect(page.locator(".message")).to_have_count(1000)
    served.backend.answers = ["still quick"]
    ask(page, "and?")
    expect(last_answer(page)).to_have_text("still quick")
    until(lambda: page.evaluate(f"{box}.scrollHeight - {box}.scrollTop - {box}.clientHeight") < 2)
