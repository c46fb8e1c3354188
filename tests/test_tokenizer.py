"""The tokenizer against transformers, the golden cases, slow references and its own inverse."""

import base64
import json
import random
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as NativeTokenizer

from hunyuan.errors import BadDataError, UsageError
from hunyuan.tokenizer.gguf_export import gguf_metadata, merges_from_ranks
from hunyuan.tokenizer.gguf_vocabulary import from_gguf_metadata, merges_from_scores
from hunyuan.tokenizer.hunyuan_large import CHAT_TEMPLATE
from hunyuan.tokenizer.load import load_tokenizer
from hunyuan.tokenizer.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from hunyuan.tokenizer.save import save_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "tokenizer"
WEIGHTS = sorted((Path.home() / ".cache" / "hunyuan" / "models").glob("*/*.gguf"))
CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 12345 o'clock, they'LL see!\n\n",
    "def f(x):\n    return x ** 2  # squares\n\nclass A:\n\tpass\r\n",
    "混元大模型能够理解中文。海水为什么是咸的？今天天气很好，我们去公园散步吧。",
    "😀👩\u200d👩\u200d👧\u200d👦 emoji 🇨🇳 café cafe\u0301 naïve Ünïcödé",
]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
any_text = st.text() | st.lists(
    st.sampled_from([*CORPUS, *SPECIALS, *TAGS, "<|im_", "end|>", "  ", "\n", "é", "中", "<", ">"])
).map("".join)


def train(pre: PreTokenizer) -> NativeTokenizer:
    native = NativeTokenizer(models.BPE())
    empty = json.loads(native.to_str())
    empty |= {"pre_tokenizer": pre.cut, "normalizer": pre.normalizer}
    empty["model"]["ignore_merges"] = pre.whole_words
    native = NativeTokenizer.from_str(json.dumps(empty))
    native.decoder = decoders.ByteLevel()
    native.train_from_iterator(
        CORPUS * 3,
        trainers.BpeTrainer(
            vocab_size=700,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    native.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    native.add_tokens([AddedToken(text, normalized=False) for text in TAGS])
    return native


def write_folder(folder: Path, native: NativeTokenizer, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    native.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def named(name: str) -> PreTokenizer:
    return next(pre for pre in PRE_TOKENIZERS if name in pre.names)


@cache
def trained(name: str) -> NativeTokenizer:
    return train(named(name))


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(
        tmp_path_factory.mktemp("qwen"),
        trained("qwen2"),
        bos_token="<|endoftext|>",
        add_bos_token=False,
        chat_template=CHATML,
    )
    ids = [trained("qwen2").token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    return folder


@pytest.fixture(scope="module")
def qwen(qwen_folder: Path) -> Tokenizer:
    return load_tokenizer(qwen_folder)


def sentence_piece_metadata() -> dict[str, Any]:
    """A SentencePiece vocabulary by hand: scores fall with the id, as its trainer writes them."""
    words = [
        "▁t",
        "he",
        "▁the",
        "in",
        "▁a",
        "an",
        "▁an",
        "er",
        "▁th",
        "ere",
        "▁there",
        "<|",
        "s>",
        "▁▁",
    ]
    letters = sorted({*"▁thequickbrownfxjmpsvlazydg<>|/.,中文", *"".join(words)})
    tokens = [
        *("<unk>", "<s>", "</s>"),
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *words,
        *letters,
        *("<|user|>", "<tool>", "▁▁▁▁", "padding"),
    ]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(words) + len(letters)), 3, 4, 4, 5]
    scores = [0.0] * 259 + [-float(n) for n in range(len(tokens) - 259)]
    scores[tokens.index("▁▁")] = scores[tokens.index("▁▁▁▁")] = 1.0
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


@pytest.fixture(scope="module")
def sentence_piece() -> Tokenizer:
    return from_gguf_metadata(sentence_piece_metadata())


@pytest.fixture(scope="module")
def ranks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rank file made from byte pairs trained on the corpus."""
    folder = tmp_path_factory.mktemp("ranks")
    pairs = from_native(trained("hunyuan"))
    tokens = [pairs.token_bytes(id) for id in sorted(pairs.backend.ids)]
    singles = [bytes([byte]) for byte in range(256)]
    ordered = singles + [token for token in tokens if len(token) > 1]
    lines = [base64.b64encode(token) + f" {n}\n".encode() for n, token in enumerate(ordered)]
    (folder / "tiny.tiktoken").write_bytes(b"".join(lines))
    return folder


def from_native(native: NativeTokenizer) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return load_tokenizer(write_folder(Path(folder), native))


@pytest.fixture(scope="module")
def ranks(ranks_folder: Path) -> Tokenizer:
    return load_tokenizer(ranks_folder)


@pytest.fixture(params=["qwen", "sentence_piece", "ranks"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    tokenizer: Tokenizer = request.getfixturevalue(request.param)
    return tokenizer


def test_needs_no_torch() -> None:
    code = (
        "import sys, hunyuan.tokenizer.load, hunyuan.tokenizer.save, "
        "hunyuan.tokenizer.gguf_export; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Round trips


@settings(max_examples=60, deadline=None)
@given(text=any_text)
def test_decode_inverts_encode(qwen: Tokenizer, ranks: Tokenizer, text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    for tokenizer in (qwen, ranks):
        assert tokenizer.decode(tokenizer.encode(text)) == composed


@settings(max_examples=60, deadline=None)
@given(text=any_text.filter(lambda text: "\u2581" not in text))
def test_decode_inverts_encode_with_a_space_in_front(sentence_piece: Tokenizer, text: str) -> None:
    assert sentence_piece.decode(sentence_piece.encode(text)) == text


@pytest.mark.parametrize("name", [pre.names[0] for pre in PRE_TOKENIZERS])
def test_every_pre_tokenizer_is_lossless(name: str) -> None:
    tokenizer = from_native(trained(name))
    for text in CORPUS:
        same = text if named(name).normalizer is None else unicodedata.normalize("NFC", text)
        assert tokenizer.decode(tokenizer.encode(text)) == same


def test_lone_surrogates_become_replacement_characters(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a\ud800b")
    assert tokenizer.decode(ids) == "a\ufffdb"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_stream_equals_decode(
    qwen: Tokenizer, sentence_piece: Tokenizer, ranks: Tokenizer, data: st.DataObject
) -> None:
    for tokenizer in (qwen, sentence_piece, ranks):
        gaps = set(tokenizer.undefined_ids(tokenizer.vocab_size))
        defined = [id for id in range(tokenizer.vocab_size) if id not in gaps]
        ids = data.draw(st.lists(st.sampled_from(defined), max_size=30))
        for after_text in (False, True):
            stream = tokenizer.stream_decoder(after_text=after_text)
            pieces = [stream.push(id) for id in ids]
            whole = "".join(pieces) + stream.flush()
            assert whole == tokenizer.decode(ids, after_text=after_text)


def test_stream_never_splits_a_character(qwen: Tokenizer) -> None:
    rare = "𠮷 ᚠ 🧬"
    ids = qwen.encode(rare)
    assert len(ids) > len(rare)
    stream = qwen.stream_decoder()
    pieces = [stream.push(id) for id in ids]
    assert "\ufffd" not in "".join(pieces)
    assert "" in pieces
    assert stream.flush() == ""


def test_stream_reports_half_a_character_at_the_end(qwen: Tokenizer) -> None:
    stream = qwen.stream_decoder()
    assert stream.push(qwen.encode("ᚠ")[0]) == ""
    assert stream.flush() == "\ufffd"


# Against transformers


def reference(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_equals_transformers(qwen_folder: Path, qwen: Tokenizer) -> None:
    theirs = reference(qwen_folder)
    for text in CORPUS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert qwen.encode(text) == ids
        assert qwen.decode(ids) == theirs.decode(ids)
    markup = "".join(
        f"{special} {text}" for special, text in zip([*SPECIALS, TAGS[0]], CORPUS, strict=True)
    )
    ids = theirs.encode(markup, add_special_tokens=False)
    assert qwen.encode_markup(markup) == ids
    assert qwen.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert qwen.decode(ids, skip_specials=False) == theirs.decode(ids)


@pytest.mark.parametrize("name", [name for pre in PRE_TOKENIZERS for name in pre.names])
def test_gguf_equals_transformers_on_the_saved_folder(name: str, tmp_path: Path) -> None:
    original = from_native(trained(name))
    metadata = gguf_metadata(original) | {"tokenizer.ggml.pre": name}
    ours = from_gguf_metadata(metadata)
    save_tokenizer(ours, tmp_path)
    theirs = reference(tmp_path)
    assert theirs.eos_token_id == original.eos_id
    for text in [*CORPUS, SPECIALS[1] + CORPUS[2] + TAGS[0]]:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode_markup(text) == ids == original.encode_markup(text)


@pytest.mark.parametrize("add_bos", [True, False])
def test_bos_survives_every_format(add_bos: bool, tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "a",
        trained("llama-bpe"),
        bos_token="<|endoftext|>",
        add_bos_token=add_bos,
    )
    first = load_tokenizer(folder)
    (tmp_path / "b").mkdir()
    save_tokenizer(from_gguf_metadata(gguf_metadata(first)), tmp_path / "b")
    assert reference(tmp_path / "b").encode("hi") == first.encode_prompt("hi")
    # Older folders only say it in the post-processor.
    config = json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())
    del config["add_bos_token"]
    (tmp_path / "b" / "tokenizer_config.json").write_text(json.dumps(config))
    last = load_tokenizer(tmp_path / "b")
    assert last.add_bos is add_bos
    assert last.encode_prompt("hi") == [first.bos_id] * add_bos + first.encode("hi")


@pytest.mark.weights
@pytest.mark.parametrize("path", WEIGHTS or [None], ids=lambda path: path and path.parent.name)
def test_real_models_equal_transformers(path: Path | None, tmp_path: Path) -> None:
    if path is None:
        pytest.skip("no model has been pulled on this machine")
    ours = load_tokenizer(path)
    save_tokenizer(ours, tmp_path)
    theirs = reference(tmp_path)
    for text in CORPUS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    for part in (messages[:1], [{"role": "system", "content": "S"}, *messages, messages[0]]):
        expected = theirs.apply_chat_template(part, tokenize=False, add_generation_prompt=True)
        assert ours.render_chat(part) == expected
        assert ours.chat_prompt(part) == theirs.encode(expected, add_special_tokens=False)


# SentencePiece


def slowly_joined(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's own rule: join the neighbours whose piece scores best, leftmost first."""
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(scores.get(a + b), -i) for i, (a, b) in enumerate(pairwise(parts))]
        known = [(score, at) for score, at in pairs if score is not None]
        if not known:
            return parts
        at = -max(known)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def test_scores_join_as_sentence_piece_does(sentence_piece: Tokenizer) -> None:
    metadata = sentence_piece_metadata()
    tokens, types, scores_by_id = (
        metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type", "scores")
    )
    scores = {tokens[id]: scores_by_id[id] for id, type in enumerate(types) if type == 1}
    number = {token: id for id, token in enumerate(tokens)}
    words = ["the", "there", "an", "thin", "in", "a", "quick", "error", "s>", "<|"]
    generator = random.Random(0)
    for _ in range(100):
        text = " ".join(generator.choices(words, k=6))
        expected = [number[piece] for piece in slowly_joined(text, scores)]
        assert sentence_piece.encode(text) == expected


def test_unknown_characters_are_spelled_in_bytes(sentence_piece: Tokenizer) -> None:
    ids = sentence_piece.encode("é")
    assert [sentence_piece.token_bytes(id) for id in ids] == [b" ", b"\xc3", b"\xa9"]


def test_sentence_piece_specials_cannot_be_typed(sentence_piece: Tokenizer) -> None:
    for text in ("<s>", "</s>", "<unk>", "<|user|>", "<tool>"):
        assert not set(sentence_piece.encode(text)) & set(sentence_piece.specials.values())
        assert sentence_piece.decode(sentence_piece.encode(text)) == text
        assert sentence_piece.encode_markup(text) == [sentence_piece.specials[text]]


def test_runs_of_spaces_are_text_not_markup(sentence_piece: Tokenizer) -> None:
    assert "▁▁▁▁" not in sentence_piece.specials
    run = sentence_piece_metadata()["tokenizer.ggml.tokens"].index("▁▁▁▁")
    assert run in sentence_piece.encode("the    the")


def test_the_space_in_front_is_kept_after_text(sentence_piece: Tokenizer) -> None:
    ids = sentence_piece.encode("the")
    assert sentence_piece.decode(ids) == "the"
    assert sentence_piece.decode(ids, after_text=True) == " the"
    for after_text, expected in ((False, "the the"), (True, " the the")):
        stream = sentence_piece.stream_decoder(after_text=after_text)
        assert "".join(map(stream.push, ids * 2)) + stream.flush() == expected


def test_sentence_piece_survives_every_format(sentence_piece: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(sentence_piece, tmp_path)
    folder = load_tokenizer(tmp_path)
    again = from_gguf_metadata(gguf_metadata(folder, rows=400))
    theirs = reference(tmp_path)
    for text in [*CORPUS, "the quick there", "  two", "a\n\nb"]:
        expected = sentence_piece.encode(text)
        assert folder.encode(text) == again.encode(text) == expected
        assert theirs.encode(text, add_special_tokens=False) == expected
        assert theirs.decode(expected) == sentence_piece.decode(expected)
    for field in ("specials", "bos_id", "eos_id", "add_bos", "stop_ids", "vocab_size"):
        assert getattr(again, field) == getattr(sentence_piece, field), field


def test_a_space_in_front_of_the_first_word_only(sentence_piece: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(sentence_piece, tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = None
    content["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "first",
        "split": False,
    }
    path.write_text(json.dumps(content))
    ours, theirs = load_tokenizer(tmp_path), reference(tmp_path)
    for text in ("the", "the<|user|>the", "<|user|>the the", "<s> the"):
        assert ours.encode_markup(text) == theirs.encode(text, add_special_tokens=False)
    with pytest.raises(UsageError, match="GGUF cannot express"):
        gguf_metadata(ours)


def test_merges_from_scores_prefer_score_then_the_longer_left_half() -> None:
    scores = {"a": -9.0, "b": -9.0, "ab": -1.0, "aba": -0.5, "ba": -2.0}
    assert merges_from_scores(scores) == [("ab", "a"), ("a", "ba"), ("a", "b"), ("b", "a")]


# Ranks: Hunyuan-Large's layout


def test_golden_cases() -> None:
    if not GOLDEN.is_dir():
        pytest.skip("no golden tokenizer cases beside this checkout")
    tokenizer = load_tokenizer(GOLDEN)
    assert tokenizer.vocab_size == 128166
    assert tokenizer.stop_ids == {127960, 127967}
    assert tokenizer.undefined_ids(128512) == list(range(128166, 128512))
    for case in json.loads((GOLDEN / "tokenizer_cases.json").read_text()):
        assert tokenizer.encode(case["text"]) == case["ids_plain"]
        assert tokenizer.encode_markup(case["text"]) == case["ids_special"]
    for case in json.loads((GOLDEN / "chat_cases.json").read_text()):
        assert tokenizer.render_chat(case["messages"]) == case["rendered"]
        assert tokenizer.chat_prompt(case["messages"]) == tokenizer.encode_markup(case["rendered"])


def test_golden_ranks_as_gguf() -> None:
    if not GOLDEN.is_dir():
        pytest.skip("no golden tokenizer cases beside this checkout")
    tokenizer = load_tokenizer(GOLDEN)
    pairs = from_gguf_metadata(gguf_metadata(tokenizer, rows=128512))
    assert pairs.undefined_ids(128512) == tokenizer.undefined_ids(128512)
    assert pairs.specials == tokenizer.specials
    for case in json.loads((GOLDEN / "tokenizer_cases.json").read_text()):
        assert pairs.encode(case["text"]) == case["ids_plain"]


def test_rank_files_have_the_specials_of_the_specification(ranks: Tokenizer) -> None:
    count = len(ranks.backend.ids)
    assert len(ranks.specials) == 209
    assert ranks.specials["<|endoftext|>"] == count
    assert ranks.specials["<|eos|>"] == count + 3
    assert ranks.specials["<|extra_203|>"] == count + 208
    assert ranks.stop_ids == {count + 3, ranks.specials["<|extra_5|>"]}
    assert ranks.encode_prompt("hi") == ranks.encode("hi")


@settings(max_examples=40, deadline=None)
@given(text=any_text)
def test_ranks_equal_pairs(ranks: Tokenizer, text: str) -> None:
    assert ranks_as_pairs(ranks).encode(text) == ranks.encode(text)


@cache
def ranks_as_pairs(ranks: Tokenizer) -> Tokenizer:
    return from_gguf_metadata(gguf_metadata(ranks))


def test_a_token_out_of_reach_has_no_merge() -> None:
    tokens = [b"a", b"b", b"c", b"ab", b"abc", b"cab", b"cba"]
    assert merges_from_ranks(tokens) == [(b"a", b"b"), (b"ab", b"c"), (b"c", b"ab")]


def test_saving_ranks_copies_them(ranks: Tokenizer, ranks_folder: Path, tmp_path: Path) -> None:
    save_tokenizer(ranks, tmp_path)
    again = load_tokenizer(tmp_path)
    original = (ranks_folder / "tiny.tiktoken").read_bytes()
    assert (tmp_path / "tiny.tiktoken").read_bytes() == original
    assert again.chat_template == CHAT_TEMPLATE
    assert again.stop_ids == ranks.stop_ids
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"YQ== 0\nYg==\n", "line 2"),
        (b"!!! 0\n", "line 1"),
        (b"YQ== 0\n", "1 ranks are incompl"),
    ],
)
def test_damaged_ranks(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.tiktoken").write_bytes(content)
    with pytest.raises(BadDataError, match=message):
        load_tokenizer(tmp_path)


def test_two_rank_files(tmp_path: Path) -> None:
    (tmp_path / "a.tiktoken").touch()
    (tmp_path / "b.tiktoken").touch()
    with pytest.raises(BadDataError, match=r"a\.tiktoken, b\.tiktoken"):
        load_tokenizer(tmp_path)


# Specials, ids, stops


@settings(max_examples=60, deadline=None)
@given(text=any_text)
def test_typed_specials_stay_text(
    qwen: Tokenizer, sentence_piece: Tokenizer, ranks: Tokenizer, text: str
) -> None:
    for tokenizer in (qwen, sentence_piece, ranks):
        assert not set(tokenizer.encode(text)) & set(tokenizer.specials.values())


def test_a_special_that_words_could_build_stays_out_of_reach(tmp_path: Path) -> None:
    native = NativeTokenizer(
        models.BPE(
            {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4},
            [("a", "b"), ("ab", "c")],
            ignore_merges=True,
        )
    )
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    native.decoder = decoders.ByteLevel()
    native.add_special_tokens(["abc"])
    tokenizer = load_tokenizer(write_folder(tmp_path, native, eos_token="abc"))
    assert tokenizer.encode("abc") == [3, 2]
    assert tokenizer.encode_markup("abcab") == [4, 3]


def test_tool_tags_are_shown_and_control_tokens_are_not(qwen: Tokenizer) -> None:
    ids = qwen.encode_markup("<|im_start|>x<tool_call>y</tool_call><|im_end|>")
    assert qwen.decode(ids) == "x<tool_call>y</tool_call>"
    assert qwen.is_control(qwen.specials["<|im_end|>"])
    assert not qwen.is_control(qwen.specials["<tool_call>"])


def test_longest_special_wins_and_flags_count(tmp_path: Path) -> None:
    native = train(named("gpt-2"))
    native.add_special_tokens(
        [
            "<a>",
            "<a><b>",
            AddedToken("<r>", rstrip=True),
            AddedToken("<l>", lstrip=True),
            AddedToken("word", single_word=True),
        ]
    )
    folder = write_folder(tmp_path, native)
    ours, theirs = load_tokenizer(folder), reference(folder)
    for text in ("<a><a><b><b>", "x <r>  y", "x  <l> y", "<r> <l>", "swordword word", "word"):
        assert ours.encode_markup(text) == theirs.encode(text, add_special_tokens=False), text


def test_undefined_ids_are_never_tokens(tokenizer: Tokenizer) -> None:
    rows = tokenizer.vocab_size + 3
    undefined = set(tokenizer.undefined_ids(rows))
    assert {rows - 3, rows - 2, rows - 1} <= undefined
    for id in range(rows):
        if id in undefined:
            with pytest.raises(UsageError, match=f"token id {id}"):
                tokenizer.token_bytes(id)
        else:
            assert isinstance(tokenizer.token_bytes(id), bytes)


def test_unused_gguf_tokens_are_undefined(sentence_piece: Tokenizer) -> None:
    padding = sentence_piece_metadata()["tokenizer.ggml.tokens"].index("padding")
    assert sentence_piece.vocab_size == padding
    assert sentence_piece.undefined_ids(padding + 1) == [padding]


def test_stop_ids_come_from_every_source(qwen: Tokenizer) -> None:
    assert qwen.stop_ids == {qwen.specials["<|im_end|>"], qwen.specials["<|endoftext|>"]}
    assert qwen.eos_id == qwen.specials["<|im_end|>"]


def test_gguf_stop_keys(sentence_piece: Tokenizer) -> None:
    metadata = sentence_piece_metadata()
    assert sentence_piece.stop_ids == {1, 2}
    metadata |= {"tokenizer.ggml.eot_token_id": 300, "tokenizer.ggml.eom_token_id": 301}
    assert from_gguf_metadata(metadata).stop_ids == {1, 2, 300, 301}
    assert from_gguf_metadata(metadata | {"hunyuan.stop_token_ids": [2]}).stop_ids == {2}


def test_added_tokens_of_the_configuration_count(qwen_folder: Path, tmp_path: Path) -> None:
    native = train(named("qwen2"))
    new = native.get_vocab_size()
    folder = write_folder(
        tmp_path,
        native,
        added_tokens_decoder={str(new): {"content": "<|new|>", "special": True}},
    )
    tokenizer = load_tokenizer(folder)
    assert tokenizer.specials["<|new|>"] == new
    assert tokenizer.vocab_size == new + 1


def test_saving_keeps_what_others_wrote(qwen: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.7, "eos_token_id": 1}')
    save_tokenizer(qwen, tmp_path)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["temperature"] == 0.7
    assert generation["eos_token_id"] == sorted(qwen.stop_ids)


# What is damaged or unknown


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", r"tokenizer\.json: is no valid JSON"),
        ("tokenizer.json", "[]", r"must hold a JSON object, not list"),
        ("tokenizer.json", "{}", r"model\.type=None"),
        ("tokenizer.json", '{"model": {"type": "Unigram"}}', r"model\.type='Unigram'"),
        (
            "tokenizer.json",
            '{"model": {"vocab": {}, "merges": []}, "decoder": {"type": "WordPiece"}}',
            r"decoder \['WordPiece'\]",
        ),
        (
            "tokenizer.json",
            '{"model": {"type": "BPE", "merges": []}, "decoder": {"type": "ByteLevel"}}',
            "damaged.*vocab",
        ),
        (
            "tokenizer.json",
            '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}, '
            '"decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}}',
            "damaged.*out of vocabulary",
        ),
        ("tokenizer_config.json", '{"eos_token": "nope"}', "eos_token='nope': no such token"),
        ("tokenizer_config.json", '{"eos_token": 3}', "eos_token=3: must be a text"),
        ("tokenizer_config.json", '{"add_bos_token": "yes"}', "add_bos_token='yes'"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "x"}, 3]}', "chat_template="),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "added_tokens_decoder="),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id='x'"),
    ],
)
def test_damaged_folders(
    qwen_folder: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    for file in qwen_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(BadDataError, match=message):
        load_tokenizer(tmp_path)


def test_empty_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"json: not found.*save_pretrained") as caught:
        load_tokenizer(tmp_path)
    assert "文件不存在" in caught.value.zh


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.model", "bert", "tokenizer.ggml.model: 'bert'"),
        ("tokenizer.ggml.model", None, "tokenizer.ggml.model: missing"),
        ("tokenizer.ggml.tokens", None, "tokenizer.ggml.tokens: missing"),
        ("tokenizer.ggml.tokens", "abc", "tokenizer.ggml.tokens: str"),
        ("tokenizer.ggml.token_type", [1], "tokenizer.ggml.token_type: 1 entries"),
        ("tokenizer.ggml.pre", "martian", "'martian': not supported, known are gpt-2.*hunyuan"),
        ("tokenizer.ggml.merges", ["zz zz"], "tokenizer.ggml.merges.*out of vocabulary"),
        ("tokenizer.ggml.merges", None, "tokenizer.ggml.merges: missing"),
        ("tokenizer.ggml.eos_token_id", 10**6, "tokenizer.ggml.eos_token_id: 1000000"),
    ],
)
def test_damaged_gguf(qwen: Tokenizer, key: str, value: Any, message: str) -> None:
    with pytest.raises(BadDataError, match=message):
        from_gguf_metadata(gguf_metadata(qwen) | {key: value})


def test_rules_without_a_gguf_name_are_refused(tmp_path: Path) -> None:
    native = train(named("gpt-2"))
    native.normalizer = normalizers.Lowercase()
    tokenizer = load_tokenizer(write_folder(tmp_path, native))
    with pytest.raises(UsageError, match="GGUF has no name for its rules"):
        gguf_metadata(tokenizer)


def test_stop_ids_come_from_config_json_where_nothing_else_says_them(
    qwen_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(qwen_folder / "tokenizer.json", tmp_path)
    (tmp_path / "config.json").write_text('{"eos_token_id": [5, 6]}')
    assert load_tokenizer(tmp_path).stop_ids == {5, 6}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert load_tokenizer(tmp_path).stop_ids == {7}


def test_placeholders_in_config_json_stop_no_hunyuan_large(
    ranks_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(ranks_folder, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text('{"eos_token_id": 2}')
    assert 2 not in load_tokenizer(tmp_path / "m").stop_ids
