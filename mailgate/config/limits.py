"""The limits that an operator sets: on all mail, producers, destinations and senders.

Owns how each is named and written. Never knows which message falls under which:
``limits.policy`` does.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from mailgate.config.terms import Name, RateText, Section
from mailgate.model.address import wire_form


def parse_domain(text: str) -> str:
    """A destination domain in wire form: lower case, in A-labels."""
    return wire_form(f"any@{text.strip()}").rpartition("@")[2]


def parse_sender(text: str) -> str:
    """A From address, or the domain of all of them; folded, for senders differ in no case."""
    return wire_form(text.strip()).casefold() if "@" in text else parse_domain(text)


DomainName = Annotated[str, AfterValidator(parse_domain)]
SenderName = Annotated[str, AfterValidator(parse_sender)]


class DomainLimit(Section):
    """What one destination may get; a rate alone may be written as a text."""

    rate: RateText | None = Field(
        None, description="Most attempts over all worker processes together."
    )

    max_connections: int | None = Field(
        None, ge=1, description="Most conversations at once over all worker processes together."
    )

    @model_validator(mode="before")
    @classmethod
    def _rate_alone(cls, value: Any) -> Any:
        return {"rate": value} if isinstance(value, str) else value


class Limits(Section):
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True
    )

    total: RateText | None = Field(None, alias="global", description="All attempts together.")
    producer: dict[Name, RateText] = Field(
        default_factory=dict,
        description="What one producer may send: each recipient counts once, not each attempt.",
    )
    sender: dict[SenderName, RateText] = Field(
        default_factory=dict,
        description="Attempts with one From address, or with any address of a From domain.",
    )
    domain: dict[DomainName, DomainLimit] = Field(
        default_factory=dict,
        description="Attempts to one destination domain, whatever the relay.",
    )
