"""A process dies at each named point of the path, on both brokers and both databases."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from bench.faults.fault import Run, fault
from bench.faults.ground import PAIRS
from bench.faults.rows.kills import SOON
from mailgate.failpoints import POINTS
from tests.acceptance.stage import Stage, Told, mails, until
from tests.acceptance.stage.load import recipients
from tests.acceptance.stage.relay import busiest

#: Of operators' commands, of events and of digests: their faults are elsewhere.
_NOT_HERE = ("resend.", "events.", "digest.")
#: Come to with each mail; the others with each batch or turn.
_EACH_MAIL = ("smtp.", "render.")
#: Of whom dies here nobody can know what the relay has.
_PAST_THE_DOT = ("smtp.marked", "smtp.after_dot", "smtp.after_reply", "smtp.accepted")
#: Below this size only a few points.
SMALL = 0.02
#: Come to once or twice in the life of a process.
_SELDOM = ("smtp.in_body", "smtp.connecting")
#: The relay takes its time, so that what is cut has had no answer yet. Every other connection
#: is offered no pipelining, where commands go one by one.
PLANS = {"n": ["slow 0.02"], "large": ["slow 0.02"], "EHLO": ["", "plain"] * 500}
#: What the relay may be given a second, whoever dies with a permit in hand.
RATE = 40
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

    ``action`` is what a point does: ``kill``, ``raise``, or ``drop`` whoever is spoken to there.

    Of 63 recipients eight share a message with three others; with them go two bad documents.

    ``patience`` (seconds) is for them when few deaths are still to come: each of
    those is a start of a process, mostly of the one intake. ``more`` is for the stage.
    With the action ``raise`` nobody dies in a conversation: what it meets then is held,
    before its dot.
    """
    settings = SOON | {"intake.batch": "10", "worker.conversations": "10"}
    settings |= {"relays.sink.rate": f"{RATE}/s"}
    settings |= more.pop("settings", {})
    scene = run.stage(broker, journal, settings=settings, plans=PLANS, **more)

    def when(name: str) -> int:
        if name in _SELDOM or name.startswith("burial."):
            return 1
        return run.random.randint(1, 25 if name.startswith(_EACH_MAIL) else 3)

    told = Told(scene.broker if broker == "rabbitmq" else scene.redis())

    def does(name: str) -> str:
        return f"drop:{_spoken_to(scene, name)}" if action == "drop" else action

    scene.arm(",".join(f"{name}={does(name)}@{when(name)}*{times}" for name in names))
    intake = scene.keep(scene.intake)
    workers = [scene.keep(lambda: scene.worker(2)), scene.keep(lambda: scene.worker(1))]
    documents: list[Any] = []
    bad: list[bytes] = []
    wanted = Counter(dict.fromkeys(names, times))

    def aside() -> int:
        return int(scene.journal.one("SELECT count(DISTINCT body) FROM parked"))

    # Many more than it takes: a death elsewhere begins the count of another point anew.
    for lap in range(100):
        lot = mails(52, to=f"n+{lap}") + mails(3, to=f"large+{lap}", **_LARGE)
        for k, shared in enumerate(mails(2)):
            shared["to"] = [f"n+{lap}+shared{k}+{one}@example.com" for one in "abcd"]
            lot.append(shared)
        for n, document in enumerate(lot):
            if n % 2:  # with and without a key
                document["id"] = f"{lap}-{n}"
        documents += lot
        unfit = [f'{{"to": "nobody", "subject": "{lap}"}}'.encode(), f"{lap} is no JSON".encode()]
        bad.extend(unfit)
        scene.publish([*lot, *unfit])
        to_come = wanted.total() - len(scene.fired())
        scene.wait_finished(len(recipients(documents)), max(patience, 3.0 * to_come))
        until(lambda: aside() >= len(bad), patience, scene.logs)
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
    run.note(held=held)
    dots = sum(fired[name] for name in _PAST_THE_DOT)
    if action == "raise":
        # Each is one conversation's, and nobody else's.
        inside = sum(n for name, n in fired.items() if name.startswith(_EACH_MAIL))
        assert held == inside - dots, "not each before its dot is held"
        most = dots
    else:
        assert held == 0
        # Whoever dies may have as many dots out as it has conversations. Where its one is at
        # the point, what was read and marked is known.
        alone = settings["worker.conversations"] == "1"
        if action == "drop":
            dying = sum(
                n for name, n in fired.items() if _spoken_to(scene, name) == scene.relay.port
            )
        else:
            dying = sum(n for name, n in fired.items() if not name.startswith("intake."))
        most = dots - fired["smtp.accepted"] if alone else 10 * dying
    states = {"sent": len(recipients(documents)) - held} | ({"held": held} if held else {})
    account = run.reckon(scene, documents, states=states, uncertain=most, bad=bad)
    run.note(parked=account.parked)
    if action == "raise":
        assert account.uncertain == dots, "not each after its dot is uncertain"
    if action == "drop":
        early = "SELECT count(*) FROM attempts WHERE kind = 'uncertain' AND phase <> 'dot'"
        assert scene.journal.one(early) == 0, "uncertain before its dot"
    fullest = busiest([c.mail_at for c in scene.relay.book()], 1.0, scene.relay.stalls())
    run.note(fullest_second=fullest)
    assert fullest <= RATE, "a permit was spent twice"


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
    pair = run.random.choice(PAIRS)
    die_at(run, names, run.many(20, 1), *pair, action="raise")


@fault(
    "points-one-by-one",
    "a process with one conversation dies at each of its points but those between mark and"
    " answer, 20 times each, and intake at each of its own",
    "0 uncertain: the spool proves what was not sent and what was",
)
def points_one_by_one(run: Run) -> None:
    unknown = ("smtp.marked", "smtp.after_dot", "smtp.after_reply")
    # At those of a turn the conversation of the next mail may be between mark and answer.
    here = ("intake.", *_EACH_MAIL)
    names = [n for n in path() if n.startswith(here) and n not in unknown]
    settings = {"worker.conversations": "1"}
    die_at(run, names, run.many(20, 1), *run.random.choice(PAIRS), settings=settings)


#: Where the broker is spoken to, and neither the journal nor the relay.
_AT_THE_BROKER = ("intake.received", "intake.before_ack", "intake.after_ack", "ring.before")
#: No connection to whom is spoken to next is there yet, or need be.
_ALONE = ("smtp.connecting", "burial.")


def _spoken_to(scene: Stage, name: str) -> int | None:
    """The port of whoever is spoken to at this point: the relay, the journal or the broker."""
    if name.startswith(_EACH_MAIL):
        return scene.relay.port
    return urlsplit(scene.broker if name in _AT_THE_BROKER else scene.url).port


@fault(
    "points-drop",
    "all connections to the relay, the journal or the broker are cut at each point, 20 times each",
    "0 lost; before the dot tried again, after it uncertain",
)
def points_drop(run: Run) -> None:
    names = [n for n in path() if not n.startswith(_ALONE)]
    # What is cut off on purpose is no sign of a relay that is down.
    settings = {"breakers.relay.failures": "1000", "breakers.domain.failures": "1000"}
    pair = "rabbitmq", "postgresql"
    die_at(run, names, run.many(20, 1), *pair, action="drop", settings=settings)
    cut: Counter[str] = Counter()
    for line in (run.scene.directory / "dropped").read_text().splitlines():
        name, number = line.split()
        cut[name] += int(number)
    run.note(cut=cut.total())
    if run.size >= 0.5:
        # A single one may come when what it would cut was cut just before; and all of a burst
        # are rendered before the first connection is opened.
        nothing = [n for n in names if not cut[n] and not n.startswith("render.")]
        assert not nothing, f"nothing to cut: {nothing}"
