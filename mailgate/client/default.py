"""The client of programs that need only one.

Owns the process's default client: made by ``configure``, else from the environment when
it is first needed (``MAILGATE_URL``, ``MAILGATE_PRODUCER``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mailgate.client.client import Client, Receipt
from mailgate.client.message import Message

_default: Client | None = None


def configure(url: str, **options: Any) -> Client:
    """Make the default client; the options are ``Client``'s."""
    global _default
    _default = Client(url, **options)
    return _default


def default_client() -> Client:
    """The default client. Raises ``RuntimeError`` when nobody said where the broker is."""
    if _default is not None:
        return _default
    url = os.environ.get("MAILGATE_URL")
    if not url:
        from mailgate.client import capture

        if capture.current() is None:
            raise RuntimeError(
                "where is the broker? Call mailgate.client.configure(url), or set MAILGATE_URL"
            )
        # Nothing will be connected, and nothing is remembered.
        return Client("redis://captured.invalid", producer=os.environ.get("MAILGATE_PRODUCER"))
    return configure(url, producer=os.environ.get("MAILGATE_PRODUCER") or None)


def publish(message: Message | Mapping[str, Any]) -> Receipt:
    """``Client.publish`` of the default client."""
    return default_client().publish(message)


async def apublish(message: Message | Mapping[str, Any]) -> Receipt:
    """``Client.apublish`` of the default client."""
    return await default_client().apublish(message)
