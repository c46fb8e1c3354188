"""How much memory there is, asked before it is taken."""

import re
from pathlib import Path

import psutil

from hunyuan.errors import DoesNotFitError, UsageError
from hunyuan.files import human_bytes

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_USED = Path("/sys/fs/cgroup/memory.current")
_CGROUP_STAT = Path("/sys/fs/cgroup/memory.stat")


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_memory(text: str) -> int:
    """``20G`` or ``20GB`` -> 20,000,000,000 bytes; ``20GiB`` counts in powers of two."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if not match or (match[3] and not match[2]) or float(match[1]) == 0:
        raise UsageError(
            f"memory={text[:40]!r}: must be a size such as 20G, 1500M or 16GiB",
            f"memory={text[:40]!r}：必须是大小，例如 20G、1500M 或 16GiB",
        )
    unit = _BINARY_UNITS[match[2]] if match[3] else _UNITS[match[2]]
    return int(float(match[1]) * unit)


def process_memory() -> int:
    """Bytes that this process holds in memory now."""
    return int(psutil.Process().memory_info().rss)


def available_memory() -> int:
    """Bytes that can be taken without swapping, within a container's limit if there is one."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
        if limit != "max":
            # What is in use includes file pages, which the system gives back when asked.
            used = int(_CGROUP_USED.read_text()) - _reclaimable()
            free = max(0, min(free, int(limit) - used))
    except OSError:
        pass  # not Linux, or no cgroup v2: the machine's own figure stands
    return free


def _reclaimable() -> int:
    """Bytes of file pages that nobody has used lately, of this container."""
    for line in _CGROUP_STAT.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def require_memory(needed: int, what: tuple[str, str], remedy: tuple[str, str]) -> None:
    """Raise `DoesNotFitError` unless ``needed`` bytes are free; texts in English and Chinese."""
    free = available_memory()
    if needed > free:
        raise DoesNotFitError(
            f"{what[0]} needs {human_bytes(needed)} of memory, {human_bytes(free)} are free; "
            f"{remedy[0]}",
            f"{what[1]}需要 {human_bytes(needed)} 内存，可用 {human_bytes(free)}；{remedy[1]}",
        )
