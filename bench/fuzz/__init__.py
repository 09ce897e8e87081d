"""Hostile input, by the million: what a producer, a relay or an author could send in.

Owns the targets: each takes any bytes, drives mailgate's own functions with them and
raises ``Escaped`` when a promise does not hold. The tests run the same targets by
hypothesis and over every input that was ever found (``tests/unit/hostile``).
"""

from __future__ import annotations

from dataclasses import dataclass


class Escaped(AssertionError):
    """A promise was broken; the words say which."""


def hold(true: object, promise: str) -> None:
    if not true:
        raise Escaped(promise)


@dataclass(frozen=True, slots=True)
class Bound:
    """What one input may take, and how long inputs get.

    ``seconds`` of a processor and ``each`` for each byte that comes to the target, never more
    than ``most``; MiB of ``memory`` for the whole process; ``grows``: bytes by which one input
    may make it grow for each byte of its own, and MiB besides.
    """

    seconds: float
    each: float
    most: float
    memory: int
    input: int
    grows: tuple[int, int] | None = None

    def time(self, size: int) -> float:
        return min(self.most, self.seconds + self.each * size)


class Came:
    """Bytes that came to a target, the last time and at most: an input may say fewer."""

    last = 0
    longest = 0


def noted(size: int) -> None:
    Came.last = size
    Came.longest = max(Came.longest, size)
