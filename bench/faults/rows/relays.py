"""Relays that drop, reset, hang and answer by halves; and the usual mix of refusals."""

from __future__ import annotations

from collections import defaultdict

from bench.faults.fault import Run, fault
from tests.acceptance.stage import gaps, mails

#: What is deferred is tried again after this (seconds), and no later than so much more: there
#: may be all of the others to send first.
RETRY, LATE = 1.0, 2.0
SETTINGS = {
    "streams.transactional.retry.first": f"{RETRY:g}s",
    "streams.transactional.retry.factor": "1",
    # Greylisting asks for minutes.
    "streams.transactional.retry.cap": "1s",
    "streams.transactional.retry.jitter": "0",
    "streams.bulk.retry.first": "1s",
    "streams.bulk.uncertain": "hold",
    "relays.sink.dot_timeout": "2s",
    # Many troubles in a row would open a breaker, and each conversation counts here.
    "breakers.relay.failures": "1000",
    "breakers.domain.failures": "1000",
}
#: Of the usual mix: the kind and class of each attempt.
STORIES = {
    "n": [("sent", "")],
    "hard": [("bounce", "unknown_address")],
    "soft": [("defer", "greylisted"), ("sent", "")],
    "dot": [("defer", "relay_full"), ("sent", "")],
}
CUTS = ("drop", "reset", "half", "mute")


@fault(
    "relay-cuts",
    "after the dot the relay drops, resets, answers by half or never; 1,000 mails",
    "100% uncertain, none silently sent",
)
def relay_cuts(run: Run) -> None:
    each = run.many(100, 10)
    plans = {cut: [cut, "250"] for cut in CUTS}
    scene = run.stage("valkey", "postgresql", settings=SETTINGS, plans=plans)
    documents = []
    for cut in CUTS:
        documents += mails(each, to=cut)
        documents += mails(each, to=cut, domain="hold.example", stream="bulk")
    documents += mails(2 * each)
    run.random.shuffle(documents)
    scene.intake()
    scene.worker(2)
    scene.publish(documents)
    scene.wait_finished(len(documents), 60 + len(documents) / 20)
    held, again = 4 * each, 4 * each
    states = {"sent": again + 2 * each, "uncertain": held}
    account = run.reckon(scene, documents, states=states, uncertain=held + again)
    run.note(cut=held + again)
    assert account.uncertain == held + again
    assert account.repeated == again
    rows = scene.journal.rows(
        "SELECT r.email, a.kind, a.phase FROM attempts a JOIN recipients r"
        " ON r.id = a.recipient_id ORDER BY a.id"
    )
    told = defaultdict(list)
    for row in rows:
        told[row["email"]].append((row["kind"], row["phase"]))
    for email, story in told.items():
        cut, hold = not email.startswith("n+"), email.endswith("hold.example")
        wanted = [("uncertain", "dot")] * cut + [("sent", "dot")] * (not (cut and hold))
        assert story == wanted, (email, story)


@fault(
    "relay-mix",
    "10% bounce, 5% are deferred, 5% are refused at the dot first",
    "the right state, class, number and schedule of attempts for each",
)
def relay_mix(run: Run) -> None:
    many = run.many(4000, 200)
    plans = {
        "hard": ["550 5.1.1 No such user"],
        "soft": ["451 4.7.1 Greylisted", "250"],
        "dot": ["dot 452 4.3.1 Out of space", "250"],
    }
    scene = run.stage("rabbitmq", "sqlite", settings=SETTINGS, plans=plans)
    documents = [
        *mails(many // 10, to="hard"),
        *mails(many // 20, to="soft"),
        *mails(many // 20, to="dot"),
        *mails(many - many // 10 - 2 * (many // 20)),
    ]
    run.random.shuffle(documents)
    scene.intake()
    scene.worker(2)
    scene.publish(documents)
    scene.wait_finished(many, 60 + many / 20)
    states = {"bounced": many // 10, "sent": many - many // 10}
    run.reckon(scene, documents, states=states, uncertain=0)
    rows = scene.journal.rows(
        "SELECT r.email, r.attempts, a.kind, a.error_class FROM recipients r"
        " JOIN attempts a ON a.recipient_id = r.id ORDER BY a.id"
    )
    told = defaultdict(list)
    for row in rows:
        told[row["email"]].append((row["kind"], row["error_class"]))
        assert row["attempts"] == 1 + row["email"].startswith(("soft", "dot")), row
    for email, story in told.items():
        assert story == STORIES[email.partition("+")[0]], (email, story)
    # The schedule: no sooner than it says, and not long after.
    waits = gaps(scene.relay.book(), "soft") + gaps(scene.relay.book(), "dot")
    run.note(soonest_try_after=round(min(waits), 2), latest_try_after=round(max(waits), 2))
    assert len(waits) == 2 * (many // 20)
    assert min(waits) >= RETRY - 0.1
    assert max(waits) <= RETRY + LATE
