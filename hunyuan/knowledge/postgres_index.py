"""The index in a PostgreSQL database, for collections beyond one machine's file.

Words are the same as everywhere else, as a tsvector that is written here, so that the server's
language settings do not matter. With the extension pgvector vectors are of its type; without it
they are arrays and compared by plain SQL, which is exact and slow (some 20 ms for 1,000 passages).
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from hunyuan.errors import HunyuanError, UsageError
from hunyuan.knowledge.embedder import Vectors
from hunyuan.knowledge.retriever import Entry, Ranking, telling
from hunyuan.knowledge.words import index_terms

if TYPE_CHECKING:
    from psycopg import Connection

MAX_POSITION = 16_383
MAX_POSITIONS = 255

_TABLE = """
CREATE TABLE IF NOT EXISTS hunyuan_entry (
    id text PRIMARY KEY,
    collection text NOT NULL,
    document text NOT NULL,
    words tsvector NOT NULL,
    model text,
    vector {vector}
);
CREATE INDEX IF NOT EXISTS hunyuan_entry_words ON hunyuan_entry USING gin (words);
CREATE INDEX IF NOT EXISTS hunyuan_entry_document ON hunyuan_entry (document);
CREATE INDEX IF NOT EXISTS hunyuan_entry_collection ON hunyuan_entry (collection);
"""
_COSINE = {
    "vector": "1 - (e.vector <=> %(vector)s::vector)",
    # Vectors have length one.
    "real[]": "(SELECT sum(a * b) FROM unnest(e.vector, %(vector)s::real[]) AS pairs(a, b))",
}


class PostgresIndex:
    """A `Retriever` in the database at ``url`` (``postgresql://user:password@host/name``).

    Raises `UsageError` where the extra ``postgres`` is not installed, `HunyuanError` where the
    server does not answer; neither repeats the password.
    """

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise UsageError(
                "--knowledge postgresql://...: needs an extra; run: "
                "pip install 'hunyuan[postgres]'",
                "--knowledge postgresql://...：需要附加组件；"
                "请运行：pip install 'hunyuan[postgres]'",
            ) from None
        self._psycopg = psycopg
        self._url = url
        self._lock = threading.Lock()
        self._connection: Connection[dict[str, Any]] | None = None
        with self._transaction() as db:
            offered = db.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
            if offered.fetchone():
                db.execute("CREATE EXTENSION IF NOT EXISTS vector")
            kind = "vector" if offered.rowcount else "real[]"
            for statement in _TABLE.format(vector=kind).split(";"):
                if statement.strip():
                    db.execute(statement.encode())
            # A table of an earlier start keeps its type.
            found = db.execute(
                "SELECT format_type(atttypid, atttypmod) AS kind FROM pg_attribute "
                "WHERE attrelid = 'hunyuan_entry'::regclass AND attname = 'vector'"
            ).fetchone()
        assert found is not None
        self.vector_type: str = found["kind"]

    def upsert(self, entries: Sequence[Entry]) -> None:
        """See `Retriever.upsert`."""
        with self._transaction() as db, db.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO hunyuan_entry (id, collection, document, words) "
                "VALUES (%s, %s, %s, %s::tsvector) ON CONFLICT (id) DO UPDATE SET "
                "collection = excluded.collection, document = excluded.document, "
                "words = excluded.words, model = NULL, vector = NULL",
                [
                    (entry.id, entry.collection, entry.document, tsvector(entry.text))
                    for entry in entries
                ],
            )

    def unembedded(self, document: str, model: str) -> list[str]:
        """See `Retriever.unembedded`."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT id FROM hunyuan_entry WHERE document = %s AND model IS DISTINCT FROM %s "
                "ORDER BY split_part(id, '.', 2)::int",
                (document, model),
            ).fetchall()
        return [row["id"] for row in rows]

    def embed(self, document: str, model: str, vectors: Mapping[str, Vectors]) -> None:
        """See `Retriever.embed`."""
        with self._transaction() as db, db.cursor() as cursor:
            cursor.executemany(
                f"UPDATE hunyuan_entry SET model = %s, vector = %s::{self.vector_type} "
                "WHERE id = %s AND document = %s".encode(),
                [(model, self._literal(vector), id, document) for id, vector in vectors.items()],
            )

    def search(
        self,
        collection: str,
        terms: Sequence[str],
        vector: Vectors | None,
        model: str | None,
        limit: int,
    ) -> Ranking:
        """See `Retriever.search`."""
        with self._transaction() as db:
            row = db.execute("SELECT count(*) AS n FROM hunyuan_entry").fetchone()
            size = row["n"] if row else 0
            frequency = {
                term: (
                    db.execute(
                        "SELECT count(*) AS n FROM hunyuan_entry WHERE words @@ %s::tsquery",
                        (_quoted(term),),
                    ).fetchone()
                    or {"n": 0}
                )["n"]
                for term in terms
            }
            lexical = self._lexical(db, collection, frequency, size, limit)
            dense: list[tuple[str, float]] = []
            if vector is not None and model is not None:
                dense = self._dense(db, collection, vector, model, limit)
        return Ranking(lexical, dense, frequency, size)

    def delete(self, *, collection: str | None = None, document: str | None = None) -> None:
        """See `Retriever.delete`."""
        with self._transaction() as db:
            db.execute(
                "DELETE FROM hunyuan_entry WHERE collection = %s OR document = %s",
                (collection, document),
            )

    def close(self) -> None:
        """See `Retriever.close`."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    # ------------------------------------------------------------ inside

    @contextmanager
    def _transaction(self) -> Iterator["Connection[dict[str, Any]]"]:
        from psycopg.rows import dict_row

        with self._lock:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = self._psycopg.connect(
                        self._url, autocommit=True, row_factory=dict_row, connect_timeout=10
                    )
                with self._connection.transaction():
                    yield self._connection
            except self._psycopg.OperationalError as error:
                where = urlsplit(self._url).hostname or "?"
                said = str(error).strip().splitlines()[0] if str(error).strip() else "?"
                raise HunyuanError(
                    f"the PostgreSQL server at {where} does not work: {said}; check "
                    "--knowledge and the server",
                    f"{where} 上的 PostgreSQL 服务不可用：{said}；请检查 --knowledge 和该服务",
                ) from error

    def _lexical(
        self,
        db: "Connection[dict[str, Any]]",
        collection: str,
        frequency: Mapping[str, int],
        size: int,
        limit: int,
    ) -> list[tuple[str, float]]:
        known = telling(frequency)
        if not known:
            return []
        # ts_rank knows no rarity: each term counts by its inverse document frequency, and ts_rank,
        # which looks at repetition and length, decides between passages with the same terms.
        weights = [math.log(1 + (size + 0.5) / (frequency[term] + 0.5)) for term in known]
        scored = " + ".join("(words @@ %s::tsquery)::int * %s::float8" for _ in known)
        values: list[object] = []
        for term, weight in zip(known, weights, strict=True):
            values += [_quoted(term), weight]
        query = " | ".join(map(_quoted, known))
        rows = db.execute(
            f"SELECT id, {scored} + ts_rank(words, %s::tsquery, 1) AS score FROM hunyuan_entry "
            "WHERE collection = %s AND words @@ %s::tsquery "
            "ORDER BY score DESC, id LIMIT %s".encode(),
            (*values, query, collection, query, limit),
        ).fetchall()
        return [(row["id"], float(row["score"])) for row in rows]

    def _dense(
        self,
        db: "Connection[dict[str, Any]]",
        collection: str,
        vector: Vectors,
        model: str,
        limit: int,
    ) -> list[tuple[str, float]]:
        rows = db.execute(
            f"SELECT e.id, {_COSINE[self.vector_type]} AS cosine FROM hunyuan_entry e "
            "WHERE e.collection = %(collection)s AND e.model = %(model)s AND NOT EXISTS ("
            "SELECT 1 FROM hunyuan_entry other WHERE other.document = e.document "
            "AND other.model IS DISTINCT FROM %(model)s) "
            "ORDER BY cosine DESC, e.id LIMIT %(limit)s".encode(),
            {
                "vector": self._literal(vector),
                "collection": collection,
                "model": model,
                "limit": limit,
            },
        ).fetchall()
        return [(row["id"], float(row["cosine"])) for row in rows]

    def _literal(self, vector: Vectors) -> str:
        numbers = ",".join(f"{number:.7g}" for number in np.asarray(vector, np.float64))
        return f"[{numbers}]" if self.vector_type == "vector" else f"{{{numbers}}}"


def tsvector(text: str) -> str:
    """The words of a text as PostgreSQL writes a tsvector: ``'river':1,4 'sea':2``."""
    places: dict[str, list[int]] = {}
    for position, term in enumerate(index_terms(text), start=1):
        found = places.setdefault(term, [])
        if len(found) < MAX_POSITIONS:
            found.append(min(position, MAX_POSITION))
    return " ".join(
        f"{_quoted(term)}:{','.join(map(str, dict.fromkeys(found)))}"
        for term, found in places.items()
    )


def _quoted(term: str) -> str:
    escaped = term.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
