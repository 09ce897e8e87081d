"""The small server of a process: ``/metrics``, ``/health/live`` and ``/health/ready``.

Owns the threads it runs in beside the process's real work. Binds at once, so that a port
that is taken is said before anything starts. Whatever goes wrong in it, the work goes on.
Three pages without a state: an HTTP framework in every process would cost each 20 MiB and
a third of a second at its start.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable, Mapping
from http import HTTPStatus

from mailgate import __version__
from mailgate.http.health import Check, verdict
from mailgate.metrics import families
from mailgate.metrics.tally import Totals

_log = logging.getLogger("mailgate.http")

#: Answers at once; who comes beyond them waits.
_AT_ONCE = 8
#: Seconds for a request to come, and for an answer to be taken.
_PATIENCE = 5.0
#: Bytes of a request, which has no body.
_LONGEST = 16 * 1024

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
        self._answering = threading.BoundedSemaphore(_AT_ONCE)
        self._stopped = threading.Event()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; who is being answered is answered."""
        self._stopped.set()
        if self._thread.is_alive():
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            self._thread.join(3)
        self._listener.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._stopped.is_set():
                    # Out of descriptors, or the peer was gone again.
                    _log.warning("metrics and health: %s", error.strerror)
                    self._stopped.wait(0.5)
                continue
            self._answering.acquire()
            try:
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
            except RuntimeError as error:  # no thread to be had
                _log.warning("metrics and health: %s", error)
                connection.close()
                self._answering.release()

    def _answer(self, connection: socket.socket) -> None:
        """One request and its answer; then the connection ends.

        A worker forks while this runs. A kept connection would live on in the child, and
        whoever sends the next request there waits for nobody.
        """
        try:
            with connection:
                connection.settimeout(_PATIENCE)
                asked = _request(connection)
                if asked is None:
                    return
                method, path, headers = asked
                code, kind, body = self._reply(method, path, headers)
                head = (
                    f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\ncontent-type: {kind}\r\n"
                    f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
                )
                connection.sendall(head.encode() + (b"" if method == "HEAD" else body))
                # What is left unread would turn the answer into a reset.
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(1)
                while connection.recv(4096):
                    pass
        except OSError:
            pass  # whoever asked is gone
        except Exception as error:  # noqa: BLE001 - nobody's mail waits for it
            _log.error("a question about metrics or health failed", exc_info=error)
        finally:
            self._answering.release()

    def _reply(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: self._metrics(headers.get("accept", "")),
            "/health/live": lambda: _health(self._live),
            "/health/ready": lambda: _health(self._ready),
        }
        page = pages.get(path.partition("?")[0])
        if page is None:
            return 404, "text/plain", b"not found\n"
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"only GET and HEAD\n"
        return page()

    def _metrics(self, accept: str) -> tuple[int, str, bytes]:
        from mailgate.http.exposition import exposition

        totals = self._totals()
        totals.numbers[families.BUILD.name, (__version__, self._kind)] = 1
        page, content_type = exposition(totals, accept)
        return 200, content_type, page


def _health(checks: Mapping[str, Check]) -> tuple[int, str, bytes]:
    ok, said = verdict(checks)
    body = {"status": "ok" if ok else "failing", "checks": said}
    return 200 if ok else 503, "application/json", json.dumps(body).encode()


def _request(connection: socket.socket) -> tuple[str, str, dict[str, str]] | None:
    """Method, target and headers of a request; ``None`` for what is none."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        if len(raw) > _LONGEST or not (more := connection.recv(4096)):
            return None
        raw += more
    first, *lines = raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return words[0], words[1], headers


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
