"""What the SMTP tests share: envelopes, relays' settings, certificates."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from mailgate.config.relays import Relay
from mailgate.model.message import Envelope
from mailgate.smtp.pool import Pool

CONTENT = b"Subject: hello\r\n\r\nFirst line\r\n.dot first\r\n..\r\nlast\r\n"


def envelope(
    rcpt: str = "ann@example.net",
    content: bytes = CONTENT,
    mail_from: str = "bounces@example.com",
) -> Envelope:
    return Envelope(mail_from, rcpt, content)


def settings(port: int, **more: Any) -> Relay:
    """A relay's section with waits that suit tests."""
    values: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "connect_timeout": 5.0,
        "command_timeout": 5.0,
        "dot_timeout": 5.0,
        "max_connections": 4,
        "hostname": "client.example",
    }
    return Relay(**{**values, **more})


@pytest.fixture
async def pool_for() -> AsyncIterator[Callable[..., Pool]]:
    """``pool_for(relay, password=None, **options)`` makes a pool with the relay ``main``."""
    made: list[Pool] = []

    def make(relay: Relay, password: str | None = None, **options: Any) -> Pool:
        passwords = {} if password is None else {"main": password}
        made.append(Pool({"main": relay}, passwords, **options))
        return made[-1]

    yield make
    for pool in made:
        await pool.close(0.2)


class Authority:
    """A certificate authority of the tests."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def pem(self, name: str = "127.0.0.1", **options: Any) -> str:
        """Key and certificate, as a server's file."""
        made = self._ca.issue_cert(name, **options)
        return made.private_key_and_cert_chain_pem.bytes().decode()

    def server(self, name: str = "127.0.0.1", **options: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name, **options).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))
