"""The local inbox of ``mailgate up``: an SMTP server that keeps every mail, and its page.

Owns its life: store, SMTP side and page start and stop together. Nothing leaves
the machine from here, and nothing else of mailgate is needed to run it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import uvicorn

from mailgate.catcher.guard import local_names
from mailgate.catcher.page import Page, application
from mailgate.catcher.sink import Sink
from mailgate.catcher.store import Store
from mailgate.config.shape import Inbox

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
        listener = _bind(host, settings.http_port)
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
        shown = f"[{host}]" if ":" in host else host
        app = application(Page(self._ask, f"{shown}:{smtp_port}"), local_names(host))
        self._http = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._serving = asyncio.create_task(self._http.serve([listener]))
        return smtp_port, listener.getsockname()[1]

    async def stop(self) -> None:
        """Take no more mail, finish what is on its way, close the store."""
        self._sink.close()
        self._http.should_exit = True
        await self._serving
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


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command line, which stops all parts in order."""
        yield


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
