"""What documents there are, how far each is read, and their text: tables of the SQLite file.

A document is its own record of its import. ``waiting`` and ``reading`` survive the end of the
process and are taken up again; only ``ready`` ones are searched.
"""

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Literal, cast

from hunyuan.errors import UsageError
from hunyuan.knowledge.chunks import Chunk
from hunyuan.knowledge.document import Kind, Page
from hunyuan.sqlite import connect, sqlite_errors, transaction

State = Literal["waiting", "reading", "ready", "failed"]

MAX_NAME = 200

SCHEMA = """
CREATE TABLE IF NOT EXISTS collection (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS document (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL REFERENCES collection(id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'reading', 'ready', 'failed')),
    pages INTEGER NOT NULL DEFAULT 0,
    textless INTEGER NOT NULL DEFAULT 0,
    characters INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0,
    embedded INTEGER NOT NULL DEFAULT 0,
    embedded_by TEXT,
    error_en TEXT,
    error_zh TEXT,
    created REAL NOT NULL,
    UNIQUE (collection, sha256)
) STRICT;
CREATE INDEX IF NOT EXISTS document_sha256 ON document(sha256);
CREATE TABLE IF NOT EXISTS page (
    document INTEGER NOT NULL REFERENCES document(n) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (document, number)
) STRICT;
CREATE TABLE IF NOT EXISTS chunk (
    document INTEGER NOT NULL REFERENCES document(n) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    page INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    heading TEXT NOT NULL,
    PRIMARY KEY (document, ordinal)
) STRICT;
"""


class UnknownIdError(UsageError):
    """There is no such collection, document or page."""


@dataclass(frozen=True)
class Collection:
    """A set of documents that questions are put to."""

    id: str
    name: str
    created: float
    documents: int
    chunks: int


@dataclass(frozen=True)
class Document:
    """One document and how far its import is."""

    id: str
    collection: str
    name: str
    kind: Kind
    sha256: str
    bytes: int
    state: State
    pages: int
    textless: int
    """Pages without text."""

    characters: int
    chunks: int
    embedded: int
    """Passages that have a vector of the model ``embedded_by``."""

    embedded_by: str | None
    error_en: str | None
    error_zh: str | None
    created: float


_COLUMNS = ", ".join(field.name for field in fields(Document))


@dataclass(frozen=True)
class Passage:
    """A passage with its text: ``page.text[start:end]``."""

    id: str
    document: Document
    ordinal: int
    page: int
    start: int
    end: int
    heading: str
    text: str


class Catalogue:
    """The tables; every method is one transaction and may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with sqlite_errors(path):
            self._db = connect(path)
            path.chmod(0o600)
            self._db.executescript(SCHEMA)

    def close(self) -> None:
        """May be repeated."""
        with self._lock:
            self._db.close()

    # ------------------------------------------------------------ collections

    def collections(self) -> list[Collection]:
        """All of them, oldest first."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT c.id, c.name, c.created, count(d.n) AS documents, "
                "coalesce(sum(CASE d.state WHEN 'ready' THEN d.chunks END), 0) AS chunks "
                "FROM collection c LEFT JOIN document d ON d.collection = c.id "
                "GROUP BY c.id ORDER BY c.created, c.id"
            ).fetchall()
        return [Collection(**row) for row in rows]

    def collection(self, id: str) -> Collection:
        """One; `UnknownIdError` if there is none."""
        for collection in self.collections():
            if collection.id == id:
                return collection
        raise _unknown("collection", "文档集", id)

    def create_collection(self, name: str) -> Collection:
        """A new, empty one; `UsageError` for a bad name."""
        name, id = checked_name(name), uuid.uuid4().hex[:16]
        with self._transaction() as db:
            db.execute("INSERT INTO collection VALUES (?, ?, ?)", (id, name, time.time()))
        return self.collection(id)

    def rename_collection(self, id: str, name: str) -> Collection:
        """The collection with its new name."""
        name = checked_name(name)
        with self._transaction() as db:
            db.execute("UPDATE collection SET name = ? WHERE id = ?", (name, id))
        return self.collection(id)

    def delete_collection(self, id: str) -> None:
        """Forget it and its documents; their files stay."""
        with self._transaction() as db:
            db.execute("DELETE FROM collection WHERE id = ?", (id,))

    # ------------------------------------------------------------ documents

    def add(
        self, collection: str, name: str, kind: Kind, digest: str, size: int
    ) -> tuple[Document, bool]:
        """A document that waits to be read, and whether it is new.

        One of the same bytes is the same document; if it had failed, it is tried again.
        """
        id = sha256(f"{collection}/{digest}".encode()).hexdigest()[:16]
        self.collection(collection)
        with self._transaction() as db:
            known = db.execute("SELECT state FROM document WHERE id = ?", (id,)).fetchone()
            if known is None:
                db.execute(
                    "INSERT INTO document "
                    "(id, collection, name, kind, sha256, bytes, state, created) "
                    "VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?)",
                    (id, collection, name, kind, digest, size, time.time()),
                )
            elif known["state"] == "failed":
                db.execute(
                    "UPDATE document SET state = 'waiting', name = ?, kind = ?, error_en = NULL, "
                    "error_zh = NULL WHERE id = ?",
                    (name, kind, id),
                )
        return self.document(id), known is None or known["state"] == "failed"

    def document(self, id: str) -> Document:
        """One; `UnknownIdError` if there is none."""
        found = self._documents("WHERE id = ?", id)
        if not found:
            raise _unknown("document", "文档", id)
        return found[0]

    def exists(self, id: str) -> bool:
        """Whether the document has not been deleted."""
        return bool(self._documents("WHERE id = ?", id))

    def documents(self, collection: str) -> list[Document]:
        """Those of a collection, in the order they came."""
        self.collection(collection)
        return self._documents("WHERE collection = ? ORDER BY n", collection)

    def unread(self) -> Document | None:
        """The first that is still to be read."""
        found = self._documents("WHERE state IN ('waiting', 'reading') ORDER BY n LIMIT 1")
        return found[0] if found else None

    def unembedded(self, model: str) -> Document | None:
        """The first that is ready but has passages without a vector of this model."""
        found = self._documents(
            "WHERE state = 'ready' AND chunks > 0 AND (embedded_by IS NOT ? OR embedded < chunks) "
            "ORDER BY n LIMIT 1",
            model,
        )
        return found[0] if found else None

    def hashes(self) -> set[str]:
        """Of all documents' files."""
        with self._transaction() as db:
            return {row[0] for row in db.execute("SELECT DISTINCT sha256 FROM document")}

    def begin(self, id: str) -> None:
        """Note that the document is being read; what an earlier attempt left is dropped."""
        with self._transaction() as db:
            n = self._number(db, id)
            db.execute("DELETE FROM page WHERE document = ?", (n,))
            db.execute("DELETE FROM chunk WHERE document = ?", (n,))
            db.execute(
                "UPDATE document SET state = 'reading', pages = 0, textless = 0, characters = 0, "
                "chunks = 0, embedded = 0, embedded_by = NULL WHERE n = ?",
                (n,),
            )

    def keep(self, id: str, pages: Sequence[Page], chunks: Sequence[Chunk]) -> None:
        """Store what was read; the document is not yet ready."""
        with self._transaction() as db:
            n = self._number(db, id)
            db.executemany(
                "INSERT INTO page VALUES (?, ?, ?)", ((n, page.number, page.text) for page in pages)
            )
            db.executemany(
                "INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?)",
                ((n, i, c.page, c.start, c.end, c.heading) for i, c in enumerate(chunks)),
            )
            db.execute(
                "UPDATE document SET pages = ?, textless = ?, characters = ?, chunks = ? "
                "WHERE n = ?",
                (
                    len(pages),
                    sum(not page.text for page in pages),
                    sum(len(page.text) for page in pages),
                    len(chunks),
                    n,
                ),
            )

    def set_ready(self, id: str) -> None:
        """From now on it is found."""
        with self._transaction() as db:
            db.execute("UPDATE document SET state = 'ready' WHERE id = ?", (id,))

    def set_failed(self, id: str, en: str, zh: str) -> None:
        """Keep the reason; nothing of its text stays."""
        with self._transaction() as db:
            row = db.execute("SELECT n FROM document WHERE id = ?", (id,)).fetchone()
            if row is None:
                return
            db.execute("DELETE FROM page WHERE document = ?", (row["n"],))
            db.execute("DELETE FROM chunk WHERE document = ?", (row["n"],))
            db.execute(
                "UPDATE document SET state = 'failed', error_en = ?, error_zh = ?, chunks = 0 "
                "WHERE n = ?",
                (en, zh, row["n"]),
            )

    def set_embedded(self, id: str, model: str, embedded: int) -> None:
        """How many passages have a vector of ``model``."""
        with self._transaction() as db:
            db.execute(
                "UPDATE document SET embedded = ?, embedded_by = ? WHERE id = ?",
                (embedded, model, id),
            )

    def delete_document(self, id: str) -> None:
        """Forget it and its text; its file stays."""
        with self._transaction() as db:
            db.execute("DELETE FROM document WHERE id = ?", (id,))

    # ------------------------------------------------------------ text

    def page(self, id: str, number: int) -> str:
        """The text of one page; `UnknownIdError` if there is none."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT text FROM page WHERE number = ? AND "
                "document = (SELECT n FROM document WHERE id = ?)",
                (number, id),
            ).fetchone()
        if row is None:
            raise _unknown("page", "页", f"{id}/{number}")
        return cast(str, row["text"])

    def passage(self, document: Document, ordinal: int) -> Passage | None:
        """One of a ready document's; None before the first and after the last."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT c.*, p.text FROM chunk c "
                "JOIN page p ON p.document = c.document AND p.number = c.page "
                "WHERE c.ordinal = ? AND c.document = (SELECT n FROM document "
                "WHERE id = ? AND state = 'ready')",
                (ordinal, document.id),
            ).fetchone()
        if row is None:
            return None
        start, end = row["start"], row["end"]
        return Passage(
            f"{document.id}.{ordinal}",
            document,
            ordinal,
            row["page"],
            start,
            end,
            row["heading"],
            row["text"][start:end],
        )

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """Those of ready documents, in the order of ``ids``."""
        known: dict[str, Document | None] = {}
        found = []
        for id in ids:
            name, _, ordinal = id.partition(".")
            if name not in known:
                known[name] = next(iter(self._documents("WHERE id = ?", name)), None)
            document = known[name]
            passage = self.passage(document, int(ordinal)) if document else None
            if passage is not None:
                found.append(passage)
        return found

    def chunk_texts(self, document: Document) -> Iterator[tuple[str, str]]:
        """Ids and the texts to be indexed (name and heading before the passage's own)."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT c.ordinal, c.heading, substr(p.text, c.start + 1, c.end - c.start) AS text "
                "FROM chunk c JOIN page p ON p.document = c.document AND p.number = c.page "
                "WHERE c.document = (SELECT n FROM document WHERE id = ?) ORDER BY c.ordinal",
                (document.id,),
            ).fetchall()
        for row in rows:
            above = f"{stem(document.name)}\n{row['heading']}".strip()
            yield f"{document.id}.{row['ordinal']}", f"{above}\n{row['text']}"

    # ------------------------------------------------------------ inside

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, sqlite_errors(self._path), transaction(self._db) as db:
            yield db

    def _documents(self, condition: str, *values: object) -> list[Document]:
        with self._transaction() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM document {condition}", values).fetchall()
        return [Document(**row) for row in rows]

    def _number(self, db: sqlite3.Connection, id: str) -> int:
        row = db.execute("SELECT n FROM document WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise _unknown("document", "文档", id)
        return cast(int, row["n"])


def checked_name(name: str) -> str:
    """A name without invisible characters; `UsageError` if nothing is left or it is too long."""
    plain = " ".join("".join(char for char in name if char.isprintable()).split())
    if plain.strip(". ") == "":
        raise UsageError(
            f"name={name[:40]!r}: is empty; give a name of 1 to {MAX_NAME} characters",
            f"name={name[:40]!r}：为空；请给出 1 到 {MAX_NAME} 个字符的名称",
        )
    if len(plain) > MAX_NAME:
        raise UsageError(
            f"name={plain[:40]!r}...: has {len(plain)} characters, the limit is {MAX_NAME}; "
            "shorten it",
            f"name={plain[:40]!r}...：有 {len(plain)} 个字符，上限为 {MAX_NAME}；请缩短",
        )
    return plain


def file_name(path: str) -> str:
    """The name of an uploaded file without its folders, checked."""
    return checked_name(path.replace("\\", "/").rsplit("/", 1)[-1])


def stem(name: str) -> str:
    """A document's name without its ending."""
    return name.rsplit(".", 1)[0]


def _unknown(what: str, what_zh: str, id: str) -> UnknownIdError:
    return UnknownIdError(
        f"there is no {what} {id[:40]!r}; it may have been deleted",
        f"没有{what_zh} {id[:40]!r}；可能已被删除",
    )
