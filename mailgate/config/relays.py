"""The section of one relay: where it is, how to prove who we are, how hard to lean on it.

Never connects to anything: ``smtp`` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from mailgate.config.terms import Duration, Host, RateText, Section, refuse


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
    auth: tuple[Literal["plain", "login", "cram-md5"], ...] = Field(
        ("plain", "login"), description="AUTH mechanisms in order of preference."
    )
    ca_file: Path | None = Field(None, description="PEM bundle to trust instead of the system's.")
    verify: bool = Field(True, description="False accepts any certificate: for tests only.")
    hostname: Host | None = Field(None, description="What we say in EHLO; this host by default.")
    max_connections: int = Field(20, ge=1, le=1000, description="For each worker process.")
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

    @model_validator(mode="after")
    def _auth_needs_tls(self) -> Self:
        faults = []
        if self.username and self.security == "none":
            faults.append(
                (
                    "security",
                    "is 'none', which would send username and password in clear: "
                    "it must be 'starttls' or 'tls'",
                )
            )
        if self.username and not (self.password_env or self.password_file):
            faults.append(("username", "needs password_env or password_file beside it"))
        if self.password_env and self.password_file:
            faults.append(("password_file", "is set and so is password_env: leave one of them out"))
        refuse(faults)
        return self
