"""The tables: columns and indexes only.

Owns the schema that ``migrations/`` builds. Never holds behaviour.

Times are milliseconds since 1970 (UTC) as integers. There are no foreign keys:
ids are made by mailgate, parent and child are written in one transaction, and
retention deletes both; a check on each insert would cost more than the insert.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

#: What ``info`` says of an index (which rows it holds) and of a table (SQLite's own word).
#: In their own place they would have SQLAlchemy import PostgreSQL's dialect where the journal
#: is SQLite, and the other way round: 3 MiB in every process. ``whole`` puts them there.
WHERE, AUTOINCREMENT = "where", "autoincrement"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

#: SQLite makes the rowid itself the key only for INTEGER; PostgreSQL needs the eight bytes.
_Number = BigInteger().with_variant(Integer(), "sqlite")

messages = Table(
    "messages",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("producer", String(63), nullable=False),
    # Never null: what makes a repeated delivery the same message.
    Column("identity", String(400), nullable=False),
    Column("body_hash", String(64), nullable=False),
    Column("stream", String(63), nullable=False),
    # The From address in wire form: limits and breakers go by it, so it stands outside the body.
    Column("sender", String(254), nullable=False),
    Column("template", String(64)),
    Column("accepted_at", BigInteger, nullable=False),
    Column("send_at", BigInteger),
    Column("expires_at", BigInteger),
    Column("recipients", Integer, nullable=False),
    Column("sensitive", Boolean, nullable=False),
    Column("idempotency_key", String(256)),
    # The producer's own id, where an idempotency key took its place in the identity.
    Column("own_id", String(256)),
    Column("tags", Text),
    Column("metadata", Text),
    Column("traceparent", String(64)),
    # A throttle that the message itself asks for: key, limit, window (ms), on_limit.
    Column("throttle", Text),
    # The letter as JSON: sender, headers, template and data or bodies.
    Column("body", Text, nullable=False),
    # Set while an AMQP delivery without any identity may yet come again.
    Column("unacked", BigInteger),
    UniqueConstraint("producer", "identity"),
)
Index(
    "ix_messages_unacked",
    messages.c.body_hash,
    info={WHERE: "unacked IS NOT NULL"},
)

Index(
    "ix_messages_own_id",
    messages.c.own_id,
    info={WHERE: "own_id IS NOT NULL"},
)

attachments = Table(
    "attachments",
    metadata,
    Column("message_id", BigInteger, primary_key=True, autoincrement=False),
    Column("n", SmallInteger, primary_key=True, autoincrement=False),
    Column("filename", Text, nullable=False),
    Column("content_type", String(127), nullable=False),
    Column("content_id", Text),
    Column("content", LargeBinary, nullable=False),
)

buckets = Table(
    "buckets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("lane", String(8), nullable=False),
    Column("producer", String(63), nullable=False),
    # The relays in order of preference, joined by commas.
    Column("route", Text, nullable=False),
    # A destination domain with a limit of its own, or what was put aside (``journal.asides``).
    Column("domain", String(900), nullable=False),
    # Closed until then, and for which limit.
    Column("open_at", BigInteger, nullable=False),
    Column("waits_for", String(300)),
    UniqueConstraint("lane", "producer", "route", "domain"),
)

WAITING_SQL = "state IN ('queued', 'deferred')"
TROUBLE_SQL = "state IN ('bounced', 'failed', 'uncertain', 'held', 'expired')"

recipients = Table(
    "recipients",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("message_id", BigInteger, nullable=False, index=True),
    Column("n", Integer, nullable=False),
    # to, cc, bcc: one shared mail; own: a private mail of their own.
    Column("kind", String(4), nullable=False),
    Column("email", String(254), nullable=False),
    Column("name", Text, nullable=False),
    # The recipient's own data, locale and metadata, as JSON.
    Column("own", Text),
    Column("bucket_id", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    # The fence: each claim and each operator's move raises it.
    Column("token", Integer, nullable=False),
    Column("lease_id", BigInteger),
    Column("claims", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    # A claimant died with this row among others: it is claimed alone until settled.
    Column("suspect", Boolean, nullable=False),
    # Claimants that died with this row alone.
    Column("deaths", Integer, nullable=False),
    # Throttles were charged: once a recipient.
    Column("charged", Boolean, nullable=False),
    # Numbers the transitions, and with them the events.
    Column("seq", Integer, nullable=False),
    Column("error_class", String(63)),
    Column("changed_at", BigInteger, nullable=False),
)
Index(
    "ix_recipients_due",
    recipients.c.bucket_id,
    # Fresh mail and retries each have an end of their own to be taken from.
    recipients.c.state,
    recipients.c.due_at,
    recipients.c.id,
    info={WHERE: WAITING_SQL},
)
#: Mail whose time ends, and no other: what never expires costs it nothing.
Index(
    "ix_recipients_expiry",
    recipients.c.expires_at,
    info={WHERE: f"{WAITING_SQL} AND expires_at IS NOT NULL"},
)
Index(
    "ix_recipients_lease",
    recipients.c.lease_id,
    info={WHERE: "state = 'sending'"},
)
Index(
    "ix_recipients_trouble",
    recipients.c.state,
    recipients.c.changed_at,
    info={WHERE: TROUBLE_SQL},
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("recipient_id", BigInteger, nullable=False, index=True),
    Column("n", Integer, nullable=False),
    Column("relay", String(63), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    Column("kind", String(12), nullable=False),
    Column("phase", String(12), nullable=False),
    Column("code", Integer, nullable=False),
    Column("enhanced", String(12), nullable=False),
    Column("reply", Text, nullable=False),
    Column("error_class", String(63), nullable=False),
)

#: Bytes of a mail whose first attempt did not end the matter.
renderings = Table(
    "renderings",
    metadata,
    Column("recipient_id", _Number, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)

events = Table(
    "events",
    metadata,
    # In the order of their transactions, as far as these depend on each other.
    Column("id", _Number, primary_key=True),
    # Of a parked document that belongs to no message its own number; 0 of an answer about
    # no message: its detail says whose it is.
    Column("message_id", BigInteger, nullable=False, index=True),
    Column("recipient_id", BigInteger),
    Column("seq", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("detail", Text),
    # No number is ever given again: what was published is told by it.
    info={AUTOINCREMENT: True},
)

#: How far events were published, and who publishes: one row (``journal.outbox``).
outbox = Table(
    "outbox",
    metadata,
    # Empty, or a producer whose events its broker refuses: they wait from here on.
    Column("producer", String(63), primary_key=True),
    # The last event that was published, or passed over.
    Column("reached", BigInteger, nullable=False),
    Column("holder", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
)

#: When: the last event that had been published at the end of a second.
published = Table(
    "published",
    metadata,
    Column("second", BigInteger, primary_key=True, autoincrement=False),
    Column("reached", BigInteger, nullable=False),
)

parked = Table(
    "parked",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    # What makes a repeated delivery of the same bytes the same row.
    Column("identity", String(400), nullable=False, unique=True),
    Column("received_at", BigInteger, nullable=False),
    Column("source", String(16), nullable=False),
    Column("producer", String(63)),
    # invalid, conflict, recipient
    Column("kind", String(12), nullable=False),
    Column("faults", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # The message that the conflict or the refused recipient belongs to.
    Column("message_id", BigInteger),
    # parked, replayed, discarded
    Column("state", String(12), nullable=False, index=True),
    Column("resolved_at", BigInteger),
    Column("resolved_by", String(255)),
    Column("reason", Text),
)

#: What producers asked about messages of theirs (``journal.orders``): a repeat is absorbed.
orders = Table(
    "orders",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("producer", String(63), nullable=False),
    Column("identity", String(400), nullable=False),
    Column("body_hash", String(64), nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
    # The message that is meant, or the place for one that has not come.
    Column("message_id", BigInteger),
    # Its message has not come yet: then it stands here as JSON.
    Column("waiting", Boolean, nullable=False),
    Column("said", Text),
    UniqueConstraint("producer", "identity"),
)
Index(
    "ix_orders_waiting",
    orders.c.message_id,
    info={WHERE: "waiting"},
)

#: Up to when each schedule's fires are written down (``journal.schedules``).
schedules = Table(
    "schedules",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("looked_at", BigInteger, nullable=False),
)

#: Each time that a schedule fires, once, however many clocks there are.
fires = Table(
    "fires",
    metadata,
    Column("schedule", String(63), primary_key=True),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    # pending, done, empty, failed, skipped
    Column("state", String(8), nullable=False),
    Column("tries", Integer, nullable=False),
    # When it is tried, again if ``tries``; whoever tries it moves this on for as long.
    Column("due_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    # The window that its sources were asked for begins here; it ends at ``at``.
    Column("since", BigInteger),
    Column("messages", Integer, nullable=False),
    Column("recipients", Integer, nullable=False),
    Column("error", Text),
)

leases = Table(
    "leases",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("kind", String(12), nullable=False),
    Column("host", String(255), nullable=False),
    Column("boot", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("spool", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
)

#: Processes of every kind, and the configuration that each runs (``journal.processes``).
processes = Table(
    "processes",
    metadata,
    # A worker process's is that of its lease.
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("kind", String(12), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Column("config", String(16), nullable=False),
    Column("config_at", BigInteger, nullable=False),
    # What came of the last request to read it again, as JSON.
    Column("answer", Text, nullable=False),
)

#: Admissions by throttle rules; the key is an HMAC, not an address.
throttle_hits = Table(
    "throttle_hits",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("key", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("recipient_id", BigInteger, nullable=False),
    Index("ix_throttle_hits_key_at", "key", "at"),
)

#: Digests that gather (``journal.gathering``); a row goes when its mail is written.
digests = Table(
    "digests",
    metadata,
    # Also the id that its message will have, so that there can be one only.
    Column("id", _Number, primary_key=True, autoincrement=False),
    # A hash over what is gathered together; of a throttle the key of its count.
    Column("slot", String(64), nullable=False, unique=True),
    Column("name", String(63), nullable=False),
    Column("producer", String(63), nullable=False),
    Column("key", String(256), nullable=False),
    Column("throttled", Boolean, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False, index=True),
    Column("items", Integer, nullable=False),
)

#: Which digest a recipient's item is in, or went in.
digest_items = Table(
    "digest_items",
    metadata,
    Column("recipient_id", _Number, primary_key=True, autoincrement=False),
    Column("digest_id", BigInteger, nullable=False, index=True),
    # What the producer calls it: of several with one name the latest counts.
    Column("item", String(256)),
)

#: Who is not to be written to. The unique index is also what the look-up goes by.
suppressions = Table(
    "suppressions",
    metadata,
    Column("id", _Number, primary_key=True),
    # A folded address, or a domain.
    Column("address", String(254), nullable=False),
    # Empty: for every producer, for mail of every category.
    Column("producer", String(63), nullable=False),
    Column("category", String(63), nullable=False),
    Column("reason", String(200), nullable=False),
    # bounce, manual, import, unsubscribe
    Column("source", String(12), nullable=False),
    # The relay and its reply, or what a person wrote.
    Column("evidence", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    UniqueConstraint("address", "producer", "category"),
)

#: Failures that may be the address's fault, counted until they prove it.
bounce_hints = Table(
    "bounce_hints",
    metadata,
    Column("address", String(254), primary_key=True),
    Column("error_class", String(63), primary_key=True),
    Column("hits", Integer, nullable=False),
    Column("last_at", BigInteger, nullable=False),
)

#: Rate limits kept in the journal: what each remembers, as JSON (``journal.permits``).
permits = Table(
    "permits",
    metadata,
    Column("key", String(400), primary_key=True),
    Column("state", Text, nullable=False),
)

#: Conversations under a cap on how many there may be at once (``journal.places``).
places = Table(
    "places",
    metadata,
    Column("key", String(400), primary_key=True),
    # The claim that holds it: it frees the place when it no longer stands.
    Column("recipient_id", BigInteger, primary_key=True, autoincrement=False),
    Column("token", Integer, nullable=False),
)

#: Connections to relays with ``max_connections_total``: how many each process has.
connections = Table(
    "connections",
    metadata,
    Column("lease_id", BigInteger, primary_key=True, autoincrement=False),
    Column("relay", String(63), primary_key=True),
    Column("have", Integer, nullable=False),
)

#: Whose mail fails, as far as it must be remembered (``limits.breaker``): few rows.
breakers = Table(
    "breakers",
    metadata,
    Column("key", String(400), primary_key=True),
    Column("state", Text, nullable=False),
    # The claim that is the probe: it lives as long as that claim stands.
    Column("probe_id", BigInteger, nullable=False),
    Column("probe_token", Integer, nullable=False),
    # After this the row means nothing any more.
    Column("worth_until", BigInteger, nullable=False),
)

#: What operators have stopped, until they resume it.
pauses = Table(
    "pauses",
    metadata,
    # all, lane, producer, stream, relay, domain, template, schedule
    Column("kind", String(12), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("who", String(255), nullable=False),
    Column("reason", Text, nullable=False),
)

#: What operators did, to whom it may concern.
actions = Table(
    "actions",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", String(255), nullable=False),
    Column("verb", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("count", Integer, nullable=False),
)

#: Facts that all processes share: the key of the HMACs, the limiter's epoch.
facts = Table(
    "facts",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("value", Text, nullable=False),
)


def whole() -> MetaData:
    """The tables with all that making or comparing them needs."""
    for table in metadata.tables.values():
        if table.info.get(AUTOINCREMENT):
            table.dialect_options["sqlite"]["autoincrement"] = True
        for index in table.indexes:
            if WHERE in index.info:
                for dialect in ("postgresql", "sqlite"):
                    index.dialect_options[dialect]["where"] = text(index.info[WHERE])
    return metadata
