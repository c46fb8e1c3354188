"""One self-contained HTML document: style, scripts and data inside, nothing fetched.

Data travel as JSON in an inert script element; the page's scripts draw from it with text nodes
only, so that nothing a log says can become markup. A content security policy forbids the network.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

SHELL = "page.html"


def document(title: str, scripts: Sequence[str], data: Mapping[str, Any]) -> bytes:
    """The document; scripts are file names of the folder ``static``, in the order they run."""
    parts = {
        "TITLE": title.replace("&", "&amp;").replace("<", "&lt;"),
        "STYLE": static("page.css"),
        "DATA": inert_json(data),
        "SCRIPTS": "\n".join(static(name) for name in scripts),
    }
    # In one pass: what is put in is never searched for marks.
    text = re.sub("@([A-Z]+)@", lambda mark: parts[mark[1]], static(SHELL))
    return text.encode("utf-8")


def static(name: str) -> str:
    """A file that becomes part of the page."""
    return files("hunyuan.report").joinpath("static", name).read_text(encoding="utf-8")


def inert_json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def rounded(value: float | None, digits: int = 5) -> float | None:
    """A number in so many significant digits, None if it is none."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
