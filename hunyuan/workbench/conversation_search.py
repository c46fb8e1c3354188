"""Pages of the list of conversations, and where in each a search found its words."""

import sqlite3
from typing import Any

from hunyuan.workbench.conversation_records import Conversation, Match
from hunyuan.workbench.conversation_rows import read_conversation
from hunyuan.workbench.database import cursor
from hunyuan.workbench.words import Excerpt, match_in, search_expression


def page_of(
    db: sqlite3.Connection, query: str, limit: int, after: str | None
) -> tuple[list[Conversation], str | None]:
    """Some conversations and where to go on: pinned ones first, then the latest.

    With a ``query`` those whose title or messages contain all of its words.
    """
    where, values = "TRUE", list[Any]()
    if after is not None:
        where += " AND (pinned, updated, n) < (?, ?, ?)"
        values += cursor(after, 3)
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
    found = [read_conversation(db, row["n"]) for row in rows[:limit]]
    if query.strip():
        for row, conversation in zip(rows, found, strict=False):
            conversation.match = _match(db, row["n"], conversation, query)
    last = rows[limit - 1] if len(rows) > limit else None
    following = None if last is None else f"{last['pinned']}:{last['updated']!r}:{last['n']}"
    return found, following


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
