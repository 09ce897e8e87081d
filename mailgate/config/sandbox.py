"""The section of the sandbox: what may leave an installation that is no production.

Never decides about a mail: ``delivery.sandbox`` does.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailgate.config.terms import Receivers, Section, refuse
from mailgate.model.address import wire_form


class Sandbox(Section):
    """Outside production: no mail reaches anybody but those who are listed."""

    mode: Literal["off", "capture", "redirect"] = Field(
        "off",
        description="off: mail goes to its recipients. capture: no relay is touched, and the "
        "mail ends as captured. redirect: all of it goes to redirect_to.",
    )
    redirect_to: Annotated[str, AfterValidator(wire_form)] | None = Field(
        None, description="The one address that gets everything while mode is 'redirect'."
    )
    allow: tuple[Receivers, ...] = Field(
        (),
        description="Whose mail goes out all the same: 'me@example.com', or '*@example.com' for "
        "a domain.",
    )

    @model_validator(mode="after")
    def _nothing_is_half_said(self) -> Self:
        """Who lists receivers believes that others get nothing."""
        faults = []
        if self.mode == "off":
            on = "mode is 'off', so that all mail leaves: set mode, or leave this out"
            faults += [("allow", f"is set, and {on}")] if self.allow else []
            faults += [("redirect_to", f"is set, and {on}")] if self.redirect_to else []
        elif self.mode == "redirect" and self.redirect_to is None:
            faults.append(("redirect_to", "is required while mode is 'redirect'"))
        elif self.mode == "capture" and self.redirect_to is not None:
            faults.append(("redirect_to", "is set, and mode is 'capture': set 'redirect'"))
        refuse(faults)
        return self
