"""Operators who all do the same at once, stop in the middle, and are killed there."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

from bench.faults.fault import Run, fault
from tests.acceptance.stage import mails, until

#: The letter is to blame, and nobody else: no breaker, and no suppression.
PLANS = {"no": ["554 5.4.6 Routing loop", "250"]}


def _failures(run: Run, many: int, journal: str) -> tuple[Any, list[Any]]:
    scene = run.stage("valkey", journal, plans=PLANS)
    documents = mails(many, to="no")
    scene.publish(documents)
    scene.intake()
    scene.wait_accepted(many)
    worker = scene.worker(2)
    scene.wait_finished(many, 60 + many / 50)
    assert set(scene.journal.states()) <= {"bounced", "failed"}
    # Whatever is sent again waits until we have looked.
    scene.relay.freeze()
    assert worker.running
    return scene, documents


@fault(
    "resend-race",
    "ten operators resend the same failures at once",
    "1 new attempt each, on record once",
)
def resend_race(run: Run) -> None:
    many = run.many(100, 5)
    scene, documents = _failures(run, many, "postgresql")
    said: list[int] = []

    def resend() -> None:
        command = ("failures", "resend", "--since", "1h", "--reason", "race", "--yes", "--json")
        said.append(json.loads(scene.run(*command).stdout)["resend"])

    hands = [threading.Thread(target=resend) for _ in range(10)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    scene.relay.thaw()
    scene.wait_finished(many)
    run.note(operators=10, said=sorted(said)[-3:])
    assert sum(said) == many
    run.reckon(scene, documents, uncertain=0)
    assert len(scene.relay.book()) == 2 * many
    assert scene.journal.one("SELECT sum(count) FROM actions WHERE verb = 'resend'") == many


@fault(
    "resend-interrupted",
    "5,000 failures are resent with progress; Ctrl-C, SIGKILL before and after a commit",
    "each sent exactly once",
)
def resend_interrupted(run: Run) -> None:
    many = run.many(5000, 1100)
    scene, documents = _failures(run, many, run.random.choice(("postgresql", "sqlite")))
    # Who was started in the background ignores Ctrl-C, and so does all that it starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command = ("failures", "resend", "--since", "1h", "--reason", "test", "--yes")

    def moved() -> int:
        left = scene.journal.one(
            "SELECT count(*) FROM recipients WHERE state IN ('bounced', 'failed')"
        )
        return many - int(left)

    # Killed with the first chunk written and not committed: nothing is done.
    scene.arm("resend.before_commit=kill")
    killed = scene.begin(*command)
    assert killed.wait(30) == -signal.SIGKILL
    assert moved() == 0
    # Killed right after the first commit: that chunk is done, nobody was rung for it.
    scene.arm("resend.after_commit=kill")
    killed = scene.begin(*command)
    assert killed.wait(30) == -signal.SIGKILL
    first = moved()
    assert 0 < first < many
    # Ctrl-C while it stands between two chunks.
    scene.arm("resend.after_commit=sleep:1*3")
    stopped = scene.begin(*command)
    until(lambda: moved() > first, 30, stopped.tail)
    run.strike()
    stopped.signal(signal.SIGINT)
    run.lift()
    assert stopped.wait(30) == 1, stopped.tail()
    assert "the same command goes on from there" in stopped.tail()
    second = moved()
    assert first < second < many
    # The same command once more does the rest, and says how far it is.
    scene.disarm()
    done = scene.run(*command)
    assert f"{many - second} recipients" in done.stdout
    assert f"{many - second} of {many - second}" in done.stderr
    scene.relay.thaw()
    scene.wait_finished(many, 60 + many / 50)
    run.recovered(scene)
    run.note(after_kill=first, after_ctrl_c=second)
    run.reckon(scene, documents, uncertain=0)
    assert len(scene.relay.book()) == 2 * many
    assert scene.journal.one("SELECT sum(count) FROM actions WHERE verb = 'resend'") == many
