"""``mailgate status``: how things stand, at a glance.

Owns what is asked, of whom, and how often while it is watched. How it looks is
``dashboard``'s.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import JsonOption
from mailgate.cli.setting import guarded, setting, show_json

if TYPE_CHECKING:
    from mailgate.config.shape import Config
    from mailgate.journal.database import Connection, Database
    from mailgate.operations.standing import Standing

#: How often the broker is asked while it is watched (seconds).
_BROKER = 3.0
#: The queues of Celery, as ``worker.settings`` names them, without loading Celery.
_CELERY = ("mailgate.high", "mailgate.normal", "mailgate.bulk", "mailgate.chores")


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again each second.")] = False,
    as_json: JsonOption = False,
) -> None:
    """How things stand: the last minute, lanes, queues, relays, processes, what is held up.

    Exit 1 when no worker lives while something is due.
    """
    from mailgate.cli.dashboard import show, watched
    from mailgate.journal.database import JournalAway

    config = setting.config()
    database = setting.database()
    if not watch:
        found = guarded(lambda: _look(database, config)) | {"queues": _queues(config)}
        if as_json:
            show_json(found)
        else:
            show(found)
        stuck = any(lane["due"] for lane in found["lanes"].values()) and not found["workers"]
        raise typer.Exit(1 if stuck else 0)
    broker = _Broker(config)
    with watched() as update:
        while True:
            try:
                update(_look(database, config) | {"queues": broker.last})
            except JournalAway as error:
                # Who watches wants to see it come back.
                update(f"the journal cannot be reached: {error}")
            time.sleep(1)


def _look(database: Database, config: Config) -> dict[str, Any]:
    from mailgate.cli.rereading import living
    from mailgate.config.review import sandbox_sentence
    from mailgate.journal.schedules import last_beat
    from mailgate.journal.standing import overview
    from mailgate.operations.standing import relays, standing

    found = database.read_now(lambda c: overview(c, database.now()))
    lease = config.worker.lease
    found["workers"] = [w for w in found["workers"] if w["beat_s"] < lease]
    held = standing(database, config)
    found |= _held_up(held)
    found["relays"] = [
        {k: one[k] for k in ("name", "host", "state", "until", "reason", "effective_rate")}
        for one in relays(held, config)
    ]
    now = database.now()
    found["processes"] = [
        {
            "kind": one.kind,
            "host": one.host,
            "pid": one.pid,
            "up_s": max(0, now - one.started_at) / 1000,
            "seen_s": max(0, now - one.seen_at) / 1000,
            "config": one.config,
            "config_at": one.config_at,
            "restart": list(one.answer.get("restart", ())),
            "faults": list(one.answer.get("faults", ())),
        }
        for one in living(database, config)
    ]
    if config.schedules:
        seen = database.read_now(last_beat)
        found["beat_s"] = None if seen is None else max(0, now - seen) / 1000
    if config.events.enabled:
        found["events"] = database.read_now(lambda c: _events(c, database))
    if config.sandbox.mode != "off":
        found["sandbox"] = f"{config.sandbox.mode}: {sandbox_sentence(config.sandbox)}"
    return found


def _queues(config: Config) -> list[dict[str, Any]]:
    """The broker's queues: what intake has not taken, and Celery's."""
    from mailgate.intake.depth import inboxes, lists

    url = config.intake.url or config.broker.url or ""
    found = inboxes(url, [config.intake.queue, *config.queues])
    found += lists(config.broker.url or "", _CELERY)
    return [{"queue": d.queue, "waiting": d.waiting, "fault": d.fault} for d in found]


class _Broker:
    """Asks the broker beside the watching: one that is away delays nothing."""

    def __init__(self, config: Config) -> None:
        self.last: list[dict[str, Any]] = []
        self._config = config
        threading.Thread(target=self._ask, name="broker", daemon=True).start()

    def _ask(self) -> None:
        while True:
            self.last = _queues(self._config)
            time.sleep(_BROKER)


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
            {
                "kind": p.what.value,
                "name": p.name,
                "who": p.who,
                "reason": p.reason,
                "since_s": max(0, found.now - p.since) / 1000,
            }
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
