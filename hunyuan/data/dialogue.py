"""Conversations for fine-tuning: messages to token ids, and which of them to learn from.

Any chat template serves: an answer is what the template adds to the prompt before it. Learned are
the answers alone, each with the token that ends it and, as in the released recipe (specification,
section 10.3), the prediction of the prompt's own last token.

A file has one JSON object a line: ``{"messages": [{"role", "content"}, ...]}`` for fine-tuning
(with ``"tools"``, their definitions, where the messages have calls and the template knows tools),
``{"messages": [...], "chosen": ..., "rejected": ...}`` for preferences, where the last two are the
text (or message) of an answer to the messages; ``"prompt": text`` is one message of the user.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hunyuan.data.rows import NO_TARGET, Row, pack
from hunyuan.errors import BadDataError, HunyuanError, UsageError
from hunyuan.tokenizer.tokenizer import Tokenizer

TooLong = Literal["truncate", "drop"]
Json = Mapping[str, Any]


class Example(NamedTuple):
    """One conversation."""

    ids: NDArray[np.int64]
    """(n,) token ids."""

    targets: NDArray[np.int64]
    """(n,) the next token where it is to be learned, else `NO_TARGET`."""


class Pair(NamedTuple):
    """Two answers to the same messages."""

    chosen: Example
    rejected: Example


@dataclass(kw_only=True)
class Tally:
    """What became of the lines of a file."""

    used: int = 0
    """Conversations that are trained on."""

    malformed: list[str] = field(default_factory=list)
    """Lines that could not be used, as ``file:line: reason``."""

    truncated: int = 0
    """Conversations cut at the longest length."""

    dropped: int = 0
    """Conversations left out for their length."""


def read_examples(
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    *,
    longest: int,
    too_long: TooLong = "truncate",
    learn_prompt_end: bool = True,
    malformed_share: float = 0.01,
) -> tuple[list[Example], Tally]:
    """All conversations of jsonl or jsonl.gz files; raises `BadDataError` as `_read` does."""
    tally = Tally()

    def one(record: Json) -> Example:
        return encode_dialogue(
            record.get("messages"),
            tokenizer,
            tools=record.get("tools"),
            learn_prompt_end=learn_prompt_end,
        )

    examples = []
    for example in _read(paths, one, tally, malformed_share):
        if len(example.ids) > longest:
            if too_long == "drop":
                tally.dropped += 1
                continue
            example = Example(example.ids[:longest], example.targets[:longest])
            if not (example.targets != NO_TARGET).any():
                tally.dropped += 1  # nothing of the answer is left
                continue
            tally.truncated += 1
        examples.append(example)
    tally.used = len(examples)
    _require_some(paths, tally)
    return examples, tally


def read_pairs(
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    *,
    longest: int,
    malformed_share: float = 0.01,
) -> tuple[list[Pair], Tally]:
    """All preferences; a pair with an answer longer than ``longest`` is left out and counted."""
    tally = Tally()
    pairs = []
    for pair in _read(paths, lambda record: encode_pair(record, tokenizer), tally, malformed_share):
        if max(len(answer.ids) for answer in pair) > longest:
            tally.dropped += 1
        else:
            pairs.append(pair)
    tally.used = len(pairs)
    _require_some(paths, tally)
    return pairs, tally


def encode_dialogue(
    messages: Any, tokenizer: Tokenizer, *, tools: Any = None, learn_prompt_end: bool = True
) -> Example:
    """One conversation; raises `UsageError` if it is malformed or has no answer."""
    if not isinstance(messages, list) or not any(
        isinstance(m, Mapping) and m.get("role") == "assistant" for m in messages
    ):
        raise UsageError("messages: have no answer of the assistant", "messages：没有助手的回答")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise UsageError(f"messages[{i}]: is no object", f"messages[{i}]：不是对象")
    last = max(i for i, m in enumerate(messages) if m.get("role") == "assistant")

    def prompt(end: int, *, to_answer: bool) -> list[int]:
        return tokenizer.chat_prompt(messages[:end], add_generation_prompt=to_answer, tools=tools)

    ids = prompt(last + 1, to_answer=False)
    learned = np.zeros(len(ids), bool)
    for i, message in enumerate(messages[: last + 1]):
        if message["role"] != "assistant":
            continue
        begin = _common(ids, prompt(i, to_answer=True))
        answered = prompt(i + 1, to_answer=False)
        end = _common(ids, answered)
        if end <= begin:
            raise UsageError(
                f"messages[{i}]: the chat template leaves nothing of this answer",
                f"messages[{i}]：对话模板没有保留该回答的任何内容",
            )
        learned[max(begin - learn_prompt_end, 1) : end] = True
    whole = np.array(ids, np.int64)
    targets = np.where(learned[1:], whole[1:], NO_TARGET)
    return Example(whole, np.append(targets, NO_TARGET))


def encode_pair(record: Json, tokenizer: Tokenizer) -> Pair:
    """One preference; raises `UsageError` if it is malformed or its answers are the same."""
    messages = record.get("messages")
    if messages is None and isinstance(record.get("prompt"), str):
        messages = [{"role": "user", "content": record["prompt"]}]
    if not isinstance(messages, list) or not messages:
        raise UsageError("messages: is missing or empty", "messages：缺失或为空")
    answers = []
    for name in ("chosen", "rejected"):
        answer = record.get(name)
        if isinstance(answer, Mapping):
            answer = answer.get("content")
        if not isinstance(answer, str) or not answer.strip():
            raise UsageError(f"{name}: must be a text", f"{name}：必须是文本")
        answers.append(answer)
    if answers[0] == answers[1]:
        raise UsageError("chosen and rejected are the same", "chosen 与 rejected 相同")
    return Pair(*(encode_answer(messages, answer, tokenizer) for answer in answers))


def encode_answer(messages: Sequence[Json], answer: str, tokenizer: Tokenizer) -> Example:
    """An answer to ``messages`` of which only itself counts, not answers before it."""
    whole = [*messages, {"role": "assistant", "content": answer}]
    example = encode_dialogue(whole, tokenizer, learn_prompt_end=False)
    prompt = len(tokenizer.chat_prompt(messages, add_generation_prompt=True))
    example.targets[: prompt - 1] = NO_TARGET
    return example


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def _read(
    paths: Sequence[Path], encode: Any, tally: Tally, malformed_share: float
) -> Iterator[Any]:
    """What ``encode`` makes of every line; lines it refuses are noted, up to a share of all.

    Raises `BadDataError` naming the first bad line once they are more, and missing files.
    """
    lines = 0
    for path in paths:
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            lines += 1
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise UsageError("is no JSON object", "不是 JSON 对象")
                encoded = encode(record)
            except ValueError as error:
                tally.malformed.append(f"{path}:{number}: {error}")
            except HunyuanError as error:
                tally.malformed.append(f"{path}:{number}: {error}")
            else:
                yield encoded
    if len(tally.malformed) > malformed_share * lines:
        raise BadDataError(
            f"{len(tally.malformed)} of {lines} lines cannot be used, more than "
            f"{malformed_share:.0%}; the first: {tally.malformed[0]}",
            f"{lines} 行中有 {len(tally.malformed)} 行无法使用，超过 {malformed_share:.0%}；"
            f"第一处：{tally.malformed[0]}",
        )


def read_records(path: Path) -> Iterator[Json]:
    """The JSON objects of a jsonl or jsonl.gz file; `BadDataError` names a line that is none."""
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise BadDataError(
                f"{path}:{number}: {error}; correct or remove the line",
                f"{path}:{number}：{error}；请更正或删除该行",
            ) from error
        if isinstance(record, dict):
            yield record


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadDataError(
            f"{path}: {reason}; give a jsonl or jsonl.gz file",
            f"{path}：{reason}；请给出 jsonl 或 jsonl.gz 文件",
        ) from error


def _require_some(paths: Sequence[Path], tally: Tally) -> None:
    if not tally.used:
        names = ", ".join(map(str, paths))
        raise BadDataError(
            f"{names}: no conversation is left to train on ({tally.dropped} too long); raise the "
            "longest length or give other files",
            f"{names}：没有可用于训练的对话（{tally.dropped} 条过长）；"
            "请增大最大长度或换用其他文件",
        )


class Epochs:
    """Examples packed into rows, ``epochs`` times over in a new order each time.

    Iterates over rows of ``row_tokens``; `state` and `restore` as in `hunyuan.data.mixture`.
    """

    def __init__(
        self, examples: Sequence[Example], row_tokens: int, epochs: int, seed: int
    ) -> None:
        longest = max(len(example.ids) for example in examples)
        assert longest <= row_tokens, (longest, row_tokens)
        self._examples = examples
        self._row_tokens = row_tokens
        self._epochs = epochs
        self._seed = seed
        self._epoch = self._place = 0
        self._order = self._shuffled()

    def __iter__(self) -> "Epochs":
        return self

    def __next__(self) -> Row:
        pieces: list[Example] = []
        room = self._row_tokens
        while self._epoch < self._epochs:
            example = self._examples[int(self._order[self._place])]
            if len(example.ids) > room:
                break
            pieces.append(example)
            room -= len(example.ids)
            self._place += 1
            if self._place == len(self._order):
                self._place = 0
                self._epoch += 1
                self._order = self._shuffled()
        if not pieces:
            raise StopIteration
        return pack(pieces, self._row_tokens)

    def rows(self) -> int:
        """Rows in all epochs, counted by packing without content."""
        lengths = [len(example.ids) for example in self._examples]
        count, room = 0, 0
        for epoch in range(self._epochs):
            for i in self._shuffled(epoch):
                if lengths[i] > room:
                    count, room = count + 1, self._row_tokens
                room -= lengths[i]
        return count

    def state(self) -> dict[str, int]:
        """Where the stream is, as JSON values."""
        return {"epoch": self._epoch, "place": self._place, "of": len(self._examples)}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a `state`; raises `UsageError` if the data are others."""
        _require_same(len(self._examples), state)
        self._epoch, self._place = state["epoch"], state["place"]
        self._order = self._shuffled()

    def _shuffled(self, epoch: int | None = None) -> NDArray[np.int64]:
        generator = np.random.default_rng((self._seed, self._epoch if epoch is None else epoch))
        return generator.permutation(len(self._examples))


class PairRows:
    """Preferences as rows, ``epochs`` times over: per micro-batch its chosen, then its rejected.

    A micro-batch has ``pairs_per_batch`` pairs (the last of all maybe fewer; one epoch goes over
    into the next), each answer in a row of its own, as long as the longest of them. `state` and
    `restore` as in `Epochs`, between micro-batches.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        pairs_per_batch: int,
        epochs: int,
        seed: int,
        more: Callable[[int], Sequence[Pair]] | None = None,
    ) -> None:
        """``more``, called with the number of an epoch when it begins, gives pairs for it alone.

        It must give the same ones again after a `restore`.
        """
        self._pairs = pairs
        self._more = more
        self._per_batch = pairs_per_batch
        self._epochs = epochs
        self._seed = seed
        self._epoch = self._place = 0
        self._order: list[Pair] = []
        self._waiting: list[Row] = []

    def __iter__(self) -> "PairRows":
        return self

    def __next__(self) -> Row:
        if not self._waiting:
            taken: list[Pair] = []
            while len(taken) < self._per_batch and self._epoch < self._epochs:
                if not self._order:
                    self._order = self._shuffled()
                taken.append(self._order[self._place])
                self._place += 1
                if self._place == len(self._order):
                    self._place = 0
                    self._epoch += 1
                    self._order = []
            if not taken:
                raise StopIteration
            self._waiting = pair_rows(taken)
        return self._waiting.pop(0)

    def rows(self) -> int:
        """Rows of the pairs given at first, in all epochs."""
        return 2 * len(self._pairs) * self._epochs

    def state(self) -> dict[str, int]:
        """Where the stream is, as JSON values."""
        assert not self._waiting, "within a micro-batch"
        return {"epoch": self._epoch, "place": self._place, "of": len(self._pairs)}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a `state`; raises `UsageError` if the data are others."""
        _require_same(len(self._pairs), state)
        self._epoch, self._place = state["epoch"], state["place"]
        self._order = []

    def _shuffled(self) -> list[Pair]:
        """The pairs of the epoch that begins, in its order."""
        pairs = [*self._pairs, *([] if self._more is None else self._more(self._epoch))]
        order = np.random.default_rng((self._seed, self._epoch)).permutation(len(pairs))
        return [pairs[i] for i in order]


def _require_same(count: int, state: Mapping[str, int]) -> None:
    """A place in an order of other examples means nothing."""
    if state.get("of") != count:
        raise UsageError(
            f"the files give {count} conversations, the checkpoint was made with "
            f"{state.get('of')}; use the same data, or start another run",
            f"数据文件中有 {count} 条对话，检查点所用为 {state.get('of')} 条；"
            "请使用相同的数据，或另开一次训练",
        )


def pair_rows(pairs: Sequence[Pair]) -> list[Row]:
    """The chosen answers' rows, then the rejected ones', all of one length."""
    answers = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    length = -(-max(len(answer.ids) for answer in answers) // 16) * 16
    return [pack([answer], length) for answer in answers]
