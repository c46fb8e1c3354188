"""One JSON object a line: a request on stdin, its answer on stdout. Standard library only, since
every contestant runs in an environment of its own."""

import json
import os
import sys
import time
from typing import Any, Protocol


class Contestant(Protocol):
    """What `side_by_side.py` asks of a program; prompts are token ids."""

    def load(self, **options: Any) -> dict[str, Any]:
        """Load the model and say which versions and settings run."""

    def complete(self, text: str, tokens: int) -> str:
        """Continue a text greedily."""

    def prefill(self, ids: list[int]) -> None:
        """Forget everything, read a prompt and choose one token."""

    def decode(self, tokens: int) -> None:
        """Go on from there, greedily, past any end of text."""


def run(contestant: object) -> None:
    """Serve requests, each a call of a method, until stdin ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        what = request.pop("do")
        if what == "quit":
            return
        begin = time.perf_counter()
        value = getattr(contestant, what)(**request)
        seconds = time.perf_counter() - begin
        print(json.dumps({"value": value, "seconds": seconds}), file=answers, flush=True)
