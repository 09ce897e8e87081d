"""The metrics that mailgate exports: names, meanings, labels, buckets.

Owns the closed list, of which the page ``docs/monitoring.md`` is checked to be the manual.
No label ever holds an address; every label's values are bounded by the configuration or
by a table of this program. Never counts anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

#: Seconds from acceptance to "sent": from an idle system to a long retry schedule.
_AGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG_AGES = (60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
#: Seconds of a conversation, a turn at the journal, a batch.
_SPANS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One metric. ``name`` is what queries use, so that counters end in ``_total``.

    ``merge`` says what several processes of one worker come to: the sum, or the largest.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Literal["sum", "max"] = "sum"


FAMILIES: dict[str, Family] = {}


def _family(
    kind: Kind,
    name: str,
    help: str,
    *labels: str,
    buckets: tuple[float, ...] = (),
    merge: Literal["sum", "max"] = "sum",
) -> Family:
    found = Family(f"mailgate_{name}", kind, help, labels, buckets, merge)
    FAMILIES[found.name] = found
    return found


# --- intake -----------------------------------------------------------------------------

DELIVERIES = _family(
    "counter",
    "deliveries_total",
    "Documents from the queue by what became of them: accepted, repeated, conflict, parked,"
    " command.",
    "result",
)
INTAKE_BATCH = _family(
    "histogram",
    "intake_batch_seconds",
    "From a batch in hand to its commit in the journal, waits for a journal that is away included.",
    buckets=_SPANS,
)
INTAKE_AWAY = _family(
    "gauge", "intake_journal_away", "1 while intake waits for a journal that is away."
)

# --- workers ----------------------------------------------------------------------------

SETTLED = _family(
    "counter",
    "settled_total",
    "Recipients whose outcome was written, by the state that it led to and why.",
    *("state", "error_class", "relay", "destination"),
)
EXPIRED = _family("counter", "expired_total", "Recipients whose time was over before they went.")
SUPPRESSED = _family(
    "counter", "suppressed_total", "Recipients that the suppression list kept from getting mail."
)
SENT_AFTER = _family(
    "histogram",
    "sent_after_seconds",
    "From acceptance to the relay's 250, waits for send_at and retries included.",
    "lane",
    buckets=_AGES + _LONG_AGES,
)
CONVERSATION = _family(
    "histogram",
    "conversation_seconds",
    "One conversation: rendering, the wait for a connection and a permit, SMTP.",
    "relay",
    buckets=_SPANS,
)
TURN = _family(
    "histogram",
    "journal_turn_seconds",
    "One turn of a worker at the journal: look, admit, settle and claim.",
    buckets=_SPANS,
)
THROTTLED = _family(
    "counter",
    "throttled_total",
    "Recipients that a throttle held up: waits, or dropped.",
    "result",
)
REFUSALS = _family(
    "counter",
    "limit_refusals_total",
    "Times that a limit kept waiting mail from going, by the kind of limit.",
    "limit",
)
LIMITER_AWAY = _family(
    "counter",
    "limiter_away_total",
    "Times that the store of the limits could not be asked, so that limited mail waited.",
)
CONVERSATIONS = _family("gauge", "conversations", "Conversations that are open now.")
UNSETTLED = _family(
    "gauge", "unsettled", "Outcomes and conversations whose end the journal does not know yet."
)
WORKER_PROCESSES = _family(
    "gauge", "worker_processes", "Delivering processes of this worker that report."
)
LEASES_VALID = _family("gauge", "leases_valid", "Those of them whose lease is valid.")
STARTED_OVER = _family(
    "counter",
    "leases_lost_total",
    "Times that a process was taken for dead and started over.",
)
BURIED = _family(
    "counter",
    "buried_total",
    "Recipients that were settled for a dead process. The journal tells how each.",
)

# --- connections to relays, and rendering -------------------------------------------------

CONNECTIONS = _family(
    "gauge",
    "relay_connections",
    "Connections to a relay: busy, idle, or other (being set up or ended).",
    *("relay", "state"),
)
CONNECTIONS_OPENED = _family(
    "counter", "relay_connections_opened_total", "Connections that were set up.", "relay"
)
CONNECTION_WAITERS = _family(
    "gauge", "relay_waiting", "Conversations that wait for a connection.", "relay"
)
SETUP_FAILURES = _family(
    "gauge", "relay_setup_failures", "Set-ups that failed in a row.", "relay", merge="max"
)
BACKING_OFF = _family(
    "gauge",
    "relay_backing_off_seconds",
    "How long no connection is tried, after failures.",
    "relay",
    merge="max",
)
RENDERED = _family(
    "counter",
    "rendered_total",
    "Mails rendered: from the cache of inlined templates, compiled into it, or in full beside it.",
    "way",
)
RENDER_CACHE_EVICTED = _family(
    "counter", "render_cache_evicted_total", "Shapes that the cache let go for want of room."
)
RENDER_CACHE_BYTES = _family("gauge", "render_cache_bytes", "What the cache holds, by its weights.")
RENDER_MISMATCHES = _family(
    "counter",
    "render_mismatches_total",
    "Times that the cache and a full rendering differed: the template is rendered in full since.",
)

# --- events to producers ------------------------------------------------------------------

EVENTS_PUBLISHED = _family(
    "counter", "events_published_total", "Events that producers' broker has taken.", "event"
)
EVENTS_BATCH = _family(
    "histogram",
    "events_batch_seconds",
    "One batch of events, until the broker has confirmed it.",
    buckets=_SPANS,
)
EVENTS_AWAY = _family("gauge", "events_away", "1 while this process cannot publish events.")

# --- the journal, as one exporter sees it -------------------------------------------------

JOURNAL_UP = _family("gauge", "journal_up", "1 when the journal answered this process.")
JOURNAL_LOOK = _family(
    "gauge", "journal_look_seconds", "How long the journal took to answer for these gauges."
)
WAITING = _family("gauge", "waiting", "Recipients that wait, now due or later.", "lane")
DUE = _family("gauge", "due", "Recipients that are due now.", "lane")
OLDEST_DUE = _family(
    "gauge", "oldest_due_seconds", "How long the oldest due recipient has been due.", "lane"
)
SENDING = _family("gauge", "sending", "Recipients that workers have claimed.")
UNRESOLVED = _family(
    "gauge", "unresolved", "Recipients that wait for an operator: held, uncertain.", "state"
)
PARKED = _family("gauge", "parked", "Messages that are parked.")
BREAKERS_OPEN = _family(
    "gauge",
    "breakers_open",
    "Breakers that are open: of a relay, or of domains or senders at one.",
    *("kind", "relay"),
)
PAUSED = _family("gauge", "paused", "What operators have paused.", "kind")
SCHEDULES_FAILING = _family(
    "gauge",
    "schedules_failing",
    "Schedules whose fire cannot be carried out: tried again, or given up and not mended since.",
)
OUTBOX = _family("gauge", "outbox", "Events that are not published yet, about.")
OUTBOX_OLDEST = _family(
    "gauge", "outbox_oldest_seconds", "How long the oldest of them has been waiting."
)
OUTBOX_REFUSED = _family(
    "gauge", "outbox_refused_producers", "Producers whose events their broker refuses."
)
LEASES_ALIVE = _family("gauge", "leases_alive", "Processes that hold a living lease.", "kind")

# --- every process ------------------------------------------------------------------------

BUILD = _family("gauge", "build_info", "1; the version stands in the label.", "version", "process")
