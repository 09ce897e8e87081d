"""The section of one relay: where it is, how to prove who we are, how hard to lean on it.

Never connects to anything: ``smtp`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from mailgate.config.limits import DomainLimit, DomainName
from mailgate.config.terms import Duration, Host, IpAddress, RateText, Section, refuse

#: A relay's password, or what gives the token of the moment: asked for every login, in a
#: thread; raises ``OSError`` or ``ValueError`` where there is none.
Secret = str | Callable[[], str]


class Relay(Section):
    host: Host = Field(description="Name or address of the SMTP server.")
    port: int = Field(
        587, ge=1, le=65535, description="587 for submission, 465 with tls, 25 between servers."
    )
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description="starttls: never without it; tls: from the first byte; none: in clear.",
    )
    username: str | None = Field(None, description="For AUTH; without one there is no AUTH.")
    password_env: str | None = Field(None, description="Environment variable with the password.")
    password_file: Path | None = Field(None, description="File with the password.")
    token_file: Path | None = Field(
        None, description="File with an OAuth 2.0 access token, read again for every login."
    )
    auth: tuple[Literal["plain", "login", "cram-md5", "xoauth2"], ...] = Field(
        ("plain", "login"),
        description="AUTH mechanisms in order of preference; xoauth2 stands alone.",
    )
    ca_file: Path | None = Field(None, description="PEM bundle to trust instead of the system's.")
    verify: bool = Field(True, description="False accepts any certificate: for tests only.")
    hostname: Host | None = Field(None, description="What we say in EHLO; this host by default.")
    source_address: IpAddress | None = Field(
        None, description="Our own address that connections come from; the system's choice."
    )
    max_connections: int = Field(20, ge=1, le=1000, description="For each worker process.")
    max_connections_total: int | None = Field(
        None,
        ge=1,
        description="Most connections over all worker processes together, idle ones counted.",
    )
    messages_per_connection: int = Field(
        1000, ge=1, description="Then a connection is closed and another opened."
    )
    idle: Duration = Field(15.0, description="A connection idle for longer is closed.")
    max_age: Duration = Field(300.0, description="A connection older than this is closed.")
    connect_timeout: Duration = Field(30.0, description="Wait for TCP and TLS to be there.")
    command_timeout: Duration = Field(300.0, description="Wait for a reply (RFC 5321 4.5.3.2).")
    dot_timeout: Duration = Field(600.0, description="Wait for the reply to the final dot.")
    rate: RateText | None = Field(
        None, description="Most attempts over all worker processes together."
    )
    domains: dict[DomainName, DomainLimit] = Field(
        default_factory=dict, description="What this relay may send to one destination domain."
    )

    @model_validator(mode="after")
    def _auth_fits(self) -> Self:
        refuse([*self._secret_faults(), *self._mechanism_faults()])
        return self

    def _secret_faults(self) -> list[tuple[str, str]]:
        said = [
            key for key in ("password_env", "password_file", "token_file") if getattr(self, key)
        ]
        faults = []
        if self.username and self.security == "none":
            faults.append(
                (
                    "security",
                    "is 'none', which would send username and password in clear: "
                    "it must be 'starttls' or 'tls'",
                )
            )
        if self.username and not said:
            faults.append(("username", "needs password_env, password_file or token_file beside it"))
        faults += [
            (later, f"is set and so is {said[0]}: leave one of them out") for later in said[1:]
        ]
        if said and not self.username:
            faults.append((said[0], "needs username beside it: without one there is no AUTH"))
        return faults

    def _mechanism_faults(self) -> list[tuple[str, str]]:
        if not self.auth:
            return [("auth", "is empty: name at least one mechanism")] if self.username else []
        if "xoauth2" not in self.auth:
            if self.token_file:
                return [("auth", "must be ['xoauth2'], which sends what token_file holds")]
            return []
        if self.auth != ("xoauth2",):
            # A token must never go out as if it were a password, nor the other way round.
            return [("auth", "mixes xoauth2 with mechanisms that send a password: leave one out")]
        if not self.token_file:
            return [("auth", "is ['xoauth2'], which needs token_file")]
        return []
