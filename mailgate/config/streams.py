"""The section of one stream: sender, relays, lane, retries, throttles.

Owns the streams that are there without any configuration.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from mailgate.config.terms import Duration, Mailbox, ReversePath, Section
from mailgate.model.state import Lane


class Backoff(Section):
    """When a deferred recipient is tried again: first, first x factor, … up to cap."""

    first: Duration = Field(60.0, description="Wait before the second attempt.")
    factor: float = Field(3.0, ge=1, description="Each wait is so much longer than the last.")
    cap: Duration = Field(4 * 3600.0, description="The longest wait.")
    jitter: float = Field(0.2, ge=0, le=0.9, description="Share by which a wait may differ.")
    give_up: Duration = Field(72 * 3600.0, description="Age at which a recipient fails.")


class ThrottleRule(Section):
    """At most ``limit`` mails to one recipient in any ``window``."""

    limit: int = Field(ge=1, description="Most mails in any window.")
    window: Duration = Field(gt=0, description="Length of the window.")
    per: Literal["recipient", "recipient+template"] = Field(
        "recipient", description="What is counted together."
    )
    on_limit: Literal["defer", "drop"] = Field(
        "defer", description="defer: waits for the window; drop: is never sent."
    )


class Stream(Section):
    """A named set of defaults for one kind of mail."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True
    )

    sender: Mailbox | None = Field(
        None, alias="from", description="From when the message names none."
    )
    envelope_from: ReversePath | None = Field(
        None, description="MAIL FROM; the From address by default, '' for the null sender."
    )
    relays: tuple[str, ...] = Field((), description="In order of preference; all by default.")
    lane: Lane = Field(
        Lane.NORMAL, description="Which queue: high overtakes normal, normal overtakes bulk."
    )
    retry: Backoff = Backoff()
    uncertain: Literal["retry", "hold"] = Field(
        "retry",
        description="When no answer came after the final dot: retry (perhaps a second copy) "
        "or hold (an operator decides).",
    )
    throttle: tuple[ThrottleRule, ...] = Field(
        (), description="How many mails one recipient gets in a window."
    )
    expires_after: Duration | None = Field(None, description="expires_at when none is given.")


def built_in_streams() -> dict[str, Stream]:
    return {
        "transactional": Stream(),
        "codes": Stream(
            lane=Lane.HIGH,
            retry=Backoff(first=10, factor=2, cap=120, give_up=600),
        ),
        "bulk": Stream(
            lane=Lane.BULK,
            retry=Backoff(first=900, factor=2, cap=4 * 3600),
        ),
    }
