"""Mail by the clock: at its time among many that wait, commands, and the weekly posts."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.acceptance.conftest import FULL, Setting
from tests.acceptance.stage import Stage, mails, until
from tests.acceptance.stage.stage import ROOT

#: How many wait while one falls due.
WAITING = 100_000 if FULL else 2_000
EXAMPLE = ROOT / "examples" / "weekly-posts"

_ON_THE_PAGE = """
import pages
browser = pages.app.test_client()
assert browser.post("/", data={"title": "Written on the page"}).status_code == 302
assert b"Written on the page" in browser.get("/").data
"""


def at(seconds: float) -> str:
    """A time so long from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


@pytest.mark.parametrize("journal", ["postgresql", "sqlite"][: 1 + FULL])
def test_mail_goes_within_a_second_of_its_time_and_commands_are_obeyed(
    journal: str, stage: Setting, figure: Any
) -> None:
    scene = stage("valkey", journal)
    scene.intake()
    scene.worker(1)
    scene.publish(mails(WAITING, to="later", send_at=at(86_400)))
    scene.wait_accepted(WAITING, 240 if FULL else 60)
    scene.wait_for_workers(1)
    soon = at(3)
    scene.publish(
        [
            *mails(5, to="soon", send_at=soon),
            # It comes before its message, in a batch or two of its own.
            {"cancel": {"id": "wrong"}, "id": "c1"},
            *mails(1, to="wrong", id="wrong", send_at=soon),
            *mails(1, to="moved", id="moved", send_at=at(86_400)),
            {"reschedule": {"idempotency_key": "moved", "send_at": soon}},
            *mails(1, to="stranger", id="theirs", producer="other", send_at=soon),
            {"cancel": {"id": "theirs"}},
            {"ask": {"id": "moved"}, "id": "q1"},
        ]
    )
    until(lambda: len(scene.relay.taken()) >= 7, 30, scene.logs)
    due = int(datetime.fromisoformat(soon).timestamp() * 1e9)
    late = [(copy.mail_at - due) / 1e9 for copy in scene.relay.book()]
    figure(journal=journal, waiting=WAITING, latest=round(max(late), 3), first=round(min(late), 3))
    assert min(late) >= 0
    assert max(late) < 1
    taken = {address.partition("+")[0] for address in scene.relay.taken()}
    assert taken == {"soon", "moved", "stranger"}
    answers = [
        json.loads(row["detail"])
        for row in scene.journal.rows("SELECT detail FROM events WHERE kind = 'state' ORDER BY id")
    ]
    results = {(a["command"], a["result"]) for a in answers}
    assert {("reschedule", "done"), ("cancel", "early"), ("ask", "done")} <= results
    # To whom it matters it is told on the broker, as any other event.
    with scene.redis() as client:
        until(lambda: client.exists("mailgate:events:default") == 1, 10, scene.logs)
        told = [json.loads(e[b"event"]) for _, e in client.xrange("mailgate:events:default")]
    [asked] = [e for e in told if e.get("command", {}).get("id") == "q1"]
    assert (asked["event"], asked["command"]["result"]) == ("state", "done")


def change(scene: Stage, statement: str, **values: object) -> None:
    engine = sa.create_engine(scene.environment["MAILGATE_JOURNAL__URL"])
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)
    engine.dispose()


def blog(directory: Path, *title: str) -> None:
    subprocess.run([sys.executable, "blog.py", *title], cwd=directory, check=True, timeout=20)


def test_the_weekly_posts_go_to_the_readers_once(stage: Setting, figure: Any) -> None:
    scene = stage("valkey", "sqlite")
    for file in filter(Path.is_file, EXAMPLE.iterdir()):
        shutil.copy(file, scene.directory)
    # As the README has it, but for the relay.
    said = (EXAMPLE / "README.md").read_text()
    typed = [
        shlex.split(line, comments=True)
        for block in re.findall(r"```sh\n(.*?)```", said, re.DOTALL)
        for line in block.splitlines()
    ]
    blog(scene.directory)
    scene.intake()
    scene.worker(1)
    listed, dry, fired, published, again = (
        words
        for words in typed
        if words[:2] in (["mailgate", "schedules"], ["python", "blog.py"])
        and words != ["python", "blog.py"]
    )
    assert "weekly-posts" in scene.run(*listed[1:]).stdout
    shown = scene.run(*dry[1:]).stdout
    assert "2 recipients" in shown
    assert "2 rows of data" in shown
    assert scene.journal.accepted() == 0
    # Killed with everything written and nothing committed: nothing stands, and it is done anew.
    now = at(-2)
    scene.arm("intake.before_commit=kill")
    scene.run(*fired[1:], "--at", now, code=-9)
    scene.disarm()
    assert scene.journal.accepted() == 0
    scene.run(*fired[1:], "--at", now)
    readers = {"ann@example.com": 1, "bob@example.com": 1}
    until(lambda: scene.relay.taken() == readers, 30, scene.logs)
    blog(scene.directory, *published[2:])
    subprocess.run([sys.executable, "-c", _ON_THE_PAGE], cwd=scene.directory, check=True)
    time.sleep(1.1)  # its second must be over
    assert "2 rows of data" in scene.run(*dry[1:]).stdout
    assert scene.json(*again[1:])["recipients"] == 2
    scene.wait_finished(4)
    assert scene.relay.taken() == {"ann@example.com": 2, "bob@example.com": 2}

    # By itself on Saturday: the last one was missed, and two clocks begin at once.
    week = datetime.now(UTC) - timedelta(days=8)
    change(scene, "DELETE FROM fires")
    change(
        scene,
        "UPDATE schedules SET looked_at = :at WHERE name = 'weekly-posts'",
        at=int(week.timestamp() * 1000),
    )
    scene.begin("beat")
    scene.begin("beat")
    took = until(
        lambda: scene.journal.rows("SELECT state FROM fires") not in ([], [{"state": "pending"}]),
        40,
        scene.logs,
    )
    figure(seconds_until_a_missed_fire=round(took, 2))
    [fire] = scene.journal.rows("SELECT state, at, messages FROM fires")
    saturday = datetime.fromtimestamp(fire["at"] / 1000, UTC)
    assert saturday.weekday() == 5
    assert fire["state"] in ("done", "empty")
    scene.wait_finished(4)
    assert sum(scene.relay.taken().values()) == 4 + 2 * fire["messages"]
    [item] = scene.json("schedules", "list")["items"]
    assert (item["result"], item["error"]) == (fire["state"], None)
