"""What limits are shown to hold, on both databases."""

from __future__ import annotations

from mailgate.journal import usage
from mailgate.journal.usage import Counted
from mailgate.model.state import State
from tests.contract.journal.rig import BUCKET, Rig, attempt, settlement


def test_attempts_since_a_moment_by_what_limits_go_by(journal: Rig) -> None:
    [id_] = journal.add(1, "twice")
    journal.add(1, "once", sender="news@example.net")
    lease = journal.lease()
    for _ in range(2):
        for claim in journal.claim(lease):
            path = State.DEFERRED if claim.recipient_id == id_ else State.SENT
            journal.settle(settlement(claim, path, attempt=attempt()))
    # The attempts ended at 1001 (milliseconds).
    found = journal.database.read_now(lambda c: usage.sent_since(c, 1000))
    assert sorted(found, key=lambda c: c.sender) == [
        Counted("first", "shop", "example.org", "news@example.net", 1, 1),
        Counted("first", "shop", "example.org", "shop@example.com", 2, 1),
    ]
    assert journal.database.read_now(lambda c: usage.sent_since(c, 1001)) == []


def test_who_waits_is_counted_by_bucket(journal: Rig) -> None:
    journal.add(3)
    journal.add(1, "later", send_at=journal.database.now() + 60_000)
    now = journal.database.now()
    found = journal.database.read_now(lambda c: usage.waiting(c, now))
    assert found == [Counted(BUCKET.route[0], "shop", "", "", 3)]
