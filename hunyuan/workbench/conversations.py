"""Conversations on disk: trees of messages, their attachments, and what readers think of them."""

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hunyuan.workbench.database import Database, cursor
from hunyuan.workbench.refusal import RefusedError, not_found
from hunyuan.workbench.words import Excerpt, index_text, match_in, search_expression

Role = Literal["user", "assistant"]
Status = Literal["streaming", "complete", "stopped", "interrupted", "failed"]
Rating = Literal["up", "down"]


class Settings(BaseModel):
    """How a conversation's answers are sampled; None leaves it to the model."""

    model_config = ConfigDict(extra="forbid")

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)


class Usage(BaseModel):
    """What an answer took."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    first_token_seconds: float | None = None
    tokens_per_second: float | None = None


class Trimmed(BaseModel):
    """Earlier messages that the model did not read."""

    messages: int
    tokens: int


class Feedback(BaseModel):
    """A reader's opinion of an answer."""

    rating: Rating
    comment: str = ""


class Attachment(BaseModel):
    """A document beside a message, without its text."""

    id: str
    name: str
    size: int
    sha256: str
    kind: str
    pages: int | None
    characters: int
    tokens: int | None
    notices: list[str]


class AttachmentText(Attachment):
    """A document beside a message with its text."""

    text: str


class Message(BaseModel):
    """One question or answer in the tree."""

    id: str
    parent: str | None
    role: Role
    content: str
    reasoning: str | None = None
    status: Status = "complete"
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    error: dict[str, Any] | None = None
    trimmed: Trimmed | None = None
    attachments: list[Attachment] = []
    edited: bool = False
    feedback: Feedback | None = None
    created: float


class Match(BaseModel):
    """Where a search found something: in a message, or (None) in the title."""

    message: str | None
    text: str
    spans: list[tuple[int, int]]


class Conversation(BaseModel):
    """A conversation without its messages."""

    id: str
    title: str | None
    model: str | None
    system: str | None
    settings: Settings
    pinned: bool
    active: str | None
    created: float
    updated: float
    messages: int
    match: Match | None = None


class Preference(BaseModel):
    """A preferred and a less preferred answer to the same branch."""

    conversation: str
    parent: str
    chosen: str
    rejected: str


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
            n = _insert_conversation(db, title, model, system, settings or Settings())
            return _conversation(db, n)

    def get(self, conversation: str) -> Conversation:
        """One conversation."""
        with self._database.transaction() as db:
            return _conversation(db, _number_of(db, conversation))

    def page(
        self, *, query: str = "", limit: int = 30, after: str | None = None
    ) -> tuple[list[Conversation], str | None]:
        """Some conversations and where to go on: pinned ones first, then the latest.

        With a ``query`` those whose title or messages contain all of its words.
        """
        where, values = "TRUE", list[Any]()
        if after is not None:
            where += " AND (pinned, updated, n) < (?, ?, ?)"
            values += cursor(after, 3)
        with self._database.transaction() as db:
            if query.strip():
                expression = search_expression(query)
                if expression is None:
                    return [], None
                where += (
                    " AND n IN (SELECT rowid FROM conversation_words WHERE words MATCH ? UNION"
                    " SELECT m.conversation FROM message_words w JOIN message m ON m.n = w.rowid"
                    " WHERE w.words MATCH ?)"
                )
                values += [expression, expression]
            rows = db.execute(
                f"SELECT n, pinned, updated FROM conversation WHERE {where}"
                " ORDER BY pinned DESC, updated DESC, n DESC LIMIT ?",
                [*values, limit + 1],
            ).fetchall()
            found = [_conversation(db, row["n"]) for row in rows[:limit]]
            if query.strip():
                for row, conversation in zip(rows, found, strict=False):
                    conversation.match = _match(db, row["n"], conversation, query)
        last = rows[limit - 1] if len(rows) > limit else None
        following = None if last is None else f"{last['pinned']}:{last['updated']!r}:{last['n']}"
        return found, following

    def change(self, conversation: str, changes: Mapping[str, Any]) -> Conversation:
        """Set ``title``, ``model``, ``system``, ``settings`` (`Settings`), ``pinned``, ``active``.

        ``active`` may name any message: the newest leaf below it is taken.
        """
        with self._database.transaction() as db:
            n = _number_of(db, conversation)
            columns = dict(changes)
            if "settings" in columns:
                columns["settings"] = _settings_json(columns["settings"])
            if columns.get("active") is not None:
                columns["active"] = _newest_leaf(db, _message_number(db, n, columns["active"]))
            for name, value in columns.items():
                assert name in ("title", "model", "system", "settings", "pinned", "active"), name
                db.execute(f"UPDATE conversation SET {name} = ? WHERE n = ?", (value, n))
            if "title" in columns:
                _index(db, "conversation_words", n, columns["title"] or "")
            return _conversation(db, n)

    def delete(self, conversation: str) -> None:
        """Remove a conversation and all of its messages."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM conversation WHERE n = ?", (_number_of(db, conversation),))

    # ------------------------------------------------------------ messages

    def messages(self, conversation: str) -> list[Message]:
        """The whole tree, parents before children."""
        with self._database.transaction() as db:
            n = _number_of(db, conversation)
            return _messages(db, "m.conversation = ?", (n,))

    def message(self, conversation: str, message: str) -> Message:
        """One message."""
        with self._database.transaction() as db:
            n = _message_number(db, _number_of(db, conversation), message)
            return _messages(db, "m.n = ?", (n,))[0]

    def branch(self, conversation: str, leaf: str | None) -> list[Message]:
        """The messages from the beginning to ``leaf`` (None: none)."""
        with self._database.transaction() as db:
            n = _number_of(db, conversation)
            return [] if leaf is None else _branch(db, _message_number(db, n, leaf))

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
            n = _number_of(db, conversation)
            above = None if parent is None else _message_number(db, n, parent)
            question = _insert_message(db, n, above, "user", content)
            for place, attachment in enumerate(attachments):
                db.execute(
                    "INSERT INTO message_attachment VALUES (?, ?, ?)",
                    (question, _attachment_number(db, attachment), place),
                )
            answer = _insert_answer(db, n, question, model, trimmed)
            return tuple(_messages(db, "m.n IN (?, ?)", (question, answer)))  # type: ignore[return-value]

    def answer_anew(
        self, conversation: str, question: str, *, model: str, trimmed: Trimmed | None = None
    ) -> Message:
        """The place of another answer below ``question``; it becomes the active leaf."""
        with self._database.transaction() as db:
            n = _number_of(db, conversation)
            above = _message_number(db, n, question)
            answer = _insert_answer(db, n, above, model, trimmed)
            return _messages(db, "m.n = ?", (answer,))[0]

    def resume(self, conversation: str, answer: str) -> Message:
        """Mark an answer as being written again."""
        with self._database.transaction() as db:
            n = _number_of(db, conversation)
            message = _message_number(db, n, answer)
            db.execute(
                "UPDATE message SET status = 'streaming', error = NULL WHERE n = ?", (message,)
            )
            _touch(db, n, active=message)
            return _messages(db, "m.n = ?", (message,))[0]

    def add_edited(self, conversation: str, answer: str, content: str) -> Message:
        """A reader's own version of an answer, as a sibling that becomes the active leaf."""
        with self._database.transaction() as db:
            n = _number_of(db, conversation)
            old = db.execute(
                "SELECT parent, model FROM message WHERE n = ?", (_message_number(db, n, answer),)
            ).fetchone()
            new = _insert_message(db, n, old["parent"], "assistant", content, model=old["model"])
            db.execute("UPDATE message SET edited = 1, finish_reason = 'stop' WHERE n = ?", (new,))
            _touch(db, n, active=new)
            return _messages(db, "m.n = ?", (new,))[0]

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
            _index(db, "message_words", row["n"], content)
            _touch(db, row["conversation"])
            return _messages(db, "m.n = ?", (row["n"],))[0]

    def interrupt_unfinished(self) -> None:
        """Mark answers that an earlier process was writing when it ended; index what they say."""
        with self._database.transaction() as db:
            rows = db.execute(
                "UPDATE message SET status = 'interrupted' WHERE status = 'streaming'"
                " RETURNING n, content"
            ).fetchall()
            for row in rows:
                _index(db, "message_words", row["n"], row["content"])
            _drop_unused_uploads(db)

    def delete_message(self, conversation: str, message: str) -> Conversation:
        """Remove a message and all below it; the newest leaf of what is left may become active."""
        with self._database.transaction() as db:
            n = _number_of(db, conversation)
            top = _message_number(db, n, message)
            parent = db.execute("SELECT parent FROM message WHERE n = ?", (top,)).fetchone()[0]
            db.execute(
                "WITH RECURSIVE below(n) AS (SELECT ? UNION ALL SELECT m.n FROM message m"
                " JOIN below ON m.parent = below.n) DELETE FROM message WHERE n IN below",
                (top,),
            )
            conversation_row = db.execute(
                "SELECT active FROM conversation WHERE n = ?", (n,)
            ).fetchone()
            if conversation_row["active"] is None:
                _touch(db, n, active=_leaf_after_loss(db, n, parent))
            return _conversation(db, n)

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
            n = _insert_attachment(db, name, size, sha256, kind, text, pages, tokens, list(notices))
            return _attachments(db, "a.n = ?", (n,))[0]

    def attachment(self, attachment: str) -> AttachmentText:
        """One document with its text."""
        with self._database.transaction() as db:
            n = _attachment_number(db, attachment)
            text = db.execute("SELECT text FROM attachment WHERE n = ?", (n,)).fetchone()[0]
            return AttachmentText(**_attachments(db, "a.n = ?", (n,))[0].model_dump(), text=text)

    def detach(self, attachment: str) -> None:
        """Drop a document that belongs to no message; one that does is refused."""
        with self._database.transaction() as db:
            n = _attachment_number(db, attachment)
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
            n = _message_number(db, _number_of(db, conversation), message)
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
        """Pairs of sibling answers of which the reader preferred one.

        An answer found good is preferred to its siblings found bad; if there are none, to unrated
        ones before it, which the reader had replaced. Only finished, different answers count.
        """
        with self._database.transaction() as db:
            rows = db.execute(
                "SELECT m.n, m.content, m.parent, p.id AS question, c.id AS conversation, f.rating"
                " FROM message m JOIN message p ON p.n = m.parent"
                " JOIN conversation c ON c.n = m.conversation"
                " LEFT JOIN feedback f ON f.message = m.n"
                " WHERE m.role = 'assistant' AND m.status = 'complete'"
                " AND ifnull(m.finish_reason, 'stop') = 'stop' AND trim(m.content) <> ''"
                " AND m.parent IN (SELECT u.parent FROM message u JOIN feedback g"
                "                  ON g.message = u.n WHERE g.rating = 'up')"
                " ORDER BY m.n"
            ).fetchall()
        siblings: dict[int, list[sqlite3.Row]] = {}
        for row in rows:
            siblings.setdefault(row["parent"], []).append(row)
        pairs: dict[tuple[str, str, str], Preference] = {}
        for answers in siblings.values():
            for good in (answer for answer in answers if answer["rating"] == "up"):
                worse = [a for a in answers if a["rating"] == "down"] or [
                    a for a in answers if a["rating"] is None and a["n"] < good["n"]
                ]
                for bad in worse:
                    if bad["content"] == good["content"]:
                        continue
                    key = (good["question"], good["content"], bad["content"])
                    pairs[key] = Preference(
                        conversation=good["conversation"],
                        parent=good["question"],
                        chosen=good["content"],
                        rejected=bad["content"],
                    )
        return list(pairs.values())

    # ------------------------------------------------------------ copies

    def insert_copy(
        self,
        head: Conversation,
        messages: Sequence[Message],
        texts: Mapping[str, str],
    ) -> Conversation:
        """A conversation like the given one, with ids of its own; parents stand before children.

        ``texts`` are those of the attachments, by the ids they have in ``messages``.
        """
        with self._database.transaction() as db:
            n = _insert_conversation(db, head.title, head.model, head.system, head.settings)
            numbers: dict[str, int] = {}
            attached: dict[str, int] = {}
            for message in messages:
                above = None if message.parent is None else numbers[message.parent]
                new = _insert_message(
                    db, n, above, message.role, message.content, model=message.model
                )
                numbers[message.id] = new
                status = "interrupted" if message.status == "streaming" else message.status
                db.execute(
                    "UPDATE message SET reasoning = ?, status = ?, finish_reason = ?, usage = ?,"
                    " error = ?, trimmed = ?, edited = ?, created = ? WHERE n = ?",
                    (
                        message.reasoning,
                        status,
                        message.finish_reason,
                        _json(message.usage),
                        json.dumps(message.error, ensure_ascii=False) if message.error else None,
                        _json(message.trimmed),
                        message.edited,
                        message.created,
                        new,
                    ),
                )
                for place, attachment in enumerate(message.attachments):
                    if attachment.id not in attached:
                        attached[attachment.id] = _insert_attachment(
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
            return _conversation(db, n)


# ---------------------------------------------------------------- rows


def _insert_conversation(
    db: sqlite3.Connection,
    title: str | None,
    model: str | None,
    system: str | None,
    settings: Settings,
) -> int:
    now = time.time()
    row = db.execute(
        "INSERT INTO conversation (id, title, model, system, settings, created, updated)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING n",
        (secrets.token_hex(8), title, model, system, _settings_json(settings), now, now),
    ).fetchone()
    _index(db, "conversation_words", row["n"], title or "")
    return int(row["n"])


def _insert_message(
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
            _json(trimmed),
            time.time(),
        ),
    ).fetchone()
    _index(db, "message_words", row["n"], content)
    return int(row["n"])


def _insert_answer(
    db: sqlite3.Connection, conversation: int, question: int, model: str, trimmed: Trimmed | None
) -> int:
    answer = _insert_message(
        db,
        conversation,
        question,
        "assistant",
        "",
        status="streaming",
        model=model,
        trimmed=trimmed,
    )
    _touch(db, conversation, active=answer)
    return answer


def _insert_attachment(
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


def _touch(db: sqlite3.Connection, conversation: int, active: int | None = None) -> None:
    """Note that something happened, and which leaf is shown now."""
    db.execute(
        "UPDATE conversation SET updated = ?, active = ifnull(?, active) WHERE n = ?",
        (time.time(), active, conversation),
    )


def _index(db: sqlite3.Connection, table: str, n: int, text: str) -> None:
    db.execute(f"DELETE FROM {table} WHERE rowid = ?", (n,))
    db.execute(f"INSERT INTO {table} (rowid, words) VALUES (?, ?)", (n, index_text(text)))


def _drop_unused_uploads(db: sqlite3.Connection) -> None:
    """Attachments that were uploaded more than a day ago and never sent."""
    db.execute(
        "DELETE FROM attachment WHERE created < ? AND NOT EXISTS"
        " (SELECT 1 FROM message_attachment x WHERE x.attachment = attachment.n)",
        (time.time() - 86400,),
    )


def _number_of(db: sqlite3.Connection, conversation: str) -> int:
    row = db.execute("SELECT n FROM conversation WHERE id = ?", (conversation,)).fetchone()
    if row is None:
        raise not_found("conversation", "对话", conversation)
    return int(row["n"])


def _message_number(db: sqlite3.Connection, conversation: int, message: str) -> int:
    row = db.execute(
        "SELECT n FROM message WHERE id = ? AND conversation = ?", (message, conversation)
    ).fetchone()
    if row is None:
        raise not_found("message", "消息", message)
    return int(row["n"])


def _attachment_number(db: sqlite3.Connection, attachment: str) -> int:
    row = db.execute("SELECT n FROM attachment WHERE id = ?", (attachment,)).fetchone()
    if row is None:
        raise not_found("attachment", "附件", attachment)
    return int(row["n"])


def _newest_leaf(db: sqlite3.Connection, message: int) -> int:
    row = db.execute(
        "WITH RECURSIVE down(n, depth) AS (SELECT ?, 0 UNION ALL"
        " SELECT (SELECT max(m.n) FROM message m WHERE m.parent = down.n), depth + 1 FROM down"
        " WHERE EXISTS (SELECT 1 FROM message m WHERE m.parent = down.n))"
        " SELECT n FROM down ORDER BY depth DESC LIMIT 1",
        (message,),
    ).fetchone()
    return int(row["n"])


def _leaf_after_loss(db: sqlite3.Connection, conversation: int, parent: int | None) -> int | None:
    """What to show once a child of ``parent`` is gone: its newest sibling's leaf, or the parent."""
    if parent is not None:
        return _newest_leaf(db, parent)
    row = db.execute(
        "SELECT max(n) FROM message WHERE conversation = ? AND parent IS NULL", (conversation,)
    ).fetchone()
    return None if row[0] is None else _newest_leaf(db, int(row[0]))


_CONVERSATION = """
    SELECT c.*, a.id AS active_id,
           (SELECT count(*) FROM message m WHERE m.conversation = c.n) AS count
    FROM conversation c LEFT JOIN message a ON a.n = c.active WHERE c.n = ?
"""


def _conversation(db: sqlite3.Connection, n: int) -> Conversation:
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


def _messages(db: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Message]:
    rows = db.execute(f"{_MESSAGE} WHERE {where} ORDER BY m.n", values).fetchall()
    attached = db.execute(
        "SELECT x.message, a.id FROM message_attachment x JOIN attachment a ON a.n = x.attachment"
        f" JOIN message m ON m.n = x.message WHERE {where} ORDER BY x.message, x.place",
        values,
    ).fetchall()
    by_message: dict[int, list[Attachment]] = {}
    for row in attached:
        by_message.setdefault(row["message"], []).extend(_attachments(db, "a.id = ?", (row["id"],)))
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


def _branch(db: sqlite3.Connection, leaf: int) -> list[Message]:
    return _messages(
        db,
        "m.n IN (WITH RECURSIVE up(n) AS (SELECT ? UNION ALL SELECT u.parent FROM message u"
        " JOIN up ON u.n = up.n WHERE u.parent IS NOT NULL) SELECT n FROM up)",
        (leaf,),
    )


def _attachments(db: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Attachment]:
    rows = db.execute(
        "SELECT a.id, a.name, a.size, a.sha256, a.kind, a.pages, length(a.text) AS characters,"
        f" a.tokens, a.notices FROM attachment a WHERE {where} ORDER BY a.n",
        values,
    ).fetchall()
    return [Attachment(**{**dict(row), "notices": json.loads(row["notices"])}) for row in rows]


def _match(db: sqlite3.Connection, n: int, conversation: Conversation, query: str) -> Match | None:
    """Where the query stands: in the title, else in the newest message that has it."""
    expression = search_expression(query)
    in_title = match_in(conversation.title or "", query)
    if in_title is not None:
        return Match(message=None, text=in_title.text, spans=in_title.spans)
    row = db.execute(
        "SELECT m.id, m.content FROM message_words w JOIN message m ON m.n = w.rowid"
        " WHERE w.words MATCH ? AND m.conversation = ? ORDER BY m.n DESC LIMIT 1",
        (expression, n),
    ).fetchone()
    if row is None:
        return None
    found = match_in(row["content"], query) or Excerpt(row["content"][:100], [])
    return Match(message=row["id"], text=found.text, spans=found.spans)


def _settings_json(settings: Settings) -> str:
    return settings.model_dump_json(exclude_none=True)


def _json(value: BaseModel | None) -> str | None:
    return None if value is None else value.model_dump_json()
