"""Byte pairs through the ``tokenizers`` library: the backend of Hugging Face and GGUF files.

Two kinds of vocabulary exist. *Byte-level* ones (GPT-2's descendants) spell each byte as one
printable character; *SentencePiece* ones spell a space as U+2581 and unknown characters as tokens
``<0xE4>``, one per byte. In both, the special tokens are taken out of the vocabulary and every
merge that could build one is dropped, so that ordinary text cannot reach them.

Building 150,000 tokens takes about half a second: the vocabulary is handed over as a dictionary,
not as JSON text.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as NativeTokenizer
from tokenizers.models import BPE

from hunyuan.tokenizer.markup import SpecialToken

Json = dict[str, Any]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class BytePairRules:
    """A byte-pair vocabulary and its rules, in the terms of tokenizer.json.

    ``texts`` are added tokens that are ordinary text (runs of spaces), with their ids in ``vocab``.
    """

    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    byte_level: bool
    normalizer: Json | None
    pre_tokenizer: Json | None
    decoder: Json
    prefix_space: bool = False
    whole_words: bool = False
    byte_fallback: bool = False
    unknown: str | None = None
    fuse_unknown: bool = False
    texts: tuple[SpecialToken, ...] = ()


def without_specials(
    vocab: Mapping[str, int],
    merges: Iterable[tuple[str, str]],
    specials: Collection[str],
    unknown: str | None,
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """``vocab`` and ``merges`` from which no token in ``specials`` can be built.

    The token for unknown characters stays in the vocabulary, where the library looks for it.
    """
    inside = {text for text in specials if text in vocab}
    if not inside:
        return dict(vocab), list(merges)
    plain = {text: id for text, id in vocab.items() if text not in inside or text == unknown}
    kept = [
        (left, right)
        for left, right in merges
        if left + right not in inside and left not in inside and right not in inside
    ]
    return plain, kept


class BytePairs:
    """A `hunyuan.tokenizer.tokenizer.Backend` over the ``tokenizers`` library."""

    def __init__(self, rules: BytePairRules) -> None:
        """Raise ``ValueError`` or the library's own error if the rules contradict each other."""
        self.ids: Collection[int] = frozenset(rules.vocab.values())
        self.prefix_space = rules.prefix_space
        self.byte_level = rules.byte_level
        self._texts = frozenset(text.id for text in rules.texts)
        self._native = _native(rules, rules.pre_tokenizer)
        self._inner = self._native
        if (inner := _after_the_first_word(rules.pre_tokenizer)) is not None:
            self._inner = _native(rules, inner)

    def encode(self, text: str, *, begins: bool) -> list[int]:
        """Ids of ordinary text."""
        native = self._native if begins else self._inner
        ids: list[int] = native.encode(text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, id: int) -> bytes:
        """The bytes that the token ``id`` spells."""
        token = self._native.id_to_token(id)
        assert token is not None, id
        if self.byte_level:
            if id in self._texts:
                return token.encode()
            try:
                return bytes(map(_BYTE_OF.__getitem__, token))
            except KeyError:
                return token.encode()
        if match := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(match[1], 16)])
        return token.replace("\u2581", " ").encode()

    def description(self) -> Json:
        """The vocabulary and its rules as a tokenizer.json without special tokens."""
        described: Json = json.loads(self._native.to_str())
        return described


def _native(rules: BytePairRules, pre_tokenizer: Json | None) -> NativeTokenizer:
    empty: Json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": rules.normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": rules.decoder,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    native = NativeTokenizer.from_str(json.dumps(empty))
    native.model = BPE(
        rules.vocab,
        rules.merges,
        unk_token=rules.unknown,
        fuse_unk=rules.fuse_unknown,
        byte_fallback=rules.byte_fallback,
        ignore_merges=rules.whole_words,
    )
    native.add_tokens([added_token(text) for text in rules.texts])
    return native


def added_token(token: SpecialToken) -> AddedToken:
    """``token`` as the library knows it."""
    return AddedToken(
        token.text,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
        normalized=token.normalized,
        special=token.control,
    )


def _after_the_first_word(pre_tokenizer: Json | None) -> Json | None:
    """The rule for text after a special token, if it differs: no space is put before it."""
    if not pre_tokenizer or pre_tokenizer.get("prepend_scheme") != "first":
        return None
    return {**pre_tokenizer, "prepend_scheme": "never"}


def _bytes_by_character() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 stands for itself, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + n): byte for n, byte in enumerate(others)
    }


_BYTE_OF = _bytes_by_character()
CHARACTER_OF = {byte: character for character, byte in _BYTE_OF.items()}
"""The character that spells a byte in a byte-level vocabulary."""
