"""Answers that must match a grammar: llguidance masks the tokens that may come next.

`GrammarCompiler` knows one tokenizer; compiling is milliseconds once its table of tokens is built,
which the first grammar waits for. A `Constraint` follows one answer. Stop tokens are allowed only
where the grammar accepts; where it accepts and nothing can follow, the answer is complete.

Special tokens that bound texts and turns can never be chosen within a grammar; visible ones, such
as ``<tool_call>``, are their text.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from hunyuan.engine.request import Grammar
from hunyuan.errors import HunyuanError, UsageError
from hunyuan.tokenizer.tokenizer import Tokenizer

Allowed = NDArray[np.bool_]

MAX_CHARACTERS = 256 * 1024
"""Of a grammar's source."""

_KEPT = 64
"""Compiled grammars that are kept: a chat sends the same tools with every turn."""

# Models write JSON with these, and with a space more or less they lose their way.
_JSON_STYLE: Any = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


class Constraint:
    """How far one answer is through its grammar."""

    def __init__(
        self, compiler: "GrammarCompiler", matcher: LLMatcher, grammar: Grammar, prompt_end: str
    ) -> None:
        self._compiler = compiler
        self._matcher = matcher
        self._after = grammar.after
        self._opening: int | None = None
        self._thought: str | None = None
        if grammar.after is not None:
            opening = grammar.after.replace("</", "<", 1)
            if prompt_end.rstrip().endswith(opening):
                self._thought = ""
            else:
                self._opening = compiler.specials.get(opening)

    @property
    def complete(self) -> bool:
        """Whether the grammar accepts and nothing may follow."""
        return self._thought is None and bool(self._matcher.is_stopped())

    def allowed(self) -> Allowed | None:
        """(V,) tokens that may come next; None while the answer is free, in a thinking block.

        Raises `HunyuanError` where nothing may: the grammar has no way on.
        """
        if self._thought is not None:
            return None
        mask = self._compiler.mask(self._matcher)
        if self._opening is not None:
            mask[self._opening] = True
        if not mask.any():
            reason = self._matcher.get_error() or self._matcher.stop_reason()
            raise HunyuanError(
                f"the answer's grammar has no way on ({_short(reason)}); loosen it",
                f"回答所用的语法无法继续（{_short(reason)}）；请放宽语法",
            )
        return mask

    def accept(self, token: int, text: str) -> None:
        """Follow the chosen ``token``, whose own text is ``text``."""
        if self._thought is not None:
            assert self._after is not None
            self._thought += text
            if self._after in self._thought:
                self._thought = None
        elif token == self._opening:
            self._thought = ""
        else:
            self._matcher.consume_token(token)
        self._opening = None


class GrammarCompiler:
    """Grammars for one tokenizer; ``vocab`` is the width of the model's logits."""

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._stops = [id for id in tokenizer.stop_ids if id < vocab]
        self._table: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    @property
    def specials(self) -> Mapping[str, int]:
        """Special tokens by their text."""
        return self._tokenizer.specials

    def start(self, grammar: Grammar, prompt_end: str) -> Constraint:
        """A constraint for one answer; ``prompt_end`` is the end of its prompt's text.

        Raises `UsageError` with what is wrong with the grammar.
        """
        key = json.dumps([grammar.kind, grammar.source], sort_keys=True, default=list)
        if (matcher := self._compiled.get(key)) is None:
            matcher = self._compiled[key] = self._compile(grammar)
        self._compiled.move_to_end(key)
        while len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return Constraint(self, matcher.deep_copy(), grammar, prompt_end)

    def mask(self, matcher: LLMatcher) -> Allowed:
        """(V,) what ``matcher`` lets come next; any of our stop tokens where it lets its own."""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = np.zeros(self._vocab, np.bool_)
        unpacked = np.unpackbits(bits, bitorder="little")[: self._vocab]
        allowed[: len(unpacked)] = unpacked
        allowed[self._stops] = allowed[self._stops].any()
        return allowed

    def _compile(self, grammar: Grammar) -> LLMatcher:
        source = _source(grammar)
        if len(source) > MAX_CHARACTERS:
            raise UsageError(
                f"grammar: has {len(source)} characters, at most {MAX_CHARACTERS} are read",
                f"grammar：有 {len(source)} 个字符，最多 {MAX_CHARACTERS}",
            )
        if self._table is None:
            self._table = LLTokenizer(TokenizerWrapper(_Vocabulary(self._tokenizer)))
        try:
            if grammar.kind in ("json_schema", "json_object"):
                written = LLMatcher.grammar_from_json_schema(source, defaults=_JSON_STYLE)
            elif grammar.kind == "regex":
                written = LLMatcher.grammar_from_regex(source)
            else:
                written = LLMatcher.grammar_from_lark(source)
            problem = LLMatcher.validate_grammar(written, self._table)
        except (ValueError, TypeError) as error:
            problem = str(error)
        if problem:
            raise UsageError(
                f"{grammar.kind}: cannot be used as a grammar: {_short(problem)}",
                f"{grammar.kind}：不能用作语法：{_short(problem)}",
            )
        # Kept quiet: it would write its warnings, which quote the grammar, to stderr.
        return LLMatcher(self._table, written, log_level=0)


class _Vocabulary:
    """The tokenizer as llguidance wants to see one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        undefined = set(tokenizer.undefined_ids(tokenizer.vocab_size))
        hidden = [id for id in range(tokenizer.vocab_size) if tokenizer.is_control(id)]
        # A leading 0xFF, which no text contains, marks what is not text.
        apart = undefined.union(hidden)
        self.tokens = [
            b"\xff[%d]" % id if id in apart else tokenizer.token_bytes(id)
            for id in range(tokenizer.vocab_size)
        ]
        self.special_token_ids = sorted(apart)
        self.eos_token_id = min(tokenizer.stop_ids)
        self.bos_token_id = tokenizer.bos_id

    def __call__(self, text: str | bytes) -> list[int]:
        """Ids of plain text."""
        plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._tokenizer.encode(plain)


def _source(grammar: Grammar) -> str:
    source = grammar.source
    if grammar.kind == "json_object":
        return '{"type": "object"}'
    if grammar.kind == "json_schema":
        return _schema(source)
    if grammar.kind == "choice":
        choices = source
        good = isinstance(choices, Sequence) and not isinstance(choices, str) and len(choices) > 0
        if not good or any(not isinstance(c, str) or not c for c in choices):  # type: ignore[union-attr]
            raise UsageError(
                "choice: must be a list of non-empty strings", "choice：必须是非空字符串的列表"
            )
        assert choices is not None
        return "start: " + " | ".join(json.dumps(c, ensure_ascii=False) for c in choices)
    if not isinstance(source, str) or not source:
        raise UsageError(
            f"{grammar.kind}: must be a non-empty text", f"{grammar.kind}：必须是非空文本"
        )
    return source


def _schema(source: Any) -> str:
    if isinstance(source, str):
        try:
            source = json.loads(source)
        except ValueError as error:
            raise UsageError(
                f"json_schema: is no JSON ({error})", f"json_schema：不是有效的 JSON（{error}）"
            ) from error
    if not isinstance(source, Mapping | bool):
        raise UsageError(
            "json_schema: must be an object with a JSON schema",
            "json_schema：必须是 JSON Schema 对象",
        )
    try:
        return json.dumps(source, ensure_ascii=False, default=dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"json_schema: is no JSON value ({type(error).__name__})",
            f"json_schema：不是 JSON 值（{type(error).__name__}）",
        ) from error


def _short(reason: object) -> str:
    """The first line of what llguidance says, without its pointers into the source."""
    text = " ".join(str(reason).split())
    return text[:200] + ("..." if len(text) > 200 else "")
