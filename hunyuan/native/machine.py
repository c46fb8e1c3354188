"""What this machine can do at most, and what this process has taken of it."""

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from hunyuan.memory import available_memory
from hunyuan.native.matrix import Arena

_SELF = Path("/proc/self/stat")


def processor() -> str:
    """The processor's name as its maker gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: the platform module's answer stands
    return platform.processor() or "unknown"


def process_age() -> float:
    """Seconds since this process started, before Python itself was loaded."""
    if not _SELF.exists():
        return time.time() - float(psutil.Process().create_time())
    # psutil adds a boot time in whole seconds; the kernel's own clock is good to 10 ms. The name
    # in parentheses may hold blanks; starttime is the 20th field after it.
    ticks = int(_SELF.read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def peak_memory() -> int:
    """Most bytes of memory this process has held so far."""
    try:
        import resource
    except ImportError:  # Windows keeps the figure elsewhere
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory() -> int:
    """Bytes of memory this process holds now."""
    return int(psutil.Process().memory_info().rss)


def read_bandwidth(nbytes: int = 1 << 30) -> float:
    """Bytes per second that all threads together read from memory; the best of five passes.

    A sum is the plainest reader there is. The buffer lies in huge pages, as packed weights do, and
    is far larger than any cache.
    """
    data = Arena().take(min(nbytes, available_memory() // 4) // 64 * 64).zero_()
    return data.nbytes / min(_seconds(data.view(torch.float32).sum) for _ in range(5))


def matrix_peak(dtype: torch.dtype) -> float:
    """Operations per second of torch's product of two large square matrices.

    The side doubles until a product takes a tenth of a second: larger ones gain little, and a
    processor without this number type needs no more patience.
    """
    best, side = 0.0, 512
    while True:
        a = torch.ones(side, side, dtype=dtype)
        product = torch.empty_like(a)
        seconds = min(_multiply(a, product) for _ in range(3))
        best = max(best, 2 * side**3 / seconds)
        if seconds > 0.1:
            return best
        side *= 2


def _multiply(a: torch.Tensor, product: torch.Tensor) -> float:
    return _seconds(lambda: torch.mm(a, a, out=product))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
