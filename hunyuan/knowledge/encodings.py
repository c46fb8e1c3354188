"""Bytes of a text file as text: by its mark, else UTF-8, UTF-16, GB18030 or Windows-1252."""

import codecs
import re

from hunyuan.errors import BadDataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 65536
_USUAL = re.compile(r"[\t\n\r -~\xa0-\u024f\u2010-\u2026\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def decode(data: bytes, name: str, declared: str | None = None) -> str:
    """The text; ``declared`` is the encoding that the file itself names, if it does.

    Raises `BadDataError` for bytes that are no text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _text(data.decode(encoding, "replace"), name)
    if guess := _utf16(data[:_SAMPLE]):
        return _text(data.decode(guess, "replace"), name)
    for encoding in filter(None, (_known(declared), "utf-8")):
        try:
            return _text(data.decode(encoding), name)
        except UnicodeDecodeError:
            continue
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        return _text(data.decode("cp1252", "replace"), name)
    # Accented Latin often happens to be valid GB18030, but then of characters nobody uses.
    return _text(text if _is_chinese(text[:_SAMPLE]) else data.decode("cp1252", "replace"), name)


def _text(text: str, name: str) -> str:
    sample = text[:_SAMPLE]
    strange = len(_CONTROLS.findall(sample)) + sample.count("\ufffd")
    if strange > 2 + len(sample) // 50:
        raise BadDataError(
            f"{name}: is not a text in UTF-8, UTF-16 or GB18030; save it as one of these, or as "
            "PDF, and add it again",
            f"{name}：不是 UTF-8、UTF-16 或 GB18030 编码的文本；请另存为其中一种或 PDF 后重新添加",
        )
    return text


def _known(declared: str | None) -> str | None:
    if declared is None:
        return None
    try:
        found = codecs.lookup(declared)
    except (LookupError, ValueError):
        return None
    # A codec may also unpack archives: only those for texts. What says GB2312 is often more.
    if not getattr(found, "_is_text_encoding", False) or found.name in ("idna", "punycode"):
        return None
    return "gb18030" if found.name in ("gb2312", "gbk") else found.name


def _utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark: zero bytes, which no other text has, and usual characters."""
    if 0 not in sample:
        return None
    for encoding in ("utf-16-le", "utf-16-be"):
        text = sample[: len(sample) & ~1].decode(encoding, "replace")
        if len(_USUAL.findall(text)) > 0.9 * len(text):
            return encoding
    return None


def _is_chinese(text: str) -> bool:
    high = [char for char in text if char > "\x7f"]
    common = 0
    for char in high:
        try:
            char.encode("gb2312")
        except UnicodeEncodeError:
            continue
        common += 1
    return common >= 0.7 * len(high)
