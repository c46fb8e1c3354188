"""The writing place: documents over HTTP, parts of long texts, and answers made usable."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Reply, ScriptedBackend
from serving import app_of, http, listening

from hunyuan.errors import UsageError
from hunyuan.serve.backend import ModelCard
from hunyuan.serve.schema import ChatRequest
from hunyuan.workbench.actions import ACTIONS, FORMS, LENGTHS, TONES
from hunyuan.workbench.cleaning import (
    Preview,
    changed_numbers,
    cleaned,
    fault,
    hardly_changed,
    language_pattern,
    listed,
    loops,
    repeats,
    untranslated,
    without_loop,
)
from hunyuan.workbench.language import text_language
from hunyuan.workbench.parts import beginning, ending, parts_of, to_sentence_end
from hunyuan.workbench.store import Store
from hunyuan.workbench.templates import BUILT_IN, Templates, read_template
from hunyuan.workbench.writing import writing_router

Event = dict[str, Any]
Script = Callable[[ChatRequest], Reply]

EN = "The ship sails at nine. It is late."
ZH = "船九点开。它晚了。"


@contextmanager
def writing(
    backend: ScriptedBackend, folder: Path, prompts: Path | None = None
) -> Iterator[httpx2.Client]:
    with Store(folder / "workbench.db") as store:
        router = writing_router(lambda: backend, store.documents, Templates(prompts))
        with listening(app_of(router)) as address, http(address) as client:
            yield client


def act(client: httpx2.Client, action: str, **body: Any) -> list[Event]:
    path = f"/workbench/write/actions/{action}"
    with client.stream("POST", path, json=body) as response:
        assert response.status_code == 200, response.read()
        return [json.loads(line[6:]) for line in response.iter_lines() if line[:6] == "data: "]


def result_of(events: list[Event]) -> Event:
    assert [event["type"] for event in events[-2:]] == ["result", "done"]
    return events[-2]


def codes(events: list[Event]) -> list[str]:
    return [note["code"] for note in result_of(events)["notes"]]


# ---------------------------------------------------------------- documents over HTTP


def test_documents_over_http(tmp_path: Path) -> None:
    with writing(ScriptedBackend(), tmp_path) as client:
        made = client.post("/workbench/write", json={"title": "计划", "text": "一"})
        assert made.status_code == 201
        path = f"/workbench/write/{made.json()['id']}"
        assert client.get(path).json() == made.json()
        saved = client.put(path, json={"version": 1, "text": "一二", "author": "polish"})
        assert saved.json()["version"] == 2
        conflict = client.put(path, json={"version": 1, "text": "mine"})
        assert conflict.status_code == 409
        body = conflict.json()
        assert body["error"]["code"] == "version_conflict"
        assert body["current"]["text"] == "一二"
        assert body["base"]["text"] == "一"
        versions = client.get(f"{path}/versions").json()["versions"]
        assert [(v["version"], v["author"]) for v in versions] == [(2, "polish"), (1, "user")]
        assert client.get(f"{path}/versions/1").json()["text"] == "一"
        restored = client.post(f"{path}/restore", json={"restore": 1, "version": 2})
        assert (restored.json()["text"], restored.json()["version"]) == ("一", 3)
        listed_now = client.get("/workbench/write", params={"query": "计划"}).json()
        assert [found["preview"] for found in listed_now["documents"]] == ["一"]
        assert client.delete(path).json() == {"deleted": True}
        assert client.get(path).status_code == 404


# ---------------------------------------------------------------- every action


GOOD = {
    "draft": {"brief": "the ship is late"},
    "translate": {},
}


def in_language(request: ChatRequest) -> Reply:
    """Something new in the language that the prompt asks in, longer than the text."""
    asked = str(request.messages[-1].content)
    items = "请给出" in asked or "请为" in asked or "different" in asked
    if text_language(asked.replace("Translate into English", "")) == "zh" and (
        "Translate into English" not in asked
    ):
        return (
            "1. 一号点子\n2. 二号点子\n3. 三号点子" if items else "轮船出发得比预定的时间更迟一些。"
        )
    return "1. First\n2. Second\n3. Third" if items else "A vessel leaves somewhat after its hour."


@pytest.mark.parametrize("text", [EN, ZH])
@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_every_action_in_both_languages(tmp_path: Path, action: str, text: str) -> None:
    backend = ScriptedBackend(in_language)
    fields: dict[str, Any] = {}
    if action == "draft":
        fields = {"brief": text, "audience": text[:4]}
    if ACTIONS[action].result == "items":
        fields = {"count": 3}
    with writing(backend, tmp_path) as client:
        events = act(client, action, text="" if action == "draft" else text, **fields)
    result = result_of(events)
    language = text_language(text)
    if action == "translate":
        language = "en" if language == "zh" else "zh"
    assert result["language"] == language
    assert result["replacement"] or action == "shorten"
    if ACTIONS[action].result == "items":
        assert len(result["items"]) == 3
    asked = "".join(str(m.content) for m in backend.requests[0].messages)
    assert "{" not in asked, "every field was filled"
    assert text in asked


@pytest.mark.parametrize(
    ("action", "field", "choices"),
    [("draft", "form", FORMS), ("draft", "tone", TONES), ("draft", "length", LENGTHS)],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_choice_is_worded(
    action: str, field: str, choices: tuple[str, ...], language: str
) -> None:
    for name, kind in ACTIONS.items():
        template = Templates().get("writing", name, language, kind.template_fields)  # type: ignore[arg-type]
        for known in kind.fields:
            if known.kind == "choice" and f"{{{known.name}}}" in template.user:
                assert set(template.choices[known.name]) == set(known.choices), (name, known.name)
    assert set(choices) == set(
        Templates().get("writing", action, "en", ACTIONS[action].template_fields).choices[field]
    )


def test_the_actions_are_described(tmp_path: Path) -> None:
    with writing(ScriptedBackend(), tmp_path) as client:
        described = client.get("/workbench/write/actions").json()["actions"]
        assert [action["action"] for action in described] == list(ACTIONS)
        polish = next(action for action in described if action["action"] == "polish")
        assert polish["fields"][0]["choices"][0] == polish["fields"][0]["default"] == "clarity"


@pytest.mark.parametrize(
    ("action", "body", "param"),
    [
        ("nothing", {}, None),
        ("polish", {"text": "  "}, "text"),
        ("polish", {"text": "x", "focus": "loud"}, "focus"),
        ("polish", {"text": "x", "tone": "formal"}, "tone"),
        ("draft", {}, "brief"),
        ("draft", {"brief": "x" * 4001}, "brief"),
        ("brainstorm", {"topic": "x", "count": 99}, "count"),
        ("brainstorm", {"topic": "x", "count": "6"}, "count"),
        ("brainstorm", {}, "topic"),
        ("polish", {"text": "x", "span": [5, 2]}, "span"),
        ("polish", {"text": "x", "span": [-1, 2]}, "span"),
    ],
)
def test_wrong_requests_are_refused(
    tmp_path: Path, action: str, body: dict[str, Any], param: str | None
) -> None:
    backend = ScriptedBackend()
    with writing(backend, tmp_path) as client:
        for lang in ("en", "zh"):
            refused = client.post(
                f"/workbench/write/actions/{action}", json=body, headers={"Accept-Language": lang}
            )
            assert refused.status_code == (400 if param else 404), refused.text
            assert refused.json()["error"]["param"] == param
    assert backend.requests == []


# ---------------------------------------------------------------- what comes back


def test_a_selection_in_utf16_and_what_stands_around_it(tmp_path: Path) -> None:
    text = "😀 Before it. the ship are late. After it."
    start = len("😀 Before it. ".encode("utf-16-le")) // 2
    end = start + len("the ship are late.")
    backend = ScriptedBackend(["Here is the corrected text:\n\nThe ship is late."])
    with writing(backend, tmp_path) as client:
        events = act(client, "polish", text=text, span=[start, end], focus="grammar")
    result = result_of(events)
    assert result["original"] == "the ship are late."
    assert result["replacement"] == "The ship is late."
    assert result["span"] == [start, end]
    assert result["notes"] == []
    preview = "".join(event["text"] for event in events if event["type"] == "delta")
    assert preview == "The ship is late.", "the announcement is not shown"
    sent = [str(message.content) for message in backend.requests[0].messages]
    assert sent[-1].endswith("\n\nthe ship are late.")
    assert "It stands after: 😀 Before it." in sent[0]
    assert "It stands before: After it." in sent[0]


def test_paragraphs_and_the_space_between_them_survive(tmp_path: Path) -> None:
    text = "\n\nOne bad line.\n\n\n* * *\n\n  Two bad lines.\n"
    backend = ScriptedBackend(lambda request: _last_part(request).replace("bad", "good"))
    backend.model = ModelCard(id="small", created=0, context=1400, parameters=1)
    with writing(backend, tmp_path) as client:
        result = result_of(act(client, "polish", text=text))
    assert result["replacement"] == text.replace("bad", "good")


def _last_part(request: ChatRequest) -> str:
    return str(request.messages[-1].content).split("\n\n", 1)[1]


def test_a_long_text_is_done_part_by_part(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {i} is bad. " + "It goes on and on. " * 8 for i in range(6))
    backend = ScriptedBackend(lambda request: _last_part(request).replace("bad", "good"))
    with writing(backend, tmp_path) as client:
        events = act(client, "polish", text=text)
    result = result_of(events)
    assert result["replacement"] == text.replace("bad", "good")
    progress = [event for event in events if event["type"] == "progress"]
    assert len(progress) > 2
    assert [event["part"] for event in progress] == list(range(1, len(progress) + 1))
    assert len(backend.requests) == len(progress)


def test_a_good_sentence_among_others_may_stay(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {i} is bad. " + "It goes on. " * 8 for i in range(4))

    def only_one(request: ChatRequest) -> Reply:
        part = _last_part(request)
        return part.replace("bad", "good") if "Paragraph 2" in part else part

    with writing(ScriptedBackend(only_one), tmp_path) as client:
        events = act(client, "polish", text=text)
        assert codes(events) == []
        assert result_of(events)["replacement"] == text.replace("2 is bad", "2 is good")
        assert not [event for event in events if event["type"] == "restart"]
    with writing(ScriptedBackend(_last_part), tmp_path) as client:
        assert codes(act(client, "polish", text=text)) == ["unchanged"]


def test_a_long_text_is_summarised_by_its_parts(tmp_path: Path) -> None:
    text = "\n\n".join(f"Fact {i}. " + "It is explained at length. " * 12 for i in range(12))
    backend = ScriptedBackend(["A fact was explained."])
    with writing(backend, tmp_path) as client:
        events = act(client, "summarise", text=text, style="line")
    stages = [event["stage"] for event in events if event["type"] == "progress"]
    assert stages[-1] == "combine"
    assert stages[:-1] == ["read"] * len(stages[:-1])
    assert len(stages) > 2
    assert result_of(events)["replacement"] == "A fact was explained."
    read = "".join(str(request.messages[-1].content) for request in backend.requests)
    assert all(f"Fact {i}." in read for i in range(12)), "nothing was left out"


@pytest.mark.parametrize(
    ("action", "text", "answers", "expected", "notes", "asked"),
    [
        ("polish", EN, [EN, "The ship sails at nine; it is late."], "The ship", [], 2),
        ("polish", EN, [EN, EN], EN, ["unchanged"], 2),
        ("polish", EN, ["", ""], EN, ["empty"], 2),
        ("polish", EN, ["船九点开。"], EN, ["wrong_language"], 2),
        ("polish", EN, ["The ship sails at ten."], "The ship sails at ten.", [], 1),
        ("polish", "It costs 12 euros today.", ["It costs 13 euros."], "It", ["numbers"], 1),
        ("polish", "a " * 35, ["b"], "b", ["length"], 2),
        ("shorten", EN, [EN + " " + EN], EN, ["longer"], 2),
        ("shorten", EN, [EN + EN, "It sails late."], "It sails late.", [], 2),
        ("expand", EN, ["Late."], EN, ["shorter"], 2),
        ("translate", EN, ["船在 nine 点 sails。", "船九点开，晚了。"], "船九点开，晚了。", [], 2),
        ("translate", EN, ["船 sails late。"], "船 sails late。", ["untranslated"], 2),
        ("rewrite", EN, [EN.replace("late", "later")], EN, ["unchanged"], 2),
        ("draft", "", ["", ""], "", ["empty"], 2),
        ("continue", EN, [EN], "", ["repeated"], 2),
        ("continue", EN, [EN + " Nobody waits."], " Nobody waits.", [], 1),
    ],
)
def test_answers_are_checked_and_asked_for_once_more(
    tmp_path: Path,
    action: str,
    text: str,
    answers: list[str],
    expected: str,
    notes: list[str],
    asked: int,
) -> None:
    backend = ScriptedBackend(answers)
    fields = {"brief": EN} if action == "draft" else {}
    with writing(backend, tmp_path) as client:
        events = act(client, action, text=text, **fields)
    assert result_of(events)["replacement"].startswith(expected)
    assert codes(events) == notes
    assert len(backend.requests) == asked
    assert len([e for e in events if e["type"] == "restart"]) == asked - 1
    if asked == 2:
        first, second = (request.temperature for request in backend.requests)
        assert first is not None
        assert second is not None
        assert second > first


def test_the_second_try_is_held_to_its_language(tmp_path: Path) -> None:
    backend = ScriptedBackend(["船 sails"])
    with writing(backend, tmp_path) as client:
        act(client, "translate", text="Tom sails at nine.")
        first, second = (request.structured_outputs for request in backend.requests)
        assert first is None
        assert second is not None
        assert second.regex == "([^a-z]|Tom)+"
        backend.model = ModelCard(id="far", created=0, context=8192, local=False)
        backend.requests.clear()
        act(client, "translate", text="Tom sails at nine.")
        assert backend.requests[1].structured_outputs is None


def test_an_example_is_no_answer(tmp_path: Path) -> None:
    template = Templates().get("writing", "shorten", "en", ACTIONS["shorten"].template_fields)
    example = template.examples[0].assistant
    with writing(ScriptedBackend([example]), tmp_path) as client:
        events = act(client, "shorten", text=EN * 4)
        assert result_of(events)["replacement"] == EN * 4
        assert codes(events) == ["copied"]
        ideas = Templates().get("writing", "brainstorm", "en", {"text", "count"}).examples[0]
    with writing(ScriptedBackend([ideas.assistant]), tmp_path) as client:
        events = act(client, "brainstorm", topic="a birthday")
        assert (result_of(events)["items"], codes(events)) == ([], ["empty"])


def test_facts_of_a_brief_are_looked_for(tmp_path: Path) -> None:
    backend = ScriptedBackend(["We meet on Monday in room 7."])
    with writing(backend, tmp_path) as client:
        events = act(client, "draft", brief="meeting on Friday, room 7")
    note = result_of(events)["notes"][0]
    assert note["code"] == "numbers"
    assert "Monday" in note["text"]
    assert "Friday" in note["text"]


def test_notes_are_in_the_readers_language(tmp_path: Path) -> None:
    with writing(ScriptedBackend([EN]), tmp_path) as client:
        english = result_of(act(client, "polish", text=EN))["notes"]
        client.headers["Accept-Language"] = "zh-CN"
        chinese = result_of(act(client, "polish", text=EN))["notes"]
    assert text_language(english[0]["text"]) == "en"
    assert text_language(chinese[0]["text"]) == "zh"


def test_a_loop_is_ended(tmp_path: Path) -> None:
    backend = ScriptedBackend(["A ship came. " + "And then it went on and on and on. " * 200])
    with writing(backend, tmp_path) as client:
        events = act(client, "draft", brief="a ship")
    result = result_of(events)
    assert codes(events) == ["loop"]
    assert result["replacement"].count("And then") <= 2


def test_lists_are_read_and_filled_up(tmp_path: Path) -> None:
    backend = ScriptedBackend(
        ["Sure! Here are some ideas:\n1. **Bread** tasting\n2) “A stall”\n", "- A stall\n- Music"]
    )
    with writing(backend, tmp_path) as client:
        events = act(client, "brainstorm", topic="how to win guests", count=3)
    assert result_of(events)["items"] == ["Bread tasting", "A stall", "Music"]
    assert codes(events) == []
    assert result_of(events)["replacement"] == "- Bread tasting\n- A stall\n- Music"


def test_a_failing_model_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    broken = UsageError("no room", "没有空间")
    with writing(ScriptedBackend([broken]), tmp_path) as client:
        events = act(client, "polish", text=EN)
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["message"] == "no room"


def test_a_tiny_context_is_refused_with_words(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    backend.model = ModelCard(id="tiny", created=0, context=64, parameters=1)
    with writing(backend, tmp_path) as client:
        last = act(client, "polish", text=EN)[-1]
    assert last["error"]["code"] == "context_length_exceeded"
    assert "64" in last["error"]["message"]


# ---------------------------------------------------------------- templates


def test_own_templates_go_before_the_built_in_ones(tmp_path: Path) -> None:
    own = tmp_path / "prompts"
    (own / "writing").mkdir(parents=True)
    backend = ScriptedBackend(["It is late, the ship."])
    file = own / "writing" / "polish.en.toml"
    with writing(backend, tmp_path, own) as client:
        file.write_text('user = "MINE {text}\\n({focus})\\nBefore: {before}"')
        act(client, "polish", text="Ahoy. {focus}", span=[6, 13])
        asked = str(backend.requests[-1].messages[-1].content)
        assert asked == "MINE {focus}\n(clarity)\nBefore: Ahoy.", "values are no templates"
        act(client, "polish", text="Ahoy.")
        assert "Before" not in str(backend.requests[-1].messages[-1].content)
        listed_now = client.get("/workbench/write/templates").json()
        assert listed_now["folder"] == str(own / "writing")
        entry = {"name": "polish", "language": "en", "own": True, "error": None}
        assert entry in listed_now["templates"]
        file.write_text('user = "{nothing}"')
        refused = client.post("/workbench/write/actions/polish", json={"text": "Ahoy."})
        message = refused.json()["error"]["message"]
        assert refused.status_code == 400
        assert str(file) in message
        assert "user: {nothing}" in message
        found = client.get("/workbench/write/templates").json()["templates"]
        assert [one["name"] for one in found if one["error"]] == ["polish"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user = 3", "user"),
        ('system = "x"', "user"),
        ('user = "x"\ncolour = 1', "colour"),
        ('user = "{text} {secret}"', "{secret}"),
        ('user = "x"\nexamples = [{user = "a"}]', "examples.0.assistant"),
        ('user = "x"\n[choices.mood]\na = "b"', "choices.mood"),
        ('user = "x"\nexamples = [{user="a", assistant="b", when={x="y"}}]', "examples.0.when.x"),
        ('user = "x"\ntemperature = 9', "temperature"),
        ('user = "x"\nuser = "y"\n', "line 2"),
    ],
)
def test_a_bad_template_is_one_line_with_file_and_field(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "bad.en.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_template(path, {"text"})
    for message in (caught.value.en, caught.value.zh):
        assert message.startswith(str(path))
        assert said in message
        assert "\n" not in message


def test_templates_are_data(tmp_path: Path) -> None:
    path = tmp_path / "x.en.toml"
    path.write_text("user = '{text} {text.__class__} {0} {} {TEXT} {{text}}'")
    filled = read_template(path, {"text"}).messages({"text": "{text} {x}"})[-1]["content"]
    assert filled == "{text} {x} {text.__class__} {0} {} {TEXT} {{text} {x}}"


def test_a_copy_of_the_built_in_templates_is_valid(tmp_path: Path) -> None:
    shutil.copytree(BUILT_IN / "writing", tmp_path / "writing")
    names = {("writing", name): kind.template_fields for name, kind in ACTIONS.items()}
    found = Templates(tmp_path).listed(names)  # type: ignore[arg-type]
    assert len(found) == 2 * len(ACTIONS)
    assert all(one.own and one.error is None for one in found)


# ---------------------------------------------------------------- pure parts


async def by_characters(text: str) -> int:
    return len(text)


@given(st.text(alphabet="ab .。\n海", max_size=400), st.integers(5, 60))
def test_parts_are_the_text_and_fit(text: str, limit: int) -> None:
    parts = asyncio.run(parts_of(text, limit, by_characters))
    assert "".join(part.lead + part.text + part.trail for part in parts) == text
    assert all(len(part.text) <= limit for part in parts)


def test_parts_end_where_paragraphs_do() -> None:
    text = "One two three.\n\nFour five six.\n\nSeven."
    parts = asyncio.run(parts_of(text, 32, by_characters))
    assert [part.text for part in parts] == ["One two three.\n\nFour five six.", "Seven."]


@pytest.mark.parametrize(
    ("answer", "original", "expected"),
    [
        ("Here is the polished text:\n\nGood.", "Bad.", "Good."),
        ("Sure! Here's a shorter version: Good.", "Bad.", "Good."),
        ("Certainly!\n\nGood.", "Bad.", "Good."),
        ("```\nGood.\n```", "Bad.", "Good."),
        ("```text\nGood.\n```", "```\nBad.\n```", "```text\nGood.\n```"),
        ('"Good."', "Bad.", "Good."),
        ('"Good," she said. "Very."', "Bad.", '"Good," she said. "Very."'),
        ("Rewritten text: Good.", "Bad.", "Good."),
        ("**Translation:** Good.", "坏。", "Good."),
        ("Good.\n\nNote: I changed the word.", "Bad.", "Good."),
        ("Good.\n\nLet me know if you need more!", "Bad.", "Good."),
        ("好的，以下是修改后的文字：\n\n很好。", "不好。", "很好。"),
        ("译文：很好。", "Bad.", "很好。"),
        ("很好。\n\n希望这对你有帮助！", "不好。", "很好。"),
        ("“很好。”", "不好。", "很好。"),
        ("Here is the harbour: it sleeps.", "Here is the port: it sleeps.", None),
        ("Sure enough, the ship came.", "x", None),
        ("This is the end.", "x", None),
        ("当然，我们会来。", "x", None),
    ],
)
def test_what_nobody_asked_for_is_taken_away(
    answer: str, original: str, expected: str | None
) -> None:
    assert cleaned(answer, original) == (answer if expected is None else expected)


@given(st.text(max_size=300), st.integers(1, 40))
def test_a_preview_loses_nothing_however_it_is_cut(text: str, size: int) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    preview, whole = Preview(""), Preview("")
    shown = "".join(preview.take(piece) for piece in pieces) + preview.rest()
    assert text.endswith(shown) or shown == ""
    at_once = whole.take(text) + whole.rest()
    assert text.endswith(at_once) or at_once == ""


def test_lists_in_many_forms() -> None:
    assert listed("1. A\n2. B\n2. B\n\n• C", 5) == ["A", "B", "C"]
    assert listed("好的，这里有三个标题：\n一、甲\n二、乙\n《丙》", 5) == ["甲", "乙", "《丙》"]
    assert listed("Title 1: A\nTitle 2: B", 1) == ["A"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("12 million euros", "1200 万欧元", []),
        ("12 million euros", "12 亿欧元", ["12亿", "12million"]),
        ("1,200 people in 2027", "1200 people in 2027", []),
        ("three ships", "3 ships", []),
        ("3 ships", "three ships", []),
        ("3 ships", "ships", ["3"]),
        ("on Friday", "周五", []),
        ("on Friday", "on Sunday", ["Sunday", "Friday"]),
        ("星期天见", "Sunday", []),
    ],
)
def test_numbers_are_compared_by_value(before: str, after: str, expected: list[str]) -> None:
    assert changed_numbers(before, after, both_ways=True) == expected


def test_faults() -> None:
    assert fault("a", "", "en") == "empty"
    assert fault("a  b", "a b", "en") == "unchanged"
    assert fault("船", "ship", "zh") == "wrong_language"
    assert fault("船", "42", "zh") is None
    assert untranslated("the old harbour", "旧 harbour", "zh")
    assert not untranslated("Tom in NASA", "Tom 在 NASA", "zh")
    assert untranslated("旧港", "old 港", "en")
    assert hardly_changed("The report is not done yet.", "The report is not done, yet.")
    assert not hardly_changed("The report is late.", "We regret that it will take longer.")
    assert repeats("The ship sails at nine.", "ship sails at nine")
    assert not repeats("The ship sails at nine.", "Nobody knows why.")
    assert language_pattern("Bob and Al", "zh") == "([^a-z]|Al|Bob)+"


def test_loops_end_after_one_round() -> None:
    text = "Begin. " + "again and again and again it turns around itself; " * 9
    assert loops(text)
    cut = without_loop(text)
    assert cut.count("turns around") in (1, 2)
    assert not loops("All work is different. " * 3)


@pytest.mark.parametrize("text", ["", "Hello there. This is it", "你好。这是", "no end at all"])
def test_edges_of_texts(text: str) -> None:
    assert text.startswith(to_sentence_end(text))
    assert text.strip().endswith(ending(text, 8)) or not text
    assert text.strip().startswith(beginning(text, 8))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Hello", "en"),
        ("你好", "zh"),
        ("我用 Python 写程序", "zh"),
        ("The word 你好 means hello", "en"),
        ("42 !", None),
        ("", None),
    ],
)
def test_the_language_of_a_text(text: str, language: str | None) -> None:
    assert text_language(text) == language
