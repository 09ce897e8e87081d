"""The form of the values that are made for each message, in numbers that count.

Owns ``Value``, what a frozen dataclass with slots is, made in a tenth of the time: a
message is some twenty of them on its way, and as dataclasses they cost it as much as its
journal. Values that are made seldom stay dataclasses, which more tools know.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace


class Value(Struct, frozen=True):
    """Equal by its fields, never changed, hashable when they are; ``replace`` makes another."""


__all__ = ["Value", "replace"]
