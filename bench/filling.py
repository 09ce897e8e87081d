"""A journal with a past: as many messages as one likes, written in a few statements.

Owns what such a past looks like: mail of the last ninety days, 96 of 100 sent, the others
ended otherwise, a few waiting for a time that is hours away; each with its
attempts and its events, all published. Nothing of it is due: ``queue`` adds what is.
"""

from __future__ import annotations

import sqlalchemy as sa

from mailgate.journal.arrivals import BucketKey
from mailgate.journal.buckets import ensure_bucket
from mailgate.journal.database import Database
from mailgate.model.ids import first_of
from mailgate.model.state import Lane

#: Whose mail it is. In the past of a journal there are several producers.
PAST = tuple(
    BucketKey(lane, producer, ("sink",))
    for lane, producer in ((Lane.NORMAL, "default"), (Lane.HIGH, "login"), (Lane.BULK, "news"))
)
DAY = 86_400_000
#: The least age of any of it, and the greatest (ms).
YOUNGEST, OLDEST = 2 * 3_600_000, 90 * DAY
#: Messages of one statement: what a server keeps of it in memory stays small.
PORTION = 100_000
#: As large as that of a message of the benchmark.
_BODY = '{"mail_from":"orders@shop.example","subject":"old","text":"' + "x" * 850 + '"}'

_TOLD = '{"attempt":1,"relay":"sink","code":250}'

_STATE = (
    "CASE WHEN i % :waiting = 0 THEN 'deferred' WHEN i % 2000 = 501 THEN 'uncertain'"
    " WHEN i % 2000 = 1501 THEN 'held' WHEN i % 100 = 7 THEN 'bounced'"
    " WHEN i % 100 = 17 THEN 'failed' WHEN i % 200 = 27 THEN 'suppressed'"
    " WHEN i % 200 = 127 THEN 'cancelled' WHEN i % 100 = 37 THEN 'expired' ELSE 'sent' END"
)
_TRIED = "state IN ('sent', 'deferred', 'uncertain', 'bounced', 'failed')"
#: Its time, and the two numbers of the ids that would have been drawn then.
_AT = ":from + i * :step / 1000"
_MESSAGE = ":first + i * :step / 1000 * 2097152 + i % 1000 * 2"
_STATEMENTS = (
    "INSERT INTO messages (id, producer, identity, body_hash, stream, sender, accepted_at,"
    " recipients, sensitive, body)"
    " SELECT id, CASE i % 3 WHEN 0 THEN 'default' WHEN 1 THEN 'login' ELSE 'news' END,"
    " 'key:past-' || CAST(i AS TEXT), 'hash of past', 'transactional', 'orders@shop.example',"
    " at, 1, false, :body FROM {past}",
    "INSERT INTO recipients (id, message_id, n, kind, email, name, bucket_id, state, due_at,"
    " token, claims, attempts, suspect, deaths, charged, seq, error_class, changed_at)"
    " SELECT id + 1, id, 0, 'to', 'c' || CAST(i AS TEXT) || '@d' || CAST(i % 20 AS TEXT)"
    " || '.example', '', CASE i % 3 WHEN 0 THEN :bucket0 WHEN 1 THEN :bucket1 ELSE :bucket2 END,"
    " state, CASE state WHEN 'deferred' THEN :now + 14400000 + i % 14400000 ELSE at END,"
    f" 2, 1, CASE WHEN {_TRIED} THEN 1 ELSE 0 END, false, 0, true, 3,"
    " CASE state WHEN 'sent' THEN NULL ELSE state END, at + 900 FROM {past}",
    "INSERT INTO attempts (recipient_id, n, relay, started_at, ended_at, kind, phase, code,"
    " enhanced, reply, error_class) SELECT id + 1, 1, 'sink', at + 500, at + 900,"
    " CASE state WHEN 'sent' THEN 'sent' ELSE 'defer' END, 'reply', 250, '2.0.0',"
    " '2.0.0 Ok: queued as 4711', '' FROM {past}" + f" WHERE {_TRIED} ORDER BY i",
    "INSERT INTO events (message_id, recipient_id, seq, kind, at, detail)"
    " SELECT id, CASE k WHEN 1 THEN id + 1 END, 3 * k, CASE k WHEN 0 THEN 'accepted' ELSE state"
    " END, at + 900 * k, CASE k WHEN 1 THEN :told END"
    " FROM {past} CROSS JOIN (SELECT 0 AS k UNION ALL SELECT 1) AS kinds ORDER BY i, k",
)


def fill(url: str, messages: int, waiting: int = 1000) -> None:
    """Give an empty, migrated journal a past of so many messages; one in ``waiting`` waits."""
    database = Database(url, hot=False, patience=600)
    try:
        for at in range(0, messages, PORTION):
            _portion(database, at, min(at + PORTION, messages), messages, waiting)
        database.run_now(_published)
    finally:
        database.close()


def _portion(database: Database, low: int, high: int, of: int, waiting: int) -> None:
    now = database.now()
    picks = f"i, {_AT} AS at, {_MESSAGE} AS id, {_STATE} AS state"
    past = f"({_numbers(database.sqlite)} SELECT {picks} FROM n) AS past"

    def work(connection: sa.Connection) -> None:
        begun = now - OLDEST
        values: dict[str, object] = {
            "low": low,
            "high": high,
            "now": now,
            "waiting": waiting,
            "from": begun,
            "first": first_of(begun),
            # Microseconds between two messages.
            "step": (OLDEST - YOUNGEST) * 1000 // of,
            "body": _BODY,
            "told": _TOLD,
        }
        for place, key in enumerate(PAST):
            values[f"bucket{place}"] = ensure_bucket(connection, key)
        for statement in _STATEMENTS:
            connection.execute(sa.text(statement.format(past=past)), values)

    database.run_now(work)


def _numbers(sqlite: bool) -> str:
    """The numbers from ``:low`` to ``:high``, without that, as ``n``."""
    if sqlite:
        return (
            "WITH RECURSIVE n(i) AS (SELECT CAST(:low AS INTEGER) UNION ALL"
            " SELECT i + 1 FROM n WHERE i + 1 < :high)"
        )
    return "WITH n(i) AS (SELECT generate_series(CAST(:low AS bigint), CAST(:high AS bigint) - 1))"


def empty(url: str) -> None:
    """Take out all of a past, and let PostgreSQL look at a journal without a row.

    Its pages stay: until it looks again it believes that no page has any, however many come.
    """
    database = Database(url, hot=False, patience=600)
    try:
        for table in ("events", "attempts", "recipients", "messages"):
            database.run_now(lambda c, table=table: c.execute(sa.text(f"DELETE FROM {table}")))
    finally:
        database.close()
    analyze(url)


def _published(connection: sa.Connection) -> None:
    connection.execute(
        sa.text(
            "INSERT INTO outbox (producer, reached, holder, until)"
            " SELECT '', COALESCE(max(id), 0), 0, 0 FROM events WHERE true"
            " ON CONFLICT (producer) DO UPDATE SET reached = excluded.reached"
        )
    )


def queue(url: str, messages: int, domain: str) -> None:
    """Add messages that are due now, all to one destination that waits by itself."""
    database = Database(url, hot=False, patience=600)
    key = BucketKey(Lane.NORMAL, "default", ("sink",), domain)

    def work(connection: sa.Connection) -> None:
        now = database.now()
        values: dict[str, object] = {"low": 0, "high": messages, "now": now, "body": _BODY}
        values |= {"bucket": ensure_bucket(connection, key), "domain": domain}
        values["first"] = first_of(now)
        due = f"({_numbers(database.sqlite)} SELECT i, :first + i * 2 AS id FROM n) AS due"
        for statement in _QUEUED:
            connection.execute(sa.text(statement.format(due=due)), values)

    try:
        database.run_now(work)
    finally:
        database.close()


_QUEUED = (
    "INSERT INTO messages (id, producer, identity, body_hash, stream, sender, accepted_at,"
    " recipients, sensitive, body) SELECT id, 'default', 'key:queued-' || CAST(i AS TEXT),"
    " 'hash', 'transactional', 'orders@shop.example', :now, 1, false, :body FROM {due}",
    "INSERT INTO recipients (id, message_id, n, kind, email, name, bucket_id, state, due_at,"
    " token, claims, attempts, suspect, deaths, charged, seq, changed_at)"
    " SELECT id + 1, id, 0, 'to', 'c' || CAST(i AS TEXT) || '@' || :domain, '', :bucket,"
    " 'queued', :now, 0, 0, 0, false, 0, false, 1, :now FROM {due}",
)


def analyze(url: str) -> None:
    """Let the database look at what it holds."""
    _tell(url, "ANALYZE")


def settle_down(url: str) -> None:
    """What PostgreSQL's autovacuum would do soon, so that it does not do it while we measure."""
    if not url.startswith("sqlite"):
        _tell(url, "VACUUM (ANALYZE)")
        _tell(url, "CHECKPOINT")


def _tell(url: str, statement: str) -> None:
    database = Database(url, hot=False, patience=600)
    try:
        database.read_now(lambda c: c.exec_driver_sql(statement))
    finally:
        database.close()
