"""A Hugging Face hub as a source: one pinned file, or a checkpoint folder.

One small request lists a repository at its current commit with the size and hash of every file;
everything is then fetched at that commit, so a repository that changes half-way cannot mix. Of a
folder only safetensors, configuration, tokenizer and licence files are taken, by an allow-list:
never a pickle (``.bin``, ``.pt``), never code. A folder without safetensors is refused.

The address and the token are those of the user's own ``huggingface_hub`` (``HF_ENDPOINT``,
``HF_TOKEN``, ``HF_HUB_OFFLINE``); the bytes go through `transfer.fetch`, whose resuming, time
limits and progress are the same for all sources.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hunyuan.catalogue.entries import HubFile, HubFolder, WeightFile
from hunyuan.catalogue.transfer import (
    OnBytes,
    OnProgress,
    Progress,
    fetch,
    read_small,
    require_hash,
    require_reachable,
    sha256_of,
)
from hunyuan.errors import BadDataError, HunyuanError
from hunyuan.files import PARTIAL, require_free_space

PROBE_SECONDS = 8.0
LISTING_BYTES = 64 << 20
# Names that a checkpoint folder may hold: no path, no hidden file, no code, no pickle.
WANTED = re.compile(
    r"(?!.*\.\.)[A-Za-z0-9][\w.-]*\.(safetensors|json|jinja|model|tiktoken|txt)|(LICENSE|NOTICE)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class HubEntry:
    """A file of a repository: its path, size and hash (sha256 of a large one, else git's sha1)."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit."""

    repository: str
    commit: str
    files: tuple[HubEntry, ...]


def download_file(source: HubFile, file: WeightFile, target: Path, progress: OnProgress) -> None:
    """Fetch the pinned ``file`` into ``target``; the caller checks its hash.

    A hub that states another size or sha256 is refused before the download (`BadDataError`).
    """
    listing = _list(source.repository, source.label, progress)
    found = next((entry for entry in listing.files if entry.path == source.path), None)
    if found is None:
        raise HunyuanError(
            f"{source.repository}: has no file {source.path}",
            f"{source.repository}：没有文件 {source.path}",
        )
    if found.sha256 != file.sha256 or found.size != file.size:
        raise BadDataError(
            f"{source.path}: sha256 is {found.sha256} ({found.size} bytes) at the hub, expected "
            f"{file.sha256} ({file.size} bytes)",
            f"{source.path}：hub 上的 sha256 为 {found.sha256}（{found.size} 字节），"
            f"应为 {file.sha256}（{file.size} 字节）",
        )

    def downloading(done: int, total: int | None) -> None:
        progress(Progress("downloading", source.label, done, file.size))

    _fetch(listing, found, target, downloading)


def download_folder(source: HubFolder, stage: Path, progress: OnProgress) -> tuple[WeightFile, ...]:
    """Fetch and verify the checkpoint files of ``source`` into ``stage``; what they are.

    A file takes its name in ``stage`` only once its hash is right, so a later call goes on with
    the first that is missing. Raises `BadDataError` where there are no safetensors or a hash is
    wrong, `DoesNotFitError` if the disk has not room for all that is left.
    """
    listing = _list(source.repository, source.label, progress)
    files = _checkpoint_files(source, listing)
    whole = sum(entry.size for entry in files)
    left = whole
    for entry in files:
        for path in (stage / _name(entry), stage / (_name(entry) + PARTIAL)):
            left -= min(path.stat().st_size, entry.size) if path.exists() else 0
    require_free_space(stage, left)
    before = 0
    result = []
    for entry in files:
        result.append(_folder_file(source.label, listing, entry, before, whole, stage, progress))
        before += entry.size
    return tuple(result)


def _folder_file(
    label: str,
    listing: Listing,
    entry: HubEntry,
    before: int,
    whole: int,
    stage: Path,
    progress: OnProgress,
) -> WeightFile:
    def downloading(done: int, total: int | None) -> None:
        progress(Progress("downloading", label, before + done, whole))

    def verifying(done: int, total: int | None) -> None:
        progress(Progress("verifying", label, done, total or 0))

    path = stage / _name(entry)
    if not (path.exists() and path.stat().st_size == entry.size):
        aside = path.with_name(path.name + PARTIAL)
        _fetch(listing, entry, aside, downloading)
        _verify(aside, entry, verifying)
        aside.replace(path)
    return WeightFile(path.name, entry.size, entry.sha256 or sha256_of(path, verifying))


def _fetch(listing: Listing, entry: HubEntry, target: Path, on_bytes: OnBytes) -> None:
    endpoint, headers = _access()
    where = f"{listing.repository}/resolve/{listing.commit}/{quote(entry.path)}"
    if not (target.exists() and target.stat().st_size == entry.size):
        fetch(f"{endpoint}/{where}", target, limit=entry.size, on_bytes=on_bytes, headers=headers)


def _verify(path: Path, entry: HubEntry, on_bytes: OnBytes) -> None:
    if entry.sha256:
        require_hash(path, entry.path, entry.sha256, on_bytes)
        return
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    digest.update(path.read_bytes())
    if digest.hexdigest() != entry.git_sha1:
        path.unlink()
        raise BadDataError(
            f"{entry.path}: git hash is {digest.hexdigest()}, expected {entry.git_sha1}; "
            "the file was deleted",
            f"{entry.path}：git 哈希为 {digest.hexdigest()}，应为 {entry.git_sha1}；文件已删除",
        )


def _name(entry: HubEntry) -> str:
    return entry.path.rpartition("/")[2]


def _checkpoint_files(source: HubFolder, listing: Listing) -> list[HubEntry]:
    """The wanted files directly in the folder, small ones first."""
    prefix = f"{source.folder}/" if source.folder else ""
    there = [
        entry
        for entry in listing.files
        if entry.path.startswith(prefix) and "/" not in entry.path[len(prefix) :]
    ]
    wanted = [entry for entry in there if WANTED.fullmatch(entry.path[len(prefix) :])]
    if not there:
        raise HunyuanError(f"{source.label}: no such folder", f"{source.label}：没有这个目录")
    if not any(entry.path.endswith(".safetensors") for entry in wanted):
        pickles = sum(entry.path.endswith((".bin", ".pt", ".pth", ".ckpt")) for entry in there)
        raise BadDataError(
            f"{source.label}: has no safetensors ({pickles} pickle files, which can run code when "
            "read); refused - convert it on a machine you trust and open the folder by its path",
            f"{source.label}：没有 safetensors（{pickles} 个 pickle 文件，读取时可能执行代码）；"
            "已拒绝——请在可信机器上转换后按路径打开",
        )
    return sorted(wanted, key=lambda entry: (entry.size, entry.path))


def _access() -> tuple[str, dict[str, str]]:
    """Address of the hub and the headers for it, as configured for ``huggingface_hub``."""
    from huggingface_hub import get_token
    from huggingface_hub.constants import ENDPOINT

    endpoint = os.environ.get("HF_ENDPOINT") or ENDPOINT
    token = get_token()
    return endpoint.rstrip("/"), {"Authorization": f"Bearer {token}"} if token else {}


def _list(repository: str, label: str, progress: OnProgress) -> Listing:
    """The files of a repository at its current commit; fails within seconds if unreachable."""
    progress(Progress("resolving", label))
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise HunyuanError("HF_HUB_OFFLINE is set", "已设置 HF_HUB_OFFLINE")
    endpoint, headers = _access()
    require_reachable(endpoint, PROBE_SECONDS)
    content = read_small(
        f"{endpoint}/api/models/{repository}?blobs=true", limit=LISTING_BYTES, headers=headers
    )
    try:
        return _parse_listing(repository, content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(
            f"{label}: the hub's list of files cannot be understood",
            f"{label}：无法解析 hub 的文件列表",
        ) from error


def _parse_listing(repository: str, content: bytes) -> Listing:
    values = json.loads(content)
    files = []
    for item in values["siblings"]:
        large = item.get("lfs")
        files.append(
            HubEntry(
                path=_matching(item["rfilename"], r"[^\0\n]+"),
                size=int(large["size"] if large else item["size"]),
                sha256=_matching(large["sha256"], "[0-9a-f]{64}") if large else None,
                git_sha1=None if large else _matching(item["blobId"], "[0-9a-f]{40}"),
            )
        )
    return Listing(repository, _matching(values["sha"], "[0-9a-f]{40}"), tuple(files))


def _matching(value: str, pattern: str) -> str:
    if not re.fullmatch(pattern, value):
        raise ValueError(value)
    return value
