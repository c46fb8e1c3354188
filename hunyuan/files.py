"""Writing to disk so that a failure leaves nothing half-written: write aside, then rename."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hunyuan.errors import DiskFullError, HunyuanError

PARTIAL = ".partial"


def human_bytes(count: float) -> str:
    """``98362432`` -> ``98.4 MB`` (decimal units, as disks and downloads are sold)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _no_room(path: Path, reason: str) -> DiskFullError:
    free = shutil.disk_usage(existing_parent(path)).free
    return DiskFullError(
        f"{path}: cannot be written, {reason} ({human_bytes(free)} left on the disk); free some "
        "space or raise the limit, and run it again",
        f"{path}：无法写入，{reason}（磁盘剩余 {human_bytes(free)}）；"
        "请清理空间或提高限额后重新运行",
    )


def existing_parent(path: Path) -> Path:
    """The nearest folder above ``path`` (or ``path`` itself) that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def require_free_space(path: Path, needed: int) -> None:
    """Raise `DiskFullError` unless ``needed`` bytes are free where ``path`` will lie."""
    free = shutil.disk_usage(existing_parent(path)).free
    if needed > free:
        raise DiskFullError(
            f"{path}: needs {human_bytes(needed)} of disk, {human_bytes(free)} are free; "
            "free some space or choose another folder",
            f"{path}：需要 {human_bytes(needed)} 磁盘空间，仅剩 {human_bytes(free)}；"
            "请清理空间或换一个目录",
        )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says while ``path`` is written into a one-line error.

    A full disk, quota or file size limit is a `DiskFullError`; any other refusal, such as a
    folder that may not be written, a `HunyuanError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_room(path, str(error.strerror).lower()) from error
        where = error.filename or path
        raise HunyuanError(
            f"{where}: {error.strerror or error}; choose another place or correct it",
            f"{where}：{error.strerror or error}；请换一个位置或更正后重试",
        ) from error


def _aside(path: Path) -> Path:
    """A hidden name beside ``path`` that nobody else would give to something of theirs."""
    return path.with_name(f".{path.name}.hunyuan{PARTIAL}")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` for writing; it takes its name only if the block succeeds."""
    aside = _aside(path)
    with disk_errors(path):
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


@contextmanager
def resumable_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that keeps what a killed or failed earlier run put into it.

    It takes its name only if the block succeeds; ``path`` must not exist or be empty.
    """
    aside = _aside(path)
    with disk_errors(path):
        aside.mkdir(parents=True, exist_ok=True)
        yield aside
        if path.exists():
            path.rmdir()
        aside.rename(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path``; it takes its name only if the block succeeds.

    ``path`` must not exist or be empty; what a killed earlier run left aside is removed.
    """
    aside = _aside(path)
    shutil.rmtree(aside, ignore_errors=True)
    with disk_errors(path):
        try:
            aside.mkdir(parents=True)
            yield aside
            if path.exists():
                path.rmdir()
            aside.rename(path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
