"""The sections of the configuration, frozen, with their defaults and meanings.

Owns what may be said in ``mailgate.toml`` as a whole; every field's description is the
manual. Never reads a file or the environment: ``config.load`` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from mailgate.config.breakers import Breakers
from mailgate.config.digests import Digest, digest_faults, with_throttled
from mailgate.config.dkim import Dkim, Domain
from mailgate.config.events import Events
from mailgate.config.limits import Limits
from mailgate.config.metrics import Metrics
from mailgate.config.producers import Producer, producer_faults
from mailgate.config.relays import Relay
from mailgate.config.retention import Retention
from mailgate.config.rules import Rule
from mailgate.config.sandbox import Sandbox
from mailgate.config.schedules import Schedule, Source, schedule_faults
from mailgate.config.streams import Stream, built_in_streams, with_built_in
from mailgate.config.suppressions import Suppressions
from mailgate.config.terms import (
    Duration,
    Host,
    Name,
    Receivers,
    Section,
    refuse,
)
from mailgate.config.throttles import Throttle
from mailgate.config.tracing import Tracing


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
    batch: int = Field(250, ge=1, le=5000, description="Most deliveries in one transaction.")
    batch_bytes: int = Field(
        16 * 2**20,
        ge=2**20,
        description="Most bytes a door has in hand, or one delivery if that is larger.",
    )
    max_bytes: int = Field(
        16 * 2**20, ge=1024, description="A larger message is parked unread (bytes)."
    )
    unknown_producers: Literal["refuse", "accept"] | None = Field(
        None,
        description="Producers without a section, and messages that name none unless "
        "default_producer has one. By default refused as soon as a section says who may "
        "publish: any key of [producers.NAME] but weight, throttle and events.",
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


class Worker(Section):
    conversations: int = Field(
        200, ge=1, le=1000, description="SMTP conversations open at once in a worker process."
    )
    reserved: float = Field(
        0.1,
        ge=0,
        le=0.9,
        description="Share of the conversations, and of each relay's connections, that only "
        "the high lane may use: at least one of four or more.",
    )
    attachment_bytes: int = Field(
        32 * 2**20,
        ge=2**20,
        description="Most bytes of attachments a worker process holds, or one mail's if larger.",
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
    relays: dict[Name, Relay] = Field(default_factory=dict)
    streams: dict[Name, Stream] = Field(default_factory=built_in_streams)
    producers: dict[Name, Producer] = Field(default_factory=dict)
    throttles: dict[Name, Throttle] = Field(default_factory=dict)
    digests: dict[Name, Digest] = Field(
        default_factory=lambda: {name: Digest() for name in with_throttled({})}
    )
    dkim: dict[Domain, Dkim] = Field(default_factory=dict)
    schedules: dict[Name, Schedule] = Field(default_factory=dict)
    sources: dict[Name, Source] = Field(default_factory=dict)
    limits: Limits = Limits()
    breakers: Breakers = Breakers()
    sandbox: Sandbox = Sandbox()
    suppressions: Suppressions = Suppressions()
    retention: Retention = Retention()
    rules: dict[Name, Rule] = Field(default_factory=dict)
    events: Events = Events()
    worker: Worker = Worker()
    inbox: Inbox = Inbox()
    studio: Studio = Studio()
    log: Log = Log()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()

    @model_validator(mode="before")
    @classmethod
    def _keep_built_in_streams(cls, value: Any) -> Any:
        """A configured stream changes its built-in namesake key by key; the others stay."""
        if isinstance(value, dict):
            given = value.get("streams") or {}
            if isinstance(given, dict):
                value = {**value, "streams": with_built_in(given)}
            given = value.get("digests") or {}
            if isinstance(given, dict):
                value = {**value, "digests": with_throttled(given)}
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
        for name, own in self.rules.items():
            for relay in own.relays:
                if relay not in self.relays:
                    known = ", ".join(f"'{known}'" for known in self.relays) or "none"
                    faults.append(
                        (
                            f"rules.{name}.relays",
                            f"names '{relay}', which is no relay; the relays are: {known}",
                        )
                    )
        for name, rule in self.throttles.items():
            for stream_name in rule.streams:
                if stream_name not in self.streams:
                    known = ", ".join(f"'{known}'" for known in self.streams)
                    faults.append(
                        (
                            f"throttles.{name}.streams",
                            f"names '{stream_name}', which is no stream; the streams are: {known}",
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
        said: dict[str, str | None] = {
            f"throttles.{name}.digest": rule.digest for name, rule in self.throttles.items()
        }
        for name, stream in self.streams.items():
            said |= {f"streams.{name}.throttle.digest": rule.digest for rule in stream.throttle}
        faults += digest_faults(self.digests, self.streams, said)
        faults += producer_faults(self.producers, self.streams, self.intake.queue)
        faults += schedule_faults(self)
        refuse(faults)
        return self

    def producer(self, name: str) -> Producer:
        """What is said of a producer; the defaults where nothing is."""
        return self.producers.get(name, _UNSAID)

    @property
    def refuses_unknown(self) -> bool:
        """Whether a producer without a section may not publish."""
        said = self.intake.unknown_producers
        if said is not None:
            return said == "refuse"
        return any(producer.restricted for producer in self.producers.values())

    @property
    def queues(self) -> dict[str, str]:
        """The queues that are one producer's own, each with whose it is."""
        return {p.queue: name for name, p in self.producers.items() if p.queue is not None}

    @property
    def amqp_users(self) -> dict[str, str]:
        """The producer that each user of RabbitMQ is."""
        return {user: name for name, p in self.producers.items() for user in p.amqp_users}

    def route(self, stream: str) -> tuple[str, ...]:
        """The relays of a stream in order of preference."""
        return self.streams[stream].relays or tuple(self.relays)

    def tells(self, kind: str, producer: str | None) -> bool:
        """Whether a producer (None: nobody known) is told of an event of this kind."""
        events = self.events
        if not events.enabled or (events.kinds and kind not in events.kinds):
            return False
        return producer is None or self.producer(producer).events

    @property
    def events_url(self) -> str:
        """The broker that events go to; empty where nothing names one."""
        return self.events.url or self.intake.url or self.broker.url or ""

    @property
    def categories(self) -> dict[str, str]:
        """The category of each stream that has one."""
        return {name: s.category for name, s in self.streams.items() if s.category}


_UNSAID = Producer()
