"""One warm process that does the algebra: limited in memory and time, replaced when it hangs.

SymPy can be made to work for ever by an innocent-looking question, and cannot be interrupted from
within. So it lives in a process of its own, which sees no environment and cannot open or write
much; a question that takes longer than `MathsWorker` allows ends it, and a new one is started.
"""

import asyncio
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hunyuan.errors import HunyuanError, OverloadedError, UsageError
from hunyuan.maths.call import ToolCall

START_SECONDS = 60.0


class ComputationError(UsageError):
    """The computation was refused or failed; the reason is in the sentence."""


class TooLongError(UsageError):
    """The computation was ended because it took too long or too much memory."""


class MathsWorker:
    """Computes `ToolCall`s, one at a time.

    The process starts with the first call (or `warm`). ``seconds`` is the time a call may take,
    ``memory`` the address space of the process in bytes, ``waiting`` how many calls may queue.
    Safe to use from several event loops and threads.
    """

    def __init__(self, *, seconds: float = 3.0, memory: int = 1 << 30, waiting: int = 32) -> None:
        self._seconds = seconds
        self._memory = memory
        self._waiting = waiting
        self._queued = 0
        self._counting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        # One thread: calls queue for the process here, not in the pool everyone shares.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="maths")

    async def run(self, call: ToolCall) -> dict[str, Any]:
        """The result of a call, as `hunyuan.maths.result.Result.json` gives it.

        Raises `ComputationError`, `TooLongError`, `OverloadedError`.
        """
        return await self._ask({"kind": "compute", **call.json()})

    async def read(self, latex: str) -> str:
        """The plain notation of LaTeX."""
        answer = await self._ask({"kind": "read", "text": latex})
        return str(answer["plain"])

    async def agrees(self, answer: str, values: Sequence[str]) -> bool:
        """Whether somebody's answer equals the tool's values; False where it cannot be read."""
        request = {"kind": "agrees", "answer": answer, "values": list(values)}
        try:
            return bool((await self._ask(request))["agrees"])
        except UsageError:
            return False

    def warm(self) -> None:
        """Begin to start the process, so that the first question need not wait for it."""
        if self._process is None and self._queued == 0:
            self._thread.submit(self._started)

    def close(self) -> None:
        """End the process."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._kill()

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._counting:
            if self._queued >= self._waiting:
                raise OverloadedError(
                    f"{self._queued} computations are waiting; try again in a moment",
                    f"已有 {self._queued} 个计算在排队；请稍后再试",
                )
            self._queued += 1
        try:
            future = self._thread.submit(self._exchange, request)
        except RuntimeError:
            self._done()
            raise OverloadedError("the server is stopping", "服务正在停止") from None
        future.add_done_callback(lambda _: self._done())
        reply = await asyncio.wrap_future(future)
        if "result" in reply:
            result = reply["result"]
            assert isinstance(result, dict)
            return result
        if "error" in reply:
            raise ComputationError(reply["error"]["en"], reply["error"]["zh"])
        raise _ended(reply, self._seconds, self._memory)

    def _done(self) -> None:
        with self._counting:
            self._queued -= 1

    # -- in the thread ---------------------------------------------------------------------------

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            reply = self._line(process, self._seconds)
        except (BrokenPipeError, EOFError):
            reply = {"memory": True}
        if reply is None:
            reply = {"time": True}
        if "time" in reply or "memory" in reply:
            self._kill()
        return reply

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        package = Path(__file__).resolve().parents[2]
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hunyuan.maths.child", str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=os.sep,
            # Nothing is inherited. The hash seed makes the order of SymPy's results repeatable.
            env={"PYTHONPATH": str(package), "PYTHONHASHSEED": "0", "LANG": "C.UTF-8",
                 "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            close_fds=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            ready = self._line(self._process, START_SECONDS)
        except EOFError:
            ready = None
        if ready is None:
            self._kill()
            raise HunyuanError(
                "the mathematics process does not start: run hunyuan doctor",
                "数学计算进程无法启动：请运行 hunyuan doctor",
            )
        return self._process

    def _line(self, process: "subprocess.Popen[bytes]", seconds: float) -> dict[str, Any] | None:
        """The next reply; None after ``seconds``, EOFError when the process has ended."""
        assert process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise EOFError
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        reply = json.loads(line)
        assert isinstance(reply, dict)
        return reply

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was still to be written is of no use to a dead process


def _ended(reply: dict[str, Any], seconds: float, memory: int) -> TooLongError:
    if "large" in reply:
        return TooLongError("the result is too large to show", "结果过大，无法显示")
    if "memory" in reply:
        return TooLongError(
            f"ended: it needs more than {memory >> 20} MiB of memory; try something smaller",
            f"已终止：所需内存超过 {memory >> 20} MiB；请缩小问题规模",
        )
    return TooLongError(
        f"ended after {seconds:g} seconds: this takes too long; try something smaller",
        f"计算超过 {seconds:g} 秒，已终止；请缩小问题规模",
    )
