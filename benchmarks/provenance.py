"""What every result file says of where its figures come from."""

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hunyuan.native.library import isa, unavailable
from hunyuan.native.machine import processor

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Date, commit, processor, threads and the command, without the folders of this machine.

    A commit followed by ``+`` had changes beside it that were in no commit yet.
    """
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD")
        + "+" * bool(_git("status", "--short", "-uno")),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]),
        "processor": processor(),
        "kernels": isa() if unavailable() is None else "torch",
        "threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()
