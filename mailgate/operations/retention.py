"""Keeping the journal small, and forgetting one person.

Owns what is deleted when, in which order, and the audit of an erasure. A clean-up works
in small transactions for a bounded time; what is left is for the next.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from mailgate.config.shape import Config
from mailgate.config.throttles import ThrottleRule
from mailgate.journal.database import Connection, Database
from mailgate.journal.digest_list import abandoned
from mailgate.journal.facts import CLEANED, note, noted
from mailgate.journal.lapsing import Lapsing
from mailgate.journal.orders import EARLY, lapse
from mailgate.journal.orders import forget as forget_orders
from mailgate.journal.retention import Retention
from mailgate.journal.schedules import lapse as fires_lapse
from mailgate.journal.suppression_list import sweep
from mailgate.journal.surgery import Act, Surgery, audit
from mailgate.model.state import FINAL, WAITING, State

#: The last message whose key was freed.
_KEYS = "keys_free_until"
#: Rows of one transaction: others wait for it no longer than for a batch of their own.
CHUNK = 500
#: What throttles look back at most (ms), beside the longest window of the configuration.
_SLACK = 3_600_000
MONTH = 31 * 86400.0
#: How long it is remembered to the second when an event was published.
_WEEK = 7 * 86400.0
#: How long it is remembered when a schedule fired.
_YEAR = 366 * 86400.0


def clean(database: Database, config: Config, seconds: float) -> dict[str, int]:
    """Delete and redact what the configuration keeps no longer; gives how many of each.

    Several at once harm nothing. Stops after ``seconds``; raises ``JournalAway``. What it
    did, and whether it came to the end, is noted in the journal (``facts.CLEANED``).
    """
    keep, ends = config.retention, time.monotonic() + seconds
    retention, lapsing = Retention(database), Lapsing(database)
    done: Counter[str] = Counter()
    now = database.now()

    def chunks(name: str, work: Callable[[Connection], int]) -> None:
        while time.monotonic() < ends:
            count = database.run_now(work)
            done[name] += count
            if count < CHUNK:
                return

    def walk(name: str, age: float, find: _Find, act: _Act) -> None:
        before, last = now - _ms(age), 0

        while time.monotonic() < ends:
            # Without a lock: where all that is kept is found to be kept still, it reads all of
            # it, and nobody could send meanwhile. Who acts looks again.
            ids = database.read_now(_finding(find, before, last))
            done[name] += database.run_now(_acting(act, ids)) if ids else 0
            if not ids:
                return
            last = ids[-1]

    chunks("expired", lambda c: lapsing.expire(c, now, CHUNK))
    if keep.messages:
        age = keep.messages
        before = now - _ms(age)
        walk("messages", age, retention.over, lambda c, ids: retention.delete(c, before, ids))
    if keep.keys:
        done["keys"] = _free_keys(database, lapsing, now - _ms(keep.keys), ends)
    if keep.content:
        walk("contents", keep.content, retention.talkative, retention.redact)
    if keep.parked:
        before_parked = now - _ms(keep.parked)
        chunks("parked", lambda c: retention.parked(c, before_parked, CHUNK))
    if keep.actions:
        before_actions = now - _ms(keep.actions)
        chunks("actions", lambda c: retention.actions(c, before_actions, CHUNK))
    asked = now - _ms(keep.messages) if keep.messages else 0
    chunks("orders", lambda c: lapse(c, asked, now - EARLY, CHUNK))
    if keep.messages:
        chunks("answers", lambda c: retention.answers(c, asked, CHUNK))
    chunks("published", lambda c: retention.published(c, now - _ms(_WEEK), CHUNK))
    chunks("fires", lambda c: fires_lapse(c, now - _ms(_YEAR), CHUNK))
    hits = now - _ms(longest_window(config)) - _SLACK
    chunks("throttle_hits", lambda c: retention.hits(c, hits, CHUNK))
    forget = _ms(config.suppressions.forget)
    chunks("suppressions", lambda c: sweep(c, now, forget, CHUNK))
    counts = {name: count for name, count in done.items() if count}
    trace = {"at": now, "finished": time.monotonic() < ends, "done": counts}
    database.run_now(lambda c: note(c, CLEANED, trace))
    return dict(done)


def _free_keys(database: Database, lapsing: Lapsing, before: int, ends: float) -> int:
    """Free keys from where the last clean-up came to; gives how many."""
    count = 0

    def work(c: Connection) -> int:
        found, last = lapsing.free_keys(c, before, CHUNK, noted(c, _KEYS) or 0)
        if found:
            note(c, _KEYS, last)
        return found

    while time.monotonic() < ends:
        found = database.run_now(work)
        count += found
        if found < CHUNK:
            break
    return count


_Find = Callable[[Connection, int, int, int], list[int]]
_Act = Callable[[Connection, list[int]], int]


def _finding(find: _Find, before: int, last: int) -> Callable[[Connection], list[int]]:
    return lambda c: find(c, before, CHUNK, last)


def _acting(act: _Act, ids: list[int]) -> Callable[[Connection], int]:
    return lambda c: act(c, ids)


def longest_window(config: Config) -> float:
    """The longest that any throttle looks back, in seconds: a message's own up to a month."""
    streams = config.streams.values()
    rules: list[ThrottleRule] = [*config.throttles.values()]
    rules += [rule for stream in streams for rule in stream.throttle]
    said = [span for rule in rules for span in (rule.window, rule.spacing) if span is not None]
    return max([MONTH, *said, *(stream.hard_cap.period for stream in streams)])


@dataclass(frozen=True, slots=True)
class Erased:
    """What was done about one address; ``busy`` recipients are being sent just now."""

    cancelled: int
    recipients: int
    parked: int
    busy: int


def erase(database: Database, address: str, act: Act) -> Erased:
    """Cancel what waits for an address and forget it in everything that is over.

    ``act.detail`` must not name the address: the audit stays. Raises ``JournalAway``.
    """
    retention, surgery = Retention(database), Surgery(database)
    waiting = (*WAITING, State.GATHERING, State.HELD, State.UNCERTAIN)

    def stop(c: Connection) -> int:
        rows = [r for r, _, s in retention.of(c, address, CHUNK) if State(s) in waiting]
        # What gathers for nobody any more need not be kept until its time.
        abandoned(c, rows, database.now())
        # What may have arrived is over for them all the same.
        moved = surgery.move(c, rows, State.CANCELLED, act) if rows else None
        return len(moved.recipient_ids) if moved else 0

    def forget(c: Connection) -> tuple[int, int]:
        rows = retention.of(c, address, CHUNK)
        ended = [(r, m) for r, m, s in rows if State(s) in FINAL or State(s) is State.UNCERTAIN]
        retention.forget(c, address, ended)
        return len(ended), len(rows) - len(ended)

    def unpark(c: Connection) -> int:
        ids = retention.parked_of(c, address)
        if ids:
            retention.forget_parked(c, ids, act.who, database.now())
        return len(ids)

    cancelled = recipients = busy = 0
    while True:
        # In turns: who is forgotten makes room in the chunk for those behind.
        stopped = database.run_now(stop)
        count, busy = database.run_now(forget)
        cancelled, recipients = cancelled + stopped, recipients + count
        if not (stopped or count):
            break
    parked = database.run_now(unpark)
    database.run_now(lambda c: forget_orders(c, address))
    database.run_now(lambda c: audit(c, act, recipients, database.now()))
    return Erased(cancelled, recipients, parked, busy)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
