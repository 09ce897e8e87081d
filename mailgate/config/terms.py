"""The terms that the configuration is written in: rates, durations, names, mailboxes.

Owns how each is read, checked and spelled again, and the base of every section. Knows
no section.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)
from pydantic_core import PydanticCustomError

from mailgate.model.address import Address, wire_form

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_RATE = re.compile(r"(\d+)\s*/\s*(\d*)\s*(s|m|h|d)(?:\s+burst\s+(\d+))?")
_MAILBOX = re.compile(r"\s*(?:\"?([^\"<>]*?)\"?\s*)<([^<>]+)>\s*")
_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class Rate(NamedTuple):
    """At most ``limit`` admissions in any half-open ``period`` (seconds).

    With a ``burst`` of b > 1 up to b may go at once, and a period holds at most
    ``limit + b - 1``.
    """

    limit: int
    period: float
    burst: int = 1

    def __str__(self) -> str:
        unit = next(
            (u for u in ("d", "h", "m", "s") if self.period == _UNITS[u]), f"{self.period:g}s"
        )
        return f"{self.limit}/{unit}" + (f" burst {self.burst}" if self.burst > 1 else "")


def parse_duration(value: Any) -> float:
    """``"90s"``, ``"4h"``, ``"3d"``, ``"250ms"`` in seconds; a number is seconds already."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _DURATION.fullmatch(str(value).strip())
    if not found:
        raise ValueError(f"{value!r} is not a duration: write a number and ms, s, m, h, d or w")
    return float(found[1]) * _UNITS[found[2]]


def format_duration(seconds: float) -> str:
    """The shortest spelling that ``parse_duration`` reads back."""
    for unit in ("w", "d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds * 1000:g}ms"


def parse_rate(value: Any) -> Rate:
    """``"14/s"``, ``"100/m"``, ``"3/10m"``, ``"14/s burst 20"``."""
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(str(value).strip())
    if not found or int(found[1]) < 1 or found[2] == "0":
        raise ValueError(f"{value!r} is not a rate: write N/s, N/m, N/h or N/d, N at least 1")
    period = int(found[2] or 1) * _UNITS[found[3]]
    return Rate(int(found[1]), period, max(1, int(found[4] or 1)))


def parse_mailbox(value: Any) -> Address:
    """``"ann@example.com"`` or ``"Ann Bell <ann@example.com>"``."""
    if isinstance(value, Address):
        return value
    text = str(value)
    found = _MAILBOX.fullmatch(text)
    name, email = (found[1], found[2]) if found else ("", text.strip())
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise ValueError("a display name holds no control characters")
    return Address(wire_form(email), name)


def parse_ip(text: str) -> str:
    """An address such as ``192.0.2.7`` or ``2001:db8::7``, in its shortest spelling."""
    return str(ip_address(text.strip()))


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    Field(ge=0),
]
RateText = Annotated[Rate, BeforeValidator(parse_rate), PlainSerializer(str)]
Mailbox = Annotated[
    Address,
    BeforeValidator(parse_mailbox),
    PlainSerializer(lambda a: f"{a.name} <{a.email}>" if a.name else a.email),
]
Name = Annotated[str, Field(pattern=_NAME)]
#: A queue's name and, with colons for dots, a key on Redis.
QueueName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
#: Marks a limit that may be written together with its window, as '3/10m'.
OR_RATE = "or a rate"
#: Goes into commands and headers, so it holds neither spaces nor control characters.
Host = Annotated[str, Field(pattern=r"^[^\s\x00-\x20\x7f]+$")]
#: An IPv4 or IPv6 address.
IpAddress = Annotated[str, AfterValidator(parse_ip)]
#: A reverse-path: '' is the null sender (RFC 5321 section 4.5.5).
ReversePath = Annotated[str, AfterValidator(lambda text: text and wire_form(text))]


def parse_receivers(text: str) -> str:
    """``"ann@example.com"``, or ``"*@example.com"`` for everyone in a domain; in wire form."""
    local, _, domain = text.strip().rpartition("@")
    if local == "*":
        return "*@" + wire_form(f"any@{domain}").rpartition("@")[2]
    if "*" in text:
        raise ValueError("a '*' stands for the whole part before the @-sign, as in '*@example.com'")
    return wire_form(text.strip())


#: Who may get a mail: one address, or everyone in a domain.
Receivers = Annotated[str, AfterValidator(parse_receivers)]


def receives(email: str, receivers: Collection[str]) -> bool:
    """Whether ``email`` (in wire form) is one of ``receivers``, whatever its case."""
    if not receivers:
        return False
    folded = {receiver.casefold() for receiver in receivers}
    return email.casefold() in folded or f"*@{email.rpartition('@')[2].casefold()}" in folded


def refuse(faults: list[tuple[str, str]]) -> None:
    """Raise faults of a whole section, each with its key below the section, if there are any."""
    if faults:
        text = "; ".join(f"{key} {rule}" for key, rule in faults)
        raise PydanticCustomError("section_faults", "{text}", {"text": text, "faults": faults})


class Section(BaseModel):
    # Built by the one that holds it: what a section alone would be validated by is memory
    # that nobody uses.
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True
    )
