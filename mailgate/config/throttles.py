"""The sections of throttles: how many mails one recipient gets, and what producers may add.

Owns the rules' shape. Never counts anything: ``dispatch.throttles`` says which rules a
message meets, ``journal.throttle`` what has been sent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mailgate.config.terms import OR_RATE, Duration, Section, parse_rate, refuse


class ThrottleRule(Section):
    """At most ``limit`` mails to one recipient in any ``window``, and ``spacing`` between two."""

    limit: Annotated[int, OR_RATE] | None = Field(
        None, ge=1, description="Most mails in any window; '3/10m' says the window too."
    )
    window: Duration | None = Field(
        None, gt=0, description="Length of the window; required with a limit."
    )
    spacing: Duration | None = Field(None, gt=0, description="Least time between two mails.")
    per: Literal["recipient", "recipient+template", "recipient+key", "recipient+producer"] = Field(
        "recipient",
        description="What is counted together: all the rule's mail to a recipient, or that of "
        "each template, of each key that producers give as throttle.key, of each producer.",
    )
    on_limit: Literal["defer", "drop", "digest"] = Field(
        "defer",
        description="defer: waits for the window; drop: is never sent; digest: what is over goes "
        "as one mail when the window has room.",
    )
    digest: str | None = Field(
        None,
        description="Of digest: the section of digests that shapes it; 'throttled' by default.",
    )

    @model_validator(mode="before")
    @classmethod
    def _limit_with_its_window(cls, value: Any) -> Any:
        """``limit = "3/10m"`` is a limit and a window."""
        if isinstance(value, dict) and isinstance(value.get("limit"), str):
            try:
                rate = parse_rate(value["limit"])
            except ValueError:
                return value
            if "window" not in value and rate.burst == 1:
                return {**value, "limit": rate.limit, "window": rate.period}
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if self.limit is None and self.window is not None:
            faults.append(("limit", "is required with a window: a whole number, at least 1"))
        elif self.limit is not None and self.window is None:
            faults.append(
                ("window", "is required with a limit: a duration such as '10m', '24h' or '7d'")
            )
        elif self.limit is None and self.spacing is None:
            faults.append(("limit", "is required, or spacing instead"))
        if self.digest is not None and self.on_limit != "digest":
            faults.append(("digest", "is only for on_limit = 'digest'"))
        refuse(faults)
        return self

    def windows(self) -> tuple[tuple[int, float], ...]:
        """Every (limit, window in seconds) that the rule asks for."""
        found = []
        if self.limit is not None and self.window is not None:
            found.append((self.limit, self.window))
        if self.spacing is not None:
            found.append((1, self.spacing))
        return tuple(found)


class Throttle(ThrottleRule):
    """A rule over the mail that it selects; what a selector leaves out, it selects all of."""

    streams: tuple[str, ...] = Field((), description="Only mail of these streams.")
    templates: tuple[str, ...] = Field((), description="Only mail of these templates.")
    tags: tuple[str, ...] = Field((), description="Only mail with one of these tags.")
    producers: tuple[str, ...] = Field((), description="Only mail of these producers.")
