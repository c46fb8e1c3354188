"""The user's documents: collections, uploads, imports, search. The one door to this package."""

import contextlib
import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hunyuan.errors import DoesNotFitError, HunyuanError, Language
from hunyuan.files import PARTIAL, disk_errors, human_bytes
from hunyuan.knowledge.catalogue import Catalogue, Collection, Document, file_name
from hunyuan.knowledge.document import Limits, kind_of
from hunyuan.knowledge.embedder import Embedder, Remembering
from hunyuan.knowledge.importer import Importer
from hunyuan.knowledge.retriever import Retriever
from hunyuan.knowledge.search import Found, search
from hunyuan.knowledge.sqlite_index import SqliteIndex
from hunyuan.knowledge.words import is_chinese


class TooLargeError(DoesNotFitError):
    """An upload is larger than a document may be."""


@dataclass(frozen=True)
class Progress:
    """A document and how far it is."""

    document: Document
    pages_read: int
    pages: int | None
    embedder: bool
    """Whether there is anything that makes vectors."""

    embedding: bool
    """Whether its vectors are still being made."""

    @property
    def busy(self) -> bool:
        """Whether anything is still to be done for it."""
        return self.document.state in ("waiting", "reading") or self.embedding


class KnowledgeBase:
    """Collections of documents in one SQLite file and a folder of originals, by their SHA-256.

    Only one may be open on a file. ``retriever`` None: the index lies in the same file.
    ``embedder`` None: search goes by words alone. Methods block for as long as the disk does, and
    may be called from any thread.
    """

    def __init__(
        self,
        path: Path,
        files: Path,
        *,
        embedder: Embedder | None = None,
        retriever: Retriever | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._files = files
        with disk_errors(files):
            files.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._catalogue = Catalogue(path)
        self._retriever = retriever or SqliteIndex(path)
        self._embedder = None if embedder is None else Remembering(embedder)
        self._remove_orphans()
        self._importer = Importer(self._catalogue, self._retriever, embedder, files, self.limits)
        self._importer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop importing (the next start goes on) and close the file. May be repeated."""
        self._importer.stop()
        self._retriever.close()
        self._catalogue.close()

    @property
    def embedder(self) -> Embedder | None:
        """What makes vectors; None if nothing does, or if it turned out not to work."""
        return None if self._importer.embedding_error is not None else self._embedder

    @property
    def embedding_error(self) -> HunyuanError | None:
        """Why the embedding model that is there does not work."""
        return self._importer.embedding_error

    # ------------------------------------------------------------ collections

    def collections(self) -> list[Collection]:
        """All of them, oldest first."""
        return self._catalogue.collections()

    def collection(self, id: str) -> Collection:
        """One; `UnknownIdError` if there is none."""
        return self._catalogue.collection(id)

    def create_collection(self, name: str) -> Collection:
        """A new, empty one."""
        return self._catalogue.create_collection(name)

    def rename_collection(self, id: str, name: str) -> Collection:
        """The collection with its new name."""
        self._catalogue.collection(id)
        return self._catalogue.rename_collection(id, name)

    def delete_collection(self, id: str) -> None:
        """Delete it with its documents, their text, vectors and originals."""
        documents = self._catalogue.documents(id)
        for document in documents:
            self._importer.drop(document.id)
        with self._importer.lock:
            self._retriever.delete(collection=id)
            self._catalogue.delete_collection(id)
            self._remove_files({document.sha256 for document in documents})

    # ------------------------------------------------------------ documents

    def upload(self, collection: str, name: str) -> "Upload":
        """Begin to add a document; refuses unknown collections and kinds at once."""
        self._catalogue.collection(collection)
        name = file_name(name)
        kind_of(name)
        return Upload(self, self._files, collection, name, self.limits.file_bytes)

    def documents(self, collection: str) -> list[Document]:
        """Those of a collection, in the order they came."""
        return self._catalogue.documents(collection)

    def document(self, id: str) -> Document:
        """One; `UnknownIdError` if there is none."""
        return self._catalogue.document(id)

    def delete_document(self, id: str) -> None:
        """Delete it with its text, vectors and original; an import of it ends."""
        document = self._catalogue.document(id)
        self._importer.drop(id)
        with self._importer.lock:
            self._retriever.delete(document=id)
            self._catalogue.delete_document(id)
            self._remove_files({document.sha256})

    def progress(self, collection: str) -> list[Progress]:
        """How far each document of a collection is."""
        return [self._progress(document) for document in self._catalogue.documents(collection)]

    def progress_of(self, id: str) -> Progress:
        """How far one document is."""
        return self._progress(self._catalogue.document(id))

    def page(self, document: str, number: int) -> str:
        """The text of a page (or part), counted from 1."""
        return self._catalogue.page(document, number)

    def original(self, document: str) -> Path:
        """The file as it was uploaded."""
        return self._files / self._catalogue.document(document).sha256

    def search(self, collection: str, question: str, limit: int = 5) -> Found:
        """The passages of a collection that may answer a question."""
        self._catalogue.collection(collection)
        return search(self._catalogue, self._retriever, self.embedder, collection, question, limit)

    def languages(self, collection: str) -> set[Language]:
        """Which of our languages the documents of a collection are in, by their first pages."""
        return {
            "zh" if is_chinese(self._catalogue.page(document.id, number)) else "en"
            for document in self._catalogue.documents(collection)
            if document.state == "ready"
            for number in range(1, min(document.pages, 3) + 1)
        }

    # ------------------------------------------------------------ inside

    def received(
        self, collection: str, name: str, aside: Path, digest: str, size: int
    ) -> tuple[Document, bool]:
        """Take over an uploaded file and note that it waits; called by `Upload`."""
        with self._importer.lock:
            target = self._files / digest
            with disk_errors(target):
                aside.replace(target)
            added = self._catalogue.add(collection, name, kind_of(name), digest, size)
        self._importer.notify()
        return added

    def _progress(self, document: Document) -> Progress:
        read, pages = self._importer.reading(document.id) or (
            document.pages,
            document.pages or None,
        )
        embedder = self.embedder
        embedding = (
            embedder is not None
            and document.state == "ready"
            and (document.embedded < document.chunks or document.embedded_by != embedder.id)
            and document.chunks > 0
        )
        return Progress(document, read, pages, embedder is not None, embedding)

    def _remove_files(self, digests: set[str]) -> None:
        for digest in digests - self._catalogue.hashes():
            with contextlib.suppress(FileNotFoundError):
                (self._files / digest).unlink()

    def _remove_orphans(self) -> None:
        """Files that a killed upload or deletion left behind."""
        known = self._catalogue.hashes()
        for path in self._files.iterdir():
            if path.is_file() and path.name not in known:
                path.unlink()


class Upload:
    """A document on its way in: `write` its bytes, then `finish`; else leaving drops it."""

    def __init__(
        self, base: KnowledgeBase, files: Path, collection: str, name: str, most: int
    ) -> None:
        self._base = base
        self._collection = collection
        self._name = name
        self._most = most
        self._size = 0
        self._digest = hashlib.sha256()
        self._aside = files / f".{uuid.uuid4().hex}{PARTIAL}"
        self._file = self._aside.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Append bytes; `TooLargeError` beyond the limit, `DoesNotFitError` for a full disk."""
        self._size += len(data)
        if self._size > self._most:
            most = human_bytes(self._most)
            raise TooLargeError(
                f"{self._name}: is larger than {most}; split it",
                f"{self._name}：超过 {most}；请拆分后添加",
            )
        self._digest.update(data)
        with disk_errors(self._aside):
            self._file.write(data)

    def finish(self) -> tuple[Document, bool]:
        """The document that now waits to be read, and whether it was not there before."""
        with disk_errors(self._aside):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        return self._base.received(
            self._collection, self._name, self._aside, self._digest.hexdigest(), self._size
        )
