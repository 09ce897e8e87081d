"""``mailgate schedules``, and what doctor and status say about the clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailgate.cli import schedules
from mailgate.journal import schedules as book
from mailgate.model.state import Lane
from tests.contract.journal.rig import Rig
from tests.integration.cli.conftest import Shell

AT = "2026-05-02T10:00:00+02:00"
CONFIG = """
[schedules.news]
cron = "0 10 * * sat"
timezone = "Europe/Paris"
template = "notice"
data = { title = "News", body = "Of the week." }
recipients_from = { file = "people.csv" }

[schedules.note]
cron = "0 9 1 * *"
subject = "S"
text = "T"
recipients = ["boss@example.org"]
"""


@pytest.fixture
def clocked(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    (tmp_path / "mailgate.toml").write_text(CONFIG)
    people(tmp_path, "ann@example.org", "bob@example.org")
    monkeypatch.setattr(schedules, "bell", lambda _config: shell.rings.append)
    return shell


def people(directory: Path, *emails: str) -> None:
    (directory / "people.csv").write_text("\n".join(("email", *emails)) + "\n")


def rows(journal: Rig) -> Sequence[tuple[str, str]]:
    return [(r.schedule, r.state) for r in journal.all("SELECT schedule, state FROM fires")]


def test_a_dry_run_shows_what_would_be_sent_and_changes_nothing(
    clocked: Shell, journal: Rig
) -> None:
    said = clocked("schedules", "run", "news", "--at", AT, "--dry-run", "--json")
    assert said.code == 0
    assert said.document == {
        "schedule": "news",
        "at": "2026-05-02T08:00:00.000+00:00",
        "since": "2026-04-25T08:00:00.000+00:00",
        "result": "done",
        "messages": 1,
        "recipients": ["a***@example.org", "b***@example.org"],
        "refused": 0,
        "rows": None,
    }
    said = clocked("schedules", "run", "news", "--dry-run", "--show-personal-data")
    assert "to ann@example.org" in said.out
    assert rows(journal) == []
    assert journal.count("messages") == 0


def test_a_schedule_fires_by_hand_once_for_each_time(clocked: Shell, journal: Rig) -> None:
    said = clocked("schedules", "run", "news", "--at", AT)
    assert (said.code, "2 recipients" in said.out) == (0, True)
    assert clocked.rings == [Lane.NORMAL]
    assert journal.count("recipients") == 2
    again = clocked("schedules", "run", "news", "--at", "2026-05-02T08:00:00Z")
    assert again.code == 1
    assert "has fired for 2026-05-02T08:00:00" in again.err
    assert journal.count("recipients") == 2
    assert clocked("schedules", "run", "note").code == 0
    listed = clocked("schedules", "list", "--json").document
    assert [(i["name"], i["result"], i["recipients"]) for i in listed["items"]] == [
        *(("news", "done", 2), ("note", "done", 1)),
    ]
    following = datetime.fromisoformat(listed["items"][0]["next"])
    assert (following.weekday(), following > datetime.now(UTC)) == (5, True)


def test_what_failed_is_said_and_fired_again_by_hand(
    clocked: Shell, journal: Rig, tmp_path: Path
) -> None:
    (tmp_path / "people.csv").unlink()
    said = clocked("schedules", "run", "news", "--at", AT)
    assert said.code == 1
    assert "people.csv: cannot be read: No such file" in said.err
    assert "people.csv: cannot be read" in clocked("schedules", "list").out
    dry = clocked("schedules", "run", "news", "--dry-run")
    assert (dry.code, "cannot be read" in dry.err) == (1, True)
    journal.sql("UPDATE fires SET state = 'failed'")
    people(tmp_path, "ann@example.org")
    assert clocked("schedules", "run", "news", "--at", AT).code == 0
    assert rows(journal) == [("news", "done")]
    people(tmp_path)
    said = clocked("schedules", "run", "news")
    assert (said.code, "nothing to send" in said.out) == (0, True)


def test_wrong_words_are_wrong_usage(clocked: Shell) -> None:
    for words, why in (
        (("run", "nix"), "there is no schedule nix; there are: news, note"),
        (("run", "news", "--at", "saturday"), "write a time such as"),
        (("run", "news", "--at", "2026-05-02T10:00:00"), "needs an offset"),
    ):
        said = clocked("schedules", *words)
        assert (said.code, why in said.err) == (2, True)
    said = clocked("pause", "schedule", "nix", "--reason", "x")
    assert (said.code, "there are: news, note" in said.err) == (2, True)


def test_it_is_said_when_no_beat_is_seen_and_what_cannot_be_read(
    clocked: Shell, journal: Rig, tmp_path: Path
) -> None:
    def doctor() -> dict[str, list[str]]:
        items = json.loads(clocked("doctor", "beat", "schedule", "--json").out)["items"]
        found: dict[str, list[str]] = {}
        for item in items:
            found.setdefault(item["check"], []).append(f"{item['level']} {item['found']}")
        return found

    assert doctor()["beat"] == ["fault no beat was ever seen"]
    assert "no beat was seen ever: no schedule fires" in clocked("status").out
    assert "nothing fires without mailgate beat" in clocked("schedules", "list").err
    now = journal.database.now()
    journal.database.run_now(lambda c: book.beat(c, "host", now))
    found = doctor()
    assert found["beat"][0].startswith("ok ")
    assert found["schedule news"][0].startswith("ok recipients_from can be read: 2 rows")
    assert "no beat" not in clocked("status").out
    journal.database.run_now(lambda c: book.beat(c, "host", now - 3_600_000))
    (tmp_path / "people.csv").unlink()
    clocked("schedules", "run", "news", "--at", AT)
    found = doctor()
    assert found["beat"][0].startswith("fault no beat was seen for 36")
    assert found["schedule news"][0].startswith("fault recipients_from: ")
    assert found["schedule news"][1].startswith("warn the fire of 2026-05-02T08:00:00Z is tried")
