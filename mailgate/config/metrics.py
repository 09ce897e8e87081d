"""The section of the metrics: where each process shows its numbers and its health.

Owns how an address to listen on is written. Never listens.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer

from mailgate.config.terms import Section

_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+):(\d{1,5})")


class Listen(NamedTuple):
    """Where a process listens; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(value: Any) -> Listen:
    """``"127.0.0.1:9464"``, ``"[::1]:9464"``, ``"0.0.0.0:9464"``."""
    if isinstance(value, Listen):
        return value
    found = _LISTEN.fullmatch(str(value).strip())
    if not found or int(found[2]) > 65535:
        raise ValueError(f"{value!r} is no address to listen on: write HOST:PORT")
    return Listen(found[1].strip("[]"), int(found[2]))


ListenText = Annotated[Listen, BeforeValidator(parse_listen), PlainSerializer(str)]


class Metrics(Section):
    """Metrics and health pages; one address a process, since each serves its own."""

    intake: ListenText | None = Field(
        None, description="Where `mailgate intake` serves /metrics and /health/…; off by default."
    )
    worker: ListenText | None = Field(
        None, description="The same of `mailgate worker`, for all its processes together."
    )
    beat: ListenText | None = Field(
        None, description="The same of `mailgate beat`, with the journal's gauges."
    )
