"""The section of the sandbox: what may leave an installation that is no production.

Never decides about a mail: ``delivery.sandbox`` does.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailgate.config.relays import Relay
from mailgate.config.terms import Receivers, Section, refuse
from mailgate.model.address import wire_form

#: What captured mail is shown by stands among the relays under this name, which none can have.
VIEWER = "sandbox.inbox"


def _inbox(text: str) -> str:
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or " " in host:
        raise ValueError("must be a host and a port such as '127.0.0.1:1025'")
    return f"{host}:{port}"


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

    inbox: Annotated[str, AfterValidator(_inbox)] | None = Field(
        None,
        description="Where captured mail can be looked at: 'host:port' of an SMTP server that "
        "sends nothing on, such as Mailpit. `mailgate up` has its own.",
    )

    @property
    def viewer(self) -> Relay | None:
        """The inbox that shows what is captured, as the pool knows it."""
        if self.inbox is None:
            return None
        host, _, port = self.inbox.rpartition(":")
        return Relay(
            host=host.strip("[]"),
            port=int(port),
            security="none",
            max_connections=4,
            # Nothing depends on it, and nothing should wait for it.
            connect_timeout=2,
            command_timeout=5,
            dot_timeout=10,
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
