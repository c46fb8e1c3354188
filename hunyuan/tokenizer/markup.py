"""Special tokens as text: finding them in a rendered template, never in what a user wrote.

A chat template is rendered to text and the special tokens are found in it afterwards, so a user who
types ``<|im_end|>`` could end his own turn. Before rendering, every occurrence of a special token
in a message is therefore broken by a *guard*, a Unicode noncharacter that occurs nowhere in the
conversation; the rendered text is split on special tokens and the guard is removed from what lies
between. The template still sees ordinary strings that it may trim, split and search, and a
conversation without special tokens in it is rendered exactly as without guards.

A special token could also be completed by the template: a message that ends in ``<|im_end|``
before a template's ``>``. A message that begins or ends with a part of a special token gets a guard
at that edge too.

The model's own earlier answers are different in one point: added tokens that are not control tokens
(``<tool_call>``, ``<think>``) are what a model writes and templates look for, so in assistant
messages they stay tokens. Tokens that bound turns stay guarded there as well.

Not covered: a template that deletes characters from the middle of a message, or that puts a message
between two halves of a special token, can still join one.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hunyuan.errors import UsageError

_NONCHARACTERS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialToken:
    """A token that is written as a whole and never assembled from ordinary text.

    ``control`` tokens bound texts and turns and are not shown; the others (tool or thinking tags)
    are. The remaining fields are Hugging Face's rules for the text around the token.
    """

    text: str
    id: int
    control: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


def is_text(added_token: str) -> bool:
    """Whether an added token is ordinary text: one character, or only whitespace.

    Vocabularies add runs of spaces and single letters that way. Text may become such a token
    wherever it stands, and no guard could be put inside.
    """
    return len(added_token) == 1 or added_token.replace("\u2581", " ").isspace()


class Markup:
    """The special tokens of one vocabulary."""

    def __init__(self, specials: Iterable[SpecialToken]) -> None:
        self._by_text = {special.text: special for special in specials}
        texts = tuple(self._by_text)
        control = tuple(text for text in texts if self._by_text[text].control)
        self._special = _alternatives(texts)
        self._special_start = _start_of(texts)
        self._control_start = _start_of(control)
        self._heads = frozenset(text[:n] for text in texts for n in range(1, len(text)))
        self._tails = frozenset(text[n:] for text in texts for n in range(1, len(text)))
        self._longest = max(map(len, texts), default=0)

    def split(self, text: str) -> list[str | SpecialToken]:
        """``text`` cut at special tokens, leftmost first and of those the longest."""
        pieces: list[str | SpecialToken] = []
        plain_from = 0
        if self._special is None:
            return [text] if text else []
        for match in self._special.finditer(text):
            special = self._by_text[match.group()]
            if special.single_word and _inside_word(text, match.start(), match.end()):
                continue
            plain = text[plain_from : match.start()]
            _append_plain(pieces, plain.rstrip() if special.lstrip else plain)
            pieces.append(special)
            plain_from = match.end()
        _append_plain(pieces, text[plain_from:])
        return pieces

    def shield(self, text: str, guard: str, *, by_model: bool, whole: bool) -> str:
        """``text`` with every special token broken by ``guard``.

        ``by_model``: an assistant's text, in which only control tokens are broken. ``whole``: a
        fixed word that templates compare (a role, a key), whose edges are left alone.
        """
        start = self._control_start if by_model else self._special_start
        if start is not None:
            text = start.sub(lambda match: match.group() + guard, text)
        if whole:
            return text
        inner = text.strip()
        shortest = range(1, min(self._longest, len(inner) + 1))
        before = guard if any(inner[:n] in self._tails for n in shortest) else ""
        after = guard if any(inner[-n:] in self._heads for n in shortest) else ""
        if not before and not after:
            return text
        at = len(text) - len(text.lstrip())
        return text[:at] + before + inner + after + text[at + len(inner) :]


def choose_guard(texts: Sequence[str]) -> str:
    """A noncharacter that occurs in none of ``texts``, neither itself nor JSON-escaped.

    Raises `UsageError` if all 32 occur.
    """
    for guard in _NONCHARACTERS:
        escaped = _escaped(guard)
        if not any(guard in text or escaped in text for text in texts):
            return guard
    raise UsageError(
        "the conversation contains all 32 Unicode noncharacters U+FDD0..U+FDEF; remove one of them",
        "对话中出现了全部 32 个 Unicode 非字符 U+FDD0..U+FDEF；请至少去掉其中一个",
    )


def remove_guard(text: str, guard: str) -> str:
    """``text`` as it was before `Markup.shield`, also where a template escaped it as JSON."""
    return text.replace(guard, "").replace(_escaped(guard), "")


def _escaped(guard: str) -> str:
    return f"\\u{ord(guard):04x}"


def _alternatives(texts: Sequence[str]) -> re.Pattern[str] | None:
    if not texts:
        return None
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


def _start_of(texts: Sequence[str]) -> re.Pattern[str] | None:
    # The rest is a lookahead, so that overlapping occurrences are all found; the first character
    # is not, so that the search skips to it quickly.
    rests: dict[str, list[str]] = {}
    for text in texts:
        rests.setdefault(text[0], []).append(re.escape(text[1:]))
    if not rests:
        return None
    return re.compile("|".join(f"{re.escape(c)}(?={'|'.join(r)})" for c, r in rests.items()))


def _append_plain(pieces: list[str | SpecialToken], plain: str) -> None:
    previous = pieces[-1] if pieces else None
    if isinstance(previous, SpecialToken) and previous.rstrip:
        plain = plain.lstrip()
    if plain:
        pieces.append(plain)


def _inside_word(text: str, start: int, end: int) -> bool:
    before = start > 0 and _WORD.match(text, start - 1)
    return bool(before or _WORD.match(text, end))
