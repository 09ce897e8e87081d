"""Log records as mail: ``MailHandler``, in the place of ``logging.handlers.SMTPHandler``.

Owns one handler. Never makes the program wait long, and never logs about itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mailgate.client.client import Client
from mailgate.client.default import default_client
from mailgate.client.letters import compose

#: Seconds for which a record is tried when the broker is away.
DEADLINE = 2.0
_OWN = ("mailgate.client", "amqp", "redis")


class MailHandler(logging.Handler):
    """Sends each record as a mail.

    ``fromaddr`` may be None: then the stream's sender. ``url`` names the broker; without it
    ``client`` or the default client publishes. With ``throttle`` (``"10m"``) one place in
    the program sends one mail in that time, however often it logs. ``fields`` are fields of
    the contract: ``{"stream": "alerts"}``, or a ``template`` with its ``data``.
    """

    def __init__(
        self,
        fromaddr: str | None,
        toaddrs: str | Sequence[str],
        subject: str,
        *,
        url: str | None = None,
        client: Client | None = None,
        producer: str | None = None,
        throttle: str | None = None,
        fields: Mapping[str, Any] | None = None,
        level: int = logging.ERROR,
    ) -> None:
        super().__init__(level)
        self.fromaddr = fromaddr
        self.toaddrs = [toaddrs] if isinstance(toaddrs, str) else list(toaddrs)
        self.subject = subject
        self._throttle = throttle
        self._fields = dict(fields or {})
        if client is None and url is not None:
            client = Client(url, producer=producer, timeout=DEADLINE)
        self._client = client

    def getSubject(self, record: logging.LogRecord) -> str:
        """The subject of a record; override it as you would SMTPHandler's."""
        return self.subject

    def emit(self, record: logging.LogRecord) -> None:
        """Publish it; what goes wrong is for ``logging.raiseExceptions``, as everywhere."""
        if record.name.split(".")[0] in _OWN or record.name.startswith(_OWN[0]):
            return
        try:
            more = dict(self._fields)
            if self._throttle and "throttle" not in more:
                key = f"log {record.name} {record.pathname.rpartition('/')[2]}:{record.lineno}"
                more["throttle"] = {
                    "key": key[:256],
                    "limit": 1,
                    "window": self._throttle,
                    "on_limit": "drop",
                }
            made = compose(
                subject=" ".join(self.getSubject(record).split())[:998],
                from_=self.fromaddr,
                to=self.toaddrs,
                text=self.format(record).replace("\0", "\\0"),
                more=more,
            )
            for one in made:
                (self._client or default_client()).publish(one, deadline=DEADLINE)
        except Exception:  # noqa: BLE001 (a handler never raises)
            self.handleError(record)
