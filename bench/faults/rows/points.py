"""A process dies at each named point of the path, on both brokers and both databases."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.faults.fault import Run, fault
from bench.faults.ground import PAIRS
from bench.faults.rows.kills import SOON
from mailgate.failpoints import POINTS
from tests.acceptance.stage import Told, mails, until

#: Of operators' commands, of events and of digests: their faults are elsewhere.
_NOT_HERE = ("resend.", "events.", "digest.")
#: Come to with each mail; the others with each batch or turn.
_EACH_MAIL = ("smtp.", "render.")
#: Below this size only a few points.
SMALL = 0.02
#: Come to once or twice in the life of a process.
_SELDOM = ("smtp.in_body", "smtp.connecting")
#: Larger than what goes out in one write, so that there is a place between body and dot.
_LARGE = {"text": "A long story. " * 6000}


def path() -> list[str]:
    """The points that a mail's way leads through."""
    return [name for name in POINTS if not name.startswith(_NOT_HERE)]


#: For when there is little time: one of each kind of thing that a death leaves behind.
FEW = (
    "intake.before_commit",
    "intake.after_commit",
    "take.before_commit",
    "take.claimed",
    "smtp.marked",
    "smtp.after_dot",
    "smtp.after_reply",
    "settle.before_commit",
    "settle.after_commit",
    "events.before_mark",
    "burial.before_commit",
)


def die_at(
    run: Run,
    names: list[str],
    times: int,
    broker: str,
    journal: str,
    patience: float = 120.0,
    action: str = "kill",
    **more: Any,
) -> None:
    """Mails flow until each of the points has killed ``times`` processes.

    ``patience`` (seconds) is for 63 mails, ``more`` for the stage. With the action
    ``raise`` nobody dies: what a conversation meets then is held, before its dot.
    """
    settings = SOON | {"intake.batch": "10", "worker.conversations": "10"}
    scene = run.stage(broker, journal, settings=settings, plans={"n": ["slow 0.02"]}, **more)

    def when(name: str) -> int:
        if name in _SELDOM or name.startswith("burial."):
            return 1
        return run.random.randint(1, 25 if name.startswith(_EACH_MAIL) else 3)

    told = Told(scene.broker if broker == "rabbitmq" else scene.redis())
    scene.arm(",".join(f"{name}={action}@{when(name)}*{times}" for name in names))
    intake = scene.keep(scene.intake)
    workers = [scene.keep(lambda: scene.worker(2)), scene.keep(lambda: scene.worker(1))]
    documents = []
    wanted = Counter(dict.fromkeys(names, times))
    # Many more than it takes: a death elsewhere begins the count of another point anew.
    for lap in range(100):
        lot = mails(60, to=f"n{lap}") + mails(3, to=f"large{lap}", **_LARGE)
        for n, document in enumerate(lot):
            if n % 2:  # with and without a key
                document["id"] = f"{lap}-{n}"
        documents += lot
        scene.publish(lot)
        scene.wait_finished(len(documents), patience)
        if wanted <= Counter(name for name, _ in scene.fired()):
            break
    for one in (intake, *workers):
        one.leave()
    wanted_events = scene.journal.one("SELECT count(*) FROM events")
    until(lambda: len(told.ids()) >= wanted_events, 30, scene.logs)
    run.note(events=wanted_events, events_repeated=len(told.events()) - wanted_events)
    assert len(told.ids()) == wanted_events
    fired = Counter(name for name, _ in scene.fired())
    run.note(deaths=sum(fired.values()), points=len(names))
    assert fired == wanted, f"nobody came there often enough: {wanted - fired}"
    # A death leaves at most what was open in its process; that there are no more copies
    # than outcomes on record is the oracle's.
    held = scene.journal.states().get("held", 0)
    inside = [name for name in fired.elements() if name.startswith(_EACH_MAIL)]
    assert held <= (len(inside) if action == "raise" else 0)
    run.note(held=held)
    states = {"sent": len(documents) - held} | ({"held": held} if held else {})
    run.reckon(scene, documents, states=states, uncertain=10 * fired.total())


def _enter(broker: str, journal: str) -> None:
    @fault(
        f"points-{broker}-{journal}",
        f"a process dies at each of the {len(path())} points, 20 times each; {broker}, {journal}",
        "each point is come to",
    )
    def points(run: Run) -> None:
        names = path() if run.size >= SMALL else list(FEW)
        die_at(run, names, run.many(20, 1), broker, journal)


for _pair in PAIRS:
    _enter(*_pair)


@fault(
    "points-raise",
    "an exception, as a bug would raise it, at each of the points, 20 times each",
    "0 lost; before the dot held for a person, after it uncertain",
)
def points_raise(run: Run) -> None:
    names = [n for n in path() if not n.startswith("burial.")]
    die_at(run, names, run.many(20, 1), *run.random.choice(PAIRS), action="raise")
