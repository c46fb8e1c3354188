"""Writing a tokenizer into a Hugging Face folder, in the form that ``transformers`` reads.

A byte-pair tokenizer becomes tokenizer.json, whatever it came from; a rank file is copied as it is.
Beside it lie tokenizer_config.json and generation_config.json, of which only the entries about
tokens are ours: others that are there already stay.
"""

import json
from pathlib import Path
from typing import Any

from hunyuan.files import atomic_file
from hunyuan.tokenizer.byte_pair import BytePairs, Json
from hunyuan.tokenizer.folder import read_json
from hunyuan.tokenizer.hunyuan_large import CHAT_TEMPLATE, Ranks
from hunyuan.tokenizer.markup import SpecialToken
from hunyuan.tokenizer.tokenizer import Tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer`` into ``folder``, which exists; `DoesNotFitError` if the disk is full."""
    backend = tokenizer.backend
    assert isinstance(backend, Ranks | BytePairs), type(backend)
    config: Json = dict(tokenizer.roles) | {"add_bos_token": tokenizer.add_bos}
    if isinstance(backend, Ranks):
        with atomic_file(folder / backend.path.name) as file:
            file.write(backend.path.read_bytes())
        if tokenizer.chat_template != CHAT_TEMPLATE:
            config["chat_template"] = tokenizer.chat_template
    else:
        _write(folder / "tokenizer.json", _tokenizer_json(tokenizer, backend))
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config["clean_up_tokenization_spaces"] = False
        if tokenizer.chat_template is not None:
            config["chat_template"] = tokenizer.chat_template
    _merge(folder / "tokenizer_config.json", config)
    generation: Json = {"eos_token_id": sorted(tokenizer.stop_ids)}
    if tokenizer.bos_id is not None:
        generation["bos_token_id"] = tokenizer.bos_id
    _merge(folder / "generation_config.json", generation)


def _tokenizer_json(tokenizer: Tokenizer, backend: BytePairs) -> Json:
    content = backend.description()
    content["added_tokens"] = sorted(
        content["added_tokens"] + [_added(token) for token in tokenizer.special_tokens],
        key=lambda token: token["id"],
    )
    # In the vocabulary too, so that ids stay what they are even with gaps between them.
    content["model"]["vocab"] |= tokenizer.specials
    if tokenizer.add_bos:
        bos = tokenizer.roles["bos_token"]
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": bos, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": bos, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
        }
    return content


def _added(token: SpecialToken) -> Json:
    return {
        "id": token.id,
        "content": token.text,
        "single_word": token.single_word,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "special": token.control,
    }


def _merge(path: Path, entries: Json) -> None:
    _write(path, (read_json(path) or {}) | entries)


def _write(path: Path, value: Any) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")
