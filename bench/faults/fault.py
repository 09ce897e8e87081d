"""One fault: what it is, what it must come to, and what was seen.

Owns the table of all faults, the run of one, its dice and its clock. The oracle is the
same for all: nothing lost, no copy that no uncertain attempt explains, nothing that the
three books tell differently.
"""

from __future__ import annotations

import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from bench.faults.ground import Ground
from tests.acceptance.stage import Account, Stage
from tests.acceptance.stage.books import reckon
from tests.acceptance.stage.load import Document, recipients


class NotHere(Exception):
    """This machine does not let the fault be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``must`` is the figure that it has to reach, for the report."""

    name: str
    what: str
    must: str
    run: Callable[[Run], None]


@dataclass(slots=True)
class Seen:
    """What a fault came to; ``wrong`` is empty when it held."""

    name: str
    what: str
    must: str
    seed: int
    size: float
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""
    skipped: str = ""
    #: The day and minute it was seen, in UTC.
    when: str = ""
    #: The code it was seen on, by its commit; with a ``+`` when there was more to it.
    commit: str = ""
    #: The broker and the journal, which the dice may have chosen.
    servers: str = ""

    @property
    def line(self) -> str:
        state = "not here" if self.skipped else "WRONG" if self.wrong else "ok"
        told = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in self.figures.items())
        words = self.wrong.strip().splitlines()
        why = self.skipped or (f"{words[0][:300]}; " if words else "")
        return f"{state:8} {self.name:28} {self.seconds:6.1f} s  {why}{told}"


class Run:
    """What a fault works with."""

    def __init__(self, ground: Ground, name: str, seed: int, size: float) -> None:
        self.ground = ground
        self.size = size
        #: Its own dice, the same for the same seed whatever else runs.
        self.random = random.Random(f"{seed}:{name}")
        self.figures: dict[str, Any] = {}
        self.servers = ""
        #: The last that was set.
        self.scene: Stage
        self._struck = self._lifted = 0.0

    def many(self, full: int, least: int) -> int:
        """A number of the full size, at this size."""
        return max(least, round(full * self.size))

    def stage(self, broker: str, journal: str, **more: Any) -> Stage:
        self.servers = f"{broker}, {journal}"
        self.scene = self.ground.stage(broker, journal, **more)
        return self.scene

    def note(self, **figures: object) -> None:
        """Figures for the report."""
        self.figures.update(figures)

    def strike(self) -> None:
        """The fault begins now."""
        self._struck = time.time()

    def lift(self) -> None:
        """The fault is over now, or was over at once."""
        self._lifted = time.time()

    @property
    def struck(self) -> float:
        """When the last fault began (Unix time)."""
        return self._struck

    @property
    def lifted(self) -> float:
        """When the last fault was over (Unix time)."""
        return self._lifted

    def recovered(self, scene: Stage) -> None:
        """Note how long after the (last) fault the first mail was taken, and all was over,
        and the longest time without a mail in between.
        """
        after = [c.end_at / 1e9 - self._lifted for c in scene.relay.book() if c.taken]
        back = sorted(seconds for seconds in after if seconds > 0)
        gaps = [later - sooner for sooner, later in pairwise([0.0, *back])]
        self.note(
            first_mail_after=round(min(back), 1) if back else None,
            longest_silence=round(max(gaps), 1) if back else None,
            all_done_after=round(time.time() - self._lifted, 1),
        )

    def reckon(
        self,
        scene: Stage,
        documents: Sequence[Document],
        *,
        uncertain: int,
        states: dict[str, int] | None = None,
        bad: Sequence[bytes] = (),
        also: Sequence[Any] = (),
    ) -> Account:
        """Compare the three books and assert the oracle.

        ``uncertain`` is the most attempts that may be; ``states`` are what must come of the
        recipients, by default all sent. ``bad`` is what must be parked. ``also`` are further
        relays.
        """
        taken = scene.relay.taken()
        for relay in also:
            taken += relay.taken()
        account = reckon(scene.journal, taken, recipients(documents), bad)
        self.note(
            mails=account.published,
            lost=len(account.lost),
            uncertain=account.uncertain,
            copies=account.copies,
            repeated=account.repeated,
        )
        assert account.clean, f"the books disagree: {account}"
        wanted = {"sent": account.published} if states is None else states
        assert account.states == wanted, f"{account.states} instead of {wanted}"
        assert account.repeated <= account.uncertain
        said = defaultdict(set)
        for relay in (scene.relay, *also):
            for copy in relay.book():
                if copy.taken:
                    said[copy.recipient].add((copy.message_id, copy.date, copy.digest))
        assert max(map(len, said.values()), default=1) == 1, "a copy is another mail"
        assert account.uncertain <= uncertain, f"{account.uncertain} uncertain"
        return account


FAULTS: dict[str, Fault] = {}


def fault(name: str, what: str, must: str) -> Callable[[Callable[[Run], None]], Any]:
    """Enter a function into the table."""

    def enter(run: Callable[[Run], None]) -> Callable[[Run], None]:
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert name not in FAULTS
        FAULTS[name] = Fault(name, what, must, run)
        return run

    return enter


def attempt(ground: Ground, one: Fault, seed: int, size: float, of: str = "") -> Seen:
    """Run one fault on the code of a commit; whatever goes wrong is in what is given back."""
    run = Run(ground, one.name, seed, size)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    seen = Seen(one.name, one.what, one.must, seed, size, when=when, commit=of)
    begun = time.monotonic()
    try:
        one.run(run)
    except NotHere as why:
        seen.skipped = str(why)
    except Exception as error:  # what it is does not matter: the fault was not withstood
        seen.wrong = f"{type(error).__name__}: {error}"
    finally:
        seen.seconds = round(time.monotonic() - begun, 1)
        seen.figures = run.figures
        seen.servers = run.servers
        ground.clear()
    return seen
