"""The doors that a URL opens.

Owns the names on each transport: queue ``mailgate.inbox`` on RabbitMQ is on Redis
the stream ``mailgate:inbox`` and the list ``mailgate:inbox:list``. A producer's own
queue is on RabbitMQ also a fanout exchange of the same name, since permission to publish
there is by exchange.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mailgate.intake.door import BATCH_BYTES, Door, Trouble


def open_doors(
    url: str,
    queue: str,
    *,
    own: Mapping[str, str] | None = None,
    batch: int = 500,
    most_bytes: int = BATCH_BYTES,
    idle: float | None = None,
    trouble: Trouble | None = None,
) -> list[Door]:
    """The doors of a broker URL, not yet opened: one a queue on RabbitMQ, two on Redis.

    ``own`` holds the producers' own queues, each with whose it is. Each
    door is received from by a task of its own. ``url`` may hold several URLs
    separated by ``;`` for failover; ``batch`` sizes the AMQP prefetch, ``most_bytes``
    bounds what a door has in hand; ``idle`` is after how many seconds a silent Redis
    consumer's deliveries are taken over (``redis.IDLE``);
    ``trouble`` is told about lost brokers (a logger's warning by default).
    """
    # Each imports its broker's client, and nobody needs both.
    if urlsplit(url.split(";")[0]).scheme in ("amqp", "amqps"):
        from mailgate.intake.rabbitmq import RabbitDoor

        return [
            RabbitDoor(
                url, name, prefetch=batch, most_bytes=most_bytes, producer=whose, trouble=trouble
            )
            for name, whose in [(queue, None), *(own or {}).items()]
        ]
    from mailgate.intake.redis import IDLE
    from mailgate.intake.redis_list import ListDoor
    from mailgate.intake.redis_stream import StreamDoor

    options: dict[str, Any] = {
        "idle": IDLE if idle is None else idle,
        "most_bytes": most_bytes,
        "trouble": trouble,
    }
    doors: list[Door] = []
    for name, whose in [(queue, None), *(own or {}).items()]:
        stream = name.replace(".", ":")
        doors += [
            StreamDoor(url, stream, producer=whose, **options),
            ListDoor(url, f"{stream}:list", producer=whose, **options),
        ]
    return doors
