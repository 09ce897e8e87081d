"""The doors that a URL opens.

Owns the names on each transport: queue ``mailgate.inbox`` on RabbitMQ is on Redis
the stream ``mailgate:inbox`` and the list ``mailgate:inbox:list``.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from mailgate.intake.door import Door, Trouble
from mailgate.intake.rabbitmq import RabbitDoor
from mailgate.intake.redis import IDLE
from mailgate.intake.redis_list import ListDoor
from mailgate.intake.redis_stream import StreamDoor


def open_doors(
    url: str,
    queue: str,
    *,
    batch: int = 500,
    idle: float = IDLE,
    trouble: Trouble | None = None,
) -> list[Door]:
    """The doors of a broker URL, not yet opened: one for RabbitMQ, two for Redis.

    Each is received from by a task of its own. ``url`` may hold several URLs
    separated by ``;`` for failover; ``batch`` sizes the AMQP prefetch; ``idle`` is
    after how many seconds a silent Redis consumer's deliveries are taken over;
    ``trouble`` is told about lost brokers (a logger's warning by default).
    """
    if urlsplit(url.split(";")[0]).scheme in ("amqp", "amqps"):
        return [RabbitDoor(url, queue, prefetch=batch, trouble=trouble)]
    stream = queue.replace(".", ":")
    return [
        StreamDoor(url, stream, idle=idle, trouble=trouble),
        ListDoor(url, f"{stream}:list", idle=idle, trouble=trouble),
    ]
