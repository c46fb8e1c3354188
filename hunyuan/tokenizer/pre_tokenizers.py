"""The names GGUF files give to ways of cutting text into words before byte pairs are merged.

Each name stands for a normaliser, a pre-tokeniser and two habits of the family, written here in
the terms of a Hugging Face tokenizer.json. Only names whose rules are certain are listed: a wrong
split gives slightly wrong ids and nobody notices but the quality of the answers.
"""

from dataclasses import dataclass
from typing import Any

from hunyuan.errors import BadDataError, UsageError

Json = dict[str, Any]

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"


def _cut_words(digits: str) -> str:
    return f"{_CONTRACTIONS}|{_WORD}|{digits}|{_PUNCTUATION}|{_SPACES}"


def _cut_words_by_case(contractions: str, digits: str) -> str:
    lead = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{lead}{_UPPER}*{_LOWER}+{contractions}|{lead}{_UPPER}+{_LOWER}*{contractions}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
    )


HUNYUAN_PATTERN = _cut_words(r"\p{N}")
"""Hunyuan-Large's words: like Qwen's, with single digits (specification, section 9)."""

_DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
)
_DIGITS: Json = {"type": "Digits", "individual_digits": True}
_NFC: Json = {"type": "NFC"}


def _byte_level(cuts_words: bool) -> Json:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": cuts_words,
    }


def _split(pattern: str) -> Json:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTokenizer:
    """How a family cuts text.

    ``whole_words``: a word that is in the vocabulary is one token, whatever the merges say.
    ``add_bos``: the family starts a text with bos where a GGUF file does not say.
    """

    names: tuple[str, ...]
    cut: Json
    normalizer: Json | None = None
    whole_words: bool = False
    add_bos: bool = False


PRE_TOKENIZERS = (
    PreTokenizer(names=("gpt-2", "phi-2"), cut=_byte_level(True)),
    PreTokenizer(
        names=("smollm", "starcoder", "refact"), cut=_sequence(_DIGITS, _byte_level(True))
    ),
    PreTokenizer(
        names=("llama-bpe", "llama3", "llama-v3"),
        cut=_sequence(_split(_cut_words(r"\p{N}{1,3}")), _byte_level(False)),
        whole_words=True,
        add_bos=True,
    ),
    PreTokenizer(
        names=("qwen2", "deepseek-r1-qwen", "hunyuan"),
        cut=_sequence(_split(HUNYUAN_PATTERN), _byte_level(False)),
        normalizer=_NFC,
    ),
    PreTokenizer(
        names=("deepseek-v3", "hunyuan-dense"),
        cut=_sequence(*map(_split, _DEEPSEEK_3), _byte_level(False)),
    ),
    PreTokenizer(
        names=("deepseek-coder",),
        cut=_sequence(
            _split(r"[\r\n]"),
            _split(r"\s?\p{L}+"),
            _split(r"\s?\p{P}+"),
            _split("[一-龥ࠀ-一가-퟿]+"),
            _DIGITS,
            _byte_level(False),
        ),
    ),
    PreTokenizer(
        names=("gpt-4o", "llama4"),
        cut=_sequence(
            _split(_cut_words_by_case(_CONTRACTIONS + "?", r"\p{N}{1,3}")), _byte_level(False)
        ),
    ),
    PreTokenizer(
        names=("tekken",),
        cut=_sequence(_split(_cut_words_by_case("", r"\p{N}")), _byte_level(False)),
        whole_words=True,
        add_bos=True,
    ),
)


def pre_tokenizer_named(name: object) -> PreTokenizer:
    """What ``tokenizer.ggml.pre`` = ``name`` means; `BadDataError` if it is not known here."""
    for pre in PRE_TOKENIZERS:
        if name in pre.names:
            return pre
    known = [name for pre in PRE_TOKENIZERS for name in pre.names]
    raise BadDataError(
        f"tokenizer.ggml.pre={name!r}: not supported, known are {', '.join(known)}; convert the "
        "model's Hugging Face folder instead",
        f"tokenizer.ggml.pre={name!r}：不支持，已知的有 {'、'.join(known)}；请改用该模型的 "
        "Hugging Face 目录",
    )


def name_of(normalizer: Json | None, cut: Json | None, whole_words: bool) -> str:
    """The GGUF name of a tokenizer.json's rules; `UsageError` if GGUF has none for them."""
    wanted = (_essence(normalizer), _essence(cut), whole_words)
    for pre in PRE_TOKENIZERS:
        if wanted == (_essence(pre.normalizer), _essence(pre.cut), pre.whole_words):
            return pre.names[0]
    kind = (cut or {}).get("type", "none")
    raise UsageError(
        f"pre_tokenizer of type {kind} in tokenizer.json: GGUF has no name for its rules; keep "
        "this model as a Hugging Face folder",
        f"tokenizer.json 中的 pre_tokenizer（类型 {kind}）：GGUF 没有对应的名称；请将该模型"
        "保留为 Hugging Face 目录",
    )


def _essence(rule: Any) -> Any:
    """``rule`` without what changes no token: offsets, empty lists, nesting of one."""
    if isinstance(rule, dict):
        steps = rule.get("pretokenizers", rule.get("normalizers"))
        if steps is not None and len(steps) < 2:
            return _essence(steps[0]) if steps else None
        return {key: _essence(value) for key, value in rule.items() if key != "trim_offsets"}
    return [_essence(item) for item in rule] if isinstance(rule, list) else rule
