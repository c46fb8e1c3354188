"""A tokenizer as the metadata of a GGUF file: the reverse of `hunyuan.tokenizer.gguf_vocabulary`.

What GGUF cannot express is refused, not approximated, with one exception: in a rank file a word may
be a token that no chain of smaller tokens leads to. GGUF knows only such chains, so that word is
encoded by its parts (3 tokens of Hunyuan-Large's 127,957; the text stays the same).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hunyuan.errors import UsageError
from hunyuan.tokenizer.byte_pair import CHARACTER_OF, BytePairs, Json
from hunyuan.tokenizer.gguf_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    ROLES,
    STOP_KEY,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    merges_from_scores,
    sentence_piece_normalizer,
)
from hunyuan.tokenizer.hunyuan_large import Ranks
from hunyuan.tokenizer.pre_tokenizers import name_of
from hunyuan.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """The ordinary tokens by id, the types of those that are not normal, and the family's keys."""

    tokens: Mapping[int, str]
    types: Mapping[int, int]
    keys: Json


def gguf_metadata(tokenizer: Tokenizer, *, rows: int | None = None) -> Json:
    """The keys that make a GGUF file carry ``tokenizer``.

    ``rows`` is the height of the embedding, to which the list of tokens is padded; other programs
    insist on it. Raises `UsageError` where GGUF cannot express the tokenizer's rules.
    """
    backend = tokenizer.backend
    assert isinstance(backend, Ranks | BytePairs), type(backend)
    vocabulary = _from_ranks(backend) if isinstance(backend, Ranks) else _from_pairs(backend)
    height = max(rows or 0, tokenizer.vocab_size)
    tokens = [vocabulary.tokens.get(id, f"[PAD{id}]") for id in range(height)]
    types = [
        vocabulary.types.get(id, NORMAL) if id in vocabulary.tokens else UNUSED
        for id in range(height)
    ]
    unknown = (
        tokenizer.roles.get("unk_token") if "tokenizer.ggml.scores" in vocabulary.keys else None
    )
    for special in tokenizer.special_tokens:
        tokens[special.id] = special.text
        types[special.id] = CONTROL if special.control else USER_DEFINED
        if special.text == unknown:
            types[special.id] = UNKNOWN
    if scores := vocabulary.keys.get("tokenizer.ggml.scores"):
        vocabulary.keys["tokenizer.ggml.scores"] = [scores.get(id, 0.0) for id in range(height)]
    ids = {text: id for id, text in enumerate(tokens)}
    roles = {
        f"tokenizer.ggml.{name}_token_id": ids[tokenizer.roles[role]]
        for role, name in ROLES.items()
        if tokenizer.roles.get(role) in ids
    }
    eos_first = sorted(tokenizer.stop_ids, key=lambda id: (id != tokenizer.eos_id, id))
    others = (f"tokenizer.ggml.{name}_token_id" for name in ("eot", "eom"))
    template = tokenizer.chat_template
    return {
        **vocabulary.keys,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_bos_token": tokenizer.add_bos,
        **roles,
        **dict(zip(others, eos_first[1:], strict=False)),
        **({STOP_KEY: eos_first} if eos_first else {}),
        **({} if template is None else {"tokenizer.chat_template": template}),
    }


def _from_ranks(backend: Ranks) -> _Vocabulary:
    merges = merges_from_ranks(backend.tokens)
    keys = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "hunyuan",
        "tokenizer.ggml.merges": [f"{_spell(left)} {_spell(right)}" for left, right in merges],
    }
    return _Vocabulary(dict(enumerate(map(_spell, backend.tokens))), {}, keys)


def merges_from_ranks(tokens: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The pair that makes each token, found by encoding it with the tokens before it.

    ``tokens`` is ordered by rank. Tokens that the earlier ones do not reduce to a pair have none.
    """
    rank = {token: number for number, token in enumerate(tokens)}
    merges = []
    for own, token in enumerate(tokens):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [rank.get(parts[i] + parts[i + 1], own) for i in range(len(parts) - 1)]
            best = min(pairs)
            if best == own:
                break
            at = pairs.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


def _from_pairs(backend: BytePairs) -> _Vocabulary:
    described = backend.description()
    vocab: dict[str, int] = described["model"]["vocab"]
    texts = {added["id"]: USER_DEFINED for added in described["added_tokens"]}
    tokens = {id: token for token, id in vocab.items()}
    if backend.byte_level:
        pre = name_of(
            described["normalizer"],
            described["pre_tokenizer"],
            described["model"].get("ignore_merges", False),
        )
        keys: Json = {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.merges": [" ".join(pair) for pair in described["model"]["merges"]],
        }
        return _Vocabulary(tokens, texts, keys)
    normalizer = sentence_piece_normalizer(backend.prefix_space)
    known = described["normalizer"] == normalizer and described["pre_tokenizer"] is None
    scores = _scores(vocab, described["model"]["merges"]) if known else None
    if scores is None:
        raise UsageError(
            "tokenizer.json: GGUF cannot express its normalizer, pre_tokenizer and merges; keep "
            "this model as a Hugging Face folder",
            "tokenizer.json：GGUF 无法表示其 normalizer、pre_tokenizer 和 merges；请将该模型保留为 "
            "Hugging Face 目录",
        )
    single_bytes = {vocab[t]: BYTE for t in map("<0x{:02X}>".format, range(256)) if t in vocab}
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": backend.prefix_space,
    }
    return _Vocabulary(tokens, texts | single_bytes, keys)


def _scores(vocab: Mapping[str, int], merges: Sequence[Sequence[str]]) -> dict[int, float] | None:
    """Scores by id that lead to ``merges``, or ``None`` if no scores do."""
    pairs = [(left, right) for left, right in merges]
    by_piece = {
        vocab[left + right]: -float(n) for n, (left, right) in reversed([*enumerate(pairs)])
    }
    parts = {part for pair in pairs for part in pair}
    last = -float(len(pairs))
    scores = {vocab[part]: by_piece.get(vocab[part], last) for part in parts} | by_piece
    pieces = {token: scores[id] for token, id in vocab.items() if id in scores}
    return scores if merges_from_scores(pieces) == pairs else None


def _spell(token: bytes) -> str:
    return "".join(map(CHARACTER_OF.__getitem__, token))
