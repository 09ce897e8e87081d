"""The form of the values that are made for each message, in numbers that count.

Owns ``Value``, what a frozen dataclass with slots is, made in a tenth of the time: a
message is more than a dozen of them on its way. Values that are made seldom stay
dataclasses, which more tools know; ``dataclasses.replace`` takes no ``Value``, and the type
checker does not see it.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace


class Value(Struct, frozen=True):
    """Equal by its fields, never changed, hashable when they are; ``replace`` makes another."""


__all__ = ["Value", "replace"]
