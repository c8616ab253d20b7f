"""Numbers of payment cards, e-mail addresses and phone numbers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

__all__ = ["find_cards", "find_emails", "find_phones"]

Span = tuple[int, int]

_GAP = "[ \u00a0.-]"
_CARD = re.compile(
    rf"(?<![A-Za-z0-9_])(?<![0-9]\.)(?:"  # not the digits behind a decimal point
    rf"[0-9]{{13,19}}"
    rf"|[0-9]{{4}}({_GAP})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{1,7}}"
    rf"|[0-9]{{4}}({_GAP})[0-9]{{6}}\2[0-9]{{4,5}}"
    rf")(?![A-Za-z0-9_])(?!\.[0-9])"
)
_LONG_CARD = re.compile(rf"(?:[0-9]{{4}}({_GAP}))(?:[0-9]{{4}}\1){{3}}[0-9]{{1,3}}(?![A-Za-z0-9_])")
_LENGTHS_BY_PREFIX: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({13, 16, 19})),  # Visa
    (51, 55, frozenset({16})),  # Mastercard
    (2221, 2720, frozenset({16})),
    (34, 34, frozenset({15})),  # American Express
    (37, 37, frozenset({15})),
    (300, 305, frozenset(range(14, 20))),  # Diners Club
    (36, 36, frozenset(range(14, 20))),
    (38, 39, frozenset(range(14, 20))),
    (3528, 3589, frozenset(range(16, 20))),  # JCB
    (6011, 6011, frozenset(range(16, 20))),  # Discover
    (644, 659, frozenset(range(16, 20))),
    (62, 62, frozenset(range(16, 20))),  # UnionPay
    (5018, 5018, frozenset(range(13, 20))),  # Maestro
    (5020, 5020, frozenset(range(13, 20))),
    (5038, 5038, frozenset(range(13, 20))),
    (5893, 5893, frozenset(range(13, 20))),
    (6304, 6304, frozenset(range(13, 20))),
    (6759, 6763, frozenset(range(13, 20))),
)
_EMAIL = re.compile(
    r"(?<![\w%+-])[\w%+-][\w.%+-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
    r"(?!:[\w.~-]{0,60}/)"  # git@host:path/ is where a repository is
)
_USER_OF_URL = re.compile(r"""://[^\s/@,;<>()"']*$""")


def find_cards(text: str) -> Iterator[Span]:
    """Yield where numbers of payment cards stand: 13 to 19 digits, in groups as on a card or in one piece.

    They begin like an issuer's (ISO/IEC 7812) and their check digit is right (Luhn's algorithm), so that of random
    numbers of 16 digits one in forty is taken for one.
    """
    match = _CARD.search(text)
    while match:
        longer = _LONG_CARD.match(text, match.start())
        valid = next((found.end() for found in (longer, match) if found and _is_card(found[0])), None)
        if valid:
            yield match.start(), valid
        # A number before the card's, as in `order 1234 4111 ...`, must not take groups of it away.
        match = _CARD.search(text, valid or match.start() + 1)


def find_emails(text: str) -> Iterator[Span]:
    """Yield where e-mail addresses stand; what stands before the host of a URL, ``ssh://git@host``, is none."""
    for match in _EMAIL.finditer(text):
        if not _USER_OF_URL.search(text, max(0, match.start() - 200), match.start()):
            yield match.span()


def find_phones(text: str, region: str | None) -> Iterator[Span]:
    """Yield where valid phone numbers stand: those that begin with ``+``, and with a region also its own."""
    if region is None and "+" not in text and "＋" not in text:
        return
    from phonenumbers import Leniency, PhoneNumberMatcher

    for match in PhoneNumberMatcher(text, region, Leniency.VALID, max_tries=sys.maxsize):
        yield match.start, match.end


def _is_card(number: str) -> bool:
    digits = re.sub("[^0-9]", "", number)
    return _luhn(digits) and any(
        len(digits) in lengths and low <= int(digits[: len(str(low))]) <= high
        for low, high, lengths in _LENGTHS_BY_PREFIX
    )


def _luhn(digits: str) -> bool:
    """Check the last digit (ISO/IEC 7812-1, annex B): every second digit from the right counts double."""
    doubled = (2 * int(digit) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0
