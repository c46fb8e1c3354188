"""Learning a vocabulary from text: byte pairs, cut and normalised like Hunyuan-Large's.

Text is NFC-normalised and cut into words, single digits, punctuation and spaces (specification,
section 9); the most frequent pairs of tokens are merged until the vocabulary is full. All 256 bytes
are tokens, so any text can be written. The special tokens follow, named and used as Hunyuan-Large
names and uses them, so that its chat template serves: a text to go on with ends in
``<|endoftext|>``, an answer in ``<|eos|>``.

The result depends on the texts alone, not on their order or on the machine. Memory: some ten times
the distinct words; Chinese clauses count as words, so sample a large corpus.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer as NativeTokenizer
from tokenizers import pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from hunyuan.errors import BadDataError, UsageError
from hunyuan.tokenizer.byte_pair import BytePairRules, BytePairs, Json
from hunyuan.tokenizer.hunyuan_large import CHAT_TEMPLATE
from hunyuan.tokenizer.markup import SpecialToken
from hunyuan.tokenizer.pre_tokenizers import pre_tokenizer_named
from hunyuan.tokenizer.tokenizer import Tokenizer

SPECIALS = (
    *("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"),
    *(f"<|extra_{n}|>" for n in range(8)),
)
SMALLEST = 256 + len(SPECIALS)
"""Tokens of a vocabulary that has learnt nothing: all bytes and the specials."""

_DECODER: Json = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A tokenizer of ``vocab`` tokens, specials included; of fewer if the texts have no more pairs.

    Raises `UsageError` if ``vocab`` has no room for bytes and specials.
    """
    if vocab < SMALLEST:
        raise UsageError(
            f"vocab={vocab}: must be at least {SMALLEST}, for 256 bytes and {len(SPECIALS)} "
            "special tokens",
            f"vocab={vocab}：至少为 {SMALLEST}，以容纳 256 个字节和 {len(SPECIALS)} 个特殊词元",
        )
    family = pre_tokenizer_named("hunyuan")
    native = NativeTokenizer.from_str(_without_vocabulary(family.cut, family.normalizer))
    trainer = BpeTrainer(
        vocab_size=vocab - len(SPECIALS),
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    native.train_from_iterator(_valid(texts), trainer)
    learnt = json.loads(native.to_str())["model"]
    backend = BytePairs(
        BytePairRules(
            vocab=learnt["vocab"],
            merges=[tuple(merge) for merge in learnt["merges"]],
            byte_level=True,
            normalizer=family.normalizer,
            pre_tokenizer=family.cut,
            decoder=_DECODER,
        )
    )
    ids = {text: len(learnt["vocab"]) + n for n, text in enumerate(SPECIALS)}
    return Tokenizer(
        backend,
        [SpecialToken(text=text, id=id, control=True) for text, id in ids.items()],
        bos_id=ids["<|startoftext|>"],
        eos_id=ids["<|eos|>"],
        add_bos=False,
        stop_ids={ids["<|eos|>"], ids["<|endoftext|>"]},
        roles={"bos_token": "<|startoftext|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"},
        chat_template=CHAT_TEMPLATE,
    )


def _without_vocabulary(cut: Json, normalizer: Json | None) -> str:
    empty: Json = json.loads(NativeTokenizer(BPE()).to_str())
    return json.dumps(empty | {"pre_tokenizer": cut, "normalizer": normalizer})


def _valid(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield text.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How many tokens a text took."""

    characters: int
    """Characters measured."""

    bytes: int
    """Their UTF-8 bytes."""

    tokens: int
    """Their tokens."""

    @property
    def characters_per_token(self) -> float:
        """The more, the fewer tokens a text costs."""
        return self.characters / max(self.tokens, 1)

    @property
    def bytes_per_token(self) -> float:
        """The same in bytes, which is fairer to compare between languages."""
        return self.bytes / max(self.tokens, 1)


def measure(tokenizer: Tokenizer, texts: Mapping[str, Iterable[str]]) -> dict[str, Compression]:
    """Compression by group of texts, such as languages."""
    measured = {}
    for group, members in texts.items():
        characters = size = tokens = 0
        for text in members:
            characters += len(text)
            size += len(text.encode("utf-8", "replace"))
            tokens += len(tokenizer.encode(text))
        measured[group] = Compression(characters=characters, bytes=size, tokens=tokens)
    return measured


def fraction(text: str) -> float:
    """A number in 0..1 that is a text's own: by it samples are drawn and texts are held out."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8]) / 2**64


def read_texts(path: Path, fields: tuple[str, ...]) -> Iterator[str]:
    """The texts of a jsonl or jsonl.gz file, line by line, or the whole of any other file.

    Raises `BadDataError` naming file and line.
    """
    name = path.name.lower()
    if not name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        try:
            yield path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, str(error)) from error
        return
    try:
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    content = json.loads(line)
                    yield "\n".join([content[field] for field in fields])
                except (ValueError, TypeError, KeyError) as error:
                    raise BadDataError(
                        f"{path}:{number}: no JSON object with the text {', '.join(fields)} "
                        f"({type(error).__name__}: {error}); correct or remove the line",
                        f"{path}:{number}：不是含有文本字段 {'、'.join(fields)} 的 JSON 对象"
                        f"（{type(error).__name__}：{error}）；请更正或删除该行",
                    ) from error
    except (OSError, EOFError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> BadDataError:
    return BadDataError(
        f"{path}: cannot be read ({reason}); give text or jsonl files in UTF-8",
        f"{path}：无法读取（{reason}）；请提供 UTF-8 的文本或 jsonl 文件",
    )
