"""Writings on disk: documents that nobody overwrites unseen, and the versions they went through."""

import secrets
import sqlite3
import time
from typing import Any

from pydantic import BaseModel

from hunyuan.workbench.database import Database, cursor
from hunyuan.workbench.refusal import RefusedError, not_found
from hunyuan.workbench.words import index_text, match_in, search_expression

MERGE_SECONDS = 300.0
"""Saves of the user closer than this to the last one share an entry of the version list."""

_PREVIEW = 160


class DocumentMatch(BaseModel):
    """Where a search found something."""

    text: str
    spans: list[tuple[int, int]]


class DocumentHead(BaseModel):
    """A document in a list."""

    id: str
    title: str
    version: int
    created: float
    updated: float
    characters: int
    preview: str
    match: DocumentMatch | None = None


class Document(BaseModel):
    """A document with its text."""

    id: str
    title: str
    text: str
    version: int
    created: float
    updated: float
    characters: int


class Version(BaseModel):
    """One entry of a document's history."""

    version: int
    author: str
    """``user``, ``restore`` or the name of an action."""

    created: float
    characters: int
    title: str


class VersionText(Version):
    """One entry of a document's history with its text."""

    text: str


class ConflictError(RefusedError):
    """Somebody else saved first; `current` is theirs, `base` what both began with."""

    def __init__(self, current: Document, base: VersionText | None, version: int) -> None:
        super().__init__(
            f"version={version}: the document is at version {current.version} by now; merge the "
            "two and save again",
            f"version={version}：文档现在是第 {current.version} 版；请合并两者后再保存",
            status=409,
            code="version_conflict",
            param="version",
        )
        self.current = current
        self.base = base

    def beside(self) -> dict[str, Any]:
        """Both documents, for the reader to merge."""
        base = None if self.base is None else self.base.model_dump()
        return {"current": self.current.model_dump(), "base": base}


class Documents:
    """All documents of a database. Every method is one transaction and may block on the disk.

    Unknown ids raise `RefusedError` with status 404.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, *, title: str = "", text: str = "") -> Document:
        """A new document, at version 1."""
        now = time.time()
        with self._database.transaction() as db:
            n = db.execute(
                "INSERT INTO document (id, title, text, version, created, updated)"
                " VALUES (?, ?, ?, 1, ?, ?) RETURNING n",
                (secrets.token_hex(8), title, text, now, now),
            ).fetchone()[0]
            _add_version(db, n, 1, title, text, "user", kept=False)
            return _document(db, n)

    def get(self, document: str) -> Document:
        """One document."""
        with self._database.transaction() as db:
            return _document(db, _number_of(db, document))

    def page(
        self, *, query: str = "", limit: int = 30, after: str | None = None
    ) -> tuple[list[DocumentHead], str | None]:
        """Some documents, the latest first, and where to go on; see `Conversations.page`."""
        where, values = "TRUE", list[Any]()
        if after is not None:
            where += " AND (updated, n) < (?, ?)"
            values += cursor(after, 2)
        if query.strip():
            expression = search_expression(query)
            if expression is None:
                return [], None
            where += " AND n IN (SELECT rowid FROM document_words WHERE words MATCH ?)"
            values.append(expression)
        with self._database.transaction() as db:
            rows = db.execute(
                f"SELECT * FROM document WHERE {where} ORDER BY updated DESC, n DESC LIMIT ?",
                [*values, limit + 1],
            ).fetchall()
        last = rows[limit - 1] if len(rows) > limit else None
        following = None if last is None else f"{last['updated']!r}:{last['n']}"
        return [_head(row, query) for row in rows[:limit]], following

    def save(
        self,
        document: str,
        *,
        version: int,
        text: str | None = None,
        title: str | None = None,
        author: str = "user",
        keep: bool = False,
    ) -> Document:
        """Store a change of the given version; `ConflictError` if that is not the newest."""
        with self._database.transaction() as db:
            n = _number_of(db, document)
            old = _document(db, n)
            if version != old.version:
                raise ConflictError(old, _version(db, n, version), version)
            return _save(
                db,
                n,
                old,
                title=old.title if title is None else title,
                text=old.text if text is None else text,
                author=author,
                keep=keep,
            )

    def delete(self, document: str) -> None:
        """Remove a document and its versions."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM document WHERE n = ?", (_number_of(db, document),))

    def versions(self, document: str) -> list[Version]:
        """The history, latest first."""
        with self._database.transaction() as db:
            rows = db.execute(
                "SELECT version, author, created, length(text) AS characters, title"
                " FROM document_version WHERE document = ? ORDER BY version DESC",
                (_number_of(db, document),),
            ).fetchall()
        return [Version(**dict(row)) for row in rows]

    def version(self, document: str, version: int) -> VersionText:
        """One entry of the history."""
        with self._database.transaction() as db:
            found = _version(db, _number_of(db, document), version)
        if found is None:
            raise not_found("version", "版本", str(version))
        return found

    def restore(self, document: str, *, restore: int, version: int) -> Document:
        """A new version with an old text; `ConflictError` if ``version`` is not the newest."""
        with self._database.transaction() as db:
            n = _number_of(db, document)
            current = _document(db, n)
            if version != current.version:
                raise ConflictError(current, _version(db, n, version), version)
            old = _version(db, n, restore)
            if old is None:
                raise not_found("version", "版本", str(restore))
            return _save(
                db, n, current, title=old.title, text=old.text, author="restore", keep=True
            )


def _save(
    db: sqlite3.Connection,
    n: int,
    old: Document,
    *,
    title: str,
    text: str,
    author: str,
    keep: bool,
) -> Document:
    if (title, text) == (old.title, old.text):
        return old
    last = db.execute(
        "SELECT * FROM document_version WHERE document = ? ORDER BY version DESC LIMIT 1", (n,)
    ).fetchone()
    recent = time.time() - last["created"] < MERGE_SECONDS
    new = old.version + 1
    if author == "user" == last["author"] and not last["kept"] and recent:
        # The entry keeps its time, or an hour of steady writing would be one entry.
        db.execute(
            "UPDATE document_version SET version = ?, title = ?, text = ?, kept = ?"
            " WHERE document = ? AND version = ?",
            (new, title, text, keep, n, last["version"]),
        )
    else:
        _add_version(db, n, new, title, text, author, kept=keep or author != "user")
    db.execute(
        "UPDATE document SET title = ?, text = ?, version = ?, updated = ? WHERE n = ?",
        (title, text, new, time.time(), n),
    )
    _index(db, n, title, text)
    return _document(db, n)


def _add_version(
    db: sqlite3.Connection, n: int, version: int, title: str, text: str, author: str, *, kept: bool
) -> None:
    db.execute(
        "INSERT INTO document_version VALUES (?, ?, ?, ?, ?, ?, ?)",
        (n, version, title, text, author, kept, time.time()),
    )
    _index(db, n, title, text)


def _index(db: sqlite3.Connection, n: int, title: str, text: str) -> None:
    db.execute("DELETE FROM document_words WHERE rowid = ?", (n,))
    words = index_text(f"{title}\n{text}")
    db.execute("INSERT INTO document_words (rowid, words) VALUES (?, ?)", (n, words))


def _number_of(db: sqlite3.Connection, document: str) -> int:
    row = db.execute("SELECT n FROM document WHERE id = ?", (document,)).fetchone()
    if row is None:
        raise not_found("document", "文档", document)
    return int(row["n"])


def _document(db: sqlite3.Connection, n: int) -> Document:
    row = dict(db.execute("SELECT * FROM document WHERE n = ?", (n,)).fetchone())
    del row["n"]
    return Document(**row, characters=len(row["text"]))


def _version(db: sqlite3.Connection, n: int, version: int) -> VersionText | None:
    row = db.execute(
        "SELECT version, author, created, length(text) AS characters, title, text"
        " FROM document_version WHERE document = ? AND version = ?",
        (n, version),
    ).fetchone()
    return None if row is None else VersionText(**dict(row))


def _head(row: sqlite3.Row, query: str) -> DocumentHead:
    found = None
    if query.strip():
        found = match_in(f"{row['title']}\n{row['text']}", query)
    return DocumentHead(
        id=row["id"],
        title=row["title"],
        version=row["version"],
        created=row["created"],
        updated=row["updated"],
        characters=len(row["text"]),
        preview=" ".join(row["text"][: 2 * _PREVIEW].split())[:_PREVIEW],
        match=None if found is None else DocumentMatch(text=found.text, spans=found.spans),
    )
