"""New versions rolled out under load; several beats, and none."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from bench.faults.fault import Run, fault
from tests.acceptance.stage import Program, Stage, mails, until


def has_lease(scene: Stage, worker: Program) -> bool:
    return bool(set(worker.children()) & set(scene.journal.workers()))


@fault(
    "rolling-restarts",
    "20 rolling SIGTERM restarts of intake and workers under load; the schema becomes newer",
    "0 lost, 0 uncertain, 0 copies more",
)
def rolling_restarts(run: Run) -> None:
    times = run.many(20, 3)
    each = 120
    many = each * (times + 2)
    scene = run.stage(
        "valkey", "postgresql", settings={"intake.batch": "20"}, plans={"n": ["slow 0.1"]}
    )
    documents = mails(many)
    intake, workers = scene.intake(), [scene.worker(1), scene.worker(1)]
    scene.wait_for_workers(2)
    stops = []
    for n in range(times):
        if n == times // 2:
            _upgrade(scene)
        scene.publish(documents[each * n : each * (n + 1)])
        intake.wait_ready()
        until(lambda n=n: has_lease(scene, workers[n % 2]), 20, scene.logs)
        scene.wait_accepted(each * n + 1)
        begun = time.monotonic()
        run.strike()
        for old in (intake, workers[n % 2]):
            old.signal(signal.SIGTERM)
        for old in (intake, workers[n % 2]):
            assert old.wait(30) == 0, old.tail()
        stops.append(time.monotonic() - begun)
        intake, workers[n % 2] = scene.intake(), scene.worker(1)
        run.lift()
    scene.publish(documents[each * times :])
    scene.wait_finished(many, 60)
    run.recovered(scene)
    run.note(restarts=times, longest_stop=round(max(stops), 1))
    account = run.reckon(scene, documents, uncertain=0)
    assert account.copies == many


def _upgrade(scene: Stage) -> None:
    """What the next version's migration may do, under the programs of this one.

    A column more in every table, a table more and a newer number: none of the programs
    that run or start may mind.
    """
    engine = sa.create_engine(scene.environment["MAILGATE_JOURNAL__URL"])
    with engine.begin() as connection:
        for table in sa.inspect(connection).get_table_names():
            if table != "alembic_version":
                connection.exec_driver_sql(f'ALTER TABLE "{table}" ADD COLUMN future TEXT')
        connection.exec_driver_sql("CREATE TABLE future (id BIGINT PRIMARY KEY)")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()


@fault(
    "beat-doubled-and-absent",
    "mail that is deferred or expires, and a schedule: without any beat, and with three",
    "retries and ends need no beat; three fire once",
)
def beats(run: Run) -> None:
    settings = {
        "streams.transactional.retry.first": "1s",
        "streams.transactional.retry.factor": "1",
        "streams.transactional.retry.cap": "1s",
        "breakers.relay.failures": "1000",
        "breakers.domain.failures": "1000",
        "schedules.tick.cron": "* * * * *",
        "schedules.tick.producer": "default",
        "schedules.tick.subject": "Each minute",
        "schedules.tick.text": "Another one.",
        "schedules.tick.recipients": '["tick@example.com"]',
    }
    plans = {"soft": ["451 4.7.1 Greylisted", "250"], "never": ["451 4.7.1 Greylisted"]}
    scene = run.stage("rabbitmq", "sqlite", settings=settings, plans=plans)
    scene.intake()
    scene.worker(1)
    soon = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    without = mails(50, to="soft") + mails(10, to="never", expires_at=soon)
    scene.publish(without)
    scene.wait_finished(60, 30)
    beat = [scene.begin("beat") for _ in range(3)]
    for one in beat:
        until(lambda one=one: "beat" in one.tail(), 20)
    more = mails(50, to="soft", domain="three.example")
    scene.publish(more)
    scene.wait_finished(110, 30)
    tick = {"to": ["tick@example.com"]}
    until(lambda: scene.relay.taken()["tick@example.com"] > 0, 75, scene.logs)
    # Whoever would fire once more does it now.
    time.sleep(3)
    scene.wait_finished(111, 30)
    run.strike()
    beat[0].kill()
    run.lift()
    codes = [b.stop() for b in beat[1:]]
    assert codes == [0, 0], (codes, scene.logs())
    fires = scene.journal.rows("SELECT state FROM fires")
    run.note(fires=len(fires))
    assert len(fires) == 1
    states = {"sent": 101, "expired": 10}
    run.reckon(scene, [*without, *more, tick], states=states, uncertain=0)
