"""Mail for later: it waits in the journal, however much and however long."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from mailgate.model.state import Lane
from tests.contract.journal.rig import BUCKET, Rig, arrival

YEAR = 366 * 86_400_000
#: ACCEPTANCE=full has the number that is promised.
WAITING = 100_000 if os.environ.get("ACCEPTANCE") == "full" else 2_000


def test_the_next_that_falls_due_is_known(journal: Rig) -> None:
    now = journal.database.now()

    def next_at() -> int | None:
        return journal.database.read_now(lambda c: journal.queue.next_at(c, now))

    assert next_at() is None
    journal.add(1, prefix="now", send_at=now - 1)
    assert next_at() is None  # due is not what will be
    high = BUCKET.__class__(Lane.HIGH, "shop", BUCKET.route)
    journal.add(1, prefix="years", send_at=now + 20 * YEAR)
    assert next_at() == now + 20 * YEAR
    journal.add(1, prefix="soon", send_at=now + 700, bucket=high)
    assert next_at() == now + 700
    journal.sql("UPDATE recipients SET state = 'deferred', due_at = :at", at=now + 500)
    assert next_at() == now + 500
    journal.sql("UPDATE recipients SET state = 'cancelled'")
    assert next_at() is None


def test_mail_for_the_past_is_due_now(journal: Rig) -> None:
    stored = journal.store(arrival("a", send_at=journal.database.now() - YEAR))
    assert stored.lanes == {Lane.NORMAL}
    assert len(journal.claim(journal.lease())) == 1


def test_mail_for_later_rings_nobody_and_outlives_the_process(
    journal: Rig, rigs_of: Callable[[str], Rig]
) -> None:
    stored = journal.store(arrival("a", send_at=journal.database.now() + 20 * YEAR))
    assert stored.lanes == set()
    other = rigs_of(journal.url)
    assert other.heads() == []
    assert len(other.heads(ahead=20 * YEAR + 1)) == 1


@pytest.mark.alone
def test_one_look_among_many_that_wait(journal: Rig) -> None:
    """The look that each worker takes, a claim and the next moment: in milliseconds."""
    now = journal.database.now()
    for start in range(0, WAITING, 2_000):
        journal.store(
            *(
                arrival(f"m{start + n}", send_at=now + 60_000 + 100 * (start + n))
                for n in range(2_000)
            )
        )
    if not journal.database.sqlite:
        journal.sql("ANALYZE recipients")
    journal.add(1, prefix="due")
    lease = journal.lease()
    begun = time.monotonic()
    moment = journal.database.now()
    assert journal.database.read_now(lambda c: journal.queue.next_at(c, moment)) == now + 60_000
    [claim] = journal.claim(lease)
    took = time.monotonic() - begun
    assert claim.letter.to[0].email == "due0@example.org"
    assert took < 0.25, f"{took:.3f} s with {WAITING} waiting"
