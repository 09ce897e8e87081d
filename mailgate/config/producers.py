"""The section of one producer: its share, and what it may ask for.

A producer needs no section: without one it has all the defaults.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mailgate.config.terms import Section


class Producer(Section):
    """One service that publishes."""

    weight: int = Field(
        1,
        ge=1,
        le=1000,
        description="Its share of the places in a lane while others wait there too: with 3, "
        "three mails for one of a producer with 1.",
    )
    throttle: Literal["stricter", "any", "none"] = Field(
        "stricter",
        description="What its messages may say about throttles. stricter: a limit or a key "
        "besides the configured rules; any: also in their place (throttle.replace); none: "
        "nothing.",
    )
