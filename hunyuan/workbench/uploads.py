"""Bodies of bytes, received into a file: counted, hashed, and never held in memory."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from hunyuan.files import disk_errors
from hunyuan.workbench.refusal import RefusedError

_PIECE = 1 << 20
"""Bytes written at once."""


@dataclass(frozen=True)
class Upload:
    """A file that was received whole."""

    path: Path
    size: int
    sha256: str


@asynccontextmanager
async def received(request: Request, limit: int, folder: Path | None) -> AsyncIterator[Upload]:
    """The body of ``request`` in a file of ``folder``, which is gone afterwards.

    ``folder`` None: where the system keeps temporary files. Raises `RefusedError` (413) as soon as
    there are more than ``limit`` bytes, and what `hunyuan.files.disk_errors` makes of a full disk.
    """
    folder = folder or Path(tempfile.gettempdir())
    with disk_errors(folder):
        made = tempfile.NamedTemporaryFile(dir=folder, prefix=".upload-")  # noqa: SIM115
    with made as file:
        digest = hashlib.sha256()
        path = Path(file.name)

        def write(data: bytes) -> None:
            digest.update(data)
            with disk_errors(folder):
                file.write(data)
                file.flush()

        size = 0
        held = bytearray()
        async for data in request.stream():
            size += len(data)
            if size > limit:
                raise too_large(limit)
            held += data
            if len(held) >= _PIECE:
                await asyncio.to_thread(write, bytes(held))
                held.clear()
        await asyncio.to_thread(write, bytes(held))
        yield Upload(path, size, digest.hexdigest())


def too_large(limit: int) -> RefusedError:
    """What a file of more than ``limit`` bytes is refused with."""
    return RefusedError(
        f"the file is larger than {limit >> 20} MiB",
        f"文件超过 {limit >> 20} MiB",
        status=413,
        code="request_too_large",
    )
