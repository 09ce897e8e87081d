"""How a ring is spelled: Celery's message protocol 2, and on Redis kombu's envelope.

Owns both forms, and nothing else. Imports nothing of Celery, which would be 8 MiB in
each intake process, nor of kombu, which would be 3: tests hold a ring to what these would send.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from typing import Any

from mailgate.model.state import Lane
from mailgate.worker.settings import TASK, queue_name

#: Who rings, as Flower shows it.
ORIGIN = f"gen{os.getpid()}@{socket.gethostname()}"


def ring(lane: Lane, number: str, origin: str) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Headers and body of the task message that rings ``lane``; ``number`` is the task's id."""
    headers: dict[str, Any] = {
        "lang": "py",
        "task": TASK,
        "id": number,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": number,
        "parent_id": None,
        "argsrepr": repr([lane.value]),
        "kwargsrepr": "{}",
        "origin": origin,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    links = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return headers, ([lane.value], {}, links)


def parcel(lane: Lane, number: str, origin: str, tag: str) -> str:
    """A ring as kombu's Redis transport writes it into a list; ``tag`` is the delivery's."""
    headers, body = ring(lane, number, origin)
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": number,
                "reply_to": "",
                "delivery_mode": 1,
                "delivery_info": {"exchange": "", "routing_key": queue_name(lane)},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": tag,
            },
        }
    )
