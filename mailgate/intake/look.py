"""What a RabbitMQ says of itself and of the inbox queue, for ``mailgate doctor``.

Owns how a queue's type is learned over AMQP alone: by naming it again as it should be.
Never makes a queue, consumes or publishes.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

from mailgate.amqp_servers import servers
from mailgate.intake.amqp_link import connection

#: How RabbitMQ says by which argument two declarations differ.
_OTHER = re.compile(
    r"inequivalent arg '(?P<arg>[^']+)' for queue"
    r"(?:.*current is the value '(?P<value>[^']*)' of type '(?P<type>\w+)')?"
)
_MOST_ARGUMENTS = 10


@dataclass(frozen=True, slots=True)
class RabbitLook:
    """``kind`` is ``quorum``, ``other``, ``unknown`` (we may not ask), or "" without a queue."""

    version: str
    kind: str
    ready: int
    silent: int = 0


def look(url: str, queue: str) -> RabbitLook:
    """The first of the URLs joined by ``;`` that answers; raises ``OSError`` when none does."""
    faults: list[str] = []
    for one in servers(url):
        link = connection(one)
        try:
            link.connect()
            return _asked(link, queue, len(faults))
        except Exception as error:  # noqa: BLE001 - the transport has errors of its own
            faults.append(str(error) or type(error).__name__)
        finally:
            with contextlib.suppress(Exception):
                link.close()
    raise OSError("; ".join(faults))


def _asked(link: Any, queue: str, silent: int) -> RabbitLook:
    version = str(link.server_properties.get("version", ""))
    try:
        ready = link.channel().queue_declare(queue, passive=True).message_count
    except link.channel_errors as error:
        missing = getattr(error, "reply_code", 0) == 404
        return RabbitLook(version, "" if missing else "unknown", 0, silent)
    return RabbitLook(version, _kind(link, queue), ready, silent)


def _kind(link: Any, queue: str) -> str:
    """Name it again as it should be, and add whatever else it was made with, until it fits."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    for _ in range(_MOST_ARGUMENTS):
        try:
            link.channel().queue_declare(
                queue, durable=True, auto_delete=False, arguments=arguments
            )
            return "quorum"
        except link.channel_errors as error:
            other = _OTHER.search(str(error))
            if getattr(error, "reply_code", 0) != 406 or other is None:
                return "unknown"
            if other["arg"] in ("x-queue-type", "durable"):
                return "other"
            if other["arg"] in arguments or other["value"] is None:
                return "unknown"
            number = other["type"] != "longstr"
            arguments[other["arg"]] = int(other["value"]) if number else other["value"]
        except ValueError:
            return "unknown"
    return "unknown"
