"""The SQLite file of what people wrote: its schema, its migrations, its transactions."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hunyuan.errors import BadDataError
from hunyuan.sqlite import connect, sqlite_errors, transaction
from hunyuan.workbench.refusal import RefusedError

MIGRATIONS = (
    """
    CREATE TABLE conversation (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT,
        model TEXT,
        system TEXT,
        settings TEXT NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0,
        active INTEGER REFERENCES message(n) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
        created REAL NOT NULL,
        updated REAL NOT NULL
    ) STRICT;
    CREATE INDEX conversation_order ON conversation(pinned, updated, n);

    -- Not ON DELETE CASCADE along parents: SQLite limits the depth of such a chain.
    CREATE TABLE message (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        conversation INTEGER NOT NULL REFERENCES conversation(n) ON DELETE CASCADE,
        parent INTEGER REFERENCES message(n) DEFERRABLE INITIALLY DEFERRED,
        role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
        content TEXT NOT NULL,
        reasoning TEXT,
        status TEXT NOT NULL,
        finish_reason TEXT,
        model TEXT,
        usage TEXT,
        error TEXT,
        trimmed TEXT,
        edited INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL
    ) STRICT;
    CREATE INDEX message_conversation ON message(conversation, n);
    CREATE INDEX message_parent ON message(parent);
    CREATE INDEX message_status ON message(status) WHERE status = 'streaming';

    CREATE TABLE feedback (
        message INTEGER PRIMARY KEY REFERENCES message(n) ON DELETE CASCADE,
        rating TEXT NOT NULL CHECK (rating IN ('up', 'down')),
        comment TEXT NOT NULL,
        created REAL NOT NULL
    ) STRICT;

    CREATE TABLE attachment (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        size INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        kind TEXT NOT NULL,
        pages INTEGER,
        text TEXT NOT NULL,
        tokens INTEGER,
        notices TEXT NOT NULL,
        created REAL NOT NULL
    ) STRICT;
    CREATE TABLE message_attachment (
        message INTEGER NOT NULL REFERENCES message(n) ON DELETE CASCADE,
        attachment INTEGER NOT NULL REFERENCES attachment(n),
        place INTEGER NOT NULL,
        PRIMARY KEY (message, place)
    ) STRICT;
    CREATE INDEX message_attachment_attachment ON message_attachment(attachment);
    CREATE TRIGGER attachment_gone AFTER DELETE ON message_attachment BEGIN
        DELETE FROM attachment WHERE n = old.attachment AND NOT EXISTS
            (SELECT 1 FROM message_attachment WHERE attachment = old.attachment);
    END;

    CREATE TABLE document (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        text TEXT NOT NULL,
        version INTEGER NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL
    ) STRICT;
    CREATE INDEX document_order ON document(updated, n);
    CREATE TABLE document_version (
        document INTEGER NOT NULL REFERENCES document(n) ON DELETE CASCADE,
        version INTEGER NOT NULL,
        title TEXT NOT NULL,
        text TEXT NOT NULL,
        author TEXT NOT NULL,
        kept INTEGER NOT NULL,
        created REAL NOT NULL,
        PRIMARY KEY (document, version)
    ) STRICT;

    -- Words as hunyuan.knowledge cuts them, which SQLite cannot do for Chinese.
    CREATE VIRTUAL TABLE message_words USING fts5(words, detail=full);
    CREATE VIRTUAL TABLE conversation_words USING fts5(words, detail=full);
    CREATE VIRTUAL TABLE document_words USING fts5(words, detail=full);
    CREATE TRIGGER message_gone AFTER DELETE ON message BEGIN
        DELETE FROM message_words WHERE rowid = old.n;
    END;
    CREATE TRIGGER conversation_gone AFTER DELETE ON conversation BEGIN
        DELETE FROM conversation_words WHERE rowid = old.n;
    END;
    CREATE TRIGGER document_gone AFTER DELETE ON document BEGIN
        DELETE FROM document_words WHERE rowid = old.n;
    END;
    """,
)
"""Each brings the schema from ``user_version`` i to i + 1; only ever added to."""


class Database:
    """A connection that threads share, one transaction at a time.

    Raises `BadDataError` for a file that is no such database or was made by a later version,
    `DiskFullError` for a full disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with sqlite_errors(path):
            self._connection = connect(path)
            try:
                self._migrate()
            except BaseException:
                self._connection.close()
                raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block happens, or nothing of it."""
        try:
            with self._lock, sqlite_errors(self._path), transaction(self._connection) as db:
                yield db
        except (OverflowError, UnicodeEncodeError) as error:
            # What JSON can say and SQLite cannot hold; found when it is bound.
            raise RefusedError(
                "a number is beyond 64 bits, or a text holds half a character; correct it",
                "有数字超出 64 位，或文本含有半个字符；请更正",
            ) from error

    def close(self) -> None:
        """Waits for the running transaction. May be repeated."""
        with self._lock:
            self._connection.close()

    def _migrate(self) -> None:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise BadDataError(
                f"{self._path}: was written by a later version of this program (schema {version}, "
                f"this one knows {len(MIGRATIONS)}); update the program or choose another folder",
                f"{self._path}：由更新版本的程序写入（结构版本 {version}，"
                f"本程序支持到 {len(MIGRATIONS)}）；请升级程序或另选文件夹",
            )
        for number in range(version, len(MIGRATIONS)):
            steps = f"BEGIN; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            try:
                self._connection.executescript(steps)
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def cursor(after: str, count: int) -> list[float]:
    """The ``count`` numbers, with colons between, from which a page goes on."""
    try:
        values = [float(part) for part in after.split(":")]
    except ValueError:
        values = []
    if len(values) != count:
        raise RefusedError(
            f"after={after[:40]}: is no cursor; give the one of the page before",
            f"after={after[:40]}：不是有效的游标；请使用上一页给出的值",
            param="after",
        )
    return values
