"""One line on stderr that tells how far long work is; silent for work under two seconds."""

import sys
import time

from hunyuan.files import human_bytes


class ProgressLine:
    """Call `update` as often as you like; it draws a few times a second.

    On a terminal the line is redrawn in place; in a log it is printed every tenth of the way.
    """

    def __init__(self, label: str, *, quiet_seconds: float = 2.0, unit: str = "B") -> None:
        self._label = label
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._begin = time.monotonic()
        self._drawn_at = self._begin + quiet_seconds - 0.2
        self._tenth = 0
        self._shown = False

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes or parameters."""
        now = time.monotonic()
        finished = done >= total
        if self._terminal:
            if now - self._drawn_at < 0.2 and not (finished and self._shown):
                return
        elif now < self._drawn_at or done * 10 < total * (self._tenth + 1):
            return
        self._tenth = done * 10 // max(total, 1)
        if self._terminal:
            self._drawn_at = now
        seconds = max(now - self._begin, 1e-9)
        left = (total - done) * seconds / max(done, 1)
        text = (
            f"{self._label}: {100 * done / max(total, 1):3.0f} %  {self._amount(done)} of "
            f"{self._amount(total)}  {self._amount(done / seconds)}/s  {left:.0f} s left"
        )
        print(
            f"\r\x1b[2K{text}" if self._terminal else text,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
        self._shown = True

    def close(self) -> None:
        """End the line."""
        if self._shown and self._terminal:
            print(file=sys.stderr)
        self._shown = False

    def _amount(self, count: float) -> str:
        text = human_bytes(count)
        return text if self._unit == "B" else text.replace("B", "").replace("G", "B").strip()
