"""The section of one sender domain that is signed: its keys and what they cover.

Owns how domains, selectors and header names are written. Never reads a key file:
``render.dkim_keys`` does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from mailgate.config.terms import Section, refuse
from mailgate.model.address import AddressError, wire_form

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_FIELD = re.compile(r"[a-z0-9-]{1,76}")


def parse_domain(text: str) -> str:
    """A domain as it stands after the @ of a wire address: lower case, A-labels."""
    try:
        return wire_form(f"any@{text.strip()}").rpartition("@")[2]
    except AddressError:
        raise ValueError("is not a domain such as 'example.com'") from None


def _selector(text: str) -> str:
    lower = text.lower()
    if not _SELECTOR.fullmatch(lower) or len(lower) > 63:
        raise ValueError("is not a selector: letters, digits, '-' and '.' (RFC 6376 section 3.1)")
    return lower


def _field(text: str) -> str:
    lower = text.strip().lower()
    if not _FIELD.fullmatch(lower):
        raise ValueError("is not the name of a header field")
    if lower == "from":
        raise ValueError("names From, which is always signed (RFC 6376 section 5.4)")
    return lower


Domain = Annotated[str, AfterValidator(parse_domain)]
Selector = Annotated[str, AfterValidator(_selector)]


class Dkim(Section):
    """How mail from one domain is signed."""

    subdomains: bool = Field(
        False, description="True signs mail from its subdomains too, with d= this domain."
    )
    unsigned: tuple[Annotated[str, AfterValidator(_field)], ...] = Field(
        (),
        description="Header fields that are left out, because a relay writes them anew: "
        "'date' and 'message-id' for Amazon SES.",
    )
    keys: dict[Selector, Path] = Field(
        description="The private key (PEM, RSA or Ed25519) of this selector. Each key signs.",
    )

    @model_validator(mode="after")
    def _something_signs(self) -> Self:
        if not self.keys:
            refuse([("keys", "is empty: name a key file for a selector")])
        return self
