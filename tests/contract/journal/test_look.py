"""What a journal says of itself, on both databases."""

from __future__ import annotations

from mailgate.journal.leases import Lease, write
from mailgate.journal.look import Population, look, population
from tests.contract.journal.rig import Rig


def test_a_current_journal_is_well(journal: Rig) -> None:
    seen = look(journal.url)
    assert seen.program in ("SQLite", "PostgreSQL")
    assert seen.version[0].isdigit()
    assert (seen.behind, seen.unwritable) == ("", "")
    assert abs(seen.ahead) < 2
    # The tests' own PostgreSQL trades safety for speed, and is found out.
    assert seen.program == "PostgreSQL" or not seen.unsafe


def test_a_journal_of_another_revision_is_behind(journal: Rig) -> None:
    journal.database.run_now(
        lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    )
    assert look(journal.url).behind == "0000"


def test_a_worker_lives_while_its_lease_is_young(journal: Rig) -> None:
    now = journal.database.now()
    for number, age in enumerate((0, 60_000)):
        lease = Lease(number + 1, "worker", "host", "boot", 1, "")
        journal.database.run_now(lambda c, lease=lease, age=age: write(c, lease, now - age))
    assert population(journal.url, 10.0) == Population(alive=1, silent=1, parked=0)
