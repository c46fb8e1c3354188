"""Which of two answers a reader preferred, as training on preferences wants to know."""

import sqlite3

from hunyuan.workbench.conversation_records import Preference


def preferences(db: sqlite3.Connection) -> list[Preference]:
    """Pairs of sibling answers of which the reader preferred one.

    An answer found good is preferred to its siblings found bad; if there are none, to unrated
    ones before it, which the reader had replaced. Only finished, different answers count.
    """
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
