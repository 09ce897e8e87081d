"""Sending failures again, and cancelling what waits.

Owns the chunks, the pace, the audit and the rings that follow, and the estimate of how
long it will take. A change of many needs a filter that says more than a state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mailgate import failpoints
from mailgate.config.shape import Config
from mailgate.config.terms import Rate
from mailgate.journal.database import Connection, Database
from mailgate.journal.filters import Filter
from mailgate.journal.search import ids
from mailgate.journal.surgery import Act, Moved, Surgery
from mailgate.model.address import Address
from mailgate.model.state import Lane, State

#: Recipients moved in one transaction.
CHUNK = 500
#: Recipients looked at in one query.
LOOKED_AT = 5000


@dataclass(frozen=True, slots=True)
class How:
    """In which way to send again: the relay to try first, and no faster than ``rate``.

    What is ``late`` goes although its ``expires_at`` has passed; else it expires.
    """

    relay: str | None = None
    rate: Rate | None = None
    late: bool = True


def move_all(
    database: Database,
    wanted: Filter,
    target: State,
    act: Act,
    ring: Callable[[Lane], None],
    *,
    limit: int | None = None,
    how: How = How(),
    categories: Mapping[str, str] | None = None,
) -> Iterator[Moved]:
    """Move every recipient that ``wanted`` finds, chunk by chunk; yields each chunk's end.

    Each is looked at once: what fails again while this goes on is not sent again and
    again. Interrupted, what is done is done, and the same call goes on where it
    stopped. Raises ``JournalAway``.
    """
    surgery = Surgery(database, categories)
    left = limit
    last = done = 0
    begun = database.now()
    while left is None or left > 0:
        most = CHUNK if left is None else min(CHUNK, left)

        def work(
            connection: Connection, most: int = most, last: int = last, done: int = done
        ) -> tuple[int, Moved]:
            found = ids(connection, wanted, most, last)
            due = {i: begun + _turn(done + n, how.rate) for n, i in enumerate(found)}
            moved = surgery.move(
                connection, found, target, act, due=due, relay=how.relay, late=how.late
            )
            failpoints.hit("resend.before_commit")
            return (found[-1] if found else 0), moved

        last, moved = database.run_now(work)
        if not last:
            return
        failpoints.hit("resend.after_commit")
        if target is State.QUEUED:
            for lane in moved.lanes:
                ring(lane)
        done += len(moved.recipient_ids)
        if left is not None:
            left -= len(moved.recipient_ids)
        yield moved


def suppressed(
    database: Database,
    wanted: Filter,
    categories: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> int:
    """How many of those that ``wanted`` finds would be left alone by a resend.

    Of the first ``limit`` recipients. Raises ``JournalAway``.
    """
    surgery = Surgery(database, categories)
    last = found = 0
    left = limit
    while left is None or left > 0:
        most = LOOKED_AT if left is None else min(LOOKED_AT, left)

        def work(
            connection: Connection, most: int = most, last: int = last
        ) -> tuple[list[int], int]:
            these = ids(connection, wanted, most, last)
            return these, surgery.suppressed(connection, these)

        these, number = database.read_now(work)
        if not these:
            break
        found += number
        last = these[-1]
        left = None if left is None else left - len(these)
    return found


def _turn(n: int, rate: Rate | None) -> int:
    """Milliseconds from the first to the n-th."""
    return 0 if rate is None else int(n * rate.period * 1000 / rate.limit)


class NotOne(Exception):
    """A corrected address is for exactly one recipient; ``found`` says how many there are."""

    def __init__(self, found: int) -> None:
        super().__init__(f"{found} recipients")
        self.found = found


def correct(
    database: Database,
    wanted: Filter,
    address: Address,
    act: Act,
    ring: Callable[[Lane], None],
    how: How = How(),
    categories: Mapping[str, str] | None = None,
) -> Moved:
    """Send the one recipient that ``wanted`` finds again, under another address.

    Gives none when another was quicker. Raises ``NotOne`` and ``JournalAway``.
    """
    surgery = Surgery(database, categories)

    def work(connection: Connection) -> Moved:
        found = ids(connection, wanted, 2)
        if len(found) != 1:
            raise NotOne(len(found))
        if not surgery.correct(connection, found[0], address):
            return Moved()
        return surgery.move(connection, found, State.QUEUED, act, relay=how.relay)

    moved = database.run_now(work)
    for lane in moved.lanes:
        ring(lane)
    return moved


@dataclass(frozen=True, slots=True)
class Estimate:
    """The least that sending takes (seconds), and the limit that makes it so."""

    seconds: float
    limit: str


def estimate(
    ways: Iterable[tuple[tuple[str, ...], int]], config: Config, how: How = How()
) -> Estimate | None:
    """How long so many recipients take by each route under the limits; None without any.

    ``ways`` are routes with how many go by them. Other mail shares the limits: it takes
    longer while there is any.
    """
    total = 0
    by_relay: dict[str, int] = {}
    for route, number in ways:
        first = how.relay or next((name for name in route if name in config.relays), "")
        by_relay[first] = by_relay.get(first, 0) + number
        total += number
    paced = [("--rate", how.rate, total), ("limits.global", config.limits.total, total)]
    for name, number in by_relay.items():
        if name in config.relays:
            paced.append((f"relays.{name}.rate", config.relays[name].rate, number))
    longest: Estimate | None = None
    for name, rate, number in paced:
        if rate is None:
            continue
        seconds = max(0, number - rate.burst) * rate.period / rate.limit
        if longest is None or seconds > longest.seconds:
            longest = Estimate(seconds, f"{name} = {rate}")
    return longest
