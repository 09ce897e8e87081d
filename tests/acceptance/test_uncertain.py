"""The dot without an answer: all of it on record, repeated as the stream says, byte for byte."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from typing import Any

from tests.acceptance.conftest import FULL, Setting
from tests.acceptance.stage import Copy, connections_to, mails, until

#: Half of it on a stream that sends again, half on one that holds.
MANY = 1000 if FULL else 200
SETTINGS = {
    "streams.transactional.retry.first": "1s",
    "streams.transactional.retry.jitter": "0",
    "streams.bulk.retry.first": "1s",
    "streams.bulk.retry.jitter": "0",
    "streams.bulk.uncertain": "hold",
}
#: Two parts, so that there is a boundary to be the same.
BODY = {"html": "<p>This is <b>it</b>.</p>"}


def test_a_relay_that_drops_one_in_ten_after_the_dot(stage: Setting, figure: Any) -> None:
    scene = stage(
        "valkey", "postgresql", settings=SETTINGS, plans={"cut": ["drop", "250"], "n": ["250"]}
    )
    share = MANY // 20
    documents = []
    for domain, stream in (("again.example", "transactional"), ("hold.example", "bulk")):
        kind = {"domain": domain, "stream": stream, **BODY}
        whole = mails(MANY // 2 - share, **kind)
        # Among the others, as it comes.
        for n, cut in enumerate(mails(share, to="cut", **kind)):
            whole.insert(10 * n, cut)
        documents += whole
    scene.intake()
    scene.worker(2)
    scene.publish(documents)
    scene.wait_finished(MANY, 30 + MANY / 20)
    account = scene.account(documents)
    attempts = scene.journal.rows(
        "SELECT r.email, r.state, a.n, a.kind, a.phase, a.error_class FROM attempts a"
        " JOIN recipients r ON r.id = a.recipient_id ORDER BY r.email, a.n"
    )
    story: dict[str, list[str]] = defaultdict(list)
    for a in attempts:
        story[a["email"]].append(a["kind"])
    figure(
        mails=MANY, cut=2 * share, uncertain=account.uncertain, copies=account.copies,
        repeated=account.repeated,
    )  # fmt: skip

    # Every one of those is on record as uncertain, and nothing else is.
    assert account.clean, account
    unsure = [a for a in attempts if a["kind"] == "uncertain"]
    assert {a["email"].partition("+")[0] for a in unsure} == {"cut"}
    assert len(unsure) == account.uncertain == 2 * share
    assert {(a["phase"], a["error_class"]) for a in unsure} == {("dot", "no_reply_after_dot")}
    assert account.states == {"sent": MANY - share, "uncertain": share}

    # Held: once at the relay, never again. Sent again: one copy more for each, and no other.
    copies: dict[str, list[Copy]] = defaultdict(list)
    for copy in scene.relay.book():
        copies[copy.recipient].append(copy)
    for email, told in story.items():
        if not email.startswith("cut"):
            assert (told, len(copies[email])) == (["sent"], 1)
        elif email.endswith("hold.example"):
            assert (told, len(copies[email])) == (["uncertain"], 1)
        else:
            assert (told, len(copies[email])) == (["uncertain", "sent"], 2)
    assert account.repeated == share

    # The second copy is the first one again: Message-ID, Date, boundaries, every byte.
    for several in copies.values():
        assert len({(c.message_id, c.date, c.digest) for c in several}) == 1
        assert several[0].message_id
    assert len({c[0].message_id for c in copies.values()}) == MANY


def test_a_killed_worker_repeats_nothing_that_is_to_be_held(stage: Setting, figure: Any) -> None:
    scene = stage("valkey", "sqlite", settings=SETTINGS, plans={"n": ["slow 0.1"]})
    documents = mails(MANY, stream="bulk", **BODY)
    scene.intake()
    worker = scene.worker(2)
    scene.publish(documents)
    open_then = 0
    killed: list[int] = []
    for part in (0.1, 0.4):
        until(lambda part=part: len(scene.relay.taken()) >= part * MANY, 30, scene.logs)
        children = set(worker.children()).difference(killed)
        child = next(pid for pid in scene.journal.workers() if pid in children)
        killed.append(child)
        os.kill(child, signal.SIGSTOP)
        open_then += len(connections_to(child, scene.relay.port))
        os.kill(child, signal.SIGKILL)
    scene.wait_finished(MANY, 30 + MANY / 20)
    account = scene.account(documents)
    unsure = account.states.pop("uncertain", 0)
    figure(mails=MANY, open_at_kills=open_then, uncertain=unsure, copies=account.copies)
    assert account.clean, account
    # What is not known to be sent is held, and nobody has anything twice.
    assert account.states == {"sent": MANY - unsure}
    assert account.repeated == 0
    assert 0 < unsure <= open_then
