"""The small server of a process: ``/metrics``, ``/health/live`` and ``/health/ready``.

Owns starlette and uvicorn here, and the thread they run in beside the process's real
work. Binds at once, so that a port that is taken is said before anything starts.
Whatever goes wrong in it, the work goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mailgate import __version__
from mailgate.http.health import Check, verdict
from mailgate.metrics import families
from mailgate.metrics.tally import Totals

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_log = logging.getLogger("mailgate.http")

#: A child that is forked while others talk to us closes its copy of these.
_listeners: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class Server:
    """Listening from the start; answers between ``start`` and ``stop``.

    ``kind`` is the process's: intake, worker, beat. ``totals`` gives the numbers; it and
    the checks are called in threads of their own and may wait. Raises ``OSError`` when the
    address cannot be had.
    """

    def __init__(
        self,
        address: tuple[str, int],
        kind: str,
        totals: Callable[[], Totals],
        live: Mapping[str, Check],
        ready: Mapping[str, Check],
    ) -> None:
        self._listener = _bind(*address)
        self._kind = kind
        self._totals = totals
        self._live = live
        self._ready = ready
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._stop: Callable[[], None] = lambda: None
        self._stopped = threading.Event()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; who is being answered has a second."""
        self._stopped.set()
        self._stop()
        if self._thread.is_alive():
            self._thread.join(3)
        self._listener.close()

    def _run(self) -> None:
        try:
            # Here: a process that serves nothing needs none of it, and one that does
            # need not wait for it.
            import uvicorn

            config = uvicorn.Config(
                self.app(),
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                # A worker forks while this runs. A kept connection would live on in the
                # child, and whoever sends the next request there waits for nobody.
                headers=[("connection", "close")],
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)

            def stop() -> None:
                server.should_exit = True

            self._stop = stop
            if not self._stopped.is_set():
                asyncio.run(server.serve([self._listener]))
        except Exception as error:  # noqa: BLE001 - nobody's mail waits for it
            _log.error("metrics and health are not served any more", exc_info=error)

    def app(self) -> Starlette:
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/health/live", self._health(self._live)),
                Route("/health/ready", self._health(self._ready)),
            ]
        )

    def _metrics(self, request: Request) -> Response:
        from starlette.responses import Response

        from mailgate.http.exposition import exposition

        totals = self._totals()
        totals.numbers[families.BUILD.name, (__version__, self._kind)] = 1
        page, content_type = exposition(totals, request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    def _health(self, checks: Mapping[str, Check]) -> Callable[[Request], Response]:
        from starlette.responses import JSONResponse

        def answer(_request: Request) -> Response:
            ok, said = verdict(checks)
            body = {"status": "ok" if ok else "failing", "checks": said}
            return JSONResponse(body, 200 if ok else 503)

        return answer


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    _listeners.add(listener)
    return listener


def _close_in_child() -> None:
    """A worker's child would else keep the port when its parent is gone."""
    for listener in list(_listeners):
        listener.close()


os.register_at_fork(after_in_child=_close_in_child)
