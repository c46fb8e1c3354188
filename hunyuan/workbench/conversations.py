"""Conversations on disk: trees of messages, their attachments, and what readers think of them."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hunyuan.workbench.conversation_copy import insert_copy
from hunyuan.workbench.conversation_records import (
    Attachment,
    AttachmentText,
    Conversation,
    Feedback,
    Message,
    Preference,
    Rating,
    Settings,
    Status,
    Trimmed,
    Usage,
)
from hunyuan.workbench.conversation_rows import (
    attachment_number,
    conversation_number,
    drop_unused_uploads,
    index_words,
    insert_answer,
    insert_attachment,
    insert_conversation,
    insert_message,
    leaf_after_loss,
    message_number,
    newest_leaf,
    read_attachments,
    read_branch,
    read_conversation,
    read_messages,
    settings_json,
    touch,
)
from hunyuan.workbench.conversation_search import page_of
from hunyuan.workbench.database import Database
from hunyuan.workbench.preferences import preferences
from hunyuan.workbench.refusal import RefusedError


class Conversations:
    """All conversations of a database. Every method is one transaction and may block on the disk.

    Unknown ids raise `RefusedError` with status 404.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------ conversations

    def create(
        self,
        *,
        title: str | None = None,
        model: str | None = None,
        system: str | None = None,
        settings: Settings | None = None,
    ) -> Conversation:
        """A new conversation without messages."""
        with self._database.transaction() as db:
            n = insert_conversation(db, title, model, system, settings or Settings())
            return read_conversation(db, n)

    def get(self, conversation: str) -> Conversation:
        """One conversation."""
        with self._database.transaction() as db:
            return read_conversation(db, conversation_number(db, conversation))

    def page(
        self, *, query: str = "", limit: int = 30, after: str | None = None
    ) -> tuple[list[Conversation], str | None]:
        """Some conversations and where to go on: pinned ones first, then the latest.

        With a ``query`` those whose title or messages contain all of its words.
        """
        with self._database.transaction() as db:
            return page_of(db, query, limit, after)

    def change(self, conversation: str, changes: Mapping[str, Any]) -> Conversation:
        """Set ``title``, ``model``, ``system``, ``settings`` (`Settings`), ``pinned``, ``active``.

        ``active`` may name any message: the newest leaf below it is taken.
        """
        with self._database.transaction() as db:
            n = conversation_number(db, conversation)
            columns = dict(changes)
            if "settings" in columns:
                columns["settings"] = settings_json(columns["settings"])
            if columns.get("active") is not None:
                columns["active"] = newest_leaf(db, message_number(db, n, columns["active"]))
            for name, value in columns.items():
                assert name in ("title", "model", "system", "settings", "pinned", "active"), name
                db.execute(f"UPDATE conversation SET {name} = ? WHERE n = ?", (value, n))
            if "title" in columns:
                index_words(db, "conversation_words", n, columns["title"] or "")
            return read_conversation(db, n)

    def delete(self, conversation: str) -> None:
        """Remove a conversation and all of its messages."""
        with self._database.transaction() as db:
            db.execute(
                "DELETE FROM conversation WHERE n = ?", (conversation_number(db, conversation),)
            )

    # ------------------------------------------------------------ messages

    def messages(self, conversation: str) -> list[Message]:
        """The whole tree, parents before children."""
        with self._database.transaction() as db:
            n = conversation_number(db, conversation)
            return read_messages(db, "m.conversation = ?", (n,))

    def message(self, conversation: str, message: str) -> Message:
        """One message."""
        with self._database.transaction() as db:
            n = message_number(db, conversation_number(db, conversation), message)
            return read_messages(db, "m.n = ?", (n,))[0]

    def branch(self, conversation: str, leaf: str | None) -> list[Message]:
        """The messages from the beginning to ``leaf`` (None: none)."""
        with self._database.transaction() as db:
            n = conversation_number(db, conversation)
            return [] if leaf is None else read_branch(db, message_number(db, n, leaf))

    def attachment_texts(self, messages: Sequence[Message]) -> dict[str, str]:
        """The texts of all attachments of ``messages``, by attachment."""
        wanted = {attachment.id for message in messages for attachment in message.attachments}
        with self._database.transaction() as db:
            return {
                name: db.execute("SELECT text FROM attachment WHERE id = ?", (name,)).fetchone()[0]
                for name in wanted
            }

    def ask(
        self,
        conversation: str,
        parent: str | None,
        content: str,
        attachments: Sequence[str],
        *,
        model: str,
        trimmed: Trimmed | None = None,
    ) -> tuple[Message, Message]:
        """Store a question and the place of its answer, which becomes the active leaf."""
        with self._database.transaction() as db:
            n = conversation_number(db, conversation)
            above = None if parent is None else message_number(db, n, parent)
            question = insert_message(db, n, above, "user", content)
            for place, attachment in enumerate(attachments):
                db.execute(
                    "INSERT INTO message_attachment VALUES (?, ?, ?)",
                    (question, attachment_number(db, attachment), place),
                )
            answer = insert_answer(db, n, question, model, trimmed)
            return tuple(read_messages(db, "m.n IN (?, ?)", (question, answer)))  # type: ignore[return-value]

    def answer_anew(
        self, conversation: str, question: str, *, model: str, trimmed: Trimmed | None = None
    ) -> Message:
        """The place of another answer below ``question``; it becomes the active leaf."""
        with self._database.transaction() as db:
            n = conversation_number(db, conversation)
            above = message_number(db, n, question)
            answer = insert_answer(db, n, above, model, trimmed)
            return read_messages(db, "m.n = ?", (answer,))[0]

    def resume(self, conversation: str, answer: str, content: str) -> Message:
        """Mark an answer as being written again, after ``content``."""
        with self._database.transaction() as db:
            n = conversation_number(db, conversation)
            message = message_number(db, n, answer)
            db.execute(
                "UPDATE message SET status = 'streaming', error = NULL, content = ? WHERE n = ?",
                (content, message),
            )
            touch(db, n, active=message)
            return read_messages(db, "m.n = ?", (message,))[0]

    def add_edited(self, conversation: str, answer: str, content: str) -> Message:
        """A reader's own version of an answer, as a sibling that becomes the active leaf."""
        with self._database.transaction() as db:
            n = conversation_number(db, conversation)
            old = db.execute(
                "SELECT parent, model FROM message WHERE n = ?", (message_number(db, n, answer),)
            ).fetchone()
            new = insert_message(db, n, old["parent"], "assistant", content, model=old["model"])
            db.execute("UPDATE message SET edited = 1, finish_reason = 'stop' WHERE n = ?", (new,))
            touch(db, n, active=new)
            return read_messages(db, "m.n = ?", (new,))[0]

    def save_partial(self, answer: str, content: str, reasoning: str | None) -> None:
        """Keep what an answer says so far; nothing happens if it ended or was deleted meanwhile."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE message SET content = ?, reasoning = ?"
                " WHERE id = ? AND status = 'streaming'",
                (content, reasoning, answer),
            )

    def finish(
        self,
        answer: str,
        *,
        content: str,
        reasoning: str | None,
        status: Status,
        finish_reason: str | None = None,
        usage: Usage | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> Message | None:
        """Store how an answer ended; None if it was deleted meanwhile."""
        with self._database.transaction() as db:
            row = db.execute(
                "UPDATE message SET content = ?, reasoning = ?, status = ?, finish_reason = ?,"
                " usage = ?, error = ? WHERE id = ? RETURNING n, conversation",
                (
                    content,
                    reasoning,
                    status,
                    finish_reason,
                    None if usage is None else usage.model_dump_json(),
                    None if error is None else json.dumps(error, ensure_ascii=False),
                    answer,
                ),
            ).fetchone()
            if row is None:
                return None
            index_words(db, "message_words", row["n"], content)
            touch(db, row["conversation"])
            return read_messages(db, "m.n = ?", (row["n"],))[0]

    def interrupt_unfinished(self) -> None:
        """Mark answers that an earlier process was writing when it ended; index what they say."""
        with self._database.transaction() as db:
            rows = db.execute(
                "UPDATE message SET status = 'interrupted' WHERE status = 'streaming'"
                " RETURNING n, content"
            ).fetchall()
            for row in rows:
                index_words(db, "message_words", row["n"], row["content"])
            drop_unused_uploads(db)

    def delete_message(self, conversation: str, message: str) -> Conversation:
        """Remove a message and all below it; the newest leaf of what is left may become active."""
        with self._database.transaction() as db:
            n = conversation_number(db, conversation)
            top = message_number(db, n, message)
            parent = db.execute("SELECT parent FROM message WHERE n = ?", (top,)).fetchone()[0]
            db.execute(
                "WITH RECURSIVE below(n) AS (SELECT ? UNION ALL SELECT m.n FROM message m"
                " JOIN below ON m.parent = below.n) DELETE FROM message WHERE n IN below",
                (top,),
            )
            head = db.execute("SELECT active FROM conversation WHERE n = ?", (n,)).fetchone()
            if head["active"] is None:
                touch(db, n, active=leaf_after_loss(db, n, parent))
            return read_conversation(db, n)

    # ------------------------------------------------------------ attachments

    def attach(
        self,
        *,
        name: str,
        size: int,
        sha256: str,
        kind: str,
        text: str,
        pages: int | None = None,
        tokens: int | None = None,
        notices: Sequence[str] = (),
    ) -> Attachment:
        """Store a document's text; it belongs to no message yet and is dropped after a day."""
        with self._database.transaction() as db:
            n = insert_attachment(db, name, size, sha256, kind, text, pages, tokens, list(notices))
            return read_attachments(db, "a.n = ?", (n,))[0]

    def attachment(self, attachment: str) -> AttachmentText:
        """One document with its text."""
        with self._database.transaction() as db:
            n = attachment_number(db, attachment)
            text = db.execute("SELECT text FROM attachment WHERE n = ?", (n,)).fetchone()[0]
            return AttachmentText(
                **read_attachments(db, "a.n = ?", (n,))[0].model_dump(), text=text
            )

    def detach(self, attachment: str) -> None:
        """Drop a document that belongs to no message; one that does is refused."""
        with self._database.transaction() as db:
            n = attachment_number(db, attachment)
            used = db.execute(
                "SELECT 1 FROM message_attachment WHERE attachment = ?", (n,)
            ).fetchone()
            if used is not None:
                raise RefusedError(
                    f"attachment {attachment}: belongs to a message; delete the message instead",
                    f"附件 {attachment}：属于一条消息；请改为删除该消息",
                    status=409,
                    code="in_use",
                )
            db.execute("DELETE FROM attachment WHERE n = ?", (n,))

    # ------------------------------------------------------------ opinions

    def rate(
        self, conversation: str, message: str, rating: Rating | None, comment: str
    ) -> Feedback | None:
        """Store (or with None remove) a reader's opinion of an answer."""
        with self._database.transaction() as db:
            n = message_number(db, conversation_number(db, conversation), message)
            role = db.execute("SELECT role FROM message WHERE n = ?", (n,)).fetchone()[0]
            if role != "assistant":
                raise RefusedError(
                    f"message {message}: is a question; only answers are rated",
                    f"消息 {message}：是提问；只能评价回答",
                )
            db.execute("DELETE FROM feedback WHERE message = ?", (n,))
            if rating is None:
                return None
            db.execute(
                "INSERT INTO feedback VALUES (?, ?, ?, ?)", (n, rating, comment, time.time())
            )
            return Feedback(rating=rating, comment=comment)

    def ratings(self) -> dict[Rating, int]:
        """How many answers were found good and bad."""
        with self._database.transaction() as db:
            rows = db.execute("SELECT rating, count(*) FROM feedback GROUP BY rating").fetchall()
        return {"up": 0, "down": 0} | {row[0]: row[1] for row in rows}  # type: ignore[return-value]

    def preferences(self) -> list[Preference]:
        """Pairs of sibling answers of which the reader preferred one."""
        with self._database.transaction() as db:
            return preferences(db)

    def insert_copy(
        self, head: Conversation, messages: Sequence[Message], texts: Mapping[str, str]
    ) -> Conversation:
        """A conversation like the given one, with ids of its own; see `conversation_copy`."""
        with self._database.transaction() as db:
            return insert_copy(db, head, messages, texts)
