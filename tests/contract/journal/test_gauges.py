"""The journal's gauges: what waits, since when, and who lives."""

from __future__ import annotations

from pathlib import Path

from mailgate.config.shape import Config
from mailgate.http.look import JournalLook
from mailgate.journal import gauges, leases
from mailgate.journal.arrivals import BucketKey, NewParked
from mailgate.journal.leases import Lease
from mailgate.metrics import families
from mailgate.metrics.tally import Tally, Totals, together
from mailgate.model.state import Lane
from tests.contract.journal.rig import Rig, arrival


def _read(journal: Rig, now: int) -> Totals:
    tally = Tally()
    journal.database.read_now(lambda c: gauges.read(c, now, now - 10_000, tally))
    return together([tally.snapshot()])


async def test_an_empty_journal_says_nothing_waits(journal: Rig) -> None:
    totals = _read(journal, journal.database.now())
    for family in (families.WAITING, families.DUE, families.OLDEST_DUE):
        assert [totals.number(family, (lane.value,)) for lane in Lane] == [0, 0, 0]
        assert (family.name, ("high",)) in totals.numbers
    assert totals.number(families.LEASES_ALIVE, ("worker",)) == 0


async def test_what_waits_is_told_by_lane_with_its_age(journal: Rig) -> None:
    high, bulk = (BucketKey(lane, "shop", ("main",)) for lane in (Lane.HIGH, Lane.BULK))
    now = journal.database.now()
    later = now + 3_600_000
    parked = NewParked("odd", "stream", "invalid", "[]", b"{")
    await journal.arrivals.store(
        [
            arrival("one", "a@example.com", "b@example.com", bucket=high),
            arrival("two", "c@example.com", bucket=bulk, send_at=later),
        ],
        [parked],
    )
    journal.database.run_now(
        lambda c: [
            leases.write(c, Lease(n, "worker", "host", "boot", n, "spool"), now - age)
            for n, age in ((1, 0), (2, 60_000))
        ]
    )
    totals = _read(journal, journal.database.now() + 5_000)
    assert totals.number(families.WAITING, ("high",)) == 2
    assert totals.number(families.DUE, ("high",)) == 2
    assert 5 <= totals.number(families.OLDEST_DUE, ("high",)) < 60
    assert totals.number(families.WAITING, ("bulk",)) == 1
    assert totals.number(families.DUE, ("bulk",)) == 0
    assert totals.number(families.OLDEST_DUE, ("bulk",)) == 0
    assert totals.number(families.PARKED) == 1
    assert totals.number(families.LEASES_ALIVE, ("worker",)) == 1


async def test_a_journal_that_is_away_is_a_number_too(tmp_path: Path) -> None:
    config = Config.model_validate({"journal": {"url": f"sqlite:///{tmp_path / 'no' / 'x.db'}"}})
    look = JournalLook(config)
    totals = look.totals()
    assert totals.numbers[families.JOURNAL_UP.name, ()] == 0
    assert (families.WAITING.name, ("high",)) not in totals.numbers
    assert look.check() == "the journal cannot be reached"
    look.close()
