"""SQLite files: connections, transactions, and SQLite's errors as sentences for the user."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hunyuan.errors import BadDataError, DiskFullError, HunyuanError
from hunyuan.files import disk_errors, existing_parent, human_bytes

_FULL = ("SQLITE_FULL", "SQLITE_IOERR")
_DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_REFUSED = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
_IN_USE = ("SQLITE_BUSY", "SQLITE_LOCKED")


def connect(path: Path) -> sqlite3.Connection:
    """A connection for one thread at a time: WAL, no implicit transactions, rows by name."""
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        # What somebody deleted must not stay in the file's free pages.
        db.execute("PRAGMA secure_delete = ON")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of the block happens, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Full disks, damaged and foreign files as one-line errors; our own mistakes pass.

    Raises `DiskFullError`, `BadDataError` for a file that is no database, `HunyuanError` for one
    that may not be written or is in use.
    """
    try:
        with disk_errors(path):
            yield
    except sqlite3.DatabaseError as error:
        known = _known(path, getattr(error, "sqlite_errorname", "") or "", str(error))
        if known is None:
            raise
        raise known from error


def _known(path: Path, name: str, text: str) -> HunyuanError | None:
    if name.startswith(_FULL):
        free = human_bytes(shutil.disk_usage(existing_parent(path)).free)
        return DiskFullError(
            f"{path}: cannot be written, {text} ({free} left on the disk); free some space",
            f"{path}：无法写入，{text}（磁盘剩余 {free}）；请清理空间",
        )
    if name.startswith(_REFUSED):
        return HunyuanError(
            f"{path}: {text}; make the folder writable or choose another with --data",
            f"{path}：{text}；请赋予写权限或用 --data 另选文件夹",
        )
    if name.startswith(_DAMAGED):
        return BadDataError(
            f"{path}: {text}; move the file away (a new one is made) or restore a copy",
            f"{path}：{text}；请移走该文件（会新建一个）或恢复备份",
        )
    if name.startswith(_IN_USE):
        return HunyuanError(
            f"{path}: {text}; close the other program that has it open",
            f"{path}：{text}；请关闭占用它的其他程序",
        )
    return None
