"""One SQLite file: its schema, its migrations, its transactions, and what can go wrong with it."""

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hunyuan.errors import BadDataError, DoesNotFitError, HunyuanError
from hunyuan.files import human_bytes

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
    `DoesNotFitError` for a full disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._said():
            # One process has the folder, so nobody should have to be waited for long.
            self._connection = sqlite3.connect(
                path, check_same_thread=False, isolation_level=None, timeout=10
            )
        self._connection.row_factory = sqlite3.Row
        try:
            with self._said():
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
                self._connection.execute("PRAGMA foreign_keys = ON")
                self._migrate()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block happens, or nothing of it."""
        with self._lock, self._said():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

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

    @contextmanager
    def _said(self) -> Iterator[None]:
        """SQLite's errors as sentences for the user; our own mistakes pass."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            known = self._known(name, str(error))
            if known is None:
                raise
            raise known from error

    def _known(self, name: str, text: str) -> HunyuanError | None:
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            free = human_bytes(shutil.disk_usage(self._path.parent).free)
            return DoesNotFitError(
                f"{self._path}: cannot be written, {text} ({free} left on the disk); free some "
                "space; what was not saved is still on the page",
                f"{self._path}：无法写入，{text}（磁盘剩余 {free}）；"
                "请清理空间；未保存的内容仍在页面上",
            )
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            return HunyuanError(
                f"{self._path}: {text}; make the folder writable or choose another with --data",
                f"{self._path}：{text}；请赋予写权限或用 --data 另选文件夹",
            )
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return BadDataError(
                f"{self._path}: {text}; move the file away (a new one is made) or restore a copy",
                f"{self._path}：{text}；请移走该文件（会新建一个）或恢复备份",
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return HunyuanError(
                f"{self._path}: {text}; close the other program that has it open",
                f"{self._path}：{text}；请关闭占用它的其他程序",
            )
        return None
