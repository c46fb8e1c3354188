"""Files of each kind as pages of text. Runs in a process of its own (`hunyuan.knowledge.inside`).

A damaged, encrypted or oversized file ends in `BadDataError` or `DoesNotFitError`, one line each.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hunyuan import plugins
from hunyuan.errors import BadDataError, DoesNotFitError, HunyuanError
from hunyuan.files import human_bytes
from hunyuan.knowledge.document import Kind, Limits, Page, suffix_of
from hunyuan.knowledge.encodings import decode
from hunyuan.knowledge.radicals import RADICALS
from hunyuan.knowledge.sentences import flat, wraps

PART_CHARACTERS = 4000

_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl"}
# Invisible: controls, soft hyphens, zero-width and direction marks, which can hide or reorder text.
_INVISIBLE_RANGES = (
    *((0x00, 0x09), (0x0B, 0x0D), (0x0E, 0x20), (0x7F, 0xA0), (0xAD, 0xAE), (0x61C, 0x61D)),
    *((0x200B, 0x2010), (0x202A, 0x202F), (0x2060, 0x2070), (0xD800, 0xE000), (0xFEFF, 0xFF00)),
    *((0xFFFE, 0x10000), (0xE0000, 0xE0080)),
)
_INVISIBLE = dict.fromkeys(code for span in _INVISIBLE_RANGES for code in range(*span))
_CLEAN: dict[int, str | None] = {**_INVISIBLE, **_LIGATURES, **RADICALS}


def read(path: Path, name: str, kind: Kind, limits: Limits) -> Iterator[Page]:
    """The pages of a file, cleaned, up to the limits; ``name`` is what errors call it."""
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise _too_large(name, human_bytes(size), human_bytes(limits.file_bytes))
    total = 0
    empty = True
    for page in _pages(path, name, kind, limits):
        total += len(page.text)
        if total > limits.characters:
            raise _too_large(name, f"> {limits.characters:,} characters", f"{limits.characters:,}")
        empty = empty and not page.text
        yield page
    if empty:
        raise _textless(name, kind)


def clean(text: str) -> str:
    """Line ends as one character, characters for radicals and ligatures, nothing invisible."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CLEAN)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[^\S\n]+\n", "\n", text)).strip()


def parts(pieces: Iterable[str]) -> Iterator[Page]:
    """Paragraphs (or lines) gathered into parts of about `PART_CHARACTERS`."""
    number, held, size = 0, list[str](), 0
    for piece in pieces:
        for start in range(0, max(len(piece), 1), 4 * PART_CHARACTERS):
            part = piece[start : start + 4 * PART_CHARACTERS]
            if size and size + len(part) > PART_CHARACTERS:
                if text := clean("".join(held)):
                    number += 1
                    yield Page(number, text)
                held, size = [], 0
            held.append(part)
            size += len(part)
    if text := clean("".join(held)):
        yield Page(number + 1, text)


def _pages(path: Path, name: str, kind: Kind, limits: Limits) -> Iterator[Page]:
    match kind:
        case "pdf":
            return _pdf(path, name, limits)
        case "docx":
            return parts(_docx(path, name, limits))
        case "xlsx":
            return parts(_xlsx(path, name, limits))
        case "html":
            return parts(_html(path, name))
        case "csv":
            return parts(_rows(_csv(decode(path.read_bytes(), name), name, limits)))
        case "json":
            return parts(_json(decode(path.read_bytes(), name), name))
        case "text" | "markdown":
            text = decode(path.read_bytes(), name)
            if text.startswith("%PDF-"):
                raise BadDataError(
                    f"{name}: is a PDF; give it a name ending in .pdf",
                    f"{name}：其实是 PDF；请把文件名改为以 .pdf 结尾",
                )
            return parts(_paragraphs(text))
        case "plugin":
            return parts(_by_plugin(path, name))


def _by_plugin(path: Path, name: str) -> Iterator[str]:
    """What a plug-in reads; whatever it raises is told as an error of the file."""
    read_file = plugins.reader(suffix_of(name))
    try:
        yield from read_file(path)
    except (HunyuanError, MemoryError):
        raise
    except Exception as error:  # a stranger's code
        kind = type(error).__name__
        raise BadDataError(
            f"{name}: the plug-in that reads {suffix_of(name)} failed on it ({kind}: {error}); "
            "check the file, or report it to the plug-in's authors",
            f"{name}：读取 {suffix_of(name)} 的插件失败（{kind}：{error}）；"
            "请检查文件，或反馈给插件作者",
        ) from error


def _paragraphs(text: str) -> Iterator[str]:
    """Pieces that together are the text, cut after blank lines, or lines where these are rare."""
    for piece in re.split(r"(?<=\n)(?=\s*\n)", text.replace("\r\n", "\n").replace("\r", "\n")):
        if len(piece) > PART_CHARACTERS:
            yield from piece.splitlines(keepends=True)
        else:
            yield piece


# ------------------------------------------------------------ PDF


def _pdf(path: Path, name: str, limits: Limits) -> Iterator[Page]:
    import pypdfium2

    with path.open("rb") as file:
        if b"%PDF-" not in file.read(1024):
            raise BadDataError(
                f"{name}: is not a PDF (it does not begin with %PDF-); check the file",
                f"{name}：不是 PDF（开头没有 %PDF-）；请检查文件",
            )
    try:
        document = pypdfium2.PdfDocument(path)
        count = len(document)
    except pypdfium2.PdfiumError as error:
        if "assword" in str(error) or "ecurity" in str(error):
            raise BadDataError(
                f"{name}: is encrypted; save a copy without a password and add that",
                f"{name}：已加密；请另存一份无密码的副本后添加",
            ) from None
        raise BadDataError(
            f"{name}: is a damaged or incomplete PDF; open and save it anew, or fetch it again",
            f"{name}：PDF 已损坏或不完整；请用阅读器打开后另存，或重新获取",
        ) from None
    if count > limits.pages:
        raise _too_large(name, f"{count} pages", f"{limits.pages} pages")
    if count == 0:
        raise _textless(name, "pdf")
    for i in range(count):
        try:
            page = document[i]
            textpage = page.get_textpage()
            text = textpage.get_text_range()
            textpage.close()
            page.close()
        except pypdfium2.PdfiumError:
            text = ""  # one broken page; the document says how many have no text
        yield Page(i + 1, _joined(clean(text)), count)


def _joined(text: str) -> str:
    """Lines that only the page's width ended, joined to paragraphs."""
    lines = text.split("\n")
    joined = [lines[0]]
    for goes_on, before, line in zip(wraps(lines), lines, lines[1:], strict=False):
        if goes_on and not before.rstrip().endswith(("。", "！", "？")):
            joined[-1] = flat(f"{joined[-1]}\n{line}")
        else:
            joined.append(line)
    return "\n".join(joined)


# ------------------------------------------------------------ HTML


_HIDDEN_TAGS = "script style template noscript svg math iframe object head"
_BLOCK_TAGS = (
    "p div section article header footer main aside nav ul ol dl dt dd table tr blockquote pre "
    "figure figcaption form fieldset address hr br h1 h2 h3 h4 h5 h6 li title body"
)
_HIDDEN = frozenset(_HIDDEN_TAGS.split())
_BLOCKS = frozenset(_BLOCK_TAGS.split())


class _Text(HTMLParser):
    """The visible text of a page, headings marked as Markdown marks them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden.append(tag)
        if tag == "body":
            self._hidden.clear()  # an unclosed head must not hide the page
        if tag == "pre":
            self._pre += 1
        if tag in _BLOCKS:
            self.pieces.append("\n" if tag in ("br", "li", "tr", "dt", "dd") else "\n\n")
        if tag[0] == "h" and tag[1:].isdigit():
            self.pieces.append("#" * int(tag[1:2]) + " ")
        if tag == "li":
            self.pieces.append("- ")
        if tag in ("td", "th"):
            self.pieces.append(" | ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag) :]
        if tag == "pre":
            self._pre = max(0, self._pre - 1)
        if tag in _BLOCKS and tag not in ("li", "tr"):
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(data if self._pre else re.sub(r"\s+", " ", data))


_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)


def _html(path: Path, name: str) -> Iterator[str]:
    data = path.read_bytes()
    declared = _CHARSET.search(data[:4096])
    parser = _Text()
    parser.feed(decode(data, name, declared[1].decode() if declared else None))
    parser.close()
    return _paragraphs(re.sub(r"\n\s*\n", "\n\n", "".join(parser.pieces)))


# ------------------------------------------------------------ tables and data


def _csv(text: str, name: str, limits: Limits) -> Iterator[list[str]]:
    csv.field_size_limit(limits.characters)
    sample = text[:20_000]
    first = sample.split("\n", 1)[0]
    delimiter = max(",;\t|", key=first.count)
    try:
        yield from csv.reader(io.StringIO(text.replace("\0", ""), newline=""), delimiter=delimiter)
    except csv.Error as error:
        raise BadDataError(
            f"{name}: cannot be read as a table ({error}); check its quotation marks",
            f"{name}：无法按表格读取（{error}）；请检查引号",
        ) from None


def _rows(rows: Iterable[list[str]]) -> Iterator[str]:
    """One line a row; if the first row names the columns, with their names."""
    names: list[str] | None = None
    for cells in rows:
        cells = [" ".join(cell.split()) for cell in cells]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        if names is None:
            names = cells if all(c and not _NUMBER.match(c) for c in cells) else []
            yield " | ".join(cells) + "\n"
            continue
        if len(names) >= len(cells):
            pairs = zip(names, cells, strict=False)
            yield "- " + "; ".join(f"{n}: {cell}" for n, cell in pairs if cell) + "\n"
        else:
            yield "- " + " | ".join(cell for cell in cells if cell) + "\n"


_NUMBER = re.compile(r"[-+]?[\d.,]+%?$")


def _json(text: str, name: str) -> Iterator[str]:
    """One line a value, with the path to it: ``- author.name: Su Shi``."""
    try:
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            lines = [line for line in text.splitlines() if line.strip()]
            if len(lines) < 2:
                raise
            value = [json.loads(line) for line in lines]
        yield from _flattened("", value)
    except RecursionError:
        raise BadDataError(
            f"{name}: its values are nested too deeply; flatten it",
            f"{name}：嵌套层数过多；请先展平",
        ) from None
    except ValueError as error:
        raise BadDataError(
            f"{name}: is not valid JSON ({error}); correct it or add it as .txt",
            f"{name}：不是有效的 JSON（{error}）；请更正，或以 .txt 添加",
        ) from None


def _flattened(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flattened(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for i, inner in enumerate(value):
            yield from _flattened(f"{path}[{i}]", inner)
            if isinstance(inner, dict):
                yield "\n"
    else:
        shown = ", ".join(map(_plain, value)) if isinstance(value, list) else _plain(value)
        yield f"- {path}: {shown}\n" if path else f"{shown}\n"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------ Office


def _unpacked(path: Path, name: str, limits: Limits) -> None:
    """Refuse what is no archive or would unpack to too much, before anything unpacks it."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            encrypted = any(entry.flag_bits & 1 for entry in entries)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        with path.open("rb") as file:
            old = file.read(4) == b"\xd0\xcf\x11\xe0"
        if old:
            raise BadDataError(
                f"{name}: is encrypted or in an old Office format; save it as an unprotected .docx "
                "or .xlsx",
                f"{name}：已加密或为旧版 Office 格式；请另存为未加密的 .docx 或 .xlsx",
            ) from None
        raise _damaged(name) from None
    if encrypted:
        raise _damaged(name)
    if size > limits.unpacked_bytes or len(entries) > 10_000:
        raise _too_large(name, f"{human_bytes(size)} unpacked", human_bytes(limits.unpacked_bytes))


def _docx(path: Path, name: str, limits: Limits) -> Iterator[str]:
    _unpacked(path, name, limits)
    docx = _extra("docx", name)
    try:
        for block in docx.Document(io.BytesIO(path.read_bytes())).iter_inner_content():
            if hasattr(block, "rows"):
                yield from _rows([cell.text for cell in row.cells] for row in block.rows)
                yield "\n"
                continue
            style = (block.style.name if block.style is not None else "") or ""
            level = re.match(r"(?:Heading|标题) ?([1-6])", style)
            yield f"{'#' * int(level[1])} {block.text}\n\n" if level else f"{block.text}\n\n"
    except (HunyuanError, MemoryError):
        raise
    except Exception as error:  # the library raises what its parsers raise
        raise _damaged(name) from error


def _xlsx(path: Path, name: str, limits: Limits) -> Iterator[str]:
    _unpacked(path, name, limits)
    openpyxl = _extra("openpyxl", name)
    try:
        # Not by its name: it is stored without an ending, which openpyxl insists on.
        file = io.BytesIO(path.read_bytes())
        book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        for sheet in book.worksheets:
            yield f"\n# {sheet.title}\n\n"
            yield from _rows(
                ["" if cell is None else str(cell) for cell in row]
                for row in sheet.iter_rows(max_col=500, values_only=True)
            )
    except (HunyuanError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(name) from error


def _extra(module: str, name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise BadDataError(
            f"{name}: Word and Excel files need an extra; run: pip install 'hunyuan[docs]'",
            f"{name}：读取 Word 和 Excel 文件需要附加组件；请运行：pip install 'hunyuan[docs]'",
        ) from None


# ------------------------------------------------------------ errors


def _damaged(name: str) -> BadDataError:
    return BadDataError(
        f"{name}: is damaged, incomplete or encrypted; open and save it anew without a password",
        f"{name}：文件已损坏、不完整或已加密；请打开后另存为无密码的副本",
    )


def _textless(name: str, kind: Kind) -> BadDataError:
    if kind == "pdf":
        return BadDataError(
            f"{name}: its pages hold no text, only pictures (a scan?); run text recognition (OCR) "
            "on it first",
            f"{name}：页面中没有文字，只有图像（是扫描件吗？）；请先做文字识别（OCR）",
        )
    return BadDataError(f"{name}: holds no text", f"{name}：没有文字内容")


def _too_large(name: str, found: str, limit: str) -> DoesNotFitError:
    return DoesNotFitError(
        f"{name}: is too large ({found}; the limit is {limit}); split it",
        f"{name}：过大（{found}，上限为 {limit}）；请拆分后添加",
    )
