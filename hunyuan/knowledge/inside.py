"""The process that reads one document: it limits itself first, then writes pages to its output.

    python -m hunyuan.knowledge.inside PATH NAME KIND LIMITS

One JSON object a line: ``{"page": 1, "of": 12, "text": "..."}``, at the end ``{"end": true}`` or
``{"error": [English, Chinese]}``.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any, cast

from hunyuan.errors import HunyuanError
from hunyuan.knowledge.document import Kind, Limits
from hunyuan.knowledge.readers import read


def main(arguments: list[str]) -> None:
    """Read the document that the arguments name."""
    path, name, kind, numbers = arguments
    limits = Limits(**json.loads(numbers))
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    _limit(resource.RLIMIT_CPU, int(limits.seconds) + 1)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 32)
    try:
        for page in read(Path(path), name, cast(Kind, kind), limits):
            _say({"page": page.number, "of": page.of, "text": page.text})
        _say({"end": True})
    except HunyuanError as error:
        _say({"error": [error.en, error.zh]})
    except MemoryError:
        _say({"memory": True})


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def _say(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
