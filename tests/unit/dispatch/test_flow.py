"""Flow: who gets no more places because none of his conversations comes to an end."""

from __future__ import annotations

import pytest

from mailgate.config.shape import Config
from mailgate.dispatch.flow import BLAMED, PERMIT, SLOW, STUCK, Flow, Open
from mailgate.dispatch.gate import Way
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.queue import Bucket, Head
from mailgate.model.address import Address
from mailgate.model.message import Claim, Letter
from mailgate.model.state import Lane
from mailgate.model.value import replace

CONFIG = Config.model_validate(
    {
        "relays": {name: {"host": "x.example", "max_connections": 8} for name in ("well", "dead")},
        "worker": {"conversations": 40},
    }
)


def open_(relay: str, number: int, since: float, *, lane: Lane = Lane.BULK) -> Open:
    to = Address(f"a@{relay}.example")
    letter = Letter("<1@x.example>", 0, "1", Address("shop@x.example"), (to,))
    claim = Claim(number, 3, 1, "p", "s", lane, relay, to, letter, "s@x.example", 0, 0, 1)
    return Open(claim, since, paced=False)


def heads(relay: str, *domains: str) -> tuple[BucketKey, list[Head]]:
    key = BucketKey(Lane.BULK, "p", (relay,))
    return key, [
        Head(
            100 + n, 1, Bucket(1, key), f"a@{domain}", "p", "s", "s@x.example",
            None, None, None, 0, False, False, None, 0,
        )
        for n, domain in enumerate(domains)
    ]  # fmt: skip


def ways(*relays: str) -> dict[int, Way]:
    return {100 + n: Way(relay) for n, relay in enumerate(relays)}


def test_a_relay_that_says_nothing_holds_no_more_places_than_it_has_connections() -> None:
    flow = Flow(CONFIG)
    talks = [open_("dead", n, 0.0) for n in range(7)]
    found = [heads("dead", *(f"d{n}.example" for n in range(3)))]
    [(_, placed)], before = flow.spare(talks, 1.0).placed(found, ways(*["dead"] * 3))
    assert (len(placed), before) == (1, [])
    assert not flow.spare(talks, 1.0).none(found[0][0])
    assert flow.spare([*talks, open_("dead", 8, 0.0)], 1.0).none(found[0][0])
    # A reply from there, and all places are open to it.
    flow.moved("dead", "else.example", 1.0)
    [(_, placed)], _ = flow.spare(talks, 1.0).placed(found, ways(*["dead"] * 3))
    assert len(placed) == 3


def test_a_relay_that_is_alone_may_hold_all_places() -> None:
    alone = CONFIG.model_copy(update={"relays": {"dead": CONFIG.relays["dead"]}})
    talks = [open_("dead", n, 0.0) for n in range(20)]
    assert not Flow(alone).spare(talks, 9.0).none(BucketKey(Lane.BULK, "p", ("dead",)))


def test_a_destination_that_says_nothing_leaves_the_connections_to_the_others() -> None:
    flow = Flow(CONFIG)
    found = [heads("well", *["mute.example"] * 4, "other.example")]
    [(_, placed)], before = flow.spare([], 0.0).placed(found, ways(*["well"] * 5))
    assert [h.domain for h in placed] == ["mute.example", "mute.example", "other.example"]
    # New and not stuck: whoever waits is not put aside.
    assert before == []


def test_a_destination_that_is_alone_begins_with_few_and_goes_on_by_replies() -> None:
    """Else it holds every place when mail for others comes, and until a timeout of minutes."""
    flow, found = Flow(CONFIG), [heads("well", *["mute.example"] * 6)]
    [(_, placed)], _ = flow.spare([], 0.0).placed(found, ways(*["well"] * 6))
    assert len(placed) == 2
    flow.moved("well", "mute.example", 0.0)
    [(_, placed)], _ = flow.spare([], 0.0).placed(found, ways(*["well"] * 6))
    assert len(placed) == 6
    small = CONFIG.model_copy(
        update={"worker": CONFIG.worker.model_copy(update={"conversations": 2})}
    )
    [(_, placed)], _ = Flow(small).spare([], 0.0).placed(found, ways(*["well"] * 6))
    assert len(placed) == 1


def test_a_bucket_of_a_destination_without_a_place_is_not_read() -> None:
    flow = Flow(CONFIG)
    talks = [open_("well", n, 0.0) for n in range(2)]
    mixed, own = (BucketKey(Lane.BULK, "p", ("well",), domain=d) for d in ("", "well.example"))
    spare = flow.spare(talks, 0.0)
    assert spare.none(own)
    assert not spare.none(mixed)
    assert not spare.none(BucketKey(Lane.BULK, "p", ("well", "dead"), domain="well.example"))
    flow.moved("well", "well.example", 0.0)
    assert not flow.spare(talks, 0.0).none(own)


def test_what_waits_for_a_stuck_destination_is_put_out_of_the_way() -> None:
    flow = Flow(CONFIG)
    talks = [open_("well", n, 0.0) for n in range(2)]
    flow.moved("well", "other.example", 2 * STUCK)
    found = [heads("well", "well.example", "other.example")]
    [(_, placed)], before = flow.spare(talks, 2 * STUCK).placed(found, ways("well", "well"))
    assert [h.domain for h in placed] == ["other.example"]
    assert [h.domain for h in before] == ["well.example"]


@pytest.mark.parametrize(
    ("mute", "others", "waited", "aside"),
    [(2, 6, SLOW + 0.1, 2), (4, 0, SLOW + 0.1, 4), (1, 6, SLOW + 0.1, 0), (4, 4, SLOW / 2, 0)],
)
def test_who_is_slow_is_put_out_of_the_way_when_he_is_much_of_what_waits(
    mute: int, others: int, waited: float, aside: int
) -> None:
    """Before he counts as stuck: each look would find more of him and fewer of the others."""
    flow = Flow(CONFIG)
    talks = [open_("well", n, 0.0) for n in range(2)]
    flow.moved("well", "other.example", waited)
    found = [heads("well", *["well.example"] * mute, *["other.example"] * others)]
    spare = flow.spare(talks, waited)
    [(_, placed)], before = spare.placed(found, ways(*["well"] * (mute + others)))
    assert [h.domain for h in placed] == ["other.example"] * others
    assert [h.domain for h in before] == ["well.example"] * aside
    assert spare.stuck == frozenset()


def test_who_moved_once_is_stuck_after_a_while_without_a_reply() -> None:
    flow = Flow(CONFIG)
    flow.moved("dead", "dead.example", 1.0)
    talks = [open_("dead", n, 1.0) for n in range(12)]
    assert flow.spare(talks, 1.0 + STUCK).stuck == frozenset()
    spare = flow.spare(talks, 1.0 + 3 * STUCK)
    assert spare.stuck == {("dead", ""), ("dead", "dead.example")}
    assert spare.silent == 12


def test_of_a_silent_relay_only_who_waits_for_a_connection_is_given_back() -> None:
    flow = Flow(CONFIG)
    urgent = [open_("dead", n, 0.0, lane=Lane.HIGH) for n in range(20, 23)]
    talks = [*urgent, *(open_("dead", n, 0.0) for n in range(11)), open_("well", 30, 0.0)]
    stuck = flow.spare(talks, 3 * STUCK).stuck
    given = flow.in_vain(talks, stuck, 3 * STUCK, ())
    assert [one.claim.recipient_id for one in given] == [8, 9, 10]
    flow.moved("dead", "dead.example", 3 * STUCK)
    assert flow.spare(talks, 3 * STUCK).stuck == {("well", ""), ("well", "well.example")}


def test_of_a_silent_destination_all_but_few_are_given_back_that_wait_for_no_reply_to_a_dot() -> (
    None
):
    flow, late = Flow(CONFIG), BLAMED + 3 * STUCK
    talks = [open_("dead", n, 0.0) for n in range(7)]
    flow.moved("dead", "else.example", late)
    stuck = flow.spare(talks, late).stuck
    assert stuck == {("dead", "dead.example")}
    given = flow.in_vain(talks, stuck, late, past_dot=[3, 5])
    assert [one.claim.recipient_id for one in given] == [2, 4, 6]
    # Of those who have not waited for long none.
    assert flow.in_vain([*talks[:2], open_("dead", 6, late - BLAMED)], stuck, late, ()) == []


def test_of_a_silent_relay_nobody_is_given_back_who_waits_for_the_reply_to_his_dot() -> None:
    flow = Flow(CONFIG)
    talks = [open_("dead", n, 0.0) for n in range(11)]
    stuck = flow.spare(talks, 3 * STUCK).stuck
    given = flow.in_vain(talks, stuck, 3 * STUCK, past_dot=[9])
    assert [one.claim.recipient_id for one in given] == [8, 10]


def test_urgent_mail_has_places_of_its_own_at_a_destination_and_is_not_cut_for_the_others() -> None:
    flow = Flow(CONFIG)
    talks = [open_("dead", n, 0.0) for n in range(7)]
    urgent = [open_("dead", 7 + n, 0.0, lane=Lane.HIGH) for n in range(2)]
    _, [head] = heads("dead", "dead.example")
    key = BucketKey(Lane.HIGH, "p", ("dead",))
    found = [(key, [replace(head, bucket=Bucket(1, key))])]
    [(_, placed)], _ = flow.spare(talks, 0.0).placed(found, ways("dead"))
    assert len(placed) == 1
    [(_, placed)], _ = flow.spare([*talks, *urgent], 0.0).placed(found, ways("dead"))
    assert placed == []
    late = BLAMED + 3 * STUCK
    flow.moved("dead", "else.example", late)
    stuck = flow.spare([*talks, *urgent], late).stuck
    given = flow.in_vain([*talks, *urgent], stuck, late, ())
    assert [one.claim.recipient_id for one in given] == [2, 3, 4, 5, 6]


def test_what_is_dealt_with_aside_says_nothing_of_the_relay() -> None:
    flow = Flow(CONFIG)
    flow.moved("dead", "dead.example", 0.0, aside=True)
    assert flow.moves("dead", "dead.example")
    assert not flow.moves("dead")


def test_who_waits_for_a_permit_is_not_stuck_yet() -> None:
    flow = Flow(CONFIG)
    talks = [open_("dead", 1, 0.0)._replace(paced=True)]
    assert flow.spare(talks, 3 * STUCK).stuck == frozenset()
    assert flow.spare(talks, STUCK + PERMIT + 1).stuck == {("dead", ""), ("dead", "dead.example")}
