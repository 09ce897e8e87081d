"""The studio, from start to stop: templates are watched, a page is served.

Owns its life alone. Signals and the configuration are the command line's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mailgate.config.relays import Secret
from mailgate.config.shape import Config
from mailgate.model.ids import Ids
from mailgate.render.dkim import Signer
from mailgate.render.shelf import look
from mailgate.studio.guard import local_names
from mailgate.studio.page import Bell, Page, application
from mailgate.studio.sending import Counter, Way
from mailgate.studio.serving import Serving, bind, shown
from mailgate.studio.watch import watch
from mailgate.studio.workshop import Workshop


async def serve(
    config: Config,
    roots: Sequence[Path],
    *,
    host: str,
    port: int,
    way: Way,
    passwords: Mapping[str, Secret],
    signer: Signer | None = None,
    on_ready: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serve the studio until ``stop`` is set; ``on_ready(url)`` is called once it listens.

    ``port`` 0 takes any free one. Raises ``OSError`` when the port is taken, and
    ``FileNotFoundError`` for a root that is not there to be read.
    """
    listener = bind(host, port)
    try:
        seen = look(roots)
        workshop = Workshop(
            roots,
            config.default_locale,
            Ids(random.random),
            config.message_id_domain or "",
            signer,
        )
    except BaseException:
        listener.close()
        raise
    bell = Bell()
    counter = Counter(config, passwords, way)

    async def changed(paths: frozenset[str]) -> None:
        for names in workshop.steps(paths):
            await asyncio.to_thread(workshop.reload, names)
            bell.ring()

    watching = asyncio.create_task(watch(roots, seen, changed))
    serving = Serving(application(Page(workshop, counter, bell), local_names(host)), listener)
    try:
        on_ready(f"http://{shown(host)}:{listener.getsockname()[1]}/")
        await stop.wait()
    finally:
        watching.cancel()
        bell.close()
        await serving.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await counter.close()
