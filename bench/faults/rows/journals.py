"""A journal that stops, dies in the middle of a commit, or hangs up on everybody."""

from __future__ import annotations

import contextlib
import time

import psycopg

from bench.faults.fault import Run, fault
from bench.faults.rows.kills import conversations
from tests.acceptance.stage import Stage, mails, until
from tests.acceptance.stage.load import Document
from tests.servers import Postgres

QUICK = {"intake.batch": "50", "worker.conversations": "10", "worker.lease": "3s"}
SLOW = {"n": ["slow 0.05"]}
#: Transactions of others that have written something and have not ended.
_WRITING = (
    "SELECT backend_xid::text FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
)


def _kill_amid_a_transaction(scene: Stage, server: Postgres) -> list[str]:
    """SIGKILL within a moment of seeing that something is written and not committed.

    Gives the numbers of those transactions.
    """
    seen: list[str] = []
    dsn = server.dsn(scene.url.rpartition("/")[2])
    with contextlib.closing(psycopg.connect(dsn, autocommit=True)) as watch:

        def writing() -> bool:
            seen[:] = (row[0] for row in watch.execute(_WRITING))
            return bool(seen)

        until(lambda: any(writing() for _ in range(50)), 20, scene.logs)
        server.kill()
    return seen


def _cut_short(scene: Stage, server: Postgres, transactions: list[str]) -> int:
    """How many of them the server, back again, knows as not committed."""
    dsn = server.dsn(scene.url.rpartition("/")[2])
    with contextlib.closing(psycopg.connect(dsn, autocommit=True)) as asking:
        query = "SELECT pg_xact_status(%s::xid8)"
        said = []
        for number in transactions:
            try:
                said.append(asking.execute(query, [number]).fetchone())
            except psycopg.errors.InvalidParameterValue:
                # Nothing of it was ever on disk: the server counts on from before it.
                said.append(("aborted",))
    return said.count(("aborted",))


@fault(
    "postgresql-kills",
    "PostgreSQL dies by SIGKILL 10 times under load, with a transaction half written",
    "0 lost; no ack without a commit; uncertain ≤ conversations open at the kills",
)
def postgresql_kills(run: Run) -> None:
    each, times = run.many(500, 150), run.many(10, 1)
    scene = run.stage("rabbitmq", "postgresql", settings=QUICK, plans=SLOW)
    intake, worker = scene.intake(), scene.worker(2)
    scene.wait_for_workers(2)
    server = run.ground.postgres
    documents: list[Document] = []
    open_then = cut_short = 0
    for n in range(times):
        lot = mails(each, to=f"n{n}")
        scene.publish(lot)
        documents += lot
        time.sleep(0.1 + run.random.random())
        run.strike()
        written = _kill_amid_a_transaction(scene, server)
        open_then += conversations(scene, worker)
        lot = mails(each, to=f"away{n}")
        scene.publish(lot)
        documents += lot
        time.sleep(run.random.random())
        server.start()
        run.lift()
        cut_short += bool(_cut_short(scene, server, written))
        scene.wait_accepted(len(documents))
    scene.wait_finished(len(documents), 120)
    run.recovered(scene)
    run.note(kills=times, transactions_cut_short=cut_short, open_at_kills=open_then)
    assert cut_short > 0 or times < 5, "none died with a transaction half written"
    assert intake.running
    assert worker.running
    run.reckon(scene, documents, uncertain=open_then)


@fault(
    "postgresql-stopped",
    "PostgreSQL is away for longer than a lease",
    "a worker without a journal sends nothing; 0 uncertain",
)
def postgresql_stopped(run: Run) -> None:
    many = run.many(3000, 400)
    scene = run.stage("rabbitmq", "postgresql", settings=QUICK, plans=SLOW)
    documents = mails(many)
    first, rest = documents[: many // 2], documents[many // 2 :]
    intake, worker = scene.intake(), scene.worker(2)
    scene.wait_for_workers(2)
    before = sorted(scene.journal.workers(within=20))
    scene.publish(first)
    until(lambda: len(scene.relay.taken()) >= many // 10, 60, scene.logs)
    server = run.ground.postgres
    run.strike()
    server.stop()
    scene.publish(rest)
    # What was claimed is sent; then there is silence, however much waits.
    time.sleep(2)
    quiet = len(scene.relay.book())
    time.sleep(3)
    assert len(scene.relay.book()) == quiet
    server.start()
    run.lift()
    scene.wait_finished(many, 90)
    run.recovered(scene)
    run.note(taken_before=quiet)
    assert intake.running
    assert worker.running
    assert sorted(scene.journal.workers(within=20)) == before
    assert scene.journal.one("SELECT count(*) FROM parked") == 0
    run.reckon(scene, documents, uncertain=0)


@fault(
    "postgresql-hangs-up",
    "PostgreSQL ends every session, again and again, under load",
    "0 lost, 0 uncertain: nobody is away for a lease",
)
def postgresql_hangs_up(run: Run) -> None:
    many = run.many(5000, 400)
    scene = run.stage("valkey", "postgresql", settings=QUICK, plans={"n": ["slow 0.02"]})
    scene.intake()
    scene.worker(2)
    scene.wait_for_workers(2)
    documents = mails(many)
    scene.publish(documents)
    dsn = run.ground.postgres.dsn("postgres")
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
    database = scene.environment["MAILGATE_JOURNAL__URL"].rpartition("/")[2]
    ended = 0
    with psycopg.connect(dsn, autocommit=True) as admin:
        for _ in range(run.many(100, 8)):
            time.sleep(0.1 + 0.2 * run.random.random())
            run.strike()
            row = admin.execute(query, [database]).fetchone()
            assert row is not None
            ended += row[0]
            run.lift()
    scene.wait_finished(many, 90 + many / 50)
    run.recovered(scene)
    run.note(sessions_ended=ended)
    assert ended > 0, "nobody was there"
    run.reckon(scene, documents, uncertain=0)
