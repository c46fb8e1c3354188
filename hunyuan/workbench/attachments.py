"""Documents beside a message: read once, then given to the model as quoted data."""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hunyuan.errors import BadDataError, DoesNotFitError, Language
from hunyuan.knowledge.document import Limits, has_pages, kind_of
from hunyuan.knowledge.reading import read_document
from hunyuan.workbench.conversation_records import Message
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.templates import Templates

LIMITS = Limits(pages=1000, characters=2_000_000, seconds=60.0)
"""More than any model here reads at once."""

FRAME_FIELDS = {"name", "mark", "text"}


@dataclass(frozen=True)
class Reading:
    """What a reader made of a file."""

    kind: str
    text: str
    pages: int | None = None
    notices: Sequence[str] = ()
    """What could not be read, in the reader's language."""


def document_reader() -> "Reader":
    """Reads files as `hunyuan.knowledge` does, two at a time, each in a process of its own."""
    free = asyncio.Semaphore(2)

    def in_thread(name: str, path: Path, stopped: threading.Event) -> Reading:
        kind = kind_of(name)
        pages = list(read_document(path, name, kind, LIMITS, stopped.is_set))
        text = "\n\n".join(page.text for page in pages)
        return Reading(kind, text, len(pages) if has_pages(kind) else None)

    async def read(name: str, path: Path, lang: Language) -> Reading:
        stopped = threading.Event()
        try:
            async with free:
                return await asyncio.to_thread(in_thread, name, path, stopped)
        except (BadDataError, DoesNotFitError) as error:
            raise RefusedError(error.en, error.zh, code="unreadable", param="name") from error
        finally:
            stopped.set()

    return read


Reader = Callable[[str, Path, Language], Awaitable[Reading]]
"""Reads the file at a path, called by a name; raises `UsageError` where it cannot."""


def framed(templates: Templates, name: str, text: str, language: Language) -> str:
    """A document's text in its frame, which nothing inside can end."""
    template = templates.get("chat", "attachment", language, FRAME_FIELDS)
    # The text would have to contain a piece of its own hash.
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    plain_name = " ".join(name.replace('"', "'").split())
    messages = template.messages({"name": plain_name, "mark": mark, "text": text})
    return str(messages[-1]["content"])


def sent_content(
    message: Message, texts: Mapping[str, str], templates: Templates, language: Language
) -> str:
    """What the model is given for a message: its documents in their frames, then its text."""
    frames = [
        framed(templates, attachment.name, texts[attachment.id], language)
        for attachment in message.attachments
    ]
    return "\n\n".join([*frames, message.content])
