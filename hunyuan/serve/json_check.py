"""Whether a JSON value is of a schema, by the keywords that schemas of functions use.

What it knows it checks; other keywords are passed over, as JSON Schema tells validators to.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import regex  # type: ignore[import-untyped]

DEEPEST = 64

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
}

BOUNDS: Mapping[str, Callable[[float, float], bool]] = {
    "minimum": lambda value, limit: value >= limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "exclusiveMaximum": lambda value, limit: value < limit,
}


def problem(value: Any, schema: Any) -> str | None:
    """The place in ``value`` and the keyword of ``schema`` it breaks, or None."""
    return _Check(schema).problem(value, schema, "", 0)


class _Check:
    """Knows the whole schema, which its parts may refer to."""

    def __init__(self, root: Any) -> None:
        self._root = root

    def problem(self, value: Any, schema: Any, where: str, depth: int) -> str | None:
        if schema is True or depth > DEEPEST:
            return None
        if schema is False:
            return f"{where or 'it'}: false"
        if not isinstance(schema, Mapping):
            return None
        if (reference := schema.get("$ref")) is not None:
            return self.problem(value, self._referred(reference), where, depth + 1)
        broken = _broken_keyword(value, schema)
        if broken is not None:
            return f"{where or 'it'}: {broken}"
        return self._combined(value, schema, where, depth) or self._inside(
            value, schema, where, depth
        )

    def _combined(
        self, value: Any, schema: Mapping[str, Any], where: str, depth: int
    ) -> str | None:
        for part in _list(schema.get("allOf")):
            if found := self.problem(value, part, where, depth + 1):
                return found
        for keyword in ("anyOf", "oneOf"):
            parts = _list(schema.get(keyword))
            if parts and all(self.problem(value, one, where, depth + 1) for one in parts):
                return f"{where or 'it'}: {keyword}"
        return None

    def _inside(self, value: Any, schema: Mapping[str, Any], where: str, depth: int) -> str | None:
        if isinstance(value, dict):
            known = schema.get("properties") or {}
            others = schema.get("additionalProperties", True)
            for name, item in value.items():
                part = known.get(name, others)
                if found := self.problem(item, part, f"{where}.{name}"[:200], depth + 1):
                    return found
        if isinstance(value, list):
            first = _list(schema.get("prefixItems"))
            for i, item in enumerate(value):
                part = first[i] if i < len(first) else schema.get("items", True)
                if found := self.problem(item, part, f"{where}[{i}]"[:200], depth + 1):
                    return found
        return None

    def _referred(self, reference: Any) -> Any:
        """What a reference within the schema points to; True, which checks nothing, for none."""
        target = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            return True
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or name not in target:
                return True
            target = target[name]
        return target


def _broken_keyword(value: Any, schema: Mapping[str, Any]) -> str | None:
    """The keyword about ``value`` itself that it breaks."""
    kinds = schema.get("type")
    if kinds is not None:
        allowed = [kinds] if isinstance(kinds, str) else _list(kinds)
        if not any(TYPES.get(str(kind), lambda _: True)(value) for kind in allowed):
            return f"type must be {' or '.join(map(str, allowed))}"
    if "enum" in schema and not any(_same(value, one) for one in _list(schema["enum"])):
        return "enum"
    if "const" in schema and not _same(value, schema["const"]):
        return "const"
    if _is_number(value):
        for keyword, holds in BOUNDS.items():
            limit: Any = schema.get(keyword)
            if _is_number(limit) and not holds(value, limit):
                return keyword
    if isinstance(value, str):
        if not _fits(len(value), schema, "minLength", "maxLength"):
            return "length"
        if not _matches(value, schema.get("pattern")):
            return "pattern"
    if isinstance(value, list) and not _fits(len(value), schema, "minItems", "maxItems"):
        return "number of items"
    if isinstance(value, dict):
        missing = [name for name in _list(schema.get("required")) if name not in value]
        if missing:
            return f"{missing[0]} is missing"
    return None


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, int) or math.isfinite(value))


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON, where true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _fits(length: int, schema: Mapping[str, Any], low: str, high: str) -> bool:
    return bool(schema.get(low, 0) <= length <= schema.get(high, math.inf))


def _matches(text: str, pattern: Any) -> bool:
    """Whether a pattern is found in a text; one that is none, or takes too long, says nothing."""
    if not isinstance(pattern, str):
        return True
    try:
        return regex.search(pattern, text, timeout=1.0) is not None
    except (regex.error, TimeoutError):
        return True


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
