"""Which limits a message falls under: from the configuration to keys and rates.

Owns the limits' names (``global``, ``producer:billing``, ``relay:main``,
``domain:example.com``, ``relay:main domain:example.com``, ``sender:…``) and what each
charges. Pure; never asks a store.

**What is charged.** Every attempt charges ``global``, its relay, its destination and
its sender, for that is what relays and providers count. A producer is charged by the
first attempt of each recipient only: what a sick relay makes it try again, or an
operator sends again, is not the producer's doing. A conversation that ended before
anything was said is no attempt, so its recipient is charged again: its permit was for a
moment that has passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from mailgate.config.shape import Config
from mailgate.config.terms import Rate
from mailgate.limits.rules import Ask


class Cap(NamedTuple):
    """At most ``most`` conversations at once, over all workers."""

    key: str
    most: int


class Policy:
    """The limits of one configuration. One a process: it remembers the asks that it made."""

    def __init__(self, config: Config) -> None:
        limits = config.limits
        self._global = (("global", limits.total),) if limits.total is not None else ()
        self._producers = dict(limits.producer)
        self._senders = dict(limits.sender)
        self._relays = {n: r.rate for n, r in config.relays.items() if r.rate is not None}
        #: By (relay, domain); the relay is "" for a destination whatever the relay.
        domains = {("", d): limit for d, limit in limits.domain.items()}
        for name, relay in config.relays.items():
            domains |= {(name, d): limit for d, limit in relay.domains.items()}
        self._domains = {at: limit.rate for at, limit in domains.items() if limit.rate}
        self._caps = {
            at: Cap(_key(relay=at[0], domain=at[1]), limit.max_connections)
            for at, limit in domains.items()
            if limit.max_connections is not None
        }
        self._own_domains = frozenset(d for _, d in domains)
        #: Whether any destination or sender has a limit of its own.
        self.separates = bool(self._own_domains or self._senders)
        self._rates = dict(self.rates())
        self.ask = lru_cache(maxsize=8192)(self._ask)

    def destination(self, domain: str) -> str:
        """The domain, when it has a limit of its own; else ''."""
        return domain if domain in self._own_domains else ""

    def identity(self, sender: str) -> str:
        """What is limited of a From address: itself, else its domain, else nothing ('')."""
        if not self._senders:
            return ""
        folded = sender.casefold()
        if folded in self._senders:
            return folded
        domain = folded.rpartition("@")[2]
        return domain if domain in self._senders else ""

    @staticmethod
    def separating(key: str) -> Literal["domain", "sender"] | None:
        """What those who wait for a limit have in common, where it is less than a bucket."""
        if key.startswith("sender:"):
            return "sender"
        return "domain" if key.startswith("domain:") or " domain:" in key else None

    def _ask(self, relay: str, domain: str, producer: str, sender: str, first: bool) -> Ask:
        """What an attempt is admitted by; ``first`` of its recipient's.

        ``domain`` and ``sender`` as ``destination`` and ``identity`` give them.
        """
        keys = list(self._global)
        if relay in self._relays:
            keys.append((_key(relay=relay), self._relays[relay]))
        for at in ("", relay):
            if (at, domain) in self._domains:
                keys.append((_key(relay=at, domain=domain), self._domains[at, domain]))
        for who in dict.fromkeys((sender, sender.rpartition("@")[2])):
            if who in self._senders:
                keys.append((f"sender:{who}", self._senders[who]))
        if first and producer in self._producers:
            keys.append((f"producer:{producer}", self._producers[producer]))
        return Ask(tuple(keys))

    def renewed(self, ask: Ask) -> Ask:
        """What was asked by an earlier configuration, at the rates of this one.

        A limit that is gone is asked no more; one that is new asks the next attempt.
        """
        now = self._rates
        keys = [(key, now.get(key, rate)) for key, rate in ask.keys if self._stands(key)]
        return Ask(tuple(keys))

    def _stands(self, key: str) -> bool:
        # What throttling replies have brought is in no configuration.
        return key in self._rates or key.startswith("slow:")

    def caps(self, relay: str, domain: str) -> tuple[Cap, ...]:
        """Where a conversation must have a place beside those that are under way.

        ``domain`` as ``destination`` gives it. Connections to a relay are another matter:
        its pool counts them.
        """
        if not self._caps:
            return ()
        return tuple(self._caps[at, domain] for at in ("", relay) if (at, domain) in self._caps)

    def all_caps(self) -> Iterator[Cap]:
        """Every cap on conversations."""
        yield from self._caps.values()

    def rates(self) -> Iterator[tuple[str, Rate]]:
        """Every limit of the configuration, in the manual's order."""
        yield from self._global
        for producer, rate in self._producers.items():
            yield f"producer:{producer}", rate
        for relay, rate in self._relays.items():
            yield _key(relay=relay), rate
        for (at, domain), rate in self._domains.items():
            yield _key(relay=at, domain=domain), rate
        for sender, rate in self._senders.items():
            yield f"sender:{sender}", rate


def _key(*, relay: str = "", domain: str = "") -> str:
    parts = (("relay", relay), ("domain", domain))
    return " ".join(f"{kind}:{name}" for kind, name in parts if name)
