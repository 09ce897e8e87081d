"""What each limit was used for lately, as the journal knows it.

Owns the way from attempts to the limits that they charged, for a store of permits that
has lost its memory. Never writes; the store does, with ``limits.memory``.
"""

from __future__ import annotations

from collections import defaultdict

from mailgate.config.shape import Config
from mailgate.config.terms import Rate
from mailgate.journal.database import Database
from mailgate.journal.recent import Recent, Sent
from mailgate.limits.memory import Use
from mailgate.limits.policy import Policy
from mailgate.limits.rules import pace

#: What processes' views of the journal's clock may differ by, and more (ms).
CLOCKS = 50


async def recall(database: Database, config: Config) -> list[tuple[str, Rate, list[Use]]]:
    """Every limit of the configuration with its uses; raises ``JournalAway``."""
    policy = Policy(config)
    rates = dict(policy.rates())
    if not rates:
        return []
    domains = {*config.limits.domain}.union(*(r.domains for r in config.relays.values()))
    by_message = bool(domains or config.limits.producer or config.limits.sender)
    recent = Recent(database, domains, by_message=by_message)
    longest = max(pace(rate).window for rate in rates.values()) // 1000
    begun = database.now()
    since = begun - longest - CLOCKS
    # First what is open: what ends meanwhile is among the attempts, or counted twice.
    sent = await database.read(lambda c: recent.under_way(c, begun))
    below: int | None = None
    while True:
        some, below = await database.read(
            lambda c, below=below: recent.ended(c, below, since, begun)  # type: ignore[misc]
        )
        sent += some
        if below is None:
            break
    used = _by_limit(policy, sent)
    now = database.now()
    return [
        (key, rate, [Use((now - at - CLOCKS) * 1000, times) for at, times in used[key].items()])
        for key, rate in rates.items()
    ]


def _by_limit(policy: Policy, sent: list[Sent]) -> dict[str, dict[int, int]]:
    """By limit, how many uses were at which time."""
    used: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for s in sent:
        domain, sender = policy.destination(s.domain), policy.identity(s.sender)
        keys = {
            key
            for relay in s.relays
            for key, _ in policy.ask(relay, domain, s.producer, sender, s.first).keys
        }
        for key in keys:
            used[key][s.at] += s.times
    return used
