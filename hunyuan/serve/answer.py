"""An answer's text, as it comes, taken apart: thoughts, words, calls.

Nothing is shown before it is certain what it is: an end of the text that could still begin a tag
is held back. What is held when the answer ends was text after all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import regex  # type: ignore[import-untyped]

from hunyuan.serve.tools import ARGUMENTS_START, CALL_START, ToolFormat

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"


@dataclass(frozen=True)
class Piece:
    """Some of an answer; a ``call`` begins the call of the function ``text``."""

    kind: Literal["reasoning", "content", "call", "arguments"]
    text: str


State = Literal[
    "start",  # perhaps of a thinking block
    "reasoning",
    "after",  # the thoughts, before the answer
    "begin",  # of the answer, which may be nothing but calls
    "content",
    "call",  # between calls, up to where a name begins
    "name",
    "arguments",
    "end",  # of all that is of interest
]


class AnswerParser:
    """Takes one answer apart.

    ``calls``: the format of calls, None where none were offered; in the plain format an answer is
    calls if it begins with one of ``starts``. ``bare``: a pattern of how a call without what
    stands around it begins. ``thinks``: the model may begin
    with a thinking block; ``thinking``: it is in the midst of one. ``tagged``: what follows the
    thoughts may stand in answer tags, which are no part of it.
    """

    def __init__(
        self,
        calls: ToolFormat | None,
        *,
        starts: Sequence[str] = (CALL_START,),
        bare: str | None = None,
        thinks: bool = False,
        thinking: bool = False,
        tagged: bool = False,
    ) -> None:
        self._trigger = calls.trigger if calls else ""
        self._starts = starts if calls is not None and not calls.trigger else ()
        self._bare = None if calls is None or bare is None else regex.compile(bare + r"(?=\{)")
        self._answer_tags = ["\n" + END_ANSWER, END_ANSWER] if tagged else []
        self._held = ""
        self.state: State = "reasoning" if thinking else "start" if thinks else "begin"
        self._skip_blanks = thinking
        self._nesting = _Nesting()

    @property
    def speaking(self) -> bool:
        """Whether the next text belongs to the words of the answer, as far as is known."""
        return self.state in ("begin", "content")

    def feed(self, text: str) -> list[Piece]:
        """What ``text`` makes certain."""
        self._held += text
        return list(self._pieces(final=False))

    def finish(self) -> list[Piece]:
        """What was held back, at the end of the answer."""
        return list(self._pieces(final=True))

    def _pieces(self, final: bool) -> Iterator[Piece]:
        while self._held:
            if self._skip_blanks:
                self._held = self._held.lstrip()
                self._skip_blanks = not self._held
                continue
            before = (self.state, len(self._held))
            if self.state == "reasoning":
                thought, tag = self._until(("\n" + END_THINK, END_THINK), final)
                if tag:
                    self.state, self._skip_blanks = "after", True
                if thought:
                    yield Piece("reasoning", thought)
            elif self.state == "content":
                tags = [self._trigger] if self._trigger else []
                said, tag = self._until([*tags, *self._answer_tags], final)
                if tag:
                    self.state = "call" if tag == self._trigger else "end"
                if said:
                    yield Piece("content", said)
            elif self.state == "name":
                name, tag = self._until((ARGUMENTS_START,), final=False)
                self._held = name + self._held
                if tag:
                    self._held = self._held.removeprefix(name)
                    self.state, self._nesting = "arguments", _Nesting()
                    yield Piece("call", name)
            elif self.state == "arguments":
                count = self._nesting.length(self._held)
                text, self._held = self._held[:count], self._held[count:]
                self.state = "call" if self._nesting.closed else "arguments"
                yield Piece("arguments", text)
            else:
                self._pass_tags(final)
            if before == (self.state, len(self._held)):
                return

    def _pass_tags(self, final: bool) -> None:
        """The states in which nothing is shown."""
        if self.state == "start":
            # Blanks before an answer that does not think are its own.
            held = self._held.lstrip()
            if held.startswith(THINK):
                self._held, self.state = held.removeprefix(THINK), "reasoning"
                self._skip_blanks = True
            elif final or not THINK.startswith(held):
                self.state = "begin"
        elif self.state == "after":
            if self._answer_tags and self._held.startswith(ANSWER):
                self._held, self.state = self._held.removeprefix(ANSWER), "begin"
                self._skip_blanks = True
            elif final or not (self._answer_tags and ANSWER.startswith(self._held)):
                self.state = "begin"
        elif self.state == "begin":
            self._begin(final)
        elif self.state == "call":
            _, tag = self._until((CALL_START,), final=False)
            self.state = "name" if tag else "call"
        else:
            self._held = ""

    def _begin(self, final: bool) -> None:
        """Where an answer may be nothing but calls."""
        bare = self._bare and self._bare.match(self._held, partial=not final)
        if any(self._held.startswith(start) for start in self._starts):
            self._held, self.state = self._held.removeprefix(CALL_START), "name"
        elif bare and not bare.partial:
            # As the other formats write it, so that the name is read as theirs.
            name = bare.captures(bare.re.groups)[-1]
            self._held = f"{name}{ARGUMENTS_START}{self._held[bare.end() :]}"
            self.state = "name"
        elif final or not (bare or any(one.startswith(self._held) for one in self._starts)):
            self.state = "content"

    def _until(self, tags: Sequence[str], final: bool) -> tuple[str, str]:
        """The text before the first of ``tags``, which is taken off too, and that tag."""
        found = [(at, tag) for tag in tags if (at := self._held.find(tag)) >= 0]
        if found:
            at, tag = min(found)
            text, self._held = self._held[:at], self._held[at + len(tag) :]
            return text, tag
        kept = 0 if final else max((_possible(self._held, tag) for tag in tags), default=0)
        cut = len(self._held) - kept
        text, self._held = self._held[:cut], self._held[cut:]
        return text, ""


class _Nesting:
    """Finds where a JSON value ends that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False
        self.closed = False

    def length(self, text: str) -> int:
        """Characters of ``text`` that belong to the value."""
        for i, letter in enumerate(text):
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif letter == "\\":
                    self._escaped = True
                elif letter == '"':
                    self._quoted = False
            elif letter == '"':
                self._quoted = True
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.closed = True
                    return i + 1
        return len(text)


def _possible(text: str, tag: str) -> int:
    """Length of the longest end of ``text`` that begins ``tag``."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0
