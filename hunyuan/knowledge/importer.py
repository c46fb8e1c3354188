"""Reads, cuts, indexes and embeds documents in the background, one at a time.

What is to be done stands in the catalogue, so a killed import is taken up at the next start. A
document is found by its words as soon as all of it is indexed; its vectors, which take longer,
follow and count once all are there.
"""

import logging
import threading
from pathlib import Path

from hunyuan.errors import HunyuanError
from hunyuan.knowledge.catalogue import Catalogue, Document, UnknownIdError
from hunyuan.knowledge.chunks import Chunk, cut
from hunyuan.knowledge.document import Limits, Page
from hunyuan.knowledge.embedder import Embedder
from hunyuan.knowledge.reading import ReadingStoppedError, read_document
from hunyuan.knowledge.retriever import Entry, Retriever

log = logging.getLogger(__name__)

EMBED_BATCH = 8
INDEX_BATCH = 2000
RETRY_SECONDS = 30.0


class Importer:
    """A thread that works as long as there is something to do; `stop` ends it soon."""

    def __init__(
        self,
        catalogue: Catalogue,
        retriever: Retriever,
        embedder: Embedder | None,
        files: Path,
        limits: Limits,
    ) -> None:
        self._catalogue = catalogue
        self._retriever = retriever
        self._embedder = embedder
        self._files = files
        self._limits = limits
        self._wake = threading.Condition()
        self._work = False
        self._stopping = False
        self._read_now: tuple[str, int, int | None] | None = None
        self._dropped: set[str] = set()
        self.embedding_error: HunyuanError | None = None
        """Why vectors cannot be made, once that is known."""

        # Between deciding that a document is still wanted and having indexed it, it cannot go.
        self.lock = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="import", daemon=True)

    def start(self) -> None:
        """Begin with what was left undone."""
        self.notify()
        self._thread.start()

    def stop(self) -> None:
        """End after the current step; the rest is done at the next start. May be repeated."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def notify(self) -> None:
        """There is something new to do."""
        with self._wake:
            self._work = True
            self._wake.notify()

    def drop(self, document: str) -> None:
        """Stop reading this document; called while `lock` is held, before it is deleted."""
        self._dropped.add(document)

    def reading(self, document: str) -> tuple[int, int | None] | None:
        """Pages read and pages in all (if known) of the document that is being read now."""
        now = self._read_now
        return (now[1], now[2]) if now is not None and now[0] == document else None

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        failed = False
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._work or self._stopping, RETRY_SECONDS if failed else None
                )
                if self._stopping:
                    return
                self._work = False
            failed = False
            try:
                while not self._stopping and self._step():
                    pass
            except Exception as error:
                # What keeps the documents failed (a full disk, a server that is away).
                log.error("the import waits: %s", type(error).__name__)
                failed = True

    def _step(self) -> bool:
        """One document read, or a few passages embedded; False if there was nothing to do."""
        document = self._catalogue.unread()
        if document is not None:
            self._import(document)
            return True
        return self._embed_some()

    def _import(self, document: Document) -> None:
        # The same document may have been deleted and added again since.
        self._dropped.discard(document.id)
        try:
            pages, chunks = self._read(document)
            self._index(document, pages, chunks)
        except (ReadingStoppedError, UnknownIdError):
            pass  # deleted meanwhile, or the process ends: it is read at the next start
        except HunyuanError as error:
            self._fail(document, error.en, error.zh)
        except Exception as error:
            log.exception("a document could not be imported")
            kind = type(error).__name__
            self._fail(
                document,
                f"{document.name}: could not be imported, internal error ({kind})",
                f"{document.name}：导入失败，内部错误（{kind}）",
            )
        finally:
            self._read_now = None

    def _read(self, document: Document) -> tuple[list[Page], list[Chunk]]:
        self._catalogue.begin(document.id)
        self._read_now = (document.id, 0, None)
        pages: list[Page] = []
        chunks: list[Chunk] = []
        heading = ""
        for page in read_document(
            self._files / document.sha256,
            document.name,
            document.kind,
            self._limits,
            lambda: self._stopping or document.id in self._dropped,
        ):
            pages.append(page)
            found, heading = cut(page.text, page.number, heading)
            chunks += found
            self._read_now = (document.id, len(pages), page.of)
        return pages, chunks

    def _index(self, document: Document, pages: list[Page], chunks: list[Chunk]) -> None:
        with self.lock:
            self._catalogue.keep(document.id, pages, chunks)
            self._retriever.delete(document=document.id)
            entries = [
                Entry(id, document.collection, document.id, text)
                for id, text in self._catalogue.chunk_texts(document)
            ]
            for start in range(0, len(entries), INDEX_BATCH):
                self._retriever.upsert(entries[start : start + INDEX_BATCH])
            self._catalogue.set_ready(document.id)

    def _fail(self, document: Document, en: str, zh: str) -> None:
        with self.lock:
            self._retriever.delete(document=document.id)
            self._catalogue.set_failed(document.id, en, zh)

    def _embed_some(self) -> bool:
        if self._embedder is None or self.embedding_error is not None:
            return False
        model = self._embedder.id
        document = self._catalogue.unembedded(model)
        if document is None:
            return False
        texts = dict(self._catalogue.chunk_texts(document))
        missing = [id for id in self._retriever.unembedded(document.id, model) if id in texts]
        while missing and not self._stopping and self._catalogue.unread() is None:
            batch, missing = missing[:EMBED_BATCH], missing[EMBED_BATCH:]
            try:
                vectors = self._embedder.embed_passages([texts[id] for id in batch])
            except HunyuanError as error:
                log.error("no vectors: %s", error)
                self.embedding_error = error
                return False
            with self.lock:
                if not self._catalogue.exists(document.id):
                    return True
                self._retriever.embed(document.id, model, dict(zip(batch, vectors, strict=True)))
                self._catalogue.set_embedded(document.id, model, len(texts) - len(missing))
        if not missing:
            self._catalogue.set_embedded(document.id, model, len(texts))
        return True
