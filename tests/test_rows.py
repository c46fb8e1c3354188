"""Rows of documents, mixtures, conversations and preferences: nothing lost, nothing leaks."""

import gzip
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.data.dialogue import (
    Epochs,
    Example,
    Pair,
    PairRows,
    encode_dialogue,
    encode_pair,
    read_examples,
    read_pairs,
)
from hunyuan.data.mixture import Mixture, Part
from hunyuan.data.rows import NO_TARGET, Row, pack
from hunyuan.errors import BadDataError, HunyuanError, UsageError
from hunyuan.tokenizer.tokenizer import Tokenizer
from hunyuan.tokenizer.train import train_tokenizer
from hunyuan.tour.text import documents


class Numbered:
    """Documents whose tokens are all different: token = 1000 * document + place."""

    def __init__(self, lengths: Sequence[int], first: int = 0) -> None:
        self._lengths = np.array(lengths, np.int32)
        self._first = first

    @property
    def documents(self) -> int:
        return len(self._lengths)

    def document(self, i: int) -> Any:
        return np.arange(self._lengths[i], dtype=np.int32) + 1000 * (self._first + i)

    def lengths(self) -> Any:
        return self._lengths


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def sound(row: Row, follows: Callable[[int], int], row_tokens: int) -> None:
    """Positions, first_seen and targets of a row, by the definition of each.

    ``follows`` is the token after one of `Numbered` in its own document, or `NO_TARGET`.
    """
    begin = 0
    for t in range(len(row.ids)):
        # The next token of the same piece; a piece begins at every row_tokens of its document.
        goes_on = t > 0 and row.ids[t] == row.ids[t - 1] + 1
        if not goes_on or row.ids[t] % 1000 % row_tokens == 0:
            begin = t
        assert row.positions[t] == t - begin
        assert row.first_seen[t] == begin
        assert row.targets[t] == follows(int(row.ids[t]))


# ---------------------------------------------------------------- mixtures


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_has_every_token_once_and_predicts_within_documents(
    lengths: list[int], row_tokens: int, seed: int
) -> None:
    source = Numbered(lengths)
    mixture = Mixture([Part(name="a", documents=source, weight=2)], row_tokens, seed)
    total = sum(lengths)
    rows = list(itertools.islice(mixture, -(-2 * total // row_tokens)))
    for row in rows:
        sound(
            row,
            lambda id: id + 1 if id % 1000 + 1 < lengths[id // 1000] else NO_TARGET,
            row_tokens,
        )
    stream = np.concatenate([row.ids for row in rows]).tolist()
    # Whole rows and shorter pieces come round each by themselves.
    for whole in (True, False):
        everything = sorted(
            1000 * i + j
            for i, n in enumerate(lengths)
            for j in range(n)
            if (j < n // row_tokens * row_tokens) == whole
        )
        known = set(everything)
        part = [id for id in stream if id in known]
        once = len(everything)
        assert len(set(part[:once])) == min(once, len(part)), "none comes twice in an epoch"
        # Each piece is one run, but for a row that may come in between.
        breaks = [b for a, b in itertools.pairwise(part) if b != a + 1]
        assert all(id % 1000 % row_tokens == 0 for id in breaks)
        if len(part) >= 2 * once:
            assert sorted(part[:once]) == everything
            assert sorted(part[once : 2 * once]) == everything
    # A piece that is a whole row is one.
    for row in rows:
        if row.ids[0] % 1000 % row_tokens == 0 and row_tokens > 1:
            n = lengths[row.ids[0] // 1000]
            if row.ids[0] % 1000 < n // row_tokens * row_tokens:
                assert row.ids.tolist() == list(range(row.ids[0], row.ids[0] + row_tokens))


def test_the_pieces_of_a_long_document_do_not_follow_one_another() -> None:
    """Neighbouring rows of a book would make every batch a batch of one book."""
    source = Numbered([900, 900])
    rows = list(itertools.islice(Mixture([Part(name="a", documents=source, weight=1)], 30, 0), 60))
    jumps = [int(b.ids[0]) - int(a.ids[0]) for a, b in itertools.pairwise(rows)]
    assert sum(jump == 30 for jump in jumps) < 10


def test_the_order_is_another_in_every_epoch_and_for_every_seed() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        mixture = Mixture([Part(name="a", documents=Numbered([1] * 40), weight=1)], 40, seed)
        return next(itertools.islice(mixture, epoch, None)).ids.tolist()

    orders = [order(0, 0), order(0, 1), order(1, 0), list(range(0, 40000, 1000))]
    assert len(set(map(tuple, orders))) == 4
    assert order(0, 1) == orders[1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(LENGTHS, st.floats(0.05, 1)), min_size=1, max_size=4), st.integers(1, 25))
def test_every_prefix_has_the_proportions_within_three_rows_a_part(
    parts: list[tuple[list[int], float]], row_tokens: int
) -> None:
    mixture = Mixture(
        [
            Part(name=str(i), documents=Numbered(lengths, 100 * i), weight=weight)
            for i, (lengths, weight) in enumerate(parts)
        ],
        row_tokens,
        0,
    )
    total = sum(weight for _, weight in parts)
    seen: Counter[int] = Counter()
    count = 0
    for row in itertools.islice(mixture, -(-400 // row_tokens)):
        for id in row.ids.tolist():
            seen[id // 100_000] += 1
            count += 1
            for i, (_, weight) in enumerate(parts):
                # Too much by at most some rows, whose rests shorter pieces must fill;
                # too little by the others' at most.
                surplus = seen[i] - count * weight / total
                assert surplus <= 3 * row_tokens + 1e-6
                assert -surplus <= 3 * row_tokens * (len(parts) - 1) + 1e-6
        assert mixture.taken == {str(i): seen[i] for i in range(len(parts))}


def test_two_parts_stay_within_one_document_of_their_shares() -> None:
    parts = [
        Part(name="a", documents=Numbered([7] * 30), weight=0.7),
        Part(name="b", documents=Numbered([5] * 30, 100), weight=0.3),
    ]
    stream = np.concatenate([row.ids for row in itertools.islice(Mixture(parts, 16, 0), 60)])
    of_a = np.cumsum(stream < 100_000)
    assert np.abs(of_a - 0.7 * np.arange(1, len(stream) + 1)).max() <= 7


@settings(deadline=None, max_examples=40)
@given(st.lists(LENGTHS, min_size=1, max_size=3), st.integers(1, 40), st.integers(0, 12))
def test_a_restored_mixture_goes_on_as_if_never_stopped(
    parts: list[list[int]], row_tokens: int, stop: int
) -> None:
    def make() -> Mixture:
        return Mixture(
            [
                Part(name=str(i), documents=Numbered(lengths, 100 * i), weight=i + 1)
                for i, lengths in enumerate(parts)
            ],
            row_tokens,
            3,
        )

    whole = list(itertools.islice(make(), stop + 6))
    first, second = make(), make()
    list(itertools.islice(first, stop))
    second.restore(json.loads(json.dumps(first.state())))
    assert second.taken == first.taken
    for found, wanted in zip(itertools.islice(second, 6), whole[stop:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_short_documents_are_left_out() -> None:
    parts = [Part(name="a", documents=Numbered([3, 8, 5, 9]), weight=1, min_tokens=8)]
    ids = next(Mixture(parts, 17, 0)).ids
    assert {int(id) // 1000 for id in ids} == {1, 3}
    with pytest.raises(BadDataError, match="a: has no document of at least 10 tokens; lower min"):
        Mixture([Part(name="a", documents=Numbered([3]), weight=1, min_tokens=10)], 8, 0)


def test_wrong_mixtures_are_refused() -> None:
    one = Numbered([3])
    with pytest.raises(UsageError, match="weight=-1 of a: must not be negative"):
        Mixture([Part(name="a", documents=one, weight=-1)], 4, 0)
    with pytest.raises(UsageError, match="not all 0"):
        Mixture([Part(name="a", documents=one, weight=0)], 4, 0)
    with pytest.raises(UsageError, match="a: is in the mixture twice"):
        Mixture([Part(name="a", documents=one, weight=1)] * 2, 4, 0)
    mixture = Mixture([Part(name="a", documents=one, weight=1)], 4, 0)
    other = Mixture([Part(name="b", documents=one, weight=1)], 4, 0)
    with pytest.raises(UsageError, match="has the sources a, the checkpoint b; use the same data"):
        mixture.restore(other.state())
    larger = Mixture([Part(name="a", documents=Numbered([3, 3]), weight=1)], 4, 0)
    with pytest.raises(
        UsageError, match="a: has 1 pieces of documents, the checkpoint was made with 2"
    ):
        mixture.restore(larger.state())


def test_padding_attends_to_itself_and_predicts_nothing() -> None:
    piece = (np.array([5, 6]), np.array([6, NO_TARGET]))
    row = pack([piece, piece], 7)
    assert row.ids.tolist() == [5, 6, 5, 6, 0, 0, 0]
    assert row.targets.tolist() == [6, -1, 6, -1, -1, -1, -1]
    assert row.positions.tolist() == [0, 1, 0, 1, 0, 0, 0]
    assert row.first_seen.tolist() == [0, 0, 2, 2, 4, 5, 6]


# ---------------------------------------------------------------- conversations


@pytest.fixture(scope="module")
def hunyuan_like() -> Tokenizer:
    """A small learnt vocabulary with Hunyuan-Large's template."""
    return train_tokenizer([text for _, text in itertools.islice(documents(0), 200)], 320)


@pytest.fixture(params=["hunyuan", "chatml"])
def tokenizer(
    request: pytest.FixtureRequest, hunyuan_like: Tokenizer, byte_tokenizer: Tokenizer
) -> Tokenizer:
    return hunyuan_like if request.param == "hunyuan" else byte_tokenizer


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def learned_runs(example: Example) -> list[list[int]]:
    """Consecutive targets, each run a list of ids."""
    runs: list[list[int]] = [[]]
    for target in example.targets.tolist():
        if target == NO_TARGET:
            runs.append([])
        else:
            runs[-1].append(target)
    return [run for run in runs if run]


# What ends an answer, and the last token of the prompt, in each template.
ENDS = {"hunyuan": "<|eos|>", "chatml": "<|im_end|>\n"}
PROMPT_ENDS = {"hunyuan": "<|extra_0|>", "chatml": "\n"}


def template_of(tokenizer: Tokenizer) -> str:
    return "chatml" if "<|im_start|>" in tokenizer.specials else "hunyuan"


TURNS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="<|>"), min_size=1, max_size=12),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_exactly_the_answers_are_learned(
    hunyuan_like: Tokenizer, byte_tokenizer: Tokenizer, data: st.DataObject
) -> None:
    """Any number of turns in two templates: decoded, the targets are the answers and their ends."""
    tokenizer = data.draw(st.sampled_from([hunyuan_like, byte_tokenizer]))
    template, answers = template_of(tokenizer), data.draw(TURNS)
    system = [{"role": "system", "content": "Be brief."}] * data.draw(st.booleans())
    pairs = [[user(f"q{i}"), assistant(answer)] for i, answer in enumerate(answers)]
    messages = [*system, *itertools.chain.from_iterable(pairs), user("and then?")]
    plain = encode_dialogue(messages, tokenizer, learn_prompt_end=False)
    runs = [tokenizer.decode(run, skip_specials=False) for run in learned_runs(plain)]
    normal = [tokenizer.decode(tokenizer.encode(answer)) for answer in answers]
    assert runs == [answer + ENDS[template] for answer in normal]
    # The conversation ends with the last answer: what comes after it teaches nothing.
    assert plain.ids.tolist() == tokenizer.chat_prompt(messages[:-1], add_generation_prompt=False)
    with_prompt = encode_dialogue(messages, tokenizer, learn_prompt_end=True)
    runs = [tokenizer.decode(run, skip_specials=False) for run in learned_runs(with_prompt)]
    assert runs == [PROMPT_ENDS[template] + answer + ENDS[template] for answer in normal]
    used = plain.targets != NO_TARGET
    assert np.array_equal(plain.targets[:-1][used[:-1]], plain.ids[1:][used[:-1]])
    assert not used[-1]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (None, "have no answer of the assistant"),
        ([], "have no answer"),
        ("text", "have no answer"),
        ([user("q")], "have no answer"),
        ([user("q"), assistant("a"), "stray"], r"messages\[2\]: is no object"),
        ([user("q"), assistant("a"), {"content": "x"}, assistant("b")], r"messages\[2\].role"),
        ([user("q"), {"role": "assistant"}], r"messages\[1\].content: missing"),
        ([user("q"), {"role": "assistant", "content": 3}], r"messages\[1\].content: must be"),
        ([{"role": "wizard", "content": "q"}, assistant("a")], r"messages\[0\].role"),
    ],
)
def test_malformed_conversations_are_refused(
    tokenizer: Tokenizer, messages: Any, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        encode_dialogue(messages, tokenizer)


# ---------------------------------------------------------------- files


def jsonl(path: Path, records: Sequence[Any]) -> Path:
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def dialogue(answer: str, question: str = "q") -> dict[str, Any]:
    return {"messages": [user(question), assistant(answer)]}


def test_malformed_lines_are_named_counted_and_tolerated_up_to_the_share(
    tmp_path: Path, hunyuan_like: Tokenizer
) -> None:
    bad = ['{"messages": [', "[1]", json.dumps({"messages": [user("q")]})]
    good = [dialogue(f"a{i}") for i in range(7)]
    path = jsonl(tmp_path / "a.jsonl", [*good[:3], bad[0], "", bad[1], *good[3:], bad[2]])
    examples, tally = read_examples([path], hunyuan_like, longest=64, malformed_share=0.3)
    assert len(examples) == tally.used == 7
    places = [entry.split(": ")[0] for entry in tally.malformed]
    assert places == [f"{path}:4", f"{path}:6", f"{path}:11"]
    assert "is no JSON object" in tally.malformed[1]
    assert "have no answer of the assistant" in tally.malformed[2]
    with pytest.raises(BadDataError) as caught:
        read_examples([path], hunyuan_like, longest=64, malformed_share=0.29)
    assert f"3 of 10 lines cannot be used, more than 29%; the first: {path}:4: " in caught.value.en
    assert "10 行中有 3 行无法使用" in caught.value.zh


def test_long_conversations_are_truncated_or_dropped_and_counted(
    tmp_path: Path, byte_tokenizer: Tokenizer
) -> None:
    path = jsonl(
        tmp_path / "a.jsonl.gz",
        [dialogue("short"), dialogue("long " * 20), dialogue("x", "endless " * 20)],
    )
    examples, tally = read_examples([path], byte_tokenizer, longest=60, too_long="truncate")
    assert (tally.used, tally.truncated, tally.dropped) == (2, 1, 1)
    assert [len(example.ids) for example in examples][1] == 60
    whole = encode_dialogue(dialogue("long " * 20)["messages"], byte_tokenizer)
    assert np.array_equal(examples[1].ids, whole.ids[:60])
    # The last kept token still learns the one that was cut off.
    assert np.array_equal(examples[1].targets, whole.targets[:60])
    examples, tally = read_examples([path], byte_tokenizer, longest=60, too_long="drop")
    assert (tally.used, tally.truncated, tally.dropped) == (1, 0, 2)


def test_unusable_files_are_one_line(tmp_path: Path, hunyuan_like: Tokenizer) -> None:
    def fails(path: Path, words: str) -> None:
        with pytest.raises(BadDataError, match=words) as caught:
            read_examples([path], hunyuan_like, longest=64)
        assert str(path) in caught.value.en
        assert "\n" not in caught.value.en

    fails(jsonl(tmp_path / "empty.jsonl", []), "no conversation is left to train on")
    fails(tmp_path / "absent.jsonl", "No such file or directory; give a jsonl")
    fails(tmp_path, "Is a directory")
    whole = jsonl(tmp_path / "cut.jsonl.gz", [dialogue(f"{i}") for i in range(50)]).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    fails(tmp_path / "cut.jsonl.gz", "give a jsonl or jsonl.gz file")
    (tmp_path / "broken.jsonl.gz").write_bytes(whole[:12] + b"\xff" * 20 + whole[32:])
    fails(tmp_path / "broken.jsonl.gz", "give a jsonl or jsonl.gz file")
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"messages": []}\n')
    fails(tmp_path / "plain.jsonl.gz", "Not a gzipped file")
    (tmp_path / "latin.jsonl").write_bytes(b'{"messages": "\xe9"}\n')
    fails(tmp_path / "latin.jsonl", "utf-8")


def test_everything_too_long_says_so(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    path = jsonl(tmp_path / "a.jsonl", [dialogue("x" * 90)] * 3)
    with pytest.raises(BadDataError, match=r"no conversation is left .*\(3 too long\)"):
        read_examples([path], byte_tokenizer, longest=20, too_long="drop")


# ---------------------------------------------------------------- epochs of conversations


def example(n: int, mark: int) -> Example:
    ids = 1000 * mark + np.arange(n)
    return Example(ids, np.append(ids[1:], NO_TARGET))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(2, 20), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(20, 45),
    st.integers(0, 10),
)
def test_epochs_take_every_conversation_whole_as_often_as_asked(
    lengths: list[int], epochs: int, row_tokens: int, stop: int
) -> None:
    examples = [example(n, i + 1) for i, n in enumerate(lengths)]
    rows = list(Epochs(examples, row_tokens, epochs, 1))
    assert len(rows) == Epochs(examples, row_tokens, epochs, 1).rows()
    begun: list[int] = []
    for row in rows:
        used = row.ids > 0
        starts = row.ids[used & (row.positions == 0)]
        begun += starts.tolist()
        for start in starts.tolist():
            at = row.ids.tolist().index(start)
            mine = examples[start // 1000 - 1]
            there = slice(at, at + len(mine.ids))
            assert np.array_equal(row.ids[there], mine.ids)
            assert np.array_equal(row.targets[there], mine.targets)
            assert (row.first_seen[there] == at).all()
    n = len(examples)
    for epoch in range(epochs):
        assert sorted(begun[epoch * n : (epoch + 1) * n]) == [1000 * (i + 1) for i in range(n)]
    assert len(begun) == epochs * n
    first, second = (Epochs(examples, row_tokens, epochs, 1) for _ in range(2))
    list(itertools.islice(first, stop))
    second.restore(json.loads(json.dumps(first.state())))
    rest = list(second)
    assert len(rest) == len(rows[stop:])
    for found, wanted in zip(rest, rows[stop:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_another_number_of_conversations_is_refused() -> None:
    state = Epochs([example(4, 1)] * 3, 8, 1, 0).state()
    with pytest.raises(UsageError, match="give 2 conversations, the checkpoint was made with 3"):
        Epochs([example(4, 1)] * 2, 8, 1, 0).restore(state)
    pairs = [Pair(example(4, 1), example(4, 2))]
    with pytest.raises(UsageError, match="give 1 conversations"):
        PairRows(pairs, 2, 1, 0).restore(PairRows(pairs * 2, 2, 1, 0).state())


# ---------------------------------------------------------------- preferences


def test_of_a_preference_only_the_last_answers_are_compared(tokenizer: Tokenizer) -> None:
    template = template_of(tokenizer)
    messages = [user("q"), assistant("earlier"), user("again")]
    record = {"messages": messages, "chosen": "yes, sir", "rejected": {"content": "no"}}
    pair = encode_pair(record, tokenizer)
    for found, answer in zip(pair, ("yes, sir", "no"), strict=True):
        runs = [tokenizer.decode(run, skip_specials=False) for run in learned_runs(found)]
        assert runs == [answer + ENDS[template]]
        prompt = tokenizer.chat_prompt(messages)
        assert found.ids.tolist()[: len(prompt)] == prompt


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"chosen": "a", "rejected": "b"}, "messages: is missing or empty"),
        ({"messages": [], "chosen": "a", "rejected": "b"}, "messages: is missing or empty"),
        ({"messages": [user("q")], "rejected": "b"}, "chosen: must be a text"),
        ({"messages": [user("q")], "chosen": "a", "rejected": "  "}, "rejected: must be a text"),
        ({"messages": [user("q")], "chosen": "a", "rejected": "a"}, "are the same"),
        ({"messages": ["q"], "chosen": "a", "rejected": "b"}, r"messages\[0\]"),
    ],
)
def test_malformed_preferences_are_refused(
    byte_tokenizer: Tokenizer, record: dict[str, Any], words: str
) -> None:
    with pytest.raises(HunyuanError, match=words):
        encode_pair(record, byte_tokenizer)


def test_long_pairs_are_left_out_and_counted(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    record = {"messages": [user("q")], "chosen": "yes", "rejected": "no"}
    path = jsonl(tmp_path / "p.jsonl", [record, record | {"rejected": "never " * 20}])
    pairs, tally = read_pairs([path], byte_tokenizer, longest=64)
    assert (len(pairs), tally.used, tally.dropped) == (1, 1, 1)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(0, 8))
def test_rows_of_pairs_alternate_chosen_and_rejected_and_resume(
    count: int, per_batch: int, epochs: int, stop: int
) -> None:
    """Of every micro-batch the chosen first, then their rejected, whatever does not divide."""
    pairs = [Pair(example(i + 2, 2 * i + 1), example(5, 2 * i + 2)) for i in range(count)]

    def batches(rows: PairRows) -> list[list[Row]]:
        taken = iter(lambda: list(itertools.islice(rows, 2 * per_batch)), [])
        return list(taken)

    whole = batches(PairRows(pairs, per_batch, epochs, 5))
    assert sum(map(len, whole)) == PairRows(pairs, per_batch, epochs, 5).rows()
    seen: list[int] = []
    for rows in whole:
        assert len({len(row.ids) for row in rows}) == 1, "a batch is one tensor"
        chosen, rejected = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        for good, bad in zip(chosen, rejected, strict=True):
            mark = int(good.ids[0]) // 1000
            assert int(bad.ids[0]) // 1000 == mark + 1
            assert mark % 2 == 1
            seen.append(mark // 2)
            wanted = pairs[mark // 2].chosen
            assert np.array_equal(good.ids[: len(wanted.ids)], wanted.ids)
            assert np.array_equal(good.targets[: len(wanted.ids)], wanted.targets)
    for epoch in range(epochs):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))
    first, second = (PairRows(pairs, per_batch, epochs, 5) for _ in range(2))
    for _ in range(min(stop, len(whole))):
        list(itertools.islice(first, 2 * per_batch))
    second.restore(json.loads(json.dumps(first.state())))
    found = [row.ids.tolist() for rows in batches(second) for row in rows]
    assert found == [row.ids.tolist() for rows in whole[stop:] for row in rows]
