"""Whether a broker answers.

Owns one short connection of its own. Never publishes or consumes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from mailgate.amqp_servers import LOGIN, servers
from mailgate.config.urls import is_redis

_log = logging.getLogger("mailgate.beat")

#: Seconds between two looks at a broker that is watched.
_EVERY = 5.0
#: Seconds for one host to answer.
_CONNECT = 2.0


def broker_answers(url: str) -> str:
    """ "" when the broker of ``url`` takes a connection, else why not; without the URL."""
    try:
        if is_redis(url):
            _ask_redis(url)
        else:
            _ask_rabbitmq(url)
    except Exception as error:  # noqa: BLE001 - every transport has errors of its own
        return f"the broker cannot be reached ({type(error).__name__})"
    return ""


# What each needs is imported when it is asked: the other kind's library is megabytes.


def _ask_redis(url: str) -> None:
    from mailgate.worker.redis_bell import clients, hang_up

    found = clients(url, connect=_CONNECT, patience=2 * _CONNECT)
    for client in found:
        try:
            client.ping()
        except Exception:
            if client is found[-1]:
                raise
        else:
            return
        finally:
            hang_up(client)


def _ask_rabbitmq(url: str) -> None:
    import amqp

    found = servers(url)
    for server in found:
        connection: Any = amqp.Connection(**LOGIN | server, connect_timeout=_CONNECT)
        try:
            connection.connect()
        except Exception:
            if server is found[-1]:
                raise
        else:
            # It has answered. RabbitMQ would log a warning without a farewell.
            with contextlib.suppress(Exception):
                connection.sock.settimeout(_CONNECT)
                connection.close()
            return
        finally:
            connection.collect()


class Watch:
    """Says once that a broker is away, and once that it is back: Celery's beat does not."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._away_since: float | None = None
        self._next = 0.0

    def look(self) -> None:
        """Ask it, when that is due again; blocks for some seconds while it is away."""
        if time.monotonic() < self._next:
            return
        fault = broker_answers(self._url)
        now = time.monotonic()
        self._next = now + _EVERY
        if fault and self._away_since is None:
            self._away_since = now
            _log.error("%s: nobody can be asked to do what the clock says", fault)
        elif not fault and self._away_since is not None:
            _log.warning("the broker is back, after %.0f s", now - self._away_since)
            self._away_since = None
