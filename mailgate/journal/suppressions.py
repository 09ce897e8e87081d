"""Who is not to be written to: addresses and domains, for all mail or for a part of it.

Owns the look-up before a recipient is queued or sent, what a bounce adds, and the
hints that become an entry when they repeat. Never decides whether an outcome is the
address's fault (``smtp.rules``), nor lists entries for people (``suppression_list``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mailgate.journal.database import Database, packed, packs

#: How long (seconds) the absence of hints is believed: one forgotten late does no harm.
_NO_HINTS = 10.0
#: How long the presence of entries is believed without a look.
_ANY = 60.0
#: Evidence is kept up to this many characters.
_EVIDENCE = 500


@dataclass(frozen=True, slots=True)
class Suppression:
    """One entry: no mail to ``address`` (folded, or a domain), as far as it says.

    ``producer`` and ``category`` narrow it to that producer's mail, or to streams of
    that category; empty means all. ``source`` is bounce, manual, import or
    unsubscribe. Times are milliseconds; without ``expires_at`` it lasts.
    """

    address: str
    reason: str
    source: str
    producer: str = ""
    category: str = ""
    evidence: str = ""
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Blame:
    """What a settled failure says about its address.

    With ``hits`` of 1 it is suppressed now, else at the ``hits``-th such failure:
    those less than ``apart`` after the last one counted count as one, and after
    ``within`` without any it begins anew (milliseconds).
    """

    address: str
    reason: str
    evidence: str
    expires_at: int
    hits: int = 1
    apart: int = 0
    within: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A recipient that is asked about; ``key`` is the asker's own number for it."""

    key: int
    address: str
    producer: str
    category: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a recipient is suppressed, in the words of its event."""

    reason: str
    source: str
    by: str

    @property
    def note(self) -> dict[str, str]:
        return {"error_class": "suppressed", "note": f"{self.reason} ({self.source}, {self.by})"}


_COLUMNS = "address, producer, category, reason, source, evidence, created_at, expires_at"
_INSERT = (
    f"INSERT INTO suppressions ({_COLUMNS}) VALUES (:address, :producer, :category, :reason,"
    " :source, :evidence, :now, :expires_at)"
    " ON CONFLICT (address, producer, category) DO UPDATE SET reason = excluded.reason,"
    " source = excluded.source, evidence = excluded.evidence, created_at = excluded.created_at,"
    " expires_at = excluded.expires_at"
)
_LONGER = (
    " WHERE suppressions.expires_at IS NOT NULL"
    " AND (excluded.expires_at IS NULL OR excluded.expires_at > suppressions.expires_at)"
)
#: Replaces what is there, or only what ends earlier.
_PUT, _PROLONG = sa.text(_INSERT), sa.text(_INSERT + _LONGER)
_HINT = sa.text(
    "INSERT INTO bounce_hints (address, error_class, hits, last_at)"
    " VALUES (:address, :error_class, 1, :now)"
    " ON CONFLICT (address, error_class) DO UPDATE SET"
    " hits = CASE WHEN bounce_hints.last_at <= :since THEN 1"
    " WHEN bounce_hints.last_at > :apart THEN bounce_hints.hits"
    " ELSE bounce_hints.hits + 1 END,"
    " last_at = CASE WHEN bounce_hints.last_at > :apart THEN bounce_hints.last_at"
    " ELSE excluded.last_at END RETURNING hits"
)
_ANYBODY = sa.text("SELECT EXISTS (SELECT 1 FROM suppressions)")
_ANY_HINT = sa.text("SELECT EXISTS (SELECT 1 FROM bounce_hints)")
_LIVE = "(s.expires_at IS NULL OR s.expires_at > :now)"


class Suppressions:
    """The statements, made once for a database; remembers whether there is anything at all."""

    def __init__(self, database: Database) -> None:
        row = {"id": "bigint", "address": "text", "producer": "text", "category": "text"}
        self._look = sa.text(
            "SELECT v.id, s.address, s.reason, s.source, s.producer, s.category"
            f" FROM {database.rows(row)} JOIN suppressions s ON s.address = v.address"
            f" WHERE s.producer IN ('', v.producer) AND s.category IN ('', v.category) AND {_LIVE}"
            " ORDER BY s.id"
        )
        self._people = (
            "SELECT r.id, r.email, m.producer, m.stream FROM recipients r"
            f" {database.join('messages', 'm', 'id', 'r.message_id')}"
            f" WHERE {database.among('r.id', database.rows({'id': 'bigint'}))}"
            " AND r.state IN (%s)"
        )
        addresses = database.rows({"address": "text"})
        self._forget = sa.text(
            f"DELETE FROM bounce_hints WHERE address IN (SELECT address FROM {addresses})"
        )
        self._some_until = 0.0
        self._no_hints_until = 0.0

    def look(
        self, connection: sa.Connection, wanted: Sequence[Wanted], now: int
    ) -> dict[int, Stop]:
        """Those of ``wanted`` that a live entry stops, by key."""
        if not wanted or not self._any(connection):
            return {}
        rows = []
        for w in wanted:
            rows.append((w.key, w.address, w.producer, w.category))
            rows.append((w.key, w.address.rpartition("@")[2], w.producer, w.category))
        stops: dict[int, Stop] = {}
        for text in packs(rows):
            for row in connection.execute(self._look, {"rows": text, "now": now}):
                stops.setdefault(row.id, Stop(row.reason, row.source, _scope(row)))
        return stops

    def among(
        self,
        connection: sa.Connection,
        recipient_ids: Sequence[int],
        states: str,
        categories: Mapping[str, str],
        now: int,
    ) -> set[int]:
        """Those recipients in one of ``states`` (SQL literals) that a live entry stops.

        ``categories`` has the category of each stream.
        """
        if not self._any(connection):
            return set()
        people = connection.execute(
            sa.text(self._people % states), {"rows": packed([(i,) for i in recipient_ids])}
        )
        wanted = [
            Wanted(p.id, p.email.casefold(), p.producer, categories.get(p.stream, ""))
            for p in people
        ]
        return set(self.look(connection, wanted, now))

    def _any(self, connection: sa.Connection) -> bool:
        """Whether there is any entry: most journals of a test, and many of a house, have none."""
        clock = time.monotonic()
        if clock < self._some_until:
            return True
        if not connection.execute(_ANYBODY).scalar_one():
            return False
        self._some_until = clock + _ANY
        return True

    def blame(self, connection: sa.Connection, blames: Iterable[Blame], now: int) -> None:
        """Write what failures say about their addresses; an entry never gets shorter by it."""
        # Sorted, so that two settlers lock rows in one order.
        for b in sorted(blames, key=lambda b: (b.address, b.reason)):
            if b.hits > 1:
                values = {
                    "address": b.address,
                    "error_class": b.reason,
                    "now": now,
                    "apart": now - b.apart,
                    "since": now - b.within,
                }
                if connection.execute(_HINT, values).scalar_one() < b.hits:
                    self._no_hints_until = 0.0
                    continue
            entry = Suppression(
                b.address, b.reason, "bounce", evidence=b.evidence, expires_at=b.expires_at
            )
            put(connection, entry, now, replace=False)

    def took(self, connection: sa.Connection, addresses: Sequence[str]) -> None:
        """Mail was taken for these: what was held against them is forgotten."""
        clock = time.monotonic()
        if not addresses or clock < self._no_hints_until:
            return
        if connection.execute(_ANY_HINT).scalar_one():
            connection.execute(self._forget, {"rows": packed([(a,) for a in sorted(addresses)])})
        else:
            self._no_hints_until = clock + _NO_HINTS


def _scope(row: sa.Row[tuple[object, ...]]) -> str:
    """How far an entry reaches, in words: "the address", "the domain, for shop, of news"."""
    said = "the address" if "@" in row.address else "the domain"
    said += f", for {row.producer}" if row.producer else ""
    return said + (f", of {row.category}" if row.category else "")


def put(connection: sa.Connection, entry: Suppression, now: int, *, replace: bool) -> bool:
    """Write an entry; one of the same scope is replaced, or only prolonged.

    Gives whether anything was written.
    """
    values = {
        "address": entry.address,
        "producer": entry.producer,
        "category": entry.category,
        "reason": entry.reason,
        "source": entry.source,
        "evidence": entry.evidence[:_EVIDENCE].replace("\x00", "\\0"),
        "now": now,
        "expires_at": entry.expires_at,
    }
    return connection.execute(_PUT if replace else _PROLONG, values).rowcount > 0
