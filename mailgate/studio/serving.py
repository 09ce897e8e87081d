"""How a local page is served: one socket, bound first; signals are the caller's.

Owns uvicorn. Knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.responses import FileResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

#: What all pages share: style, script, icon.
FRAME = Path(__file__).parent / "frame"


class Serving:
    """A page that is being served, until ``stop``."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._server = _Server(
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
        self._task = asyncio.create_task(self._server.serve([listener]))

    async def stop(self) -> None:
        """Take no more requests; those on their way have a second."""
        self._server.should_exit = True
        await self._task


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``OSError`` when the port is taken."""
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


def shown(host: str) -> str:
    """``host`` as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def page_routes(assets: Path) -> list[BaseRoute]:
    """``assets/index.html``, its own files, and the frame's."""

    async def index(_request: object) -> FileResponse:
        return FileResponse(assets / "index.html")

    return [
        Route("/", index),
        Mount("/assets", StaticFiles(directory=assets)),
        Mount("/frame", StaticFiles(directory=FRAME)),
    ]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command line, which stops all parts in order."""
        yield
