"""Why a recipient waits, as things stand now: its time, a pause, a breaker, a limit.

Owns the order in which they are looked for, which is the take's. Never changes anything
and gives no permit.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mailgate.config.shape import Config
from mailgate.limits.breaker import Kind, Subject
from mailgate.limits.policy import Policy
from mailgate.limits.rules import Limiter, LimiterAway
from mailgate.model.state import WAITING, State
from mailgate.operations.standing import Standing

#: A limit that admits within this is no wait worth a word (seconds).
SOON = 0.05
#: The store of the limits is asked for so long (seconds).
_PATIENCE = 2.0


async def reasons(
    told: Mapping[str, Any], found: Standing, config: Config, limiter: Limiter
) -> dict[int, str]:
    """What each waiting recipient of a message waits for, by recipient id.

    ``told`` is the message's story, as ``journal.search`` tells it.
    """
    out = {}
    message = told["message"]
    for row in told["recipients"]:
        if State(row["state"]) not in WAITING:
            continue
        route = tuple(row["route"].split(","))
        out[row["id"]] = (
            _its_time(row, message, told["events"], found.now)
            or _paused(row, message, found)
            or _barred(row, message, route, found, config)
            or await _limited(row, message, route, config, limiter)
            or "its turn"
        )
    return out


def _its_time(
    row: Mapping[str, Any],
    message: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    now: int,
) -> str:
    if row["due_at"] <= now:
        return ""
    at = datetime.fromtimestamp(row["due_at"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if State(row["state"]) is State.DEFERRED:
        return f"the next attempt at {at}"
    mine = [e for e in events if e["recipient_id"] == row["id"] and e["detail"]]
    throttled = [d["waits_for"] for e in mine if "waits_for" in (d := json.loads(e["detail"]))]
    if throttled and row["error_class"] == "throttled":
        return f"{throttled[-1]}, until {at}"
    return f"its send_at, {at}" if row["due_at"] == message["send_at"] else f"its time, {at}"


def _paused(row: Mapping[str, Any], message: Mapping[str, Any], found: Standing) -> str:
    mine = {
        ("all", ""),
        ("lane", row["lane"]),
        ("producer", message["producer"]),
        ("stream", message["stream"]),
        ("template", message["template"] or ""),
        ("domain", _domain(row)),
    }
    for pause in found.pauses:
        if (pause.what.value, pause.name) in mine:
            return f"the pause of {pause.what.value} {pause.name}".rstrip() + _by(pause)
    return ""


def _barred(
    row: Mapping[str, Any],
    message: Mapping[str, Any],
    route: Sequence[str],
    found: Standing,
    config: Config,
) -> str:
    """Why no relay of the route may be used; '' when one may."""
    paused = {p.name: p for p in found.pauses if p.what.value == "relay"}
    bars = []
    for relay in (name for name in route if name in config.relays):
        if relay in paused:
            bars.append(f"the pause of relay {relay}" + _by(paused[relay]))
            continue
        asked = (
            Subject(Kind.RELAY, relay),
            Subject(Kind.DOMAIN, relay, _domain(row)),
            Subject(Kind.SENDER, relay, message["sender"]),
        )
        records = [(s, found.health[s].record) for s in asked if s in found.health]
        open_ = [(s, r) for s, r in records if r.open and found.now < r.until]
        if not open_:
            return ""
        who, record = open_[0]
        what = {Kind.RELAY: "", Kind.DOMAIN: f" for {_domain(row)}", Kind.SENDER: " for the sender"}
        seconds = (record.until - found.now) / 1000
        bars.append(
            f"relay {relay}{what[who.kind]}, left alone for {seconds:.0f} s"
            f" ({record.error_class or 'failures'})"
        )
    return " and ".join(bars) or "a relay: the configuration knows none of its own"


async def _limited(
    row: Mapping[str, Any],
    message: Mapping[str, Any],
    route: Sequence[str],
    config: Config,
    limiter: Limiter,
) -> str:
    relay = next((name for name in route if name in config.relays), "")
    policy = Policy(config)
    domain, sender = policy.destination(_domain(row)), policy.identity(message["sender"])
    ask = policy.ask(relay, domain, message["producer"], sender, not row["attempts"])
    if not ask.keys:
        return ""
    try:
        async with asyncio.timeout(_PATIENCE):
            waits = await limiter.peek(list(ask.keys))
    except (LimiterAway, TimeoutError):
        return "the store of the limits, which is away"
    key, wait = max(waits.items(), key=lambda one: one[1])
    return f"the limit {key}, which admits in {wait:.1f} s" if wait > SOON else ""


def _by(pause: Any) -> str:
    return f" by {pause.who}" + (f": {pause.reason}" if pause.reason else "")


def _domain(row: Mapping[str, Any]) -> str:
    return str(row["email"]).rpartition("@")[2]
