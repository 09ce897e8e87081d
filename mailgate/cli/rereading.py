"""What each long-running process needs to read its configuration again, and ``mailgate reload``.

Owns the signal (SIGHUP), the loop or thread that looks for requests, and the command that
asks all processes of the cluster at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import JsonOption, whoami
from mailgate.cli.setting import clean, complain, guarded, passwords, setting, show_json

if TYPE_CHECKING:
    from mailgate.config.reloading import Renewal
    from mailgate.config.shape import Config
    from mailgate.journal.database import Database
    from mailgate.journal.processes import Process, Request

_log = logging.getLogger("mailgate.reload")

#: How often a process looks whether it is asked (seconds).
LOOK = 1.0


class Hangups:
    """Counts the signals that ask to read the configuration again."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        """From now on SIGHUP ends nothing, unless it is that of a terminal which is closed.

        Only in the main thread.
        """
        if not os.isatty(0):
            signal.signal(signal.SIGHUP, self._heard)

    def _heard(self, _number: int, _frame: Any) -> None:
        self.count += 1


async def keep_current(
    config: Config, database: Database, kind: str, adopt: Callable[[Renewal], None]
) -> None:
    """Read the configuration again whenever that is asked for, until cancelled."""
    from mailgate.journal.database import JournalAway
    from mailgate.model.ids import Ids
    from mailgate.operations.reloading import Reloader, Source

    hangups = Hangups()
    hangups.install()
    import asyncio

    source = Source(setting.reread, lambda: hangups.count)
    reloader = Reloader(database, kind, config, source, adopt)
    begun = False
    try:
        while True:
            with contextlib.suppress(JournalAway):
                if begun:
                    await reloader.look()
                else:
                    await reloader.begin(Ids(random.random).take(database.now()))
                    begun = True
            await asyncio.sleep(LOOK)
    finally:
        with contextlib.suppress(JournalAway):
            await asyncio.to_thread(reloader.end_now)


@contextlib.contextmanager
def kept_current(
    config: Config,
    kind: str,
    adopt: Callable[[Renewal], None],
    also: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """The same in a thread, for a process whose loop is not ours; ``also`` is called with it."""
    from mailgate.journal.database import Database, JournalAway
    from mailgate.model.ids import Ids
    from mailgate.operations.reloading import Reloader, Source

    hangups, ending = Hangups(), threading.Event()
    hangups.install()
    database = Database(config.journal.url or "", hot=False)
    source = Source(setting.reread, lambda: hangups.count)
    reloader = Reloader(database, kind, config, source, adopt)

    def run() -> None:
        begun = False
        while not ending.wait(LOOK if begun else 0.0):
            try:
                if begun:
                    reloader.look_now()
                else:
                    reloader.begin_now(Ids(random.random).take(database.now()))
                    begun = True
                also()
            except JournalAway:
                also()
                ending.wait(LOOK)
            except Exception as error:  # noqa: BLE001 - the process goes on without
                _log.error("the look at the journal failed", exc_info=error)
                ending.wait(LOOK)
        with contextlib.suppress(JournalAway):
            reloader.end_now()
        database.close()

    thread = threading.Thread(target=run, name="configuration", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(3.0)


def reload(
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit.")] = "",
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for every answer.")
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Have every process of the cluster read its configuration again, without a restart.

    Each takes what it can: streams, producers, limits, throttles, breakers, suppressions,
    retention, rules, relays' rates and new relays. What needs a restart is named. A process
    whose configuration is broken keeps the one it has, and says why. Exit 1 unless all have
    taken it.
    """
    from mailgate.journal import processes
    from mailgate.journal.surgery import Act

    # This machine's own faults are said before anybody is asked.
    config = setting.config()
    passwords(config)
    database = setting.database()
    act = Act(whoami(), "reload", reason)
    asked = guarded(lambda: database.run_now(lambda c: processes.request(c, act, database.now())))
    found = _answers(database, config, asked, wait)
    items = [_item(one, asked) for one in found]
    if as_json:
        show_json({"items": items})
    else:
        for item in items:
            for line in _lines(item):
                print(clean(line))
        if not items:
            complain("no process lives to read it")
    done = items and all(item["result"] in ("taken", "unchanged") for item in items)
    raise typer.Exit(0 if done else 1)


def living(database: Database, config: Config) -> list[Process]:
    """The processes that live now; raises ``JournalAway``."""
    from mailgate.journal import processes
    from mailgate.operations.reloading import GONE

    now = database.now()
    since = now - int(GONE * 1000)
    worker_since = now - int(config.worker.lease * 1000)
    return database.read_now(lambda c: processes.living(c, since, worker_since))


def _answers(database: Database, config: Config, asked: Request, wait: float) -> list[Process]:
    """All that live, once each has answered or patience ends."""
    until = time.monotonic() + wait
    while True:
        found: list[Process] = guarded(lambda: living(database, config))
        if all(one.answer.get("number") == asked.number for one in found):
            return found
        if time.monotonic() >= until:
            return found
        time.sleep(0.2)


def _item(one: Process, asked: Request) -> dict[str, Any]:
    answered = one.answer.get("number") == asked.number
    return {
        "kind": one.kind,
        "host": one.host,
        "pid": one.pid,
        "config": one.config,
        "result": one.answer["result"] if answered else "no answer",
        "taken": list(one.answer.get("taken", ())) if answered else [],
        "restart": list(one.answer.get("restart", ())) if answered else [],
        "faults": list(one.answer.get("faults", ())) if answered else [],
    }


def _lines(item: dict[str, Any]) -> list[str]:
    head = f"{item['kind']} {item['host']} {item['pid']}: {item['result']}, runs {item['config']}"
    out = [head]
    out += [f"  changed: {', '.join(item['taken'])}"] if item["taken"] else []
    out += [f"  needs a restart: {', '.join(item['restart'])}"] if item["restart"] else []
    return out + [f"  {fault}" for fault in item["faults"]]
