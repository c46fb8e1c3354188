"""What a bug report needs to hold, and where the last internal error happened.

Of an error only its kind, the verb and the places in the code are kept: its message may quote a
prompt or a file.
"""

import json
import os
import platform
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hunyuan import __version__
from hunyuan.files import atomic_file
from hunyuan.redact import without_private

_PACKAGES = (
    *("numpy", "tokenizers", "safetensors", "llguidance", "fastapi", "uvicorn", "sympy"),
    *("pypdfium2", "transformers", "lm_eval", "datatrove", "ray", "sandlock"),
)
_FLAGS = ("f16c", "fma", "avx2", "avx512", "avx_vnni", "amx", "asimddp", "i8mm", "bf16", "sve")
_PLACES = 12


def keep_error(error: BaseException, arguments: Sequence[str]) -> None:
    """Note where an internal error happened; that it cannot be noted is no error of its own."""
    places = [
        f"{_place(frame.filename)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    note = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "version": __version__,
        "verb": _verb(arguments),
        "kind": type(error).__name__,
        "places": places[-_PLACES:],
    }
    try:
        with atomic_file(_note()) as file:
            file.write(json.dumps(note, ensure_ascii=False).encode())
    except Exception:  # a full or read-only disk must not hide the error itself
        return


def kept_error() -> dict[str, Any] | None:
    """The last internal error on this machine, or None."""
    try:
        found = json.loads(_note().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def bug_report(
    facts: Mapping[str, Any], checks: Mapping[str, str | None], plugins: Mapping[str, str | None]
) -> str:
    """A block of Markdown, to be put into a report as it is; nothing private in it.

    ``checks`` and ``plugins``: name -> problem or None.
    """
    lines = {
        "hunyuan": f"{__version__}, commit {facts['commit'] or 'unknown'}",
        "python": platform.python_version(),
        **{name: facts[name] for name in ("system", "accelerator", "processor")},
        "cpu_flags": " ".join(cpu_flags()) or "unknown",
        **{name: facts[name] for name in ("threads", "kernels", "fastest_dtype")},
        "torch": _torch_build(),
        "packages": ", ".join(_versions()) or "none",
        **{name: facts[name] for name in ("memory_free", "disk_free", "models", "language")},
        "settings": ", ".join(sorted(n for n in os.environ if n.startswith("HUNYUAN_"))) or "none",
    }
    told = [f"{name:14} {value}" for name, value in lines.items()]
    told += [f"{'check ' + name:14} {problem or 'ok'}" for name, problem in checks.items()]
    told += [f"{'plugin':14} {name}: {problem or 'ok'}" for name, problem in plugins.items()]
    error = kept_error()
    if error is None:
        told.append(f"{'last_error':14} none")
    else:
        head = "{kind} in `{verb}`, {version}, {when}".format_map(_Blank(error))
        told.append(f"{'last_error':14} {head}")
        told += [f"  {place}" for place in error.get("places", ())]
    return without_private("\n".join(["```text", *told, "```"]))


def cpu_flags() -> list[str]:
    """The instruction sets that matter here, as the system names them; Linux only."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return sorted(flag for flag in value.split() if flag.startswith(_FLAGS))
    return []


def _torch_build() -> str:
    import torch

    backends: Any = torch.backends
    there = {
        "mkl": backends.mkl.is_available(),
        "onednn": backends.mkldnn.is_available(),
        "openmp": backends.openmp.is_available(),
    }
    parts = [f"{name} {'yes' if found else 'no'}" for name, found in there.items()]
    return ", ".join([torch.__version__, f"cuda {torch.version.cuda or 'none'}", *parts])


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _verb(arguments: Sequence[str]) -> str:
    """The verb alone: what follows may be a prompt or a path."""
    from hunyuan.cli.main import VERBS

    return next((one for one in arguments if one in VERBS), "unknown")


def _place(file: str) -> str:
    """A file of the code without what lies above its package."""
    for border in ("/site-packages/", "/dist-packages/"):
        if border in file:
            return file.rpartition(border)[2]
    path = Path(file)
    root = Path(__file__).parents[2]
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def _note() -> Path:
    from hunyuan.catalogue.store import store

    return store().parent / "last-error.json"


class _Blank(dict[str, Any]):
    """For a note of another release, which may lack a field."""

    def __missing__(self, key: str) -> str:
        return "unknown"
