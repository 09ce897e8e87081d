"""What was sent lately, and is being sent now: for limits whose store has lost its memory.

Owns the reading of attempts by time, back from the newest, in portions that hold nobody
up. Counts together what nothing distinguishes, so that a day of a million attempts
comes to some thousand rows. Never knows which limits there are: it is told which
destinations matter.

An attempt is told at its end, which is later than its MAIL. A conversation that died or
was stopped after MAIL without an attempt on record is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailgate.journal.database import Database, packed

#: Ids of attempts in one portion. No process keeps so many outcomes unwritten that a
#: whole portion could be older than what stands before it.
PORTION = 20_000
#: What is told as one lies within so many ms of each other: (up to so long ago, so many).
GRAINS = ((120_000, 100), (3_600_000, 6_000), (None, 150_000))


class Sent(NamedTuple):
    """``times`` attempts, none of them after ``at`` (ms).

    ``domain`` is '' where it does not matter. ``relays``: the one that it was, or those
    that it may be. ``first``: the first attempt of its recipient.
    """

    relays: tuple[str, ...]
    domain: str
    producer: str
    sender: str
    first: bool
    at: int
    times: int


class Recent:
    """``by_message`` tells whether domains, producers and senders matter at all."""

    def __init__(self, database: Database, domains: Iterable[str], *, by_message: bool) -> None:
        self._domains = packed([(domain,) for domain in domains])
        at = "length(rtrim(r.email, replace(r.email, '@', ''))) + 1"
        domain = f"substr(r.email, {at})" if database.sqlite else "substring(r.email, '[^@]*$')"
        matter = database.rows({"name": "text"}, name="d", param="domains")
        domain = f"CASE WHEN {domain} IN (SELECT name FROM {matter}) THEN {domain} ELSE '' END"
        self._under_way = sa.text(
            f"SELECT b.route, {domain} AS domain, m.producer, m.sender, r.attempts = 0 AS first,"
            " 0 AS at, count(*) AS times FROM recipients r"
            " JOIN messages m ON m.id = r.message_id JOIN buckets b ON b.id = r.bucket_id"
            " WHERE r.state = 'sending' AND r.lease_id IS NOT NULL GROUP BY 1, 2, 3, 4, 5"
        )
        grain = "".join(
            f" WHEN a.ended_at > :now - {age} THEN a.ended_at / {grain}"
            for age, grain in GRAINS
            if age is not None
        )
        said = f"{domain} AS domain, m.producer, m.sender" if by_message else "'', '', ''"
        joins = (
            " LEFT JOIN recipients r ON r.id = a.recipient_id"
            " LEFT JOIN messages m ON m.id = r.message_id"
        )
        self._ended = sa.text(
            f"SELECT a.relay, {said}, a.n = 1 AS first, max(a.ended_at) AS at,"
            " count(*) AS times"
            f" FROM attempts a{joins * by_message}"
            " WHERE a.id > :low AND a.id <= :high AND a.ended_at > :since"
            f" GROUP BY 1, 2, 3, 4, 5, CASE{grain} ELSE a.ended_at / {GRAINS[-1][1]} END"
        )
        self._by_message = by_message

    def under_way(self, connection: sa.Connection, now: int) -> list[Sent]:
        """The conversations that are open: their MAIL may have been just now."""
        rows = connection.execute(self._under_way, {"domains": self._domains})
        return [_sent(row)._replace(at=now) for row in rows]

    def ended(
        self, connection: sa.Connection, below: int | None, since: int, now: int
    ) -> tuple[list[Sent], int | None]:
        """A portion of the attempts since ``since``, and ``below`` for the one before it.

        None for the newest portion, and when there is none before it.
        """
        if below is None:
            below = connection.execute(sa.text("SELECT max(id) FROM attempts")).scalar() or 0
        low = below - PORTION
        values: dict[str, Any] = {"low": low, "high": below, "since": since, "now": now}
        if self._by_message:
            values["domains"] = self._domains
        found = [_sent(row) for row in connection.execute(self._ended, values)]
        return found, low if found and low > 0 else None


def nothing_sent(connection: sa.Connection) -> bool:
    """Whether no conversation is open and none was ever held."""
    return not connection.execute(
        sa.text(
            "SELECT 1 FROM (SELECT 1 FROM attempts LIMIT 1) AS a UNION ALL SELECT 1 FROM"
            " (SELECT 1 FROM recipients WHERE state = 'sending' AND lease_id IS NOT NULL"
            " LIMIT 1) AS s"
        )
    ).first()


def _sent(row: Any) -> Sent:
    route, domain, producer, sender, first, at, times = row
    relays = tuple(route.split(","))
    return Sent(relays, domain or "", producer or "", sender or "", bool(first), at, times)
