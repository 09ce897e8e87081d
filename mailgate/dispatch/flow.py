"""Who gets no more places, because none of his conversations comes to an end.

Owns what is remembered of it: the relays, and the destinations behind them, that replied
within the last moments. A relay that takes connections and never says a word, or stops at
one destination, fails nobody until a timeout of minutes; until then it would come to hold
every place, and the mail of all others would wait for it. Never knows what a breaker does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from mailgate.config.shape import Config
from mailgate.dispatch.gate import Way
from mailgate.dispatch.sorting import Found
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.queue import Head
from mailgate.model.message import Claim
from mailgate.model.state import Lane

#: Who has not replied for so long, with conversations open, is stuck (seconds; up to twice).
STUCK = 2.0
#: Whose mail is so much of what a look at a bucket finds, and finds no place, is put aside as
#: soon as it has not replied for so long (seconds): the next looks would find ever less else.
CROWDS = 0.25
SLOW = 0.5
#: What a destination that is stuck has held so long (seconds) is given back: it may have waited
#: for a connection, or the relay thinks long about each recipient. RFC 5321 has five minutes.
BLAMED = 60.0
#: A conversation may wait so long (seconds) for its permit before it says a word.
PERMIT = 6.0
#: The share of a relay's connections that a destination may hold before it has replied once,
#: or when it replies no more: also one that is alone there, for mail to others may come. As many
#: again may be urgent. Postfix, too, begins with five (``initial_destination_concurrency``) and
#: goes on by replies.
UNPROVEN = 0.25
#: The share of a process's places that a relay may hold while it is stuck, or new.
MOST = 0.5


#: Conversations by relay, destination ('' for all) and whether they are urgent (of all: no).
Held = Counter[tuple[str, str, bool]]


class Open(NamedTuple):
    """A conversation under way: since when (monotonic), and whether it waits for a permit."""

    claim: Claim
    since: float
    paced: bool


class Flow:
    """Of one process. What replied, to whatever it was, moves."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._now: set[tuple[str, str]] = set()
        self._last: set[tuple[str, str]] = set()
        self._since = 0.0

    def adopt(self, config: Config) -> None:
        """Go by another configuration."""
        self._config = config

    def moved(self, relay: str, domain: str, clock: float, *, aside: bool = False) -> None:
        """There was a reply to mail for ``domain``, or it was dealt with ``aside`` of the relay."""
        self._turn(clock)
        self._now.add((relay, domain))
        if not aside:
            self._now.add((relay, ""))

    def moves(self, relay: str, domain: str = "") -> bool:
        """'' for anything at that relay."""
        return (relay, domain) in self._now or (relay, domain) in self._last

    def spare(self, open_: Iterable[Open], clock: float) -> Spare:
        """What there is left of places, for one take."""
        self._turn(clock)
        held: Held = Counter()
        slow, stuck = set(), set()
        for one in open_:
            relay, domain = one.claim.relay, one.claim.address.domain
            since = clock - one.since - PERMIT * one.paced
            for who, urgent in (((relay, domain), _urgent(one)), ((relay, ""), False)):
                held[(*who, urgent)] += 1
                if since > SLOW and not self.moves(*who):
                    slow.add(who)
                    if since > STUCK:
                        stuck.add(who)
        silent = sum(
            count for (relay, domain, _), count in held.items() if not (domain or self.moves(relay))
        )
        return Spare(self, held, frozenset(slow), frozenset(stuck), silent)

    def most(self, relay: str, domain: str = "") -> int | None:
        """Conversations that it may hold; None for any number."""
        section = self._config.relays.get(relay)
        if section is None or self.moves(relay, domain):
            return None
        places = max(1, int(self._config.worker.conversations * MOST))
        if domain:
            return min(places, math.ceil(section.max_connections * UNPROVEN))
        return None if len(self._config.relays) < 2 else min(places, section.max_connections)

    def in_vain(
        self,
        open_: Sequence[Open],
        stuck: Iterable[tuple[str, str]],
        clock: float,
        past_dot: Collection[int],
    ) -> list[Open]:
        """Those who are given back when places are needed: their final dot has not left.

        Of a relay that is stuck who waits for a connection, the last to come; urgent mail does
        not stand in that line. Of a destination that is stuck whatever it has held for long
        beyond what it may. ``past_dot`` are the recipients who wait for the reply to their dot.
        """
        found = []
        for relay, domain in stuck:
            most = self.most(relay, domain)
            if most is None:
                continue
            theirs = [o for o in open_ if o.claim.relay == relay]
            if not domain:
                line = [o for o in theirs if not _apart(o)]
                found += line[self._config.relays[relay].max_connections :]
                continue
            for urgent in (True, False):
                held = [
                    o for o in theirs if o.claim.address.domain == domain and _urgent(o) is urgent
                ]
                found += [o for o in held[most:] if clock - o.since > BLAMED]
        return [one for one in found if one.claim.recipient_id not in past_dot]

    def _turn(self, clock: float) -> None:
        if clock - self._since >= STUCK:
            old = clock - self._since >= 2 * STUCK
            self._last = set() if old else self._now
            self._now = set()
            self._since = clock


def _apart(one: Open) -> bool:
    """Whether it does not stand in a relay's line of those who wait for a connection."""
    return one.paced or _urgent(one)


def _urgent(one: Open) -> bool:
    return one.claim.lane is Lane.HIGH


class Spare:
    """Places of one take, by relay and destination.

    ``stuck`` has no reply to show for long, ``slow`` for a moment; ``silent`` is how many are
    open to relays that have none to show of late.
    """

    def __init__(
        self,
        flow: Flow,
        held: Held,
        slow: frozenset[tuple[str, str]],
        stuck: frozenset[tuple[str, str]],
        silent: int,
    ) -> None:
        self._flow, self._held, self.silent = flow, held, silent
        self._slow, self.stuck = slow, stuck

    def none(self, key: BucketKey) -> bool:
        """Whether nothing of a bucket can have a place: no relay of its route has one."""
        urgent = key.lane is Lane.HIGH
        return bool(key.route) and all(
            self._full(relay, "") or (key.domain and self._full(relay, key.domain, urgent))
            for relay in key.route
        )

    def _full(self, relay: str, domain: str, urgent: bool = False) -> bool:
        most = self._flow.most(relay, domain)
        return most is not None and self._held[relay, domain, urgent] >= most

    def placed(self, found: Found, ways: Mapping[int, Way]) -> tuple[Found, list[Head]]:
        """Those for whom there is a place, and the others that would stand before them:
        those to a destination that is stuck, or that is slow and much of what was found."""
        before: list[Head] = []
        out: set[int] = set()
        sizes = {heads[0].bucket.id: len(heads) for _, heads in found if heads}
        slow: dict[int, list[Head]] = {}
        # One of each bucket after the other: what few places there are is for all of them.
        for head in (h for rank in zip_longest(*(heads for _, heads in found)) for h in rank if h):
            relay = ways[head.id].relay
            if relay and not self._place(relay, head.domain, head.bucket.key.lane is Lane.HIGH):
                out.add(head.id)
                if self._full(relay, ""):
                    continue
                if (relay, head.domain) in self.stuck:
                    before.append(head)
                elif (relay, head.domain) in self._slow:
                    slow.setdefault(head.bucket.id, []).append(head)
        if not out:
            return found, before
        for bucket, heads in slow.items():
            if len(heads) >= CROWDS * sizes[bucket]:
                before += heads
        return [(key, [h for h in heads if h.id not in out]) for key, heads in found], before

    def _place(self, relay: str, domain: str, urgent: bool) -> bool:
        """Whether there is one: then it is taken."""
        if self._full(relay, "") or self._full(relay, domain, urgent):
            return False
        self._held[relay, domain, urgent] += 1
        self._held[relay, "", False] += 1
        return True
