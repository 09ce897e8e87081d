"""What stands in for the parts that a configuration leaves open: everything on this machine.

Owns the embedded defaults (Valkey on a private socket, SQLite, the local inbox
as relay), as a pure function. Never starts anything: ``mailgate up`` does.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from urllib.parse import quote

from mailgate.config.relays import Relay
from mailgate.config.shape import Broker, Config, Journal
from mailgate.model.address import Address

#: The relay that stands for the local inbox.
INBOX = "inbox"

#: The path of a Unix socket has at most 107 bytes (sockaddr_un).
_SOCKET_PATH = 100


def socket_path(state_dir: Path) -> Path:
    """Where the embedded broker listens.

    In the temporary directory when the path is too long, or no URL and no shell would take
    it as it is.
    """
    path = state_dir.absolute() / "valkey.sock"
    if len(str(path).encode()) <= _SOCKET_PATH and quote(str(path)) == str(path):
        return path
    digest = hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"mailgate-{digest}" / "valkey.sock"


def embeds_broker(config: Config) -> bool:
    return config.broker.url is None


def embeds_inbox(config: Config) -> bool:
    return not config.relays


def shows_captured(config: Config) -> bool:
    """Whether the local inbox is where captured mail can be looked at."""
    return config.sandbox.mode == "capture" and config.sandbox.inbox is None


def complete(config: Config) -> Config:
    """``config`` with nothing left open."""
    changes: dict[str, object] = {}
    state = config.state_dir.absolute()
    if embeds_broker(config):
        changes["broker"] = Broker(url=f"redis+socket://{socket_path(state)}")
    if config.journal.url is None:
        changes["journal"] = Journal(url=f"sqlite:///{state / 'journal.db'}")
    if embeds_inbox(config):
        relay = Relay(
            host=config.inbox.host,
            port=config.inbox.smtp_port or 1025,
            security="none",
            # What is local is quick, and an inbox that is down comes back soon.
            max_connections=4,
            connect_timeout=5,
        )
        changes["relays"] = {INBOX: relay}
        sender = Address("noreply@mailgate.localhost", "mailgate")
        changes["streams"] = {
            name: stream if stream.sender else stream.model_copy(update={"sender": sender})
            for name, stream in config.streams.items()
        }
    return config.model_copy(update=changes)
