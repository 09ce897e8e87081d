"""Whether a broker answers.

Owns one short connection of its own. Never publishes or consumes.
"""

from __future__ import annotations

from kombu import Connection

from mailgate.worker.broker import broker_settings

#: Seconds for one host to answer.
_CONNECT = 2.0


def broker_answers(url: str) -> str:
    """ "" when the broker of ``url`` takes a connection, else why not; without the URL."""
    settings = broker_settings(url, 60.0)
    options = settings.get("broker_transport_options", {})
    connection = Connection(
        settings["broker_url"],
        ssl=settings.get("broker_use_ssl", False),
        connect_timeout=_CONNECT,
        transport_options={**options, "socket_connect_timeout": _CONNECT},
    )
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    except Exception as error:  # noqa: BLE001 - every transport has errors of its own
        return f"the broker cannot be reached ({type(error).__name__})"
    finally:
        connection.release()
    return ""
