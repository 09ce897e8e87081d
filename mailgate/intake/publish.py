"""Publishing one document the way a producer does: for ``mailgate send`` and trials.

Owns nothing of the contract: bytes go as they are. Never used by intake itself.
"""

from __future__ import annotations

import asyncio

import amqp
from kombu import Connection
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from mailgate.config.urls import is_redis
from mailgate.intake.rabbitmq import declared
from mailgate.intake.redis import clients


class PublishError(Exception):
    """The broker did not take the document."""


def publish(url: str, queue: str, body: bytes) -> str:
    """Put ``body`` on the queue and wait for the broker's word; gives where it is.

    Raises ``PublishError``.
    """
    if is_redis(url):
        return asyncio.run(_redis(url, queue.replace(".", ":"), body))
    return _amqp(url, queue, body)


async def _redis(url: str, stream: str, body: bytes) -> str:
    faults: list[str] = []
    for client in clients(url):
        async with client:
            try:
                entry = await client.xadd(stream, {"message": body})
            except (RedisError, OSError) as error:
                faults.append(str(error))
                continue
            return f"{stream} {entry.decode() if isinstance(entry, bytes) else entry}"
    raise PublishError("; ".join(faults))


def _amqp(url: str, queue: str, body: bytes) -> str:
    connection = Connection(url, transport_options={"confirm_publish": True}, connect_timeout=5)
    troubles: tuple[type[BaseException], ...] = (
        *connection.connection_errors,
        *connection.channel_errors,
        KombuError,
        OSError,
    )
    try:
        with connection:
            connection.ensure_connection(max_retries=1)
            channel = declared(connection.connection, queue)
            message = amqp.Message(body, content_type="application/json", delivery_mode=2)
            channel.basic_publish_confirm(message, routing_key=queue, confirm_timeout=10)
    except troubles as error:
        raise PublishError(str(error)) from error
    return queue
