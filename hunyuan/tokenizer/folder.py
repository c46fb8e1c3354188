"""What the small JSON files of a Hugging Face folder say about a tokenizer.

``tokenizer_config.json`` names the special tokens and may hold the chat template,
``chat_template.jinja`` holds it in newer folders, ``special_tokens_map.json`` names tokens in older
ones, and ``generation_config.json`` lists the ids that end an answer. All are optional.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hunyuan.errors import BadDataError

Json = dict[str, Any]

ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
"""The named tokens that templates and readers ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSettings:
    """``None`` and empty values stand for what the folder does not say.

    ``roles``: text of each named token. ``added``: added tokens by id, as tokenizer_config.json
    lists them. ``stop_ids``: from generation_config.json.
    """

    roles: Mapping[str, str]
    add_bos: bool | None
    chat_template: str | None
    added: Mapping[int, Json]
    stop_ids: tuple[int, ...]


def read_settings(folder: Path) -> FolderSettings:
    """The settings of ``folder``; raises `BadDataError` naming the file and the key."""
    config = read_json(folder / "tokenizer_config.json") or {}
    older = read_json(folder / "special_tokens_map.json") or {}
    generation = read_json(folder / "generation_config.json") or {}
    roles = {}
    for role in ROLES:
        value = config.get(role, older.get(role))
        text = value.get("content") if isinstance(value, dict) else value
        if text is not None and not isinstance(text, str):
            raise _bad(folder / "tokenizer_config.json", role, text, "a text", "文本")
        if text:
            roles[role] = text
    add_bos = config.get("add_bos_token")
    if add_bos is not None and not isinstance(add_bos, bool):
        path = folder / "tokenizer_config.json"
        raise _bad(path, "add_bos_token", add_bos, "true or false", "true 或 false")
    return FolderSettings(
        roles=roles,
        add_bos=add_bos,
        chat_template=_chat_template(folder, config),
        added=_added(folder / "tokenizer_config.json", config.get("added_tokens_decoder") or {}),
        stop_ids=_stop_ids(folder / "generation_config.json", generation.get("eos_token_id")),
    )


def model_stop_ids(folder: Path) -> tuple[int, ...]:
    """The ids that config.json calls end of sequence, for folders that say it nowhere else.

    Not for Hunyuan-Large, whose config.json holds placeholders (specification, section 2).
    """
    path = folder / "config.json"
    return _stop_ids(path, (read_json(path) or {}).get("eos_token_id"))


def read_json(path: Path) -> Json | None:
    """The object in ``path``, ``None`` if there is no such file; raises `BadDataError`."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise BadDataError(
            f"{path}: is no valid JSON ({error}); fetch the file again",
            f"{path}：不是有效的 JSON（{error}）；请重新获取该文件",
        ) from error
    if not isinstance(value, dict):
        raise BadDataError(
            f"{path}: must hold a JSON object, not {type(value).__name__}; fetch the file again",
            f"{path}：应为 JSON 对象，而不是 {type(value).__name__}；请重新获取该文件",
        )
    return value


def _chat_template(folder: Path, config: Json) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadDataError(
                f"{path}: is not UTF-8 text; fetch the file again",
                f"{path}：不是 UTF-8 文本；请重新获取该文件",
            ) from error
    template = config.get("chat_template")
    if isinstance(template, list):
        # Named templates; without a default the list itself is reported.
        named = {e.get("name"): e.get("template") for e in template if isinstance(e, dict)}
        template = named.get("default", template)
    if template is not None and not isinstance(template, str):
        path = folder / "tokenizer_config.json"
        wanted, wanted_zh = "a text or a list with a 'default'", "文本或含 'default' 的列表"
        raise _bad(path, "chat_template", template, wanted, wanted_zh)
    return template


def _added(path: Path, decoder: Any) -> dict[int, Json]:
    try:
        return {int(id): {**entry, "content": entry["content"]} for id, entry in decoder.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _bad(
            path, "added_tokens_decoder", decoder, "an object of tokens by id", "以编号为键的对象"
        ) from error


def _stop_ids(path: Path, value: Any) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(id) is int and id >= 0 for id in ids):
        raise _bad(path, "eos_token_id", value, "an id or a list of ids", "编号或编号列表")
    return tuple(ids)


def _bad(path: Path, key: str, value: Any, wanted: str, wanted_zh: str) -> BadDataError:
    shown = repr(value)[:80]
    return BadDataError(
        f"{path}: {key}={shown}: must be {wanted}; fetch the file again or correct it",
        f"{path}：{key}={shown}：必须是{wanted_zh}；请重新获取或更正该文件",
    )
