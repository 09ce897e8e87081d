"""What is done for each mail, each second and each hour reads no table from end to end.

A day of a journal is lived through the journal's own functions, over a past of some
thousand mails, and each statement is explained as it runs: on tables whose sizes the
database does not know yet, and again when it has looked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from bench import filling
from mailgate.config.shape import Config
from mailgate.dispatch.lanes import ORDER
from mailgate.dispatch.take import Taker
from mailgate.journal import draining, leases, outbox, pauses, processes, recent
from mailgate.journal.arrivals import BucketKey, NewParked
from mailgate.journal.orders import Order
from mailgate.journal.outbox import Outbox
from mailgate.journal.pauses import What
from mailgate.journal.permits import JournalLimiter
from mailgate.journal.recent import Recent, nothing_sent
from mailgate.journal.search import held_for
from mailgate.journal.settling import Settlement
from mailgate.journal.suppressions import Blame, Suppression, put
from mailgate.journal.surgery import Act, Surgery
from mailgate.limits.breaker import Kind, Sign, Signal, Subject
from mailgate.metrics.tally import Tally
from mailgate.model.message import Attachment, Claim
from mailgate.model.state import Lane, State
from mailgate.operations.retention import clean
from tests.contract.journal.plans import GROWING, SELDOM, Plans
from tests.contract.journal.rig import Rig, arrival, attempt, settlement
from tests.contract.journal.test_digests import desk_of, item

#: Everything that asks for statements of its own.
CONFIG = Config.model_validate(
    {
        "relays": {
            "first": {"host": "a.example", "rate": "1000/s"},
            "second": {"host": "b.example"},
        },
        "streams": {"transactional": {"relays": ["first", "second"]}},
        "throttles": {"day": {"limit": 2, "window": "1d"}},
        "limits": {
            "global": "5000/s",
            "domain": {
                "slow.example": "1/h",
                "narrow.example": {"max_connections": 1},
            },
        },
        "digests": {"news": {"max_wait": "1ms"}},
        "retention": {"keys": "89d", "content": "89d", "messages": "89d", "parked": "1d"},
    }
)
ACT = Act("ann", "resend", "because")


class Day:
    """One process's life, statement by statement."""

    def __init__(self, rig: Rig, run: str) -> None:
        self.rig, self.run = rig, run
        self.lease = rig.lease()
        limiter = JournalLimiter(rig.database)
        self.taker = Taker(rig.database, rig.queue, limiter, CONFIG, b"secret", Tally())
        self.outbox = Outbox(rig.database, 1)
        self.claims: list[Claim] = []

    def intake(self) -> None:
        run, now = self.run, self.rig.database.now()
        file = Attachment("a.txt", "text/plain", b"x", None)
        anonymous = arrival(f"{run}anonymous", session=1)
        fresh = [arrival(f"{run}{n}", f"{run}{n}@d{n % 5}.example") for n in range(30)]
        fresh += [arrival(f"{run}s{n}", f"{run}s{n}@slow.example") for n in range(3)]
        fresh += [arrival(f"{run}n{n}", f"{run}n{n}@narrow.example") for n in range(3)]
        fresh += [arrival(f"{run}t{n}", f"{run}often@example.org") for n in range(4)]
        fresh.append(arrival(f"{run}file", attachments=(file,), sensitive=True))
        fresh.append(arrival(f"{run}own", own_id=f"{run}id"))
        fresh.append(arrival(f"{run}over", expires_at=now - 1))
        fresh.append(arrival(f"{run}later", send_at=now + 5000))
        refused = NewParked(f"{run}parked", "test", "invalid", "[]", b"{}")
        stored = self.rig.store(*fresh, anonymous, refused=[refused])
        self.rig.store(*fresh[:20], arrival(f"{run}0", body_hash="another"))
        self.rig.store(arrival(f"{run}anonymous", session=2, redelivered=True))
        self.rig.store(forget=stored.unacked)
        bulk = BucketKey(Lane.BULK, "news", ("second",))
        self.rig.store(*(arrival(f"{run}b{n}", bucket=bulk) for n in range(2)))
        for verb, target in (("cancel", f"{run}1"), ("ask", f"{run}id"), ("cancel", f"{run}early")):
            order = Order(
                verb, "shop", f"key:{run}{verb}{target}", "h", "test", b"{}", "id", target
            )
            self.rig.store(orders=[order])
        self.rig.store(arrival(f"{run}early"))

    def take(self, *settlements: Settlement, of: int = 1) -> None:
        found = asyncio.run(
            self.taker.take(
                want=12, lanes=ORDER, lease=self.lease, settlements=settlements, of=of, busy=True
            )
        )
        self.claims += [one.claim for one in found.taken]

    def deliver(self) -> None:
        for _ in range(4):
            self.take()
        whole, first = self.rig.queue.contents.whole, self.claims[0]
        self.rig.database.read_now(lambda c: whole(c, first))
        self.settle()
        # What was tried before, and the bytes that were kept of it.
        for _ in range(4):
            self.take(of=2)
        self.settle()

    def settle(self) -> None:
        whose = [Subject(Kind.RELAY, "first"), Subject(Kind.DOMAIN, "first", "d1.example")]
        bad = tuple((who, Signal(Sign.FAIL)) for who in whose)
        ways = (
            {"path": (State.SENT,), "attempt": attempt("sent", code=250), "took": "x@example.org"},
            {"path": (State.DEFERRED,), "attempt": attempt(), "stored": b"bytes", "signals": bad},
            {
                "path": (State.BOUNCED,),
                "attempt": attempt("bounce", code=550),
                "blame": Blame("x@example.org", "unknown", "550", 2**60, 2, 1, 1000),
            },
            {"path": (State.UNCERTAIN, State.QUEUED), "attempt": attempt(), "suspect": True},
            {"path": (State.QUEUED,), "bucket": BucketKey(Lane.NORMAL, "shop", ("second",))},
        )
        ended = [
            settlement(claim, *way["path"], **{k: v for k, v in way.items() if k != "path"})
            for claim, way in zip(self.claims, ways * 20, strict=False)
        ]
        self.take(*ended)
        self.claims = self.claims[len(ended) :]

    def look(self) -> None:
        def looks(c: sa.Connection) -> None:
            now = self.rig.database.now()
            self.taker.due(c, now)
            self.rig.queue.next_at(c, now)
            self.rig.queue.next_due(c, now)
            leases.living(c, "worker", now - 1000)
            leases.others(c, self.lease)
            leases.claimed_by(c, self.lease)
            leases.unclaimed(c)
            nothing_sent(c)
            sent = Recent(self.rig.database, ["slow.example"], by_message=True)
            sent.under_way(c, now)
            sent.ended(c, None, now - 1000, now)
            outbox.free(c, now)
            outbox.waiting(c)
            outbox.published_at(c, "shop", [(1, now)])
            processes.asked_last(c)

        self.rig.database.read_now(looks)
        self.rig.database.run_now(lambda c: leases.beat(c, self.lease, 1))

    def publish(self) -> None:
        reached = self.rig.database.run_now(lambda c: self.outbox.hold(c, 8000))
        assert reached is not None
        told = self.rig.database.read_now(lambda c: self.outbox.next(c, reached))
        self.rig.database.read_now(lambda c: self.outbox.between(c, reached, told[-1].id))
        self.rig.database.run_now(lambda c: self.outbox.advance(c, reached, told[-1].id, 8000))

    def operate(self) -> None:
        rig, now = self.rig, self.rig.database.now()
        item(rig, 1, to=f"{self.run}@example.org")
        rig.database.read_now(lambda c: held_for(c, ["template_missing"]))
        rig.database.read_now(lambda c: draining.under_way(c, What.STREAM, "transactional"))
        rig.database.read_now(lambda c: draining.standing(c, rig.database, [(1, 1)]))
        entry = Suppression("gone@example.org", "unknown", "manual")
        rig.database.run_now(lambda c: put(c, entry, now, replace=True))
        ids = [claim.recipient_id for claim in self.claims] or [1]
        rig.database.run_now(lambda c: Surgery(rig.database).move(c, ids, State.QUEUED, ACT))
        rig.database.run_now(lambda c: draining.move(c, rig.database, Lane.BULK, Lane.NORMAL))
        rig.database.run_now(lambda c: pauses.begin(c, What.RELAY, "first", ACT, now))
        rig.database.run_now(lambda c: pauses.begin(c, What.RELAY, "second", ACT, now))
        self.taker._viewed = -1.0
        self.take()
        rig.database.run_now(lambda c: pauses.end(c, What.RELAY, "first", ACT, now))
        rig.database.run_now(lambda c: pauses.end(c, What.RELAY, "second", ACT, now))
        self.taker._viewed = -1.0
        desk_of(rig, digests={"news": {"max_wait": "1ms"}}).close()
        clean(rig.database, CONFIG, 20)


#: Those of which a past has many.
PAST = frozenset(("messages", "recipients", "attempts", "events"))


@pytest.mark.parametrize("database", ["sqlite_url", "fresh_journal"], ids=["sqlite", "postgresql"])
@pytest.mark.parametrize("past", ["none", "unknown", "analyzed"])
def test_no_statement_reads_a_table_from_end_to_end(
    database: str,
    request: pytest.FixtureRequest,
    rigs_of: Callable[[str], Rig],
    monkeypatch: pytest.MonkeyPatch,
    past: str,
) -> None:
    """PostgreSQL chooses by size: what is seldom done to few rows may be done either way."""
    journal = rigs_of(request.getfixturevalue(database))
    monkeypatch.setattr(recent, "PORTION", 500)
    filling.fill(journal.url, 0 if past == "none" else 20_000, waiting=8)
    if past == "analyzed":
        filling.analyze(journal.url)
    rest = Plans(GROWING if journal.database.sqlite else PAST if past != "none" else frozenset())
    hot = Plans(PAST)
    for run in ("a", "b"):
        with hot.watching():
            day = Day(journal, run)
            day.intake()
            day.deliver()
            day.look()
            day.publish()
        with rest.watching():
            day.operate()
    assert len(hot.seen) > 60, len(hot.seen)
    assert len(rest.seen) > 50, len(rest.seen)
    wholly = {**hot.wholly, **rest.wholly}
    if past == "none":
        wholly = {text: how for text, how in wholly.items() if not text.startswith(SELDOM)}
    assert not wholly, "\n\n".join(f"{how}\n{text}" for text, how in wholly.items())


def test_a_backlog_goes_though_postgresql_believes_that_there_is_none(
    fresh_journal: str, rigs_of: Callable[[str], Rig]
) -> None:
    """It has looked when all mail was gone; to join two such tables row by row takes too long."""
    journal = rigs_of(fresh_journal)
    filling.fill(journal.url, 300)
    filling.empty(journal.url)
    filling.fill(journal.url, 20_000, waiting=8)
    before = journal.count("attempts")
    day = Day(journal, "a")
    # None of it breaks off by a statement that has taken too long.
    day.intake()
    day.deliver()
    day.look()
    day.publish()
    assert journal.count("attempts") > before > 19_000
