"""The breakers' records: shared by all workers, written only when something changes.

Owns the table ``breakers`` and the one probe of each. Records are locked in the order
of their keys before anything is decided, and whether a probe's claim still stands is
asked afterwards, in a statement of its own: so no two workers find the same breaker
free. Never decides anything: ``limits.breaker`` does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from mailgate.config.breakers import Breakers as Policy
from mailgate.journal.database import Database, packed
from mailgate.journal.settling import Settlement
from mailgate.limits.breaker import (
    Kind,
    Record,
    Sign,
    Subject,
    hurried,
    probed,
    step,
    subject,
    worth_until,
)

#: Rows that mean nothing any more are deleted so long after (ms), with some other change.
_SWEEP = 60_000
_ALIVE = (
    "EXISTS (SELECT 1 FROM recipients r WHERE r.id = b.probe_id"
    " AND r.token = b.probe_token AND r.state = 'sending')"
)
_ROW = {
    "key": "text",
    "state": "text",
    "probe_id": "bigint",
    "probe_token": "bigint",
    "worth_until": "bigint",
}
_KNOWN = frozenset(Record.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Change:
    """What a turn made of one record."""

    subject: Subject
    before: Record
    after: Record

    @property
    def opened(self) -> bool:
        return self.after.open and not self.before.open

    @property
    def closed(self) -> bool:
        return self.before.open and not self.after.open

    @property
    def slowed(self) -> bool:
        return self.after.cut_at != self.before.cut_at


@dataclass(frozen=True, slots=True)
class Health:
    """A record as a worker sees it; ``probing`` tells that its probe is under way."""

    record: Record
    probing: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """A claim that is to be the probe of ``subjects``: all of them or none."""

    recipient_id: int
    token: int
    subjects: tuple[Subject, ...]


class Breakers:
    def __init__(self, database: Database, policy: Policy, random: Callable[[], float]) -> None:
        self._policy, self._random = policy, random
        keys = database.rows({"key": "text"}, name="k", param="keys")
        lock = "" if database.sqlite else " FOR UPDATE"
        self._view = sa.text(
            f"SELECT b.key, b.state, {_ALIVE} AS alive FROM breakers b WHERE b.worth_until > :now"
        )
        self._locked = sa.text(
            "SELECT key, state FROM breakers WHERE key IN"
            f" (SELECT key FROM {keys}) AND worth_until > :now ORDER BY key{lock}"
        )
        self._living = sa.text(
            f"SELECT b.key FROM breakers b WHERE b.key IN (SELECT key FROM {keys}) AND {_ALIVE}"
        )
        names = ", ".join(_ROW)
        insert = f"INSERT INTO breakers ({names}) SELECT {names} FROM {database.rows(_ROW)}"
        insert += " WHERE true ON CONFLICT (key) DO "
        sets = ", ".join(f"{name} = excluded.{name}" for name in _ROW if name != "key")
        # A row that is not worth anything is as good as none, and may be begun anew.
        self._begin = sa.text(f"{insert} UPDATE SET {sets} WHERE breakers.worth_until <= :now")
        self._write = sa.text(f"{insert} UPDATE SET {sets}")
        over = "SELECT key FROM breakers WHERE worth_until <= :before"
        over += "" if database.sqlite else " ORDER BY key FOR UPDATE SKIP LOCKED"
        self._sweep = sa.text(f"DELETE FROM breakers WHERE key IN ({over})")
        self._all = sa.text(
            f"SELECT key, state FROM breakers WHERE worth_until > :now ORDER BY key{lock}"
        )

    def view(self, connection: sa.Connection, now: int) -> dict[Subject, Health]:
        """Every record that means something."""
        return {
            subject(row.key): Health(_read(row.state), bool(row.alive))
            for row in connection.execute(self._view, {"now": now})
        }

    def open_book(
        self,
        connection: sa.Connection,
        settled: Sequence[Settlement],
        wanted: Iterable[Subject],
        now: int,
    ) -> Book:
        """Lock what a turn needs and enter what ``settled`` showed.

        ``settled`` has been written in this transaction already: a probe among them does
        not stand any more.
        """
        said = [
            (who, s.recipient_id, s.token, signal) for s in settled for who, signal in s.signals
        ]
        bad = {who for who, _, _, signal in said if signal.sign not in (Sign.OK, Sign.NOTHING)}
        keys = sorted({who.key for who, *_ in said} | {who.key for who in wanted})
        book = Book(self, connection, now)
        if not keys:
            return book
        if bad:
            # A blank row to lock; it means nothing until it is written.
            rows = [_row(who, Record(), now + 1) for who in sorted(bad, key=lambda who: who.key)]
            connection.execute(self._begin, {"rows": packed(rows), "now": now})
        asked = {"keys": packed([(key,) for key in keys]), "now": now}
        for row in connection.execute(self._locked, asked).all():
            book.before[subject(row.key)] = _read(row.state)
        book.records = dict(book.before)
        for who, recipient_id, token, signal in said:
            record = book.records.get(who)
            if record is not None:
                book.records[who] = step(
                    record,
                    who.kind,
                    signal,
                    probe=record.probe == (recipient_id, token),
                    policy=self._policy,
                    now=now,
                    random=self._random,
                )
        return book

    def hurry(self, connection: sa.Connection, relay: str, now: int) -> int:
        """Let everything that is open at ``relay`` be probed at once; gives how many."""
        found = connection.execute(self._all, {"now": now}).all()
        mine = {subject(row.key): _read(row.state) for row in found}
        book = Book(self, connection, now)
        book.before = {who: r for who, r in mine.items() if who.relay == relay and r.open}
        book.records = {who: hurried(record, now) for who, record in book.before.items()}
        book.write()
        return len(book.records)

    def write(self, connection: sa.Connection, records: Mapping[Subject, Record], now: int) -> None:
        rows = [
            _row(who, record, worth_until(record, self._policy, now))
            for who, record in sorted(records.items(), key=lambda item: item[0].key)
        ]
        connection.execute(self._write, {"rows": packed(rows)})
        connection.execute(self._sweep, {"before": now - _SWEEP})

    def living(self, connection: sa.Connection, keys: Iterable[str]) -> set[str]:
        """The keys whose probe's claim stands."""
        asked = packed([(key,) for key in sorted(keys)])
        return set(connection.execute(self._living, {"keys": asked}).scalars())


class Book:
    """The locked records of one turn."""

    def __init__(self, breakers: Breakers, connection: sa.Connection, now: int) -> None:
        self._breakers, self._connection, self._now = breakers, connection, now
        self.before: dict[Subject, Record] = {}
        self.records: dict[Subject, Record] = {}

    def bars(self, relay: str, domain: str, sender: str, probes: Sequence[Subject]) -> bool:
        """Whether this turn finds it open, beyond what it is to probe: it was chosen before."""
        whose = (
            Subject(Kind.RELAY, relay),
            Subject(Kind.DOMAIN, relay, domain),
            Subject(Kind.SENDER, relay, sender),
        )
        barred = {who for who in whose if who in self.records and self.records[who].open}
        return not barred <= set(probes)

    def probes(self, wanted: Sequence[Probe]) -> set[int]:
        """Which of ``wanted`` may go: those whose subjects are closed by now, or theirs to probe.

        Gives their recipients.
        """
        known = {who.key for w in wanted for who in w.subjects if who in self.records}
        alive = self._breakers.living(self._connection, known) if known else set()
        ready = set()
        for w in wanted:
            mine: dict[Subject, Record] = {}
            for who in w.subjects:
                record = self.records.get(who)
                if record is None or not record.open:
                    continue
                given = probed(
                    record, w.recipient_id, w.token, alive=who.key in alive, now=self._now
                )
                if given is None:
                    break
                mine[who] = given
            else:
                self.records.update(mine)
                alive |= {who.key for who in mine}
                ready.add(w.recipient_id)
        return ready

    def write(self) -> list[Change]:
        """Write what changed, and say what."""
        changes = [
            Change(who, self.before[who], record)
            for who, record in self.records.items()
            if record != self.before[who]
        ]
        if changes:
            rows = {change.subject: change.after for change in changes}
            self._breakers.write(self._connection, rows, self._now)
        return changes


def _row(who: Subject, record: Record, until: int) -> tuple[object, ...]:
    return (who.key, json.dumps(asdict(record)), *record.probe, until)


def _read(state: str) -> Record:
    # What another version knows besides is passed over.
    said = {name: value for name, value in json.loads(state).items() if name in _KNOWN}
    said["probe"] = tuple(said.get("probe", (0, 0)))
    return Record(**said)


def open_by_relay(connection: sa.Connection, now: int) -> Counter[tuple[str, str]]:
    """How many breakers are open, by kind and relay."""
    rows = connection.execute(_OPEN, {"now": now})
    found = [subject(row.key) for row in rows if _read(row.state).open]
    return Counter((who.kind.value, who.relay) for who in found)


_OPEN = sa.text("SELECT key, state FROM breakers WHERE worth_until > :now")
