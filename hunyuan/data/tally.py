"""Counts and examples of what happened to documents, kept beside the work and added up at the end.

Every task of every stage writes one small JSON file; a task that runs again after a kill writes the
same file again, so nothing is counted twice. Examples are those with the smallest hash of their
name: a random choice that is the same in every run.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hunyuan.files import atomic_file

EXCERPT = 240
"""Characters of a text that an example shows."""


@dataclass(frozen=True, slots=True, order=True)
class Example:
    """A document, shown beside the source and event that it is counted under."""

    order: str
    """Hash of the name, by which examples are chosen."""

    name: str
    """Where the document came from: source, file and line."""

    text: str
    """Its beginning, or what was found in it."""


class Tally:
    """How often each event happened in each source, with a few examples of each."""

    def __init__(self, examples: int) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[tuple[str, str], list[Example]] = {}
        self._keep = examples

    def add(self, source: str, event: str, count: int = 1) -> None:
        """Count an event."""
        self.counts[source, event] += count

    def show(self, source: str, event: str, name: str, text: str) -> None:
        """Offer an example of an event."""
        order = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
        self._offer((source, event), [Example(order, name, text[:EXCERPT])])

    def merge(self, other: "Tally") -> None:
        """Add what another tally counted."""
        self.counts.update(other.counts)
        for key, examples in other.examples.items():
            self._offer(key, examples)

    def _offer(self, key: tuple[str, str], examples: list[Example]) -> None:
        if self._keep:
            kept = sorted({*self.examples.get(key, []), *examples})
            self.examples[key] = kept[: self._keep]

    def write(self, path: Path) -> None:
        """Write the tally as JSON."""
        content = {
            "counts": [[source, event, n] for (source, event), n in sorted(self.counts.items())],
            "examples": [
                [source, event, example.order, example.name, example.text]
                for (source, event), examples in sorted(self.examples.items())
                for example in examples
            ],
        }
        with atomic_file(path) as file:
            file.write(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))


def read_tallies(paths: Iterable[Path], examples: int) -> Tally:
    """The sum of several written tallies."""
    total = Tally(examples)
    for path in sorted(paths):
        content = json.loads(path.read_bytes())
        part = Tally(examples)
        for source, event, count in content["counts"]:
            part.add(source, event, count)
        for source, event, order, name, text in content["examples"]:
            part.examples.setdefault((source, event), []).append(Example(order, name, text))
        total.merge(part)
    return total
