"""Breakers, pauses and what is put aside: shared by all workers, on both databases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from mailgate.config.breakers import Breakers as Policy
from mailgate.config.shape import Config
from mailgate.dispatch import take as taking
from mailgate.dispatch.lanes import ORDER
from mailgate.dispatch.take import Take, Taker
from mailgate.journal import gauges, pauses
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.asides import MOST
from mailgate.journal.breakers import Breakers, Probe
from mailgate.journal.pauses import What
from mailgate.journal.permits import JournalLimiter
from mailgate.journal.queue import Candidate, Head, Turn
from mailgate.journal.surgery import Act
from mailgate.limits.breaker import Kind, Record, Sign, Signal, Subject
from mailgate.metrics import families
from mailgate.metrics.tally import Tally, together
from mailgate.model.message import Claim
from mailgate.model.state import Lane, State
from tests.contract.journal.rig import Rig, arrival, settlement

MAIN = Subject(Kind.RELAY, "first")
FAIL = Signal(Sign.FAIL, "connect_failed", 0, "refused")
LOGIN = Signal(Sign.LOGIN, "auth_refused", 535, "no")
OK = Signal(Sign.OK)
ONE = BucketKey(Lane.NORMAL, "shop", ("first",))
ACT = Act("ann@desk", "pause", "maintenance")


def taker(rig: Rig, **config: Any) -> Taker:
    relays = {"first": {"host": "a.example"}, "second": {"host": "b.example"}}
    whole = Config.model_validate({"relays": relays, **config})
    limiter = JournalLimiter(rig.database)
    return Taker(rig.database, rig.queue, limiter, whole, b"secret", Tally())


async def take(one: Taker, lease: int, *done: Any, want: int = 10, **how: Any) -> Take:
    one._viewed = -taking.VIEW
    return await one.take(want=want, lanes=ORDER, lease=lease, settlements=done, **how)


def shown(rig: Rig, who: Subject) -> Record | None:
    breakers = Breakers(rig.database, Policy(), lambda: 0.5)
    health = rig.database.read_now(lambda c: breakers.view(c, rig.database.now())).get(who)
    return health.record if health else None


def told(claim: Claim, signal: Signal, who: Subject = MAIN, state: State = State.DEFERRED) -> Any:
    return settlement(claim, state, due_at=2**50, signals=((who, signal),))


def locals_of(found: Take) -> list[str]:
    return [t.claim.address.local for t in found.taken]


def due_now(rig: Rig, who: Subject = MAIN) -> None:
    """The time of an open breaker is over."""
    breakers = Breakers(rig.database, Policy(), lambda: 0.5)
    rig.database.run_now(lambda c: breakers.hurry(c, who.relay, rig.database.now()))


async def opened(rig: Rig, lease: int, who: Subject = MAIN) -> None:
    """By a message of its own."""
    rig.add(1, "opener", bucket=ONE)
    one = taker(rig)
    [taken] = (await take(one, lease)).taken
    await take(one, lease, told(taken.claim, LOGIN, who), want=0)
    record = shown(rig, who)
    assert record is not None
    assert record.open


# --- counting -----------------------------------------------------------------------------


async def test_failures_of_different_workers_count_together(
    journal: Rig, processes: Callable[[], Rig]
) -> None:
    journal.add(3, bucket=ONE)
    rigs = [journal, processes(), processes()]
    for rig in rigs:
        one, lease = taker(rig), rig.lease()
        [taken] = (await take(one, lease, want=1)).taken
        done = await take(one, lease, told(taken.claim, FAIL), want=0)
        assert [c.opened for c in done.turn.changes] == [rig is rigs[-1]]
    record = shown(journal, MAIN)
    assert record is not None
    assert (record.open, record.error_class, record.reply) == (True, "connect_failed", "refused")


async def test_a_success_is_entered_only_where_something_fails(journal: Rig) -> None:
    journal.add(3, bucket=ONE)
    one, lease = taker(journal), journal.lease()
    taken = (await take(one, lease)).taken
    first, second, third = (t.claim for t in taken)
    await take(one, lease, told(first, OK, state=State.SENT), want=0)
    assert journal.count("breakers") == 0
    await take(one, lease, told(second, FAIL), want=0)
    assert shown(journal, MAIN) is not None
    await take(one, lease, told(third, OK, state=State.SENT), want=0)
    assert shown(journal, MAIN) is None


async def test_the_word_of_a_lost_claim_counts_for_nothing(journal: Rig) -> None:
    journal.add(1, bucket=ONE)
    one, lease = taker(journal), journal.lease()
    [taken] = (await take(one, lease)).taken
    journal.settle(settlement(taken.claim, State.QUEUED))
    await take(one, lease, told(taken.claim, LOGIN), want=0)
    assert shown(journal, MAIN) is None


async def test_what_means_nothing_any_more_is_swept_away(journal: Rig) -> None:
    lease = journal.lease()
    journal.sql(
        "INSERT INTO breakers VALUES ('domain:first:old.example', '{\"failures\": 2}', 0, 0, 5)"
    )
    await opened(journal, lease)
    assert journal.count("breakers") == 1


# --- open -----------------------------------------------------------------------------------


async def test_mail_for_an_open_relay_is_not_touched(journal: Rig) -> None:
    lease = journal.lease()
    await opened(journal, lease)
    ids = journal.add(3, bucket=ONE)
    before = [journal.row(i) for i in ids]
    one = taker(journal)

    def due() -> frozenset[Lane]:
        return journal.database.read_now(lambda c: one.due(c, journal.database.now()))

    assert due() == {Lane.NORMAL}, "once, to look for what is over"
    found = await take(one, lease)
    assert (found.taken, found.again_in, found.suspects) == ([], None, False)
    assert [journal.row(i) for i in ids] == before
    assert not due()


async def test_the_next_relay_takes_over_while_the_first_is_open(journal: Rig) -> None:
    lease = journal.lease()
    await opened(journal, lease)
    journal.add(2)
    found = await take(taker(journal), lease)
    assert [t.claim.relay for t in found.taken] == ["second", "second"]


async def test_waiting_for_a_breaker_ends_when_its_time_is_over(
    journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = journal.lease()
    await opened(journal, lease)
    now = journal.database.now()
    [dated] = journal.add(1, "dated", bucket=ONE, expires_at=now + 1)
    [code] = journal.add(1, "code", bucket=ONE, stream="codes")
    [other] = journal.add(1, "other", bucket=ONE)
    old = now - 700_000
    journal.sql("UPDATE recipients SET due_at = :t WHERE id IN (:a, :b)", t=old, a=code, b=other)
    # However many of the patient ones stand before the impatient.
    monkeypatch.setattr(taking, "OVER", 1)
    journal.sql("UPDATE recipients SET due_at = :t WHERE id = :b", t=old - 1, b=other)
    one = taker(journal)
    found = [await take(one, lease) for _ in range(4)]
    assert sum(f.turn.expired for f in found) == 2
    assert journal.row(dated).error_class == "expired"
    assert (journal.row(code).state, journal.row(code).error_class) == ("expired", "gave_up")
    assert journal.row(other).state == "queued"


async def test_what_comes_to_be_over_while_it_waits_is_found_by_the_next_look(
    journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look reads what has come to be over since the last; a seldom one from the beginning."""
    lease = journal.lease()
    await opened(journal, lease)
    now = journal.database.now()
    [soon, moved, dated] = journal.add(3, bucket=ONE, stream="codes")
    one = taker(journal)
    assert (await take(one, lease)).turn.expired == 0
    expires = "UPDATE recipients SET expires_at = :t WHERE id = :id"
    journal.sql(expires, t=now, id=dated)
    due = "UPDATE recipients SET due_at = :t WHERE id = :id"
    journal.sql(due, t=now - 700_000, id=moved)
    monkeypatch.setattr(taking, "SWEEP", 0.0)
    one._swept = {b: known._replace(again=0.0) for b, known in one._swept.items()}
    assert (await take(one, lease)).turn.expired == 1
    assert journal.row(dated).state == "expired"
    # As if its time had passed since the look before.
    [(bucket, known)] = one._swept.items()
    earlier = {name: at - 1000 for name, at in known.oldest.items()}
    journal.sql(due, t=known.oldest["codes"] - 500, id=soon)
    one._swept[bucket] = known._replace(oldest=earlier)
    assert (await take(one, lease)).turn.expired == 1
    assert journal.row(soon).state == "expired"
    one._swept = {b: known._replace(whole=0.0) for b, known in one._swept.items()}
    assert (await take(one, lease)).turn.expired == 1
    assert journal.row(moved).state == "expired"


async def test_only_the_process_that_looks_through_a_shut_bucket_is_called_to_it(
    journal: Rig,
) -> None:
    lease = journal.lease()
    await opened(journal, lease)
    journal.add(2, bucket=ONE)
    calls = []
    for place in range(2):
        one = taker(journal)
        await take(one, lease, of=2, place=place)
        now = journal.database.now()
        calls.append(journal.database.read_now(lambda c, one=one, now=now: one.due(c, now)))
    assert calls == [frozenset(), frozenset()]


async def test_what_opens_in_a_turn_holds_back_what_the_turn_had_chosen(journal: Rig) -> None:
    journal.add(3, bucket=ONE)
    one, lease = taker(journal), journal.lease()
    [taken] = (await take(one, lease, want=1)).taken
    found = await take(one, lease, told(taken.claim, LOGIN))
    assert ([c.opened for c in found.turn.changes], found.taken) == ([True], [])


async def test_what_is_open_and_paused_is_counted(journal: Rig) -> None:
    now = journal.database.now()
    sick(journal, MAIN)
    sick(journal, Subject(Kind.SENDER, "first", "a@example.com"))
    breakers = Breakers(journal.database, Policy(), lambda: 0.5)
    fails = {Subject(Kind.DOMAIN, "first", "b.example"): Record(failures=1, failed_at=now)}
    journal.database.run_now(lambda c: breakers.write(c, fails, now))
    journal.database.run_now(lambda c: pauses.begin(c, What.STREAM, "bulk", ACT, now))
    tally = Tally()
    journal.database.read_now(lambda c: gauges.read(c, now, now, tally))
    totals = together([tally.snapshot()])
    counts = {
        labels: number
        for (name, labels), number in totals.numbers.items()
        if name in (families.BREAKERS_OPEN.name, families.PAUSED.name)
    }
    assert counts == {("relay", "first"): 1, ("sender", "first"): 1, ("stream",): 1}


# --- the probe --------------------------------------------------------------------------------


async def test_one_probe_goes_and_its_success_lets_all_go(
    journal: Rig, processes: Callable[[], Rig]
) -> None:
    lease = journal.lease()
    await opened(journal, lease)
    journal.add(5, bucket=ONE)
    due_now(journal)
    one, other = taker(journal), taker(processes())
    [probe] = (await take(one, lease)).taken
    assert probe.probes == (MAIN,)
    assert (await take(one, lease)).taken == []
    assert (await take(other, lease)).taken == []
    await take(one, lease, told(probe.claim, OK, state=State.SENT), want=0)
    assert len((await take(other, lease)).taken) == 4


@pytest.mark.parametrize("state", ["queued", "deferred"])
async def test_mail_that_never_failed_is_the_probe(journal: Rig, state: str) -> None:
    """What fails wherever it goes would keep a relay shut that is well by now."""
    lease = journal.lease()
    await opened(journal, lease)
    journal.add(3, "poison", bucket=ONE)
    journal.sql(
        "UPDATE recipients SET state = :state, attempts = 2, due_at = due_at - 5000"
        " WHERE email LIKE 'poison%'",
        state=state,
    )
    journal.add(2, "good", bucket=ONE)
    due_now(journal)
    found = await take(taker(journal), lease)
    assert locals_of(found) == ["good0"]
    assert found.taken[0].probes == (MAIN,)


async def test_a_probe_that_fails_opens_it_for_longer(journal: Rig) -> None:
    lease = journal.lease()
    await opened(journal, lease)
    journal.add(2, bucket=ONE)
    due_now(journal)
    one = taker(journal)
    [probe] = (await take(one, lease)).taken
    await take(one, lease, told(probe.claim, LOGIN), want=0)
    record = shown(journal, MAIN)
    assert record is not None
    assert record.opened == 2
    assert record.until - journal.database.now() > 90_000
    assert (await take(one, lease)).taken == []


async def test_a_probe_whose_worker_died_makes_place_for_the_next(journal: Rig) -> None:
    lease = journal.lease()
    await opened(journal, lease)
    journal.add(2, bucket=ONE)
    due_now(journal)
    one = taker(journal)
    [probe] = (await take(one, lease)).taken
    # Buried: settled by another, without a word about the relay.
    journal.settle(settlement(probe.claim, State.QUEUED))
    [again] = (await take(one, lease)).taken
    assert again.probes == (MAIN,)


def as_probe(rig: Rig, head: Head, lease: int, start: threading.Barrier) -> list[Claim]:
    """One worker's turn that begins with the others'."""
    breakers = Breakers(rig.database, Policy(), lambda: 0.5)
    candidate = Candidate(head, "first", (), (MAIN,))

    def work(c: sa.Connection) -> Turn:
        return rig.queue.turn(
            c, lease=lease, settlements=(), candidates=[candidate], breakers=breakers
        )

    start.wait(10)
    return rig.database.run_now(work).claims


async def test_of_many_workers_at_once_one_gets_the_probe(
    journal: Rig, processes: Callable[[], Rig]
) -> None:
    """Each with a head of its own: compare and set on the breaker alone keeps them apart."""
    lease = journal.lease()
    await opened(journal, lease)
    journal.add(6, bucket=ONE)
    rigs = [processes() for _ in range(6)]
    for _ in range(5):
        due_now(journal)
        heads = journal.heads()
        start = threading.Barrier(len(rigs))
        with ThreadPoolExecutor(len(rigs)) as pool:
            tries = [
                pool.submit(as_probe, rig, h, lease, start)
                for rig, h in zip(rigs, heads, strict=True)
            ]
            claims = [claim for one in tries for claim in one.result()]
        assert len(claims) == 1
        journal.settle(settlement(claims[0], State.QUEUED))


def test_all_that_a_probe_is_of_or_nothing(journal: Rig) -> None:
    """A relay that may be probed, and a sender that may not yet."""
    who = Subject(Kind.SENDER, "first", "shop@example.com")
    breakers = Breakers(journal.database, Policy(), lambda: 0.5)
    now = journal.database.now()
    states = {
        MAIN: Record(opened=1, since=1, until=now),
        who: Record(opened=1, since=1, until=now + 60_000),
    }

    def work(c: sa.Connection) -> tuple[set[int], set[int]]:
        breakers.write(c, states, now)
        book = breakers.open_book(c, (), states, now)
        both = book.probes([Probe(1, 1, (MAIN, who))])
        return both, book.probes([Probe(2, 1, (MAIN,)), Probe(3, 1, (MAIN,))])

    assert journal.database.run_now(work) == (set(), {2})


# --- what is in the way is put aside -----------------------------------------------------------


def sick(rig: Rig, who: Subject) -> None:
    now = rig.database.now()
    breakers = Breakers(rig.database, Policy(), lambda: 0.5)
    record = Record(opened=1, since=now, until=now + 600_000)
    rig.database.run_now(lambda c: breakers.write(c, {who: record}, now))


@pytest.mark.parametrize("what", ["domain", "sender", "paused domain", "stream", "template"])
async def test_what_cannot_go_stands_before_nobody(journal: Rig, what: str) -> None:
    changes: dict[str, Any] = {
        "sender": {"sender": "sick@example.com"},
        "stream": {"stream": "bulk"},
        "template": {"template": "sick"},
    }.get(what, {})
    many = [arrival(f"s{n}", f"s{n}@sick.example", bucket=ONE, **changes) for n in range(30)]
    journal.store(*many)
    journal.add(2, "well", bucket=ONE)
    if what == "domain":
        sick(journal, Subject(Kind.DOMAIN, "first", "sick.example"))
    elif what == "sender":
        sick(journal, Subject(Kind.SENDER, "first", "sick@example.com"))
    else:
        kind = What.DOMAIN if what == "paused domain" else What(what)
        name = {"stream": "bulk", "template": "sick"}.get(what, "sick.example")
        journal.database.run_now(lambda c: pauses.begin(c, kind, name, ACT, 1))
    one, lease = taker(journal), journal.lease()
    first = await take(one, lease, want=5)
    assert (first.taken, first.turn.aside) == ([], 30)
    assert locals_of(await take(one, lease, want=5)) == ["well0", "well1"]
    assert journal.count("recipients", "attempts + claims + token > 0 AND state = 'queued'") == 0
    # From now on their bucket is not even looked into.
    last = await take(one, lease, want=5)
    assert (last.taken, last.turn.aside) == ([], 0)


async def test_workers_put_aside_together_and_the_one_behind_thousands_goes(
    journal: Rig, processes: Callable[[], Rig]
) -> None:
    """In as many turns as the thousands take; bench figures are in the architecture."""
    many = [arrival(f"s{n}", f"s{n}@sick.example", bucket=ONE) for n in range(MOST * 2 + 100)]
    journal.store(*many)
    journal.add(1, "well", bucket=ONE)
    sick(journal, Subject(Kind.DOMAIN, "first", "sick.example"))
    workers = [(taker(rig), rig.lease()) for rig in (journal, processes())]
    moved = 0
    for _ in range(4):
        done = await asyncio.gather(*(take(*worker, want=5) for worker in workers))
        moved += sum(d.turn.aside for d in done)
        if any(d.taken for d in done):
            break
    assert [x for d in done for x in locals_of(d)] == ["well0"]
    assert moved == len(many)


async def test_a_destination_that_is_open_at_one_relay_goes_by_the_other(journal: Rig) -> None:
    sick(journal, Subject(Kind.DOMAIN, "first", "example.org"))
    journal.add(1)
    found = await take(taker(journal), journal.lease())
    assert [(t.claim.relay, found.turn.aside) for t in found.taken] == [("second", 0)]


async def test_the_end_of_an_address_is_not_a_domain(journal: Rig) -> None:
    """``a@x_y.example`` and ``a@sub.x-y.example`` are neither patterns nor tails."""
    emails = ["a@x-y.example", "b@sub.x-y.example", "c@xay.example", "d@ax-y.example"]
    journal.store(*(arrival(e, e, bucket=ONE) for e in emails))
    sick(journal, Subject(Kind.DOMAIN, "first", "x-y.example"))
    one, lease = taker(journal), journal.lease()
    found = await take(one, lease)
    assert (sorted(locals_of(found)), found.turn.aside) == (["b", "c", "d"], 1)


async def test_slowed_mail_goes_at_its_pace_and_holds_up_no_other(journal: Rig) -> None:
    who = Subject(Kind.DOMAIN, "first", "slow.example")
    breakers = Breakers(journal.database, Policy(), lambda: 0.5)
    now = journal.database.now()
    slowed = Record(pace=60.0, before=120.0, cut_at=now)
    journal.database.run_now(lambda c: breakers.write(c, {who: slowed}, now))
    journal.store(*(arrival(f"s{n}", f"s{n}@slow.example", bucket=ONE) for n in range(10)))
    journal.add(3, "well", bucket=ONE)
    one, lease = taker(journal), journal.lease()
    await take(one, lease)
    found = await take(one, lease)
    assert [x for x in locals_of(found) if x.startswith("well")] == ["well0", "well1", "well2"]
    assert len([x for x in locals_of(found) if x.startswith("s")]) in (1, 2)
    assert found.again_in is not None


# --- pauses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "name"),
    [(What.ALL, ""), (What.LANE, "normal"), (What.PRODUCER, "shop"), (What.RELAY, "first")],
)
async def test_what_is_paused_waits_untouched_until_it_is_resumed(
    journal: Rig, what: What, name: str
) -> None:
    [id_] = journal.add(1, bucket=ONE)
    one, lease = taker(journal), journal.lease()

    def begin(c: sa.Connection) -> bool:
        return pauses.begin(c, what, name, ACT, 5)

    assert journal.database.run_now(begin)
    assert not journal.database.run_now(begin), "paused already"
    [pause] = journal.database.read_now(pauses.standing)
    assert (pause.what, pause.name, pause.who, pause.reason) == (
        what,
        name,
        "ann@desk",
        "maintenance",
    )
    before = journal.row(id_)
    assert (await take(one, lease)).taken == []
    assert journal.row(id_) == before
    resume = Act("ann@desk", "resume", "done")
    assert journal.database.run_now(lambda c: pauses.end(c, what, name, resume, 6))
    assert not journal.database.run_now(lambda c: pauses.end(c, what, name, resume, 7))
    assert len((await take(one, lease)).taken) == 1
    assert [r.verb for r in journal.all("SELECT verb FROM actions ORDER BY id")] == [
        "pause",
        "resume",
    ]


async def test_a_paused_relay_gives_way_to_the_next(journal: Rig) -> None:
    journal.add(1)
    journal.database.run_now(lambda c: pauses.begin(c, What.RELAY, "first", ACT, 5))
    assert [t.claim.relay for t in (await take(taker(journal), journal.lease())).taken] == [
        "second"
    ]
