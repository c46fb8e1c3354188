"""Personal data replaced by placeholders: addresses of mail, telephones, identities, cards, IPs.

Each kind has a pattern for what looks like it and, where one exists, a check that it is: the check
digit and the birth date of a Chinese identity number, Luhn's digit and a known issuer of a card,
that an IP address is public. Names and street addresses are not found; that needs a model.

Digits may stand directly between Han characters, so word boundaries would miss them: what must not
precede or follow is another digit or letter.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection
from datetime import date

from hunyuan.data.recipe import Personal

_BEFORE, _AFTER = r"(?<![0-9A-Za-z_.+-])", r"(?![0-9A-Za-z_]|[.-][0-9])"

_EMAIL = re.compile(
    r"(?<![0-9A-Za-z._%+-])[0-9A-Za-z_%+-]+(?:\.[0-9A-Za-z_%+-]+){0,5}@"
    r"(?:[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?\.){1,5}[A-Za-z]{2,24}(?![0-9A-Za-z-])"
)
_IDENTITY = re.compile(rf"{_BEFORE}[1-9]\d{{16}}[\dXx]{_AFTER}")
_CARD = re.compile(rf"{_BEFORE}[2-6]\d{{3}}(?:[ -]?\d{{4}}){{2}}[ -]?\d{{1,7}}{_AFTER}")
_PHONE = re.compile(
    rf"{_BEFORE}(?:"
    r"(?:(?:\+|00)86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}"  # Chinese mobile
    r"|(?:\+86[ -]?)?\(?0(?:10|2\d|[3-9]\d{2})\)?[ -]\d{7,8}"  # Chinese landline
    r"|\+[1-9]\d{0,2}(?:[ -]?\(?\d{1,4}\)?){2,4}[ -]?\d{2,4}"  # international
    r"|(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}"  # North American
    rf"){_AFTER}"
)
_IP4 = re.compile(rf"{_BEFORE}(?:\d{{1,3}}\.){{3}}\d{{1,3}}{_AFTER}")
_IP6 = re.compile(
    r"(?<![0-9A-Fa-f:.])(?:[0-9A-Fa-f]{1,4}:){3,7}(?::?[0-9A-Fa-f]{1,4}){1,4}(?![0-9A-Fa-f:.])"
)

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS = "10X98765432"
_ISSUERS = re.compile(
    r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|3[0689]|62|6011|65|35(?:2[89]|[3-8])"
)


def redact(text: str, kinds: Collection[Personal]) -> tuple[str, Counter[Personal]]:
    """``text`` with placeholders such as ``[email]``, and how many of each kind."""
    found: Counter[Personal] = Counter()
    for kind, pattern, check in _FINDERS:
        if kind not in kinds:
            continue

        def placeholder(
            match: re.Match[str], kind: Personal = kind, check: Callable[[str], bool] = check
        ) -> str:
            if not check(match.group()):
                return match.group()
            found[kind] += 1
            return f"[{kind}]"

        text = pattern.sub(placeholder, text)
    return text, found


def is_identity(number: str) -> bool:
    """Whether an 18-digit Chinese identity number has a birth date and the right check digit."""
    total = sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS, strict=False))
    if _CHECKS[total % 11] != number[17].upper():
        return False
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return 1850 <= born.year <= 2100


def is_card(number: str) -> bool:
    """Whether a number has a known issuer, a possible length and Luhn's check digit."""
    digits = [int(character) for character in number if character.isdigit()]
    if not 14 <= len(digits) <= 19 or not _ISSUERS.match("".join(map(str, digits))):
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0 and len(set(digits)) > 1


def _is_public_ip(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global and not _is_numbering(address)
    except ValueError:
        return False


def _is_numbering(address: str) -> bool:
    """Whether it could as well be a section (3.2.1.4) or a version (6.0.1.10)."""
    return sum(len(part) > 1 for part in address.split(".")) < 2 and ":" not in address


def _is_long_enough(number: str) -> bool:
    """Whether an international number has the digits of one: +71332 is a difference."""
    return not number.startswith("+") or 9 <= sum(map(str.isdigit, number)) <= 15


def _always(_: str) -> bool:
    return True


_FINDERS: tuple[tuple[Personal, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", _EMAIL, _always),
    ("identity", _IDENTITY, is_identity),
    ("card", _CARD, is_card),
    ("phone", _PHONE, _is_long_enough),
    ("ip", _IP4, _is_public_ip),
    ("ip", _IP6, _is_public_ip),
)
