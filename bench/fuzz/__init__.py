"""Hostile input, by the million: what a producer, a relay or an author could send in.

Owns the targets: each takes any bytes, drives mailgate's own functions with them and
raises ``Escaped`` when a promise does not hold. The tests run the same targets by
hypothesis and over every input that was ever found (``tests/unit/hostile``).
"""

from __future__ import annotations


class Escaped(AssertionError):
    """A promise was broken; the words say which."""


def hold(true: object, promise: str) -> None:
    if not true:
        raise Escaped(promise)
