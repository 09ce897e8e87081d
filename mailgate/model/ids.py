"""Identifiers of messages, recipients and parked bytes: sortable by time, 63 bits.

Owns their making and their spelling. Two processes may, rarely, draw the same
number in the same millisecond: the journal's primary key refuses the second,
and its whole batch is written again with new ones.
"""

from __future__ import annotations

from collections.abc import Callable

_EPOCH_MS = 1_735_689_600_000  # 2025-01-01
_RANDOM_BITS = 21
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32
#: Two characters at a time; the first of the fourteen is always 0.
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUE = {c: i for i, c in enumerate(_ALPHABET)} | {"i": 1, "l": 1, "o": 0}


class Ids:
    """Draws increasing identifiers; ``random`` gives floats in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._last = 0

    def take(self, now_ms: int) -> int:
        """The next identifier, larger than all that this object gave before."""
        base = (now_ms - _EPOCH_MS) << _RANDOM_BITS
        if self._last >= base:
            # Same millisecond, or a clock that went back: count on.
            self._last += 1
        else:
            self._last = base | int(self._random() * (1 << (_RANDOM_BITS - 1)))
        return self._last


def first_of(ms: int) -> int:
    """The least identifier that can be drawn at a time (ms since 1970)."""
    return max(0, ms - _EPOCH_MS) << _RANDOM_BITS


def spell(number: int) -> str:
    """The 13 characters in which people and events see an identifier."""
    two = _PAIRS
    high = f"{two[number >> 60]}{two[number >> 50 & 1023]}{two[number >> 40 & 1023]}"
    low = f"{two[number >> 20 & 1023]}{two[number >> 10 & 1023]}{two[number & 1023]}"
    return f"{high}{two[number >> 30 & 1023]}{low}"[1:]


def unspell(text: str) -> int:
    """Read an identifier back; raises ``ValueError`` when ``text`` is none."""
    number = 0
    if not 1 <= len(text) <= 13:
        raise ValueError(f"{text!r} is not an identifier: 13 letters and digits")
    for c in text.lower():
        if c not in _VALUE:
            raise ValueError(f"{text!r} is not an identifier: {c!r} does not occur in one")
        number = number << 5 | _VALUE[c]
    if number >= 1 << 63:
        raise ValueError(f"{text!r} is not an identifier: it is too large")
    return number
