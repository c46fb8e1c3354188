"""Token sets: documents as token ids on disk, in files that Megatron reads too.

A token set is a folder:

    manifest.json                 what is here, with sizes and hashes
    tokenizer/                    the tokenizer's own files
    train/<source>/00000.bin      token ids of all documents, one after the other
    train/<source>/00000.idx      where each document begins
    heldout/<source>/...          the same, for measuring

``.bin`` is little-endian int32, nothing else; every document ends with the end-of-text id. ``.idx``
is Megatron's MMIDIDX, version 1, in which a document here is one sequence:

    offset 0     9 bytes          "MMIDIDX" and two zero bytes
    offset 9     uint64           version, 1
    offset 17    uint8            type of a token, 4 = int32
    offset 18    uint64           sequences, n
    offset 26    uint64           entries of the last table, n + 1
    offset 34    int32 [n]        tokens of each sequence
    then         int64 [n]        byte at which each begins in the .bin
    then         int64 [n + 1]    first sequence of each document: 0, 1, ... n

Reading maps the files into memory: opening costs a stat per file, a shard's index is read when the
first of its documents is, and a document is a view of the file. Each mapped shard holds two file
descriptors, so shards should be large (the pipeline writes about 256 million tokens in each).
"""

import hashlib
import json
import shutil
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hunyuan.errors import BadDataError, UsageError
from hunyuan.files import atomic_file
from hunyuan.tokenizer.save import save_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer

Split = Literal["train", "heldout"]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = np.dtype(
    [("magic", "V9"), ("version", "<u8"), ("kind", "u1"), ("sequences", "<u8"), ("ends", "<u8")]
)
_INT32 = 4
_TOKEN = np.dtype("<i4")
_OFFSET = np.dtype("<i8")
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """What the manifest says about one pair of files."""

    split: Split
    """Part of the set."""

    source: str
    """Name of the source, also the name of the folder."""

    number: int
    """Place among the shards of the source, and name of the files."""

    language: str
    """``zh``, ``en``, ``code`` or ``mixed``."""

    license: str
    """Licence of the source, as the recipe states it."""

    documents: int
    """Documents in it."""

    tokens: int
    """Tokens in it, each document's end-of-text token included."""

    utf8_bytes: int
    """Bytes of the text before it became tokens, so that losses per byte can be told."""

    bin_sha256: str
    """Hash of the tokens."""

    idx_sha256: str
    """Hash of the index."""

    @property
    def stem(self) -> str:
        """Path below the set, without suffix."""
        return f"{self.split}/{self.source}/{self.number:05d}"


class ShardWriter:
    """Writes one shard, document by document; the files take their names only at the end.

        with ShardWriter(stem, vocab=vocab, end_id=end) as writer:
            writer.add(ids, utf8_bytes=len(text.encode()))

    The index is written last, so a shard whose index exists is complete. Keeps four bytes per
    document in memory. After the block, ``bin_sha256`` and ``idx_sha256`` are known.
    """

    def __init__(self, stem: Path, *, vocab: int, end_id: int) -> None:
        assert 0 <= end_id < vocab, (end_id, vocab)
        self.tokens = 0
        self.utf8_bytes = 0
        self.bin_sha256 = ""
        self.idx_sha256 = ""
        self._stem = stem
        self._vocab = vocab
        self._end = np.array([end_id], _TOKEN)
        self._lengths = array("i")
        self._hash = hashlib.sha256()
        self._stack = ExitStack()
        self._bin: BinaryIO | None = None

    @property
    def documents(self) -> int:
        """Documents written so far."""
        return len(self._lengths)

    def __enter__(self) -> "ShardWriter":
        self._stem.with_suffix(".idx").unlink(missing_ok=True)
        self._bin = self._stack.enter_context(atomic_file(self._stem.with_suffix(".bin")))
        return self

    def add(self, ids: Sequence[int] | NDArray[np.int32], *, utf8_bytes: int) -> None:
        """Append a document, given without its end-of-text token."""
        assert self._bin is not None, "outside of the with block"
        document = np.concatenate((np.asarray(ids, _TOKEN), self._end))
        assert int(document.min()) >= 0, "an id is no token"
        assert int(document.max()) < self._vocab, "an id is no token"
        content = document.tobytes()
        self._bin.write(content)
        self._hash.update(content)
        self._lengths.append(len(document))
        self.tokens += len(document)
        self.utf8_bytes += utf8_bytes

    def copy(self, shard: "Shard", begin: int, end: int) -> None:
        """Append the documents ``begin`` to ``end`` of another shard of the same vocabulary.

        A part of a shard gets its share of the bytes of text by tokens; the parts add up.
        """
        assert self._bin is not None, "outside of the with block"
        for first in range(begin, end, _AT_ONCE):
            last = min(first + _AT_ONCE, end)
            content = shard.tokens_of(first, last).tobytes()
            self._bin.write(content)
            self._hash.update(content)
            self._lengths.frombytes(shard.lengths[first:last].tobytes())
            self.tokens += len(content) // _TOKEN.itemsize
        self.utf8_bytes += shard.bytes_before(end) - shard.bytes_before(begin)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._bin = None
        if error is not None:
            return
        index = _index(np.frombuffer(self._lengths, np.int32))
        with atomic_file(self._stem.with_suffix(".idx")) as file:
            file.write(index)
        self.bin_sha256 = self._hash.hexdigest()
        self.idx_sha256 = hashlib.sha256(index).hexdigest()

    def record(
        self, *, split: Split, source: str, number: int, language: str, license: str
    ) -> ShardRecord:
        """The manifest's entry of the shard that was written."""
        assert self.idx_sha256, "inside of the with block"
        return ShardRecord(
            split=split,
            source=source,
            number=number,
            language=language,
            license=license,
            documents=self.documents,
            tokens=self.tokens,
            utf8_bytes=self.utf8_bytes,
            bin_sha256=self.bin_sha256,
            idx_sha256=self.idx_sha256,
        )


def _index(lengths: NDArray[np.int32]) -> bytes:
    header = np.zeros((), _HEADER)
    header["magic"] = _MAGIC
    header["version"], header["kind"] = 1, _INT32
    header["sequences"], header["ends"] = len(lengths), len(lengths) + 1
    begins = _begins(lengths) * _TOKEN.itemsize
    documents = np.arange(len(lengths) + 1, dtype=_OFFSET)
    parts = (header, lengths.astype(_TOKEN), begins.astype(_OFFSET), documents)
    return b"".join(part.tobytes() for part in parts)


def _begins(lengths: NDArray[np.int32]) -> NDArray[np.int64]:
    wide = lengths.astype(np.int64)
    return np.cumsum(wide) - wide


class Shard:
    """One mapped pair of files; `BadDataError` if they are not what the manifest says."""

    def __init__(self, folder: Path, record: ShardRecord) -> None:
        self.record = record
        self._stem = folder / record.stem
        self._check_sizes()

    @property
    def paths(self) -> tuple[Path, Path]:
        """The files of tokens and of the index."""
        return self._stem.with_suffix(".bin"), self._stem.with_suffix(".idx")

    def document(self, i: int) -> NDArray[np.int32]:
        """Token ids of document ``i`` of this shard, a read-only view of the file."""
        begin = int(self._ranges[0][i])
        tokens: NDArray[np.int32] = self._tokens[begin : begin + int(self.lengths[i])]
        return tokens

    def tokens_of(self, first: int, last: int) -> NDArray[np.int32]:
        """Token ids of the documents ``first`` up to ``last``, one after the other."""
        tokens: NDArray[np.int32] = self._tokens[self._begin(first) : self._begin(last)]
        return tokens

    def bytes_before(self, i: int) -> int:
        """Bytes of the text before document ``i``, as if all tokens were equally long."""
        return self.record.utf8_bytes * self._begin(i) // max(self.record.tokens, 1)

    def _begin(self, i: int) -> int:
        return int(self._ranges[0][i]) if i < self.record.documents else self.record.tokens

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each document."""
        return self._ranges[1]

    def verify(self) -> None:
        """Compare the hashes of both files; `BadDataError` names the one that was altered."""
        wanted = (self.record.bin_sha256, self.record.idx_sha256)
        for path, sha256 in zip(self.paths, wanted, strict=True):
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise _altered(path)
        assert len(self.lengths) == self.record.documents

    def _check_sizes(self) -> None:
        n = self.record.documents
        index = _HEADER.itemsize + n * (_TOKEN.itemsize + 2 * _OFFSET.itemsize) + _OFFSET.itemsize
        for path, size in zip(
            self.paths, (self.record.tokens * _TOKEN.itemsize, index), strict=True
        ):
            if not path.is_file():
                raise BadDataError(
                    f"{path}: is missing, the manifest names it; copy the set again or prepare "
                    "it again",
                    f"{path}：文件缺失，但清单中列有该文件；请重新复制或重新生成该数据集",
                )
            found = path.stat().st_size
            if found != size:
                raise BadDataError(
                    f"{path}: has {found:,} bytes instead of {size:,}; copy the set again or "
                    "prepare it again",
                    f"{path}：大小为 {found:,} 字节，应为 {size:,} 字节；"
                    "请重新复制或重新生成该数据集",
                )

    @cached_property
    def _tokens(self) -> NDArray[np.int32]:
        path, n = self.paths[0], self.record.tokens
        # A plain view: slices of np.memmap itself cost several times as much.
        return np.asarray(np.memmap(path, _TOKEN, "r", shape=(n,))) if n else np.zeros(0, _TOKEN)

    @cached_property
    def _ranges(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """First token and length of each document."""
        path, n = self.paths[1], self.record.documents
        header = np.fromfile(path, _HEADER, 1)[0]
        expected = (_MAGIC, 1, _INT32, n, n + 1)
        if (bytes(header["magic"]), *(int(header[k]) for k in _HEADER.names[1:])) != expected:  # type: ignore[index]
            raise _altered(path)
        raw = np.asarray(np.memmap(path, np.uint8, "r", offset=_HEADER.itemsize))
        lengths: NDArray[np.int32] = raw[: n * _TOKEN.itemsize].view(_TOKEN)
        begins = _begins(lengths)
        pointers = raw[n * _TOKEN.itemsize :][: n * _OFFSET.itemsize].view(_OFFSET)
        if (
            np.any(lengths < 1)
            or int(lengths.sum(dtype=np.int64)) != self.record.tokens
            or not np.array_equal(pointers, begins * _TOKEN.itemsize)
        ):
            raise _altered(path)
        return begins, lengths


def _altered(path: Path) -> BadDataError:
    return BadDataError(
        f"{path}: was altered since it was written; copy the set again or prepare it again",
        f"{path}：文件写入后被改动；请重新复制或重新生成该数据集",
    )


class Source:
    """All documents of one source in one split, numbered through its shards."""

    def __init__(self, name: str, shards: Sequence[Shard]) -> None:
        records = [shard.record for shard in shards]
        self.name = name
        self.shards = tuple(shards)
        languages = {record.language for record in records}
        self.language = languages.pop() if len(languages) == 1 else "mixed"
        self.license = records[0].license
        self.documents = sum(record.documents for record in records)
        self.tokens = sum(record.tokens for record in records)
        self.utf8_bytes = sum(record.utf8_bytes for record in records)
        self._ends = list(accumulate(record.documents for record in records))

    def document(self, i: int) -> NDArray[np.int32]:
        """Token ids of document ``i``, its end-of-text last: a read-only view of the file."""
        shard, local = self._locate(i)
        return shard.document(local)

    def length(self, i: int) -> int:
        """Tokens of document ``i``."""
        shard, local = self._locate(i)
        return int(shard.lengths[local])

    def lengths(self) -> NDArray[np.int32]:
        """Tokens of every document."""
        return np.concatenate([shard.lengths for shard in self.shards])

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return map(self.document, range(self.documents))

    def _locate(self, i: int) -> tuple[Shard, int]:
        if not 0 <= i < self.documents:
            raise IndexError(f"document {i} of {self.documents} in {self.name}")
        k = bisect_right(self._ends, i)
        return self.shards[k], i - (self._ends[k - 1] if k else 0)


class TokenSet:
    """A prepared set, opened for reading; see the module for what lies in the folder."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.vocab = int(manifest["vocab"])
        self.end_id = int(manifest["end_id"])
        self.tokenizer_sha256 = str(manifest["tokenizer_sha256"])
        self.tokenizer_folder = folder / TOKENIZER
        self.records = tuple(ShardRecord(**entry) for entry in manifest["shards"])
        self._shards = [Shard(folder, record) for record in self.records]

    @staticmethod
    def open(folder: Path, *, verify: bool = False) -> "TokenSet":
        """Open a set; sizes are always checked, every hash with ``verify``.

        `BadDataError` names the file that is missing, cut off or altered, and what to do.
        """
        path = folder / MANIFEST
        manifest = _read_manifest(path)
        try:
            opened = TokenSet(folder, manifest)
        except (KeyError, TypeError, ValueError) as error:
            raise BadDataError(
                f"{path}: is damaged ({type(error).__name__}: {error}); copy the set again or "
                "prepare it again",
                f"{path}：文件损坏（{type(error).__name__}：{error}）；请重新复制或重新生成该数据集",
            ) from error
        if not opened.tokenizer_folder.is_dir():
            raise BadDataError(
                f"{opened.tokenizer_folder}: is missing; copy the set again or prepare it again",
                f"{opened.tokenizer_folder}：目录缺失；请重新复制或重新生成该数据集",
            )
        if verify:
            opened.verify()
        return opened

    def sources(self, split: Split) -> dict[str, Source]:
        """The sources of a split by name, those without a document in it left out."""
        if split not in get_args(Split):
            raise UsageError(
                f"split={split!r} is unknown; use {' or '.join(get_args(Split))}",
                f"未知的划分 split={split!r}；请使用 {' 或 '.join(get_args(Split))}",
            )
        by_name: dict[str, list[Shard]] = {}
        for shard in self._shards:
            if shard.record.split == split and shard.record.documents:
                by_name.setdefault(shard.record.source, []).append(shard)
        return {name: Source(name, shards) for name, shards in by_name.items()}

    def verify(self) -> None:
        """Read everything and compare hashes; `BadDataError` names the first bad file."""
        if folder_sha256(self.tokenizer_folder) != self.tokenizer_sha256:
            raise _altered(self.tokenizer_folder)
        for shard in self._shards:
            shard.verify()


def _read_manifest(path: Path) -> Mapping[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadDataError(
            f"{path}: not found; give the folder that `hunyuan data prepare` wrote",
            f"{path}：文件不存在；请给出 `hunyuan data prepare` 生成的目录",
        ) from error
    except (ValueError, NotADirectoryError) as error:
        raise BadDataError(
            f"{path}: is no valid JSON ({error}); copy the set again or prepare it again",
            f"{path}：不是有效的 JSON（{error}）；请重新复制或重新生成该数据集",
        ) from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise BadDataError(
            f"{path}: format_version={version!r}, this program reads {FORMAT_VERSION}; prepare "
            "the set again",
            f"{path}：format_version={version!r}，本程序支持 {FORMAT_VERSION}；请重新生成该数据集",
        )
    return MappingProxyType(manifest)


def write_manifest(
    folder: Path, records: Sequence[ShardRecord], *, vocab: int, end_id: int
) -> None:
    """Write the manifest over finished shards and ``tokenizer/``: from now on it is a set."""
    manifest = {
        "format_version": FORMAT_VERSION,
        "vocab": vocab,
        "end_id": end_id,
        "tokenizer_sha256": folder_sha256(folder / TOKENIZER),
        "shards": [asdict(record) for record in records],
    }
    with atomic_file(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, ensure_ascii=False, indent=1).encode() + b"\n")


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Put the tokenizer's files into a set that is being written, in place of any there."""
    target = folder / TOKENIZER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    save_tokenizer(tokenizer, target)


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """The id that ends documents: ``<|endoftext|>``, else the tokenizer's end of sequence."""
    end = tokenizer.specials.get("<|endoftext|>", tokenizer.eos_id)
    if end is None:
        raise UsageError(
            "the tokenizer has neither <|endoftext|> nor an end-of-sequence token, so documents "
            "could not be told apart; name an eos_token in its tokenizer_config.json",
            "分词器既没有 <|endoftext|> 也没有结束词元，无法区分文档；"
            "请在 tokenizer_config.json 中指定 eos_token",
        )
    return end


def folder_sha256(folder: Path) -> str:
    """One hash over the names and contents of the files directly in ``folder``."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        content = path.read_bytes()
        whole.update(f"{path.name}\0{len(content)}\0".encode())
        whole.update(content)
    return whole.hexdigest()


def write_token_set(
    folder: Path,
    tokenizer: Tokenizer,
    splits: Mapping[Split, Mapping[str, Sequence[str]]],
    *,
    language: str,
    license: str,
) -> TokenSet:
    """Write texts by split and source as a set, one shard each: for small data, in one process."""
    vocab, end_id = tokenizer.vocab_size, end_of_text_id(tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, tokenizer)
    records = []
    for split, sources in splits.items():
        for source, texts in sources.items():
            with ShardWriter(folder / split / source / "00000", vocab=vocab, end_id=end_id) as w:
                for text in texts:
                    w.add(tokenizer.encode(text), utf8_bytes=len(text.encode()))
            records.append(
                w.record(split=split, source=source, number=0, language=language, license=license)
            )
    write_manifest(folder, records, vocab=vocab, end_id=end_id)
    return TokenSet.open(folder)
