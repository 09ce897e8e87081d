"""A broker URL as Celery and kombu take it.

Owns what goes with each kind of broker: transport options, verification of TLS,
Sentinel's group. Pure: never connects. The spelling of URLs was checked when the
configuration was loaded (``config.urls``).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from mailgate.amqp_servers import tls

#: The group that Sentinel is asked for when the URL names none.
_SENTINEL_GROUP = "mymaster"

#: Seconds for RabbitMQ to say or take something. py-amqp waits for the reply to a farewell
#: without an end, and so did a worker whose broker's packets were lost.
_AMQP = {"read_timeout": 7, "write_timeout": 7}


class _NameOfEachHost(dict[str, Any]):
    """TLS options of py-amqp in which the server's name is always that of the host asked.

    kombu fills a ``server_hostname`` of None with the host of the first URL, in
    place, and would then expect that name of the failover hosts too.
    """

    def __getitem__(self, key: str) -> Any:
        return None if key == "server_hostname" else super().__getitem__(key)


def broker_settings(url: str, visibility: float) -> dict[str, Any]:
    """Celery's ``broker_*`` settings for ``url``, one or several separated by ``;``.

    ``visibility`` is the time in seconds after which Redis gives a ring that nobody
    acknowledged to another worker.
    """
    parts = [urlsplit(one) for one in url.split(";")]
    scheme = parts[0].scheme
    if scheme == "amqp":
        return {"broker_url": url, "broker_transport_options": dict(_AMQP)}
    if scheme == "amqps":
        given = {key: value for part in parts for key, value in _query(part, "ssl_")}
        return {
            "broker_url": _without(parts, "ssl_"),
            "broker_use_ssl": _NameOfEachHost(tls(given, None)),
            "broker_transport_options": dict(_AMQP),
        }
    options: dict[str, Any] = {
        "visibility_timeout": visibility,
        # Packets may be lost without a word: after this a reply does not come, and after
        # twice the second (and one) who waits for rings does not hear any. A worker meets
        # the first on several connections, one after another.
        "socket_timeout": 4.0,
        "health_check_interval": 5,
        "socket_connect_timeout": 4.0,
        "socket_keepalive": True,
        "unacked_restore_throttle": 1,
        # Another Celery app in this database has a visibility timeout of its own: it would
        # give out our rings again by that, and we its tasks by ours.
        "unacked_key": "mailgate:unacked",
        "unacked_index_key": "mailgate:unacked:index",
        "unacked_mutex_key": "mailgate:unacked:mutex",
    }
    found: dict[str, Any] = {"broker_url": url, "broker_transport_options": options}
    if scheme == "rediss":
        # Told nothing, kombu verifies nothing. The ssl_* in a URL take precedence.
        found["broker_use_ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    elif scheme == "sentinel":
        groups = [value for part in parts for _, value in _query(part, "master")]
        found["broker_url"] = _without(parts, "master")
        options["master_name"] = groups[0] if groups else _SENTINEL_GROUP
    return found


def _query(part: SplitResult, prefix: str) -> Iterator[tuple[str, str]]:
    return ((key, value) for key, value in parse_qsl(part.query) if key.startswith(prefix))


def _without(parts: list[SplitResult], prefix: str) -> str:
    """The URLs without the query keys that kombu would not understand there."""
    return ";".join(
        urlunsplit(
            part._replace(
                query=urlencode(
                    [pair for pair in parse_qsl(part.query) if not pair[0].startswith(prefix)]
                )
            )
        )
        for part in parts
    )
