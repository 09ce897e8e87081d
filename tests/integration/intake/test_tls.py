"""The doors over TLS: verified by default, and what TLS holds back is not forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import amqp
import pytest
import trustme

from mailgate.amqp_servers import servers
from mailgate.intake.amqp_link import connection
from mailgate.intake.rabbitmq import RabbitDoor
from mailgate.intake.redis_stream import StreamDoor
from tests.servers import Valkey, Vhost


@contextlib.asynccontextmanager
async def behind_tls(port: int, authority: trustme.CA) -> AsyncIterator[int]:
    """A port that speaks TLS before a server that does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    copying: set[asyncio.Task[None]] = set()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        for pair in ((reader, inner_writer), (inner_reader, writer)):
            task = asyncio.create_task(copy(*pair))
            copying.add(task)
            task.add_done_callback(copying.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(copying):
            task.cancel()
        await asyncio.gather(*copying, return_exceptions=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    made = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    made.cert_pem.write_to_path(path)
    return made, path


async def test_amqps_brings_every_message(rabbitmq: Vhost, opened, gather, authority) -> None:
    ca, ca_file = authority
    with connection(*servers(rabbitmq.url)) as made:
        channel = made.channel()
        channel.queue_declare("tls", durable=True, auto_delete=False)
        channel.confirm_select()
        for n in range(300):
            channel.basic_publish_confirm(amqp.Message(bytes(n * 50)), routing_key="tls")
    async with behind_tls(rabbitmq.node.port, ca) as port:
        url = rabbitmq.url.replace("amqp://", "amqps://").replace(
            f":{rabbitmq.node.port}/", f":{port}/"
        )
        door = await opened(RabbitDoor(f"{url}?ssl_ca_certs={ca_file}", "tls"))
        found = await gather(door, 300)
        assert [len(d.body) for d in found] == [n * 50 for n in range(300)]
        assert await door.done(found)
        await door.close()


async def test_amqps_refuses_a_certificate_that_nobody_vouches_for(
    rabbitmq: Vhost, opened, authority
) -> None:
    told: list[str] = []
    async with behind_tls(rabbitmq.node.port, authority[0]) as port:
        url = f"amqps://guest:guest@127.0.0.1:{port}/"
        door = await opened(RabbitDoor(url, "tls", trouble=told.append))
        async with asyncio.timeout(15):
            while not told:
                await door.receive(1, 0.1)
        await door.close()
    assert "CERTIFICATE_VERIFY_FAILED" in told[0]


async def test_rediss_brings_messages(valkey: Valkey, opened, gather, authority) -> None:
    ca, ca_file = authority
    with valkey.client() as client:
        client.xadd("mailgate:inbox", {"message": "one"})
    async with behind_tls(valkey.port, ca) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ca_file}"
        door = await opened(StreamDoor(url, "mailgate:inbox"))
        [one] = await gather(door, 1)
        assert (one.body, await door.done([one])) == (b"one", True)
        await door.close()
