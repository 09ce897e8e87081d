"""A restored journal: what may have been sent since the backup is nobody's to send."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from mailgate.config.shape import Config
from mailgate.delivery.watermark import Watermark
from mailgate.journal import schedules
from mailgate.journal.history import JournalSetBack
from mailgate.journal.settling import Settlement
from mailgate.journal.surgery import Act
from mailgate.model.state import State
from mailgate.operations import restoring
from tests.contract.journal.rig import Rig, attempt

ACT = Act("ann@desk", "restored", "the disk died")


def states(journal: Rig) -> dict[int, str]:
    return {r.id: r.state for r in journal.all("SELECT id, state FROM recipients")}


def restored(journal: Rig, until: int | None = None) -> int:
    last = journal.database.now() if until is None else until
    return sum(restoring.doubt_all(journal.database, last, ACT))


def test_all_that_was_due_or_under_way_becomes_uncertain(journal: Rig) -> None:
    lease = journal.lease()
    sending, deferred, sent, held, broken = journal.add(5)
    claims = {c.recipient_id: c for c in journal.claim(lease)}
    for one, path, error_class in (
        (deferred, (State.DEFERRED,), "greylisted"),
        (sent, (State.SENT,), ""),
        (held, (State.HELD,), "poison"),
        (broken, (State.HELD,), "template_broken"),
    ):
        claim = claims[one]
        journal.settle(
            Settlement(
                one, claim.message_id, claim.token, path, 0, attempt(), error_class=error_class
            )
        )
    [queued] = journal.add(1, "queued")
    [later] = journal.add(1, "later", send_at=journal.database.now() + 3_600_000)

    assert restoring.in_doubt(journal.database, journal.database.now()) == 4
    assert restored(journal) == 4
    assert states(journal) == {
        sending: "uncertain",
        deferred: "uncertain",
        sent: "sent",
        held: "held",
        # A worker lets it go by itself as soon as the template serves, as it did before.
        broken: "uncertain",
        queued: "uncertain",
        # Its time had not come.
        later: "queued",
    }
    assert journal.heads() == []
    found = journal.all("SELECT error_class, lease_id FROM recipients WHERE state = 'uncertain'")
    assert {tuple(row) for row in found} == {("restored", None)}
    assert journal.all("SELECT id FROM leases") == []
    told = journal.all("SELECT recipient_id, detail FROM events WHERE kind = 'uncertain'")
    assert {row.recipient_id for row in told} == {sending, deferred, broken, queued}
    assert all("the disk died" in row.detail for row in told)
    assert journal.one("SELECT verb, count FROM actions") == ("restored", 4)
    # A worker that was on its way with one of them settles nothing any more.
    claim = claims[sending]
    late = Settlement(sending, claim.message_id, claim.token, (State.SENT,), 0, attempt("sent"))
    assert journal.settle(late) == set()


def test_what_was_due_after_the_last_work_goes_on(journal: Rig) -> None:
    journal.add(2)
    assert restored(journal, until=journal.database.now() - 60_000) == 0
    assert set(states(journal).values()) == {"queued"}


def test_many_are_done_in_chunks_each_once(journal: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailgate.journal.restoring.CHUNK", 3)
    journal.add(8)
    chunks = list(restoring.doubt_all(journal.database, journal.database.now(), ACT))
    assert chunks == [3, 3, 2]
    assert set(states(journal).values()) == {"uncertain"}
    assert restored(journal) == 0


def test_a_schedule_repeats_no_fire_of_the_lost_journal(journal: Rig) -> None:
    def known(c: sa.Connection) -> None:
        schedules.looked_at(c, ["weekly"], 1000)
        schedules.write(c, {"weekly": [900, 1000]}, 1000)
        assert schedules.end(c, "weekly", 900, since=800, messages=1, recipients=5, now=1000)

    journal.database.run_now(known)
    restored(journal, until=5000)
    assert journal.database.run_now(lambda c: schedules.looked_at(c, ["weekly"], 6000)) == {
        "weekly": 5000
    }
    assert journal.database.read_now(lambda c: schedules.waiting(c, ["weekly"], 9000)) == []
    # What its sources had told by then is not told again.
    read, _ = journal.database.read_now(lambda c: schedules.read_until(c, "weekly", 9000))
    assert read == 5000


def test_living_workers_are_counted(journal: Rig) -> None:
    assert restoring.living(journal.database, Config()) == 0
    journal.lease()
    assert restoring.living(journal.database, Config()) == 1


def test_a_host_notices_that_its_journal_was_set_back(
    journal: Rig, processes: Callable[[], Rig], tmp_path: Path
) -> None:
    database, other = journal.database, processes().database

    def work_until(mark: Watermark, at: int) -> None:
        database.run_now(lambda c: mark.reach(c, at))
        mark.keep(at)

    mark = Watermark(tmp_path)
    work_until(mark, 1000)
    backup = [tuple(r) for r in journal.all("SELECT name, value FROM facts")]
    work_until(mark, 2000)
    work_until(mark, 1500)  # a clock that was set back takes nothing back
    work_until(Watermark(tmp_path), 2500)  # another process of the host, or the same again

    with other._engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM facts")
        for name, value in backup:
            connection.exec_driver_sql(f"INSERT INTO facts VALUES ('{name}', '{value}')")
    assert "until 1970-01-01 00:00:02" in database.read_now(Watermark(tmp_path).set_back)
    for one in (mark, Watermark(tmp_path)):
        with pytest.raises(JournalSetBack, match="mailgate db restored"):
            database.run_now(lambda c, one=one: one.reach(c, 3000))

    assert restored(journal) == 0
    assert database.read_now(Watermark(tmp_path).set_back) == ""
    work_until(mark, 3000)
    work_until(Watermark(tmp_path), 3100)


def test_another_journal_is_no_older_one(
    journal: Rig, rigs_of: Callable[[str], Rig], migrated_file: Path, tmp_path: Path
) -> None:
    mark = Watermark(tmp_path)
    journal.database.run_now(lambda c: mark.reach(c, 5000))
    mark.keep(5000)
    fresh = tmp_path / "fresh.db"
    fresh.write_bytes(migrated_file.read_bytes())
    another = rigs_of(f"sqlite:///{fresh}")
    again = Watermark(tmp_path)
    another.database.run_now(lambda c: again.reach(c, 1000))


def test_a_file_that_is_no_watermark_is_written_anew(journal: Rig, tmp_path: Path) -> None:
    (tmp_path / "journal.reached").write_text("half a l")
    mark = Watermark(tmp_path)
    journal.database.run_now(lambda c: mark.reach(c, 1000))
    mark.keep(1000)
    assert '"at": 1000' in (tmp_path / "journal.reached").read_text()
