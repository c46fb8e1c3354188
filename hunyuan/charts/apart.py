"""Reads a table in a process of its own, which may take its time, crash or swell without harm."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from hunyuan.charts.table import Column, Table, TableError

SECONDS = 60
MEMORY_BYTES = 1 << 30
OUTPUT_BYTES = 256 << 20


def read_table_apart(path: Path, name: str, sheet: str = "", *, seconds: int = SECONDS) -> Table:
    """`hunyuan.charts.table.read_table` of the file at ``path``; blocks.

    Raises `TableError`, also where the file cannot be read in ``seconds``.
    """
    with tempfile.TemporaryFile(dir=path.parent) as output:
        try:
            subprocess.run(
                [
                    *(sys.executable, "-s", "-m", "hunyuan.charts.inside"),
                    *(str(path), name, sheet, str(seconds)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env={
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "PATH": "/usr/bin:/bin",
                },
                cwd="/",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _broken(f"it takes more than {seconds} s", f"读取超过 {seconds} 秒") from None
        output.seek(0)
        return _received(output, name)


def _received(output: BinaryIO, name: str) -> Table:
    columns: list[Column] = []
    # A line a column: reading one keeps no other thread waiting for long.
    for line in output:
        said = json.loads(line)
        if "error" in said:
            raise TableError(*said["error"])
        if "end" in said:
            return Table(name[:120], columns)
        cells = said["cells"]
        if "texts" in said:
            texts = said["texts"]
            cells = [None if i is None else texts[i] for i in cells]
        columns.append(Column(said["name"], said["type"], cells))
    raise _broken("the reader broke down on it", "读取程序崩溃")


def _broken(en: str, zh: str) -> TableError:
    return TableError(
        f"the file cannot be read: {en}; save the sheet as CSV, or a smaller one",
        f"无法读取该文件：{zh}；请另存为 CSV，或缩小表格",
    )
