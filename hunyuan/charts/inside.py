"""The process that reads one table: it limits itself first, then writes columns to its output.

    python -m hunyuan.charts.inside PATH NAME SHEET SECONDS

One JSON object a line: ``{"name", "type", "cells"}`` of each column, those of texts as numbers into
``"texts"``, as a workbook may repeat a long one; at the end ``{"end": true}`` or
``{"error": [English, Chinese]}``.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from hunyuan.charts.apart import MEMORY_BYTES, OUTPUT_BYTES
from hunyuan.charts.table import Column, read_table
from hunyuan.errors import HunyuanError


def main(arguments: list[str]) -> None:
    """Read the table that the arguments name."""
    path, name, sheet, seconds = arguments
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CPU, int(seconds) + 1)
    _limit(resource.RLIMIT_FSIZE, OUTPUT_BYTES)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 32)
    try:
        table = read_table(name, Path(path).read_bytes(), sheet)
    except HunyuanError as error:
        _say({"error": [error.en, error.zh]})
        return
    for column in table.columns:
        _say(_described(column))
    _say({"end": True})


def _described(column: Column) -> dict[str, Any]:
    described = {"name": column.name, "type": column.type, "cells": column.cells}
    if column.type != "text":
        return described
    numbers: dict[Any, int] = {}
    cells = [
        None if cell is None else numbers.setdefault(cell, len(numbers)) for cell in column.cells
    ]
    return described | {"cells": cells, "texts": list(numbers)}


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def _say(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
