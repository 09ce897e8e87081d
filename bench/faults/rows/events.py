"""Publishers of events die before and after a batch has gone out: nothing stays untold."""

from __future__ import annotations

from bench.faults.fault import Run, fault
from bench.faults.ground import PAIRS
from bench.faults.rows.kills import SOON
from tests.acceptance.stage import mails, until
from tests.integration.events.listeners import expected, first_of_each, listen

_POINTS = ("events.before_send", "events.before_mark", "events.written")


def _enter(broker: str, journal: str) -> None:
    @fault(
        f"events-{broker}-{journal}",
        f"publishers of events die around a batch, 20 times at each point; {broker}, {journal}",
        "every event is told, a recipient's in order; repeats keep their ids",
    )
    def events(run: Run) -> None:
        times = run.many(20, 1)
        scene = run.stage(broker, journal, settings=SOON)
        ear = listen(scene.broker, "shop")
        scene.arm(",".join(f"{name}=kill@{run.random.randint(1, 2)}*{times}" for name in _POINTS))
        # Two, so that one is alive; whoever dies has the lease, which has to run out.
        intakes = [scene.keep(scene.intake) for _ in range(2)]
        scene.worker(2)
        deaths = times * len(_POINTS)
        documents = []

        def told() -> bool:
            waits = "SELECT count(*) FROM events WHERE id > (SELECT reached FROM outbox)"
            return bool(scene.journal.one(waits) == 0)

        for lap in range(40 * times):
            lot = mails(20, to=f"n{lap}", producer="shop")
            documents += lot
            scene.publish(lot)
            scene.wait_finished(len(documents))
            # Each death to come may cost the rest of a lease.
            until(told, max(60, 8 * (deaths - len(scene.fired()))), scene.logs)
            if len(scene.fired()) == deaths:
                break
        for one in intakes:
            one.leave()
        assert len(scene.fired()) == deaths, scene.fired()
        heard = ear.heard("shop")
        written = scene.journal.rows("SELECT * FROM events ORDER BY id")
        assert first_of_each(heard) == expected(written)
        run.note(deaths=deaths, events=len(written), twice=len(heard) - len(written))
        run.reckon(scene, documents, uncertain=0)


for _broker, _journal in PAIRS:
    _enter(_broker, _journal)
