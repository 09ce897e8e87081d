"""Plain values as JSON text and back: one way for all that the hot path writes and reads.

Owns the choice of the library. What comes in from outside is read elsewhere, by a reader
that names what is wrong with it (``contract.strict_json``); here both sides are our own.
Numbers of any size keep their value, and a float that JSON has no word for becomes null.
"""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_sorted = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode


def written(value: Any) -> str:
    """One line of JSON without blanks; raises ``TypeError`` for what is no plain value."""
    return _encode(value).decode()


def canonical(value: Any) -> bytes:
    """The same bytes for equal values: the names of each object are in order."""
    return _sorted(value)


def read(text: str | bytes) -> Any:
    """What ``written`` wrote; raises ``ValueError`` for anything else that is no JSON."""
    return _decode(text)
