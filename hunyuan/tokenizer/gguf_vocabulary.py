"""A tokenizer from the metadata of a GGUF file.

GGUF keeps the tokens in one list by id, with a type for each, and names the family's rules instead
of spelling them out: ``tokenizer.ggml.model`` is ``gpt2`` for byte-level pairs, whose words are cut
as ``tokenizer.ggml.pre`` says, or ``llama`` for SentencePiece tokens with scores, whose merges are
derived from the scores. Unused tokens, which pad the list to the height of the embedding, are no
tokens here.

A file names at most three ids that end an answer (eos, eot, eom), while models know more. So bos
and padding also end one: neither belongs inside an answer. Files written by this project
list the exact ids under a key of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hunyuan.errors import BadDataError
from hunyuan.tokenizer.byte_pair import BytePairRules, BytePairs, without_specials
from hunyuan.tokenizer.markup import SpecialToken, is_text
from hunyuan.tokenizer.pre_tokenizers import pre_tokenizer_named
from hunyuan.tokenizer.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
STOP_KEY = "hunyuan.stop_token_ids"
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
"""The names that GGUF has for the tokens a template may ask for."""

_SPACE = "\u2581"
_SENTENCE_PIECE_DECODER = (
    {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
)


def sentence_piece_normalizer(prefix_space: bool) -> dict[str, Any]:
    """How SentencePiece spells spaces, in the terms of tokenizer.json."""
    prepend = [{"type": "Prepend", "prepend": _SPACE}] if prefix_space else []
    escape = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    return {"type": "Sequence", "normalizers": [*prepend, escape]}


def from_gguf_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's keys describe; raises `BadDataError` naming the key."""
    kind = _get(metadata, "tokenizer.ggml.model", str)
    tokens = _get(metadata, "tokenizer.ggml.tokens", list)
    types = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise _bad("tokenizer.ggml.token_type", f"{len(types)} entries", f"{len(tokens)} of them")
    specials = [
        SpecialToken(text=text, id=id, control=type != USER_DEFINED)
        for id, (text, type) in enumerate(zip(tokens, types, strict=True))
        if type in (UNKNOWN, CONTROL, USER_DEFINED) and text and not is_text(text)
    ]
    if kind == "gpt2":
        pre = pre_tokenizer_named(metadata.get("tokenizer.ggml.pre"))
        rules = _byte_level_rules(metadata, tokens, types, specials)
        add_bos = pre.add_bos
    elif kind == "llama":
        rules = _sentence_piece_rules(metadata, tokens, types, specials)
        add_bos = True
    else:
        raise _bad("tokenizer.ggml.model", repr(kind), "'gpt2' or 'llama'")
    try:
        backend = BytePairs(rules)
    except Exception as error:
        # The library raises bare exceptions for contradictions in the vocabulary.
        if type(error) is not Exception:
            raise
        raise _bad(
            "tokenizer.ggml.merges", " ".join(str(error).split())[:200], "consistent"
        ) from error
    roles = {role: _token_id(metadata, name, len(tokens)) for role, name in ROLES.items()}
    bos, eos = roles["bos_token"], roles["eos_token"]
    stops = metadata.get(STOP_KEY)
    if stops is None:
        named = (_token_id(metadata, name, len(tokens)) for name in ("eos", "eot", "eom"))
        stops = [id for id in (*named, bos, roles["pad_token"]) if id is not None]
    return Tokenizer(
        backend,
        specials,
        bos_id=bos,
        eos_id=eos,
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", add_bos)),
        stop_ids=stops,
        roles={role: tokens[id] for role, id in roles.items() if id is not None},
        chat_template=metadata.get("tokenizer.chat_template"),
    )


def _byte_level_rules(
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    types: Sequence[int],
    specials: Sequence[SpecialToken],
) -> BytePairRules:
    pre = pre_tokenizer_named(metadata.get("tokenizer.ggml.pre"))
    merges = [
        (left, right)
        for left, _, right in (
            merge.partition(" ") for merge in _get(metadata, "tokenizer.ggml.merges", list)
        )
    ]
    vocab, merges = without_specials(
        _used(tokens, types), merges, {special.text for special in specials}, None
    )
    return BytePairRules(
        vocab=vocab,
        merges=merges,
        byte_level=True,
        normalizer=pre.normalizer,
        pre_tokenizer=pre.cut,
        decoder={
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        whole_words=pre.whole_words,
        texts=_added_texts(tokens, types),
    )


def _sentence_piece_rules(
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    types: Sequence[int],
    specials: Sequence[SpecialToken],
) -> BytePairRules:
    scores = _get(metadata, "tokenizer.ggml.scores", list)
    if len(scores) != len(tokens):
        raise _bad("tokenizer.ggml.scores", f"{len(scores)} entries", f"{len(tokens)} of them")
    vocab = _used(tokens, types)
    unknown = next((t for t, type in zip(tokens, types, strict=True) if type == UNKNOWN), None)
    plain, _ = without_specials(vocab, (), {special.text for special in specials}, unknown)
    pieces = {
        token: score
        for token, type, score in zip(tokens, types, scores, strict=True)
        if type == NORMAL or (type == USER_DEFINED and is_text(token))
    }
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return BytePairRules(
        vocab=plain,
        merges=merges_from_scores(pieces),
        byte_level=False,
        normalizer=sentence_piece_normalizer(prefix),
        pre_tokenizer=None,
        decoder={"type": "Sequence", "decoders": [*_SENTENCE_PIECE_DECODER, *strip]},
        prefix_space=prefix,
        byte_fallback=BYTE in types,
        unknown=unknown,
        fuse_unknown=True,
    )


def merges_from_scores(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, best piece first, longest left half first.

    The order in which SentencePiece would join them, as Hugging Face's converter writes it.
    """
    merges = [
        (-score, -cut, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    # Ties keep the order of the vocabulary, so only the numbers are compared.
    merges.sort(key=lambda merge: merge[:2])
    return [(left, right) for _, _, left, right in merges]


def _used(tokens: Sequence[str], types: Sequence[int]) -> dict[str, int]:
    return {
        token: id
        for id, (token, type) in enumerate(zip(tokens, types, strict=True))
        if type != UNUSED
    }


def _added_texts(tokens: Sequence[str], types: Sequence[int]) -> tuple[SpecialToken, ...]:
    return tuple(
        SpecialToken(text=token, id=id, control=False)
        for id, (token, type) in enumerate(zip(tokens, types, strict=True))
        if type in (CONTROL, USER_DEFINED) and token and is_text(token)
    )


def _get(metadata: Mapping[str, Any], key: str, kind: type) -> Any:
    value = metadata.get(key)
    if not isinstance(value, kind):
        shown = "missing" if value is None else type(value).__name__
        raise _bad(key, shown, f"a {kind.__name__}")
    return value


def _token_id(metadata: Mapping[str, Any], name: str, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    id = metadata.get(key)
    if id is None:
        return None
    if type(id) is not int or not 0 <= id < count:
        raise _bad(key, repr(id), f"an id below {count}")
    return id


def _bad(key: str, value: str, wanted: str) -> BadDataError:
    return BadDataError(
        f"{key}: {value}; must be {wanted}: fetch the GGUF file again or convert the model anew",
        f"{key}：{value}；应为 {wanted}：请重新获取该 GGUF 文件，或重新转换模型",
    )
