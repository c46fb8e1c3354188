"""Learning a tokenizer: against transformers and a slow byte-pair trainer, and its own inverse."""

import gzip
import json
import random
import re
import unicodedata
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.cli.main import run
from hunyuan.errors import BadDataError, UsageError
from hunyuan.tokenizer.byte_pair import CHARACTER_OF, BytePairs
from hunyuan.tokenizer.hunyuan_large import CHAT_TEMPLATE
from hunyuan.tokenizer.load import load_tokenizer
from hunyuan.tokenizer.save import save_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer
from hunyuan.tokenizer.train import SMALLEST, SPECIALS, measure, read_texts, train_tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 12345 o'clock, they'LL see!\n\n",
    "def f(x):\n    return x ** 2  # squares\n\nclass A:\n\tpass\r\n",
    "混元大模型能够理解中文。海水为什么是咸的？今天天气很好，我们去公园散步吧。",
    "😀👩\u200d👩\u200d👧\u200d👦 emoji 🇨🇳 café cafe\u0301 naïve Ünïcödé",
] * 3
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "海水为什么是咸的？"},
    {"role": "assistant", "content": "Salt."},
    {"role": "user", "content": "And <|eos|> the lake?"},
]
any_text = st.text() | st.lists(
    st.sampled_from([*CORPUS[:4], *SPECIALS[:7], "<|extra_", "0|>", "  ", "\n", "é", "中", "9"])
).map("".join)


@cache
def learnt() -> Tokenizer:
    return train_tokenizer(iter(CORPUS), 450)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learnt")
    save_tokenizer(learnt(), path)
    return path


@settings(deadline=None)
@given(any_text)
def test_any_text_comes_back_as_nfc(text: str) -> None:
    ids = learnt().encode(text)
    assert learnt().decode(ids) == unicodedata.normalize("NFC", text)
    assert not set(ids) & set(learnt().specials.values())


@settings(deadline=None, max_examples=60)
@given(text=any_text)
def test_saved_it_reads_the_same_here_and_in_transformers(text: str, folder: Path) -> None:
    ids = learnt().encode(text)
    assert load(folder).encode(text) == ids
    reference = transformers_tokenizer(folder)
    assert reference.encode(text, split_special_tokens=True) == ids
    assert reference.encode(text) == learnt().encode_markup(text)
    assert reference.decode(ids) == learnt().decode(ids, skip_specials=False)


@cache
def load(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


@cache
def transformers_tokenizer(folder: Path):  # type: ignore[no-untyped-def]
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def test_ids_specials_and_template_are_hunyuans(folder: Path) -> None:
    tokenizer = load(folder)
    first = tokenizer.vocab_size - len(SPECIALS)
    assert tokenizer.special_tokens == learnt().special_tokens
    assert [tokenizer.specials[text] for text in SPECIALS] == list(
        range(first, tokenizer.vocab_size)
    )
    assert tokenizer.undefined_ids(tokenizer.vocab_size) == []
    assert tokenizer.bos_id == tokenizer.specials["<|startoftext|>"]
    assert tokenizer.eos_id == tokenizer.specials["<|eos|>"]
    assert tokenizer.stop_ids == {tokenizer.eos_id, tokenizer.specials["<|endoftext|>"]}
    assert not tokenizer.add_bos
    assert tokenizer.chat_template == CHAT_TEMPLATE
    generation = json.loads((folder / "generation_config.json").read_bytes())
    assert set(generation["eos_token_id"]) == tokenizer.stop_ids


def test_conversations_are_rendered_as_the_specification_says(folder: Path) -> None:
    tokenizer = load(folder)
    special = tokenizer.specials
    wanted = [
        special["<|startoftext|>"],
        *tokenizer.encode("Be brief."),
        special["<|extra_4|>"],
        *tokenizer.encode("海水为什么是咸的？"),
        special["<|extra_0|>"],
        *tokenizer.encode("Salt."),
        special["<|eos|>"],
        special["<|startoftext|>"],
        *tokenizer.encode("And <|eos|> the lake?"),
        special["<|extra_0|>"],
    ]
    assert tokenizer.chat_prompt(MESSAGES) == wanted
    text = tokenizer.render_chat(MESSAGES)
    reference = transformers_tokenizer(folder)
    assert reference.apply_chat_template(MESSAGES, tokenize=False) == text


def merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    fresh = False
    for part in parts:
        if merged and not fresh and (merged[-1], part) == pair:
            merged[-1] += part
            fresh = True
        else:
            merged.append(part)
            fresh = False
    return merged


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("abc海水", min_size=1, max_size=8), min_size=1, max_size=30))
def test_every_merge_is_of_a_most_frequent_pair(words: list[str]) -> None:
    """Replayed by the textbook: no other pair ever occurs more often, and at the end none twice."""
    tokenizer = train_tokenizer(words, SMALLEST + 1000)
    backend = tokenizer.backend
    assert isinstance(backend, BytePairs)
    merges = [tuple(m) for m in backend.description()["model"]["merges"]]
    assert tokenizer.vocab_size == SMALLEST + len(merges)
    counts = Counter(words)
    split = {word: [CHARACTER_OF[byte] for byte in word.encode()] for word in words}

    def pairs() -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                found[pair] += counts[word]
        return found

    for pair in merges:
        now = pairs()
        assert now[pair] == max(now.values())
        split = {word: merge(parts, pair) for word, parts in split.items()}
    assert max(pairs().values(), default=0) < 2


def test_words_are_cut_as_the_specification_says() -> None:
    texts = [
        "123 123 123",
        "they'll they'll they'll",
        "x.\n\n x.\n\n x.\n\n",
        "a  b  a  b  a  b",
    ] * 9
    tokenizer = train_tokenizer(texts, 2000)
    tokens = [tokenizer.token_bytes(i).decode() for i in range(256, tokenizer.vocab_size - 13)]
    assert "'ll" in tokens
    assert ".\n\n" in tokens
    assert not any(sum(c.isdigit() for c in token) > 1 for token in tokens)
    assert not any(re.search(r"\w\s|\d\D|y'", token) for token in tokens)


def test_the_same_texts_in_another_order_give_the_same_tokenizer(tmp_path: Path) -> None:
    contents = set()
    for seed in range(3):
        texts = [f"{text} {i} 词{i % 5}" for i, text in enumerate(CORPUS)]
        random.Random(seed).shuffle(texts)
        (tmp_path / str(seed)).mkdir()
        save_tokenizer(train_tokenizer(iter(texts), 400), tmp_path / str(seed))
        contents.add((tmp_path / str(seed) / "tokenizer.json").read_bytes())
    assert len(contents) == 1


def test_sizes() -> None:
    assert learnt().vocab_size == 450
    with pytest.raises(UsageError, match=f"vocab=268: must be at least {SMALLEST}, for 256 bytes"):
        train_tokenizer(CORPUS, 268)
    untaught = train_tokenizer([], 5000)
    assert untaught.vocab_size == SMALLEST
    assert untaught.decode(untaught.encode("中 a\ud800")) == "中 a\ufffd"


def test_compression_is_counted() -> None:
    found = measure(learnt(), {"zh": ["海水", "中"], "none": []})
    ids = learnt().encode("海水") + learnt().encode("中")
    assert (found["zh"].characters, found["zh"].bytes, found["zh"].tokens) == (3, 9, len(ids))
    assert found["zh"].bytes_per_token == 9 / len(ids)
    assert found["none"].characters_per_token == 0


# --- files and the command ----------------------------------------------------------------------


def test_texts_are_read_from_jsonl_and_text(tmp_path: Path) -> None:
    lines = "\n".join(
        [json.dumps({"en": "a", "zh": "甲"}), "", json.dumps({"en": "b", "zh": "乙"})]
    )
    (tmp_path / "p.jsonl").write_text(lines)
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "r.md").write_text("# c\n")
    for name in ("p.jsonl", "q.jsonl.gz"):
        assert list(read_texts(tmp_path / name, ("en", "zh"))) == ["a\n甲", "b\n乙"]
    assert list(read_texts(tmp_path / "r.md", ("text",))) == ["# c\n"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{', "a.jsonl:2: no JSON object with the text text"),
        ("a.jsonl", b'{"txt": "x"}\n', "a.jsonl:1: no JSON object with the text text (KeyError"),
        ("a.jsonl", b"[]\n", "a.jsonl:1: no JSON object"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99)[:-9], "a.jsonl.gz: cannot be read"),
        ("a.txt", b"\xff", "a.txt: cannot be read"),
        ("missing.txt", None, "missing.txt: cannot be read"),
    ],
)
def test_unreadable_files_are_named(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadDataError, match=re.escape(message)):
        list(read_texts(tmp_path / name, ("text",)))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    texts = [f"{text} {i}" for i in range(60) for text in CORPUS[:4]]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return path


def test_the_command_writes_a_folder_and_tells_the_compression(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["tokenizer", "train", str(out), str(corpus), "--vocab", "400", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["vocab"] == told["wanted"] == load_tokenizer(out).vocab_size == 400
    assert told["tokenizer"] == str(out)
    written = json.loads((out / "compression.json").read_bytes())
    assert written["compression"] == told["compression"]
    assert told["compression"].keys() <= {"zh", "en", "code", "other"}
    for found in told["compression"].values():
        assert found["characters_per_token"] == found["characters"] / found["tokens"]
        assert 1 < found["bytes_per_token"] == found["bytes"] / found["tokens"]
    # What is measured was not learnt from.
    assert 200 < told["texts"] < 240
    assert run(["tokenizer", "train", str(out), str(corpus), "--vocab", "400"]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_vocabulary_that_cannot_be_filled_is_told(
    lang: str,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HUNYUAN_LANG", lang)
    command = ["tokenizer", "train", str(tmp_path / "out"), str(corpus), "--vocab", "50000"]
    assert run(command) == 0
    printed = capsys.readouterr().out
    size = load_tokenizer(tmp_path / "out").vocab_size
    wanted = f"only {size} of 50000" if lang == "en" else f"只能产生 {size} 个词元"
    assert wanted in printed
    assert ("chars/token" if lang == "en" else "字符/词元") in printed


def test_wrong_use_is_one_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["tokenizer", "train", str(tmp_path / "out"), str(corpus)]
    assert run([*train, "--vocab", "400", "--share", "0"]) == 2
    assert "--share 0.0: must be above 0" in capsys.readouterr().err
    assert run([*train, "--vocab", "100"]) == 2
    assert "vocab=100: must be at least 269" in capsys.readouterr().err
    assert run([*train, "--vocab", "400", "--share", "1e-9"]) == 2
    assert "no text of the files was drawn" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
