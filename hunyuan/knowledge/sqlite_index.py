"""The index in one SQLite file: FTS5 over words cut here, vectors as BLOBs.

Vectors of a collection are read into memory by its first question and follow every change after.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hunyuan.knowledge.embedder import Vectors
from hunyuan.knowledge.retriever import Entry, Ranking, telling
from hunyuan.knowledge.vectors import VectorTable, quantise
from hunyuan.knowledge.words import index_terms
from hunyuan.sqlite import connect, sqlite_errors, transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL,
    document TEXT NOT NULL,
    model TEXT,
    vector BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS entry_document ON entry(document);
CREATE INDEX IF NOT EXISTS entry_collection ON entry(collection);
-- The collection is a word of its own column, so that other collections are skipped in the index.
CREATE VIRTUAL TABLE IF NOT EXISTS entry_words USING fts5(
    words, scope, columnsize = 1, tokenize = "unicode61 remove_diacritics 0 tokenchars '.'"
);
CREATE VIRTUAL TABLE IF NOT EXISTS entry_vocabulary USING fts5vocab(entry_words, 'col');
"""


class SqliteIndex:
    """A `Retriever` in a SQLite file, which may hold other tables too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._tables: dict[tuple[str, str], VectorTable] = {}
        with sqlite_errors(path):
            self._writing = connect(path)
            self._reading = connect(path)
            self._writing.executescript(SCHEMA)
        self._read_lock = threading.Lock()

    def upsert(self, entries: Sequence[Entry]) -> None:
        """See `Retriever.upsert`."""
        with self._transaction() as db:
            for document in {entry.document for entry in entries}:
                # It is no longer complete.
                rows = db.execute("SELECT n FROM entry WHERE document = ?", (document,))
                self._drop_vectors([row["n"] for row in rows])
            for entry in entries:
                self._forget(db, "id = ?", entry.id)
                n = db.execute(
                    "INSERT INTO entry (id, collection, document) VALUES (?, ?, ?)",
                    (entry.id, entry.collection, entry.document),
                ).lastrowid
                db.execute(
                    "INSERT INTO entry_words (rowid, words, scope) VALUES (?, ?, ?)",
                    (n, " ".join(index_terms(entry.text)), _scope(entry.collection)),
                )

    def unembedded(self, document: str, model: str) -> list[str]:
        """See `Retriever.unembedded`."""
        rows = self._read(
            "SELECT id FROM entry WHERE document = ? AND model IS NOT ? ORDER BY n",
            (document, model),
        )
        return [row["id"] for row in rows]

    def embed(self, document: str, model: str, vectors: Mapping[str, Vectors]) -> None:
        """See `Retriever.embed`."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE entry SET model = ?, vector = ? WHERE id = ? AND document = ?",
                [(model, quantise(vector), id, document) for id, vector in vectors.items()],
            )
            left = db.execute(
                "SELECT count(*) FROM entry WHERE document = ? AND model IS NOT ?",
                (document, model),
            ).fetchone()[0]
            if left == 0:
                rows = db.execute(
                    "SELECT n, collection, vector FROM entry WHERE document = ?", (document,)
                ).fetchall()
                self._load(model, rows)

    def search(
        self,
        collection: str,
        terms: Sequence[str],
        vector: Vectors | None,
        model: str | None,
        limit: int,
    ) -> Ranking:
        """See `Retriever.search`."""
        frequency = self._frequency(terms)
        lexical: list[tuple[int, float]] = []
        if known := telling(frequency):
            words = " OR ".join(f'"{term}"' for term in known)
            rows = self._read(
                "SELECT rowid, rank FROM entry_words WHERE entry_words MATCH ? "
                "AND rank MATCH 'bm25(1.0, 0.0)' ORDER BY rank LIMIT ?",
                (f"scope : {_scope(collection)} AND words : ({words})", limit),
            )
            lexical = [(row["rowid"], -row["rank"]) for row in rows]
        dense: list[tuple[int, float]] = []
        if vector is not None and model is not None:
            dense = self._nearest(collection, model, vector, limit)
        ids = self._ids([n for n, _ in (*lexical, *dense)])
        size = self._read("SELECT count(*) AS n FROM entry", ())[0]["n"]
        return Ranking(
            [(ids[n], score) for n, score in lexical if n in ids],
            [(ids[n], score) for n, score in dense if n in ids],
            frequency,
            size,
        )

    def delete(self, *, collection: str | None = None, document: str | None = None) -> None:
        """See `Retriever.delete`."""
        with self._transaction() as db:
            if collection is not None:
                self._forget(db, "collection = ?", collection)
            if document is not None:
                self._forget(db, "document = ?", document)

    def close(self) -> None:
        """See `Retriever.close`."""
        with self._lock, self._read_lock:
            self._writing.close()
            self._reading.close()
            self._tables.clear()

    # ------------------------------------------------------------ inside

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, sqlite_errors(self._path):
            try:
                with transaction(self._writing) as db:
                    yield db
            except BaseException:
                # They may know of what has not happened; the next question reads them anew.
                self._tables.clear()
                raise

    def _read(self, sql: str, values: Sequence[object]) -> list[sqlite3.Row]:
        with self._read_lock, sqlite_errors(self._path):
            return self._reading.execute(sql, tuple(values)).fetchall()

    def _forget(self, db: sqlite3.Connection, condition: str, value: str) -> None:
        gone = [r[0] for r in db.execute(f"SELECT n FROM entry WHERE {condition}", (value,))]
        db.executemany("DELETE FROM entry_words WHERE rowid = ?", ((n,) for n in gone))
        db.execute(f"DELETE FROM entry WHERE {condition}", (value,))
        self._drop_vectors(gone)

    def _drop_vectors(self, numbers: Sequence[int]) -> None:
        if numbers:
            for table in self._tables.values():
                table.remove(numbers)

    def _frequency(self, terms: Sequence[str]) -> dict[str, int]:
        marks = ",".join("?" * len(terms))
        rows = self._read(
            f"SELECT term, doc FROM entry_vocabulary WHERE col = 'words' AND term IN ({marks})",
            terms,
        )
        found = {row["term"]: row["doc"] for row in rows}
        return {term: found.get(term, 0) for term in terms}

    def _ids(self, numbers: Sequence[int]) -> dict[int, str]:
        marks = ",".join("?" * len(numbers))
        rows = self._read(f"SELECT n, id FROM entry WHERE n IN ({marks})", numbers)
        return {row["n"]: row["id"] for row in rows}

    def _nearest(
        self, collection: str, model: str, vector: Vectors, limit: int
    ) -> list[tuple[int, float]]:
        with self._lock:
            table = self._tables.get((collection, model))
            if table is None:
                table = VectorTable(len(vector))
                with sqlite_errors(self._path):
                    rows = self._writing.execute(
                        "SELECT n, collection, vector FROM entry WHERE collection = ? "
                        "AND model = ? AND document NOT IN (SELECT document FROM entry "
                        "WHERE collection = ? AND model IS NOT ?)",
                        (collection, model, collection, model),
                    )
                    while batch := rows.fetchmany(10_000):
                        table.add([r["n"] for r in batch], [r["vector"] for r in batch])
                # Only now: half a table would hide the other half for good.
                self._tables[collection, model] = table
            return table.nearest(vector, limit)

    def _load(self, model: str, rows: Sequence[sqlite3.Row]) -> None:
        """A document has become complete: a table in memory must know it, one of each passage."""
        if not rows:
            return
        table = self._tables.get((rows[0]["collection"], model))
        if table is not None:
            numbers = [row["n"] for row in rows]
            table.remove(numbers)
            table.add(numbers, [row["vector"] for row in rows])


def _scope(collection: str) -> str:
    """A collection's id as one word for the index, whatever it looks like."""
    return "c" + collection.encode().hex()
