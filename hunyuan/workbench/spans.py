"""Places in a text as JavaScript counts them: in UTF-16 code units."""


def utf16_length(text: str) -> int:
    """Code units of ``text``."""
    return len(text) + sum(character > "\uffff" for character in text)


def index_of(text: str, units: int) -> int:
    """The index in ``text`` where ``units`` code units end, at most its length.

    In the middle of a character that takes two units it is the place before it.
    """
    if text.isascii():
        return min(units, len(text))
    index = seen = 0
    while index < len(text) and seen < units:
        seen += 2 if text[index] > "\uffff" else 1
        if seen > units:
            break
        index += 1
    return index
