"""``mailgate intake | worker | beat | flower | inbox``: the long-running processes.

Owns their command lines and how signals stop them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli.notify import ready
from mailgate.cli.rereading import keep_current, kept_current
from mailgate.cli.setting import check_keys, complain, fail, guarded, read_file, setting

if TYPE_CHECKING:
    import asyncio

    from mailgate.config.reloading import Renewal
    from mailgate.config.shape import Config
    from mailgate.tracing.spans import Tracing

_log = logging.getLogger("mailgate")

#: What was cancelled ends within this, or is cancelled again (seconds).
_CANCELLED_IN = 5.0
#: An end that takes so long says why (seconds).
_LONG_END = 15.0


class PoolName(StrEnum):
    prefork = "prefork"
    threads = "threads"
    solo = "solo"


class LaneName(StrEnum):
    high = "high"
    normal = "normal"
    bulk = "bulk"


def intake() -> None:
    """Take plain JSON from the queue into the journal. Run as many as you like.

    Stops on SIGTERM or Ctrl-C: what is in hand is written and acknowledged first.
    """
    import asyncio
    import random

    from mailgate.cli import watching
    from mailgate.events.publisher import Publisher
    from mailgate.intake.accept import Accept
    from mailgate.intake.doors import open_doors
    from mailgate.intake.service import serve
    from mailgate.journal.arrivals import Arrivals
    from mailgate.memory import keep_lean, one_heap, small_reads, stays
    from mailgate.metrics.tally import Tally
    from mailgate.model.ids import Ids
    from mailgate.operations.mending import keep_fresh
    from mailgate.render.catalogue import built_in_root
    from mailgate.render.shelf import Shelf
    from mailgate.worker.doorbell import Doorbell

    one_heap()
    small_reads()
    setting.logs()
    config = setting.config()
    database = setting.database(hot=True)
    roots = (*config.templates.path, built_in_root())
    try:
        shelf = Shelf(roots, default_locale=config.default_locale)
    except FileNotFoundError as error:
        fail(str(error), 2)
    ids = Ids(random.random)
    url = config.intake.url or config.broker.url or ""
    tracing = _tracing(config)
    accepts: list[Accept] = []
    tally, pulse, consuming = Tally(), watching.Pulse(), threading.Event()
    publisher = Publisher(config, database, tally=tally)

    def on_ready() -> None:
        stays()
        consuming.set()
        ready()

    def accept() -> Accept:
        accepts.append(Accept(config, Arrivals(database, ids), shelf.check_data, tracing))
        return accepts[-1]

    def adopt(renewal: Renewal) -> None:
        publisher.adopt(renewal.config)
        for one in accepts:
            one.adopt(renewal.config)

    async def run(stop: asyncio.Event) -> None:
        beating = asyncio.create_task(pulse.keep())
        current = asyncio.create_task(keep_current(config, database, "intake", adopt))
        with Doorbell(config) as bell:
            fresh = asyncio.create_task(keep_fresh(shelf, lambda _names: None))
            telling = asyncio.create_task(publisher.run())
            lean = asyncio.create_task(keep_lean())
            await serve(
                open_doors(
                    url,
                    config.intake.queue,
                    own=config.queues,
                    batch=config.intake.batch,
                    most_bytes=config.intake.batch_bytes,
                ),
                accept,
                bell.ring,
                stop,
                batch=config.intake.batch,
                on_ready=on_ready,
                tally=tally,
            )
            await _ended(fresh, lean, telling)
        await _ended(beating, current)

    try:
        with watching.intake(config, tally, pulse, consuming.is_set):
            until_stopped(run)
    finally:
        if tracing is not None:
            tracing.close()
        database.close()


def worker(
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", min=1, help="Processes; one a core.")
    ] = None,
    lane: Annotated[
        list[LaneName] | None, typer.Option("--lane", "-l", help="Only these lanes; repeatable.")
    ] = None,
    pool: Annotated[PoolName, typer.Option(help="Celery's pool.")] = PoolName.prefork,
    name: Annotated[str | None, typer.Option(help="Node name; must differ on one host.")] = None,
) -> None:
    """Deliver what is due. Run one on each machine, or several for reserved lanes."""
    from mailgate.cli import watching
    from mailgate.journal.processes import asked_last
    from mailgate.memory import one_heap, small_reads
    from mailgate.model.state import Lane
    from mailgate.worker import celery_app, command
    from mailgate.worker.settings import WorkerSettingsError

    one_heap()
    small_reads()
    setting.logs()
    config = setting.config()
    check_keys(config)
    _require_tracing(config)
    with contextlib.closing(setting.database()) as database:
        number = guarded(lambda: database.read_now(asked_last)).number
    celery_app.reread(setting.reread, number)
    celery_app.when_ready(ready)
    lanes = [Lane(one.value) for one in lane] if lane else list(Lane)
    try:
        with watching.worker(config):
            code = command.worker(
                config,
                concurrency=concurrency,
                lanes=lanes,
                pool=pool.value,
                loglevel=config.log.level,
                name=name,
            )
    except WorkerSettingsError as error:
        fail(str(error), 2)
    raise typer.Exit(code)


def beat() -> None:
    """Run the clock for schedules (Celery beat). Several at once are harmless."""
    from mailgate.cli import watching
    from mailgate.worker import celery_app, command
    from mailgate.worker.probe import Watch

    setting.logs()
    config = setting.config()

    def adopt(renewal: Renewal) -> None:
        celery_app.use(renewal.config)

    watch = Watch(config.broker.url or "")
    with watching.beat(config), kept_current(config, "beat", adopt, watch.look):
        code = command.beat(config, loglevel=config.log.level)
    raise typer.Exit(code)


def flower(
    address: Annotated[str | None, typer.Option(help="Interface; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="5555 by default.")] = None,
    basic_auth: Annotated[
        list[str] | None,
        typer.Option(
            help="user:password; better in the file that FLOWER_BASIC_AUTH_FILE names. "
            "Required off loopback."
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option(help="Whether its pages may only look, not steer workers.")
    ] = True,
) -> None:
    """Watch the workers on a page (Flower); loopback only unless you say otherwise."""
    from mailgate.worker import command
    from mailgate.worker.settings import WorkerSettingsError

    setting.logs()
    if not basic_auth and (path := os.environ.get("FLOWER_BASIC_AUTH_FILE")):
        basic_auth = read_file(Path(path)).decode().split()
    try:
        code = command.flower(
            setting.config(),
            address=address,
            port=port,
            basic_auth=tuple(basic_auth or ()),
            read_only=read_only,
        )
    except WorkerSettingsError as error:
        fail(str(error), 2)
    raise typer.Exit(code)


def inbox() -> None:
    """Catch mail on this machine and show it on a page. For trying out, never for production."""
    from mailgate.studio.inbox import serve

    setting.logs()
    config = setting.config()

    def on_ready(smtp_port: int, http_port: int) -> None:
        host = config.inbox.host
        print(f"inbox: smtp {host}:{smtp_port}, page http://{host}:{http_port}/", flush=True)
        ready()

    async def run(stop: asyncio.Event) -> None:
        await serve(config.inbox, config.state_dir / "inbox", on_ready=on_ready, stop=stop)

    try:
        until_stopped(run)
    except OSError as error:
        fail(f"the inbox cannot listen: {error}")


def _tracing(config: Config) -> Tracing | None:
    """Where the spans of intake go; ends the program when they are asked for in vain."""
    from mailgate.tracing.spans import Tracing, TracingMissing

    if not config.tracing.enabled:
        return None
    try:
        return Tracing.to_collector("intake")
    except TracingMissing as error:
        fail(str(error), 2)


def _require_tracing(config: Config) -> None:
    """Each of a worker's processes opens its own; what is missing is said before they start."""
    if config.tracing.enabled and (traced := _tracing(config)) is not None:
        traced.close()


async def _ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel them until they are over: one cancellation may be lost on its way (bpo-37658)."""
    import asyncio

    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_CANCELLED_IN)
        for task in waiting:
            what = getattr(task.get_coro(), "__qualname__", "")
            _log.warning("was told to end and did not: told again", extra={"what": what})


def until_stopped(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run until SIGTERM or SIGINT sets the event; a second signal ends at once.

    An end that takes long says where it stands, thread by thread.
    """
    import asyncio
    import faulthandler

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal(number: int) -> None:
            if stop.is_set():
                complain("stopped a second time: ending at once")
                raise SystemExit(1)
            stop.set()
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # no standard error
                faulthandler.dump_traceback_later(_LONG_END)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        await run(stop)

    try:
        asyncio.run(main())
    finally:
        faulthandler.cancel_dump_traceback_later()
