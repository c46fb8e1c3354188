"""Reads a document in a process of its own, which may crash, hang or swell without harm."""

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hunyuan.errors import BadDataError, DoesNotFitError, HunyuanError
from hunyuan.files import human_bytes
from hunyuan.knowledge.document import Kind, Limits, Page

_CHUNK = 65536
_POLL_SECONDS = 0.25


class ReadingStoppedError(HunyuanError):
    """The reader was told to stop."""

    def __init__(self) -> None:
        super().__init__("cancelled", "已取消")


def read_document(
    path: Path,
    name: str,
    kind: Kind,
    limits: Limits | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Page]:
    """The pages of the file at ``path``, as they are read; ``name`` is what errors call it.

    Raises `BadDataError` or `DoesNotFitError` for what cannot be read, `ReadingStoppedError` soon
    after ``cancelled()`` is true. Blocks: not for an event loop.
    """
    limits = limits or Limits()
    process = subprocess.Popen(
        [
            *(sys.executable, "-s", "-m", "hunyuan.knowledge.inside"),
            *(str(path), name, kind, json.dumps(dataclasses.asdict(limits))),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": "/usr/bin:/bin"},
        cwd="/",
    )
    try:
        characters = 0
        for said in _lines(process, name, limits, cancelled):
            if "error" in said:
                raise BadDataError(*said["error"])
            if "memory" in said:
                raise _no_memory(name, limits)
            if "end" in said:
                return
            characters += len(said["text"])
            if characters > limits.characters:  # the process is not trusted to have counted
                raise _crashed(name)
            yield Page(said["page"], said["text"], said["of"])
        raise _no_memory(name, limits) if process.wait() == -9 else _crashed(name)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _lines(
    process: subprocess.Popen[bytes], name: str, limits: Limits, cancelled: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    end = time.monotonic() + limits.seconds
    held = bytearray()
    last = time.monotonic()
    while True:
        if cancelled():
            raise ReadingStoppedError
        now = time.monotonic()
        if now > end or now > last + limits.seconds_a_page:
            raise BadDataError(
                f"{name}: took more than {limits.seconds_a_page:.0f} s for a page or "
                f"{limits.seconds:.0f} s in all; print it to a new PDF and add that",
                f"{name}：单页超过 {limits.seconds_a_page:.0f} 秒"
                f"或总计超过 {limits.seconds:.0f} 秒；请打印为新的 PDF 后添加",
            )
        if not select.select([descriptor], [], [], _POLL_SECONDS)[0]:
            continue
        data = os.read(descriptor, _CHUNK)
        if not data:
            return
        held += data
        if b"\n" not in data:
            if len(held) > 6 * limits.characters + _CHUNK:
                raise _crashed(name)
            continue
        *lines, rest = held.split(b"\n")
        held = bytearray(rest)
        for line in lines:
            yield json.loads(line)
        last = time.monotonic()


def _crashed(name: str) -> BadDataError:
    return BadDataError(
        f"{name}: the reader broke down on it; the file is damaged or made to do harm",
        f"{name}：读取程序崩溃；文件已损坏或为恶意构造",
    )


def _no_memory(name: str, limits: Limits) -> DoesNotFitError:
    most = human_bytes(limits.memory_bytes)
    return DoesNotFitError(
        f"{name}: needs more than {most} to be read; split it",
        f"{name}：读取所需内存超过 {most}；请拆分后添加",
    )
