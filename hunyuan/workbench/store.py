"""What people said and wrote, in one SQLite file."""

from pathlib import Path
from typing import Self

from hunyuan.workbench.conversations import Conversations
from hunyuan.workbench.database import Database
from hunyuan.workbench.documents import Documents


class Store:
    """The conversations and documents of a file; answers left unfinished are marked so.

    Only one process at a time may have the file open: see `DataFolder`. Methods may block on the
    disk and may be called from any thread.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self.conversations = Conversations(self._database)
        self.documents = Documents(self._database)
        self.conversations.interrupt_unfinished()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the running transaction. May be repeated."""
        self._database.close()
