"""SIGKILL at random moments: workers, their children, intake, and the producer itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.faults.fault import Run, fault
from bench.faults.ground import PAIRS
from tests.acceptance.stage import Kept, Program, Stage, connections_to, mails, until
from tests.acceptance.stage.proc import alive
from tests.acceptance.stage.stage import ROOT

#: What failed is tried again soon, and intake has many batches to be killed in.
SOON = {
    "streams.transactional.retry.first": "1s",
    "streams.transactional.retry.factor": "1",
    "intake.batch": "50",
    # Chance may hit the same few again and again, and that is no poison.
    "worker.max_claims": "100",
}
#: The relay takes its time over the dot, so that kills meet open conversations.
SLOW = {"n": ["slow 0.05"]}

#: A silent process is dead after the lease; the sweep looks again within half of one (seconds).
LEASE, SWEEP = 5.0, 2.5


@contextmanager
def claims_of_the_dead(run: Run, scene: Stage) -> Iterator[list[float]]:
    """How long (seconds) mail has been found claimed by a process that is gone, for each.

    From when somebody lives who can bury it and goes on living: kills may meet one after the
    other before they have looked. A claim under no lease at all has no living owner either.
    """
    query = (
        "SELECT DISTINCT r.lease_id AS lease, l.pid AS pid FROM recipients r"
        " LEFT JOIN leases l ON l.id = r.lease_id WHERE r.state = 'sending'"
    )
    # By lease: from when, and who has lived since then.
    since: dict[int | None, tuple[float, set[int]]] = {}
    found: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            rows = scene.journal.rows(query)
            others = scene.journal.rows("SELECT pid FROM leases WHERE kind = 'worker'")
            able = {row["pid"] for row in others if alive(row["pid"])}
            now = time.time()
            theirs = {r["lease"] for r in rows if r["pid"] is None or not alive(r["pid"])}
            for lease in theirs:
                begun, able_then = since.get(lease, (now, able))
                since[lease] = (begun, able & able_then) if able & able_then else (now, able)
            for lease in since.keys() - theirs:
                found.append(now - since.pop(lease)[0])

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield found
    finally:
        over.set()
        watch.join()


def kill(scene: Stage, pid: int) -> int:
    """SIGKILL one process; gives how many conversations it had open at most.

    It is frozen first, so that what is counted is what the kill meets.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        open_now = len(connections_to(pid, scene.relay.port))
        os.kill(pid, signal.SIGKILL)
        return open_now
    return 0


def conversations(scene: Stage, worker: Program, port: int = 0) -> int:
    """How many connections a worker's children have to the relay, or to who stands before it."""
    return sum(len(connections_to(child, port or scene.relay.port)) for child in worker.children())


def kill_one(run: Run, scene: Stage, workers: list[Kept]) -> int:
    """A child, a parent, or a whole worker at once; gives how many conversations were open."""
    worker = run.random.choice(workers).program
    children = [p for p in worker.children() if p in scene.journal.workers()]
    how = run.random.choice(("child", "child", "parent", "all"))
    open_then = 0
    run.strike()
    if how == "child" and children:
        open_then += kill(scene, run.random.choice(children))
    elif how == "all":
        open_then += sum(kill(scene, child) for child in children)
        worker.signal(signal.SIGKILL)
    else:
        # Its children go after it, and whatever they have open may end anyhow.
        open_then += conversations(scene, worker)
        worker.signal(signal.SIGKILL)
    run.lift()
    return open_then


def kills(run: Run, broker: str, journal: str) -> None:
    many, times = run.many(10_000, 1200), run.many(50, 4)
    settings = SOON | {"worker.lease": f"{LEASE:g}s"}
    scene = run.stage(broker, journal, settings=settings, plans=SLOW)
    documents = mails(many)
    scene.publish(documents)
    intake = scene.keep(scene.intake)
    workers = [scene.keep(lambda: scene.worker(1)), scene.keep(lambda: scene.worker(1))]
    open_then = 0
    with claims_of_the_dead(run, scene) as claims:
        for n in range(times):
            share = (n + run.random.random()) / times * 0.9
            until(lambda s=share: sum(scene.relay.taken().values()) >= s * many, 120, scene.logs)
            open_then += kill_one(run, scene, workers)
            if run.random.random() < 0.3:
                intake.program.signal(signal.SIGKILL)
        scene.wait_finished(many, 120 + many / 20)
    for one in (intake, *workers):
        one.leave()
    run.recovered(scene)
    run.note(kills=times, open_at_kills=open_then)
    run.note(burials=len(claims), longest_claim_of_the_dead=round(max(claims), 1))
    assert max(claims) <= LEASE + SWEEP, "the mail of the dead stays theirs"
    run.reckon(scene, documents, uncertain=open_then)


@fault(
    "worker-kills",
    "a worker, its child or both die by SIGKILL 50 times in 10,000 mails; so does intake",
    "uncertain ≤ conversations open at the kills; the dead's mail is free in a lease and a sweep",
)
def worker_kills(run: Run) -> None:
    kills(run, *run.random.choice(PAIRS))


def _intake(run: Run, door: str) -> None:
    """Without any key, and with twins that only their delivery tells apart."""
    many = run.many(2000, 200)
    broker = "rabbitmq" if door == "amqp" else "valkey"
    scene = run.stage(broker, "sqlite", settings={"intake.batch": "7"})
    documents = mails(many)
    twin = {"to": ["twin@example.com"], "subject": "Again", "text": "The same."}
    twins = [twin] * (many // 10)
    half = many // 2
    # On AMQP a delivery without an id has no name: a kill could take one for another.
    lot = documents if door == "amqp" else [*documents[:half], *twins, *documents[half:]]
    scene.publish(lot, door=door)
    for share in (0.2, 0.6):
        intake = scene.intake()
        scene.wait_accepted(int(many * share))
        run.strike()
        intake.kill()
        run.lift()
    scene.intake()
    if door == "amqp":
        scene.wait_accepted(many)
        scene.publish(twins)
    scene.wait_accepted(many + len(twins))
    time.sleep(0.5)
    rows = scene.journal.rows("SELECT email, count(*) AS n FROM recipients GROUP BY email")
    found = {row["email"]: row["n"] for row in rows}
    run.note(mails=many + len(twins), rows=sum(found.values()), lost=many - len(found) + 1)
    assert found.pop("twin@example.com") == len(twins)
    assert set(found.values()) == {1}
    assert len(found) == many


@fault("intake-kills-amqp", "intake dies by SIGKILL; mails without any key, RabbitMQ", "1 row each")
def intake_kills_amqp(run: Run) -> None:
    _intake(run, "amqp")


@fault("intake-kills-stream", "the same over a Redis stream, with twins", "1 row each")
def intake_kills_stream(run: Run) -> None:
    _intake(run, "stream")


@fault("intake-kills-list", "the same over a Redis list, with twins", "1 row each")
def intake_kills_list(run: Run) -> None:
    _intake(run, "list")


_PRODUCER = """
import os, signal, sys
from tests.acceptance.stage.load import mails, publish_amqp, publish_stream
broker, many, socket, dies, at_chunk = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]

def die():
    print(dies, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def before_the_word():
    # All is written, and whoever would read the broker's answer dies instead.
    if broker.startswith("amqp"):
        import amqp
        amqp.Connection.drain_events = lambda *_, **__: die()
    else:
        from redis.connection import AbstractConnection
        AbstractConnection.read_response = lambda *_, **__: die()

lot = [mail | {"idempotency_key": f"k{n}"} for n, mail in enumerate(mails(many))]
for at in range(0, many, 10):
    chunk = lot[at : at + 10]
    here = at // 10 == int(at_chunk)
    if broker.startswith("amqp"):
        publish_amqp(broker, chunk, ready=before_the_word if here and dies == "before" else None)
    else:
        import redis
        client = redis.Redis(unix_socket_path=socket)
        client.ping()
        if here and dies == "before":
            before_the_word()
        publish_stream(client, chunk)
    if here and dies == "after":
        die()
    print(at + len(chunk), flush=True)
"""


def _producers(run: Run, broker: str, journal: str) -> None:
    many = run.many(2000, 200)
    scene = run.stage(broker, journal, settings=SOON)
    scene.intake()
    scene.worker(1)
    socket = scene.broker.removeprefix("redis+socket://")
    command = [sys.executable, "-c", _PRODUCER, scene.broker, str(many), socket]
    died: Counter[str] = Counter()
    for n in range(run.many(60, 6)):
        dies = ("before", "after", "anywhere")[n % 3]
        producer = subprocess.Popen(
            [*command, dies, str(run.random.randrange(15))],
            stdout=subprocess.PIPE,
            cwd=Path(ROOT),
            env=scene.environment,
            text=True,
        )
        assert producer.stdout is not None
        if dies == "anywhere":
            for _ in range(run.random.randint(1, 15)):
                producer.stdout.readline()
            time.sleep(run.random.random() / 100)
            producer.kill()
        run.strike()
        said = producer.stdout.read().split()
        code = producer.wait(30)
        run.lift()
        producer.stdout.close()
        assert dies == "anywhere" or (code, said[-1]) == (-signal.SIGKILL, dies), (code, said)
        died[dies] += 1
    subprocess.run(
        [*command, "never", "-1"],
        cwd=ROOT,
        env=scene.environment,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    run.note(died=dict(died))
    scene.wait_finished(many)
    run.recovered(scene)
    run.reckon(scene, mails(many), uncertain=0)


@fault(
    "producer-kills-amqp",
    "a producer dies by SIGKILL before the broker's word, after it or anywhere, 20 times each,"
    " and says all of it again; RabbitMQ",
    "1 copy each",
)
def producer_kills_amqp(run: Run) -> None:
    _producers(run, "rabbitmq", "postgresql")


@fault("producer-kills-stream", "the same over a Redis stream", "1 copy each")
def producer_kills_stream(run: Run) -> None:
    _producers(run, "valkey", "sqlite")
