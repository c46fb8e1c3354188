"""Settings files: TOML tables into frozen dataclasses, strictly.

A section is a frozen dataclass; its fields are the keys, their types what may stand there, their
docstrings the reference. An unknown key is an error that names the nearest, a wrong type one that
names the right one. ``section.key=value`` on a command line overrides what the file says.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hunyuan.errors import UsageError

T = TypeVar("T")


def read_table(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file with ``section.key=value`` overrides applied; values are read as TOML.

    A value that is no TOML is a text. Raises `UsageError` for a missing or malformed file.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no UTF-8 text"
        raise UsageError(
            f"{path}: {reason}; give a recipe, a TOML file",
            f"{path}：{reason}；请给出 TOML 配方文件",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}", f"{path}：{error}") from error
    for override in overrides:
        _override(table, override)
    return table


def _override(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise UsageError(
            f"--set {override}: must be section.key=value", f"--set {override}：必须是 节.键=值"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"--set {override}: {name} is no section", f"--set {override}：{name} 不是一个节"
            )
    table[names[-1]] = value


def settings(kind: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """An instance of the dataclass ``kind``; ``where`` is the section's name with its dot.

    Raises `UsageError` naming the key, and what ``kind`` itself raises.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise UsageError(
                f"{where}{key} is unknown"
                + (f"; did you mean {where}{near[0]}?" if near else f"; known: {', '.join(known)}"),
                f"未知的设置项 {where}{key}"
                + (f"；是否想用 {where}{near[0]}？" if near else f"；可用：{'、'.join(known)}"),
            )
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name not in table and not _has_default(field):
            raise UsageError(f"{where}{field.name} is missing", f"缺少 {where}{field.name}")
    return kind(**{key: _value(hints[key], value, where + key) for key, value in table.items()})


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _value(hint: Any, value: Any, where: str) -> Any:
    """``value`` as ``hint`` wants it, or `UsageError`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        kinds = [kind for kind in arguments if kind is not NoneType]
        assert len(kinds) == 1, hint
        return _value(kinds[0], value, where)
    if origin is Literal:
        if value not in arguments:
            raise UsageError(
                f"{where}={value!r} is unknown; use {', '.join(map(str, arguments))}",
                f"未知的 {where}={value!r}；请使用 {'、'.join(map(str, arguments))}",
            )
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong_type(where, value, "a list", "列表")
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong_type(where, value, "a table", "表")
        if not arguments or arguments[1] is Any:
            return value
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise _wrong_type(where, value, "a table", "表")
        return settings(hint, value, f"{where}.")  # type: ignore[arg-type]
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        english, chinese = _KINDS[hint]
        raise _wrong_type(where, value, english, chinese)
    return value


_KINDS: dict[type, tuple[str, str]] = {
    int: ("a whole number", "整数"),
    float: ("a number", "数字"),
    str: ("a text", "文本"),
    bool: ("true or false", "true 或 false"),
    Path: ("a path", "路径"),
}


def _wrong_type(where: str, value: Any, english: str, chinese: str) -> UsageError:
    return UsageError(f"{where}={value!r} must be {english}", f"{where}={value!r} 必须是{chinese}")


def require(ok: bool, english: str, chinese: str) -> None:
    """Raise `UsageError` with these texts unless ``ok``."""
    if not ok:
        raise UsageError(english, chinese)


def changed(before: Mapping[str, Any], after: Mapping[str, Any], where: str = "") -> list[str]:
    """What differs between two tables, a line ``key: old -> new`` each."""
    lines = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += changed(old, new, f"{where}{key}.")
        elif old != new:
            lines.append(f"{where}{key}: {old!r} -> {new!r}")
    return lines
