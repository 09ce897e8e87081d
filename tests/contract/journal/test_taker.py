"""The take: from due to claimed, as lanes, limits and throttles allow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mailgate.config.shape import Config
from mailgate.dispatch.flow import Open
from mailgate.dispatch.lanes import ORDER
from mailgate.dispatch.take import Take, Taker
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.permits import JournalLimiter
from mailgate.limits.rules import Ask, Grant, LimiterAway, Refusal
from mailgate.metrics.tally import Tally
from mailgate.model.state import Lane, State
from mailgate.model.verp import recipient_of
from tests.contract.journal.rig import Rig, arrival, attempt, settlement

RELAYS = {"first": {"host": "a.example"}, "second": {"host": "b.example"}}

Taking = Callable[..., Taker]


@pytest.fixture
def taking(journal: Rig) -> Taking:
    def make(limiter: Any = None, rig: Rig = journal, **config: Any) -> Taker:
        whole = Config.model_validate({"relays": RELAYS, **config})
        limiter = limiter or JournalLimiter(rig.database)
        return Taker(rig.database, rig.queue, limiter, whole, b"secret", Tally())

    return make


async def take(taker: Taker, lease: int, want: int = 10, **how: Any) -> Take:
    return await taker.take(**{"want": want, "lanes": ORDER, "lease": lease, **how})


def emails(found: Take) -> list[str]:
    return [t.claim.address.local for t in found.taken]


async def test_what_is_due_is_claimed_up_to_the_places(journal: Rig, taking: Taking) -> None:
    journal.add(5)
    lease = journal.lease()
    taker = taking()
    one = await take(taker, lease, 3)
    assert (emails(one), one.more) == (["m0", "m1", "m2"], True)
    assert {t.claim.relay for t in one.taken} == {"first"}
    assert {t.permit for t in one.taken} == {None}
    two = await take(taker, lease, 3)
    assert (emails(two), two.more) == (["m3", "m4"], False)
    assert (await take(taker, lease)).taken == []


async def test_outcomes_are_written_with_the_next_take_and_without_one(
    journal: Rig, taking: Taking
) -> None:
    journal.add(2)
    lease = journal.lease()
    taker = taking()
    [one] = (await take(taker, lease, 1)).taken
    done = settlement(one.claim, State.SENT, attempt=attempt("sent"))
    found = await take(taker, lease, 1, settlements=[done])
    assert found.turn.settled == {one.claim.recipient_id}
    done = settlement(found.taken[0].claim, State.SENT, attempt=attempt("sent"))
    assert (await take(taker, lease, 0, lanes=(), settlements=[done])).turn.settled
    assert journal.count("recipients", "state = 'sent'") == 2


async def test_only_the_lanes_asked_for(journal: Rig, taking: Taking) -> None:
    for lane in Lane:
        journal.add(1, lane, bucket=BucketKey(lane, "p", ("first",)))
    found = await take(taking(), journal.lease(), lanes=(Lane.HIGH, Lane.NORMAL))
    assert emails(found) == ["high0", "normal0"]


@pytest.mark.parametrize("place_by_place", [True, False])
async def test_a_high_message_goes_before_a_backlog(
    journal: Rig, taking: Taking, place_by_place: bool
) -> None:
    journal.add(60, "b", bucket=BucketKey(Lane.BULK, "p", ("first",)))
    lease, taker = journal.lease(), taking()
    for _ in range(5):
        await take(taker, lease, 1 if place_by_place else 5)
    journal.add(1, "high", bucket=BucketKey(Lane.HIGH, "q", ("first",)))
    found = await take(taker, lease, 1 if place_by_place else 5)
    assert emails(found)[0] == "high0"


async def test_a_flood_of_one_producer_delays_no_other(journal: Rig, taking: Taking) -> None:
    journal.add(50, "flood", bucket=BucketKey(Lane.NORMAL, "flood", ("first",)))
    journal.add(3, "small", bucket=BucketKey(Lane.NORMAL, "small", ("first",)))
    taker = taking()
    taker.flow.moved("first", "example.org", time.monotonic())
    found = await take(taker, journal.lease(), 6)
    assert sorted(e for e in emails(found) if "small" in e) == ["small0", "small1", "small2"]


async def test_producers_share_the_places_by_weight(journal: Rig, taking: Taking) -> None:
    for name in ("heavy", "light"):
        journal.add(40, name, bucket=BucketKey(Lane.NORMAL, name, ("first",)))
    taker, lease = taking(producers={"heavy": {"weight": 3}}), journal.lease()
    # Mail gets through: any number may be under way.
    taker.flow.moved("first", "example.org", time.monotonic())
    found = emails(await take(taker, lease, 20))
    found += [e for _ in range(20) for e in emails(await take(taker, lease, 1))]
    assert sum(e.startswith("heavy") for e in found) == 30


@pytest.mark.parametrize("of", [1, 2])
async def test_a_backlog_of_retries_blocks_no_fresh_mail(
    journal: Rig, taking: Taking, of: int
) -> None:
    journal.add(300, "again")
    journal.sql("UPDATE recipients SET state = 'deferred', attempts = 1, due_at = due_at - 1000")
    journal.add(30, "fresh")
    taker, lease = taking(), journal.lease()
    taker.flow.moved("first", "example.org", time.monotonic())
    found = emails(await take(taker, lease, 20, of=of))
    found += [e for _ in range(20) for e in emails(await take(taker, lease, 1, of=of))]
    fresh = [e for e in found if e.startswith("fresh")]
    assert len(found) == 40
    assert len(fresh) == 30
    # With none left the retries have all the places.
    assert len(emails(await take(taker, lease, 20, of=of))) == 20


async def test_places_kept_for_urgent_mail_are_left_to_it(journal: Rig, taking: Taking) -> None:
    journal.add(20, "bulk", bucket=BucketKey(Lane.BULK, "p", ("first",)))
    taker, lease = taking(), journal.lease()
    assert len((await take(taker, lease, 6, kept=2)).taken) == 4
    assert (await take(taker, lease, 2, kept=2)).taken == []
    journal.add(3, "high", bucket=BucketKey(Lane.HIGH, "p", ("first",)))
    assert emails(await take(taker, lease, 2, kept=2)) == ["high0", "high1"]


async def test_a_relay_that_is_gone_gives_way_to_the_next_or_the_streams(
    journal: Rig, taking: Taking
) -> None:
    journal.add(1, "a", bucket=BucketKey(Lane.NORMAL, "p", ("gone", "second")))
    journal.add(1, "b", bucket=BucketKey(Lane.NORMAL, "p", ("gone",)))
    found = await take(taking(streams={"transactional": {"relays": ["second"]}}), journal.lease())
    assert sorted((t.claim.address.local, t.claim.relay) for t in found.taken) == [
        ("a0", "second"),
        ("b0", "second"),
    ]


async def test_who_has_no_relay_waits_and_holds_nobody_up(journal: Rig, taking: Taking) -> None:
    """Neither its stream nor its relay is in the configuration any more; a suspect besides."""
    gone = BucketKey(Lane.NORMAL, "p", ("gone",))
    ids = journal.add(2, "lost", bucket=gone, stream="gone")
    journal.sql("UPDATE recipients SET suspect = true WHERE id = :id", id=ids[0])
    journal.add(2, "good")
    found = await take(taking(), journal.lease())
    assert emails(found) == ["good0", "good1"]
    assert [journal.row(i).state for i in ids] == ["queued", "queued"]


async def test_a_stream_with_verp_gives_each_recipient_a_sender_of_its_own(
    journal: Rig, taking: Taking
) -> None:
    journal.add(2, "m")
    verp = {"envelope_from": "bounces@example.com", "verp": True}
    lease, taker = journal.lease(), taking(streams={"transactional": verp})
    found = (await take(taker, lease)).taken
    senders = {t.claim.mail_from: t.claim.recipient_id for t in found}
    assert len(senders) == 2
    for sender, number in senders.items():
        assert recipient_of(sender, b"secret") == number
    # The same at the next attempt.
    for t in found:
        journal.settle(settlement(t.claim, State.DEFERRED, attempt=attempt()))
    again = (await take(taker, lease)).taken
    assert {t.claim.mail_from: t.claim.recipient_id for t in again} == senders


# --- suspects ---------------------------------------------------------------------------


async def test_a_suspect_is_claimed_alone_and_only_when_nothing_else_is_open(
    journal: Rig, taking: Taking
) -> None:
    ids = journal.add(4)
    journal.sql("UPDATE recipients SET suspect = true WHERE id IN (:a, :b)", a=ids[1], b=ids[2])
    lease, taker = journal.lease(), taking()
    busy = await take(taker, lease, 2, busy=True)
    assert emails(busy) == ["m0", "m3"]
    journal.settle(settlement(busy.taken[1].claim, State.QUEUED))
    busy = await take(taker, lease, 2, busy=True)
    assert (emails(busy), busy.suspects) == (["m3"], True)
    journal.settle(settlement(busy.taken[0].claim, State.QUEUED))
    one = await take(taker, lease)
    assert (emails(one), [t.alone for t in one.taken]) == (["m1"], [True])
    two = await take(taker, lease)
    assert (emails(two), [t.alone for t in two.taken]) == (["m2"], [True])
    rest = await take(taker, lease)
    assert (emails(rest), [t.alone for t in rest.taken]) == (["m3"], [False])


@pytest.mark.parametrize("of", [1, 2])
async def test_many_suspects_at_the_head_hold_nobody_up(
    journal: Rig, taking: Taking, of: int
) -> None:
    """A worker died with fifty conversations open: all fifty were due before the rest."""
    journal.add(50, "suspect")
    journal.sql("UPDATE recipients SET suspect = true")
    journal.add(20, "other")
    found = await take(taking(), journal.lease(), 5, busy=True, of=of)
    assert len(found.taken) == 5
    assert found.suspects


# --- expiry, limits, throttles -------------------------------------------------------------


async def test_what_expired_ends_and_is_not_sent(journal: Rig, taking: Taking) -> None:
    [id_] = journal.add(1, "old", expires_at=1)
    journal.add(1, "new")
    found = await take(taking(), journal.lease())
    assert (emails(found), found.turn.expired) == (["new0"], 1)
    assert journal.row(id_).state == "expired"


async def test_a_paced_relay_admits_no_more_than_it_may(journal: Rig, taking: Taking) -> None:
    relays = {**RELAYS, "first": {"host": "a.example", "rate": "2/h"}}
    journal.add(5)
    lease, taker = journal.lease(), taking(relays=relays)
    taken = [t for _ in range(4) for t in (await take(taker, lease)).taken]
    assert len(taken) <= 2
    assert all(t.permit is not None for t in taken)
    waiting = journal.all("SELECT * FROM recipients WHERE state = 'queued'")
    # Waiting touches no row.
    assert {(r.seq, r.attempts, r.token) for r in waiting} == {(1, 0, 0)}
    found = await take(taker, lease)
    assert found.again_in is not None
    assert found.again_in > 0


async def test_another_relays_mail_does_not_wait_for_a_paced_one(
    journal: Rig, taking: Taking
) -> None:
    relays = {**RELAYS, "first": {"host": "a.example", "rate": "1/h"}}
    journal.add(5, "slow")
    journal.add(3, "free", bucket=BucketKey(Lane.BULK, "p", ("second",)))
    lease, taker = journal.lease(), taking(relays=relays)
    found = [e for _ in range(4) for e in emails(await take(taker, lease))]
    assert {e for e in found if "free" in e} == {"free0", "free1", "free2"}


async def test_who_waits_for_a_destination_stands_before_nobody_else(
    journal: Rig, taking: Taking
) -> None:
    """Also when the limit came to be while they waited: they go to a bucket of their own."""
    journal.store(*(arrival(f"slow{n}", f"slow{n}@slow.example") for n in range(5)))
    journal.store(*(arrival(f"free{n}", f"free{n}@example.org") for n in range(3)))
    lease, taker = journal.lease(), taking(limits={"domain": {"Slow.Example": "1/h"}})
    found = [e for _ in range(5) for e in emails(await take(taker, lease, 2))]
    assert sorted(found) == ["free0", "free1", "free2", "slow0"]
    waiting = journal.all(
        "SELECT r.email, r.token, r.seq, b.domain FROM recipients r JOIN buckets b"
        " ON b.id = r.bucket_id WHERE r.state = 'queued'"
    )
    assert {(r.token, r.seq, r.domain) for r in waiting} == {(0, 1, "slow.example")}


async def test_who_waits_for_a_sender_stands_before_nobody_else(
    journal: Rig, taking: Taking
) -> None:
    journal.add(5, "slow", sender="News@Example.net")
    journal.add(2, "other", sender="shop@example.net")
    journal.add(2, "free")
    limits = {"sender": {"news@example.net": "1/h", "example.net": "100/s"}}
    lease, taker = journal.lease(), taking(limits=limits)
    found = [e for _ in range(5) for e in emails(await take(taker, lease, 2))]
    assert sorted(found) == ["free0", "free1", "other0", "other1", "slow0"]
    labels = {r.domain for r in journal.all("SELECT domain FROM buckets")}
    assert labels == {"", "sender=News@Example.net"}


@pytest.mark.parametrize(("rate", "due"), [("1/h", frozenset()), ("1/s", {Lane.NORMAL})])
async def test_what_a_limit_holds_back_for_long_calls_nobody(
    journal: Rig, taking: Taking, rate: str, due: frozenset[Lane]
) -> None:
    """Not each second, for an hour; but what may go soon is not to be missed."""
    journal.add(5)
    relays = {**RELAYS, "first": {"host": "a.example", "rate": rate}}
    lease, taker = journal.lease(), taking(relays=relays)

    def seen() -> frozenset[Lane]:
        return journal.database.read_now(lambda c: taker.due(c, journal.database.now()))

    assert seen() == {Lane.NORMAL}
    for _ in range(3):
        await take(taker, lease)
    assert seen() == due


async def test_a_destination_has_no_more_conversations_and_stands_before_nobody(
    journal: Rig, taking: Taking
) -> None:
    """Whoever finds no place waits apart, is charged nothing, and goes when one ends."""
    limits = {"domain": {"slow.example": {"rate": "5/h burst 5", "max_connections": 2}}}
    journal.store(*(arrival(f"slow{n}", f"slow{n}@slow.example") for n in range(5)))
    journal.add(3, "free")
    lease, taker = journal.lease(), taking(limits=limits)
    taken = [t for _ in range(4) for t in (await take(taker, lease, 4)).taken]
    slow = [t.claim for t in taken if "slow" in t.claim.address.local]
    assert (len(slow), len(taken)) == (2, 5)
    last = await take(taker, lease, 4)
    assert last.crowded
    assert last.again_in is not None
    # Another process has the same view of it, and our own end of one makes a place at once.
    assert (await take(taking(limits=limits), lease)).taken == []
    ended = [settlement(slow[0], State.SENT, attempt=attempt("sent"))]
    again = await taker.take(want=4, lanes=ORDER, lease=lease, settlements=ended)
    again.taken += (await take(taker, lease, 4)).taken
    assert len(again.taken) == 1


async def test_a_producers_limit_is_charged_once_a_recipient(journal: Rig, taking: Taking) -> None:
    journal.add(2)
    lease, taker = journal.lease(), taking(limits={"producer": {"shop": "1/h"}})
    [one] = (await take(taker, lease)).taken
    again = {"due_at": journal.database.now(), "attempt": attempt()}
    journal.settle(settlement(one.claim, State.DEFERRED, **again))
    # Its retry is no new mail of the producer's, and goes; the other waits on.
    [two] = (await take(taking(limits={"producer": {"shop": "1/h"}}), lease)).taken
    assert two.claim.recipient_id == one.claim.recipient_id
    assert two.permit is None


async def test_who_was_not_tried_after_all_is_charged_again(journal: Rig, taking: Taking) -> None:
    """Its permit was for a moment that has passed."""
    journal.add(1)
    lease, taker = journal.lease(), taking(limits={"producer": {"shop": "1/h"}})
    [one] = (await take(taker, lease)).taken
    journal.settle(settlement(one.claim, State.QUEUED, due_at=journal.database.now()))
    assert len(journal.heads()) == 1
    assert (await take(taking(limits={"producer": {"shop": "1/h"}}), lease)).taken == []


async def test_a_refused_suspect_closes_no_bucket_that_others_share(
    journal: Rig, taking: Taking
) -> None:
    limits = {"domain": {"slow.example": "1/h"}}
    journal.store(*(arrival(f"slow{n}", f"slow{n}@slow.example") for n in range(2)))
    lease = journal.lease()
    taker = taking(limits=limits)
    while not (await take(taker, lease)).taken:
        pass
    [id_] = journal.add(1, "suspect")
    journal.sql(
        "UPDATE recipients SET suspect = true, email = 'x@slow.example' WHERE id = :id", id=id_
    )
    journal.add(2, "free")
    assert emails(await take(taker, lease)) == ["free0", "free1"]


class Away:
    async def reserve(self, asks: Sequence[Ask], horizon: float) -> list[Grant | Refusal]:
        raise LimiterAway


async def test_without_the_limiters_store_nothing_that_is_limited_goes(
    journal: Rig, taking: Taking
) -> None:
    relays = {**RELAYS, "first": {"host": "a.example", "rate": "100/s"}}
    journal.add(2)
    found = await take(taking(Away(), relays=relays), journal.lease())
    assert found.taken == []
    assert journal.count("recipients", "state = 'queued'") == 2


THROTTLE = {"limit": 1, "window": "1h"}


@pytest.mark.parametrize(("on_limit", "state"), [("defer", "queued"), ("drop", "throttled")])
async def test_a_streams_throttle_counts_by_address_whatever_its_case(
    journal: Rig, taking: Taking, on_limit: str, state: str
) -> None:
    rule = {**THROTTLE, "on_limit": on_limit}
    taker = taking(streams={"transactional": {"throttle": [rule]}})
    journal.store(
        arrival("a", "Ann@example.org"),
        arrival("b", "ann@example.org"),
        arrival("c", "bob@example.org"),
    )
    found = await take(taker, journal.lease())
    assert emails(found) == ["Ann", "bob"]
    assert [r.state for r in journal.all("SELECT state FROM recipients ORDER BY id")] == [
        "sending",
        state,
        "sending",
    ]


async def test_who_a_throttle_holds_back_takes_no_permit_from_others(
    journal: Rig, taking: Taking
) -> None:
    """A flood to one recipient, and a relay that takes three an hour."""
    throttle = {"limit": 1, "window": "1h"}
    relays = {**RELAYS, "first": {"host": "a.example", "rate": "3/h burst 3"}}
    journal.store(*(arrival(f"{n}", "ann@example.org") for n in range(20)))
    journal.add(5, "other")
    lease, taker = journal.lease(), taking(relays=relays, throttles={"flood": throttle})
    taker.flow.moved("first", "example.org", time.monotonic())
    first = await take(taker, lease, 1)
    found = [e for _ in range(4) for e in emails(await take(taker, lease, 10))]
    assert (emails(first), found) == (["ann"], ["other0", "other1"])
    assert journal.count("recipients", "error_class = 'throttled'") == 19
    assert (await take(taker, lease)).again_in is not None


async def test_a_throttle_by_template_counts_each_template(journal: Rig, taking: Taking) -> None:
    rule = {**THROTTLE, "per": "recipient+template"}
    taker = taking(streams={"transactional": {"throttle": [rule]}})
    journal.store(
        *(arrival(f"{n}", "ann@example.org", template=t) for n, t in enumerate(["x", "y", "x"]))
    )
    assert len((await take(taker, journal.lease())).taken) == 2


async def test_a_messages_own_throttle_is_kept(journal: Rig, taking: Taking) -> None:
    own = '["digest", 2, 3600000, "drop", false]'
    journal.store(*(arrival(f"{n}", "ann@example.org", throttle=own) for n in range(4)))
    journal.store(arrival("else", "ann@example.org", throttle='["other", 1, 1000, "drop", false]'))
    found = await take(taking(), journal.lease())
    assert len(found.taken) == 3
    assert [dropped for _, dropped in found.turn.waiting] == [True, True]
    kept = journal.all("SELECT key FROM throttle_hits")
    assert not any("ann" in r.key for r in kept)


async def test_a_retry_is_charged_no_second_time(journal: Rig, taking: Taking) -> None:
    taker = taking(streams={"transactional": {"throttle": [{**THROTTLE, "on_limit": "drop"}]}})
    journal.add(1)
    lease = journal.lease()
    for _ in range(3):
        [taken] = (await take(taker, lease)).taken
        journal.settle(settlement(taken.claim, State.DEFERRED, attempt=attempt()))
    assert journal.count("throttle_hits") == 1


async def test_what_is_over_is_found_though_its_destination_has_no_place(
    journal: Rig, taking: Taking
) -> None:
    """In a bucket of its own, which is not read for heads meanwhile."""
    relays = {**RELAYS, "first": {"host": "a.example", "max_connections": 1}}
    key = BucketKey(Lane.NORMAL, "shop", ("first",), domain="example.org")
    lease, taker = journal.lease(), taking(relays=relays)
    journal.add(3, "waits", bucket=key)
    [one] = (await take(taker, lease)).taken
    [old] = journal.add(1, "old", bucket=key, expires_at=1)
    found = await take(taker, lease, open_=[Open(one.claim, time.monotonic(), False)])
    assert (found.taken, found.turn.expired) == ([], 1)
    assert journal.row(old).state == State.EXPIRED
