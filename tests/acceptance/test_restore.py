"""An older backup is restored, as docs/running.md says: nothing is sent twice in silence."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.acceptance.conftest import JOURNALS
from tests.acceptance.stage import Stage
from tests.acceptance.stage.stage import until
from tests.servers.postgres import programs

MAILS = 10
NOTICE = {"title": "Hello", "body": "It works."}


def mail(name: str, **more: object) -> dict[str, object]:
    return {"to": f"{name}@example.com", "template": "notice", "data": NOTICE, **more}


def back_up(stage: Stage, url: sa.URL) -> Path:
    copy = stage.directory / "backup"
    if url.get_backend_name() == "sqlite":
        # What `sqlite3 journal.db ".backup copy"` does.
        with sqlite3.connect(str(url.database)) as source, sqlite3.connect(copy) as target:
            source.backup(target)
    else:
        postgres(stage, url, "pg_dump", "--format=custom", f"--file={copy}")
    return copy


def restore(stage: Stage, url: sa.URL, copy: Path) -> None:
    if url.get_backend_name() == "sqlite":
        for end in ("-wal", "-shm"):
            Path(f"{url.database}{end}").unlink(missing_ok=True)
        copy.replace(str(url.database))
    else:
        postgres(stage, url, "pg_restore", "--clean", "--if-exists", "--single-transaction", copy)


def postgres(stage: Stage, url: sa.URL, program: str, *arguments: str | Path) -> None:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    command = [programs(stage.directory) / program, f"--dbname={plain}", *arguments]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_restored_journal_sends_nothing_twice_in_silence(
    stage: Callable[..., Stage], journal: str
) -> None:
    here = stage("valkey", journal)
    url = sa.make_url(here.environment["MAILGATE_JOURNAL__URL"])
    names = [f"m{n}" for n in range(MAILS)]
    worker, intake = here.worker(1), here.intake()
    # Known to this host before the backup is made, as any journal in use is.
    here.wait_for_workers(1)
    assert worker.stop() == 0
    here.publish([mail(name) for name in names])
    here.publish([mail("later", send_at="2099-01-01T00:00:00Z")])
    here.wait_accepted(MAILS + 1)
    copy = back_up(here, url)

    worker = here.worker(1)
    until(lambda: here.journal.states().get("sent") == MAILS, 30, here.logs)
    assert worker.stop() == intake.stop() == 0
    restore(here, url, copy)
    assert here.journal.states() == {"queued": MAILS + 1}

    worker = here.worker(1)
    until(lambda: "mailgate db restored" in worker.tail(), 30, here.logs)
    assert here.json("db", "restored", "--reason", "the disk died")["uncertain"] == MAILS
    assert here.journal.states() == {"uncertain": MAILS, "queued": 1}

    first, second, *_ = here.json("failures", "show", "restored")["items"]
    here.run("failures", "confirm", first["id"], "--reason", "in the relay's log")
    here.run("failures", "resend", second["id"], "--reason", "not in the relay's log")
    # The worker that waited goes on by itself.
    until(lambda: here.journal.states().get("sent") == 2, 30, here.logs)
    # One copy more, of the one that an operator asked for; else nobody's.
    assert sum(here.relay.taken().values()) == MAILS + 1
    assert here.journal.states() == {"uncertain": MAILS - 2, "queued": 1, "sent": 2}
