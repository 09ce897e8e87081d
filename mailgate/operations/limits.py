"""How the limits stand: what was used, when each next admits, who waits under it.

Owns which counts belong to which limit. Never gives a permit.
"""

from __future__ import annotations

from typing import Any

from mailgate.config.shape import Config
from mailgate.journal import usage
from mailgate.journal.database import Connection, Database
from mailgate.journal.usage import Counted
from mailgate.limits.policy import Policy
from mailgate.limits.rules import Limiter, LimiterAway

_Looked = tuple[dict[float, list[Counted]], list[Counted], tuple[dict[str, int], dict[str, int]]]


async def limits(config: Config, database: Database, limiter: Limiter) -> list[dict[str, Any]]:
    """One item for each limit of the configuration; raises ``JournalAway``.

    ``used`` counts attempts of the last period in the journal (for a producer,
    recipients); ``next_in`` is seconds until the limit by itself admits, None when its
    store is away; ``waiting`` counts who is due and falls under it. Of what is limited to
    so many at once, ``used`` is what is open now.
    """
    policy = Policy(config)
    rates = list(policy.rates())
    periods = sorted({rate.period for _, rate in rates})
    now = database.now()

    def look(connection: Connection) -> _Looked:
        sent = {p: usage.sent_since(connection, now - int(p * 1000)) for p in periods}
        return sent, usage.waiting(connection, now), usage.under_way(connection)

    sent, waiting, (places, seats) = await database.read(look)
    try:
        waits = await limiter.peek(rates) if rates else {}
    except LimiterAway:
        waits = {}
    paced = [
        {
            "name": key,
            "rate": str(rate),
            "used": sum(
                c.first if key.startswith("producer:") else c.count
                for c in sent[rate.period]
                if under(key, c)
            ),
            "next_in": round(waits[key], 3) if key in waits else None,
            "waiting": sum(c.count for c in waiting if under(key, c)),
        }
        for key, rate in rates
    ]
    at_once = [
        (f"relay:{name}", "connections", relay.max_connections_total, seats.get(name, 0))
        for name, relay in config.relays.items()
        if relay.max_connections_total is not None
    ]
    at_once += [
        (cap.key, "conversations", cap.most, places.get(cap.key, 0)) for cap in policy.all_caps()
    ]
    return paced + [
        {
            "name": f"{key} {what}",
            "rate": f"{most} at once",
            "used": used,
            "next_in": None if used >= most else 0.0,
            "waiting": sum(c.count for c in waiting if under(key, c)),
        }
        for key, what, most, used in at_once
    ]


def under(key: str, counted: Counted) -> bool:
    """Whether what was counted falls under the limit of this name."""
    return all(_matches(part, counted) for part in key.split(" ") if part != "global")


def _matches(part: str, counted: Counted) -> bool:
    kind, _, name = part.partition(":")
    match kind:
        case "relay":
            return counted.relay == name
        case "domain":
            return counted.domain == name
        case "producer":
            return counted.producer == name
    sender = counted.sender.casefold()
    return name in (sender, sender.rpartition("@")[2])
