"""``mailgate status``: how things stand, at a glance."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import JsonOption
from mailgate.cli.setting import clean, guarded, setting, show_json

if TYPE_CHECKING:
    from mailgate.journal.database import Connection, Database
    from mailgate.operations.standing import Standing


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again each second.")] = False,
    as_json: JsonOption = False,
) -> None:
    """How things stand: states, lanes with the oldest due, workers, what is held up or parked.

    Exit 1 when no worker lives while something is due.
    """
    from mailgate.config.review import sandbox_sentence
    from mailgate.journal.standing import overview
    from mailgate.operations.standing import standing

    config = setting.config()
    database = setting.database()

    def look() -> dict[str, Any]:
        found: dict[str, Any] = guarded(
            lambda: database.read_now(lambda c: overview(c, database.now()))
        )
        lease = config.worker.lease
        found["workers"] = [w for w in found["workers"] if w["beat_s"] < lease]
        found |= _held_up(guarded(lambda: standing(database, config)))
        if config.schedules:
            from mailgate.journal.schedules import last_beat

            seen = guarded(lambda: database.read_now(last_beat))
            found["beat_s"] = None if seen is None else max(0, database.now() - seen) / 1000
        if config.events.enabled:
            found["events"] = guarded(lambda: database.read_now(lambda c: _events(c, database)))
        if config.sandbox.mode != "off":
            found["sandbox"] = f"{config.sandbox.mode}: {sandbox_sentence(config.sandbox)}"
        return found

    if not watch:
        found = look()
        if as_json:
            show_json(found)
        else:
            print("\n".join(_lines(found)))
        stuck = any(lane["due"] for lane in found["lanes"].values()) and not found["workers"]
        raise typer.Exit(1 if stuck else 0)
    from rich.live import Live

    try:
        with Live("", refresh_per_second=4, screen=False) as live:
            while True:
                live.update("\n".join(_lines(look())))
                time.sleep(1)
    except KeyboardInterrupt:
        return


def _lines(found: dict[str, Any]) -> list[str]:
    from mailgate.cli.tables import when

    out = [f"sandbox {clean(found['sandbox'])}"] if "sandbox" in found else []
    out.append("recipients")
    out += [f"  {state:<12}{count:>10}" for state, count in sorted(found["states"].items())]
    if not found["states"]:
        out.append("  none yet")
    out.append("waiting")
    for lane in ("high", "normal", "bulk"):
        row = found["lanes"].get(lane)
        if row:
            oldest = f", the oldest for {row['oldest_due_s']:.0f} s" if row["due"] else ""
            out.append(f"  {lane:<12}{row['waiting']:>10}   {row['due']} due{oldest}")
    if not found["lanes"]:
        out.append("  nothing")
    out.append(f"workers {len(found['workers'])}")
    out += [
        f"  {clean(w['host'])} pid {w['pid']}, seen {w['beat_s']:.1f} s ago"
        for w in found["workers"]
    ]
    for one in found["pauses"]:
        name = clean(f"{one['kind']} {one['name']}".strip())
        out.append(f"paused {name}: {clean(one['who'])}, {clean(one['reason'])}")
    for one in found["breakers"]:
        out.append(f"no mail {clean(one['where'])}: {clean(one['reason'])}")
    if number := found["digests"]["gathering"]:
        next_at = when(found["digests"]["next_due_at"])
        out.append(f"digests {number} gathering, the next goes at {next_at}")
    if "beat_s" in found and (found["beat_s"] is None or found["beat_s"] > 60):
        silent = "ever" if found["beat_s"] is None else f"for {found['beat_s']:.0f} s"
        out.append(f"no beat was seen {silent}: no schedule fires")
    out.append(f"parked {found['parked']}")
    if cleaned := found["cleaned"]:
        counts = [f"{name} {count}" for name, count in cleaned["done"].items()]
        rest = "" if cleaned["finished"] else "; it did not come to the end"
        done = ", ".join(counts) or "nothing to do"
        out.append(f"cleaned {when(cleaned['at'])}: {done}{rest}")
    events = found.get("events", {})
    if events.get("waiting"):
        oldest = f"the oldest for {events['oldest_s']:.0f} s"
        out.append(f"events {events['waiting']} not published yet, {oldest}")
    for producer in events.get("refused", ()):
        out.append(f"events of {clean(producer)} are refused by its broker")
    return out


def _events(connection: Connection, database: Database) -> dict[str, Any]:
    """What producers are not told yet."""
    from mailgate.journal.outbox import waiting

    found = waiting(connection)
    age = found.age(database.now())
    return {"waiting": found.count, "oldest_s": age, "refused": list(found.refused)}


def _held_up(found: Standing) -> dict[str, Any]:
    """What is paused, and whose breaker is open."""
    words = {"relay": "through", "domain": "to", "sender": "from"}
    return {
        "pauses": [
            {"kind": p.what.value, "name": p.name, "who": p.who, "reason": p.reason}
            for p in found.pauses
        ],
        "breakers": [
            {
                "where": (f"{words[who.kind.value]} {who.name} " if who.name else "")
                + f"through {who.relay}",
                "reason": health.record.error_class,
                "probe_in_s": max(0, health.record.until - found.now) / 1000,
            }
            for who, health in found.health.items()
            if health.record.open
        ],
    }
