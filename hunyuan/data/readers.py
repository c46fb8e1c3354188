"""Files to documents: jsonl, parquet, text, HTML and source code, whole or in parts.

datatrove's own readers skip what they cannot read with a line in a log and share out whole files;
here each unreadable line is counted and named, and large files are shared by lines. Bytes that are
no text are a bad line of a jsonl file and a bad file otherwise.
"""

# mypy: disable-error-code="misc"

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson
import pyarrow
import pyarrow.parquet
import zstandard
from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.readers.base import BaseReader

from hunyuan.data.inputs import Piece, read_pieces
from hunyuan.data.languages import language_of
from hunyuan.data.recipe import Label, Recipe
from hunyuan.data.tally import Tally
from hunyuan.errors import BadDataError

_LABELS: dict[str, Label] = {"zh": "zh", "chinese": "zh", "en": "en", "english": "en"}


class CorpusReader(BaseReader):
    """The documents of one task, in the order of the recipe's sources.

    A document's id names its file, line and title; its metadata are ``source``, ``label``
    (language), ``category`` and ``priority`` (of the earlier source, the higher).
    """

    name = "corpus"

    def __init__(self, recipe: Recipe, inputs: Path, tallies: Path) -> None:
        super().__init__()
        self.recipe = recipe
        self.inputs = inputs
        self.tallies = tallies

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents of the task ``rank``; tallies what was read and what could not be."""
        tally = Tally(examples=20)
        html = Trafilatura(favour_precision=False, deduplicate=False)
        for piece in read_pieces(self.inputs / f"{rank:05d}.json"):
            source = self.recipe.source[piece.source]
            records = piece.kind in ("jsonl", "parquet")
            fields = source.text if records else ("text",)
            for place, content in _contents(piece, fields, source.encoding):
                name = f"{source.name}/{piece.name}{place}"
                if isinstance(content, str):
                    tally.add(source.name, "bad lines")
                    tally.show(source.name, "bad lines", name, content)
                    continue
                text = "\n".join(content[field] for field in fields)
                if piece.kind == "html":
                    text = html.extract(text) or ""
                tally.add(source.name, "read")
                tally.add(source.name, "read bytes", len(text.encode("utf-8", "replace")))
                metadata = {
                    "source": source.name,
                    "label": source.language or _label(content, piece, text),
                    "category": source.category,
                    "priority": 65535 - piece.source,
                }
                license = content.get("license")
                if isinstance(license, str) and license != source.license:
                    tally.add(source.name, f"license {license}")
                title = content.get("title")
                if isinstance(title, str) and title:
                    name += f" {title[:80]}"
                yield Document(text=text, id=name, metadata=metadata)
        tally.write(self.tallies / f"{rank:05d}.json")


def _label(content: dict[str, Any], piece: Piece, text: str) -> Label:
    if piece.kind == "code":
        return "code"
    stated = str(content.get("lang", "")).lower().replace("_", "-").split("-")[0]
    return _LABELS.get(stated) or language_of(text)


def _contents(
    piece: Piece, fields: tuple[str, ...], encoding: str
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Place in the file and fields of each document; what is wrong with it as a text."""
    path = Path(piece.path)
    try:
        if piece.kind == "jsonl":
            yield from _lines(path, piece, fields)
        elif piece.kind == "parquet":
            yield from _rows(path, piece, fields)
        else:
            yield "", _file(path, encoding)
    except (OSError, EOFError, zstandard.ZstdError, pyarrow.ArrowException) as error:
        raise BadDataError(
            f"{path}: cannot be read to its end ({' '.join(str(error).split())}); fetch the file "
            "again or remove it",
            f"{path}：无法完整读取（{' '.join(str(error).split())}）；请重新获取或移除该文件",
        ) from error


def _lines(
    path: Path, piece: Piece, fields: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    with _open(path) as file:
        for number, line in enumerate(file):
            if number % piece.parts != piece.part or not line.strip():
                continue
            try:
                content = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield f":{number + 1}", f"no JSON: {error}"
                continue
            yield f":{number + 1}", _checked(content, fields)


def _rows(
    path: Path, piece: Piece, fields: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    with pyarrow.parquet.ParquetFile(path) as table:
        wanted = {*fields, "title", "lang", "license"}
        columns = [name for name in table.schema_arrow.names if name in wanted]
        for group in range(piece.part, table.num_row_groups, piece.parts):
            row = 0
            for batch in table.iter_batches(1000, row_groups=[group], columns=columns):
                for content in batch.to_pylist():
                    row += 1
                    yield f":{group}.{row}", _checked(content, fields)


def _checked(content: Any, fields: tuple[str, ...]) -> dict[str, Any] | str:
    if not isinstance(content, dict):
        return f"no object but {type(content).__name__}"
    for field in fields:
        if not isinstance(content.get(field), str):
            return f"field {field!r} is {'no text' if field in content else 'missing'}"
    return content


def _file(path: Path, encoding: str) -> dict[str, Any] | str:
    with _open(path) as file:
        try:
            return {"text": file.read().decode(encoding)}
        except UnicodeDecodeError as error:
            return f"no {encoding} text: {error.reason} at byte {error.start}"


def _open(path: Path) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if suffix == ".zst":
        raw = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, raw)))
    return path.open("rb")
