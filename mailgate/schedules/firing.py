"""One fire, from its sources to the journal: all of it or nothing.

Owns the order take → read → write, the window of time that sources are asked for, and
what follows from a fault. Sources are read outside of every transaction; the messages and
the end of the fire are written in one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mailgate.config.schedules import Schedule
from mailgate.config.shape import Config
from mailgate.intake.accept import CheckData, decide
from mailgate.intake.door import Delivery
from mailgate.journal import schedules as book
from mailgate.journal.arrivals import Arrival, Arrivals, NewParked
from mailgate.journal.database import Connection, Database
from mailgate.limits.policy import Policy
from mailgate.model.state import Lane
from mailgate.schedules.fires import previous
from mailgate.schedules.letters import LettersError, documents, spelled
from mailgate.schedules.reading import ReadingError, read

#: Whoever takes a fire has it so long (ms): longer than a chore's task may live.
TAKEN = 120_000
#: Waits between tries (ms): the first, and the longest.
_AGAIN = (30_000, 900_000)

_log = logging.getLogger("mailgate.schedules")


class FireError(Exception):
    """A fire cannot be carried out now; says why, and holds no personal data."""


@dataclass(slots=True)
class Fired:
    """What a fire came to. ``state`` is done, empty, failed, again, or over (before us)."""

    state: str
    since: int = 0
    messages: int = 0
    recipients: int = 0
    error: str = ""
    lanes: set[Lane] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Mail:
    """What a fire would send."""

    since: int
    people: Sequence[Any]
    items: Sequence[Any] | None
    bodies: Sequence[bytes]
    arrivals: Sequence[Arrival]

    @property
    def recipients(self) -> int:
        return sum(len(a.recipients) for a in self.arrivals)


class Firing:
    def __init__(
        self, config: Config, database: Database, arrivals: Arrivals, check_data: CheckData
    ) -> None:
        self._config = config
        self._database = database
        self._arrivals = arrivals
        self._check_data = check_data
        self._policy = Policy(config)

    def fire(self, name: str, at: int) -> Fired:
        """Carry out a fire that is pending and due. Raises ``JournalAway``."""
        schedule = self._config.schedules.get(name)
        if schedule is None:
            # This process has not heard of it yet: another may take the fire at once.
            return Fired("over")
        now = self._database.now()
        taken = self._database.run_now(lambda c: book.begin(c, name, at, now + TAKEN, now))
        if taken is None:
            return Fired("over")
        told = self._database.read_now(lambda c: book.told_by(c, name, at))
        if told is not None:
            self._database.run_now(lambda c: book.skip(c, name, at, now))
            return Fired("over", error=f"the fire of {spelled(told)} has told what was new by then")
        try:
            mail = self.prepare(name, schedule, at)
        except FireError as error:
            return self._again(name, schedule, taken, str(error))
        return self._write(name, at, mail)

    def window(self, name: str, schedule: Schedule, at: int) -> int:
        """Where the window of a fire begins (ms): where its sources were last read up to."""
        since, first = self._database.read_now(lambda c: book.read_until(c, name, at))
        if since is None:
            # One turn of the schedule, before the first that was to read it.
            since = previous(schedule.cron, schedule.timezone, at if first is None else first)
        return at if since is None else since

    def prepare(self, name: str, schedule: Schedule, at: int) -> Mail:
        """Read the sources and make the messages; changes nothing. Raises ``FireError``."""
        config = self._config
        since = self.window(name, schedule, at)
        most = schedule.max_recipients
        try:
            people: Sequence[Any] = schedule.recipients
            if schedule.recipients_from is not None:
                people = read(schedule.recipients_from, config.sources, since, at, most)
            items = None
            if schedule.data_from is not None and people:
                items = read(schedule.data_from, config.sources, since, at, _MOST_ITEMS)
            if not people or items == []:
                return Mail(since, people, items, (), ())
            producer = schedule.producer or config.default_producer
            stream = schedule.stream or config.default_stream
            said = list(documents(name, schedule, producer, stream, at, people, items))
        except (ReadingError, LettersError) as error:
            raise FireError(str(error)) from error
        arrivals = []
        for identity, body in said:
            delivery = Delivery(body, "schedule", identity, False, None, None, producer=producer)
            decided = decide(delivery, config, self._check_data, self._policy)
            if not isinstance(decided, Arrival):
                assert isinstance(decided, NewParked)
                raise FireError(_spoken(decided.faults))
            arrivals.append(decided)
        return Mail(since, people, items, [body for _, body in said], arrivals)

    def _write(self, name: str, at: int, mail: Mail) -> Fired:
        def ends(connection: Connection) -> bool:
            return book.end(
                connection,
                name,
                at,
                since=mail.since,
                messages=len(mail.arrivals),
                recipients=mail.recipients,
                now=self._database.now(),
            )

        stored = self._arrivals.store_now(mail.arrivals, only_if=ends)
        if stored is None:
            # Over, or its window is another by now: then it is pending, and tried at once.
            now = self._database.now()
            self._database.run_now(lambda c: book.release(c, name, at, now))
            return Fired("over", error="another fire of it was carried out meanwhile")
        state = "done" if mail.arrivals else "empty"
        told = {"schedule": name, "messages": len(mail.arrivals), "recipients": mail.recipients}
        _log.info("a schedule fired", extra=told)
        return Fired(state, mail.since, len(mail.arrivals), mail.recipients, "", set(stored.lanes))

    def _again(self, name: str, schedule: Schedule, taken: book.Fire, error: str) -> Fired:
        now = self._database.now()
        wait = next_wait(taken.tries, schedule.retry_for)
        again = None if wait is None else now + wait
        self._database.run_now(lambda c: book.fail(c, name, taken.at, error[:500], again, now))
        level = logging.WARNING if again else logging.ERROR
        _log.log(level, "a schedule cannot fire", extra={"schedule": name, "error": error})
        return Fired("again" if again else "failed", error=error)


def next_wait(tries: int, retry_for: float) -> int | None:
    """Milliseconds until the next try after so many; None when ``retry_for`` (s) is over."""
    first, longest = _AGAIN
    waits = [min(longest, first * 2 ** min(n, 10)) for n in range(tries)]
    return None if sum(waits) > retry_for * 1000 else waits[-1]


#: Rows that data may get.
_MOST_ITEMS = 10_000


def _spoken(faults: str) -> str:
    """The first faults of a document, in one line."""
    said = [f"{f['field']}: {f['rule']}" if f["field"] else f["rule"] for f in json.loads(faults)]
    more = f", and {len(said) - 3} more faults" if len(said) > 3 else ""
    return "; ".join(said[:3]) + more
