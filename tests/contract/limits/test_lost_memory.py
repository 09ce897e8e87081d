"""The store away, wiped, restarted or replaced: what was given before is not given again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from mailgate.config.terms import Rate
from mailgate.journal.tables import whole
from mailgate.limits.memory import Use
from mailgate.limits.redis import RedisLimiter, clients
from mailgate.limits.rules import MAX_HORIZON, Ask, Grant, Limiter, LimiterAway, Refusal
from tests.contract.limits.stores import opened
from tests.servers import Postgres, Valkey
from tests.servers.process import Daemon, accepts, free_port
from tests.servers.valkey import server_program
from tests.unit.limits.promise import fullest

ASK = Ask((("global", Rate(2, 1.0)),))
SLOW = Ask((("slow", Rate(2, 60.0)),))


@asynccontextmanager
async def limiter(url: str, *, new: bool = False) -> AsyncIterator[RedisLimiter]:
    """A worker's limiter; ``new``: its journal shows an installation that sent nothing yet."""

    async def nothing_given() -> bool:
        return new

    store = RedisLimiter(url, nothing_given=nothing_given)
    try:
        yield store
    finally:
        await store.close()


async def waited_out(store: Limiter) -> None:
    """The store has just lost its memory: each limit waits for its own period and the horizon."""
    short, long = await store.reserve([ASK, SLOW], 0.4)
    assert isinstance(short, Refusal)
    assert isinstance(long, Refusal)
    # An asker comes back half a horizon early.
    assert MAX_HORIZON + 0.5 < short.wait <= MAX_HORIZON + 1.0
    assert MAX_HORIZON + 59 < long.wait <= MAX_HORIZON + 60.1


async def test_a_new_installation_sends_at_once(valkey: Valkey) -> None:
    async with limiter(valkey.broker_url, new=True) as store:
        [answer] = await store.reserve([ASK], 0.4)
    assert isinstance(answer, Grant)
    assert answer.opens <= time.monotonic() + 0.02


async def test_an_unknown_store_is_waited_out_and_then_gives(valkey: Valkey) -> None:
    async with limiter(valkey.broker_url) as store:
        await waited_out(store)
        [refused] = await store.reserve([ASK], 0.4)
        assert isinstance(refused, Refusal)
        await asyncio.sleep(refused.wait)
        [answer] = await store.reserve([ASK], 0.4)
        assert isinstance(answer, Grant)


async def test_a_wiped_store_is_waited_out(valkey: Valkey) -> None:
    async with limiter(valkey.broker_url, new=True) as store:
        await store.reserve([ASK, SLOW], 0.4)
    async with limiter(valkey.broker_url) as store:
        [known] = await store.reserve([ASK], 0.4)
        assert isinstance(known, Grant)
        with valkey.client() as client:
            client.flushall()
        await waited_out(store)


async def test_other_workers_wait_as_well_when_one_finds_the_store_wiped(valkey: Valkey) -> None:
    async with limiter(valkey.broker_url, new=True) as first, limiter(valkey.url) as second:
        await first.reserve([ASK], 0.4)
        await second.reserve([ASK], 0.4)
        with valkey.client() as client:
            client.flushall()
        await waited_out(second)
        await waited_out(first)


#: All of the slow one may go at once, and then one in three minutes.
BOTH = (("fast", Rate(30, 1.0)), ("slow", Rate(20, 3600.0, 20)))


class Mail:
    """Workers that send what they get permits for, and the book of it that they share."""

    def __init__(self) -> None:
        self.book: list[tuple[str, float]] = []
        self.recalled = 0
        self._working = True

    async def recall(self) -> list[tuple[str, Rate, list[Use]]]:
        self.recalled += 1
        await asyncio.sleep(0.05)
        now = time.monotonic()
        return [
            (key, rate, [Use(int((now - at) * 1e6), 1) for k, at in self.book if k == key])
            for key, rate in BOTH
        ]

    async def work(self, url: str) -> None:
        async def nothing_given() -> bool:
            return not self.book

        store = RedisLimiter(url, nothing_given=nothing_given, recall=self.recall)
        asks = [Ask(BOTH), Ask(BOTH[:1])]
        try:
            while self._working:
                await asyncio.sleep(0.01)
                try:
                    said = await store.reserve(asks, 0.4)
                except LimiterAway:
                    continue
                for ask, answer in zip(asks, said, strict=True):
                    if isinstance(answer, Grant):
                        await asyncio.sleep(max(0.0, answer.opens - time.monotonic()))
                        now = time.monotonic()
                        if now <= answer.closes:
                            self.book += [(key, now) for key, _ in ask.keys]
        finally:
            await store.close()

    def stop(self) -> None:
        self._working = False

    def times(self, key: str) -> list[float]:
        return sorted(at for k, at in self.book if k == key)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_wiped_store_goes_on_as_the_journal_remembers(
    server_directory: Path, restarted: bool
) -> None:
    """Under load: never above, soon again, and rebuilt by one worker of four."""
    server = Valkey(server_directory / "rebuilt")
    mail = Mail()

    async def until(key: str, count: int) -> None:
        while len(mail.times(key)) < count:
            await asyncio.sleep(0.01)

    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as workers:
            for _ in range(4):
                workers.create_task(mail.work(server.broker_url))
            with server.client() as client:
                await until("slow", 3)
                client.save()
                await until("slow", 8)
                if not restarted:
                    client.flushall()
            if restarted:
                server.kill()
                server.start()
            before, lost = len(mail.times("fast")), time.monotonic()
            await until("slow", len(mail.times("slow")) + 5)
            again = time.monotonic() - lost
            await until("fast", before + 40)
            mail.stop()
    finally:
        server.stop()
    assert again < 4.0
    assert mail.recalled == 1
    # 20 of the slow one's, and no other for three minutes; a permit that came too late is lost.
    assert len(mail.times("slow")) <= 20
    assert fullest(mail.times("fast"), 1.0) <= 30


async def test_a_killed_store_gives_nothing_and_comes_back_by_itself(valkey: Valkey) -> None:
    async with limiter(valkey.broker_url, new=True) as store, limiter(valkey.url) as other:
        await store.reserve([ASK], 0.4)
        await other.reserve([ASK], 0.4)
        valkey.kill()
        for one in (store, other):
            begun = time.monotonic()
            with pytest.raises(LimiterAway):
                await one.reserve([ASK], 0.4)
            assert time.monotonic() - begun < 1.0
        # What needs no limit needs no store.
        assert isinstance((await store.reserve([Ask(())], 0.4))[0], Grant)
        valkey.start()
        await waited_out(other)


async def test_a_frozen_store_gives_nothing_within_seconds(valkey: Valkey) -> None:
    async with limiter(valkey.broker_url, new=True) as store:
        await store.reserve([ASK], 0.4)
        valkey.freeze()
        try:
            begun = time.monotonic()
            with pytest.raises(LimiterAway):
                await store.reserve([ASK], 0.4)
            assert time.monotonic() - begun < 3.0
        finally:
            valkey.thaw()
        # Nothing was forgotten: no wait but the limit's own.
        [answer] = await store.reserve([Ask((("other", Rate(2, 1.0)),))], 0.4)
        assert isinstance(answer, Grant)


async def test_a_store_that_came_back_with_an_old_snapshot_is_waited_out(
    server_directory: Path,
) -> None:
    """The epoch is in the snapshot, the last permits are not."""
    server = Valkey(server_directory / "snapshots")
    try:
        async with limiter(server.broker_url, new=True) as store:
            await store.reserve([ASK], 0.4)
            with server.client() as client:
                client.save()
            await store.reserve([SLOW, SLOW, ASK], 0.4)
        server.kill()
        server.start()
        with server.client() as client:
            assert client.get("mailgate:{permits}:epoch") is not None
        async with limiter(server.broker_url) as store:
            await waited_out(store)
    finally:
        server.stop()


async def test_databases_of_one_server_lose_their_memory_each_for_itself(valkey: Valkey) -> None:
    async with limiter(f"{valkey.url[:-1]}0", new=True) as store:
        await store.reserve([ASK], 0.4)
    async with limiter(f"{valkey.url[:-1]}1") as store:
        with valkey.client() as client:
            client.select(1)
            client.set("mailgate:{permits}:epoch", 0)  # as from an old snapshot
        await waited_out(store)


async def test_the_next_of_several_stores_is_used_and_waited_out(
    valkey: Valkey, server_directory: Path
) -> None:
    spare = Valkey(server_directory / "spare")
    try:
        async with limiter(f"{valkey.broker_url};{spare.url}") as store:
            with valkey.client() as client:
                client.set("x", 1)
            await waited_out(store)
            valkey.kill()
            await waited_out(store)
            spare.kill()
            with pytest.raises(LimiterAway):
                await store.reserve([ASK], 0.4)
    finally:
        spare.stop()


async def test_a_master_is_found_through_sentinels(valkey: Valkey, server_directory: Path) -> None:
    port = free_port()
    directory = server_directory / "sentinel"
    directory.mkdir()
    settings = directory / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor mail 127.0.0.1 {valkey.port} 1\n"
    )
    daemon = Daemon(
        [server_program(), str(settings), "--sentinel"],
        log=directory / "log",
        ready=lambda: accepts(port),
    )
    try:
        url = f"sentinel://127.0.0.1:{port}/2?master_name=mail;sentinel://127.0.0.1:1"
        async with limiter(url, new=True) as store:
            [answer] = await store.reserve([ASK], 0.4)
            assert isinstance(answer, Grant)
        with valkey.client() as client:
            client.select(2)
            assert client.exists("mailgate:{permits}:key:global")
    finally:
        daemon.stop()


async def test_a_store_that_refuses_the_password_gives_nothing(valkey: Valkey) -> None:
    async with limiter(valkey.url.replace("redis://", "redis://nobody:wrong@")) as store:
        with pytest.raises(LimiterAway, match=r"AUTH|password|WRONGPASS"):
            await store.reserve([ASK], 0.4)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+socket:///run/a.sock?virtual_host=3", {"path": "/run/a.sock", "db": 3}),
        ("redis+socket://:p%40ss@/run/a.sock", {"path": "/run/a.sock", "password": "p@ss"}),
        ("unix:///run/a.sock?db=3", {"path": "/run/a.sock", "db": 3}),
        ("redis://u:p@h:7/5", {"host": "h", "port": 7, "db": 5, "username": "u", "password": "p"}),
        ("rediss://h/1", {"host": "h", "db": 1}),
    ],
)
def test_urls_lead_where_they_say(url: str, expected: dict[str, object]) -> None:
    [client] = clients(url)
    said = client.connection_pool.connection_kwargs
    assert {key: said.get(key) for key in expected} == expected


async def test_a_journal_that_is_away_gives_nothing_and_comes_back_by_itself(
    postgres_server: Postgres, postgres_url: str
) -> None:
    engine = sa.create_engine(postgres_url)
    whole().create_all(engine)
    with engine.begin() as connection:
        # The tests' server may forget its last commits; a real one may not.
        name = sa.make_url(postgres_url).database
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET synchronous_commit = on')
    engine.dispose()
    async with opened("postgres", postgres_url) as store:
        assert isinstance((await store.reserve([SLOW], 0.4))[0], Grant)
        postgres_server.kill()
        with pytest.raises(LimiterAway):
            await store.reserve([SLOW], 0.4)
        postgres_server.start()
        answers = await store.reserve([SLOW] * 2, 0.4)
        assert [type(answer) for answer in answers] == [Grant, Refusal]
