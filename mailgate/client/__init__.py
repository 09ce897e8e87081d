"""Publishing from Python: ``publish(Message(…))``, confirmed by the broker.

Owns everything that a producer's program imports. Importing it costs milliseconds: no
Celery, no SQLAlchemy, no templates; broker libraries and the contract are loaded with the
first message. The frameworks have modules of their own: ``mailgate.client.django``,
``flask``, ``logging``, ``smtplib``; ``outbox`` publishes what a transaction committed, and
``testing`` is for pytest.
"""

from mailgate.client.capture import captured
from mailgate.client.client import Client, Receipt
from mailgate.client.default import apublish, configure, default_client, publish
from mailgate.client.errors import (
    InvalidMessage,
    MailgateError,
    NoAnswer,
    NoQueue,
    NotPublished,
    Refused,
)
from mailgate.client.message import Attachment, Message

__all__ = [
    "Attachment",
    "Client",
    "InvalidMessage",
    "MailgateError",
    "Message",
    "NoAnswer",
    "NoQueue",
    "NotPublished",
    "Receipt",
    "Refused",
    "apublish",
    "captured",
    "configure",
    "default_client",
    "publish",
]
