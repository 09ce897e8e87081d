"""The ways to a broker: TLS, Sentinels, sockets, databases, virtual hosts, and time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import trustme

from mailgate.client import Client, Message, Refused
from tests.integration.intake.test_tls import behind_tls
from tests.servers import Daemon, Valkey, Vhost, free_port
from tests.servers.process import accepts
from tests.servers.valkey import server_program

MESSAGE = Message(to="ann@example.com", template="welcome")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    made = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    made.cert_pem.write_to_path(path)
    return made, path


@pytest.mark.parametrize("server", ["valkey", "rabbitmq"])
async def test_tls_is_verified(server: str, request: pytest.FixtureRequest, authority) -> None:
    ca, ca_file = authority
    broker = request.getfixturevalue(server)
    node: int = broker.port if isinstance(broker, Valkey) else broker.node.port
    async with behind_tls(node, ca) as port:
        plain = broker.url.replace(f":{node}/", f":{port}/")
        url = plain.replace("redis://", "rediss://").replace("amqp://", "amqps://")
        async with Client(f"{url}?ssl_ca_certs={ca_file}", mandatory=False) as client:
            await client.apublish(MESSAGE)
            await asyncio.to_thread(client.publish, MESSAGE)
        begun = time.monotonic()
        async with Client(url, deadline=30) as client:
            with pytest.raises(Refused, match="certificate is not to be trusted"):
                await client.apublish(MESSAGE)
            with pytest.raises(Refused, match="certificate is not to be trusted"):
                await asyncio.to_thread(client.publish, MESSAGE)
        assert time.monotonic() - begun < 10


async def test_the_master_is_found_through_sentinels(valkey: Valkey, tmp_path: Path) -> None:
    port = free_port()
    settings = tmp_path / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor mail 127.0.0.1 {valkey.port} 1\n"
    )
    daemon = Daemon(
        [server_program(), str(settings), "--sentinel"],
        log=tmp_path / "log",
        ready=lambda: accepts(port),
    )
    try:
        url = f"sentinel://127.0.0.1:{port}/2?master_name=mail;sentinel://127.0.0.1:1"
        async with Client(url, mandatory=False) as client:
            await asyncio.to_thread(client.publish, MESSAGE)
            await client.apublish(MESSAGE)
        with valkey.client() as admin:
            admin.select(2)
            assert admin.xlen("mailgate:inbox") == 2
    finally:
        daemon.stop()


@pytest.mark.parametrize("form", ["unix://{}?db=3", "redis+socket://{}?virtual_host=3"])
def test_a_socket_and_a_database(valkey: Valkey, form: str) -> None:
    with Client(form.format(valkey.socket), mandatory=False) as client:
        client.publish(MESSAGE)
    with valkey.client() as admin:
        admin.select(3)
        assert admin.xlen("mailgate:inbox") == 1


def test_a_queue_of_ones_own(valkey: Valkey, rabbitmq: Vhost) -> None:
    with Client(valkey.url, queue="shop.inbox", mandatory=False) as client:
        assert client.publish(MESSAGE).where.startswith("shop:inbox ")
    rabbitmq.api("PUT", "/api/queues/{vhost}/shop.inbox", {"durable": True})
    with Client(rabbitmq.url, queue="shop.inbox") as client:
        assert client.publish(MESSAGE).where == "shop.inbox"
