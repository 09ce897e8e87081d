"""SIGKILL in the middle of the work: all is accounted for, and nothing is repeated in silence."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.acceptance.conftest import FULL, Setting
from tests.acceptance.stage import Program, Stage, connections_to, mails, until
from tests.acceptance.stage.proc import alive

#: ``./dev faults`` asks for ten thousand, over every pair.
MANY = 10_000 if FULL else 1500
SOON = {
    "streams.transactional.retry.first": "1s",
    "streams.transactional.retry.factor": "1",
    "intake.batch": "100",
}


def kill(scene: Stage, pid: int) -> int:
    """SIGKILL one process; gives how many conversations it had open at most.

    It is frozen first, so that what is counted is what the kill meets.
    """
    os.kill(pid, signal.SIGSTOP)
    open_now = len(connections_to(pid, scene.relay.port))
    os.kill(pid, signal.SIGKILL)
    return open_now


def wait_taken(scene: Stage, count: int) -> None:
    until(lambda: sum(scene.relay.taken().values()) >= count, 120, scene.logs)


@pytest.mark.timeout(60 + MANY // 20)
@pytest.mark.parametrize(
    ("broker", "journal"),
    [("valkey", "sqlite"), ("rabbitmq", "postgresql")]
    + [("valkey", "postgresql"), ("rabbitmq", "sqlite")] * FULL,
)
def test_kills_in_the_middle_lose_nothing_and_repeat_only_what_is_uncertain(
    broker: str, journal: str, stage: Setting, figure: Any
) -> None:
    # The relay takes its time over the dot, so that kills meet open conversations.
    scene = stage(broker, journal, settings=SOON, plans={"n": ["slow 0.05"]})
    documents = mails(MANY)
    scene.publish(documents)
    begun = time.monotonic()
    intakes = [scene.intake()]
    workers = [scene.worker(1), scene.worker(1)]
    open_then = 0
    restarted: list[Program] = []

    scene.wait_accepted(MANY // 10)
    intakes[0].kill()
    restarted.append(scene.intake())

    # A worker's child: its parent starts another.
    wait_taken(scene, MANY // 8)
    [child] = [p for p in scene.journal.workers() if p in workers[0].children()]
    open_then += kill(scene, child)

    # A worker's parent: its child goes after it, and nobody starts another.
    wait_taken(scene, MANY // 3)
    [orphan] = workers[1].children()
    os.kill(orphan, signal.SIGSTOP)
    open_then += len(connections_to(orphan, scene.relay.port))
    workers[1].kill()
    os.kill(orphan, signal.SIGCONT)
    restarted.append(scene.worker(1))

    # A whole worker at once, as when the machine's memory runs out.
    wait_taken(scene, MANY // 2)
    for pid in workers[0].children():
        open_then += kill(scene, pid)
    workers[0].kill()
    restarted.append(scene.worker(1))

    scene.wait_finished(MANY, 60 + MANY / 20)
    took = time.monotonic() - begun
    until(lambda: not alive(orphan), 30)
    account = scene.account(documents)
    figure(
        broker=broker,
        journal=journal,
        mails=MANY,
        seconds=round(took, 1),
        open_at_kills=open_then,
        uncertain=account.uncertain,
        copies=account.copies,
        repeated=account.repeated,
    )
    assert account.clean, account
    assert account.states == {"sent": MANY}
    assert account.uncertain <= open_then
    assert account.repeated <= account.uncertain


@pytest.mark.parametrize("door", ["amqp", "stream", "list"])
def test_the_smallest_messages_survive_kills_of_intake_as_one_row_each(
    door: str, stage: Setting, figure: Any
) -> None:
    """Without any key, and with twins that only their delivery tells apart."""
    broker = "rabbitmq" if door == "amqp" else "valkey"
    scene = stage(broker, "sqlite", settings={"intake.batch": "7"})
    documents = mails(400)
    twins = [{"to": ["twin@example.com"], "subject": "Again", "text": "The same."}] * 60
    if door == "amqp":
        # There the delivery has no name either: a kill could take one for another.
        scene.publish(documents, door=door)
    else:
        scene.publish([*documents[:200], *twins, *documents[200:]], door=door)
    for share in (0.2, 0.6):
        intake = scene.intake()
        scene.wait_accepted(int(400 * share))
        intake.kill()
    seen = scene.journal.accepted()
    scene.intake()
    if door == "amqp":
        scene.wait_accepted(400)
        scene.publish(twins)
    scene.wait_accepted(460)
    time.sleep(0.5)
    rows = scene.journal.rows("SELECT email, count(*) AS n FROM recipients GROUP BY email")
    found = {row["email"]: row["n"] for row in rows}
    figure(door=door, accepted_at_last_kill=seen, rows=sum(found.values()))
    assert found.pop("twin@example.com") == 60
    assert set(found.values()) == {1}
    assert len(found) == 400
