"""Answers on disk, one line each, appended as they come: what makes an evaluation resumable."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from hunyuan.files import disk_errors


class ResponseLog:
    """Answers by request, on disk; a line cut off by a kill is dropped when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[str, Any] = {}
        whole = 0
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    try:
                        key, answer = json.loads(line)
                    except ValueError:
                        break
                    self._answers[key] = answer
                    whole += len(line)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk did not take must not be written again on closing.
            self._file: IO[bytes] = path.open("ab", buffering=0)
            self._file.truncate(whole)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Any:
        return self._answers[key]

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, pairs: Sequence[tuple[str, Any]], *, durable: bool = True) -> None:
        """Keep answers: safe from a kill when this returns, and if ``durable`` from a power cut."""
        with disk_errors(self._path):
            lines = (json.dumps([key, answer], ensure_ascii=False) for key, answer in pairs)
            left = memoryview("".join(f"{line}\n" for line in lines).encode())
            while left:
                left = left[self._file.write(left) :]
            if durable:
                os.fsync(self._file.fileno())
        self._answers.update(pairs)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
