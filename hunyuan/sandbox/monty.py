"""Python by an interpreter of its own that has nothing to reach: the default.

pydantic-monty runs in worker processes. It knows a part of Python and of its library (math, json,
re, decimal, random, datetime, collections and some more) and neither files, network, processes
nor native code. Time, memory and depth are limited inside; a worker that does not obey is killed
from outside and replaced.

A program's last value is turned into text inside the interpreter as well, because turning it into
objects here would let a small program fill this process: nested lists double at every level.
"""

import ast
import time
from typing import TYPE_CHECKING, Any, Literal

from hunyuan.sandbox.result import (
    MAX_VALUE_CHARACTERS,
    PROGRAM,
    BusyError,
    Failure,
    Limits,
    RunError,
    RunResult,
    require_short,
)

if TYPE_CHECKING:
    from pydantic_monty import AsyncMonty

MAX_DEPTH = 400
"""Of function calls; deeper ones could exhaust a worker's stack."""

_LAST = "_last_value"
_WAIT_SECONDS = 15.0


class MontyRunner:
    """Runs programs in a pool of interpreter processes, started when first needed."""

    name = "monty"

    def __init__(self, limits: Limits | None = None, *, workers: int = 2) -> None:
        self.limits = limits or Limits(seconds=5.0, memory_bytes=128 * 1024**2)
        self._workers = workers
        self._pool: AsyncMonty | None = None

    async def run(self, code: str) -> RunResult:
        """Run a program; see `Runner.run`."""
        from pydantic_monty import MontyCrashedError, MontyError

        require_short(code)
        pool = await self._started()
        output = _Output(self.limits.output_bytes)
        value, error = None, None
        began = time.monotonic()
        try:
            async with pool.checkout(script_name=PROGRAM, limits=self._inner_limits()) as session:
                value = await session.feed_run(
                    with_value_as_text(code.encode("utf-8", "replace").decode()),
                    print_callback=output,
                )
        except TimeoutError as waited:
            raise BusyError() from waited
        except MontyCrashedError as crash:
            error = _crashed(crash)
        except MontyError as failure:
            error = _failed(failure, output, code.count("\n") + 1)
        seconds = time.monotonic() - began
        text = value if isinstance(value, str) else None
        cut = text is not None and len(text) > MAX_VALUE_CHARACTERS
        return RunResult(
            runner=self.name,
            stdout="".join(output.pieces),
            value=text[:MAX_VALUE_CHARACTERS] if text else text,
            error=error,
            seconds=seconds,
            truncated=output.full or cut,
        )

    async def close(self) -> None:
        """End the worker processes."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(None, None, None)

    async def _started(self) -> "AsyncMonty":
        if self._pool is None:
            from pydantic_monty import AsyncMonty

            pool = AsyncMonty(
                min_processes=0,
                max_processes=self._workers,
                checkout_timeout=_WAIT_SECONDS,
                request_timeout=self.limits.seconds * 2 + 1,
                max_checkouts_per_worker=50,
            )
            await pool.__aenter__()
            self._pool = pool
        return self._pool

    def _inner_limits(self) -> Any:
        return {
            "max_feed_duration_secs": self.limits.seconds,
            "max_memory": self.limits.memory_bytes,
            "max_recursion_depth": MAX_DEPTH,
            "max_total_sleep_secs": self.limits.seconds,
        }


class _FullError(Exception):
    """Raised into a program that has printed enough."""


class _Output:
    """Collects what is printed, up to a limit in UTF-8 bytes."""

    def __init__(self, limit: int) -> None:
        self.pieces: list[str] = []
        self.full = False
        self._room = limit

    def __call__(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        raw = text.encode("utf-8", "replace")
        if len(raw) > self._room:
            self.full = True
            self.pieces.append(raw[: self._room].decode("utf-8", "ignore"))
            self._room = 0
            raise _FullError
        self._room -= len(raw)
        self.pieces.append(text)


def with_value_as_text(code: str) -> str:
    """The program with its last expression turned into text, its lines where they were.

    What this Python cannot parse is left to the interpreter, which says why or knows better.
    """
    nothing = f"{code}\nNone"
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return nothing
    if not body or not isinstance(last := body[-1], ast.Expr):
        return nothing
    assert last.end_lineno is not None
    assert last.end_col_offset is not None
    # Python counts lines by these ends only, and columns in bytes.
    lines = code.replace("\r\n", "\n").replace("\r", "\n").encode().split(b"\n")
    after = lines[last.end_lineno - 1]
    lines[last.end_lineno - 1] = after[: last.end_col_offset] + b")" + after[last.end_col_offset :]
    before = lines[last.lineno - 1]
    start = f"{_LAST} = (".encode()
    lines[last.lineno - 1] = before[: last.col_offset] + start + before[last.col_offset :]
    shown = f"None if {_LAST} is None else repr({_LAST})[:{MAX_VALUE_CHARACTERS + 1}]"
    return b"\n".join(lines).decode() + "\n" + shown


def _crashed(crash: Any) -> RunError:
    """A worker that died: by its time, its memory or its own fault."""
    kind: Failure = "time" if getattr(crash, "timed_out", False) else "crash"
    if "memory" in str(crash).lower():
        kind = "memory"
    return RunError(kind=kind, type=type(crash).__name__, message="", line=None)


def _failed(failure: Any, output: _Output, last_line: int) -> RunError:
    inner = failure.exception()
    name = type(inner).__name__
    message = str(inner)
    if output.full:
        return RunError(kind="output", type="OutputLimit", message="", line=None)
    kinds: dict[str, Failure] = {
        "SyntaxError": "syntax",
        "IndentationError": "syntax",
        "RecursionError": "recursion",
    }
    kind = kinds.get(name, "exception")
    if name == "TimeoutError" and "limit exceeded" in message:
        kind = "time"
    elif name == "MemoryError" and "limit" in message:
        kind = "memory"
    traceback = getattr(failure, "traceback", None)
    frames = traceback() if callable(traceback) else []
    line = next((f.line for f in reversed(frames) if not f.filename.startswith("<string>")), None)
    if line is not None:
        # What was put behind the program belongs to its last line.
        line = min(line, last_line)
    return RunError(kind=kind, type=name, message=message, line=line)
