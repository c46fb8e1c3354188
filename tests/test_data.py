"""Token sets on disk and the pipeline that makes them, against slow references and kills."""

import bz2
import gzip
import hashlib
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.cli.main import run
from hunyuan.data.benchmarks import BenchmarkIndex, check_benchmarks, write_index
from hunyuan.data.inputs import kind_of, plan_tasks
from hunyuan.data.languages import fits, language_of
from hunyuan.data.ngrams import passage_text, passages, whole
from hunyuan.data.normalise import normalise
from hunyuan.data.personal import is_card, is_identity, redact
from hunyuan.data.recipe import Recipe, SlurmSettings, recipe_of
from hunyuan.data.shards import ShardWriter, TokenSet, write_token_set
from hunyuan.errors import BadDataError, InterruptedWorkError, UsageError
from hunyuan.tokenizer.tokenizer import Tokenizer

needs_datatrove = pytest.mark.skipif(
    find_spec("datatrove") is None, reason="datatrove is not installed: pip install 'hunyuan[data]'"
)
ALL = ("email", "phone", "identity", "card", "ip")

# --- token sets ---------------------------------------------------------------------------------


def make_set(folder: Path, tokenizer: Tokenizer, texts: list[str]) -> TokenSet:
    return write_token_set(
        folder,
        tokenizer,
        {"train": {"a": texts, "b": ["only"]}, "heldout": {"a": ["held out"]}},
        language="en",
        license="CC0",
    )


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_a_token_set_gives_back_what_was_written(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Tokenizer
) -> None:
    folder = tmp_path_factory.mktemp("set")
    make_set(folder, byte_tokenizer, texts)
    opened = TokenSet.open(folder, verify=True)
    source = opened.sources("train")["a"]
    expected = [[*byte_tokenizer.encode(text), opened.end_id] for text in texts]
    assert [document.tolist() for document in source] == expected
    assert [source.length(i) for i in range(source.documents)] == [len(ids) for ids in expected]
    assert source.lengths().tolist() == [len(ids) for ids in expected]
    assert source.tokens == sum(map(len, expected))
    assert source.utf8_bytes == sum(len(text.encode("utf-8", "replace")) for text in texts)
    assert (source.name, source.language, source.license) == ("a", "en", "CC0")
    assert not source.document(0).flags.writeable
    assert opened.sources("heldout").keys() == {"a"}
    with pytest.raises(IndexError):
        source.document(len(texts))


def test_the_index_is_laid_out_as_megatron_reads_it(
    tmp_path: Path, byte_tokenizer: Tokenizer
) -> None:
    make_set(tmp_path, byte_tokenizer, ["abc", "", "xy"])
    index = (tmp_path / "train/a/00000.idx").read_bytes()
    magic, version, kind, sequences, ends = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, kind, sequences, ends) == (b"MMIDIDX\x00\x00", 1, 4, 3, 4)
    lengths = struct.unpack_from("<3i", index, 34)
    pointers = struct.unpack_from("<3q", index, 34 + 12)
    documents = struct.unpack_from("<4q", index, 34 + 12 + 24)
    assert lengths == (4, 1, 3)
    assert pointers == (0, 16, 20)
    assert documents == (0, 1, 2, 3)
    assert len(index) == 34 + 12 + 24 + 32
    tokens = np.frombuffer((tmp_path / "train/a/00000.bin").read_bytes(), "<i4")
    assert tokens[4:5].tolist() == [byte_tokenizer.specials["<|endoftext|>"]]


def test_several_shards_are_one_source(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    """Copies of parts of one shard, of uneven size, hold the same documents in the same order."""
    texts = [f"document {i} " + "x" * (i % 7) for i in range(50)]
    whole_set = make_set(tmp_path / "one", byte_tokenizer, texts)
    (shard,) = whole_set.sources("train")["a"].shards
    records = []
    for number, (begin, end) in enumerate([(0, 1), (1, 30), (30, 50)]):
        stem = tmp_path / "many/train/a" / f"{number:05d}"
        with ShardWriter(stem, vocab=whole_set.vocab, end_id=whole_set.end_id) as writer:
            writer.copy(shard, begin, end)
        records.append(
            writer.record(split="train", source="a", number=number, language="en", license="CC0")
        )
    assert sum(record.utf8_bytes for record in records) == shard.record.utf8_bytes
    from hunyuan.data.shards import write_manifest, write_tokenizer

    write_tokenizer(tmp_path / "many", byte_tokenizer)
    write_manifest(tmp_path / "many", records, vocab=whole_set.vocab, end_id=whole_set.end_id)
    many = TokenSet.open(tmp_path / "many", verify=True).sources("train")["a"]
    one = whole_set.sources("train")["a"]
    assert [d.tolist() for d in many] == [d.tolist() for d in one]
    assert [many.length(i) for i in range(50)] == [one.length(i) for i in range(50)]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "verify", "message"),
    [
        (lambda f: (f / "train/a/00000.bin").unlink(), False, "a/00000.bin: is missing"),
        (
            lambda f: (f / "train/a/00000.bin").write_bytes(b"1234"),
            False,
            "a/00000.bin: has 4 bytes instead of 28",
        ),
        (lambda f: flip(f / "train/a/00000.bin", 3), True, "a/00000.bin: was altered"),
        (lambda f: flip(f / "train/a/00000.idx", 40), True, "a/00000.idx: was altered"),
        (lambda f: flip(f / "tokenizer/tokenizer.json", 9), True, "tokenizer: was altered"),
        (lambda f: (f / "manifest.json").unlink(), False, "manifest.json: not found"),
        (lambda f: (f / "manifest.json").write_text("{"), False, "manifest.json: is no valid JSON"),
        (
            lambda f: (f / "manifest.json").write_text('{"format_version": 9}'),
            False,
            "format_version=9, this program reads 1",
        ),
        (
            lambda f: (f / "manifest.json").write_text('{"format_version": 1}'),
            False,
            "manifest.json: is damaged",
        ),
    ],
)
def test_a_spoilt_set_is_named(
    spoil: Callable[[Path], Any],
    verify: bool,
    message: str,
    tmp_path: Path,
    byte_tokenizer: Tokenizer,
) -> None:
    make_set(tmp_path, byte_tokenizer, ["abc", "de"])
    spoil(tmp_path)
    with pytest.raises(BadDataError, match=re.escape(message)):
        TokenSet.open(tmp_path, verify=verify)


def test_an_altered_index_is_noticed_before_it_is_followed(
    tmp_path: Path, byte_tokenizer: Tokenizer
) -> None:
    make_set(tmp_path, byte_tokenizer, ["abc", "de"])
    flip(tmp_path / "train/a/00000.idx", 34)
    source = TokenSet.open(tmp_path).sources("train")["a"]
    with pytest.raises(BadDataError, match=r"00000\.idx: was altered"):
        source.document(0)


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), ShardWriter(tmp_path / "s", vocab=9, end_id=8) as writer:
        writer.add([1, 9], utf8_bytes=2)
    assert list(tmp_path.iterdir()) == []


def test_reading_needs_neither_torch_nor_datatrove() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, datatrove=None, pyarrow=None)\n"
        "import hunyuan.data.shards, hunyuan.data.report, hunyuan.cli.data"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_datatrove
def test_the_pipeline_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None\nimport hunyuan.data.prepare"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- one text -----------------------------------------------------------------------------------


def slow_units(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    units: list[str] = []
    inside = False
    for character in folded:
        han = "\u3400" <= character <= "\u4dbf" or "\u4e00" <= character <= "\u9fff"
        if han:
            units.append(character)
        elif character.isalnum():
            if inside:
                units[-1] += character
            else:
                units.append(character)
        inside = character.isalnum() and not han
    return units


def slow_passages(text: str, words: int) -> list[tuple[str, ...]]:
    units = slow_units(text)
    found = []
    for begin in range(len(units)):
        points = 0
        for end in range(begin, len(units)):
            points += 2 if len(units[end]) > 2 else 1
            if points >= 2 * words:
                found.append(tuple(units[begin : end + 1]))
                break
    return found


mixed_text = st.lists(
    st.sampled_from(
        ["the", "fox", "a", "模型", "海水，", "3", "Ａ", "x_y", " ", "\n", ". ", "é", "ﬁ"]
    )
).map(" ".join) | st.text(alphabet="ab 中文,.", max_size=60)


@given(text=mixed_text, words=st.integers(1, 5))
def test_passages_are_those_of_the_slow_reference(text: str, words: int) -> None:
    slow = slow_passages(text, words)
    fast = passages(text, words).tolist()
    assert len(fast) == len(slow)
    # Equal where and only where the units are equal.
    assert len(set(zip(fast, slow, strict=True))) == len(set(fast)) == len(set(slow))
    for i, units in enumerate(slow):
        assert tuple(slow_units(passage_text(text, words, i))) == units


@given(text=mixed_text, before=mixed_text, after=mixed_text)
def test_a_passage_is_the_same_wherever_it_stands(text: str, before: str, after: str) -> None:
    inside = f"{before} | {text} | {after}"
    assert set(passages(text, 3).tolist()) <= set(passages(inside, 3).tolist())
    assert whole(f"- {text.upper()} -") == whole(text) or "ﬁ" in text


@given(st.text(), st.booleans())
def test_normalising_twice_changes_nothing_more(text: str, is_code: bool) -> None:
    once = normalise(text, is_code=is_code)
    assert normalise(once, is_code=is_code) == once
    assert once == unicodedata.normalize("NFC", once)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in once)


def test_normalising_by_example() -> None:
    assert normalise("a \r\nb\r\r\r\rc\x00\ufeff  ", is_code=False) == "a\nb\n\nc"
    assert normalise("\n  if x: \r\n\ty\n\n\n\nz\n", is_code=True) == "  if x: \n\ty\n\n\n\nz"
    assert normalise("e\u0301 \ud800 👩\u200d👧", is_code=False) == "é \ufffd 👩\u200d👧"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (
            "It was the best of times, it was the worst of times, and all of it was in the book.",
            "en",
        ),
        ("海水为什么是咸的？因为河流把盐分带入海洋。", "zh"),
        ("根据《Transformer》一文，attention 机制的计算复杂度为平方级别。", "zh"),
        ("def f(x):\n    return x + 1\n\nclass A:\n    y = f(2)\n", "code"),
        ("#include <stdio.h>\nint main(void) {\n  // 打印\n  puts(s);\n  return 0;\n}\n", "code"),
        (":meth:`strftime` and :meth:`strptime` Behavior\n:meth:`strftime` 的行为", "zh"),
        ("Ceci est un texte en français, qui parle de la mer et des poissons du nord.", "other"),
        ("これは日本語の文章です。海はなぜ塩辛いのですか。", "other"),
        ("Это русский текст о море и о рыбах, которые там живут.", "other"),
        ("이것은 한국어 문장입니다.", "other"),
        ("3.14 2.71 1.41 -> 42", "other"),
        ("", "other"),
    ],
)
def test_languages(text: str, label: str) -> None:
    assert language_of(text) == label


def test_a_source_is_believed_unless_it_is_clearly_wrong() -> None:
    listing = "使用以下命令安装：\n" + "pip install --upgrade package\n" * 4
    assert fits(listing, "zh")
    assert not fits("Ceci est un texte en français, qui parle de la mer. " * 4, "en")
    assert not fits("This is English only.", "zh")
    assert fits("xcode-select --install", "en")


def with_check_digit(first: str) -> str:
    """ISO 7064 MOD 11-2, computed the long way."""
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(first))
    return first + "10X98765432"[total % 11]


def with_luhn(first: str) -> str:
    for digit in "0123456789":
        total = 0
        for i, d in enumerate(reversed(first + digit)):
            n = int(d) * (2 if i % 2 else 1)
            total += n - 9 if n > 9 else n
        if total % 10 == 0:
            return first + digit
    raise AssertionError


@given(
    born=st.dates(min_value=date(1900, 1, 1)),
    area=st.integers(110000, 659999),
    serial=st.integers(0, 999),
)
def test_identity_numbers_have_a_check_digit(born: Any, area: int, serial: int) -> None:
    if born.year > 2100:
        return
    number = with_check_digit(f"{area}{born:%Y%m%d}{serial:03d}")
    assert is_identity(number)
    for wrong in "0123456789X":
        assert is_identity(number[:17] + wrong) == (wrong == number[17])
    text, found = redact(f"身份证{number}号", ALL)
    assert (text, found) == ("身份证[identity]号", {"identity": 1})


@given(rest=st.text(alphabet="0123456789", min_size=11, max_size=11))
def test_cards_have_luhns_digit(rest: str) -> None:
    number = with_luhn("6222" + rest)
    assert is_card(number)
    assert not any(is_card(number[:-1] + d) for d in "0123456789" if d != number[-1])
    spaced = " ".join(number[i : i + 4] for i in range(0, 16, 4))
    assert redact(f"卡号{spaced}，", ALL)[0] == "卡号[card]，"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("写信给zhang.san+a@mail.example.com.cn吧", "写信给[email]吧"),
        ("a@b", "a@b"),
        ("电话13812345678。", "电话[phone]。"),
        ("+86 138-1234-5678", "[phone]"),
        ("总机010-62781234转8", "总机[phone]转8"),
        ("call (415) 555-2671 or +44 20 7946 0958", "call [phone] or [phone]"),
        (
            "count=71332 (+71332), +10% 2024-01-02 11:33",
            "count=71332 (+71332), +10% 2024-01-02 11:33",
        ),
        ("圆周率3.13812345678901", "圆周率3.13812345678901"),
        ("订单号 201381234567812", "订单号 201381234567812"),
        ("server 203.113.45.67:80", "server [ip]:80"),
        ("127.0.0.1 and 192.168.10.20", "127.0.0.1 and 192.168.10.20"),
        ("see section 3.2.1.4 of version 6.0.1.10", "see section 3.2.1.4 of version 6.0.1.10"),
        ("2606:4700:4700:0:0:0:0:1111", "[ip]"),
        ("fe80::1 std::vector 12:30:45", "fe80::1 std::vector 12:30:45"),
        ("x = 4242424242424241", "x = 4242424242424241"),
        ("x = 4242424242424242", "x = [card]"),
    ],
)
def test_personal_data(text: str, clean: str) -> None:
    assert redact(text, ALL)[0] == clean
    assert redact(text, ())[0] == text


# --- recipes and inputs -------------------------------------------------------------------------


def source(**changes: Any) -> dict[str, Any]:
    return {"name": "a", "path": "a.jsonl", "license": "CC0", "category": "web"} | changes


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"tokeniser": "x"}, "tokeniser is unknown; did you mean tokenizer?"),
        ({"source": [source(licence="x")]}, "licence is unknown; did you mean source[0].license?"),
        ({"source": []}, "source: there is none"),
        ({"source": [source(), source()]}, "source.name=a occurs twice"),
        ({"source": [source(name="A b")]}, "source.name='A b' must consist of"),
        ({"source": [source(category="blog")]}, "source[0].category='blog' is unknown; use web"),
        ({"source": [source(encoding="gbkk")]}, "encoding='gbkk' is unknown"),
        ({"source": [source()], "heldout": 1.0}, "heldout=1.0 must be within 0..1"),
        ({"source": [source()], "filter": {"min_words": 0}}, "filter: min_words=0 must be"),
        ({"source": [source()], "run": {"executor": "slurm"}}, "needs a section [run.slurm]"),
        ({"source": [source()], "duplicates": {"words": 0}}, "duplicates.words=0 must be above 0"),
    ],
)
def test_a_wrong_recipe_is_told_in_one_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        recipe_of({"tokenizer": "t", **table} if "tokeniser" not in table else table)


def test_the_example_recipe_is_complete_and_right() -> None:
    path = Path(__file__).parents[1] / "recipes" / "data.toml"
    text = path.read_text(encoding="utf-8")
    table = tomllib.loads(text)
    recipe = recipe_of(table)
    plain = Recipe(tokenizer="t", source=recipe.source)
    for section in ("filter", "duplicates", "run"):
        assert getattr(recipe, section) == getattr(plain, section), "the comment says default"
    for section in ("filter", "duplicates", "decontamination"):
        assert table[section].keys() == asdict(getattr(recipe, section)).keys()
    commented = text[text.index("# [run.slurm]") :].replace("\n# ", "\n").removeprefix("# ")
    slurm = tomllib.loads(commented)["run"]["slurm"]
    assert slurm.keys() == {field.name for field in fields(SlurmSettings)}
    assert (recipe.heldout, recipe.bad_lines, recipe.shard_tokens) == (0.01, 0.01, 1 << 28)


def test_every_part_of_every_file_belongs_to_one_task(tmp_path: Path) -> None:
    random.seed(0)
    names = [f"{i}.jsonl" for i in range(5)] + ["x.txt", "sub/y.md", "z.py", "p.html.gz"]
    for name in [*names, ".git/config.txt", "notes.xyz"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * random.randrange(1, 100_000))
    recipe = recipe_of({"tokenizer": "t", "source": [source(path=".")], "run": {"tasks": 4}})
    inputs = plan_tasks(recipe, tmp_path, workers=1)
    assert len(inputs.tasks) == 4
    pieces = [piece for task in inputs.tasks for piece in task]
    assert {piece.name for piece in pieces} == set(names)
    for name in names:
        own = [piece for piece in pieces if piece.name == name]
        assert (
            sorted(piece.part for piece in own)
            == list(range(own[0].parts))
            == list(range(len(own)))
        )
    loads = [sum(piece.size for piece in task) for task in inputs.tasks]
    assert max(loads) < 2.5 * min(loads)
    (tmp_path / "x.txt").write_text("other")
    assert plan_tasks(recipe, tmp_path, workers=1).identity != inputs.identity


def test_kinds_follow_from_extensions() -> None:
    kinds = [kind_of(Path(n)) for n in ("a.JSONL.gz", "a.md", "b.tar.gz", "c.cpp", "gz", "h.htm")]
    assert kinds == ["jsonl", "text", None, "code", None, "html"]


# --- benchmarks ---------------------------------------------------------------------------------

QUESTION = (
    "A farmer keeps seventeen sheep behind the barn and sells all but nine of them on Tuesday "
    "morning; how many sheep are left behind the barn?"
)
QUESTION_ZH = (
    "一个农夫在谷仓后面养了十七只羊，星期二早上卖掉了其中的大部分，只剩下九只，请问还剩几只羊？"
)


def test_benchmarks_are_found_in_any_file_and_any_context(tmp_path: Path) -> None:
    table = {"instruction": "Answer with one number", "q": [{"text": QUESTION + "\u2028"}]}
    places = {
        "lines": ("a.jsonl", (json.dumps(table, ensure_ascii=False) + "\n").encode()),
        "packed": ("b.jsonl.gz", gzip.compress(json.dumps(table).encode() + b"\n\n")),
        "old": ("c.txt.bz2", bz2.compress(QUESTION.encode())),
        "table": ("d.csv", f'"{QUESTION}",B\n'.encode()),
        "nested": ("e.json", json.dumps({"version": 1, "data": [[table]]}).encode()),
        "chinese": ("f.tsv", f"{QUESTION_ZH}\t9\n".encode()),
    }
    for name, (file, content) in places.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(content)
        (tmp_path / name / "LICENSE").write_bytes(b"\xff")
        check_benchmarks({name: name}, tmp_path)
        assert write_index(tmp_path / name, tmp_path / "index" / f"{name}.npy", 13) > 5
        index = BenchmarkIndex(tmp_path / "index", [name], 13)
        asked = QUESTION_ZH if name == "chinese" else QUESTION
        found = index.look_up(f"Yesterday I read: {asked.upper()}\nI do not know.", 1)
        assert found is not None
        assert found.benchmark == name
        assert set(slow_units(found.text)) <= set(slow_units(asked))
        assert (
            index.look_up("Something else about sheep, barns, farmers and Tuesdays. " * 9, 1)
            is None
        )
        half = asked[: len(asked) // 3]
        assert index.look_up(f"{half} and then nothing of the kind happened at all", 1) is None


def test_the_benchmark_with_most_passages_is_named(tmp_path: Path) -> None:
    other = QUESTION.replace("Tuesday", "Friday")
    for name, text in (("one", QUESTION), ("two", other)):
        (tmp_path / f"{name}.txt").write_text(text)
        write_index(tmp_path / f"{name}.txt", tmp_path / f"{name}.npy", 13)
    index = BenchmarkIndex(tmp_path, ["one", "two"], 13)
    for name, text in (("one", QUESTION), ("two", other)):
        found = index.look_up(text, 1)
        assert found is not None
        assert found.benchmark == name
    assert index.look_up(QUESTION, 10_000) is None


def test_instructions_that_all_records_share_are_no_evidence(tmp_path: Path) -> None:
    instruction = (
        "The following are multiple choice questions with answers about the history of art "
    )
    lines = [
        json.dumps({"prompt": f"{instruction} {i} {'abcdefgh'[i % 8] * 9}"}) for i in range(40)
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    write_index(tmp_path / "b.jsonl", tmp_path / "b.npy", 10)
    assert BenchmarkIndex(tmp_path, ["b"], 10).look_up(instruction * 3, 1) is None


def test_unusable_benchmarks_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"benchmarks\.gone='gone': no json, jsonl"):
        check_benchmarks({"gone": "gone"}, tmp_path)
    with pytest.raises(UsageError, match=r"a name must not contain /"):
        check_benchmarks({"a/b": "."}, tmp_path)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(BadDataError, match=r"b\.json: this benchmark file cannot be read"):
        write_index(tmp_path / "b.json", tmp_path / "b.npy", 13)


# --- the pipeline -------------------------------------------------------------------------------

NOUNS = "river engine garden letter window mountain teacher harbour signal winter"
VERBS = "carries follows remembers answers crosses repairs describes surprises"
TAIL = "in the old town, with all that it had been and would be again"
HAN = "山川草木日月星辰春夏秋冬风雨雷电东西南北上下左右前后内外天地人和平安乐喜怒哀思"


def prose(seed: int, sentences: int = 12) -> str:
    pick = random.Random(seed)

    def sentence() -> str:
        one, two, three = pick.sample(NOUNS.split(), 3)
        verb, tail = pick.choice(VERBS.split()), " ".join(pick.sample(TAIL.split(), 4))
        return f"The {one} {verb} the {two} of {three} number{pick.randrange(10**6)} {tail}."

    return " ".join(sentence() for _ in range(sentences))


def chinese(seed: int) -> str:
    pick = random.Random(seed)
    return "".join("".join(pick.choices(HAN, k=18)) + "。" for _ in range(8))


def write_jsonl(path: Path, texts: list[str], **fields: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, **fields}, ensure_ascii=False) for text in texts]
    content = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_corpus(folder: Path) -> Path:
    """English and Chinese prose and code; 6 exact and 5 near duplicates, 2 contaminated, ..."""
    import conftest

    conftest.write_byte_tokenizer(folder / "tokenizer")
    english = [prose(i) for i in range(60)]
    near = [english[i].replace("number", "number ", 1) + " Indeed." for i in range(5)]
    write_jsonl(folder / "en" / "one.jsonl.gz", [*english, *near, english[7]], lang="en")
    write_jsonl(
        folder / "en" / "two.jsonl", [*english[10:13], prose(900) + " " + QUESTION, "short"]
    )
    private = chinese(800) + "邮箱zhang@example.com，手机13812345678。"
    texts = [chinese(i) for i in range(40)]
    write_jsonl(
        folder / "zh.jsonl", [*texts, *texts[:2], private, chinese(801) + QUESTION_ZH, english[0]]
    )
    for i in range(12):
        path = folder / "code" / "pkg" / f"module{i}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = "\n".join(
            f"def {random.Random(i * 99 + k).choice(NOUNS.split())}_{i}_{k}(value):\n"
            f"    return value * {random.Random(i * 77 + k).randrange(10**9)} + {k}\n"
            for k in range(8)
        )
        path.write_text(("# Generated by protoc. DO NOT EDIT.\n" if i == 11 else "") + body)
    (folder / "code" / ".git").mkdir()
    (folder / "code" / ".git" / "hidden.py").write_text("hidden = 1\n" * 50)
    (folder / "bench").mkdir()
    write_jsonl(folder / "bench" / "sheep.jsonl", [QUESTION, QUESTION_ZH])
    return folder


RECIPE = """
tokenizer = "tokenizer"
heldout = 0.1
shard_tokens = 20000
{top}
[[source]]
name = "english"
path = "en"
license = "CC0"
category = "web"
[[source]]
name = "chinese"
path = "zh.jsonl"
license = "MIT"
category = "web"
language = "zh"
[[source]]
name = "code"
path = "code"
license = "MIT"
category = "code"
[filter]
min_words = 10
[duplicates]
buckets = 6
hashes = 4
[decontamination.benchmarks]
sheep = "bench"
[run]
workers = {workers}
tasks = {tasks}
"""


def write_recipe(folder: Path, workers: int = 1, tasks: int = 1, top: str = "") -> Path:
    path = folder / f"recipe-{workers}-{tasks}.toml"
    path.write_text(RECIPE.format(workers=workers, tasks=tasks, top=top), encoding="utf-8")
    return path


def silent(stage: str, done: int, total: int) -> None:
    assert done <= total, stage


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def prepared(corpus: Path) -> Path:
    """A set made in one task and one process."""
    from hunyuan.data.prepare import prepare

    prepare(write_recipe(corpus), corpus / "set", progress=silent)
    return corpus / "set"


def texts_of(folder: Path, tokenizer: Tokenizer) -> Counter[tuple[str, str, str]]:
    opened = TokenSet.open(folder, verify=True)
    found: Counter[tuple[str, str, str]] = Counter()
    for split in ("train", "heldout"):
        for name, one in opened.sources(split).items():
            for document in one:
                assert document[-1] == opened.end_id
                found[split, name, tokenizer.decode(document[:-1].tolist())] += 1
    return found


@needs_datatrove
def test_the_pipeline_keeps_what_it_should_and_counts_the_rest(
    prepared: Path, byte_tokenizer: Tokenizer
) -> None:
    report = json.loads((prepared / "report.json").read_bytes())
    english, chinese_, code = (report["sources"][n] for n in ("english", "chinese", "code"))
    assert (english["read"], chinese_["read"], code["read"]) == (71, 45, 12)
    assert english["rejected"] == {"short": 1}
    assert chinese_["rejected"] == {"language": 1}
    assert code["rejected"] == {"code_generated": 1}
    assert english["exact_duplicates"] == 4
    assert chinese_["exact_duplicates"] == 2
    assert english["near_duplicates"] == 5
    assert english["contaminated"] == chinese_["contaminated"] == {"sheep": 1}
    assert chinese_["redacted"] == {"email": 1, "phone": 1}
    assert report["benchmarks"]["sheep"]["removed"] == 2
    kept = texts_of(prepared, byte_tokenizer)
    assert set(kept.values()) == {1}
    texts = {text: name for _, name, text in kept}
    # All originals but those that lost to their near duplicate are there, letter by letter.
    assert {prose(i) for i in range(5, 60)} <= texts.keys()
    assert {chinese(i) for i in range(40)} <= texts.keys()
    assert all(sum(a in t for t in texts) == 1 for a in (prose(i)[200:400] for i in range(5)))
    assert chinese(800) + "邮箱[email]，手机[phone]。" in texts
    assert not any("sheep are left" in text or "hidden" in text for text in texts)
    for name, counts in report["sources"].items():
        removed = sum(counts["rejected"].values()) + sum(counts["contaminated"].values())
        duplicates = counts["exact_duplicates"] + counts["near_duplicates"]
        documents = sum(label["documents"] for label in counts["kept"].values())
        assert counts["read"] == removed + duplicates + documents
        assert documents == sum(n == name for n in texts.values())
        tokens = sum(label["tokens"] for label in counts["kept"].values())
        size = sum(label["bytes"] for label in counts["kept"].values())
        assert tokens == size + documents  # one token per byte, and one to end each document


@needs_datatrove
def test_the_manifest_tells_what_is_in_the_set(prepared: Path) -> None:
    opened = TokenSet.open(prepared, verify=True)
    train = opened.sources("train")
    assert {n: (s.language, s.license) for n, s in train.items()} == {
        "english": ("en", "CC0"),
        "chinese": ("zh", "MIT"),
        "code": ("code", "MIT"),
    }
    assert len(train["english"].shards) > 1
    assert all(shard.record.tokens >= 20000 for shard in train["english"].shards[:-1])
    for record in opened.records:
        content = (prepared / f"{record.stem}.bin").read_bytes()
        assert hashlib.sha256(content).hexdigest() == record.bin_sha256
    names = {path.name for path in prepared.iterdir()}
    assert names == {"manifest.json", "report.json", "report.md", "tokenizer", "train", "heldout"}


@needs_datatrove
def test_a_document_is_held_out_by_its_text_alone(
    prepared: Path, byte_tokenizer: Tokenizer
) -> None:
    kept = texts_of(prepared, byte_tokenizer)
    for split, _, text in kept:
        first = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        assert (split == "heldout") == (first < 0.1 * 2**64)
    assert {split for split, _, _ in kept} == {"train", "heldout"}


@needs_datatrove
def test_tasks_and_processes_change_nothing_of_the_content(
    corpus: Path, prepared: Path, byte_tokenizer: Tokenizer
) -> None:
    from hunyuan.data.prepare import prepare

    prepare(write_recipe(corpus, workers=2, tasks=3), corpus / "set3", progress=silent)
    one, three = (texts_of(f, byte_tokenizer) for f in (prepared, corpus / "set3"))
    # Which of two near duplicates stays may depend on where they lie.
    assert sum(one.values()) == sum(three.values())
    assert len(one - three) <= 5
    strip: list[Any] = []
    for folder in (prepared, corpus / "set3"):
        report = json.loads((folder / "report.json").read_bytes())
        strip.append(
            {
                name: {k: s[k] for k in ("read", "rejected", "redacted", "near_duplicates")}
                for name, s in report["sources"].items()
            }
        )
    assert strip[0] == strip[1]


KILLED = """
import os, signal, sys
from pathlib import Path
from hunyuan.data.prepare import prepare
recipe, out, stage = sys.argv[1:]
def progress(name, done, total):
    if name == stage and done:
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    prepare(Path(recipe), Path(out), progress=progress)
"""


@needs_datatrove
def test_a_killed_run_is_taken_up_where_it_was(corpus: Path, tmp_path: Path) -> None:
    """Killed in three stages in turn; the result is that of an undisturbed run."""
    from hunyuan.data.plan import stages
    from hunyuan.data.prepare import prepare
    from hunyuan.data.recipe import read_recipe

    recipe = write_recipe(corpus, workers=1, tasks=2)
    prepare(recipe, tmp_path / "calm", progress=silent)
    out = tmp_path / "killed"
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    names = [stage.name for stage in stages(read_recipe(recipe), corpus, out, 2)]
    assert names[0] == "benchmarks"
    seen: dict[Path, int] = {}
    for stage in ("read", "clusters", "shards"):
        command = [sys.executable, str(script), str(recipe), str(out), stage]
        killed = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (out / "manifest.json").exists()
        marks = {path: path.stat().st_mtime_ns for path in out.rglob("completions/*")}
        assert len(marks) > len(seen)
        assert seen.items() <= marks.items(), "a finished task was run again"
        seen = marks
    prepare(recipe, out, progress=silent)
    for name in ("manifest.json", "report.json"):
        assert (out / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    TokenSet.open(out, verify=True)


@needs_datatrove
def test_processes_end_with_the_one_that_started_them(corpus: Path, tmp_path: Path) -> None:
    from hunyuan.data.prepare import prepare

    recipe = write_recipe(corpus, workers=2, tasks=6)
    out = tmp_path / "out"
    script = tmp_path / "main.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(recipe), str(out), "none"]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 40
    while not list(out.rglob("stages/read/logs/*")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(UsageError, match="another run is working there"):
        prepare(recipe, out, progress=silent)
    running.send_signal(signal.SIGKILL)
    running.wait()
    prepare(recipe, out, progress=silent)  # waits for the processes, then goes on
    TokenSet.open(out, verify=True)


@needs_datatrove
def test_what_changed_meanwhile_is_named(corpus: Path, tmp_path: Path) -> None:
    from hunyuan.data.prepare import prepare

    work = write_corpus(tmp_path / "corpus")
    out = tmp_path / "out"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "exact":
            raise KeyboardInterrupt

    recipe = write_recipe(work)
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe, out, progress=stop)
    write_recipe(work, top="samples = 5")
    with pytest.raises(UsageError, match=r"the recipe \(samples: 3 -> 5\) changed"):
        prepare(recipe, out, progress=silent)
    write_recipe(work)
    (work / "zh.jsonl").write_text((work / "zh.jsonl").read_text() + "\n")
    with pytest.raises(UsageError, match="a file of the sources changed since this run began"):
        prepare(recipe, out, progress=silent)
    prepare(recipe, out, restart=True, progress=silent)
    again = prepare(recipe, out, progress=silent)
    assert again.sources("train").keys() == {"english", "chinese", "code"}
    write_recipe(work, top="samples = 5")
    with pytest.raises(UsageError, match="holds the set of another recipe"):
        prepare(recipe, out, progress=silent)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for restart in (False, True):
        with pytest.raises(UsageError, match="holds other files"):
            prepare(recipe, tmp_path / "mine", restart=restart, progress=silent)


def small(folder: Path, source: str, top: str = "") -> Path:
    import conftest

    conftest.write_byte_tokenizer(folder / "tokenizer")
    path = folder / "recipe.toml"
    path.write_text(
        f'tokenizer = "tokenizer"\n{top}\n[[source]]\nname = "a"\nlicense = "CC0"\n'
        f'category = "books"\n{source}\n[filter]\nmin_words = 3\n'
        "[duplicates]\nnear = false\n[run]\nworkers = 1\n",
        encoding="utf-8",
    )
    return path


@needs_datatrove
def test_bad_lines_are_tolerated_up_to_the_limit(tmp_path: Path) -> None:
    from hunyuan.data.prepare import prepare

    good = [json.dumps({"text": prose(i, 2)}) for i in range(96)]
    bad = ["{", '{"txt": "x"}', "[1]", '{"text": 5}']
    lines = [*good[:10], bad[0], *good[10:], "", *bad[1:]]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    recipe = small(tmp_path, 'path = "a.jsonl"', "bad_lines = 0.05")
    prepare(recipe, tmp_path / "out", progress=silent)
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["sources"]["a"]["bad_lines"] == 4
    assert report["sources"]["a"]["read"] == 96
    told = {e["document"]: e["text"] for e in report["examples"] if e["event"] == "bad lines"}
    assert told.keys() <= {"a/a.jsonl:11", "a/a.jsonl:99", "a/a.jsonl:100", "a/a.jsonl:101"}
    recipe = small(tmp_path, 'path = "a.jsonl"', "bad_lines = 0.03")
    with pytest.raises(BadDataError, match=r"source a: 4 of 100 lines cannot be read.*0\.03"):
        prepare(recipe, tmp_path / "out2", progress=silent)


@needs_datatrove
def test_an_empty_result_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    from hunyuan.data.prepare import prepare

    write_jsonl(tmp_path / "a.jsonl", ["Ceci est un texte en français, qui parle de la mer. " * 3])
    recipe = small(tmp_path, 'path = "a.jsonl"')
    with pytest.raises(BadDataError, match=r"nothing is left of 1 documents \(rejected language 1"):
        prepare(recipe, tmp_path / "out", progress=silent)
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(BadDataError, match=r"nothing is left of 0 documents"):
        prepare(recipe, tmp_path / "out2", progress=silent)
    with pytest.raises(UsageError, match=r"path='b\*' gives no file"):
        prepare(small(tmp_path, 'path = "b*"'), tmp_path / "out3", progress=silent)
    assert not (tmp_path / "out3").exists()


@needs_datatrove
def test_a_cut_off_archive_is_named(tmp_path: Path) -> None:
    from hunyuan.data.prepare import prepare

    write_jsonl(tmp_path / "a.jsonl.gz", [prose(i) for i in range(50)])
    content = (tmp_path / "a.jsonl.gz").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadDataError, match=r"a\.jsonl\.gz: cannot be read to its end"):
        prepare(small(tmp_path, 'path = "a.jsonl.gz"'), tmp_path / "out", progress=silent)


@needs_datatrove
def test_all_kinds_of_files_are_read(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    import pyarrow
    import pyarrow.parquet
    import zstandard

    from hunyuan.data.prepare import prepare

    folder = tmp_path / "in"
    folder.mkdir()
    texts = [prose(i, 6) for i in range(12)]
    rows = pyarrow.table({"text": texts[:5], "title": list("abcde"), "n": list(range(5))})
    pyarrow.parquet.write_table(rows, folder / "a.parquet", row_group_size=2)
    line = json.dumps({"text": texts[5]}).encode()
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress(line))
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": texts[6]}).encode()))
    (folder / "d.txt").write_text(texts[7] + "\r\n\r\n\r\n\r\n")
    (folder / "e.md.gz").write_bytes(gzip.compress(texts[8].encode()))
    page = f"<html><head><title>t</title></head><body><article><p>{texts[9]}</p></article></body>"
    (folder / "f.html").write_text(page)
    (folder / "g.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts[10:]))
    (folder / "h.txt").write_bytes(b"\xff\xfe" * 50)
    recipe = small(tmp_path, 'path = "in"\nlanguage = "en"', "bad_lines = 0.2")
    recipe.write_text(recipe.read_text() + "tasks = 3\n")
    prepare(recipe, tmp_path / "out", progress=silent)
    assert {text for _, _, text in texts_of(tmp_path / "out", byte_tokenizer)} == set(texts)
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    (bad,) = (e for e in report["examples"] if e["event"] == "bad lines")
    assert (bad["document"], bad["text"][:13]) == ("a/h.txt", "no utf-8 text")


# --- the command --------------------------------------------------------------------------------


@needs_datatrove
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_report_and_verify(
    lang: str,
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", lang)
    assert run(["data", "report", str(prepared)]) == 0
    shown = capsys.readouterr().out
    assert ("## Personal data replaced" if lang == "en" else "## 个人信息替换") in shown
    assert "sheep" in shown
    assert "- english/" in shown
    assert run(["data", "report", str(prepared), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"]["code"]["read"] == 12
    assert run(["data", "verify", str(prepared)]) == 0
    assert ("intact:" if lang == "en" else "完好：") in capsys.readouterr().out
    assert run(["data", "report", str(tmp_path)]) == 2
    assert "hunyuan data prepare" in capsys.readouterr().err


def test_verify_names_the_altered_file(
    tmp_path: Path, byte_tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path, byte_tokenizer, ["abc"])
    flip(tmp_path / "train/b/00000.bin", 0)
    assert run(["data", "verify", str(tmp_path)]) == 4
    assert "train/b/00000.bin: was altered" in capsys.readouterr().err


def test_without_datatrove_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hunyuan.cli.data.find_spec", lambda name: None)
    assert run(["data", "prepare", "r.toml", str(tmp_path)]) == 2
    assert "pip install 'hunyuan[data]'" in capsys.readouterr().err


@needs_datatrove
def test_the_command_prints_the_tables(
    corpus: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked again for a finished set, it only tells what is there."""
    assert run(["data", "prepare", str(write_recipe(corpus)), str(prepared)]) == 0
    printed = capsys.readouterr().out
    assert "| english | en |" in printed
    assert "Examples" not in printed
    assert printed.endswith(f"{prepared}\n")


# --- a cluster ----------------------------------------------------------------------------------

SBATCH = """#!/bin/bash
script="${@: -1}"
last=$(grep -oP '(?<=--array=0-)[0-9]+' "$script")
for i in $(seq 0 "$last"); do
    SLURM_NODELIST=n1 SLURM_ARRAY_TASK_ID=$i RUN_OFFSET=0 bash "$script" >>"$LOG" 2>&1 || exit 1
done
echo Submitted batch job 7
"""
SRUN = '#!/bin/bash\nwhile [ "${1:0:1}" = - ]; do [ "$1" = -n ] && shift; shift; done\nexec "$@"\n'


@needs_datatrove
def test_slurm_runs_the_same_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte_tokenizer: Tokenizer
) -> None:
    """With stand-ins for Slurm's commands that run each job at once, on this machine."""
    from hunyuan.data.prepare import prepare

    write_jsonl(tmp_path / "a.jsonl", [prose(i, 2) for i in range(20)])
    recipe = small(tmp_path, 'path = "a.jsonl"')
    prepare(recipe, tmp_path / "local", progress=silent)
    text = recipe.read_text() + 'executor = "slurm"\n[run.slurm]\npartition = "cpu"\n'
    recipe.write_text(text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not (Path(sys.executable).parent / "launch_pickled_pipeline").exists():
        pytest.skip("datatrove's launch_pickled_pipeline is not beside the interpreter")
    with pytest.raises(UsageError, match="sbatch is not on this machine"):
        prepare(recipe, tmp_path / "jobs", progress=silent)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    for name, content in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", "#!/bin/sh\necho n1")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "merge_stats").symlink_to("/bin/true")
    with pytest.raises(InterruptedWorkError, match="5 tasks were submitted"):
        prepare(recipe, tmp_path / "jobs", progress=silent)
    prepare(recipe, tmp_path / "jobs", progress=silent)
    assert texts_of(tmp_path / "jobs", byte_tokenizer) == texts_of(
        tmp_path / "local", byte_tokenizer
    )


@needs_datatrove
def test_ray_writes_the_same_bytes(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    """On processes of this machine, started and stopped by the test."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from hunyuan.data.prepare import prepare

    write_jsonl(tmp_path / "a.jsonl", [prose(i, 2) for i in range(20)] + [prose(3, 2)])
    recipe = small(tmp_path, 'path = "a.jsonl"')
    prepare(recipe, tmp_path / "local", progress=silent)
    recipe.write_text(recipe.read_text() + 'executor = "ray"\n')
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        prepare(recipe, tmp_path / "jobs", progress=silent)
    finally:
        ray.shutdown()
    assert shards(tmp_path / "jobs") == shards(tmp_path / "local")


def shards(folder: Path) -> dict[str, bytes]:
    """Every file of tokens, by its place in the set."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("train", "heldout")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }
    assert found
    return found


@pytest.fixture(autouse=True)
def _no_threads() -> Iterator[None]:
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
