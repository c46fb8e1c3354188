"""The data folder: what people wrote and asked, kept on disk, held by one process at a time."""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO, Self

from hunyuan.errors import UsageError
from hunyuan.files import disk_errors


def default_data_folder() -> Path:
    """``$HUNYUAN_HOME/workbench``, else the ``hunyuan/workbench`` of the user's data folder."""
    if home := os.environ.get("HUNYUAN_HOME"):
        return Path(home).expanduser() / "workbench"
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG specification says to ignore a relative path.
    base = data if data.is_absolute() else Path.home() / ".local" / "share"
    return base / "hunyuan" / "workbench"


class DataFolder:
    """A folder that only this user can read, locked until `close` (or the end of the process).

    Raises `UsageError` if another process has it, `HunyuanError` or `DoesNotFitError` if it cannot
    be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        with disk_errors(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.files.mkdir(mode=0o700, exist_ok=True)
            self._lock = self._locked()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def database(self) -> Path:
        """Conversations, writings, feedback."""
        return self.path / "workbench.db"

    @property
    def knowledge(self) -> Path:
        """Collections of documents."""
        return self.path / "knowledge.db"

    @property
    def files(self) -> Path:
        """Uploaded originals, by their SHA-256."""
        return self.path / "files"

    @property
    def prompts(self) -> Path:
        """The user's own prompt templates, which go before the built-in ones; may not exist."""
        return self.path / "prompts"

    def close(self) -> None:
        """Let another process have the folder. May be repeated."""
        self._lock.close()

    def _locked(self) -> BinaryIO:
        lock = (self.path / "lock").open("ab+")
        try:
            # The system drops the lock with the process, however that ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read(20).decode("ascii", "replace").strip() or "?"
            lock.close()
            raise UsageError(
                f"{self.path}: is in use by another process (pid {holder}); stop it, or choose "
                "another folder with --data",
                f"{self.path}：正被另一个进程（pid {holder}）使用；"
                "请先停止它，或用 --data 另选一个文件夹",
            ) from None
        except BaseException:
            lock.close()
            raise
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        return lock
