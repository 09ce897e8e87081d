"""How much waits in the broker's queues, for ``mailgate status``.

Owns the names of the queues on each transport as a reader sees them. Never makes a queue,
consumes or publishes; a broker that is away is a word in the answer and no error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailgate.amqp_servers import servers
from mailgate.config.urls import is_redis
from mailgate.intake.amqp_link import connection
from mailgate.intake.redis import clients

#: Seconds for a broker to tell all that is asked.
PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Depth:
    """``waiting`` is None where the broker did not tell, and ``fault`` says why."""

    queue: str
    waiting: int | None
    fault: str = ""


def inboxes(url: str, queues: Sequence[str]) -> list[Depth]:
    """What producers published and intake has not taken; on Redis a stream and a list each."""
    if not is_redis(url):
        return _asked_amqp(url, queues)
    names = [queue.replace(".", ":") for queue in queues]
    both = [key for name in names for key in (name, f"{name}:list")]
    return _asked_redis(url, both, streams=names)


def lists(url: str, queues: Sequence[str]) -> list[Depth]:
    """What waits in queues of Celery, which are lists on Redis."""
    return _asked_redis(url, queues, streams=()) if is_redis(url) else _asked_amqp(url, queues)


def _asked_redis(url: str, keys: Sequence[str], streams: Sequence[str]) -> list[Depth]:
    async def ask() -> list[Depth]:
        faults = []
        for client in clients(url):
            try:
                async with asyncio.timeout(PATIENCE), client.pipeline(transaction=False) as pipe:
                    for key in keys:
                        pipe.xlen(key) if key in streams else pipe.llen(key)
                    found = await pipe.execute(raise_on_error=False)
                return [_depth(key, value) for key, value in zip(keys, found, strict=True)]
            except Exception as error:  # noqa: BLE001 - of redis-py, of the socket, of time
                faults.append(type(error).__name__)
            finally:
                with contextlib.suppress(Exception):
                    await client.aclose()
        return [Depth(key, None, f"the broker is away ({', '.join(faults)})") for key in keys]

    return asyncio.run(ask())


def _depth(key: str, value: Any) -> Depth:
    if isinstance(value, Exception):
        return Depth(key, None, type(value).__name__)
    return Depth(key, int(value))


def _asked_amqp(url: str, queues: Sequence[str]) -> list[Depth]:
    faults = []
    for one in servers(url):
        link = connection(one)
        link.connect_timeout = PATIENCE
        try:
            link.connect()
            return [_declared(link, queue) for queue in queues]
        except Exception as error:  # noqa: BLE001 - the transport has errors of its own
            faults.append(type(error).__name__)
        finally:
            with contextlib.suppress(Exception):
                link.close()
    return [Depth(queue, None, f"the broker is away ({', '.join(faults)})") for queue in queues]


def _declared(link: Any, queue: str) -> Depth:
    # A queue that is not there closes its channel: each asks on one of its own.
    channel = link.channel()
    try:
        return Depth(queue, int(channel.queue_declare(queue, passive=True).message_count))
    except link.channel_errors as error:
        missing = getattr(error, "reply_code", 0) == 404
        return Depth(queue, None, "is not there yet" if missing else "may not be asked")
    finally:
        with contextlib.suppress(Exception):
            channel.close()
