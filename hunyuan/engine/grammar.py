"""Answers that have to match a grammar: which tokens may come next, by llguidance.

A grammar works on the bytes of tokens. Tokens that bound texts and turns have none: a grammar may
name them (``<|im_end|>`` in Lark), text never becomes one. Special tokens that are shown, such as
``<tool_call>``, are ordinary text, so a pattern that forbids the text forbids the token; for a
grammar that names one, llguidance's vocabulary has a second entry beyond ours.

Stop tokens are allowed where the grammar accepts, and nowhere else. Where it accepts and nothing
can follow, the answer is complete. A thinking block is part of the grammar: any text up to the
closing tag.

Building the vocabulary takes about a second for 150,000 tokens, once: beforehand by
`GrammarCompiler.warm`, else when the first grammar comes. Compiling a grammar takes milliseconds,
a mask about 0.05 ms.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from hunyuan.engine.request import Grammar, GrammarError
from hunyuan.errors import HunyuanError
from hunyuan.tokenizer.markup import Markup, SpecialToken
from hunyuan.tokenizer.tokenizer import Tokenizer

SOURCE_LIMIT = 1 << 17
"""Characters of a grammar."""

KEPT = 32
"""Compiled grammars that are kept for the next request."""

LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=20_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
"""A grammar that needs more is refused, or ends its own request: tens of ms and of MB at most."""

JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""JSON as models learn it, in which none can lose itself in blanks."""


REPETITION_LIMIT = 100_000
"""Characters of a grammar whose repetitions, nested ones too, are written out."""

FORCED_LIMIT = 16_000
"""Bytes that a grammar may demand at its beginning."""

_TAIL = 16
"""Tokens at the end of a prompt among which an opening tag is looked for."""

_COUNT = re.compile(r"\{([0-9]{1,9})(?:,([0-9]{0,9}))?\}")

Allowed = NDArray[np.bool_]


class Constraint:
    """The place of one answer in its grammar."""

    def __init__(
        self, vocabulary: "Vocabulary", matcher: LLMatcher, rows: int, stops: Collection[int]
    ) -> None:
        """``rows``: the width of the logits; ``stops``: the tokens that end this answer."""
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._rows = rows
        self._stops = np.array(sorted(stops), np.int64)

    @property
    def complete(self) -> bool:
        """Whether the answer is whole and nothing can follow."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())

    def allowed(self) -> Allowed:
        """(V,) tokens that may come next, at least one.

        Raises `HunyuanError` where the grammar leads nowhere.
        """
        vocabulary = self._vocabulary
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise _dead_end(self._matcher)
        mask = np.unpackbits(bits, bitorder="little").view(np.bool_)
        allowed = np.zeros(self._rows, np.bool_)
        allowed[: vocabulary.size] = mask[: vocabulary.size]
        for id, name in vocabulary.names.items():
            allowed[id] |= mask[name]
        allowed[vocabulary.stops] = False
        allowed[self._stops] = mask[vocabulary.end]
        if not allowed.any():
            raise _dead_end(self._matcher)
        return allowed

    def accept(self, token: int) -> None:
        """Go on with a token that was allowed and ends nothing."""
        name = self._vocabulary.names.get(token)
        if name is not None and not self._matcher.validate_tokens([token]):
            token = name
        if not self._matcher.consume_token(token):
            raise _dead_end(self._matcher)


class Vocabulary:
    """A tokenizer as llguidance wants it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.size = tokenizer.vocab_size
        self.stops = np.array(sorted(tokenizer.stop_ids), np.int64)
        undefined = set(tokenizer.undefined_ids(self.size))
        shown = [s for s in tokenizer.special_tokens if not s.control]
        self.names = {special.id: self.size + i for i, special in enumerate(shown)}
        """Of special tokens that are shown: the entry by which a grammar may name them."""
        self.end = self.size + len(shown)
        """The entry that is allowed where the grammar accepts."""
        # Fields that llguidance reads.
        self.is_tokenizer_wrapper = True
        self.tokens = [
            b"" if id in undefined else tokenizer.token_bytes(id) for id in range(self.size)
        ]
        self.tokens += [*(special.text.encode() for special in shown), b"<|end of answer|>"]
        hidden = [s.id for s in tokenizer.special_tokens if s.control]
        self.special_token_ids = [*hidden, *self.names.values(), self.end]
        self.eos_token_id = self.end
        self.bos_token_id = tokenizer.bos_id
        self._backend = tokenizer.backend
        self._shown = Markup(shown)
        self.table = LLTokenizer(self, n_vocab=self.end + 1)  # type: ignore[arg-type]

    def end_of(self, ids: Sequence[int]) -> str:
        """The end of the text of ``ids``, without blanks."""
        tail = b"".join(self.tokens[id] for id in ids[-_TAIL:] if id < self.size)
        return tail.decode("utf-8", "replace").rstrip()

    def __call__(self, text: str | bytes) -> list[int]:
        """Ids of text that a grammar demands, as the model would write it: with its shown tags."""
        ids: list[int] = []
        for piece in self._shown.split(text if isinstance(text, str) else text.decode()):
            if isinstance(piece, SpecialToken):
                ids.append(piece.id)
                continue
            part = self._backend.encode(piece, begins=False)
            if b"".join(map(self._backend.token_bytes, part)) != piece.encode():
                part = self.table.greedy_tokenize(piece)  # some put a space before every text
            ids += part
        return ids


class GrammarCompiler:
    """Grammars for one tokenizer, the last of which are kept; ``vocab`` is the logits' width.

    Not for several threads at once, but for `warm`.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._vocabulary: Vocabulary | None = None
        self._building = threading.Lock()
        self._compiled: OrderedDict[tuple[object, ...], LLMatcher] = OrderedDict()

    def warm(self) -> None:
        """Build the vocabulary, so that the first grammar need not wait for it; in any thread."""
        self._known()

    def _known(self) -> Vocabulary:
        with self._building:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(self._tokenizer)
            return self._vocabulary

    def start(self, grammar: Grammar, prompt: Sequence[int], stops: Collection[int]) -> Constraint:
        """A constraint for the answer to ``prompt``, which any of ``stops`` ends.

        Raises `GrammarError`.
        """
        source = _source(grammar)
        vocabulary = self._known()
        thoughts = _thoughts(grammar, vocabulary.end_of(prompt))
        key = (grammar.kind, source, thoughts)
        if (matcher := self._compiled.get(key)) is None:
            matcher = self._compiled[key] = _compile(grammar, source, thoughts, vocabulary)
        self._compiled.move_to_end(key)
        if len(self._compiled) > KEPT:
            self._compiled.popitem(last=False)
        return Constraint(vocabulary, matcher.deep_copy(), self._vocab, stops)


def _compile(grammar: Grammar, source: str, thoughts: str, vocabulary: Vocabulary) -> LLMatcher:
    if _written_out(source) > REPETITION_LIMIT:
        raise _refused(
            grammar,
            "nested repetitions ask for too much; use smaller counts",
            "嵌套的重复次数过大；请减小",
        )
    try:
        written = _written(grammar, source)
    except (ValueError, RecursionError) as error:
        short = _short(str(error))
        raise _refused(grammar, short, short) from None
    # Alone first: then it, and not what stands around it, is at fault.
    alone = _checked(grammar, written, vocabulary)
    if not thoughts:
        return alone
    lark = grammar.kind not in ("json_schema", "json_object")
    inner = {"lark_grammar": written} if lark else json.loads(written)["grammars"][0]
    both = [{"lark_grammar": thoughts}, {**inner, "name": "answer"}]
    return _checked(grammar, json.dumps({"grammars": both}), vocabulary)


def _written(grammar: Grammar, source: str) -> str:
    """The grammar in llguidance's own form; raises ``ValueError`` for what is no text or JSON."""
    source.encode()  # half a surrogate pair is not text
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(source)
    if grammar.kind in ("lark", "choice"):
        return LLMatcher.grammar_from_lark(source)
    if not isinstance(json.loads(source), dict):
        raise ValueError("must be an object")
    return LLMatcher.grammar_from_json_schema(source, defaults=JSON_STYLE)  # type: ignore[arg-type]


def _checked(grammar: Grammar, written: str, vocabulary: Vocabulary) -> LLMatcher:
    matcher = LLMatcher(vocabulary.table, written, log_level=0, limits=LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if not matcher.is_error():
        forced = matcher.compute_ff_bytes()
        if len(forced) > FORCED_LIMIT:
            raise _refused(
                grammar,
                f"it demands more than {FORCED_LIMIT} bytes of fixed text, or text without end",
                f"它要求超过 {FORCED_LIMIT} 字节的固定文本，或者没有尽头",
            )
    reason = matcher.get_error()
    if matcher.is_stopped() and (not reason or reason.startswith("NoExtension")):
        raise _refused(grammar, "no text satisfies it", "没有任何文本满足它")
    if reason:
        short = _short(reason)
        raise _refused(grammar, short, short)
    return matcher


def _thoughts(grammar: Grammar, prompt_end: str) -> str:
    """A Lark grammar of the thoughts that may, or must, come before a rule ``answer``.

    Empty if there can be none: the model does not think, or has thought in its prompt.
    """
    opening, closing = grammar.opening, grammar.after
    if opening is None or closing is None or prompt_end.endswith(closing):
        return ""
    # Models write line breaks between the two.
    thoughts = "thoughts BREAKS?"
    if not prompt_end.endswith(opening):
        thoughts = f"({json.dumps(opening)} {thoughts})?"
    end = "".join(f"\\{c}" if c in r"\^$.|?*+()[]{}/" else c for c in closing)
    return f"start: {thoughts} @answer\nthoughts[lazy]: /(.|\\n)*{end}/\nBREAKS: /\\n{{1,2}}/"


def _source(grammar: Grammar) -> str:
    """The grammar's source as text; raises `GrammarError` if it is not of its kind."""
    source, kind = grammar.source, grammar.kind
    if kind == "json_object":
        return '{"type": "object"}'
    if kind == "choice":
        texts = [] if source is None or isinstance(source, str | Mapping) else list(source)
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise _refused(grammar, "must be a list of non-empty texts", "必须是非空文本的列表")
        # One terminal: of rules so many would be too many.
        written = " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)
        source = f"start: CHOICE\nCHOICE: {written}"
    elif kind == "json_schema" and not isinstance(source, str):
        try:
            source = json.dumps(source, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise _refused(grammar, "is no JSON value", "不是 JSON 值") from None
    if not isinstance(source, str) or not source:
        raise _refused(grammar, "must be a non-empty text", "必须是非空文本")
    if len(source) > SOURCE_LIMIT:
        raise _refused(
            grammar,
            f"{len(source)} characters, at most {SOURCE_LIMIT} are allowed; make it smaller",
            f"{len(source)} 个字符，最多 {SOURCE_LIMIT}；请缩小",
        )
    return source


def _written_out(source: str) -> int:
    """About how many characters ``source`` has once its counted repetitions are written out.

    ``(a{1000}){1000}`` would keep the compiler busy for seconds.
    """
    groups = [0]
    last = at = 0
    while at < len(source):
        count = _COUNT.match(source, at)
        if count is not None:
            times = max(int(count[1]), int(count[2] or 0), 1)
            groups[-1] += last * (times - 1)
            last = min(last * times, REPETITION_LIMIT)
            at = count.end()
            continue
        letter = source[at]
        if letter == "(":
            groups.append(0)
        elif letter == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        else:
            last = 1
            groups[-1] += 1
        at += 2 if letter == "\\" else 1
    return sum(groups)


def _refused(grammar: Grammar, en: str, zh: str) -> GrammarError:
    return GrammarError(
        f"{grammar.kind}: cannot be used as a grammar: {en}",
        f"{grammar.kind}：不能用作语法：{zh}",
    )


def _dead_end(matcher: LLMatcher) -> HunyuanError:
    """Of an answer that its grammar leads nowhere."""
    short = _short(matcher.get_error() or matcher.stop_reason())
    return HunyuanError(
        f"the answer's grammar allows nothing here ({short}); make it simpler or wider",
        f"回答的语法在此处不允许任何内容（{short}）；请简化或放宽语法",
    )


def _short(reason: str) -> str:
    """What llguidance says, on one line, without its drawing of the place."""
    lines = [line.strip() for line in reason.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    text = errors[0] if errors else next((line for line in lines if line), "unknown reason")
    return text if len(text) <= 160 else text[:157] + "..."
