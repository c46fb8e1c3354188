"""One spelling for every text: NFC, line feeds, no control characters.

Code keeps its spaces; in prose, spaces at line ends and more than one empty line in a row go too.
"""

import re
import unicodedata

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u2060\ufeff\ufdd0-\ufdef\ufffe\uffff]"
)
"""Control characters, zero-width spaces, byte order marks, noncharacters. The zero-width joiners
stay: scripts and emoji need them."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")


def normalise(text: str, *, is_code: bool) -> str:
    """``text`` in its one spelling; lone surrogates become U+FFFD."""
    text = _SURROGATES.sub("\ufffd", text)
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    text = unicodedata.normalize("NFC", text)
    if is_code:
        return text.strip("\n")
    return _EMPTY_LINES.sub("\n\n", _TRAILING.sub("", text)).strip()
