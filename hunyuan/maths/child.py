"""The worker process: one JSON request a line on standard input, one JSON reply a line.

Started by `hunyuan.maths.worker` alone, with a bare environment. Memory, files and file sizes are
limited before SymPy is imported; time is limited by the parent, which kills this process.
"""

import json
import resource
import sys
from typing import Any

MAX_OPEN_FILES = 32
MAX_REPLY_CHARACTERS = 400_000


def limit(memory: int) -> None:
    """Limits of this process, never to be raised again."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Answer requests until standard input ends."""
    limit(int(sys.argv[1]))
    from hunyuan.maths.answering import reply

    # Printing a number of many digits takes quadratic time; results are limited before.
    sys.set_int_max_str_digits(100_000)
    sys.setrecursionlimit(3000)
    send({"ready": True})
    for line in sys.stdin:
        answer = reply(json.loads(line))
        if answer is None:
            # Out of memory: what is left of this process is not to be trusted.
            send({"memory": True})
            return
        send(answer)


def send(value: dict[str, Any]) -> None:
    """One line to the parent."""
    text = json.dumps(value, ensure_ascii=True)
    if len(text) > MAX_REPLY_CHARACTERS:
        text = json.dumps({"large": True})
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
