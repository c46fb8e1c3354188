"""Where pulled models lie, and how a name becomes a path.

    STORE/NAME/            what `pull` completed and verified: the weight file or a checkpoint
    STORE/NAME/.pulled.json   its `Manifest`: source, and name, size and sha256 of every file
    STORE/NAME.partial/    an unfinished pull, from which the same command goes on
    STORE/NAME.lock        held while a pull of that name runs

STORE is ``$HUNYUAN_HOME/models``, else ``$XDG_CACHE_HOME/hunyuan/models``, else
``~/.cache/hunyuan/models``. Whether a model is installed is judged by its manifest and the sizes
on disk, which costs one ``stat`` per file and reads no weights.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hunyuan.catalogue.entries import Entry, WeightFile, entries, entry
from hunyuan.errors import UsageError
from hunyuan.files import atomic_file

MANIFEST = ".pulled.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished pull left in its folder."""

    name: str
    source: str
    files: tuple[WeightFile, ...]


@dataclass(frozen=True, slots=True)
class Installed:
    """A pulled model: ``path`` is what to load, ``size`` the bytes of its files on disk."""

    entry: Entry
    path: Path
    size: int
    source: str


def store() -> Path:
    """The folder that holds all pulled models (it need not exist yet)."""
    if home := os.environ.get("HUNYUAN_HOME"):
        return Path(home).expanduser().absolute() / "models"
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification says to ignore a relative path.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "hunyuan" / "models"


def loadable_path(model: Entry) -> Path:
    """The path to load ``model`` from once it is pulled: its weight file, else its folder."""
    folder = store() / model.name
    return folder / model.file.name if model.file else folder


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Record in ``folder`` what it holds; from then on it counts as installed."""
    with atomic_file(folder / MANIFEST) as file:
        file.write(json.dumps(asdict(manifest), indent=1).encode())


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of ``folder``, or None where there is none that can be understood."""
    try:
        values = json.loads((folder / MANIFEST).read_bytes())
        files = tuple(
            WeightFile(str(file["name"]), int(file["size"]), str(file["sha256"]))
            for file in values["files"]
        )
        return Manifest(str(values["name"]), str(values["source"]), files)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def damaged_files(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Names of the files that are missing from ``folder`` or differ in size from the manifest."""
    return tuple(
        file.name
        for file in manifest.files
        if not (path := folder / file.name).is_file() or path.stat().st_size != file.size
    )


def installed_manifest(model: Entry) -> Manifest | None:
    """The manifest of ``model`` if it is completely there (by size), else None."""
    folder = store() / model.name
    manifest = read_manifest(folder)
    if manifest is None or damaged_files(folder, manifest):
        return None
    # A catalogue that pins other bytes than those pulled earlier asks for a new pull.
    if model.file and manifest.files != (model.file,):
        return None
    return manifest


def installed(catalogue: Sequence[Entry] | None = None) -> list[Installed]:
    """All models of the catalogue that are completely on this machine."""
    return [
        Installed(
            entry=model,
            path=loadable_path(model),
            size=sum(file.size for file in manifest.files),
            source=manifest.source,
        )
        for model in (entries() if catalogue is None else catalogue)
        if (manifest := installed_manifest(model))
    ]


def locate(name_or_path: str, catalogue: Sequence[Entry] | None = None) -> Path:
    """The folder or file a user means: an existing path or training run, else a pulled model.

    Whether what lies there is a checkpoint is for its reader to say. Raises `UsageError` for a
    model that is not pulled yet (with the command that pulls it) and for an unknown name (with
    the nearest known one).
    """
    path = Path(name_or_path).expanduser()
    if path.exists():
        # A training run stands for its newest checkpoint.
        return max(path.glob("checkpoints/step-*"), default=path)
    model = entry(name_or_path, catalogue)
    if installed_manifest(model) is None:
        raise UsageError(
            f"{model.name} is not on this machine yet; run: hunyuan pull {model.name}",
            f"本机还没有 {model.name}；请运行：hunyuan pull {model.name}",
        )
    return loadable_path(model)
