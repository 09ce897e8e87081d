"""The section of the breakers: when what fails is left alone, for how long, and how slowly.

Never counts anything: ``limits.breaker`` does.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from mailgate.config.terms import Duration, Rate, RateText, Section, format_duration, refuse


class Breaker(Section):
    """One kind of breaker: open after ``failures``, for first, first x 2, … up to cap."""

    failures: int = Field(3, ge=1, le=1000, description="Failures in a row that open it.")
    first: Duration = Field(5.0, gt=0, description="How long it stays open at first.")
    cap: Duration = Field(300.0, gt=0, description="The longest between two probes.")

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.first > self.cap:
            longest = format_duration(self.cap)
            refuse([("first", f"is longer than cap ({longest}), which is the longest wait")])
        return self


class LoginBreaker(Breaker):
    """Each try counts against the account: one refusal is enough, and the waits are long."""

    failures: int = Field(1, ge=1, le=1000, description="Refusals in a row that open it.")
    first: Duration = Field(60.0, gt=0, description="How long it stays open at first.")
    cap: Duration = Field(3600.0, gt=0, description="The longest between two logins.")


class DomainBreaker(Breaker):
    """A destination as one relay reaches it."""

    failures: int = Field(10, ge=1, le=1000, description="Refusals in a row that open it.")
    first: Duration = Field(60.0, gt=0, description="How long it stays open at first.")
    cap: Duration = Field(7200.0, gt=0, description="The longest between two probes.")


class SenderBreaker(Breaker):
    """A From address that one relay does not let us use."""

    failures: int = Field(3, ge=1, le=1000, description="Refusals in a row that open it.")
    first: Duration = Field(60.0, gt=0, description="How long it stays open at first.")
    cap: Duration = Field(3600.0, gt=0, description="The longest between two probes.")


class Breakers(Section):
    """What fails again and again gets no mail for a while, then one probe."""

    #: A relay that cannot be reached, greets or closes with a refusal.
    relay: Breaker = Breaker()
    login: LoginBreaker = LoginBreaker()
    domain: DomainBreaker = DomainBreaker()
    sender: SenderBreaker = SenderBreaker()
    slowest: RateText = Field(
        Rate(6, 60.0), description="Throttling replies never slow mail below this."
    )
    recover: Duration = Field(
        300.0, gt=0, description="So long after the last throttling reply the rate doubles."
    )
