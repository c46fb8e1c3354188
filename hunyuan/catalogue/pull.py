"""One model from the first source that delivers it: verified, complete, resumable.

A pull works in ``STORE/NAME.partial/`` and takes the name ``STORE/NAME`` by one rename, after the
hash of everything in it was checked. Each source has its own folder there, so that what one of
them left (complete or not, right or wrong) is never continued by another. Killed at any moment,
the same command goes on; of two pulls of one name at a time, the second waits for the first.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hunyuan.catalogue import hub, packages
from hunyuan.catalogue.entries import Entry, HubFile, HubFolder, Source, WeightFile, entry
from hunyuan.catalogue.store import (
    MANIFEST,
    Manifest,
    damaged_files,
    installed_manifest,
    loadable_path,
    read_manifest,
    store,
    write_manifest,
)
from hunyuan.catalogue.transfer import OnProgress, Progress, require_hash
from hunyuan.errors import (
    BadDataError,
    DoesNotFitError,
    HunyuanError,
    InterruptedWorkError,
    UsageError,
)
from hunyuan.files import PARTIAL, disk_errors


def pull(
    name: str,
    *,
    progress: OnProgress,
    accept_licence: Callable[[Entry], bool],
    offline: bool = False,
    verify: bool = False,
    catalogue: Sequence[Entry] | None = None,
) -> Path:
    """Bring the model ``name`` onto this machine; the path to load it from.

    Returns at once if it is there already (by its manifest and sizes; ``verify`` reads all bytes
    again). ``accept_licence`` is asked before the download where the licence must be accepted.
    Raises `UsageError` (unknown name, licence refused, offline), `DoesNotFitError` (disk),
    `BadDataError` (wrong bytes), `InterruptedWorkError` (Ctrl-C) and `HunyuanError` with the
    reason of each source if all of them fail.
    """
    model = entry(name, catalogue)
    try:
        if not verify and installed_manifest(model):
            return loadable_path(model)
        if not installed_manifest(model):
            _require_consent(model, offline, accept_licence)
        with disk_errors(store()), _locked(model, progress):
            if manifest := installed_manifest(model):
                if verify:
                    _verify_installed(model, manifest, progress)
            else:
                _from_any_source(model, progress)
        return loadable_path(model)
    except KeyboardInterrupt:
        raise InterruptedWorkError(
            f"{name}: stopped; the same command goes on from here: hunyuan pull {name}",
            f"{name}：已停止；再次运行同一命令即可继续：hunyuan pull {name}",
        ) from None
    except BrokenPipeError:
        # Whoever read our progress went away; that is no fault of the disk.
        raise
    except OSError as error:
        where = error.filename or store() / name
        raise HunyuanError(
            f"{where}: {error.strerror or error}; check the folder or set HUNYUAN_HOME",
            f"{where}：{error.strerror or error}；请检查该目录或设置 HUNYUAN_HOME",
        ) from error


def _require_consent(model: Entry, offline: bool, accept_licence: Callable[[Entry], bool]) -> None:
    if offline:
        raise UsageError(
            f"{model.name} is not on this machine and --offline allows no download; "
            f"run without it: hunyuan pull {model.name}",
            f"本机没有 {model.name}，而 --offline 不允许下载；请去掉它：hunyuan pull {model.name}",
        )
    if model.licence.must_accept and not accept_licence(model):
        raise UsageError(
            f"{model.name}: its licence was not accepted ({model.licence.name}); read "
            f"{model.licence.url} and add --accept-licence",
            f"{model.name}：未接受其许可证（{model.licence.name}）；请阅读 "
            f"{model.licence.url} 后加上 --accept-licence",
        )


@contextmanager
def _locked(model: Entry, progress: OnProgress) -> Iterator[None]:
    """Hold the lock of one model; report that we wait if another process has it."""
    store().mkdir(parents=True, exist_ok=True)
    lock = FileLock(store() / f"{model.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(Progress("waiting", "another pull"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _from_any_source(model: Entry, progress: OnProgress) -> None:
    folder = store() / model.name
    staging = folder.with_name(folder.name + PARTIAL)
    if folder.exists():
        _set_aside(model, folder, staging)
    failures: list[HunyuanError] = []
    for source in model.sources:
        stage = staging / _key(model, source)
        stage.mkdir(parents=True, exist_ok=True)
        try:
            files = _from_source(model, source, stage, progress)
        except DoesNotFitError:
            raise
        except HunyuanError as error:
            failures.append(error)
            continue
        _finish(model, source, files, stage)
        return
    kept = any(path.is_file() for path in staging.rglob("*"))
    if not kept:
        shutil.rmtree(staging)
    raise _all_failed(model, failures, kept)


def _key(model: Entry, source: Source) -> str:
    """A folder name that changes whenever the source or the expected bytes do."""
    return hashlib.sha256(repr((source, model.file)).encode()).hexdigest()[:16]


def _from_source(
    model: Entry, source: Source, stage: Path, progress: OnProgress
) -> tuple[WeightFile, ...]:
    if isinstance(source, HubFolder):
        return hub.download_folder(source, stage, progress)
    assert model.file is not None
    done = stage / model.file.name
    if not done.exists():
        aside = stage / (model.file.name + PARTIAL)
        if isinstance(source, HubFile):
            hub.download_file(source, model.file, aside, progress)
        else:
            packages.assemble(source, model.file, stage, aside, progress)
        _require_pinned(aside, model.file, source.label, stage, progress)
        aside.replace(done)
    return (model.file,)


def _require_pinned(
    path: Path, file: WeightFile, label: str, stage: Path, progress: OnProgress
) -> None:
    """Raise `BadDataError`, and forget all this source gave, unless ``path`` is ``file``."""

    def verifying(done: int, total: int | None) -> None:
        progress(Progress("verifying", label, done, file.size))

    try:
        size = path.stat().st_size
        if size != file.size:
            raise BadDataError(
                f"{file.name}: has {size} bytes, expected {file.size}; the file was deleted",
                f"{file.name}：有 {size} 字节，应为 {file.size}；文件已删除",
            )
        require_hash(path, file.name, file.sha256, verifying)
    except BadDataError:
        shutil.rmtree(stage)
        raise


def _finish(model: Entry, source: Source, files: Sequence[WeightFile], stage: Path) -> None:
    """Strip ``stage`` to ``files``, add the manifest and give it the model's name."""
    keep = {file.name for file in files}
    for path in stage.iterdir():
        if path.name not in keep:
            path.unlink()
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
    write_manifest(stage, Manifest(model.name, source.label, tuple(files)))
    stage.rename(store() / model.name)
    shutil.rmtree(stage.parent)


def _verify_installed(model: Entry, manifest: Manifest, progress: OnProgress) -> None:
    """Read every installed byte again; a damaged file is deleted, so it counts as not pulled."""
    folder = store() / model.name
    total = sum(file.size for file in manifest.files)
    before = 0

    def verifying(done: int, _: int | None) -> None:
        progress(Progress("verifying", manifest.source, before + done, total))

    for file in manifest.files:
        try:
            require_hash(folder / file.name, file.name, file.sha256, verifying)
        except BadDataError as error:
            raise BadDataError(
                f"{error.en}; fetch it again: hunyuan pull {model.name}",
                f"{error.zh}；请重新获取：hunyuan pull {model.name}",
            ) from error
        before += file.size


def _set_aside(model: Entry, folder: Path, staging: Path) -> None:
    """Make room for a new pull of a damaged model, keeping the undamaged files of a checkpoint."""
    manifest = read_manifest(folder)
    stage = staging / _key(model, model.sources[0])
    if model.file or manifest is None or stage.exists():
        shutil.rmtree(folder)
        return
    damaged = damaged_files(folder, manifest)
    (folder / MANIFEST).unlink()
    for name in damaged:
        (folder / name).unlink(missing_ok=True)
    staging.mkdir(exist_ok=True)
    folder.rename(stage)


def _all_failed(model: Entry, failures: Sequence[HunyuanError], kept: bool) -> HunyuanError:
    """One line with the reason of each source; about bad data if nothing else went wrong."""
    kind = BadDataError if all(isinstance(f, BadDataError) for f in failures) else HunyuanError
    pairs = list(zip(model.sources, failures, strict=True))
    return kind(
        f"{model.name}: no source delivered it - "
        + "; ".join(f"{source.label}: {failure.en}" for source, failure in pairs)
        + ("; what has arrived is kept, the same command goes on" if kept else ""),
        f"{model.name}：所有来源均失败——"
        + "；".join(f"{source.label}：{failure.zh}" for source, failure in pairs)
        + ("；已下载的部分会保留，再次运行同一命令即可继续" if kept else ""),
    )
