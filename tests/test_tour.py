"""The tour: its text is right and reproducible, and a small one runs from text to answers."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hunyuan
from hunyuan.cli import tour as command
from hunyuan.cli.main import run
from hunyuan.data.shards import TokenSet
from hunyuan.tour.text import conversations, documents
from hunyuan.tour.words import ANIMALS, CAPITALS, OPPOSITES
from hunyuan.train.saving import checkpoints
from hunyuan.train.task import read_recipe

HAN = re.compile("[\u4e00-\u9fff]")
SUM = re.compile(r"(\d+) (?:plus|加) (\d+) (?:is|等于) (\d+)")


def take(seed: int, count: int) -> list[tuple[str, str]]:
    return list(itertools.islice(documents(seed), count))


# ---------------------------------------------------------------- the text


def test_the_text_is_the_same_for_the_same_seed_and_another_for_others() -> None:
    assert take(3, 50) == take(3, 50)
    assert take(3, 50) != take(4, 50)
    assert conversations(3, 50) == conversations(3, 50)
    assert conversations(3, 50) != conversations(4, 50)
    assert conversations(3, 80)[:50] == conversations(3, 50)


def test_all_sums_are_right() -> None:
    texts = [text for _, text in take(0, 2000)]
    for record in conversations(0, 2000):
        question, answer = (message["content"] for message in record["messages"])
        texts.append(answer)
        if "plus" in question or "加" in question:
            assert re.findall(r"\d+", question) == re.findall(r"\d+", answer)[:2]
    sums = [tuple(map(int, found)) for text in texts for found in SUM.findall(text)]
    assert len(sums) > 500
    assert all(a + b == total for a, b, total in sums)
    assert {a for a, _, _ in sums} == set(range(10)), "every digit occurs"


def test_all_facts_are_those_of_the_world() -> None:
    """What a sentence says of capitals, opposites and animals stands in the word lists."""
    text = "\n".join(text for _, text in take(0, 2000))
    text += "\n".join(r["messages"][1]["content"] for r in conversations(0, 1000))
    pairs = {
        r"The capital of (\w+) is (\w+)\.": {(c[0], c[1]) for c in CAPITALS},
        r"([\u4e00-\u9fff]{2,4}?)的首都是([\u4e00-\u9fff]+)。": {(c[2], c[3]) for c in CAPITALS},
        r"The opposite of (\w+) is (\w+)\.": {
            pair for o in OPPOSITES for pair in ((o[0], o[1]), (o[1], o[0]))
        },
        r"“(\w)”的反义词是“(\w)”。": {
            pair for o in OPPOSITES for pair in ((o[2], o[3]), (o[3], o[2]))
        },
        r"The (\w+) likes (\w+)\.": {(a[0], a[2]) for a in ANIMALS},
    }
    for pattern, known in pairs.items():
        found = set(re.findall(pattern, text))
        assert found == known, pattern


def test_every_text_is_in_the_language_it_is_said_to_be_in() -> None:
    seen = {"en": 0, "zh": 0}
    for language, text in take(0, 400):
        seen[language] += 1
        assert bool(HAN.search(text)) == (language == "zh")
        assert bool(re.search("[A-Za-z]", text)) == (language == "en")
        assert text == text.strip()
        assert len(text) > 15
    assert min(seen.values()) > 150


def test_questions_are_answered_in_their_language() -> None:
    records = conversations(0, 400)
    for record in records:
        assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
        question, answer = (message["content"] for message in record["messages"])
        assert bool(HAN.search(question)) == bool(HAN.search(answer))
        assert question.endswith(("?", "？"))
        assert answer.endswith((".", "。"))
    asked = {record["messages"][0]["content"] for record in conversations(2, 4000)}
    for questions in command._QUESTIONS.values():
        assert set(questions) <= asked, "the tour asks what it has taught"


def test_the_recipes_of_the_tour_are_valid() -> None:
    for table in (command._pretraining(Path("t")), command._fine_tuning(Path("t"))):
        recipe = read_recipe(table)
        assert recipe.batch.row_tokens <= command._SHAPE["context"]


# ---------------------------------------------------------------- a small tour


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same tour in seconds: less text, a smaller model, fewer steps."""
    pretraining, fine_tuning = command._pretraining, command._fine_tuning

    def shorter(folder: Path) -> dict[str, Any]:
        table = pretraining(folder)
        table["model"]["routing"]["capacity_group"] = 256
        return table | {
            "batch": {"rows": 4, "row_tokens": 64},
            "schedule": {"tokens": 256 * 8},
            "log": {"every": 4, "experts_every": 4},
        }

    def fewer(folder: Path) -> dict[str, Any]:
        changes = {"batch": {"rows": 4, "row_tokens": 64}, "schedule": {"epochs": 1}}
        return fine_tuning(folder) | changes

    monkeypatch.setattr(command, "_DOCUMENTS", 300)
    monkeypatch.setattr(command, "_CONVERSATIONS", 40)
    monkeypatch.setattr(command, "_VOCABULARY", 300)
    shape = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 32, "context": 128}
    monkeypatch.setattr(command, "_SHAPE", command._SHAPE | shape)
    monkeypatch.setattr(command, "_pretraining", shorter)
    monkeypatch.setattr(command, "_fine_tuning", fewer)
    monkeypatch.setattr("hunyuan.train.task.matrix_peak", lambda dtype: 1e12)
    monkeypatch.setattr("hunyuan.train.outside.keep_freed_memory", lambda: None)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.mark.usefixtures("small")
def test_a_small_tour_from_text_to_answers_in_both_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the server
    monkeypatch.setenv("HUNYUAN_LANG", "en")
    folder = tmp_path / "tour"
    assert run(["tour", str(folder)]) == 0
    said = capsys.readouterr().out
    for stage in range(1, 6):
        assert f"\n[{stage}/5] " in said
    told = re.findall(r"  > (.*)\n    (.*)\n", said)
    assert [question for question, _ in told] == list(command._QUESTIONS["en"])
    assert not HAN.search(said.partition("[5/5]")[0])
    assert f"go on: hunyuan chat {folder}/assistant" in said

    data = TokenSet.open(folder / "data", verify=True)
    assert set(data.sources("train")) == set(data.sources("heldout")) == {"en", "zh"}
    lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == conversations(2, 40)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "pretrained" in page
    assert "assistant" in page
    for name in ("pretrained", "assistant"):
        assert (folder / name / "recipe.toml").is_file()
        assert checkpoints(folder / name / "checkpoints")
    # What was answered over HTTP is what the model says: the first question again, in this process.
    engine = hunyuan.Engine(
        hunyuan.load_packed(folder / "assistant"), hunyuan.load_tokenizer(folder / "assistant")
    )
    prompt = engine.tokenizer.chat_prompt([{"role": "user", "content": told[0][0]}])
    again = engine.generate(prompt, max_tokens=40, temperature=0)
    assert again.text.split("\n")[0] == told[0][1]

    # The same command goes on where there is something left, here the last stages alone.
    steps = {p: p.stat().st_mtime_ns for p in folder.glob("*/checkpoints/step-*/config.json")}
    monkeypatch.setenv("HUNYUAN_LANG", "zh")
    assert run(["tour", str(folder)]) == 0
    said = capsys.readouterr().out
    assert [q for q, _ in re.findall(r"  > (.*)\n    (.*)\n", said)] == list(
        command._QUESTIONS["zh"]
    )
    assert f"继续：hunyuan chat {folder}/assistant" in said
    assert {p: p.stat().st_mtime_ns for p in steps} == steps


def test_a_tour_into_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tour").write_text("x")
    assert run(["tour", str(tmp_path / "tour")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_server_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", "en")
    with pytest.raises(hunyuan.errors.HunyuanError) as caught:
        command._ask(tmp_path, ("Anybody there?",))
    assert "the server did not start: error: " in caught.value.en
    assert str(tmp_path) in caught.value.en
