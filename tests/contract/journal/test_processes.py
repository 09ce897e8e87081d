"""Processes and the request to read the configuration again, over both databases."""

from __future__ import annotations

from collections.abc import Callable

from mailgate.config.faults import ConfigError, ConfigFault
from mailgate.config.reloading import Renewal, fingerprint
from mailgate.config.shape import Config
from mailgate.journal import processes
from mailgate.journal.processes import Process
from mailgate.journal.surgery import Act
from mailgate.operations.reloading import Reloader, Source
from tests.contract.journal.rig import Rig

OLD = Config()
NEW = Config.model_validate({"limits": {"global": "5/s"}, "worker": {"lease": 5}})
ACT = Act("ann", "reload", "why")


def living(journal: Rig) -> list[Process]:
    now = journal.database.now()
    return journal.database.read_now(lambda c: processes.living(c, now - 5000, now - 5000))


def ask(journal: Rig) -> int:
    now = journal.database.now()
    return journal.database.run_now(lambda c: processes.request(c, ACT, now)).number


class Run:
    """An intake that reads what the test says."""

    def __init__(self, journal: Rig, read: Callable[[], Config], **source: object) -> None:
        self.adopted: list[Renewal] = []
        said = Source(read, **source)  # type: ignore[arg-type]
        self.reloader = Reloader(journal.database, "intake", OLD, said, self.adopted.append)
        self.reloader.begin_now(7)


def test_a_process_is_written_down_and_forgotten_at_its_end(journal: Rig) -> None:
    run = Run(journal, lambda: NEW)
    [one] = living(journal)
    assert (one.kind, one.config, one.answer) == ("intake", fingerprint(OLD), {})
    run.reloader.end_now()
    assert living(journal) == []


def test_a_request_is_answered_once_with_what_was_taken_and_what_waits(journal: Rig) -> None:
    run = Run(journal, lambda: NEW)
    run.reloader.look_now()
    assert run.adopted == []
    number = ask(journal)
    run.reloader.look_now()
    run.reloader.look_now()
    [renewal] = run.adopted
    assert str(renewal.config.limits.total) == "5/s"
    [one] = living(journal)
    assert one.config == fingerprint(renewal.config)
    assert one.answer == {
        "number": number,
        "result": "taken",
        "taken": ["limits.global"],
        "restart": ["worker.lease"],
    }
    assert journal.one("SELECT verb, who FROM actions").verb == "reload"


def test_a_broken_configuration_changes_nothing_and_every_fault_is_said(journal: Rig) -> None:
    faults = [ConfigFault("limits.global", "is wrong", "file"), ConfigFault("x", "too", "file")]

    def broken() -> Config:
        raise ConfigError(faults)

    run = Run(journal, broken)
    ask(journal)
    run.reloader.look_now()
    [one] = living(journal)
    assert (run.adopted, one.config) == ([], fingerprint(OLD))
    assert one.answer["result"] == "refused"
    assert one.answer["faults"] == [str(fault) for fault in faults]


def test_what_cannot_be_put_in_force_is_refused(journal: Rig) -> None:
    run = Run(journal, lambda: NEW)

    def no_password(_renewal: Renewal) -> None:
        raise ValueError("no password for main")

    run.reloader.adopt = no_password
    ask(journal)
    run.reloader.look_now()
    [one] = living(journal)
    assert (one.answer["result"], one.answer["faults"]) == ("refused", ["no password for main"])
    assert run.reloader.config is OLD


def test_a_signal_asks_as_a_request_does(journal: Rig) -> None:
    told = [0]
    run = Run(journal, lambda: NEW, signals=lambda: told[0])
    told[0] = 1
    run.reloader.look_now()
    run.reloader.look_now()
    assert len(run.adopted) == 1


def test_a_fork_reads_what_was_asked_for_before_it_was_there(journal: Rig) -> None:
    number = ask(journal)
    journal.sql('UPDATE facts SET value = replace(value, \'"at"\', \'"was": 0, "at": 1, "x"\')')
    assert Run(journal, lambda: NEW, number=number).adopted == []
    assert len(Run(journal, lambda: NEW, number=number - 1).adopted) == 1
    assert len(Run(journal, lambda: NEW, number=number, signals=lambda: 1).adopted) == 1
    assert Run(journal, lambda: NEW).adopted == []


def test_who_was_not_seen_for_long_is_not_among_the_living(journal: Rig) -> None:
    Run(journal, lambda: NEW)
    journal.sql("UPDATE processes SET seen_at = seen_at - 60000")
    assert living(journal) == []
