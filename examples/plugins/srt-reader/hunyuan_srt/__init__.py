"""Reads subtitles (.srt): what is said, without numbers and times."""

import re
from collections.abc import Iterator
from pathlib import Path

_TIME = re.compile(r"\d\d:\d\d:\d\d,\d{3} --> ")
_TAG = re.compile(r"<[^>]{1,40}>")


def read(path: Path) -> Iterator[str]:
    """One paragraph a subtitle; `ValueError` for a file that holds none."""
    said = 0
    for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")):
        lines = block.strip().split("\n")
        if len(lines) > 2 and lines[0].strip().isdigit() and _TIME.match(lines[1]):
            said += 1
            yield _TAG.sub("", "\n".join(lines[2:])) + "\n\n"
    if said == 0:
        raise ValueError("holds no subtitles")
