"""The section of one stream: sender, relays, lane, retries, throttles.

Owns the streams that are there without any configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from mailgate.config.terms import (
    Duration,
    Mailbox,
    Name,
    Rate,
    RateText,
    ReversePath,
    Section,
    refuse,
)
from mailgate.config.throttles import ThrottleRule
from mailgate.model.state import Lane
from mailgate.model.verp import LONGEST

#: Schedules by name, as far as they differ from the defaults: minutes that grow to hours
#: for three days; a code, which nobody wants after ten minutes; mail that can wait.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "transactional": {},
    "codes": {"first": 10.0, "factor": 2.5, "cap": 120.0, "give_up": 600.0},
    "bulk": {"first": 900.0, "factor": 2.0},
}


class Backoff(Section):
    """When a deferred recipient is tried again: first, first x factor, … up to cap.

    ``retry = "codes"`` is the preset of that name; in a table what is said beside
    ``preset`` changes it.
    """

    preset: Literal["transactional", "codes", "bulk"] = Field(
        "transactional", description="The schedule that the keys below change."
    )
    first: Duration = Field(60.0, description="Wait before the second attempt.")
    factor: float = Field(3.0, ge=1, description="Each wait is so much longer than the last.")
    cap: Duration = Field(4 * 3600.0, description="The longest wait.")
    jitter: float = Field(0.2, ge=0, le=0.9, description="Share by which a wait may differ.")
    give_up: Duration = Field(72 * 3600.0, description="Age at which a recipient fails.")

    @model_validator(mode="before")
    @classmethod
    def _over_the_preset(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"preset": value}
        if isinstance(value, dict) and isinstance(value.get("preset"), str):
            return {**PRESETS.get(value["preset"], {}), **value}
        return value


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
    verp: bool = Field(
        False,
        description="Each recipient has an envelope sender of its own, so that bounces can be "
        "told apart: bounces+<26 letters and digits>@….",
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
    bypass_throttles: bool = Field(
        False,
        description="Its mail is too important for [throttles]: only the stream's own, a hard "
        "cap and what a message asks for itself count.",
    )
    hard_cap: RateText = Field(
        Rate(100, 3600.0),
        description="Most mails to one recipient where throttles are bypassed: against loops. "
        "What is over waits.",
    )
    category: Name | None = Field(
        None,
        description="What recipients unsubscribe from; mail of a stream without one reaches "
        "also those who did.",
    )
    expires_after: Duration | None = Field(None, description="expires_at when none is given.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if self.hard_cap.burst > 1:
            faults.append(("hard_cap", "has no burst: it counts in a sliding window"))
        if self.verp:
            local = (self.envelope_from or "").rpartition("@")[0]
            if not local:
                faults.append(("envelope_from", "is required with verp, and not empty"))
            elif len(local.encode()) > LONGEST:
                faults.append(
                    (
                        "envelope_from",
                        f"is too long before the @-sign for verp: at most {LONGEST} octets",
                    )
                )
        refuse(faults)
        return self


#: The streams that are always there, as a configuration would say them.
BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "transactional": {},
    "codes": {"lane": "high", "retry": "codes"},
    "bulk": {"lane": "bulk", "retry": "bulk"},
}


def built_in_streams() -> dict[str, Stream]:
    return {name: Stream.model_validate(said) for name, said in BUILT_IN.items()}


def with_built_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """The streams that a configuration says, over those that are always there.

    One changes its built-in namesake key by key, and its schedule too: a table without a
    ``preset`` changes the stream's own.
    """
    out: dict[str, Any] = {name: dict(said) for name, said in BUILT_IN.items()}
    for name, section in given.items():
        if name in out and isinstance(section, dict):
            retry, preset = section.get("retry"), out[name].get("retry")
            if preset is not None and isinstance(retry, dict):
                section = {**section, "retry": {"preset": preset, **retry}}
            section = {**out[name], **section}
        out[name] = section
    return out
