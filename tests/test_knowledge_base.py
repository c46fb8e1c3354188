"""Imports, search and deletion over a real disk; kills in the middle; and PostgreSQL."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from documents import FOLDER, NAMES, WordEmbedder, add, settled
from pages import until

from hunyuan.errors import HunyuanError, UsageError
from hunyuan.knowledge.base import KnowledgeBase
from hunyuan.knowledge.catalogue import UnknownIdError
from hunyuan.knowledge.embedder import Vectors
from hunyuan.knowledge.extract import extract
from hunyuan.knowledge.retriever import Entry, Retriever, fuse
from hunyuan.knowledge.sqlite_index import SqliteIndex
from hunyuan.knowledge.words import query_terms

RIVER = "The Yangtze is the longest river in Asia. It flows 6,300 kilometres to the sea.\n" * 5


class HeldEmbedder(WordEmbedder):
    """Makes vectors only when a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go = threading.Event()

    def embed_passages(self, texts: list[str]) -> Vectors:  # type: ignore[override]
        self.asked.set()
        assert self.go.wait(20)
        return super().embed_passages(texts)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., KnowledgeBase]]:
    """Opens the same knowledge base as often as it is called."""
    bases: list[KnowledgeBase] = []

    def make(**options: object) -> KnowledgeBase:
        for base in bases:
            base.close()
        options.setdefault("embedder", WordEmbedder())
        bases.append(KnowledgeBase(tmp_path / "knowledge.db", tmp_path / "files", **options))  # type: ignore[arg-type]
        return bases[-1]

    yield make
    for base in bases:
        base.close()


def leftovers(folder: Path) -> dict[str, int]:
    """What the tables still hold."""
    import sqlite3

    db = sqlite3.connect(folder / "knowledge.db")
    tables = ("document", "page", "chunk", "entry", "entry_words")
    counts = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    db.close()
    return counts


def test_documents_are_imported_found_and_leave_nothing(
    opened: Callable[..., KnowledgeBase], tmp_path: Path
) -> None:
    base = opened()
    collection = base.create_collection("  A/B \u202e  rivers ").id
    assert base.collection(collection).name == "A/B rivers"
    for name in NAMES:
        add(base, collection, name, (FOLDER / name).read_bytes())
    documents = settled(base, collection)
    assert [d.state for d in documents] == ["ready"] * len(NAMES)
    assert all(d.embedded == d.chunks > 0 for d in documents)
    found = base.search(collection, "Where do the White Nile and the Blue Nile meet?")
    assert found.mode == "hybrid"
    assert "Khartoum" in found.hits[0].passage.text
    assert found.confidence > 0.5
    for hit in found.hits:
        page = base.page(hit.passage.document.id, hit.passage.page)
        assert page[hit.passage.start : hit.passage.end] == hit.passage.text
    for document in documents:
        assert base.original(document.id).read_bytes() == (FOLDER / document.name).read_bytes()
        base.delete_document(document.id)
    assert base.documents(collection) == []
    assert base.search(collection, "Nile").hits == ()
    assert set(leftovers(tmp_path).values()) == {0}
    assert list((tmp_path / "files").iterdir()) == []


def test_the_same_bytes_are_the_same_document(opened: Callable[..., KnowledgeBase]) -> None:
    base = opened()
    one, two = base.create_collection("one").id, base.create_collection("two").id
    first = add(base, one, "a.txt", RIVER.encode())
    with base.upload(one, "b.txt") as upload:
        upload.write(RIVER.encode())
        document, new = upload.finish()
    assert (document.id, new) == (first.id, False)
    other = add(base, two, "a.txt", RIVER.encode())
    assert other.id != first.id
    settled(base, one)
    settled(base, two)
    # The other collection still has the file and its passages.
    base.delete_collection(one)
    assert base.original(other.id).read_bytes() == RIVER.encode()
    assert len(base.search(two, "Yangtze").hits) == 1
    with pytest.raises(UnknownIdError, match="no collection"):
        base.search(one, "Yangtze")
    with pytest.raises(UnknownIdError, match="no document"):
        base.original(first.id)


def test_ids_are_the_same_after_deleting_and_adding_again(
    opened: Callable[..., KnowledgeBase],
) -> None:
    base = opened()
    collection = base.create_collection("c").id
    ids = []
    for _ in range(2):
        document = add(base, collection, "a.txt", RIVER.encode())
        assert settled(base, collection)[0].state == "ready"
        ids.append((document.id, base.search(collection, "Yangtze").hits[0].passage.id))
        base.delete_document(document.id)
    assert ids[0] == ids[1]


def test_words_are_found_at_once_and_meaning_when_all_of_it_is_there(
    opened: Callable[..., KnowledgeBase],
) -> None:
    embedder = HeldEmbedder()
    base = opened(embedder=embedder)
    collection = base.create_collection("c").id
    add(base, collection, "a.txt", RIVER.encode())
    assert embedder.asked.wait(20)
    found = base.search(collection, "Yangtze river")
    assert (found.mode, len(found.hits)) == ("lexical", 1)
    assert base.progress(collection)[0].busy
    embedder.go.set()
    settled(base, collection)
    assert base.search(collection, "Yangtze river").mode == "hybrid"


def test_vectors_are_made_later_for_documents_added_without(
    opened: Callable[..., KnowledgeBase],
) -> None:
    base = opened(embedder=None)
    collection = base.create_collection("c").id
    add(base, collection, "a.txt", RIVER.encode())
    document = settled(base, collection)[0]
    assert (document.state, document.embedded) == ("ready", 0)
    assert base.search(collection, "Yangtze").mode == "lexical"
    base = opened()
    assert settled(base, collection)[0].embedded == document.chunks
    assert base.search(collection, "Yangtze").mode == "hybrid"
    # Vectors of one model say nothing to another.
    other = WordEmbedder()
    other.id = "other"
    base = opened(embedder=other)
    assert settled(base, collection)[0].embedded_by == "other"
    assert other.passages == document.chunks


def test_an_embedding_model_that_does_not_work_leaves_words(
    opened: Callable[..., KnowledgeBase],
) -> None:
    class Broken(WordEmbedder):
        def embed_passages(self, texts: object) -> Vectors:
            raise HunyuanError("broken model", "模型已损坏")

    base = opened(embedder=Broken())
    collection = base.create_collection("c").id
    add(base, collection, "a.txt", RIVER.encode())
    until(lambda: base.embedding_error is not None)
    assert not any(progress.busy for progress in base.progress(collection))
    assert base.search(collection, "Yangtze").mode == "lexical"


def test_deleting_ends_an_import_and_the_next_one_goes_on(
    opened: Callable[..., KnowledgeBase], tmp_path: Path
) -> None:
    base = opened(embedder=None)
    collection = base.create_collection("c").id
    long = add(base, collection, "long.txt", ("Many words stand here. " * 300_000).encode())
    short = add(base, collection, "short.txt", RIVER.encode())
    until(lambda: base.progress_of(long.id).pages_read > 0)
    base.delete_document(long.id)
    assert settled(base, collection)[0].id == short.id
    assert base.search(collection, "Yangtze").hits
    assert base.search(collection, "many words stand").hits == ()
    assert leftovers(tmp_path)["document"] == 1


KILLED = """
import sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from documents import WordEmbedder, add
from hunyuan.knowledge.base import KnowledgeBase

class Slow(WordEmbedder):
    def embed_passages(self, texts):
        print("embedding", flush=True)
        threading.Event().wait(0.05)
        return super().embed_passages(texts)

folder = Path(sys.argv[1])
base = KnowledgeBase(folder / "knowledge.db", folder / "files", embedder=Slow())
collection = (base.collections() or [base.create_collection("c")])[0].id
for i in range(3):
    facts = [f"Fact {i}.{n}: river number {n} is {n * 7} kilometres long. " for n in range(400)]
    text = "".join(facts)
    add(base, collection, f"{i}.txt", text.encode())
print("added", flush=True)
threading.Event().wait(60)
"""


@pytest.mark.parametrize("lines", [1, 2, 4, 9])
def test_a_killed_import_goes_on_and_nothing_is_half_there(
    opened: Callable[..., KnowledgeBase], tmp_path: Path, lines: int
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(lines)]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert said[-1], "the child ended by itself"
    (tmp_path / "files" / ".half.partial").write_bytes(b"half an upload")
    base = opened()
    collection = base.collections()[0].id
    documents = settled(base, collection)
    assert documents
    assert all(d.state == "ready" and d.embedded == d.chunks > 10 for d in documents)
    assert len(list((tmp_path / "files").iterdir())) == len(documents)
    assert leftovers(tmp_path)["entry"] == sum(d.chunks for d in documents)
    assert leftovers(tmp_path)["entry_words"] == sum(d.chunks for d in documents)
    found = base.search(collection, "How long is river number 399?")
    assert "2793 kilometres" in " ".join(hit.passage.text for hit in found.hits)
    base.close()


def test_two_passages_that_are_neighbours_are_shown_as_one(
    opened: Callable[..., KnowledgeBase],
) -> None:
    base = opened(embedder=None)
    collection = base.create_collection("c").id
    text = " ".join(f"The lighthouse keeper wrote line {i} of his diary." for i in range(300))
    add(base, collection, "diary.txt", text.encode())
    add(base, collection, "other.txt", b"A lighthouse stands on the hill. Its keeper sleeps.")
    settled(base, collection)
    hits = base.search(collection, "lighthouse keeper diary", 4).hits
    assert "other.txt" in {hit.passage.document.name for hit in hits}
    spans = [
        (h.passage.document.id, h.passage.page, h.passage.start, h.passage.end) for h in hits[1:]
    ]
    assert all(
        a[:2] != b[:2] or a[3] <= b[2] or b[3] <= a[2] for a in spans for b in spans if a != b
    )


def test_extracted_sentences_are_verbatim(opened: Callable[..., KnowledgeBase]) -> None:
    base = opened()
    collection = base.create_collection("c").id
    add(base, collection, "rivers.en.md", (FOLDER / "rivers.en.md").read_bytes())
    settled(base, collection)
    question = "In which year was the Aswan High Dam completed?"
    found = base.search(collection, question)
    quotes = extract(question, found, base.embedder)
    assert "1970" in quotes[0].text
    for quote in quotes:
        passage = found.hits[quote.hit].passage
        assert base.page(passage.document.id, passage.page)[slice(*quote.span)] == quote.text


# ------------------------------------------------------------ both indexes behind the interface


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of this test's own, or a skip."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: PostgreSQL is not tested")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server on this machine")
    binaries = found[-1].parent
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="hunyuan-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*command: str) -> None:
        subprocess.run(command, user=user, check=True, cwd=folder, capture_output=True, env={})

    data = str(folder / "data")
    run(str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "tester", "-E", "UTF8", "-N")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    run(str(binaries / "pg_ctl"), "-D", data, "-w", "-o", options, "-l", data + ".log", "start")
    try:
        yield f"postgresql://tester:secret@127.0.0.1:{port}/postgres"
    finally:
        run(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Retriever]:
    made: Retriever
    if request.param == "sqlite":
        made = SqliteIndex(tmp_path / "index.db")
    else:
        from hunyuan.knowledge.postgres_index import PostgresIndex

        made = PostgresIndex(request.getfixturevalue("postgres"))
        for collection in ("c", "other", "日本'\\"):
            made.delete(collection=collection)
    yield made
    made.close()


TEXTS = {
    "d1.0": "The river Yangtze flows through China. 长江流经中国。",
    "d1.1": "The Nile flows through Egypt, and the Nile is long.",
    "d2.0": "负载均衡让每个专家得到差不多的词元。",
    "d2.1": "It's a \\ 'quoted' text with 3.5 litres and C++.",
}


def entries(collection: str) -> list[Entry]:
    return [Entry(id, collection, id.split(".")[0], text) for id, text in TEXTS.items()]


def test_an_index_finds_words_of_its_collection_only(index: Retriever) -> None:
    index.upsert(entries("c"))
    index.upsert([Entry("x.0", "other", "x", "The Nile again and again: Nile, Nile.")])

    def found(question: str) -> list[str]:
        return [id for id, _ in index.search("c", query_terms(question), None, None, 9).lexical]

    assert found("Nile") == ["d1.1"]
    assert found("负载均衡") == ["d2.0"]
    assert set(found("flows")) == {"d1.0", "d1.1"}
    assert found("river that flows")[0] == "d1.0"
    assert found("quoted 3.5 litre") == ["d2.1"]
    assert found("' OR 1=1 --") == []
    assert found("nothing of this") == []
    assert index.search("c", query_terms("Nile"), None, None, 9).frequency == {"nile": 2}
    index.upsert([Entry("d1.1", "c", "d1", "Now of the Congo")])
    assert found("Nile") == []
    assert found("Congo") == ["d1.1"]
    index.delete(document="d1")
    assert found("Congo") == []
    index.delete(collection="c")
    assert found("负载") == []
    assert index.search("other", ["nile"], None, None, 9).lexical


def test_vectors_count_when_all_of_a_document_are_there(index: Retriever) -> None:
    index.upsert(entries("c"))
    embedder = WordEmbedder()
    vectors = {id: embedder.embed_passages([text])[0] for id, text in TEXTS.items()}
    question = embedder.embed_queries(["Nile Egypt"])[0]

    def found() -> list[tuple[str, float]]:
        return list(index.search("c", [], question, "words", 9).dense)

    assert index.unembedded("d1", "words") == ["d1.0", "d1.1"]
    assert found() == []
    index.embed("d1", "words", {"d1.1": vectors["d1.1"]})
    assert found() == []
    assert index.unembedded("d1", "words") == ["d1.0"]
    index.embed("d1", "words", {"d1.0": vectors["d1.0"]})
    assert [id for id, _ in found()] == ["d1.1", "d1.0"]
    assert found()[0][1] == pytest.approx(float(vectors["d1.1"] @ question), abs=0.01)
    index.embed("d2", "words", {id: vectors[id] for id in ("d2.0", "d2.1")})
    exact = sorted(vectors, key=lambda id: -float(vectors[id] @ question))
    assert [id for id, _ in found()] == exact
    assert list(index.search("c", [], question, "another model", 9).dense) == []
    index.upsert([Entry("d2.0", "c", "d2", "changed")])
    assert {id for id, _ in found()} == {"d1.0", "d1.1"}
    index.delete(document="d1")
    assert found() == []


def test_both_indexes_agree_on_real_questions(tmp_path: Path, postgres: str) -> None:
    from hunyuan.knowledge.postgres_index import PostgresIndex

    first = []
    for kind in ("sqlite", "postgres"):
        folder = tmp_path / kind
        retriever = PostgresIndex(postgres) if kind == "postgres" else None
        folder.mkdir()
        with KnowledgeBase(
            folder / "k.db", folder / "files", embedder=WordEmbedder(), retriever=retriever
        ) as base:
            collection = base.create_collection("日本'\\").id
            for name in ("rivers.en.md", "tea.zh.md", "staff.csv"):
                add(base, collection, name, (FOLDER / name).read_bytes())
            settled(base, collection)
            questions = ("Where do the two Niles meet?", "茶氨酸是谁发现的？", "Ngozi Adeyemi")
            found = [base.search(collection, question) for question in questions]
            first.append([hits.hits[0].passage.text for hits in found])
            assert all(hits.mode == "hybrid" for hits in found)
            base.delete_collection(collection)
    assert first[0] == first[1]


def test_a_database_that_is_not_there_is_one_line_without_the_password() -> None:
    pytest.importorskip("psycopg")
    from hunyuan.knowledge.postgres_index import PostgresIndex

    with pytest.raises(HunyuanError) as caught:
        PostgresIndex("postgresql://me:hunter2@127.0.0.1:1/none")
    for text in (caught.value.en, caught.value.zh):
        assert "127.0.0.1" in text
        assert "hunter2" not in text
        assert "\n" not in text


def test_fusion_of_an_empty_search_is_empty(tmp_path: Path) -> None:
    index = SqliteIndex(tmp_path / "x.db")
    assert fuse(index.search("none", [], np.zeros(3, np.float32), "m", 5)) == []
    index.close()


def test_names_without_letters_are_refused(opened: Callable[..., KnowledgeBase]) -> None:
    base = opened()
    for name in ("", "   ", "..", "\u200b\u202e", "a" * 201):
        with pytest.raises(UsageError, match="name="):
            base.create_collection(name)
