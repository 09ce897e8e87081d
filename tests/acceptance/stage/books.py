"""The journal read with SQL, and the reckoning of the three books.

Owns the oracle: nothing lost, and no more copies than outcomes recorded as
uncertain explain. Reads the tables as any SQL client would.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

_WAITING = ("queued", "sending", "deferred")


class Journal:
    """A reader of the journal, from outside."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(r._mapping) for r in connection.execute(sa.text(query), values)]

    def one(self, query: str, **values: Any) -> Any:
        """The only value of the only row."""
        [row] = self.rows(query, **values)
        return next(iter(row.values()))

    def execute(self, statement: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def states(self) -> dict[str, int]:
        rows = self.rows("SELECT state, count(*) AS n FROM recipients GROUP BY state")
        return {row["state"]: row["n"] for row in rows}

    def accepted(self) -> int:
        return int(self.one("SELECT count(*) FROM recipients"))

    def unfinished(self) -> int:
        states = self.states()
        return sum(states.get(state, 0) for state in _WAITING)

    def uncertain(self) -> int:
        """Attempts whose end nobody knows."""
        return int(self.one("SELECT count(*) FROM attempts WHERE kind = 'uncertain'"))

    def workers(self, within: float = 5.0) -> list[int]:
        """Process ids of the workers that have a lease with a recent beat."""
        since = int((time.time() - within) * 1000)
        query = "SELECT pid FROM leases WHERE kind = 'worker' AND beat_at > :since"
        return [row["pid"] for row in self.rows(query, since=since)]


@dataclass(frozen=True, slots=True)
class Account:
    """What a comparison of the three books found.

    ``lost``: published, and not accounted for. ``extra``: more copies at the sink than one
    and its uncertain attempts, or than attempts that are on record as sent or uncertain.
    ``unsent``: on record as sent more often than at the sink. ``strange``: in one of our
    books, never published. ``odd``: the state says sent and no attempt does, or the other
    way round. ``parked``: how many documents intake took for bad; one that is not in the journal
    is ``lost``, one that stands there more than twice is ``extra``, and one that nobody
    published as bad is ``strange``.
    """

    published: int
    copies: int
    repeated: int
    uncertain: int
    states: dict[str, int]
    lost: tuple[str, ...]
    extra: tuple[str, ...]
    unsent: tuple[str, ...]
    strange: tuple[str, ...]
    unfinished: tuple[str, ...]
    odd: tuple[str, ...]
    parked: int

    @property
    def clean(self) -> bool:
        found = (self.lost, self.extra, self.unsent, self.strange, self.unfinished, self.odd)
        return not any(found)


def reckon(
    journal: Journal,
    taken: Mapping[str, int],
    published: Iterable[str],
    bad: Iterable[bytes] = (),
) -> Account:
    """Compare the books; every address is expected once, and every bad document parked.

    One without an identity may stand twice, once when its acknowledgement was lost.
    """
    rows = journal.rows(
        "SELECT r.email, r.state, (SELECT count(*) FROM attempts a WHERE a.recipient_id = r.id"
        " AND a.kind = 'uncertain') AS uncertain, (SELECT count(*) FROM attempts a WHERE"
        " a.recipient_id = r.id AND a.kind = 'sent') AS sure FROM recipients r"
    )
    wanted = set(published)
    known = Counter(row["email"] for row in rows)
    sure: Counter[str] = Counter()
    unsure: Counter[str] = Counter()
    for row in rows:
        sure[row["email"]] += row["sure"]
        unsure[row["email"]] += row["uncertain"]
    # A message that intake wrote twice is an extra copy too, whatever became of it.
    extra = {email for email, n in known.items() if n > 1}
    extra |= {e for e, n in taken.items() if n > min(1, sure[e]) + unsure[e]}

    aside = Counter(bytes(row["body"]) for row in journal.rows("SELECT body FROM parked"))
    unfit = set(bad)

    def those(found: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(found))

    return Account(
        published=len(wanted),
        copies=sum(taken.values()),
        repeated=sum(n - 1 for n in taken.values() if n > 1),
        uncertain=sum(unsure.values()),
        states=dict(Counter(row["state"] for row in rows)),
        lost=those([*(wanted - known.keys()), *map(repr, unfit - aside.keys())]),
        extra=those(extra | {repr(body) for body, n in aside.items() if n > 2}),
        unsent=those(e for e, n in sure.items() if n > taken.get(e, 0)),
        strange=those(
            [*((known.keys() | taken.keys()) - wanted), *map(repr, aside.keys() - unfit)]
        ),
        unfinished=those(r["email"] for r in rows if r["state"] in _WAITING),
        odd=those(r["email"] for r in rows if (r["state"] == "sent") != bool(r["sure"])),
        parked=aside.total(),
    )
