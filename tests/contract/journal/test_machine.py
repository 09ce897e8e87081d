"""Any order of claims, dots, settlements, pauses, deaths and burials, on the real SQL.

Hypothesis plays workers against each other. The relay's own book says who was sent
what; the journal must account for every copy: no more of them than attempts that are
on record as sent or uncertain, and nobody is lost.

The same game, played with a bug in it, must be lost: without the fence in a settlement,
without compare and set in a settlement or a claim, or with a dot that is sent without its
mark. The last tests see to it that the game can tell, and that it is lost by a double send.

``./dev test`` plays the same games each time. Many others, drawn by chance:

    MAILGATE_GAMES=2000 ./dev test tests/contract/journal/test_machine.py -k no_game \\
        --timeout 0 -s

A game that is lost is printed, move by move; ``-s`` shows the seed, and ``MAILGATE_SEED``
repeats it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from mailgate.config.streams import Backoff, Stream
from mailgate.delivery.recovery import judge
from mailgate.delivery.retry import settle
from mailgate.delivery.spool import Mark
from mailgate.journal import leases
from mailgate.journal.queue import Head
from mailgate.journal.settling import Settlement
from mailgate.model import outcome as outcomes
from mailgate.model.message import Claim
from mailgate.model.outcome import Outcome, Reply, Scope
from mailgate.model.state import FINAL, State
from mailgate.model.state import Phase as Step
from mailgate.model.value import replace
from tests.contract.journal.rig import BUCKET, Rig

#: How many games to play by chance; 0: the few that are the same each time.
GAMES = int(os.environ.get("MAILGATE_GAMES", "0"))

MAILS = 3
STREAM = Stream(retry=Backoff(first=0.001, factor=1, cap=0.001, give_up=1e6))
STREAMS = {"retry": STREAM, "hold": STREAM.model_copy(update={"uncertain": "hold"})}
WORKERS = 2
WORKER = st.integers(0, WORKERS - 1)
MOST = st.integers(1, MAILS)
HOW = st.sampled_from(["250", "lost", "4xx", "5xx", "relay"])


def move(name: str, **how: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(name), st.fixed_dictionaries(how))


#: One rule with all moves in it, some twice: Hypothesis leaves rules out of a game, and
#: a game without claims, say, tells little.
MOVES = st.one_of(
    move("claim", n=WORKER, most=MOST, old=st.booleans()),
    move("claim", n=WORKER, most=MOST, old=st.just(False)),
    move("look", n=WORKER),
    move("dot", n=WORKER, zombie=st.booleans(), accepted=st.booleans()),
    move("end", n=WORKER, zombie=st.booleans(), how=HOW, at_once=st.booleans()),
    move("end", n=WORKER, zombie=st.booleans(), how=HOW, at_once=st.just(True)),
    move("settle", n=WORKER, zombie=st.booleans()),
    move("die", n=WORKER),
    move("taken_for_dead", n=WORKER, evidence=st.booleans()),
    move("lose_the_lease_only", n=WORKER),
    move("sweep_unclaimed"),
    move("a_zombie_claims", most=MOST),
    move("the_clock_jumps", hours=st.sampled_from([-1, 1])),
)
HOUR = 3_600_000


@dataclass
class Worker:
    """A process: its lease, what it looked at, its open conversations and its spool."""

    lease: int
    looked: list[Head] = field(default_factory=list)
    open: list[Claim] = field(default_factory=list)
    ended: list[Settlement] = field(default_factory=list)
    marks: dict[tuple[int, int], Mark] = field(default_factory=dict)
    sealed: bool = False


class Game(RuleBasedStateMachine):
    """Workers are processes over one journal; burials are done by any of them."""

    fresh: Callable[[], Rig]
    marks_dots = True

    @initialize(policy=st.sampled_from(sorted(STREAMS)))
    def begin(self, policy: str) -> None:
        self.rig = type(self).fresh()
        self.stream = STREAMS[policy]
        self.mails = self.rig.add(MAILS)
        self.workers = [Worker(self.rig.lease()) for _ in range(WORKERS)]
        self.zombies: list[Worker] = []
        # What the relay took, by recipient and token: a claim sends its mail once.
        self.taken: set[tuple[int, int]] = set()
        # The moment has its own clock, so that what is deferred is due at once.
        self.ahead = 0
        real = self.rig.database.now
        self.jumped = 0
        self.rig.database.now = lambda: real() + self.ahead + self.jumped  # type: ignore[method-assign]

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            self.rig.close()

    @rule(moves=st.lists(MOVES, min_size=1, max_size=6))
    def moves(self, moves: list[tuple[str, dict[str, Any]]]) -> None:
        """A few moves in a row, and what must hold after each."""
        for name, how in moves:
            getattr(self, name)(**how)
            self.all_holds()

    # --- what a worker does ---------------------------------------------------------

    def look(self, n: int) -> None:
        self.ahead += 10_000
        self.workers[n].looked = self.rig.heads()

    def claim(self, n: int, most: int, old: bool) -> None:
        """On a look that may be old, in one transaction with what ended."""
        worker = self.workers[n]
        if not (old and worker.looked):
            self.look(n)
        turn = self.rig.turn(worker.lease, worker.looked[:most], worker.ended)
        worker.ended = []
        worker.open += turn.claims

    def dot(self, n: int, zombie: bool, accepted: bool) -> None:
        """The conversation comes to its dot: marked, then the seal is looked at, then sent."""
        worker = self._one(n, zombie)
        for claim in worker.open if worker else ():
            key = claim.recipient_id, claim.token
            if key in worker.marks:
                continue
            if worker.sealed:
                continue  # the dot is not sent
            worker.marks[key] = Mark.DOT if self.marks_dots else Mark.NONE
            if accepted:
                self.taken.add(key)
            return

    def end(self, n: int, zombie: bool, how: str, at_once: bool) -> None:
        """A conversation ends; what the relay took it has taken, whatever is heard of it."""
        worker = self._one(n, zombie)
        if worker is None or not worker.open:
            return
        claim = worker.open.pop(0)
        key = claim.recipient_id, claim.token
        past_dot = key in worker.marks
        reply = Reply(250 if how == "250" else 451, how)
        if past_dot:
            outcome = outcomes.sent(reply) if how == "250" else outcomes.uncertain(how)
            if how == "250":
                if self.marks_dots:
                    worker.marks[key] = Mark.ACCEPTED
                # A relay answers 250 only for what it took.
                self.taken.add(key)
        elif worker.sealed or how in ("250", "lost"):
            outcome = outcomes.untouched(Step.BODY, reply, "stopped", Scope.MESSAGE)
        elif how == "5xx":
            outcome = outcomes.bounced(Step.RCPT, reply, "gone", suppress=outcomes.Suppress.NEVER)
        else:
            scope = Scope.RELAY if how == "relay" else Scope.RECIPIENT
            outcome = outcomes.deferred(Step.RCPT, reply, how, scope)
        worker.ended.append(self._settlement(claim, outcome))
        if at_once:
            self.settle(n, zombie)

    def settle(self, n: int, zombie: bool) -> None:
        worker = self._one(n, zombie)
        if worker is not None:
            self.rig.settle(*worker.ended)
            worker.ended = []

    # --- what happens to workers -------------------------------------------------------

    def die(self, n: int) -> None:
        """SIGKILL: what it knew is gone, its spool stays."""
        self._bury(self.workers[n], evidence=True)
        self.workers[n] = Worker(self.rig.lease())

    def taken_for_dead(self, n: int, evidence: bool) -> None:
        """It was stopped for longer than its lease; it wakes up, and goes on where it was."""
        worker = self.workers[n]
        self._bury(worker, evidence)
        self.zombies.append(worker)
        self.workers[n] = Worker(self.rig.lease())

    def lose_the_lease_only(self, n: int) -> None:
        """Removed between another's claim and its commit, as only a race can."""
        worker = self.workers[n]
        worker.sealed = True
        self.rig.sql("DELETE FROM leases WHERE id = :id", id=worker.lease)
        self.zombies.append(worker)
        self.workers[n] = Worker(self.rig.lease())

    def the_clock_jumps(self, hours: int) -> None:
        """There, and by the next jump back again: what waits meanwhile waits longer or less."""
        self.jumped = 0 if self.jumped else hours * HOUR

    def sweep_unclaimed(self) -> None:
        orphans = self.rig.database.read_now(leases.unclaimed)
        self.rig.settle(*(self._judged(o, None) for o in orphans))

    def a_zombie_claims(self, most: int) -> None:
        if not self.zombies:
            return
        worker = self.zombies[0]
        turn = self.rig.turn(worker.lease, self.rig.heads(most), worker.ended)
        worker.ended = []
        assert turn.claims == []

    # --- what must hold -----------------------------------------------------------------

    def all_holds(self) -> None:
        self.nobody_is_lost()
        self.a_claim_is_its_holders()
        self.nobody_can_be_sent_by_two()
        self.every_copy_is_accounted_for()
        self.what_is_told_is_in_order()
        self.attempts_are_numbered_without_gaps()

    def nobody_is_lost(self) -> None:
        """Each is final, is found when its time has come, waits for a person, or is claimed;
        a claim under no lease is found by the sweep."""
        rows = self.rig.all("SELECT * FROM recipients")
        assert {r.id for r in rows} == set(self.mails)
        claimed = {
            (c.recipient_id, c.token) for w in [*self.workers, *self.zombies] for c in w.open
        } | {(s.recipient_id, s.token) for w in [*self.workers, *self.zombies] for s in w.ended}
        living = {r.id for r in self.rig.all("SELECT id FROM leases")}
        unclaimed = {o.recipient_id for o in self.rig.database.read_now(leases.unclaimed)}
        # Whichever way the clock has jumped.
        due = {head.id for head in self.rig.heads(ahead=2 * HOUR + 1000)}
        for row in rows:
            state = State(row.state)
            if state in (State.QUEUED, State.DEFERRED):
                assert row.id in due, "nobody ever finds it"
            if state is State.SENDING:
                held = row.lease_id in living and (row.id, row.token) in claimed
                assert held or row.id in unclaimed
            else:
                assert row.lease_id is None
                assert state in FINAL | {State.QUEUED, State.DEFERRED, State.UNCERTAIN}

    def nobody_can_be_sent_by_two(self) -> None:
        """Two conversations that may still come to their dot are never about one recipient."""
        able = [
            c.recipient_id
            for w in [*self.workers, *self.zombies]
            if not w.sealed
            for c in w.open
            if (c.recipient_id, c.token) not in w.marks
        ]
        assert len(able) == len(set(able)), "two may come to their dot about one recipient"

    def a_claim_is_its_holders(self) -> None:
        """What a living worker has claimed nobody ends or claims beside it."""
        current = {r.id: (r.state, r.token) for r in self.rig.all("SELECT * FROM recipients")}
        for w in self.workers:
            for c in w.open:
                assert current[c.recipient_id] == ("sending", c.token)

    def every_copy_is_accounted_for(self) -> None:
        """Copies that the relay has are at most those on record, or in a hand that may yet
        record them."""
        recorded = dict.fromkeys(self.mails, 0)
        for row in self.rig.all(
            "SELECT recipient_id, count(*) AS n FROM attempts"
            " WHERE kind IN ('sent', 'uncertain') GROUP BY recipient_id"
        ):
            recorded[row.recipient_id] = row.n
        rows = {r.id: r for r in self.rig.all("SELECT * FROM recipients")}
        taken = Counter(recipient for recipient, _ in self.taken)
        for id_ in self.mails:
            copies = taken[id_]
            in_hand = rows[id_].state == "sending"
            assert copies <= recorded[id_] + in_hand, "a copy more than is on record"
            if rows[id_].state == "sent":
                assert copies >= 1, "sent, and the relay has no copy"

    def what_is_told_is_in_order(self) -> None:
        told = self.rig.all("SELECT recipient_id, seq FROM events ORDER BY id")
        for row in self.rig.all("SELECT id, seq FROM recipients"):
            events = [e.seq for e in told if e.recipient_id == row.id]
            assert events == sorted(set(events))
            assert not events or events[-1] <= row.seq

    def attempts_are_numbered_without_gaps(self) -> None:
        found = self.rig.all("SELECT recipient_id, n FROM attempts ORDER BY id")
        for row in self.rig.all("SELECT id, attempts FROM recipients"):
            mine = [a.n for a in found if a.recipient_id == row.id]
            assert mine == list(range(1, row.attempts + 1))

    # --- words --------------------------------------------------------------------------

    def _one(self, n: int, zombie: bool) -> Worker | None:
        if not zombie:
            return self.workers[n]
        return self.zombies[n % len(self.zombies)] if self.zombies else None

    def _settlement(self, claim: Claim, outcome: Outcome) -> Settlement:
        now = self.rig.database.now()
        return settle(
            claim,
            outcome,
            stream=self.stream,
            bucket=BUCKET,
            preferred=BUCKET.route,
            started_at=now,
            now=now,
            random=lambda: 0.5,
            content=b"bytes",
        )

    def _judged(
        self, orphan: leases.Orphan, marks: dict[tuple[int, int], Mark] | None
    ) -> Settlement:
        now = self.rig.database.now()
        return judge(orphan, marks, stream=self.stream, max_deaths=99, now=now, random=lambda: 0.5)

    def _bury(self, worker: Worker, evidence: bool) -> None:
        """Seal first, read afterwards, settle, forget: as the sweep does."""
        worker.sealed = True
        marks = dict(worker.marks) if evidence else None

        def work(c: sa.Connection) -> None:
            orphans = leases.claimed_by(c, worker.lease)
            settlements = [self._judged(o, marks) for o in orphans]
            self.rig.queue.settling.write(c, settlements, self.rig.database.now())

        self.rig.database.run_now(work)
        self.rig.database.run_now(lambda c: leases.remove(c, [worker.lease]))


def play(
    fresh: Callable[[], Rig],
    examples: int,
    steps: int,
    *,
    by_chance: int = 0,
    shrink: bool = True,
    **rules: Any,
) -> None:
    game = type("Game", (Game,), {"fresh": staticmethod(fresh), **rules})
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    if by_chance:
        number = int(os.environ.get("MAILGATE_SEED", random.getrandbits(32)))
        print(f"MAILGATE_SEED={number}")
        game = seed(number)(game)
    run_state_machine_as_test(
        game,
        settings=settings(
            max_examples=by_chance or examples,
            stateful_step_count=steps,
            deadline=None,
            phases=phases,
            derandomize=not by_chance,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


Fresh = Callable[[], Rig]


@pytest.fixture
def sqlite(migrated_file: Path, tmp_path: Path) -> Fresh:
    """A new journal in SQLite for each game, in the place of the last one's."""
    number = 0

    def fresh() -> Rig:
        nonlocal number
        number += 1
        for left in tmp_path.glob("journal.db*"):
            left.unlink()
        rig = Rig(f"sqlite:///{shutil.copy(migrated_file, tmp_path / 'journal.db')}", number)
        # Nobody pulls the plug in this game.
        rig.database.read_now(lambda c: c.exec_driver_sql("PRAGMA synchronous=OFF"))
        return rig

    return fresh


@pytest.fixture
def postgresql(migrated_postgres_url: str) -> Fresh:
    """The same journal in PostgreSQL for each game, emptied."""
    tables = "messages, recipients, attempts, events, leases, renderings, buckets, throttle_hits"

    def fresh() -> Rig:
        rig = Rig(migrated_postgres_url)
        rig.sql(f"TRUNCATE {tables}")
        return rig

    return fresh


def test_no_game_is_lost_on_sqlite(sqlite: Fresh) -> None:
    play(sqlite, 60, 12, by_chance=GAMES)


def test_no_game_is_lost_on_postgresql(postgresql: Fresh) -> None:
    play(postgresql, 40, 12, by_chance=GAMES)


def unfenced(rig: Rig, where: str, fence: str) -> None:
    """Let a condition of a statement be true of every row."""
    room: Any = rig.queue.settling if where == "_update" else rig.queue
    text, found = re.subn(fence, "true", getattr(room, where).text)
    assert found == 1, "the statement has no such fence any more"
    setattr(room, where, sa.text(text))


#: What is left of ``all_holds``: that a claim is taken from its holder shows sooner than
#: what comes of it, and only what comes of it is a double send.
def no_double_send(game: Game) -> None:
    game.nobody_can_be_sent_by_two()
    game.every_copy_is_accounted_for()


DOUBLE = r"^(two may come to their dot about one recipient|a copy more than is on record)"
TOKEN = r"\w+\.token = v\.token"
SENDING = r"\w+\.state = 'sending'"
WAITING = r"\w+\.state IN \('queued', 'deferred'\)"


@pytest.mark.parametrize(
    ("database", "where", "fences"),
    [
        pytest.param("sqlite", "_update", [TOKEN], id="sqlite, no token"),
        pytest.param("sqlite", "_update", [TOKEN, SENDING], id="sqlite, neither token nor state"),
        pytest.param("sqlite", "_claim", [TOKEN, WAITING], id="sqlite, a claim without them"),
        pytest.param("postgresql", "_update", [TOKEN], id="postgresql, no token"),
        pytest.param("postgresql", "_claim", [TOKEN, WAITING], id="postgresql, a claim without"),
    ],
)
def test_without_the_fence_the_game_is_lost(
    database: str, where: str, fences: list[str], request: pytest.FixtureRequest
) -> None:
    whole: Fresh = request.getfixturevalue(database)

    def fresh() -> Rig:
        rig = whole()
        for fence in fences:
            unfenced(rig, where, fence)
        return rig

    with pytest.raises(AssertionError, match=DOUBLE):
        play(fresh, 300, 12, shrink=False, all_holds=no_double_send)


# On SQLite alone: the mark is no matter of SQL.
def test_without_the_mark_before_the_dot_the_game_is_lost(sqlite: Fresh) -> None:
    with pytest.raises(AssertionError, match=r"^a copy more than is on record"):
        play(sqlite, 300, 30, shrink=False, marks_dots=False, all_holds=no_double_send)


def test_mail_that_is_never_due_loses_the_game(sqlite: Fresh) -> None:
    def fresh() -> Rig:
        rig = sqlite()
        write = rig.queue.settling.write

        def late(connection: sa.Connection, settlements: Any, now: int) -> set[int]:
            far = [replace(s, due_at=s.due_at + 10**12) for s in settlements]
            return write(connection, far, now)

        rig.queue.settling.write = late  # type: ignore[method-assign]
        return rig

    with pytest.raises(AssertionError, match=r"^nobody ever finds it"):
        play(fresh, 300, 12, shrink=False)
