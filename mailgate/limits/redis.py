"""Permits in Redis or Valkey: one script a batch, on the server's clock.

Owns the keys under ``mailgate:{permits}:`` (one tag, so one slot) and what happens
when the store is away or has lost its memory. Never admits on its own: without an
answer there is no permit.

**Lost memory.** The epoch key says since when the store remembers. It is missing after
a wipe. A restarted server may come back with an old snapshot, and a promoted replica
without the last writes; neither knows our script, since scripts are not persisted or
replicated, and neither is the server's run that the epoch was written in. In all these
cases nothing is given until all that was given before has been used or is void
(``MAX_HORIZON`` and a permit's validity). Then one worker reads from the journal what was
sent within each limit's window (``recall``), and epoch and states are written in one
step: whoever comes second changes nothing. A limit that the journal was not asked about
waits for its own period. Only after that the script is loaded, for then all admit. Keys
must not be evicted (``maxmemory-policy noeviction``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any, Final, NamedTuple

import redis.asyncio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ServerUnreachable
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as ServerSilent

from mailgate import redis_clients
from mailgate.config.terms import Rate
from mailgate.limits.clock import LOOKS, StoreClock, answers, waits
from mailgate.limits.memory import Use, remembered
from mailgate.limits.rules import (
    LONGEST_VALIDITY,
    MAX_AHEAD,
    MAX_HORIZON,
    Ask,
    Grant,
    LimiterAway,
    Refusal,
    Verdict,
    pace,
    reach,
)

PREFIX: Final = "mailgate:{permits}:"
#: Seconds to wait for a connection, and for each reply.
_PATIENCE = 1.0
#: Microseconds after which nothing is used any more that was given before.
_OVER = int((MAX_HORIZON + LONGEST_VALIDITY) * 1e6)
#: Who rebuilds may take so long (ms) before another begins as well; the others ask again
#: after so long (microseconds).
_TURN, _AGAIN = 10_000, 200_000
_ADMIT = (resources.files("mailgate.limits") / "admit.lua").read_text("utf-8")
_LOST = (resources.files("mailgate.limits") / "lost.lua").read_text("utf-8")
_REMEMBER = (resources.files("mailgate.limits") / "remember.lua").read_text("utf-8")

#: The limits whose uses are known, each with those of its last period at least.
Recall = Callable[[], Awaitable[Sequence[tuple[str, Rate, Sequence[Use]]]]]


class RedisLimiter:
    """A ``Limiter`` over a URL, or over the first that answers of several joined by ``;``.

    ``nothing_given`` is asked when the store has lost its memory: is it certain that
    no permit is in anybody's hands and none was used within the longest period? True
    spares a new installation the wait. Otherwise ``recall`` tells what was; without it
    each limit waits for its own period. Both may raise ``LimiterAway``. Raises
    ``ValueError`` for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        nothing_given: Callable[[], Awaitable[bool]] | None = None,
        recall: Recall | None = None,
        prefix: str = PREFIX,
    ) -> None:
        self._servers = [_Server(client, prefix) for client in clients(url)]
        self._nothing_given = nothing_given
        self._recall = recall
        self._at = 0

    async def reserve(self, asks: Sequence[Ask], horizon: float) -> list[Grant | Refusal]:
        verdicts, clock, start, cut = await self._asked(asks, int(horizon * 1e6))
        return answers(asks, verdicts, clock, start, cut)

    async def peek(self, keys: Sequence[tuple[str, Rate]]) -> dict[str, float]:
        verdicts, _, start, _ = await self._asked([Ask((key,)) for key in keys], -1)
        return waits(keys, verdicts, start)

    async def close(self) -> None:
        for server in self._servers:
            await server.client.aclose()
            manager = getattr(server.client.connection_pool, "sentinel_manager", None)
            for sentinel in manager.sentinels if manager else ():
                await sentinel.aclose()
        # redis-py drops faulty connections without waiting: let the loop close them.
        await asyncio.sleep(0)

    async def _asked(
        self, asks: Sequence[Ask], horizon: int
    ) -> tuple[list[Verdict], StoreClock, int, int]:
        """Verdicts on the asks that have limits, by whose clock, from when on, how far."""
        limited = [ask for ask in asks if ask.keys]
        if not limited:
            return [], StoreClock(), 0, horizon
        faults: list[str] = []
        for _ in self._servers:
            server = self._servers[self._at]
            lead, cut = reach(int(server.clock.lead * 1e6), horizon)
            try:
                now, verdicts = await self._admitted(server, limited, lead, cut)
            except (ServerUnreachable, ServerSilent, ReadOnlyError, OSError) as error:
                faults.append(f"{type(error).__name__}: {error}")
                server.clock = StoreClock()
                # Where one connection is dead the idle ones are as well, each to be met by
                # itself.
                with suppress(RedisError, OSError):
                    await server.client.connection_pool.disconnect(inuse_connections=False)
                self._at = (self._at + 1) % len(self._servers)
            except RedisError as error:
                raise LimiterAway(f"{type(error).__name__}: {error}") from error
            else:
                return verdicts, server.clock, now + lead, cut
        raise LimiterAway("; ".join(faults))

    async def _admitted(
        self, server: _Server, asks: Sequence[Ask], lead: int, horizon: int
    ) -> tuple[int, list[Verdict]]:
        await server.set_clock()
        for _ in range(3):
            try:
                return await server.admit(asks, lead, horizon)
            except _Forgotten as forgotten:
                loss = await server.lost(script_missing=forgotten.script_too)
                until = await self._rebuild(server, loss)
                if until is not None:
                    moment = until + max(0, horizon)
                    refused = [Verdict(moment, ask.keys[0][0]) for ask in asks]
                    return loss.now, refused
                if forgotten.script_too:
                    await server.load()
        raise LimiterAway("the store forgets its epoch as soon as it is set")

    async def _rebuild(self, server: _Server, loss: _Loss) -> int | None:
        """Give the store its memory back; or until when to wait, on its clock."""
        if loss.since is None:
            return None
        if self._nothing_given is not None and await self._nothing_given():
            await server.remember(loss, [], fresh=True)
        elif self._recall is None:
            await server.remember(loss, [], fresh=False)
        elif loss.now < loss.since + _OVER:
            return loss.since + _OVER
        elif not loss.mine:
            return loss.now + _AGAIN
        else:
            try:
                known = await self._recall()
            except BaseException:
                await server.leave()
                raise
            await server.remember(loss, known, fresh=False)
        return None


class _Loss(NamedTuple):
    """What is known of a store without memory; ``since`` is None when it has one again.

    ``run`` names the server's life. ``mine``: the asker is the one that is to rebuild it.
    """

    run: str
    now: int
    since: int | None = None
    mine: bool = False


class _Forgotten(Exception):
    """The store does not know what it gave; ``script_too`` when it has not our script either."""

    def __init__(self, *, script_too: bool) -> None:
        super().__init__("the store has lost its memory")
        self.script_too = script_too


class _Server:
    def __init__(self, client: Redis, prefix: str) -> None:
        self.client, self.clock, self._prefix = client, StoreClock(), prefix
        self._own = [f"{prefix}{name}" for name in ("epoch", "run", "lost", "rebuilds")]
        self._who = secrets.token_hex(8)
        # The script's hash tells whether *this* database's epoch was looked after.
        database = client.connection_pool.connection_kwargs.get("db", 0)
        self._script = f"{_ADMIT}\n-- {prefix} {database}\n"
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    async def set_clock(self) -> None:
        """The first looks at the server's clock, on a connection that stands."""
        for _ in range(LOOKS):
            if self.clock.sure:
                return
            before = time.monotonic()
            seconds, micros = await self.client.time()
            self.clock.learn(seconds * 1_000_000 + micros, before, time.monotonic())

    async def admit(
        self, asks: Sequence[Ask], lead: int, horizon: int
    ) -> tuple[int, list[Verdict]]:
        """The server's clock and the moments. Raises ``_Forgotten``."""
        names, arguments = spelled(asks, lead, horizon)
        keys = [f"{self._prefix}epoch", *(f"{self._prefix}key:{name}" for name in names)]
        before = time.monotonic()
        try:
            reply: list[int] = await self.client.evalsha(self._sha, len(keys), *keys, *arguments)
        except NoScriptError:
            raise _Forgotten(script_too=True) from None
        after = time.monotonic()
        if reply[0] < 0:
            raise _Forgotten(script_too=False)
        self.clock.learn(reply[0], before, after)
        self.clock.arrived(reply[0], after)
        return reply[0], understood(reply, names)

    async def lost(self, *, script_missing: bool) -> _Loss:
        """Say that its memory is missing, and hear since when and who rebuilds it."""
        run = str((await self.client.info("server")).get("run_id", ""))
        if not run:
            raise LimiterAway("the store does not tell its run_id")
        reply = await self.client.eval(
            _LOST,
            len(self._own),
            *self._own,
            run,
            "1" if script_missing else "0",
            self._who,
            _OVER,
            _TURN,
        )
        if reply[0]:
            return _Loss(run, reply[1])
        return _Loss(run, reply[1], int(reply[2]), bool(reply[3]))

    async def remember(
        self, loss: _Loss, known: Sequence[tuple[str, Rate, Sequence[Use]]], *, fresh: bool
    ) -> None:
        """Set the epoch, and what is known of each limit with it."""
        states = []
        for _, rate, uses in known:
            state = remembered(rate, uses)
            states.append([pace(rate).window, state.tat, *state.behind])
        keys = [*self._own, *(f"{self._prefix}key:{name}" for name, _, _ in known)]
        since = "" if loss.since is None else str(loss.since)
        arguments = (loss.run, since, "1" if fresh else "0", int(MAX_HORIZON * 1e6))
        await self.client.eval(_REMEMBER, len(keys), *keys, *arguments, json.dumps(states))

    async def leave(self) -> None:
        """Let another rebuild it: we could not."""
        await self.client.delete(self._own[3])

    async def load(self) -> None:
        """Only after the epoch is set, for then others admit."""
        await self.client.script_load(self._script)


def spelled(
    asks: Sequence[Ask], lead: int, horizon: int, clock: int = 0
) -> tuple[list[str], list[int | str]]:
    """The limits' names in the order of the script's keys, and the script's arguments.

    Equal asks are told as one set of limits. ``clock`` is for tests of the script.
    """
    numbers: dict[tuple[str, Rate], int] = {}
    sets: dict[tuple[tuple[str, Rate], ...], int] = {}
    for ask in asks:
        if ask.keys not in sets:
            sets[ask.keys] = len(sets) + 1
            for key in ask.keys:
                numbers.setdefault(key, len(numbers) + 1)
    return [name for name, _ in numbers], [
        lead,
        horizon,
        json.dumps([pace(rate) for _, rate in numbers]),
        json.dumps([[numbers[key] for key in keys] for keys in sets]),
        json.dumps([sets[ask.keys] for ask in asks]),
        int(MAX_HORIZON * 1e6),
        MAX_AHEAD,
        clock,
    ]


def understood(reply: Sequence[int], names: Sequence[str]) -> list[Verdict]:
    """The verdicts in the script's reply: pairs after the server's clock."""
    pairs = zip(reply[1::2], reply[2::2], strict=True)
    return [Verdict(moment, names[by - 1] if by else None) for moment, by in pairs]


def clients(url: str) -> list[Redis]:
    """Those of ``redis_clients.clients``, which connect when first used."""
    # A connection that the server has closed meanwhile is worth one more try. A reply
    # that does not come is not: the permits may have been given already.
    options: dict[str, Any] = {
        "socket_timeout": _PATIENCE,
        "socket_connect_timeout": _PATIENCE,
        "retry": Retry(NoBackoff(), 1, supported_errors=(ServerUnreachable,)),
    }
    return redis_clients.clients(url, redis.asyncio, options)
