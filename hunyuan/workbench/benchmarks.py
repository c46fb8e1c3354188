"""Files of results as tables, whatever a benchmark chose to write down.

A result file is one JSON object. Plain values are facts about the run; a list of objects, or an
object of objects, is a table; a list of numbers is shown as its median and range; what lies deeper
goes into the name of a column, as in ``decode / median``.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_ROWS = 200
MOST_COLUMNS = 12
MOST_BYTES = 4 * 1024 * 1024
LONGEST_TEXT = 200
_DEEPEST = 3

Cell = str | float | int | bool | None


def result_files(folder: Path) -> list[Path]:
    """The result files of a folder, by name."""
    return sorted(path for path in folder.glob("*.json") if path.is_file())


def result_table(path: Path) -> dict[str, Any]:
    """One file as facts and tables; what cannot be read says so instead."""
    shown: dict[str, Any] = {"title": path.stem, "facts": [], "tables": [], "problem": None}
    try:
        if path.stat().st_size > MOST_BYTES:
            shown["problem"] = f"larger than {MOST_BYTES // 1024**2} MiB"
            return shown
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        shown["problem"] = str(getattr(error, "strerror", None) or "not JSON")
        return shown
    if not isinstance(values, dict):
        values = {"results": values}
    for name, value in values.items():
        if isinstance(value, dict) and any(_plain(each) for each in value.values()):
            if _summary(value):
                shown["facts"].append([name, _cell(value)])
                continue
            for key, each in value.items():
                if _plain(each) or isinstance(each, dict) or _numbers(each):
                    shown["facts"] += [[f"{name} / {n}", c] for n, c in _flat({key: each}).items()]
                elif (table := _table(f"{name} / {key}", each)) is not None:
                    shown["tables"].append(table)
        elif (table := _table(name, value)) is not None:
            shown["tables"].append(table)
        else:
            shown["facts"].append([name, _cell(value)])
    return shown


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _table(name: str, value: Any) -> dict[str, Any] | None:
    """A table of an object of objects or a list of objects; None of anything else."""
    rows: list[tuple[str | None, dict[str, Cell]]]
    if isinstance(value, dict):
        rows = [(str(key), _flat(each)) for key, each in value.items()]
    elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        rows = [(None, _flat(each)) for each in value]
    else:
        return None
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    named = any(key is not None for key, _ in rows)
    kept = columns[:MOST_COLUMNS]
    return {
        "name": name,
        "columns": ([""] if named else []) + kept,
        "rows": [
            ([key] if named else []) + [row.get(column) for column in kept]
            for key, row in rows[:MOST_ROWS]
        ],
        "left_out": {
            "rows": max(len(rows) - MOST_ROWS, 0),
            "columns": max(len(columns) - MOST_COLUMNS, 0),
        },
    }


def _flat(value: Any, depth: int = 0) -> dict[str, Cell]:
    """The cells of one row by the names of their columns."""
    if not isinstance(value, dict):
        return {"value": _cell(value)}
    cells: dict[str, Cell] = {}
    for key, each in value.items():
        if isinstance(each, dict) and each and depth < _DEEPEST and not _summary(each):
            for inner, cell in _flat(each, depth + 1).items():
                cells[f"{key} / {inner}"] = cell
        else:
            cells[str(key)] = _cell(each)
    return cells


def _summary(value: Mapping[str, Any]) -> bool:
    """Whether an object is the summary of one measured number."""
    return "median" in value and all(_number(v) or isinstance(v, list) for v in value.values())


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_number(each) for each in value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, bool) or _number(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 1] + "…"
    if isinstance(value, dict) and _summary(value):
        every: list[float] = value["all"] if isinstance(value.get("all"), list) else []
        low = value.get("min", value.get("low", min(every, default=None)))
        high = value.get("max", value.get("high", max(every, default=None)))
        if low is None or high is None:
            return _short(value["median"])
        return f"{_short(value['median'])} ({_short(low)}–{_short(high)})"
    if _numbers(value):
        middle = _short(statistics.median(value))
        return (
            middle if len(value) == 1 else f"{middle} ({_short(min(value))}–{_short(max(value))})"
        )
    return f"{len(value)} …" if isinstance(value, dict | list) and value else "–"


def _short(number: float) -> str:
    return f"{number:.4g}"
