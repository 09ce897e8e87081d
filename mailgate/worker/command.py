"""``mailgate worker``, ``beat`` and ``flower``: Celery's programs with safe settings.

Owns what they are started with. Each runs in this process, in the main thread, until
a signal ends it, and returns its exit code. Never parses our own command line.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

from celery.utils.nodenames import default_nodename, host_format
from celery.worker import state

from mailgate.config.shape import Config
from mailgate.config.urls import is_loopback
from mailgate.model.state import Lane
from mailgate.worker import celery_app
from mailgate.worker.settings import CHORES, WorkerSettingsError, celery_settings, queue_name

#: The pools in which an event loop beside the tasks works. Time limits exist in prefork alone.
Pool = Literal["prefork", "threads", "solo"]

_TASKS_COLUMNS = "name,args,state,result,received,runtime,worker"


def worker(
    config: Config,
    *,
    concurrency: int | None = None,
    lanes: Collection[Lane] = tuple(Lane),
    pool: Pool = "prefork",
    loglevel: str = "info",
    name: str | None = None,
) -> int:
    """Deliver until SIGTERM or SIGINT: running tasks end, conversations get a grace.

    ``concurrency`` is the number of processes (threads in that pool), by default one
    a core. A worker for some ``lanes`` alone is capacity kept for them. ``name`` must
    differ between workers on one host. Returns 1 when the worker ended by itself, for an
    error that it logged. Raises ``WorkerSettingsError``.
    """
    options = worker_options(concurrency, lanes, pool, loglevel, name)
    made = _app(config).Worker(**options)
    made.start()
    # Ctrl-C is no failure, though Celery's code for it is one.
    return 0 if state.should_stop is not None else int(made.exitcode or 0)


def beat(config: Config, *, loglevel: str = "info") -> int:
    """Fire schedules until a signal; keeps no file. Raises ``WorkerSettingsError``."""
    celery_app.use(config)
    # Loads what beat's signal handler uses: a signal in the middle of that import fails.
    _ = celery_app.app.amqp
    import_module("mailgate.worker.clock")
    _app(config).Beat(loglevel=loglevel, quiet=True).run()
    return 0


def flower(
    config: Config,
    *,
    address: str | None = None,
    port: int | None = None,
    basic_auth: Sequence[str] = (),
    read_only: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Show workers and tasks on a page until a signal; Flower's own ``FLOWER_*`` hold too.

    ``basic_auth`` are ``user:password``. Flower's ``/metrics`` and ``/healthcheck`` ask for
    no password in any case. Raises ``WorkerSettingsError`` when it would show the rest to
    other machines without one.
    """
    arguments = flower_arguments(address, port, basic_auth, read_only, environ)
    return int(_app(config).start(["--quiet", *arguments]) or 0)


def worker_options(
    concurrency: int | None,
    lanes: Collection[Lane],
    pool: Pool,
    loglevel: str,
    name: str | None,
) -> dict[str, Any]:
    """What Celery's worker is made with."""
    wanted = [lane for lane in Lane if lane in lanes]
    if not wanted:
        raise WorkerSettingsError("a worker needs at least one lane")
    if name is None:
        only = "" if len(wanted) == len(Lane) else "-" + "-".join(lane.value for lane in wanted)
        name = f"mailgate{only}"
    # One that is kept for urgent mail does nothing else.
    chores = [] if wanted == [Lane.HIGH] else [CHORES]
    return {
        "hostname": host_format(default_nodename(f"{name}@%h")),
        "queues": [*(queue_name(lane) for lane in wanted), *chores],
        "pool_cls": pool,
        "concurrency": concurrency,
        "loglevel": loglevel,
        "optimization": "default",
        # Workers have nothing to say to each other, and mingle costs a second at the start.
        "without_gossip": True,
        "without_mingle": True,
        "quiet": True,
    }


def flower_arguments(
    address: str | None,
    port: int | None,
    basic_auth: Sequence[str],
    read_only: bool,
    environ: Mapping[str, str],
) -> list[str]:
    """Flower's arguments; raises ``WorkerSettingsError`` for a page open to the network."""
    where = address or environ.get("FLOWER_ADDRESS") or "127.0.0.1"
    guarded = basic_auth or environ.get("FLOWER_BASIC_AUTH") or environ.get("FLOWER_AUTH")
    if not guarded and not is_loopback(where):
        raise WorkerSettingsError(
            f"Flower on {where} would show workers and tasks to the network: "
            "give it basic auth (user:password), or leave it on 127.0.0.1"
        )
    arguments = ["flower", f"--address={where}"]
    if port is not None:
        arguments.append(f"--port={port}")
    if basic_auth:
        # These arguments stay in this process; nobody sees them in a list of processes.
        arguments.append(f"--basic_auth={','.join(basic_auth)}")
    if "FLOWER_READ_ONLY" not in environ or not read_only:
        arguments.append(f"--read_only={read_only}")
    if "FLOWER_TASKS_COLUMNS" not in environ:
        # With the lane and the counts, which by default stand only on a task's own page.
        arguments.append(f"--tasks_columns={_TASKS_COLUMNS}")
    if "FLOWER_CONF" not in environ:
        # By default it would execute a flowerconfig.py of the current directory.
        arguments.append(f"--conf={os.devnull}")
    return arguments


def _app(config: Config) -> Any:
    """Celery's app with the configuration; raises ``WorkerSettingsError``.

    Worker and beat are made from it, as Celery's command line makes them: that itself
    imports a shell for the terminal and each plug-in, Flower among them, for 10 MiB and
    a third of a second.
    """
    celery_settings(config)  # refuses now, with a message, and not inside Celery
    celery_app.use(config)
    return celery_app.app
