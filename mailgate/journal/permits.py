"""Permits in the journal: for installations without a Redis, and for long periods.

Owns the table ``permits``, one row a limit. The clock is the database server's on
PostgreSQL and the host's on SQLite. Never decides anything: ``limits.rules`` does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import sqlalchemy as sa

from mailgate.config.terms import Rate
from mailgate.journal.database import Database, JournalAway, packed
from mailgate.limits.clock import LOOKS, StoreClock, answers, waits
from mailgate.limits.rules import (
    Ask,
    Grant,
    LimiterAway,
    Refusal,
    State,
    Verdict,
    admit,
    reach,
)

# Rows are locked in the order of their keys. The clock is read after each lock; the
# last look counts, for it comes after the last lock.
_LOCK = """
WITH locked AS MATERIALIZED (
  SELECT key, state FROM permits WHERE key IN (SELECT key FROM {keys}) ORDER BY key FOR UPDATE
)
SELECT key, state, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM locked
"""
_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


class JournalLimiter:
    """A ``Limiter`` over the journal; ``close`` leaves the database open."""

    def __init__(self, database: Database) -> None:
        self._database, self._clock = database, StoreClock()
        keys = database.rows({"key": "text"}, name="k", param="keys")
        rows = database.rows({"key": "text", "state": "text"})
        self._read = sa.text(
            f"SELECT key, state, 0 FROM permits WHERE key IN (SELECT key FROM {keys})"
            if database.sqlite
            else _LOCK.format(keys=keys)
        )
        self._write = sa.text(
            f"INSERT INTO permits (key, state) SELECT key, state FROM {rows} WHERE true"
            " ON CONFLICT (key) DO UPDATE SET state = excluded.state"
        )
        self._begin = sa.text(
            f"INSERT INTO permits (key, state) SELECT key, state FROM {rows} WHERE true"
            " ON CONFLICT (key) DO NOTHING"
        )

    async def reserve(self, asks: Sequence[Ask], horizon: float) -> list[Grant | Refusal]:
        verdicts, start, cut = await self._asked(asks, int(horizon * 1e6))
        return answers(asks, verdicts, self._clock, start, cut)

    async def peek(self, keys: Sequence[tuple[str, Rate]]) -> dict[str, float]:
        verdicts, start, _ = await self._asked([Ask((key,)) for key in keys], -1)
        return waits(keys, verdicts, start)

    async def close(self) -> None:
        return None

    async def _asked(self, asks: Sequence[Ask], horizon: int) -> tuple[list[Verdict], int, int]:
        """Verdicts on the asks that have limits, from when on, and how far ahead."""
        limited = [ask for ask in asks if ask.keys]
        if not limited:
            return [], 0, horizon
        keys = sorted({key for ask in limited for key, _ in ask.keys})
        lead, cut = reach(int(self._clock.lead * 1e6), horizon)
        try:
            if not self._database.sqlite and not self._clock.sure:
                await self._database.read(self._set_clock)
            said = None
            while said is None:
                said = await self._database.run(
                    lambda connection: self._admitted(connection, limited, keys, lead, cut)
                )
                if said is None:
                    await self._database.run(lambda connection: self._stand(connection, keys))
        except JournalAway as error:
            raise LimiterAway(f"the journal is away: {error}") from error
        now, verdicts = said
        self._clock.arrived(now, time.monotonic())
        return verdicts, now + lead, cut

    def _admitted(
        self,
        connection: sa.Connection,
        asks: Sequence[Ask],
        keys: Sequence[str],
        lead: int,
        horizon: int,
    ) -> tuple[int, list[Verdict]] | None:
        """The clock and the verdicts; None when a limit has no row yet that could be locked."""
        states, now = self._states(connection, keys)
        if len(states) < len(keys) and not self._database.sqlite:
            return None
        verdicts, changed = admit(states, asks, now=now, lead=lead, horizon=horizon)
        if changed:
            rows = [(key, _text(changed[key])) for key in sorted(changed)]
            connection.execute(self._write, {"rows": packed(rows)})
        return now, verdicts

    def _stand(self, connection: sa.Connection, keys: Sequence[str]) -> None:
        """Rows for new limits, in a transaction of their own: who holds other rows may not wait."""
        idle = _text(State())
        connection.execute(self._begin, {"rows": packed([(key, idle) for key in keys])})

    def _states(
        self, connection: sa.Connection, keys: Sequence[str]
    ) -> tuple[dict[str, State], int]:
        before = time.monotonic()
        rows = connection.execute(self._read, {"keys": packed([(key,) for key in keys])}).all()
        after = time.monotonic()
        if self._database.sqlite:
            before = time.monotonic()
            now = time.time_ns() // 1000
            after = time.monotonic()
        else:
            now = max((row[2] for row in rows), default=0)
        if now:
            self._clock.learn(now, before, after)
        return {key: _state(text) for key, text, _ in rows}, now

    def _set_clock(self, connection: sa.Connection) -> None:
        for _ in range(LOOKS):
            before = time.monotonic()
            now = connection.exec_driver_sql(_CLOCK).scalar_one()
            self._clock.learn(now, before, time.monotonic())
            if self._clock.sure:
                return


def _text(state: State) -> str:
    """How many moments are ahead, the end of the slots, the moments: as ``admit.lua``."""
    return json.dumps(
        [len(state.ahead), state.tat, *state.behind, *state.ahead], separators=(",", ":")
    )


def _state(text: str) -> State:
    ahead, tat, *moments = json.loads(text)
    split = len(moments) - ahead
    return State(tat, moments[split:], moments[:split])
