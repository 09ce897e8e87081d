"""Per-recipient throttles: who was written to when, and who must wait.

Owns the sliding windows of every recipient, exact over all workers because
they are read and written in the transaction of the claim. Never knows an
address: keys are HMACs under a secret that never leaves the journal.

A window holds by the relay's clock, and not only by ours: mail that was claimed may
reach the relay a little later, or much. So a hit does not age while its mail is on the
way, and counts from the end of its last conversation after that.
"""

from __future__ import annotations

import hmac
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa

from mailgate.config.digests import Digest
from mailgate.config.terms import format_duration
from mailgate.journal.database import Database, packed

#: Those that wait for one recipient are told times up to so far behind the first free
#: place, or one window when that is longer (ms): none waits for the turns of others
#: that may be cancelled meanwhile, and they do not all wake at once.
SPREAD = 3_600_000
#: From a claim to the end of its conversation, at most (ms): the reply to a dot may take
#: ten minutes, and the way there some more.
LONGEST = 1_800_000
#: What two processes' views of the journal's clock may differ by (ms).
CLOCKS = 20
#: Scatters ids over that time (Knuth's multiplicative hash).
_SCATTER = 2_654_435_761


OnLimit = Literal["defer", "drop", "digest"]


@dataclass(frozen=True, slots=True)
class Charge:
    """One window that a claim must fit into: at most ``limit`` in any ``window`` ms.

    ``key`` names what is counted: several windows may share one count. ``rule`` is what
    people are told. ``digest`` is the section that takes what is over, with its name.
    """

    key: str
    limit: int
    window: int
    on_limit: OnLimit
    rule: str = ""
    digest: tuple[str, Digest] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"throttle {self.rule}: {self.limit} in {format_duration(self.window / 1000)}"


@dataclass(frozen=True, slots=True)
class Wait:
    """A claim that did not fit: it may ask again at ``due_at``, is dropped, or gathered.

    ``gather`` is the window for whose end it is gathered: there is room at ``due_at``.
    """

    due_at: int
    drop: bool
    limit: str
    gather: Charge | None = None


def charge_key(secret: bytes, *parts: str) -> str:
    """The name of a count: an HMAC over folded address, rule and what it counts together."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hmac.digest(secret, text, "sha256").hex()[:40]


def fit(
    wanted: Sequence[tuple[int, Sequence[Charge]]],
    hits: Mapping[str, Sequence[int]],
    now: int,
) -> tuple[list[int], dict[int, Wait]]:
    """Which recipients fit all their windows now, in the order given, and who waits.

    Pure. ``hits`` are the times already charged. All windows of a recipient have room,
    or it charges none. Those that wait are told the times at which there will be room
    for them one after another.
    """
    book = {key: sorted(times) for key, times in hits.items()}
    told: dict[str, list[int]] = {}
    fits: list[int] = []
    waits: dict[int, Wait] = {}
    for recipient_id, charges in wanted:
        full = [c for c in charges if _full(c, book.get(c.key, ()), now)]
        drop = next((c for c in full if c.on_limit == "drop"), None)
        if drop is not None:
            waits[recipient_id] = Wait(now, True, str(drop))
        elif gather := next((c for c in full if c.on_limit == "digest"), None):
            # Of its count's windows the last to have room; others may put the mail off still.
            dues = [_room(c, book[c.key]) for c in charges if c.key == gather.key]
            waits[recipient_id] = Wait(max(dues), False, str(gather), gather)
        elif full:
            keys = {c.key for c in full}
            due, last = _turn(recipient_id, [c for c in charges if c.key in keys], book, told)
            waits[recipient_id] = Wait(due, False, str(last))
        else:
            fits.append(recipient_id)
            for key in {c.key for c in charges}:
                insort(book.setdefault(key, []), now)
    return fits, waits


def _full(c: Charge, times: Sequence[int], now: int) -> bool:
    return len(times) - bisect_right(times, now - c.window) >= c.limit


def _room(c: Charge, times: Sequence[int]) -> int:
    """When a window has room behind these times, which are in order."""
    return times[-c.limit] + c.window if len(times) >= c.limit else 0


def _turn(
    recipient_id: int,
    counted: Sequence[Charge],
    book: Mapping[str, Sequence[int]],
    told: dict[str, list[int]],
) -> tuple[int, Charge]:
    """When there will be room behind those that were told before, and which window is last.

    ``counted`` are all windows of the counts that are full in one of them: the next one
    may be full by the time that the first has room again.
    """

    dues = {c: _room(c, sorted([*book[c.key], *told.get(c.key, ())])) for c in counted}
    last = max(dues, key=dues.__getitem__)
    first = max(_room(c, book[c.key]) for c in counted)
    latest = first + max(SPREAD, max(c.window for c in counted))
    if dues[last] > latest:
        return first + recipient_id * _SCATTER % (latest - first), last
    for key in {c.key for c in counted}:
        told.setdefault(key, []).append(dues[last])
    return dues[last], last


class Throttles:
    def __init__(self, database: Database) -> None:
        self._sqlite = database.sqlite
        keys = database.rows({"key": "text"})
        # Locks in key order: two takers of the same recipient's mail go one after the other.
        self._lock = sa.text(
            "SELECT pg_advisory_xact_lock(hashtextextended(k.key, 7))"
            f" FROM (SELECT DISTINCT key FROM {keys} ORDER BY key) AS k"
        )
        under_way = "r.state = 'sending' OR (r.state = 'queued' AND r.charged AND r.attempts = 0)"
        self._hits = sa.text(
            f"SELECT h.key, h.at, CASE WHEN {under_way} THEN :now ELSE"
            " (SELECT max(a.ended_at) FROM attempts a WHERE a.recipient_id = h.recipient_id)"
            " END AS later FROM throttle_hits h LEFT JOIN recipients r ON r.id = h.recipient_id"
            f" WHERE h.key IN (SELECT key FROM {keys}) AND h.at > :since"
        )
        row = {"key": "text", "at": "bigint", "recipient_id": "bigint"}
        self._insert = sa.text(
            "INSERT INTO throttle_hits (key, at, recipient_id)"
            f" SELECT key, at, recipient_id FROM {database.rows(row)} WHERE true"
        )

    def decide(
        self,
        connection: sa.Connection,
        wanted: Sequence[tuple[int, Sequence[Charge]]],
        now: int,
        *,
        hold: bool = True,
    ) -> tuple[list[int], dict[int, Wait]]:
        """``fit`` against the journal, holding the windows until the transaction ends.

        Without ``hold`` it is a look: another may take the room that was seen.
        """
        charges = [c for _, several in wanted for c in several]
        if not charges:
            return [recipient_id for recipient_id, _ in wanted], {}
        keys = packed([(k,) for k in sorted({c.key for c in charges})])
        if hold and not self._sqlite:
            connection.execute(self._lock, {"rows": keys})
        since = now - max(c.window for c in charges) - LONGEST
        hits: dict[str, list[int]] = {}
        for row in connection.execute(self._hits, {"rows": keys, "since": since, "now": now}):
            arrived = row.at if row.later is None else max(row.at, row.later + CLOCKS)
            hits.setdefault(row.key, []).append(arrived)
        return fit(wanted, hits, now)

    def charge(
        self,
        connection: sa.Connection,
        claimed: Iterable[tuple[int, Sequence[Charge]]],
        now: int,
    ) -> None:
        rows = [
            (key, now, recipient_id)
            for recipient_id, several in claimed
            for key in dict.fromkeys(c.key for c in several)
        ]
        if rows:
            connection.execute(self._insert, {"rows": packed(rows)})
