"""The section of events: what producers are told of their mail, and where.

Never publishes anything: ``events`` does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mailgate.config.terms import Section

#: As in ``contract.event``; a test compares them.
Kind = Literal[
    "accepted",
    "conflict",
    "parked",
    "state",
    "queued",
    "gathering",
    "deferred",
    "sent",
    "bounced",
    "failed",
    "uncertain",
    "expired",
    "suppressed",
    "throttled",
    "digested",
    "cancelled",
    "held",
    "captured",
]


class Events(Section):
    """Producers read them on a topic exchange of RabbitMQ, or on Redis streams of their own."""

    enabled: bool = Field(
        True,
        description="Whether anybody is told. What happens while it is false is not told later.",
    )
    kinds: tuple[Kind, ...] = Field((), description="Only these are published. All by default.")
    max_length: int = Field(
        100_000,
        ge=100,
        description="Redis: a producer's stream holds about so many events, some 0.6 kB each; the "
        "oldest go first.",
    )
    url: str | None = Field(
        None, description="The broker that they go to; where producers publish by default."
    )
