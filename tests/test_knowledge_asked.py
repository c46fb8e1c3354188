"""Questions over real, long documents: the kind of answer asked for, and whether it is quoted."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import FOLDER, add, settled

from hunyuan.knowledge.asked import counted, expected
from hunyuan.knowledge.base import KnowledgeBase
from hunyuan.knowledge.extract import BY_MEANING, Quote, confidence, extract, quoted_first
from hunyuan.knowledge.sentences import Span
from hunyuan.knowledge.words import names

REAL = FOLDER.parent / "knowledge-real"
MANIFEST = json.loads((REAL / "manifest.json").read_text(encoding="utf-8"))
QUESTIONS = [json.loads(line) for line in (REAL / "questions.jsonl").open(encoding="utf-8")]
SHIPPED = [entry["name"] for entry in MANIFEST if "pack" not in entry]


def squeezed(text: str) -> str:
    return "".join(text.replace(",", "").split())


@pytest.mark.parametrize(
    ("question", "answer", "other"),
    [
        ("她几岁开始学琴？", "她六岁学琴。", "她很早学琴，今年获奖三次。"),
        ("罚款最多多少钱？", "处二百元以下罚款。", "处十五日以下拘留。"),
        ("每天几点关门？", "每日二十一时闭馆。", "每周二闭馆。"),
        ("他是哪天去世的？", "2015 年 12 月 28 日在旧金山去世", "2015 年去世"),
        ("手续要办多久？", "五个工作日内完成", "应当及时完成"),
        ("这条线有多长？", "全长36.8公里", "设车站26座"),
        ("共有多少条？", "共214条", "共18章"),
        ("可以玩几个小时？", "不超过两个小时", "二十二时至次日八时"),
        ("How old was she?", "a little girl of fifteen", "a little girl with blue eyes"),
        ("When was it built?", "It was built in 1575.", "It was built of stone."),
        ("On which date did it end?", "It ended on October 9, 1890.", "It ended in 1890."),
        ("How many rows are fetched?", "a single row is fetched", "rows are fetched"),
        ("Who wrote it?", "Written by Irit Katriel.", "written by somebody"),
    ],
)
def test_a_sentence_needs_the_kind_of_thing_that_was_asked_for(
    question: str, answer: str, other: str
) -> None:
    kind = expected(question)
    assert kind is not None
    assert kind.search(answer)
    assert not kind.search(other)


@pytest.mark.parametrize("question", ["Why is the sky blue?", "什么是归纳偏向？", "", "0" * 2000])
def test_what_asks_for_no_kind_expects_none(question: str) -> None:
    assert expected(question) is None


def test_names_keep_versions_whole_and_titles() -> None:
    assert "3.11" in names("What is new in Python 3.11?")
    assert {"红楼", "楼梦"} <= names("《红楼梦》的作者是谁？")
    assert counted("How many inodes are there?") == "inodes"
    assert counted("How long is it?") == ""


def quote(score: float, *, fits: bool, named: bool = True) -> Quote:
    return Quote(0, Span(0, 1), "x", "", "", score, fits, named)


def test_confidence_has_its_border_at_one_half_and_asks_for_the_kind() -> None:
    at = [quote(BY_MEANING.middle, fits=True)]
    assert confidence("q", at, meaning=True) == pytest.approx(0.5)
    assert confidence("q", [quote(99, fits=False)], meaning=True) < 0.5
    assert confidence("q", [quote(99, fits=False), quote(1, fits=True)], meaning=True) > 0.5
    assert confidence("q", [quote(99, fits=True, named=False)], meaning=True) < 0.5
    assert confidence("q", [], meaning=True) == 0


# ------------------------------------------------------------ the set


def test_the_set_is_what_its_manifest_says() -> None:
    names_of = {entry["name"] for entry in MANIFEST}
    for entry in MANIFEST:
        if entry["name"] in SHIPPED:
            data = (REAL / entry["name"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["name"]
    assert all(entry["licence"] and entry["source"] for entry in MANIFEST)
    assert {q["document"] for q in QUESTIONS} == names_of | {None}
    assert len({q["id"] for q in QUESTIONS}) == len(QUESTIONS) >= 90
    assert sum(q["document"] is None for q in QUESTIONS) >= 20
    for language in ("en", "zh"):
        for half in ("tuning", "held-out"):
            assert sum(q["language"] == language and q["split"] == half for q in QUESTIONS) >= 30
    for q in QUESTIONS:
        assert not q["document"] or any(
            squeezed(answer) in squeezed(q["evidence"]) for answer in q["answer"]
        ), q["id"]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KnowledgeBase, str]]:
    """The real documents that are shipped, indexed by words."""
    folder: Path = tmp_path_factory.mktemp("real")
    with KnowledgeBase(folder / "k.db", folder / "files") as base:
        collection = base.create_collection("real").id
        for name in SHIPPED:
            add(base, collection, name, (REAL / name).read_bytes())
        assert {document.state for document in settled(base, collection, 120)} == {"ready"}
        yield base, collection


def test_the_evidence_of_every_question_stands_in_its_document(
    read: tuple[KnowledgeBase, str],
) -> None:
    base, collection = read
    texts = {
        document.name: squeezed(
            " ".join(base.page(document.id, n) for n in range(1, document.pages + 1))
        )
        for document in base.documents(collection)
    }
    assert sum(len(text) > 30_000 for text in texts.values()) >= 4
    for question in QUESTIONS:
        if question["document"] in texts:
            assert squeezed(question["evidence"]) in texts[question["document"]], question["id"]


def test_by_words_alone_most_answers_are_quoted_verbatim(read: tuple[KnowledgeBase, str]) -> None:
    base, collection = read
    asked = [q for q in QUESTIONS if q["document"] in SHIPPED and q["split"] == "tuning"]
    right = 0
    for question in asked:
        found = base.search(collection, question["question"], 8)
        found, quotes = quoted_first(found, extract(question["question"], found, None))
        assert not quotes or quotes[0].hit == 0
        for quote in quotes:
            document = found.hits[quote.hit].passage
            page = base.page(document.document.id, document.page)
            assert page[quote.span.start : quote.span.end].startswith(quote.text)
        right += any(
            squeezed(answer) in squeezed(quote.text)
            for quote in quotes
            for answer in question["answer"]
        )
    assert right >= 0.6 * len(asked), f"{right} of {len(asked)}"
