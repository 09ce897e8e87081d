"""What is under way, and a lane that is handed over, over both databases."""

from __future__ import annotations

import pytest

from mailgate.journal import draining, standing
from mailgate.journal.pauses import What
from mailgate.model.state import Lane, State
from mailgate.model.value import replace
from tests.contract.journal.rig import BUCKET, Rig, arrival, settlement


def count(journal: Rig, what: What, name: str) -> int:
    return len(journal.database.read_now(lambda c: draining.under_way(c, what, name)))


@pytest.mark.parametrize(
    ("what", "mine", "other"),
    [
        (What.LANE, "normal", "high"),
        (What.PRODUCER, "shop", "sho"),
        (What.RELAY, "second", "econd"),
        (What.STREAM, "transactional", "bulk"),
        (What.DOMAIN, "example.org", "xample.org"),
        (What.TEMPLATE, "notice", "welcome"),
        (What.ALL, "", None),
    ],
)
def test_what_is_under_way_is_counted_by_whatever_can_be_paused(
    journal: Rig, what: What, mine: str, other: str | None
) -> None:
    journal.add(2, template="notice")
    assert count(journal, what, mine) == 0
    journal.claim(journal.lease())
    assert count(journal, what, mine) == 2
    if other is not None:
        assert count(journal, what, other) == 0


def test_a_claim_that_was_settled_and_made_again_is_not_waited_for(journal: Rig) -> None:
    journal.add(2)
    lease = journal.lease()
    first, second = journal.claim(lease)
    before = journal.database.read_now(lambda c: draining.under_way(c, What.ALL, ""))
    journal.settle(settlement(first, State.QUEUED))
    journal.claim(lease)

    def left(connection):  # type: ignore[no-untyped-def]
        return draining.standing(connection, journal.database, before)

    assert journal.database.read_now(left) == [(second.recipient_id, second.token)]


def test_a_lane_is_handed_over_with_what_is_due_later_and_without_what_is_under_way(
    journal: Rig,
) -> None:
    high = replace(BUCKET, lane=Lane.HIGH)
    journal.store(*(arrival(f"h{n}", bucket=high) for n in range(3)))
    journal.store(arrival("aside", bucket=replace(high, domain="slow.example")))
    journal.add(1)
    lease = journal.lease()
    [sending] = [c for c in journal.claim(lease) if c.lane is Lane.HIGH][:1]
    for claim in journal.database.read_now(lambda c: draining.under_way(c, What.ALL, "")):
        if claim[0] != sending.recipient_id:
            journal.sql(
                "UPDATE recipients SET state = 'queued', lease_id = NULL, due_at = due_at + 99999"
                " WHERE id = :id",
                id=claim[0],
            )
    moved = 0
    while now := journal.database.run_now(
        lambda c: draining.move(c, journal.database, Lane.HIGH, Lane.BULK)
    ):
        moved += now
    rows = journal.database.read_now(lambda c: standing.lanes(c, journal.database.now()))
    lanes = {row["lane"]: (row["waiting"], row["under_way"]) for row in rows}
    assert moved == 3
    assert lanes == {"high": (0, 1), "normal": (1, 0), "bulk": (3, 0)}
    kept = journal.one("SELECT count(*) AS n FROM buckets WHERE lane='bulk' AND domain<>''")
    assert kept.n == 1


def test_the_last_minute_counts_what_came_and_went_and_nothing_older(journal: Rig) -> None:
    journal.add(5)
    journal.sql("UPDATE events SET at = at - 120000")
    claims = journal.claim(journal.lease())
    for claim, state in zip(
        claims, (State.SENT, State.SENT, State.BOUNCED, State.DEFERRED, State.FAILED), strict=True
    ):
        journal.settle(settlement(claim, state))
    now = journal.database.now()
    assert journal.database.read_now(lambda c: standing.lately(c, now)) == {
        "accepted": 5,
        "sent": 2,
        "deferred": 1,
        "failed": 2,
        "uncertain": 0,
    }
    later = journal.database.read_now(lambda c: standing.lately(c, now + 61_000))
    assert set(later.values()) == {0}


def test_the_last_minute_of_an_empty_journal_is_nothing(journal: Rig) -> None:
    found = journal.database.read_now(lambda c: standing.lately(c, journal.database.now()))
    assert set(found.values()) == {0}
