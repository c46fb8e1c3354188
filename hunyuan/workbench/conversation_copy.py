"""A conversation stored again under ids of its own, as an import needs it."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence

from hunyuan.workbench.conversation_records import Conversation, Message
from hunyuan.workbench.conversation_rows import (
    insert_attachment,
    insert_conversation,
    insert_message,
    json_or_none,
    read_conversation,
)


def insert_copy(
    db: sqlite3.Connection,
    head: Conversation,
    messages: Sequence[Message],
    texts: Mapping[str, str],
) -> Conversation:
    """A conversation like the given one, with ids of its own; parents stand before children.

    ``texts`` are those of the attachments, by the ids they have in ``messages``.
    """
    n = insert_conversation(db, head.title, head.model, head.system, head.settings)
    numbers: dict[str, int] = {}
    attached: dict[str, int] = {}
    for message in messages:
        above = None if message.parent is None else numbers[message.parent]
        new = insert_message(db, n, above, message.role, message.content, model=message.model)
        numbers[message.id] = new
        status = "interrupted" if message.status == "streaming" else message.status
        db.execute(
            "UPDATE message SET reasoning = ?, status = ?, finish_reason = ?, usage = ?,"
            " error = ?, trimmed = ?, edited = ?, created = ? WHERE n = ?",
            (
                message.reasoning,
                status,
                message.finish_reason,
                json_or_none(message.usage),
                json.dumps(message.error, ensure_ascii=False) if message.error else None,
                json_or_none(message.trimmed),
                message.edited,
                message.created,
                new,
            ),
        )
        for place, attachment in enumerate(message.attachments):
            if attachment.id not in attached:
                attached[attachment.id] = insert_attachment(
                    db,
                    attachment.name,
                    attachment.size,
                    attachment.sha256,
                    attachment.kind,
                    texts[attachment.id],
                    attachment.pages,
                    attachment.tokens,
                    attachment.notices,
                )
            db.execute(
                "INSERT INTO message_attachment VALUES (?, ?, ?)",
                (new, attached[attachment.id], place),
            )
        if message.feedback is not None:
            db.execute(
                "INSERT INTO feedback VALUES (?, ?, ?, ?)",
                (new, message.feedback.rating, message.feedback.comment, time.time()),
            )
    active = numbers.get(head.active or "")
    db.execute(
        "UPDATE conversation SET active = ?, created = ?, pinned = ? WHERE n = ?",
        (active, head.created, head.pinned, n),
    )
    return read_conversation(db, n)
