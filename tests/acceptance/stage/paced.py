"""Four limits that bind in turns, and their judgement by the relays' own clocks.

Owns the load, what each limit may hold in any window, and what could have gone at each
moment. Shared by the acceptance test and ``bench.limits``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.acceptance.stage.load import Document, mails
from tests.acceptance.stage.relay import Copy, Relay, busiest

GLOBAL, RELAY, DOMAIN, PRODUCER = 100, 60, 30, 20
LIMITED = "limited.example"


def settings(second: Relay) -> dict[str, str]:
    """``sink`` is limited and the only way of ``transactional``; ``bulk`` goes by another."""
    return {
        "relays.sink.rate": f"{RELAY}/s",
        "relays.second.host": "127.0.0.1",
        "relays.second.port": str(second.port),
        "relays.second.security": "none",
        "streams.transactional.relays": '["sink"]',
        "streams.bulk.relays": '["second"]',
        "streams.bulk.lane": "normal",
        "limits.global": f"{GLOBAL}/s",
        "limits.producer.news": f"{PRODUCER}/s",
        "limits.domain": f'{{"{LIMITED}" = "{DOMAIN}/s"}}',
    }


def load(scale: float) -> list[Document]:
    """In full size some 70 seconds of work, in which all four limits bind."""
    sink, second = {"stream": "transactional"}, {"stream": "bulk"}
    return [
        *mails(int(2000 * scale), to="limited", domain=LIMITED, producer="shop", **sink),
        *mails(int(1200 * scale), to="shop", producer="shop", **sink),
        *mails(int(1000 * scale), to="news", producer="news", **second),
        *mails(int(600 * scale), to="web", producer="web", **second),
    ]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and the times (ns) of the MAIL commands that fell under it."""

    name: str
    most: int
    times: Sequence[int]

    @property
    def fullest(self) -> int:
        """The most in any half-open second, wherever it begins."""
        return busiest(self.times, 1.0)

    @property
    def closest(self) -> float:
        """The shortest time (seconds) in which one more came than a second may hold."""
        pairs = zip(self.times, self.times[self.most :], strict=False)
        return min(((b - a) / 1e9 for a, b in pairs), default=float("inf"))


def limits(sink: Sequence[Copy], second: Sequence[Copy]) -> list[Limit]:
    every = [*sink, *second]

    def of(name: str, copies: Sequence[Copy]) -> list[int]:
        return sorted(c.mail_at for c in copies if not name or c.recipient.startswith(f"{name}+"))

    return [
        Limit("global", GLOBAL, of("", every)),
        Limit("relay", RELAY, of("", sink)),
        Limit("domain", DOMAIN, of("limited", sink)),
        Limit("producer", PRODUCER, of("news", second)),
    ]


def used(sink: Sequence[Copy], second: Sequence[Copy]) -> float:
    """What went of what could have gone, by the tightest limits of each moment.

    From two seconds after the first mail on, until only the last second's work is left.
    """
    every = [*sink, *second]
    ends = {
        name: max(c.mail_at for c in every if c.recipient.startswith(f"{name}+"))
        for name in ("limited", "shop", "news", "web")
    }
    begin = min(c.mail_at for c in every) + 2 * 10**9
    end = max(ends.values()) - 10**9
    # Between the ends of the kinds of work the rate that can be had is constant.
    marks = sorted({begin, end, *(at for at in ends.values() if begin < at < end)})
    could = 0.0
    for a, b in pairwise(marks):
        left = {name for name, at in ends.items() if at >= b}
        rate = min(RELAY, DOMAIN * ("limited" in left) + RELAY * ("shop" in left))
        rate += PRODUCER * ("news" in left) + GLOBAL * ("web" in left)
        could += min(GLOBAL, rate) * (b - a) / 1e9
    return sum(begin <= c.mail_at < end for c in every) / could
