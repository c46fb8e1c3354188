"""From tokens to text that may be shown: whole characters, and no half of a stop string."""

from collections.abc import Sequence

from hunyuan.tokenizer.tokenizer import Tokenizer


class TextStream:
    """Decodes an answer token by token and watches for stop strings.

    Text is held back only while it could still become a stop string or while a character is
    incomplete; `flush` gives what is left when the answer ends for another reason. ``after_text``:
    the answer continues a text, so a leading space belongs to it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], *, after_text: bool) -> None:
        self._decoder = tokenizer.stream_decoder(after_text=after_text)
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Text that ``token`` makes certain; sets ``stopped`` when a stop string is complete."""
        return self._release(self._decoder.push(token))

    def flush(self) -> str:
        """What was held back, at the end of the answer."""
        return self._release(self._decoder.flush()) + self._take(len(self._held))

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            self.stopped = True
            shown = self._held[: min(found)]
            self._held = ""
            return shown
        return self._take(len(self._held) - self._possible_stop())

    def _take(self, count: int) -> str:
        shown, self._held = self._held[:count], self._held[count:]
        return shown

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(map(len, self._stop), default=0)
        for length in range(min(longest - 1, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-length:]) for s in self._stop):
                return length
        return 0
