"""A transaction stands whole or not at all, and a journal that was away is found again."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from mailgate.journal import database
from mailgate.journal.database import Database, JournalAway, packed
from tests.contract.journal.rig import Rig, arrival
from tests.servers import Postgres

FACT = sa.text("INSERT INTO facts (name, value) VALUES (:name, 'x')")


def fact(name: str) -> Callable[[sa.Connection], object]:
    return lambda c: c.execute(FACT, {"name": name})


def facts(journal: Rig) -> list[str]:
    return [r.name for r in journal.all("SELECT name FROM facts ORDER BY name")]


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
def test_an_exception_leaves_nothing(journal: Rig, error: type[BaseException]) -> None:
    def work(c: sa.Connection) -> None:
        fact("a")(c)
        raise error

    with pytest.raises(error):
        journal.database.run_now(work)
    journal.database.run_now(fact("b"))
    assert facts(journal) == ["b"]


def test_a_fault_of_ours_is_told_as_it_is_and_leaves_nothing(journal: Rig) -> None:
    """A duplicate or wrong SQL is a bug: to wait for the journal would be to wait for ever."""

    def twice(c: sa.Connection) -> None:
        fact("a")(c)
        fact("a")(c)

    with pytest.raises(IntegrityError):
        journal.database.run_now(twice)
    assert facts(journal) == []
    journal.database.run_now(fact("b"))
    assert facts(journal) == ["b"]


async def test_a_cancelled_caller_does_not_undo_what_has_begun(journal: Rig) -> None:
    begun, go = threading.Event(), threading.Event()

    def work(c: sa.Connection) -> None:
        begun.set()
        assert go.wait(10)
        fact("a")(c)

    task = asyncio.create_task(journal.database.run(work))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert (
        await journal.database.read(
            lambda c: c.exec_driver_sql("SELECT count(*) FROM facts").scalar()
        )
        == 1
    )


async def test_the_event_loop_runs_while_the_journal_works(journal: Rig) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    task = asyncio.create_task(beat())
    await journal.database.run(lambda c: time.sleep(0.3))
    task.cancel()
    assert beats > 10


def test_readers_do_not_wait_for_a_writer(processes: Callable[[], Rig]) -> None:
    one, two = processes(), processes()
    writing, end = threading.Event(), threading.Event()

    def work(c: sa.Connection) -> None:
        fact("a")(c)
        writing.set()
        assert end.wait(10)

    thread = threading.Thread(target=one.database.run_now, args=(work,))
    thread.start()
    assert writing.wait(10)
    try:
        begun = time.monotonic()
        assert facts(two) == []
        assert time.monotonic() - begun < 2
    finally:
        end.set()
        thread.join()
    assert facts(two) == ["a"]


def test_writers_take_turns_and_lose_nothing(processes: Callable[[], Rig]) -> None:
    """Each reads first and then writes: the pattern that fails at once on SQLite without
    BEGIN IMMEDIATE, however long the timeout, and deadlocks on PostgreSQL."""
    rigs = [processes() for _ in range(4)]
    for name in "ab":
        rigs[0].sql("INSERT INTO facts (name, value) VALUES (:n, '0')", n=name)

    def raise_both(rig: Rig, order: str) -> None:
        def work(c: sa.Connection) -> None:
            lock = "" if rig.database.sqlite else " FOR UPDATE"
            if not rig.database.sqlite:
                c.exec_driver_sql("SET LOCAL deadlock_timeout = '20ms'")
            for name in order:
                values = {"n": name}
                read = sa.text(f"SELECT value FROM facts WHERE name = :n{lock}")
                value = int(c.execute(read, values).scalar_one())
                write = sa.text("UPDATE facts SET value = :v WHERE name = :n")
                c.execute(write, {"v": str(value + 1), **values})

        for _ in range(20):
            rig.database.run_now(work)

    threads = [
        threading.Thread(target=raise_both, args=(rig, order))
        for rig, order in zip(rigs, ["ab", "ba", "ab", "ba"], strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {r.value for r in rigs[0].all("SELECT value FROM facts")} == {"80"}


def test_a_deadlock_is_tried_again(
    migrated_postgres_url: str, rigs_of: Callable[[str], Rig]
) -> None:
    one, two = rigs_of(migrated_postgres_url), rigs_of(migrated_postgres_url)
    for name in "ab":
        one.sql("INSERT INTO facts (name, value) VALUES (:n, '0')", n=name)
    both = threading.Barrier(2)
    tries = []

    def work_in(order: str) -> Callable[[sa.Connection], None]:
        def work(c: sa.Connection) -> None:
            tries.append(order)
            c.exec_driver_sql("SET LOCAL deadlock_timeout = '20ms'")
            for name in order:
                c.execute(
                    sa.text("UPDATE facts SET value = value || 'x' WHERE name = :n"), {"n": name}
                )
                with suppress(threading.BrokenBarrierError):
                    both.wait(2)
                both.abort()  # only the first time

        return work

    thread = threading.Thread(target=one.database.run_now, args=(work_in("ab"),))
    thread.start()
    two.database.run_now(work_in("ba"))
    thread.join(20)
    assert {r.value for r in one.all("SELECT value FROM facts")} == {"0xx"}
    assert len(tries) == 3, "there was no deadlock"


def test_what_cannot_be_repeated_for_ever_is_away_in_the_end(
    migrated_postgres_url: str, rigs_of: Callable[[str], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers know how to wait for the journal, and nothing of the transaction stands."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    journal = rigs_of(migrated_postgres_url)
    tries = []

    def work(c: sa.Connection) -> None:
        tries.append(1)
        fact("a")(c)
        c.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$")

    with pytest.raises(JournalAway):
        journal.database.run_now(work)
    assert len(tries) > 3
    assert facts(journal) == []


# --- away --------------------------------------------------------------------------


def test_a_journal_that_was_never_there_is_away(tmp_path: Path) -> None:
    database = Database("postgresql+psycopg://nobody:hunter2@127.0.0.1:1/none")
    with pytest.raises(JournalAway) as caught:
        database.run_now(fact("a"))
    assert "hunter2" not in str(caught.value)
    database.close()
    database = Database(f"sqlite:///{tmp_path}/no/such/directory/journal.db")
    with pytest.raises(JournalAway):
        database.run_now(fact("a"))
    database.close()


def test_a_journal_that_comes_back_is_found_again(
    postgres_server: Postgres, migrated_postgres_url: str, rigs_of: Callable[[str], Rig]
) -> None:
    journal = rigs_of(migrated_postgres_url)
    journal.add(1)
    postgres_server.stop()
    # Whatever is tried first after the loss says the same.
    for what in (
        lambda: journal.database.run_now(fact("a")),
        lambda: journal.database.read_now(fact("a")),
        lambda: journal.heads(),
        lambda: journal.database.set_clock(),
    ):
        with pytest.raises(JournalAway):
            what()
    postgres_server.start()
    journal.database.run_now(fact("b"))
    assert facts(journal) == ["b"]
    assert len(journal.claim(journal.lease())) == 1


@pytest.mark.parametrize("first", ["run_now", "read_now", "set_clock"])
def test_a_lost_connection_is_away_once_and_then_replaced(
    migrated_postgres_url: str, rigs_of: Callable[[str], Rig], first: str
) -> None:
    """As after a restart of the server between two looks."""
    journal, other = rigs_of(migrated_postgres_url), rigs_of(migrated_postgres_url)
    journal.database.run_now(fact("a"))
    other.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    call = getattr(journal.database, first)
    with pytest.raises(JournalAway):
        call(*([] if first == "set_clock" else [fact("b")]))
    journal.database.run_now(fact("c"))
    assert facts(journal) == ["a", "c"]
    journal.database.set_clock()


def test_a_connection_lost_before_commit_leaves_nothing(
    migrated_postgres_url: str, rigs_of: Callable[[str], Rig]
) -> None:
    journal, other = rigs_of(migrated_postgres_url), rigs_of(migrated_postgres_url)

    def work(c: sa.Connection) -> None:
        fact("a")(c)
        pid = c.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        other.sql("SELECT pg_terminate_backend(:pid)", pid=pid)
        time.sleep(0.05)

    with pytest.raises(JournalAway):
        journal.database.run_now(work)
    assert facts(journal) == []


def test_a_server_that_takes_no_writes_is_away(
    migrated_postgres_url: str, rigs_of: Callable[[str], Rig]
) -> None:
    """A standby, or one that was made read-only for a while: the mail waits for its return."""
    journal = rigs_of(migrated_postgres_url)
    with pytest.raises(JournalAway):
        journal.database.run_now(
            lambda c: (c.exec_driver_sql("SET TRANSACTION READ ONLY"), fact("a")(c))
        )
    journal.database.run_now(fact("b"))
    assert facts(journal) == ["b"]


class CommitEater:
    """A proxy that lets a COMMIT through once and eats the reply: the connection is cut."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._target = port
        self.port = self._listener.getsockname()[1]
        self.armed, self._eating = False, False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if from_client and self.armed and b"COMMIT" in data:
                    self.armed, self._eating = False, True
                elif self._eating and not from_client:
                    self._eating = False
                    break  # the server's answer: it has committed
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def eaten(
    postgres_server: Postgres, migrated_postgres_url: str, rigs_of: Callable[[str], Rig]
) -> Iterator[tuple[Rig, CommitEater]]:
    proxy = CommitEater(postgres_server.port)
    url = re.sub(r":\d+/", f":{proxy.port}/", migrated_postgres_url)
    rig = rigs_of(url)
    yield rig, proxy
    rig.close()
    proxy.close()


def test_a_commit_without_an_answer_is_told_as_away_though_it_stands(
    eaten: tuple[Rig, CommitEater],
) -> None:
    journal, proxy = eaten
    journal.database.run_now(lambda c: None)
    proxy.armed = True
    with pytest.raises(JournalAway):
        journal.database.run_now(fact("a"))
    assert facts(journal) == ["a"]


def test_a_batch_whose_commit_was_not_answered_is_written_once(
    eaten: tuple[Rig, CommitEater],
) -> None:
    journal, proxy = eaten
    batch = [arrival("one"), arrival("two", identity="none:1:1", session=1)]
    journal.add(1)  # the bucket is there
    proxy.armed = True
    with pytest.raises(JournalAway):
        journal.store(*batch)
    assert journal.count("messages") == 3
    stored = journal.store(*batch)
    assert (stored.accepted, stored.repeated) == (0, 2)
    assert journal.count("recipients") == 3
    # What has to be forgotten after the acknowledgement is still known.
    assert stored.unacked == stored.ids[1:]


# --- rows as one JSON text ------------------------------------------------------------


def test_rows_keep_their_kinds_and_their_order(journal: Rig) -> None:
    database = journal.database
    columns = {"number": "bigint", "words": "text", "yes": "boolean", "absent": "text"}
    source = database.rows(columns)
    rows = [(2**62 + n, f'"{n}', n % 2 == 0, None) for n in range(30)]
    found = database.read_now(
        lambda c: c.execute(sa.text(f"SELECT * FROM {source}"), {"rows": packed(rows)}).all()
    )
    assert [(r.number, r.words, bool(r.yes), r.absent) for r in found] == rows


def test_what_is_committed_is_on_the_disk(migrated_file: Path) -> None:
    """FULL (2): WAL alone would lose the last commits with the power."""
    database = Database(f"sqlite:///{migrated_file}")
    try:
        said = database.read_now(
            lambda c: (
                c.exec_driver_sql("PRAGMA synchronous").scalar_one(),
                c.exec_driver_sql("PRAGMA journal_mode").scalar_one(),
            )
        )
    finally:
        database.close()
    assert said == (2, "wal")


def test_the_journals_clock_is_the_databases(journal: Rig) -> None:
    assert abs(journal.database.now() - time.time() * 1000) < 200


def test_a_step_of_this_hosts_clock_does_not_move_the_journals(
    migrated_postgres_url: str, rigs_of: Callable[[str], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = rigs_of(migrated_postgres_url)
    journal.database.run_now(lambda c: None)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    assert abs(journal.database.now() - real() * 1000) < 200
    journal.database.set_clock()
    assert abs(journal.database.now() - real() * 1000) < 200


def test_a_wrong_statement_is_no_outage(journal: Rig) -> None:
    wrong = "INSERT INTO facts (name, value) VALUES (NULL, 'x')"
    with pytest.raises(IntegrityError):
        journal.database.run_now(lambda c: c.exec_driver_sql(wrong))
    with pytest.raises(IntegrityError):
        journal.database.read_now(lambda c: c.exec_driver_sql(wrong))
    with pytest.raises(DBAPIError):
        journal.database.run_now(lambda c: c.exec_driver_sql("SELECT * FROM no_such_table"))
    assert facts(journal) == []


def test_plans_are_made_anew_as_tables_grow(
    sqlite_url: str, migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL keeps a plan of the time when its tables were empty; SQLite goes by none."""
    monkeypatch.setattr(database, "_PLAN_AGAIN", -1.0)
    said: list[str] = []

    def hear(_c: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", hear)
    try:
        for url, renewed in ((sqlite_url, 0), (migrated_postgres_url, 2)):
            said.clear()
            with closing(Database(url)) as journal:
                for name in "abc":
                    journal.run_now(fact(name))
            assert said.count("DISCARD PLANS") == renewed
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", hear)
