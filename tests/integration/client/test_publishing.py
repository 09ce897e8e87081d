"""Publishing on real brokers: confirmed, once, through faults, threads and forks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mailgate.client import Client, Message, NoQueue, NotPublished, Refused
from mailgate.client.amqp_way import AmqpWay
from mailgate.contract import Submission, read
from mailgate.intake.doors import open_doors
from tests.servers import Valkey, Vhost
from tests.servers.process import free_port

MESSAGE = Message(to="ann@example.com", template="welcome")
QUEUE = "mailgate.inbox"


async def arrived(url: str) -> list[Submission]:
    """What the gateway's door has there; the door makes the queue."""
    [door, *_] = open_doors(url, QUEUE)
    await door.open()
    found = []
    while batch := await door.receive(1000, 0.3):
        found += batch
        await door.done(batch)
    await door.close()
    read_ = [read(d.body, max_bytes=10**7) for d in found]
    assert all(isinstance(one, Submission) for one in read_)
    return read_  # type: ignore[return-value]


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Any:
    """A broker on which mailgate has run."""
    server = request.getfixturevalue(request.param)
    asyncio.run(arrived(server.url))
    return server


@contextlib.contextmanager
def client_of(broker: Any, **options: Any) -> Iterator[Client]:
    with Client(broker.url, producer="shop", **options) as made:
        yield made


def test_a_message_is_confirmed_and_arrives(broker: Any) -> None:
    with client_of(broker) as client:
        receipts = [client.publish(MESSAGE) for _ in range(3)]
    found = asyncio.run(arrived(broker.url))
    assert [s.idempotency_key for s in found] == [r.idempotency_key for r in receipts]
    assert {s.producer for s in found} == {"shop"}


async def test_coroutines_publish_too(broker: Any) -> None:
    async with Client(broker.url) as client:
        receipts = await asyncio.gather(*(client.apublish(MESSAGE) for _ in range(50)))
    found = await arrived(broker.url)
    assert {s.idempotency_key for s in found} == {r.idempotency_key for r in receipts}
    assert len(found) == 50


def test_threads_share_a_client(broker: Any) -> None:
    with client_of(broker) as client, ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(client.publish, [MESSAGE] * 200))
    found = asyncio.run(arrived(broker.url))
    assert {s.idempotency_key for s in found} == {r.idempotency_key for r in receipts}
    assert len(found) == 200


def test_a_forked_child_publishes_and_leaves_its_parents_connections_alone(broker: Any) -> None:
    with client_of(broker) as client:
        client.publish(MESSAGE)
        locked, go = threading.Event(), threading.Event()

        def hold() -> None:
            with client._lock:
                locked.set()
                go.wait(10)

        holder = threading.Thread(target=hold)
        holder.start()
        locked.wait(10)
        children = []
        for _ in range(4):
            if (pid := os.fork()) == 0:
                status = 1
                try:
                    client.publish(MESSAGE)
                    client.close()
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        go.set()
        holder.join()
        client._deadline = 0.0  # what our children did must cost us no second try
        client.publish(MESSAGE)
    assert codes == [0] * 4
    assert len(asyncio.run(arrived(broker.url))) == 6


def test_a_restart_between_two_messages_costs_no_error(valkey: Valkey) -> None:
    with Client(valkey.url, mandatory=False, deadline=30.0) as client:
        client.publish(MESSAGE)
        valkey.stop()
        starter = threading.Timer(0.2, valkey.start)
        starter.start()
        second = client.publish(MESSAGE)
        starter.join()
    # The tests' Valkey keeps nothing over a restart.
    [found] = asyncio.run(arrived(valkey.url))
    assert found.idempotency_key == second.idempotency_key


def test_a_connection_that_was_cut_while_idle_costs_no_try(rabbitmq: Vhost) -> None:
    asyncio.run(arrived(rabbitmq.url))
    with Client(rabbitmq.url, deadline=0.0) as client:
        client.publish(MESSAGE)
        [way] = client._ways
        assert isinstance(way, AmqpWay)
        way._idle[0].connection.sock.shutdown(socket.SHUT_RDWR)
        client.publish(MESSAGE)
    assert len(asyncio.run(arrived(rabbitmq.url))) == 2


def test_a_broker_that_is_away_is_one_error_with_all_that_another_try_needs(broker: Any) -> None:
    scheme = broker.url.partition("://")[0]
    dead = f"{scheme}://user:hunter2@127.0.0.1:{free_port()}/"
    begun = time.monotonic()
    with Client(dead, deadline=0.3) as client, pytest.raises(NotPublished) as caught:
        client.publish(MESSAGE)
    assert 0.1 < time.monotonic() - begun < 3
    assert "hunter2" not in str(caught.value)
    with client_of(broker) as client:
        receipt = client.publish_raw(caught.value.body)
    [found] = asyncio.run(arrived(broker.url))
    assert caught.value.idempotency_key == found.idempotency_key == receipt.idempotency_key


def test_a_call_may_have_a_deadline_of_its_own() -> None:
    client, begun = Client(f"redis://127.0.0.1:{free_port()}/", deadline=60), time.monotonic()
    with client, pytest.raises(NotPublished):
        client.publish(MESSAGE, deadline=0.1)
    assert time.monotonic() - begun < 5


async def test_a_coroutine_gets_the_same_error(broker: Any) -> None:
    scheme = broker.url.partition("://")[0]
    async with Client(f"{scheme}://127.0.0.1:{free_port()}/", deadline=0.1) as client:
        with pytest.raises(NotPublished):
            await client.apublish(MESSAGE)


def test_the_second_url_serves_when_the_first_is_dead(broker: Any) -> None:
    scheme = broker.url.partition("://")[0]
    both = f"{scheme}://127.0.0.1:{free_port()}/;{broker.url}"
    with Client(both) as client:
        receipts = [client.publish(MESSAGE) for _ in range(3)]
    assert len(asyncio.run(arrived(broker.url))) == len(receipts)


@pytest.mark.parametrize("server", ["valkey", "rabbitmq"])
def test_a_missing_queue_is_an_error(server: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(server).url
    with Client(url, deadline=0.2) as client, pytest.raises(NoQueue, match="has mailgate been"):
        client.publish(MESSAGE)


def test_what_the_broker_refuses_is_not_tried_again(rabbitmq: Vhost, valkey: Valkey) -> None:
    wrong = rabbitmq.url.replace(":secret@", ":wrong@")
    for url in (wrong, valkey.url.replace("redis://", "redis://nobody:wrong@")):
        begun = time.monotonic()
        with Client(url, deadline=30) as client, pytest.raises(Refused):
            client.publish(MESSAGE)
        assert time.monotonic() - begun < 5


def test_a_virtual_host_that_is_not_there_is_refused_at_once(rabbitmq: Vhost) -> None:
    url = rabbitmq.url.rpartition("/")[0] + "/no%2Fsuch"
    with Client(url, deadline=30) as client, pytest.raises(Refused, match="no/such"):
        client.publish(MESSAGE)


def test_a_full_queue_is_an_error(rabbitmq: Vhost) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    rabbitmq.api("PUT", "/api/queues/{vhost}/full", {"durable": True, "arguments": arguments})
    with Client(rabbitmq.url, queue="full", deadline=0.2) as client:
        client.publish(MESSAGE)
        with pytest.raises(NotPublished, match="the queue is full"):
            client.publish(MESSAGE)


def test_a_full_redis_is_an_error_that_passes(valkey: Valkey) -> None:
    asyncio.run(arrived(valkey.url))
    with valkey.client() as admin, Client(valkey.url, deadline=0.2) as client:
        admin.config_set("maxmemory", 1)
        try:
            with pytest.raises(NotPublished, match="maxmemory") as caught:
                client.publish(MESSAGE)
        finally:
            admin.config_set("maxmemory", 0)
        assert type(caught.value) is NotPublished
        client.publish(MESSAGE)


def test_replicas_that_are_wanted_and_missing_are_an_error(valkey: Valkey) -> None:
    asyncio.run(arrived(valkey.url))
    client = Client(valkey.url, replicas=1, timeout=0.2, deadline=0.1)
    with client, pytest.raises(NotPublished, match="0 of 1 replicas"):
        client.publish(MESSAGE)


class Cutting:
    """A proxy that hands the first message on, and cuts the connection before the answer."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.cuts = 0
        self._target = port
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threads.append(threading.Thread(target=self._serve, args=(client,)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                for one in select.select([client, server], [], [], 10)[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    (server if one is client else client).sendall(data)
                    if one is client and b"welcome" in data and not self.cuts:
                        self.cuts += 1
                        select.select([server], [], [], 10)  # it has been taken
                        return

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


def test_a_connection_lost_before_the_confirm_makes_no_second_mail(broker: Any) -> None:
    """The broker may have it twice; the key is one, and by that the gateway knows it."""
    node: int = broker.port if isinstance(broker, Valkey) else broker.node.port
    proxy = Cutting(node)
    with Client(broker.url.replace(f":{node}/", f":{proxy.port}/")) as client:
        receipt = client.publish(MESSAGE)
    proxy.close()
    found = asyncio.run(arrived(broker.url))
    assert (proxy.cuts, len(found)) == (1, 2)
    assert {s.identity() for s in found} == {receipt.idempotency_key}
    assert len({s.body_hash for s in found}) == 1
