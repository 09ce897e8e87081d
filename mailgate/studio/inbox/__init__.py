"""The local inbox of ``mailgate up``: an SMTP server that keeps every mail, and its page.

Owns its life: store, SMTP side and page start and stop together. Nothing leaves
the machine from here, and nothing else of mailgate is needed to run it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mailgate.config.shape import Inbox
from mailgate.studio.guard import local_names
from mailgate.studio.inbox.page import Page, application
from mailgate.studio.inbox.sink import Sink
from mailgate.studio.inbox.store import Store
from mailgate.studio.serving import Serving, bind, shown

_T = TypeVar("_T")


class Catcher:
    """The inbox, from ``start`` to ``stop``."""

    def __init__(self, settings: Inbox, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        # The store belongs to this one thread; the loop only waits for it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inbox")

    async def start(self) -> tuple[int, int]:
        """Listen; returns the SMTP and the HTTP port. Raises ``OSError`` when one is taken."""
        settings = self._settings
        host = settings.host
        # Both ports before anything else, so that a port that is taken leaves nothing behind.
        listener = bind(host, settings.http_port)
        sink = Sink(self._keep)
        try:
            smtp_port = await sink.start(host, settings.smtp_port)
        except OSError:
            listener.close()
            raise
        loop = asyncio.get_running_loop()
        self._store = loop.run_in_executor(self._thread, Store, self._directory, settings.keep)
        await self._store
        self._sink = sink
        page = Page(self._ask, f"{shown(host)}:{smtp_port}")
        self._http = Serving(application(page, local_names(host)), listener)
        return smtp_port, listener.getsockname()[1]

    async def stop(self) -> None:
        """Take no more mail, finish what is on its way, close the store."""
        self._sink.close()
        await self._http.stop()
        await self._ask(lambda store: store.close())
        self._thread.shutdown()

    async def _keep(self, content: bytes, mail_from: str, rcpt_to: list[str], at: int) -> int:
        return await self._ask(lambda store: store.add(content, mail_from, rcpt_to, at))

    async def _ask(self, question: Callable[[Store], _T]) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, question, await self._store)


async def serve(
    settings: Inbox,
    directory: Path,
    *,
    on_ready: Callable[[int, int], None],
    stop: asyncio.Event,
) -> None:
    """Run the inbox with its files in ``directory`` until ``stop`` is set.

    ``on_ready(smtp_port, http_port)`` is called once both listen. Signals are the
    caller's. Raises ``OSError`` when a port is taken.
    """
    catcher = Catcher(settings, directory)
    on_ready(*await catcher.start())
    try:
        await stop.wait()
    finally:
        await catcher.stop()
