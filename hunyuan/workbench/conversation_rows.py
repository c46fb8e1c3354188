"""Conversations as rows of the database: written, found by their ids, and read as records."""

import json
import secrets
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from hunyuan.workbench.conversation_records import (
    Attachment,
    Conversation,
    Feedback,
    Message,
    Role,
    Settings,
    Status,
    Trimmed,
    Usage,
)
from hunyuan.workbench.refusal import not_found
from hunyuan.workbench.words import index_text


def insert_conversation(
    db: sqlite3.Connection,
    title: str | None,
    model: str | None,
    system: str | None,
    settings: Settings,
) -> int:
    """A new conversation; its row."""
    now = time.time()
    row = db.execute(
        "INSERT INTO conversation (id, title, model, system, settings, created, updated)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING n",
        (secrets.token_hex(8), title, model, system, settings_json(settings), now, now),
    ).fetchone()
    index_words(db, "conversation_words", row["n"], title or "")
    return int(row["n"])


def insert_message(
    db: sqlite3.Connection,
    conversation: int,
    parent: int | None,
    role: Role,
    content: str,
    *,
    status: Status = "complete",
    model: str | None = None,
    trimmed: Trimmed | None = None,
) -> int:
    """A new message below ``parent``; its row."""
    row = db.execute(
        "INSERT INTO message (id, conversation, parent, role, content, status, model, trimmed,"
        " created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING n",
        (
            secrets.token_hex(8),
            conversation,
            parent,
            role,
            content,
            status,
            model,
            json_or_none(trimmed),
            time.time(),
        ),
    ).fetchone()
    index_words(db, "message_words", row["n"], content)
    return int(row["n"])


def insert_answer(
    db: sqlite3.Connection, conversation: int, question: int, model: str, trimmed: Trimmed | None
) -> int:
    """The place of an answer to be written, which becomes the active leaf; its row."""
    answer = insert_message(
        db,
        conversation,
        question,
        "assistant",
        "",
        status="streaming",
        model=model,
        trimmed=trimmed,
    )
    touch(db, conversation, active=answer)
    return answer


def insert_attachment(
    db: sqlite3.Connection,
    name: str,
    size: int,
    sha256: str,
    kind: str,
    text: str,
    pages: int | None,
    tokens: int | None,
    notices: list[str],
) -> int:
    """A document that belongs to no message yet; its row."""
    row = db.execute(
        "INSERT INTO attachment (id, name, size, sha256, kind, pages, text, tokens, notices,"
        " created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING n",
        (
            secrets.token_hex(8),
            name,
            size,
            sha256,
            kind,
            pages,
            text,
            tokens,
            json.dumps(notices, ensure_ascii=False),
            time.time(),
        ),
    ).fetchone()
    return int(row["n"])


def touch(db: sqlite3.Connection, conversation: int, active: int | None = None) -> None:
    """Note that something happened, and which leaf is shown now."""
    db.execute(
        "UPDATE conversation SET updated = ?, active = ifnull(?, active) WHERE n = ?",
        (time.time(), active, conversation),
    )


def index_words(db: sqlite3.Connection, table: str, n: int, text: str) -> None:
    """Make a text of the full-text ``table`` findable, instead of what was."""
    db.execute(f"DELETE FROM {table} WHERE rowid = ?", (n,))
    db.execute(f"INSERT INTO {table} (rowid, words) VALUES (?, ?)", (n, index_text(text)))


def drop_unused_uploads(db: sqlite3.Connection) -> None:
    """Attachments that were uploaded more than a day ago and never sent."""
    db.execute(
        "DELETE FROM attachment WHERE created < ? AND NOT EXISTS"
        " (SELECT 1 FROM message_attachment x WHERE x.attachment = attachment.n)",
        (time.time() - 86400,),
    )


def conversation_number(db: sqlite3.Connection, conversation: str) -> int:
    """The row of a conversation; `RefusedError` (404) if there is none."""
    row = db.execute("SELECT n FROM conversation WHERE id = ?", (conversation,)).fetchone()
    if row is None:
        raise not_found("conversation", "对话", conversation)
    return int(row["n"])


def message_number(db: sqlite3.Connection, conversation: int, message: str) -> int:
    """The row of a message of that conversation; `RefusedError` (404) if there is none."""
    row = db.execute(
        "SELECT n FROM message WHERE id = ? AND conversation = ?", (message, conversation)
    ).fetchone()
    if row is None:
        raise not_found("message", "消息", message)
    return int(row["n"])


def attachment_number(db: sqlite3.Connection, attachment: str) -> int:
    """The row of a document; `RefusedError` (404) if there is none."""
    row = db.execute("SELECT n FROM attachment WHERE id = ?", (attachment,)).fetchone()
    if row is None:
        raise not_found("attachment", "附件", attachment)
    return int(row["n"])


def newest_leaf(db: sqlite3.Connection, message: int) -> int:
    """The end of the branch that was last begun below a message."""
    row = db.execute(
        "WITH RECURSIVE down(n, depth) AS (SELECT ?, 0 UNION ALL"
        " SELECT (SELECT max(m.n) FROM message m WHERE m.parent = down.n), depth + 1 FROM down"
        " WHERE EXISTS (SELECT 1 FROM message m WHERE m.parent = down.n))"
        " SELECT n FROM down ORDER BY depth DESC LIMIT 1",
        (message,),
    ).fetchone()
    return int(row["n"])


def leaf_after_loss(db: sqlite3.Connection, conversation: int, parent: int | None) -> int | None:
    """What to show once a child of ``parent`` is gone: its newest sibling's leaf, or the parent."""
    if parent is not None:
        return newest_leaf(db, parent)
    row = db.execute(
        "SELECT max(n) FROM message WHERE conversation = ? AND parent IS NULL", (conversation,)
    ).fetchone()
    return None if row[0] is None else newest_leaf(db, int(row[0]))


_CONVERSATION = """
    SELECT c.*, a.id AS active_id,
           (SELECT count(*) FROM message m WHERE m.conversation = c.n) AS count
    FROM conversation c LEFT JOIN message a ON a.n = c.active WHERE c.n = ?
"""


def read_conversation(db: sqlite3.Connection, n: int) -> Conversation:
    """One conversation."""
    row = db.execute(_CONVERSATION, (n,)).fetchone()
    return Conversation(
        id=row["id"],
        title=row["title"],
        model=row["model"],
        system=row["system"],
        settings=Settings.model_validate_json(row["settings"]),
        pinned=bool(row["pinned"]),
        active=row["active_id"],
        created=row["created"],
        updated=row["updated"],
        messages=row["count"],
    )


_MESSAGE = """
    SELECT m.*, p.id AS parent_id, f.rating, f.comment
    FROM message m LEFT JOIN message p ON p.n = m.parent LEFT JOIN feedback f ON f.message = m.n
"""


def read_messages(db: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Message]:
    """The messages that fit ``where``, in which ``m`` is the message; parents before children."""
    rows = db.execute(f"{_MESSAGE} WHERE {where} ORDER BY m.n", values).fetchall()
    attached = db.execute(
        "SELECT x.message, a.id FROM message_attachment x JOIN attachment a ON a.n = x.attachment"
        f" JOIN message m ON m.n = x.message WHERE {where} ORDER BY x.message, x.place",
        values,
    ).fetchall()
    by_message: dict[int, list[Attachment]] = {}
    for row in attached:
        by_message.setdefault(row["message"], []).extend(
            read_attachments(db, "a.id = ?", (row["id"],))
        )
    return [_message(row, by_message.get(row["n"], [])) for row in rows]


def _message(row: sqlite3.Row, attachments: list[Attachment]) -> Message:
    rating = row["rating"]
    return Message(
        id=row["id"],
        parent=row["parent_id"],
        role=row["role"],
        content=row["content"],
        reasoning=row["reasoning"],
        status=row["status"],
        finish_reason=row["finish_reason"],
        model=row["model"],
        usage=None if row["usage"] is None else Usage.model_validate_json(row["usage"]),
        error=None if row["error"] is None else json.loads(row["error"]),
        trimmed=None if row["trimmed"] is None else Trimmed.model_validate_json(row["trimmed"]),
        attachments=attachments,
        edited=bool(row["edited"]),
        feedback=None if rating is None else Feedback(rating=rating, comment=row["comment"]),
        created=row["created"],
    )


def read_branch(db: sqlite3.Connection, leaf: int) -> list[Message]:
    """The messages from the beginning to ``leaf``."""
    return read_messages(
        db,
        "m.n IN (WITH RECURSIVE up(n) AS (SELECT ? UNION ALL SELECT u.parent FROM message u"
        " JOIN up ON u.n = up.n WHERE u.parent IS NOT NULL) SELECT n FROM up)",
        (leaf,),
    )


def read_attachments(db: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Attachment]:
    """The documents that fit ``where``, in which ``a`` is the document."""
    rows = db.execute(
        "SELECT a.id, a.name, a.size, a.sha256, a.kind, a.pages, length(a.text) AS characters,"
        f" a.tokens, a.notices FROM attachment a WHERE {where} ORDER BY a.n",
        values,
    ).fetchall()
    return [Attachment(**{**dict(row), "notices": json.loads(row["notices"])}) for row in rows]


def settings_json(settings: Settings) -> str:
    """Settings as they are stored."""
    return settings.model_dump_json(exclude_none=True)


def json_or_none(value: BaseModel | None) -> str | None:
    """A record as it is stored."""
    return None if value is None else value.model_dump_json()
