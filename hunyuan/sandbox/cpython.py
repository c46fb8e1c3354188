"""Full Python behind `walls`; refuses where none stand.

A program sees an interpreter and the installed packages, read-only, and a private folder that ends
with it. It has no network, no other process, no inherited environment, and cannot start a process.
It limits its own memory, processor time and files; its time on the clock is kept from outside.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from hunyuan.errors import UsageError
from hunyuan.sandbox.layers import Layer, reasons
from hunyuan.sandbox.result import (
    MAX_VALUE_CHARACTERS,
    BusyError,
    Failure,
    Limits,
    RunError,
    RunResult,
    require_short,
)
from hunyuan.sandbox.walls import ENVIRONMENT, Bubblewrap, Sandlock, Walls

_MAX_FILE_BYTES = 16 * 1024**2
_MAX_OUTCOME_BYTES = 64 * 1024
_CHUNK = 65536
_LIMITS_LAYER = Layer(
    id="limits",
    on=True,
    name_en="limits on time, memory and files; no inherited environment",
    name_zh="限制时间、内存和文件；不继承环境变量",
)


class CPythonRunner:
    """Runs programs in full Python, at most ``at_once`` at a time; one more is refused."""

    name = "cpython"

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        at_once: int = 2,
        choices: Sequence[Walls] | None = None,
    ) -> None:
        """``choices`` are tried in order; by default bubblewrap, then sandlock."""
        self.limits = limits or Limits(seconds=10.0, memory_bytes=1024**3)
        self._free = at_once
        self._choices = (Bubblewrap(), Sandlock()) if choices is None else choices
        self._found: tuple[Walls | None, list[Layer]] | None = None

    async def layers(self) -> list[Layer]:
        """What holds a program here, or would; tried out once."""
        return (await self._walls())[1]

    async def run(self, code: str) -> RunResult:
        """Run a program; see `Runner.run`. Raises `UsageError` naming the layers that lack."""
        require_short(code)
        walls, layers = await self._walls()
        if walls is None:
            en, zh = reasons(layers) or ("", "")
            raise UsageError(
                f"runner=cpython: full Python cannot be held here ({en}); use runner=monty",
                f"runner=cpython：此处无法隔离完整 Python（{zh}）；请使用 runner=monty",
            )
        if not self._free:
            raise BusyError()
        self._free -= 1
        try:
            return await self._held(walls, code)
        finally:
            self._free += 1

    async def close(self) -> None:
        """Nothing is kept between runs."""

    async def _walls(self) -> tuple[Walls | None, list[Layer]]:
        if self._found is None:
            self._found = await self._first_that_stands()
        return self._found

    async def _first_that_stands(self) -> tuple[Walls | None, list[Layer]]:
        lacking: list[Layer] = []
        for walls in self._choices:
            layers = await walls.layers()
            if all(layer.on for layer in layers):
                return walls, [*layers, _LIMITS_LAYER]
            lacking += layers
        return None, lacking

    async def _held(self, walls: Walls, code: str) -> RunResult:
        sizes = (
            int(self.limits.processor_seconds or self.limits.seconds) + 1,
            self.limits.memory_bytes,
            *(_MAX_FILE_BYTES, MAX_VALUE_CHARACTERS),
        )
        began = time.monotonic()
        with walls.command(sizes) as (command, descriptors):
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=descriptors,
                env=ENVIRONMENT,
                cwd="/",
            )
            with _Killer(process.pid) as killer:
                talking = asyncio.ensure_future(
                    _talk(process, killer, code, self.limits.output_bytes)
                )
                try:
                    done, _ = await asyncio.wait({talking}, timeout=self.limits.seconds)
                    if not done:
                        killer.kill()
                    stdout, said, full = await talking
                finally:
                    talking.cancel()
                    killer.kill()
                    await process.wait()
        error: RunError | None
        if full or not done:
            kind: Failure = "output" if full else "time"
            value, error = None, RunError(kind=kind, type="Stopped", message="", line=None)
        else:
            value, error = _outcome(said) or (None, _died(process.returncode or 0))
        return RunResult(
            runner=self.name,
            stdout=walls.plain(stdout.decode("utf-8", "replace")),
            value=walls.plain(value[:MAX_VALUE_CHARACTERS]) if value is not None else None,
            error=error and _renamed(error, walls),
            seconds=time.monotonic() - began,
            truncated=full or (value is not None and len(value) > MAX_VALUE_CHARACTERS),
        )


class _Killer:
    """Ends one process, and never another that got its number later."""

    def __init__(self, pid: int) -> None:
        # It cannot be gone for good: nobody has waited for it yet.
        self._handle = os.pidfd_open(pid)

    def __enter__(self) -> "_Killer":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def kill(self) -> None:
        """End it; whatever is behind the walls dies with it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)


async def _talk(
    process: asyncio.subprocess.Process, killer: _Killer, code: str, limit: int
) -> tuple[bytes, bytes, bool]:
    """Hand the program over; its output, what was said of it, and whether that was too much."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    reading = asyncio.gather(
        _read(process.stdout, limit, killer), _read(process.stderr, _MAX_OUTCOME_BYTES, killer)
    )
    with contextlib.suppress(ConnectionError):
        process.stdin.write(code.encode("utf-8", "replace"))
        await process.stdin.drain()
        process.stdin.close()
    (stdout, full), (said, flooded) = await reading
    if not full and not flooded:
        # Its pipes are closed, so it is about to end, and how is worth knowing.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 2.0)
    return stdout, said, full or flooded


async def _read(stream: asyncio.StreamReader, limit: int, killer: _Killer) -> tuple[bytes, bool]:
    """Everything up to a limit, read to its end; a process that writes more is ended."""
    kept = bytearray()
    full = False
    while chunk := await stream.read(_CHUNK):
        kept += chunk
        if len(kept) > limit:
            del kept[limit:]
            full = True
            killer.kill()
    return bytes(kept), full


def _outcome(said: bytes) -> tuple[str | None, RunError | None] | None:
    """What the inner half reported; None if it did not come to it.

    A program can find the channel and write to it; it then lies about itself, to its owner.
    """
    lines = said.decode("utf-8", "replace").rstrip("\n").rsplit("\n", 2)
    if len(lines) < 2 or not lines[-1].isdigit():
        return None
    try:
        told: Any = json.loads(lines[-2])
        value, error = told["value"], told["error"]
        if error is None:
            return (None if value is None else str(value)), None
        return None, _error(str(error["type"]), str(error["message"]), error["line"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _error(name: str, message: str, line: object) -> RunError:
    kinds: dict[str, Failure] = {
        "SyntaxError": "syntax",
        "IndentationError": "syntax",
        "TabError": "syntax",
        "RecursionError": "recursion",
        "MemoryError": "memory",
    }
    return RunError(
        kind=kinds.get(name, "exception"),
        type=name[:100],
        message=message,
        line=line if isinstance(line, int) else None,
    )


def _renamed(error: RunError, walls: Walls) -> RunError:
    return RunError(
        kind=error.kind, type=error.type, message=walls.plain(error.message), line=error.line
    )


def _died(status: int) -> RunError:
    """An end without a report; bubblewrap passes a signal on as 128 and its number."""
    processor_time = (128 + signal.SIGXCPU, -signal.SIGXCPU)
    kind: Failure = "time" if status in processor_time else "crash"
    return RunError(kind=kind, type="Ended", message=f"exit status {status}", line=None)
