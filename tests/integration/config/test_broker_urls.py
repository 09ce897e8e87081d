"""The canonical spelling of a broker URL is one that Celery's transport connects with."""

from __future__ import annotations

from kombu import Connection
from redis import Redis

from mailgate.config import urls
from tests.servers import Valkey


def test_a_socket_with_a_database_reaches_that_database(valkey: Valkey):
    with Connection(urls.broker(f"unix://{valkey.socket}?db=2")) as connection:
        queue = connection.SimpleQueue("ring")
        queue.put("x")
        queue.close()
    with Redis(unix_socket_path=str(valkey.socket), db=2) as redis:
        assert redis.llen("ring") == 1
