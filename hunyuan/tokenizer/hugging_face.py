"""A tokenizer from a Hugging Face folder: ``tokenizer.json`` and the small files beside it.

Only byte-pair vocabularies are read, byte-level or in the style of SentencePiece; that is what
language models of the last years use. Added tokens become special tokens of ours, unless they are
ordinary text (`hunyuan.tokenizer.markup.is_text`).
"""

from pathlib import Path
from typing import Any

from hunyuan.errors import BadDataError
from hunyuan.tokenizer.byte_pair import BytePairRules, BytePairs, Json, without_specials
from hunyuan.tokenizer.folder import FolderSettings, model_stop_ids, read_json, read_settings
from hunyuan.tokenizer.markup import SpecialToken, is_text
from hunyuan.tokenizer.tokenizer import Tokenizer


def from_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder with a tokenizer.json; `BadDataError` names file and key."""
    path = folder / "tokenizer.json"
    content = read_json(path)
    if content is None:
        raise BadDataError(
            f"{path}: not found; fetch the model's tokenizer files, or write them with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)",
            f"{path}：文件不存在；请获取模型的分词器文件，或用 "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) 生成",
        )
    settings = read_settings(folder)
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else None
        raise BadDataError(
            f"{path}: model.type={kind!r}: only BPE vocabularies are supported",
            f"{path}：model.type={kind!r}：仅支持 BPE 词表",
        )
    try:
        added = _added_tokens(content, settings)
        backend = BytePairs(_rules(path, content, model, added))
    except BadDataError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _damaged(path, error) from error
    except Exception as error:
        # The library raises bare exceptions for contradictions in the vocabulary.
        if type(error) is not Exception:
            raise
        raise _damaged(path, error) from error
    specials = [token for token in added if not is_text(token.text)]
    ids = {token.text: token.id for token in added}
    config_path = folder / "tokenizer_config.json"

    def id_of(role: str) -> int | None:
        text = settings.roles.get(role)
        if text is None:
            return None
        id = ids.get(text, model["vocab"].get(text))
        if id is None:
            raise BadDataError(
                f"{config_path}: {role}={text!r}: no such token in "
                "tokenizer.json; fetch both files from the same model",
                f"{config_path}：{role}={text!r}：tokenizer.json 中没有该词元；"
                "请从同一模型获取这两个文件",
            )
        return int(id)

    bos, eos = id_of("bos_token"), id_of("eos_token")
    add_bos = settings.add_bos
    if add_bos is None:
        add_bos = bos is not None and _starts_with(content.get("post_processor"), bos, ids)
    stated = {*settings.stop_ids, *([] if eos is None else [eos])}
    return Tokenizer(
        backend,
        specials,
        bos_id=bos,
        eos_id=eos,
        add_bos=add_bos,
        stop_ids=stated or model_stop_ids(folder),
        roles=settings.roles,
        chat_template=settings.chat_template,
    )


def _damaged(path: Path, error: Exception) -> BadDataError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return BadDataError(
        f"{path}: is damaged or of an unknown form ({reason}); fetch the file again",
        f"{path}：文件损坏或格式未知（{reason}）；请重新获取该文件",
    )


def _added_tokens(content: Json, settings: FolderSettings) -> list[SpecialToken]:
    entries = {
        entry["content"]: (entry["id"], entry) for entry in content.get("added_tokens") or []
    }
    for id, entry in settings.added.items():
        entries.setdefault(entry["content"], (id, entry))
    return [
        SpecialToken(
            text=text,
            id=int(id),
            control=bool(entry.get("special")),
            lstrip=bool(entry.get("lstrip")),
            rstrip=bool(entry.get("rstrip")),
            single_word=bool(entry.get("single_word")),
            normalized=bool(entry.get("normalized")),
        )
        for text, (id, entry) in entries.items()
        if text
    ]


def _rules(path: Path, content: Json, model: Json, added: list[SpecialToken]) -> BytePairRules:
    unsupported = [
        key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)
    ]
    decoder: Any = content.get("decoder")
    steps = _steps(decoder, "decoders")
    kinds = {step["type"] for step in steps}
    pieces = "Metaspace" in kinds or any(
        step["type"] == "Replace" and step.get("content") == " " for step in steps
    )
    if unsupported or not (pieces or "ByteLevel" in kinds):
        what = f"model.{unsupported[0]}" if unsupported else f"decoder {sorted(kinds)}"
        raise BadDataError(
            f"{path}: {what}: not supported; byte-level and SentencePiece-style vocabularies are",
            f"{path}：{what}：不支持；仅支持字节级和 SentencePiece 风格的词表",
        )
    unknown = model.get("unk_token")
    texts = tuple(token for token in added if is_text(token.text))
    vocab, merges = without_specials(
        model["vocab"],
        map(_pair, model["merges"]),
        {token.text for token in added if not is_text(token.text)},
        unknown,
    )
    vocab.update({token.text: token.id for token in texts})
    return BytePairRules(
        vocab=vocab,
        merges=merges,
        byte_level="ByteLevel" in kinds,
        normalizer=content.get("normalizer"),
        pre_tokenizer=content.get("pre_tokenizer"),
        decoder=decoder,
        prefix_space=pieces and _takes_off_space(steps),
        whole_words=bool(model.get("ignore_merges")),
        byte_fallback=bool(model.get("byte_fallback")),
        unknown=unknown,
        fuse_unknown=bool(model.get("fuse_unk")),
        texts=texts,
    )


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _steps(rule: Any, key: str) -> list[Json]:
    if rule is None:
        return []
    return [step for part in rule[key] for step in _steps(part, key)] if key in rule else [rule]


def _takes_off_space(steps: list[Json]) -> bool:
    return any(
        (step["type"] == "Strip" and step.get("content") == " " and step.get("start", 0) > 0)
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _starts_with(post_processor: Any, bos: int, ids: dict[str, int]) -> bool:
    """Whether a TemplateProcessing puts the token ``bos`` in front of a text."""
    for step in _steps(post_processor, "processors"):
        if step["type"] == "TemplateProcessing" and step["single"]:
            first = step["single"][0].get("SpecialToken", {}).get("id")
            if first is not None and ids.get(first) == bos:
                return True
    return False
