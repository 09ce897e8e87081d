"""The sections of the configuration, frozen, with their defaults and meanings.

Owns what may be said in ``mailgate.toml``; every field's description is the
manual. Never reads a file or the environment: ``config.load`` does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mailgate.model.address import Address, wire_form
from mailgate.model.state import Lane

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_RATE = re.compile(r"(\d+)\s*/\s*(\d*)\s*(s|m|h|d)(?:\s+burst\s+(\d+))?")
_MAILBOX = re.compile(r"\s*(?:\"?([^\"<>]*?)\"?\s*)<([^<>]+)>\s*")
_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class Rate(NamedTuple):
    """At most ``limit`` admissions in any half-open ``period`` (seconds).

    With a ``burst`` of b > 1 up to b may go at once, and a period holds at most
    ``limit + b - 1``.
    """

    limit: int
    period: float
    burst: int = 1

    def __str__(self) -> str:
        unit = next(
            (u for u in ("d", "h", "m", "s") if self.period == _UNITS[u]), f"{self.period:g}s"
        )
        return f"{self.limit}/{unit}" + (f" burst {self.burst}" if self.burst > 1 else "")


def parse_duration(value: Any) -> float:
    """``"90s"``, ``"4h"``, ``"3d"``, ``"250ms"`` in seconds; a number is seconds already."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _DURATION.fullmatch(str(value).strip())
    if not found:
        raise ValueError(f"{value!r} is not a duration: write a number and ms, s, m, h, d or w")
    return float(found[1]) * _UNITS[found[2]]


def format_duration(seconds: float) -> str:
    """The shortest spelling that ``parse_duration`` reads back."""
    for unit in ("w", "d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds * 1000:g}ms"


def parse_rate(value: Any) -> Rate:
    """``"14/s"``, ``"100/m"``, ``"3/10m"``, ``"14/s burst 20"``."""
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(str(value).strip())
    if not found or int(found[1]) < 1 or found[2] == "0":
        raise ValueError(f"{value!r} is not a rate: write N/s, N/m, N/h or N/d, N at least 1")
    period = int(found[2] or 1) * _UNITS[found[3]]
    return Rate(int(found[1]), period, max(1, int(found[4] or 1)))


def parse_mailbox(value: Any) -> Address:
    """``"ann@example.com"`` or ``"Ann Bell <ann@example.com>"``."""
    if isinstance(value, Address):
        return value
    text = str(value)
    found = _MAILBOX.fullmatch(text)
    name, email = (found[1], found[2]) if found else ("", text.strip())
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise ValueError("a display name holds no control characters")
    return Address(wire_form(email), name)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    Field(ge=0),
]
RateText = Annotated[Rate, BeforeValidator(parse_rate), PlainSerializer(str)]
Mailbox = Annotated[
    Address,
    BeforeValidator(parse_mailbox),
    PlainSerializer(lambda a: f"{a.name} <{a.email}>" if a.name else a.email),
]
Name = Annotated[str, Field(pattern=_NAME)]
#: Goes into commands and headers, so it holds neither spaces nor control characters.
Host = Annotated[str, Field(pattern=r"^[^\s\x00-\x20\x7f]+$")]
#: A reverse-path: '' is the null sender (RFC 5321 section 4.5.5).
ReversePath = Annotated[str, AfterValidator(lambda text: text and wire_form(text))]


def parse_receivers(text: str) -> str:
    """``"ann@example.com"``, or ``"*@example.com"`` for everyone in a domain; in wire form."""
    local, _, domain = text.strip().rpartition("@")
    if local == "*":
        return "*@" + wire_form(f"any@{domain}").rpartition("@")[2]
    if "*" in text:
        raise ValueError("a '*' stands for the whole part before the @-sign, as in '*@example.com'")
    return wire_form(text.strip())


#: Who may get a mail: one address, or everyone in a domain.
Receivers = Annotated[str, AfterValidator(parse_receivers)]


def _refuse(faults: list[tuple[str, str]]) -> None:
    """Raise faults of a whole section, each with its key below the section, if there are any."""
    if faults:
        text = "; ".join(f"{key} {rule}" for key, rule in faults)
        raise PydanticCustomError("section_faults", "{text}", {"text": text, "faults": faults})


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Broker(Section):
    url: str | None = Field(
        None,
        description="Where rings travel: redis://, rediss://, redis+socket://, amqp:// or amqps://.",
    )


class Intake(Section):
    url: str | None = Field(None, description="Where producers publish; the broker's by default.")
    queue: str = Field(
        "mailgate.inbox",
        description="The AMQP queue; on Redis its dots become colons: stream and list.",
    )
    batch: int = Field(500, ge=1, le=5000, description="Most deliveries in one transaction.")
    max_bytes: int = Field(
        16 * 2**20, ge=1024, description="A larger message is parked unread (bytes)."
    )


class Journal(Section):
    url: str | None = Field(
        None, description="SQLAlchemy URL: sqlite:///path or postgresql+psycopg://…"
    )


class LimiterStore(Section):
    url: str | None = Field(
        None,
        description="A Redis URL, or 'journal'. By default the broker when it is Redis.",
    )


class Templates(Section):
    path: tuple[Path, ...] = Field(
        (), description="Template roots, first wins; the built-in catalogue comes last."
    )


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
        _refuse(faults)
        return self


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


class Limits(Section):
    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True
    )

    total: RateText | None = Field(None, alias="global", description="All mail together.")


class Worker(Section):
    conversations: int = Field(
        50, ge=1, le=1000, description="SMTP conversations open at once in a worker process."
    )
    deadline: Duration = Field(5.0, gt=0, description="How long one delivery task works.")
    lease: Duration = Field(10.0, ge=1, description="A silent process is dead after this.")
    max_claims: int = Field(5, ge=1, description="Deaths alone before a recipient is held.")


class Inbox(Section):
    """The local inbox of ``mailgate up``."""

    host: Host = Field("127.0.0.1", description="Where it listens.")
    smtp_port: int = Field(1025, ge=0, le=65535, description="For mail; 0 takes any free port.")
    http_port: int = Field(8025, ge=0, le=65535, description="For the page; 0 takes any free port.")
    keep: int = Field(1000, ge=1, description="Mails kept; the oldest go first.")


class Studio(Section):
    """The page on which templates are looked at while they are written."""

    send_test: tuple[Receivers, ...] = Field(
        (),
        description="Who may get test mails: 'me@example.com', or '*@example.com' for a domain. "
        "Nobody by default; everybody while the local inbox is the only relay.",
    )


class Log(Section):
    """One line a record, on standard error."""

    format: Literal["console", "json"] = Field(
        "console", description="console: key=value for people; json: for machines."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is less urgent is not written."
    )


def _built_in_streams() -> dict[str, Stream]:
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


class Config(Section):
    """Everything an operator can set; read once by the command line or a worker's start."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True
    )

    state_dir: Path = Field(
        Path(".mailgate"), description="Local files: embedded data, leases, spools, inbox."
    )
    default_stream: str = Field(
        "transactional", description="The stream of a message that names none."
    )
    default_producer: Name = Field(
        "default", description="The producer of a message that names none."
    )
    default_locale: str = Field("en", description="The language of a message that names none.")
    message_id_domain: Host | None = Field(
        None, description="Right side of Message-ID; the sender's domain by default."
    )
    broker: Broker = Broker()
    intake: Intake = Intake()
    journal: Journal = Journal()
    limiter: LimiterStore = LimiterStore()
    templates: Templates = Templates()
    relays: dict[Name, Relay] = {}
    streams: dict[Name, Stream] = Field(default_factory=_built_in_streams)
    limits: Limits = Limits()
    worker: Worker = Worker()
    inbox: Inbox = Inbox()
    studio: Studio = Studio()
    log: Log = Log()

    @model_validator(mode="before")
    @classmethod
    def _keep_built_in_streams(cls, value: Any) -> Any:
        """A configured stream changes its built-in namesake key by key; the others stay."""
        if isinstance(value, dict):
            streams = dict(_built_in_streams())
            given = value.get("streams") or {}
            if isinstance(given, dict):
                merged: dict[str, Any] = dict(streams)
                for name, section in given.items():
                    base = streams.get(name)
                    if base is not None and isinstance(section, dict):
                        said = base.model_dump(by_alias=True, exclude_unset=True)
                        section = _merge(said, section)
                    merged[name] = section
                value = {**value, "streams": merged}
        return value

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        faults = []
        for name, stream in self.streams.items():
            for relay in stream.relays:
                if relay not in self.relays:
                    known = ", ".join(f"'{known}'" for known in self.relays) or "none"
                    faults.append(
                        (
                            f"streams.{name}.relays",
                            f"names '{relay}', which is no relay; the relays are: {known}",
                        )
                    )
        if self.default_stream not in self.streams:
            known = ", ".join(f"'{known}'" for known in self.streams)
            faults.append(
                (
                    "default_stream",
                    f"names '{self.default_stream}', which is no stream; the streams are: {known}",
                )
            )
        _refuse(faults)
        return self

    def route(self, stream: str) -> tuple[str, ...]:
        """The relays of a stream in order of preference."""
        return self.streams[stream].relays or tuple(self.relays)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = _merge(out[key], value)
        else:
            out[key] = value
    return out
