"""The gate: what may not go now because it is paused, or because its breaker is open.

Owns the choice of the relay, whether a conversation is a probe, and what has to be put
aside because it stands before others. Works on a view of the records that is renewed
once a second. Never writes; the probe itself is claimed at the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mailgate.config.shape import Config
from mailgate.config.terms import Rate
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.asides import By, meant
from mailgate.journal.breakers import Change, Health
from mailgate.journal.queue import Head
from mailgate.limits.breaker import Kind, Subject, rate
from mailgate.model.value import Value


class Way(Value, frozen=True):
    """How a head may go: by which relay, and as the probe of what. No relay: not now.

    ``aside`` is set for a head that has to be put aside, with those like it.
    """

    relay: str = ""
    probes: tuple[Subject, ...] = ()
    aside: tuple[By, str] | None = None


class Gate:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._health: Mapping[Subject, Health] = {}
        self._paused: frozenset[tuple[str, str]] = frozenset()
        # Names of domains, senders, streams and templates, and of relays, with anything to
        # be thought about: all others go by the first relay.
        self._names: frozenset[str] = frozenset()
        self._touched: frozenset[str] = frozenset()

    def adopt(self, config: Config) -> None:
        """Go by another configuration."""
        self._config = config

    def see(self, health: Mapping[Subject, Health], paused: frozenset[tuple[str, str]]) -> None:
        """The view as it was just read."""
        self._health, self._paused = health, paused
        self._sort()

    def learn(self, changes: Iterable[Change]) -> None:
        """What a turn of this process changed: it need not wait for the next view."""
        new = {change.subject: Health(change.after) for change in changes}
        if new:
            self._health = {**self._health, **new}
            self._sort()

    def _sort(self) -> None:
        relays = {who.relay for who in self._health if who.kind is Kind.RELAY}
        self._touched = frozenset(relays | {name for kind, name in self._paused if kind == "relay"})
        names = {who.name for who in self._health if who.kind is not Kind.RELAY}
        self._names = frozenset(names | {name for kind, name in self._paused if kind != "relay"})

    def tracked(self, who: Subject) -> bool:
        """Whether a success of it has to be told: there are failures to be forgotten."""
        health = self._health.get(who)
        return health is not None and (health.record.open or health.record.failures > 0)

    @property
    def quiet(self) -> bool:
        """Nothing is paused, nothing fails and nothing is slowed."""
        return not (self._health or self._paused)

    # --- whole buckets -------------------------------------------------------------

    def shut(self, key: BucketKey, now: int) -> bool:
        """Whether nothing in a bucket can go now: it is not even looked into."""
        if self.quiet:
            return False
        common = meant(key.domain)
        if self._stopped(("all", ""), ("lane", key.lane.value), ("producer", key.producer)):
            return True
        if self._stopped(*((by.value, name) for by, name in common)):
            return True
        relays = [name for name in key.route if name in self._config.relays]
        return bool(relays) and all(self._closed(relay, common, now) for relay in relays)

    def _closed(self, relay: str, common: Iterable[tuple[By, str]], now: int) -> bool:
        if self._stopped(("relay", relay)):
            return True
        whose = [Subject(Kind.RELAY, relay)]
        kinds = {By.DOMAIN: Kind.DOMAIN, By.SENDER: Kind.SENDER}
        whose += [Subject(kinds[by], relay, name) for by, name in common if by in kinds]
        return any(self._blocked(who, now, frozenset()) for who in whose)

    # --- one head --------------------------------------------------------------------

    def ways(self, heads: Sequence[Head], now: int) -> dict[int, Way]:
        """How each head may go; of those that would be the same probe only the first."""
        given: set[Subject] = set()
        ways: dict[int, Way] = {}
        plain: dict[tuple[int, str], Way | None] = {}
        names = self._names
        if names or self._touched:
            # A probe is for mail that never failed: what fails wherever it goes would keep
            # a relay shut that is well by now.
            heads = sorted(heads, key=lambda h: (h.suspect, h.tried or h.retry))
        for head in heads:
            kind = (head.bucket.id, head.stream)
            if kind not in plain:
                plain[kind] = self._plain(head)
            way = plain[kind]
            if way is None or not names.isdisjoint((head.domain, head.sender, head.template)):
                way = self._way(head, now, given)
                given.update(way.probes)
            ways[head.id] = way
        return ways

    def _plain(self, head: Head) -> Way | None:
        """The way of all in its bucket and stream that have no trouble of their own."""
        relays = self._relays(head)
        if head.stream in self._names or not self._touched.isdisjoint(relays):
            return None
        return Way(relays[0] if relays else "")

    def _way(self, head: Head, now: int, given: set[Subject]) -> Way:
        in_common = [(By.DOMAIN, head.domain), (By.STREAM, head.stream)]
        if head.template:
            in_common.append((By.TEMPLATE, head.template))
        for by, name in in_common:
            if self._stopped((by.value, name)):
                return _aside(head, by, name)
        blame: tuple[By, str] | None = None
        for relay in self._relays(head):
            if self._stopped(("relay", relay)):
                continue
            there = Subject(Kind.DOMAIN, relay, head.domain)
            who = Subject(Kind.SENDER, relay, head.sender)
            asked = (Subject(Kind.RELAY, relay), there, who)
            bars = [s for s in asked if self._blocked(s, now, given)]
            if bars:
                if blame is None and bars[0] == there:
                    blame = (By.DOMAIN, head.domain)
                elif blame is None and bars[0] == who:
                    blame = (By.SENDER, head.sender)
                continue
            if self._slow(there, now) is not None and not _apart(head, By.DOMAIN, head.domain):
                # Its limit would close a bucket that others wait in.
                return _aside(head, By.DOMAIN, head.domain)
            probes = tuple(s for s in asked if s in self._health and self._health[s].record.open)
            return Way(relay, probes)
        return Way() if blame is None else _aside(head, *blame)

    def _relays(self, head: Head) -> Sequence[str]:
        """The relays of the bucket's route that the configuration still knows."""
        known = [name for name in head.bucket.key.route if name in self._config.relays]
        if not known and head.stream in self._config.streams:
            return self._config.route(head.stream)
        return known

    def _stopped(self, *what: tuple[str, str]) -> bool:
        return any(one in self._paused for one in what)

    def _blocked(self, who: Subject, now: int, given: set[Subject] | frozenset[Subject]) -> bool:
        health = self._health.get(who)
        if health is None or not health.record.open:
            return False
        return now < health.record.until or health.probing or who in given

    # --- slowed ----------------------------------------------------------------------

    def limits(self, relay: str, domain: str, now: int) -> list[tuple[str, Rate]]:
        """Limits that throttling replies have brought: of the relay, of the destination."""
        found = []
        if not self.quiet:
            for who in (Subject(Kind.RELAY, relay), Subject(Kind.DOMAIN, relay, domain)):
                slow = self._slow(who, now)
                if slow is not None:
                    found.append((f"slow:{who.key}", slow))
        return found

    def _slow(self, who: Subject, now: int) -> Rate | None:
        health = self._health.get(who)
        return rate(health.record, self._config.breakers, now) if health else None


def _apart(head: Head, by: By, name: str) -> bool:
    """Whether it waits with none but those like it."""
    return (by, name) in meant(head.bucket.key.domain)


def _aside(head: Head, by: By, name: str) -> Way:
    return Way() if _apart(head, by, name) else Way(aside=(by, name))
