"""``mailgate up`` with no configuration: from a plain client to the inbox, and the end of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.acceptance.stage import Program, family, until
from tests.acceptance.stage.load import mails, publish_list, publish_stream
from tests.acceptance.stage.proc import alive
from tests.acceptance.stage.stage import ROOT, short_directory


@dataclass
class House:
    """A directory that ``mailgate up`` is started in, and what was started."""

    directory: Path
    programs: list[Program] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)

    def up(self, **settings: str) -> Program:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MAILGATE_")}
        # Nothing is configured but that other tests' ports are left in peace.
        ports = {"MAILGATE_INBOX__HTTP_PORT": "0", "MAILGATE_INBOX__SMTP_PORT": "0"}
        program = Program(
            [sys.executable, "-m", "mailgate.cli.main", "up"],
            log=self.directory / f"up{len(self.programs)}.log",
            env=kept | ports | settings | {"PYTHONPATH": str(ROOT)},
            cwd=self.directory,
        )
        self.programs.append(program)
        until(lambda: "Ctrl-C stops it." in said(program), 60, program.tail)
        self.pids.update(family(program.pid))
        return program

    def close(self) -> None:
        for program in self.programs:
            program.wipe_out()
        for pid in filter(alive, self.pids):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def house() -> Iterator[House]:
    made = House(short_directory())
    yield made
    made.close()


def said(program: Program) -> str:
    return program.log.read_text()


def left(pids: Iterable[int], program: Program) -> str:
    """Who is still there, and what all of them have said."""
    lines = [
        Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids if alive(pid)
    ]
    return "\n".join([*lines, said(program)[-8000:]])


def client(program: Program) -> redis.Redis:
    path = re.search(r"publish to +redis\+socket://(\S+)", said(program))
    assert path
    return redis.Redis(unix_socket_path=path[1])


def inbox(program: Program) -> list[dict[str, Any]]:
    page = re.search(r"inbox page +(http://\S+/)", said(program))
    assert page
    with urllib.request.urlopen(f"{page[1]}api/mails", timeout=10) as reply:
        items: list[dict[str, Any]] = json.load(reply)["items"]
    return items


def test_up_takes_mail_from_a_plain_client_to_the_inbox_and_keeps_it_over_a_restart(
    house: House, figure: Any
) -> None:
    program = house.up()
    with client(program) as broker:
        publish_stream(broker, mails(20))
        publish_list(broker, mails(5, to="list"))
    took = until(lambda: len(inbox(program)) == 25, 30, program.tail)
    pids = family(program.pid)
    program.signal(signal.SIGINT)
    assert program.wait(30) == 0, program.tail()
    assert [pid for pid in pids if alive(pid)] == []
    assert "mailgate has stopped" in said(program)

    again = house.up()
    assert len(inbox(again)) == 25
    with client(again) as broker:
        publish_stream(broker, mails(1, to="later"))
    until(lambda: len(inbox(again)) == 26, 30, again.tail)
    ready = re.search(r"mailgate is up \(([\d.]+) s\)", said(again))
    figure(inbox_seconds=round(took, 2), processes=len(pids), ready=ready and ready[1])
    again.signal(signal.SIGINT)
    assert again.wait(30) == 0, again.tail()


def test_a_killed_up_leaves_no_process_behind_and_loses_nothing(house: House, figure: Any) -> None:
    program = house.up()
    pids = family(program.pid)
    assert len(pids) >= 7
    with client(program) as broker:
        publish_stream(broker, mails(90))
        program.kill()
    took = until(lambda: not any(alive(pid) for pid in pids), 20, lambda: left(pids, program))
    figure(seconds_until_all_are_gone=round(took, 2))
    again = house.up()
    until(lambda: len({str(m["to"]) for m in inbox(again)}) == 90, 40, again.tail)


def test_a_part_that_dies_is_started_again_and_mail_goes_on(house: House) -> None:
    program = house.up()
    commands = {
        pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in program.children()
    }
    [intake] = [pid for pid, words in commands.items() if "intake" in words]
    [worker] = [pid for pid, words in commands.items() if "worker" in words]
    with client(program) as broker:
        publish_stream(broker, mails(50))
        os.kill(intake, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        publish_stream(broker, mails(50, to="after"))
    recipients: set[str] = set()

    def all_there() -> bool:
        recipients.update(str(m["to"]) for m in inbox(program))
        house.pids.update(family(program.pid))
        return len(recipients) >= 100

    until(all_there, 60, program.tail)
    assert "is started again" in said(program)
    program.signal(signal.SIGINT)
    assert program.wait(30) == 0, program.tail()


def test_what_the_sandbox_captures_is_shown_by_the_inbox(house: House) -> None:
    """With a relay that nobody may be sent to, as in a copy of production."""
    program = house.up(
        MAILGATE_RELAYS__MAIN__HOST="relay.invalid",
        MAILGATE_RELAYS__MAIN__SECURITY="none",
        MAILGATE_STREAMS__TRANSACTIONAL__FROM="shop@example.com",
        MAILGATE_SANDBOX__MODE="capture",
    )
    assert "capture: all mail is captured" in said(program)
    with client(program) as broker:
        publish_stream(broker, mails(3))
    until(lambda: len(inbox(program)) == 3, 30, program.tail)
    program.signal(signal.SIGINT)
    assert program.wait(30) == 0, program.tail()
