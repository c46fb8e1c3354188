"""Tables from CSV and XLSX files, as columns with a type.

Nothing in a file is evaluated: formulas of a workbook are read as the values that were stored. Both
readers stop at the limits below, so that a small file cannot unfold into a large table.
"""

import csv
import io
import re
import zipfile
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from hunyuan.errors import UsageError

MAX_BYTES = 16 * 1024 * 1024
MAX_ROWS = 100_000
MAX_LINES = 1_000_000
"""Of a CSV file, empty ones included."""
MAX_COLUMNS = 200
MAX_CELL = 1_000
MAX_CELLS = 2_000_000
MAX_UNPACKED = 64 * 1024 * 1024
MAX_ENTRIES = 2_000
MAX_TAGS = 2_000_000
"""Of a workbook's XML, four a cell: a few kilobytes can unfold into millions, read in minutes."""

DECLARATION = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)

ColumnType = Literal["number", "date", "text"]
Cell = float | str | None


class TableError(UsageError):
    """A file that is no table, or too large a one."""


@dataclass(frozen=True, slots=True)
class Column:
    """Cells of one type; numbers as floats, dates as ISO text, None where empty."""

    name: str
    type: ColumnType
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length."""

    name: str
    columns: list[Column]

    @property
    def rows(self) -> int:
        """Number of rows below the heading."""
        return len(self.columns[0].cells) if self.columns else 0

    def column(self, name: str) -> Column:
        """The column of that name; `TableError` where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        names = ", ".join(c.name for c in self.columns)[:120]
        raise TableError(
            f"column={name[:40]!r}: not in the table; it has {names}",
            f"column={name[:40]!r}：表中没有该列；现有 {names}",
        )


def read_table(name: str, data: bytes, sheet: str = "") -> Table:
    """A table from the bytes of a CSV, TSV or XLSX file; the kind is seen from the bytes."""
    if len(data) > MAX_BYTES:
        raise TableError(
            f"the file has {len(data) >> 20} MiB; at most {MAX_BYTES >> 20} MiB are read",
            f"文件大小为 {len(data) >> 20} MiB，最多读取 {MAX_BYTES >> 20} MiB",
        )
    if data[:4] == b"PK\x03\x04":
        return _typed(name, _xlsx_rows(data, sheet))
    if data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise TableError(
            "the old .xls format is not read; save the workbook as .xlsx or .csv",
            "不支持旧的 .xls 格式；请另存为 .xlsx 或 .csv",
        )
    return _typed(name, _csv_rows(data))


# -- CSV -----------------------------------------------------------------------------------------


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" in text:
            break
        return text
    raise TableError(
        "the file is not text in UTF-8 or GB18030, nor an .xlsx workbook",
        "文件既不是 UTF-8 或 GB18030 文本，也不是 .xlsx 工作簿",
    )


def _csv_rows(data: bytes) -> list[list[Any]]:
    text = _decoded(data)
    first = text[:4096]
    lines = [line for line in first.splitlines()[:10] if line.strip()]
    delimiter = max(",;\t|", key=lambda d: min((line.count(d) for line in lines), default=0))
    rows: list[list[Any]] = []
    cells = 0
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row[: MAX_COLUMNS + 1])
                cells += len(row)
            _check(rows, cells)
            if reader.line_num > MAX_LINES:
                raise TableError(
                    f"the file has more than {MAX_LINES} lines", f"文件超过 {MAX_LINES} 行"
                )
    except csv.Error as error:
        raise TableError(
            f"line {reader.line_num} of the CSV file cannot be read: {error}",
            f"CSV 文件第 {reader.line_num} 行无法读取：{error}",
        ) from error
    return rows


def _check(rows: list[list[Any]], cells: int) -> None:
    if cells > MAX_CELLS:
        raise TableError(
            f"the table has more than {MAX_CELLS} cells", f"表格超过 {MAX_CELLS} 个单元格"
        )
    if len(rows) > MAX_ROWS + 1:
        raise TableError(f"the table has more than {MAX_ROWS} rows", f"表格超过 {MAX_ROWS} 行")
    if rows and len(rows[-1]) > MAX_COLUMNS:
        raise TableError(
            f"the table has more than {MAX_COLUMNS} columns", f"表格超过 {MAX_COLUMNS} 列"
        )


# -- XLSX ----------------------------------------------------------------------------------------


def _xlsx_rows(data: bytes, sheet: str) -> list[list[Any]]:
    try:
        import openpyxl
    except ImportError:
        raise TableError(
            "XLSX files need openpyxl: pip install 'hunyuan[docs]', or save the sheet as CSV",
            "读取 XLSX 需要 openpyxl：pip install 'hunyuan[docs]'，或另存为 CSV",
        ) from None
    _inspect(data)
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except Exception as error:
        # openpyxl raises nearly anything on a damaged file.
        raise _damaged() from error
    try:
        if sheet and sheet not in book.sheetnames:
            names = ", ".join(book.sheetnames)[:120]
            raise TableError(
                f"sheet={sheet[:40]!r}: not in the workbook; it has {names}",
                f"sheet={sheet[:40]!r}：工作簿中没有该表；现有 {names}",
            )
        page = book[sheet] if sheet else book.worksheets[0]
        rows: list[list[Any]] = []
        count = 0
        # The stored dimensions may lie; the limits hold while reading.
        for row in page.iter_rows(values_only=True, max_row=MAX_ROWS + 2, max_col=MAX_COLUMNS + 1):
            cells = list(row)
            while cells and cells[-1] is None:
                cells.pop()
            if cells:
                rows.append(cells)
                count += len(cells)
            _check(rows, count)
    except TableError:
        raise
    except Exception as error:
        raise _damaged() from error
    finally:
        book.close()
    return rows


def _inspect(data: bytes) -> None:
    """Refuse archives that unfold too far, and XML that declares entities."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_ENTRIES or sum(e.file_size for e in entries) > MAX_UNPACKED:
                raise TableError(
                    f"the workbook unpacks to more than {MAX_UNPACKED >> 20} MiB or "
                    f"{MAX_ENTRIES} parts and is not read",
                    f"工作簿解压后超过 {MAX_UNPACKED >> 20} MiB 或 {MAX_ENTRIES} 个部件，不予读取",
                )
            tags = 0
            for entry in entries:
                if entry.filename.endswith((".xml", ".rels")):
                    with archive.open(entry) as part:
                        tags += _no_entities(part, entry.file_size)
            if tags > MAX_TAGS:
                raise TableError(
                    f"the workbook has more than {MAX_TAGS} XML tags; save the sheet as CSV",
                    f"工作簿的 XML 标签超过 {MAX_TAGS} 个；请另存为 CSV",
                )
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise _damaged() from error


def _no_entities(part: Any, promised: int) -> int:
    """The number of tags. Refuses declarations of types and entities, and sizes not as promised."""
    size, tags, tail = 0, 0, b""
    while piece := part.read(1 << 20):
        size += len(piece)
        tags += piece.count(b"<")
        if size > promised:
            raise _damaged()
        # Other encodings than UTF-8, in which a declaration would look different, have NULs.
        if DECLARATION.search(tail + piece) or b"\x00" in piece:
            raise TableError(
                "the workbook declares XML entities and is not read",
                "工作簿含有 XML 实体声明，不予读取",
            )
        tail = piece[-16:]
    return tags


def _damaged() -> TableError:
    return TableError("the file is not a readable .xlsx workbook", "文件不是可读取的 .xlsx 工作簿")


# -- types ---------------------------------------------------------------------------------------

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?%?")
DATE = re.compile(
    r"(\d{4})[-/.年](\d{1,2})(?:[-/.月](\d{1,2})日?)?(?:月)?(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?"
)


def _typed(name: str, rows: list[list[Any]]) -> Table:
    if len(rows) < 2:
        raise TableError(
            "the table needs a row of headings and at least one row of data",
            "表格至少需要一行标题和一行数据",
        )
    width = max(len(row) for row in rows)
    headings = _headings(rows[0], width)
    body = rows[1:]
    columns = []
    for index, heading in enumerate(headings):
        cells = [row[index] if index < len(row) else None for row in body]
        columns.append(_column(heading, cells))
    if all(cell is None for column in columns for cell in column.cells):
        raise TableError("the table has no data", "表格没有数据")
    return Table(name[:120], columns)


def _headings(row: list[Any], width: int) -> list[str]:
    names: list[str] = []
    for index in range(width):
        value = row[index] if index < len(row) else None
        base = str(value).strip()[:60] if value not in (None, "") else f"column {index + 1}"
        name, copy = base, 2
        while name in names:
            name, copy = f"{base} ({copy})", copy + 1
        names.append(name)
    return names


def _column(name: str, cells: list[Any]) -> Column:
    for kind, convert in (("number", _number), ("date", _date)):
        converted = [convert(cell) for cell in cells]
        known = sum(value is not None for value in converted)
        filled = sum(not _empty(cell) for cell in cells)
        # A few blemishes such as "n/a" do not make a column of numbers one of texts.
        if known and known >= 0.9 * filled:
            return Column(name, "number" if kind == "number" else "date", converted)
    texts: list[Cell] = [None if _empty(c) else str(c).strip()[:MAX_CELL] for c in cells]
    return Column(name, "text", texts)


def _empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _number(cell: Any) -> float | None:
    if isinstance(cell, bool):
        return None
    if isinstance(cell, (int, float)):
        value = float(cell) if abs(cell) < 1e300 else float("nan")
        return value if value - value == 0 else None
    if not isinstance(cell, str):
        return None
    text = cell.strip().lstrip("$¥￥€£").replace(" ", "")[:40]
    if not text or not NUMBER.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    scale = 0.01 if text.endswith("%") else 1.0
    value = float(text.rstrip("%").replace(",", "")) * scale
    return value if value - value == 0 else None


def _date(cell: Any) -> str | None:
    if isinstance(cell, datetime):
        midnight = (cell.hour, cell.minute, cell.second) == (0, 0, 0)
        return cell.date().isoformat() if midnight else cell.isoformat(timespec="seconds")
    if isinstance(cell, date):
        return cell.isoformat()
    found = DATE.fullmatch(cell.strip()) if isinstance(cell, str) else None
    if not found:
        return None
    year, month, day, hour, minute, second = (int(g) if g else None for g in found.groups())
    assert year is not None
    assert month is not None
    try:
        moment = datetime(year, month, day or 1, hour or 0, minute or 0, second or 0)
    except ValueError:
        return None
    if day is None:
        return f"{year:04}-{month:02}"
    return moment.date().isoformat() if hour is None else moment.isoformat(timespec="seconds")
