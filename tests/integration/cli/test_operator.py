"""The commands at three in the morning: hostile data, wrong words, a journal that is away."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailgate.cli import status
from mailgate.config.shape import Config
from mailgate.config.terms import parse_rate
from mailgate.intake.accept import Accept
from mailgate.intake.door import Delivery
from mailgate.journal import leases
from mailgate.journal.breakers import Health
from mailgate.journal.database import JournalAway
from mailgate.journal.outbox import Outbox
from mailgate.journal.permits import JournalLimiter
from mailgate.journal.search import story
from mailgate.journal.settling import Attempt
from mailgate.limits.breaker import Kind, Record, Subject
from mailgate.limits.rules import Ask, Grant
from mailgate.model.ids import spell
from mailgate.model.state import Lane, State
from mailgate.operations import resend as resending
from mailgate.operations.standing import Standing
from mailgate.operations.waiting import reasons
from tests.contract.journal.rig import Rig, arrival, attempt, settlement
from tests.integration.cli.conftest import Shell

#: A title and a colour for the terminal, a line of its own, text that reads backwards.
HOSTILE = "\x1b]0;owned\x07\x1b[31mred\nsent 9999\r\u202egpj.exe\u2066\x9b2J"

LISTS = [
    ("messages", "list"),
    ("failures", "list"),
    ("failures", "show", "mailbox_full"),
    ("parked", "list"),
    ("parked", "list", "--all"),
]


def steered(text: str) -> list[str]:
    """The characters in ``text`` that a terminal would obey, line ends apart."""
    return [c for c in text if not c.isprintable() and c != "\n"]


def take_in(journal: Rig, *bodies: bytes) -> None:
    """What producers published, by the one way in."""
    config = Config.model_validate(
        {
            "journal": {"url": journal.url},
            "relays": {"main": {"host": "127.0.0.1", "security": "none"}},
            "streams": {"transactional": {"from": "shop@example.com"}},
        }
    )
    accept = Accept(config, journal.arrivals, lambda template, data: ())
    deliveries = [
        Delivery(body, "redis-stream", f"{n}-{hash(body)}", False, None, None)
        for n, body in enumerate(bodies)
    ]
    asyncio.run(accept.batch(deliveries))


def fail_one(
    journal: Rig, error_class: str = "mailbox_full", reply: str = "full", **more: Any
) -> int:
    """A recipient that bounced; gives its message."""
    key = more.pop("key", error_class)
    [message] = journal.store(arrival(key, **more)).ids
    [claim] = [c for c in journal.claim(journal.lease()) if c.message_id == message]
    tried = Attempt("main", 1, 2, "bounce", "rcpt", 552, "5.2.2", reply, error_class)
    journal.settle(settlement(claim, State.BOUNCED, attempt=tried, error_class=error_class))
    return message


# --- an empty house ------------------------------------------------------------------


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_an_empty_journal_is_an_empty_list(shell: Shell, command: tuple[str, ...]) -> None:
    said = shell(*command)
    assert (said.code, said.out, said.err) == (0, "nothing found\n", "")
    said = shell(*command, "--json")
    assert said.code == 0
    assert said.document["items"] == []


def test_status_of_an_empty_journal(shell: Shell) -> None:
    said = shell("status")
    assert said.code == 0
    assert said.out.startswith("the broker is away (ConnectionError)\n")
    document = shell("status", "--json").document
    assert {q["waiting"] for q in document.pop("queues")} == {None}
    assert [r["name"] for r in document.pop("relays")] == ["main"]
    assert document == {
        "states": {},
        "lanes": {},
        "workers": [],
        "processes": [],
        "parked": 0,
        "last_minute": dict.fromkeys(("accepted", "sent", "deferred", "failed", "uncertain"), 0),
        "pauses": [],
        "breakers": [],
        "digests": {"gathering": 0, "next_due_at": None},
        "cleaned": None,
        "events": {"waiting": 0, "oldest_s": 0.0, "refused": []},
    }


def test_status_is_watched_through_an_outage_of_the_journal(
    shell: Shell, journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = status._look

    def away_at_times(*arguments: Any) -> Any:
        looks.append(1)
        if len(looks) == 2:
            raise JournalAway("gone")
        if len(looks) == 4:
            raise KeyboardInterrupt
        return look(*arguments)

    monkeypatch.setattr(status, "_look", away_at_times)
    monkeypatch.setattr(status.time, "sleep", lambda seconds: None)
    said = shell("status", "--watch")
    assert (said.code, said.out.count("last minute")) == (0, 2)
    assert "the journal cannot be reached: gone\n" in said.out


def test_status_finds_fault_when_something_is_due_and_no_worker_lives(
    shell: Shell, journal: Rig
) -> None:
    journal.add(2)
    said = shell("status", "--json")
    assert said.code == 1
    assert said.document["lanes"]["normal"]["due"] == 2
    journal.lease()
    said = shell("status")
    assert said.code == 0
    [lane] = [line for line in said.out.splitlines() if line.startswith("normal")]
    assert re.fullmatch(r"normal +2 +2 +\d+ s +0", lane)


# --- hostile data -----------------------------------------------------------------------


def test_nothing_that_a_producer_or_relay_said_steers_the_terminal(
    shell: Shell, journal: Rig
) -> None:
    strange = {
        HOSTILE: HOSTILE,
        "to": [HOSTILE],
        "producer": HOSTILE,
        "template": HOSTILE,
        "subject": HOSTILE,
        "tags": [HOSTILE],
    }
    take_in(
        journal,
        json.dumps(strange).encode(),
        HOSTILE.encode(),
        b"\xff\xfe\x00" + HOSTILE.encode(),
        b'{"\\ud800": "\\u0000"}',
        b"[" * 5000,
        json.dumps(
            {
                "to": ["ann@example.org"],
                "subject": "s",
                "text": HOSTILE,
                "id": "\u202eabc",
                "tags": ["\u202eabc", "=cmd|' /C calc'!A0"],
            }
        ).encode(),
    )
    # A relay's reply is cleaned as it is read; an older row may not have been.
    message = fail_one(journal, reply=HOSTILE, producer="=1+1", template="=2+2")
    rows = [spell(r.id) for r in journal.all("SELECT id FROM parked")]
    assert len(rows) == 5
    everything = [*LISTS, ("status",), ("messages", "show", spell(message))]
    everything += [
        ("messages", "show", spell(r.id)) for r in journal.all("SELECT id FROM messages")
    ]
    everything += [("parked", "show", row, "--show-personal-data") for row in rows]
    for command in everything:
        said = shell(*command)
        assert said.code == 0, command
        assert steered(said.out + said.err) == [], command
        assert not any(line.startswith("sent 9999") for line in said.out.splitlines())
        said = shell(*command, "--json")
        assert steered(said.out) == [], command
        assert isinstance(said.document, dict), command


def test_the_bytes_of_a_parked_row_are_given_as_they_came(shell: Shell, journal: Rig) -> None:
    body = HOSTILE.encode() + b"\xff\x00"
    take_in(journal, body)
    [row] = journal.all("SELECT id FROM parked")
    from typer.testing import CliRunner

    from mailgate.cli.main import app

    done = CliRunner().invoke(
        app, ["parked", "show", spell(row.id), "--raw"], env=shell.environment
    )
    assert done.stdout_bytes == body


def test_addresses_and_contents_are_shown_only_when_asked_for(shell: Shell, journal: Rig) -> None:
    message = fail_one(journal, reply="552 <bob.secret@example.org> is full", key="bob.secret")
    take_in(journal, b'{"to": ["bob.secret@example.org"], "nonsense": "s3cret"}')
    [row] = journal.all("SELECT id FROM parked")
    commands = [
        ("messages", "list"),
        ("messages", "show", spell(message)),
        ("failures", "list"),
        ("failures", "show", "mailbox_full"),
        ("parked", "show", spell(row.id)),
    ]
    for command in commands:
        for form in ((), ("--json",)):
            said = shell(*command, *form)
            assert said.code == 0
            masked = said.out.replace("key:bob.secret", "")
            assert "bob.secret" not in masked, command
            assert "s3cret" not in masked, command
            shown = shell(*command, *form, "--show-personal-data")
            assert "bob.secret@example.org" in shown.out, command


# --- wrong words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("messages", "show", "what?"),
        ("messages", "show", "zzzzzzzzzzzzz"),
        ("messages", "show", ""),
        ("messages", "cancel", "0123456789abcd"),
        ("messages", "resend"),
        ("messages", "list", "--state", "lost"),
        ("messages", "list", "--since", "yesterday"),
        ("messages", "list", "--until", "2026-13-40"),
        ("messages", "list", "--limit", "0"),
        ("messages", "list", "--limit", "many"),
        ("messages", "list", "--after", "!"),
        ("messages", "list", "--producer", "\udcff"),
        ("messages", "list", "--no-such-option"),
        ("failures", "resend"),
        ("failures", "resend", "--state", "bounced"),
        ("failures", "resend", "--all", "--state", "sent"),
        ("failures", "resend", "--state", "nonsense", "--all"),
        ("failures", "discard"),
        ("parked", "show", "!"),
        ("parked", "replay", "1", "2", "--file", "-"),
        ("parked", "replay", "1", "--file", "/no/such/file"),
        ("parked", "replay", "1", "!"),
        ("parked", "discard", "!"),
        ("send",),
        ("send", "--to", "nobody"),
        ("send", "--to", "a@example.org", "--template", "notice", "--data", "{"),
        ("send", "--file", "/no/such/file"),
        ("templates", "render", "no_such"),
        ("no-such-command",),
        ("--config", "/no/such/file", "status"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_said_in_a_line_and_ends_with_2(
    shell: Shell, command: tuple[str, ...]
) -> None:
    said = shell(*command)
    assert said.code == 2, said.err
    assert said.out == ""
    assert said.err
    assert steered(said.err) == []


@pytest.mark.parametrize("since", ["99999999999999999999d", "0001-01-01", "1969-12-31T00:00Z"])
def test_a_time_before_all_times_is_all_of_it(shell: Shell, journal: Rig, since: str) -> None:
    journal.add(1)
    assert len(shell("messages", "list", "--since", since, "--json").document["items"]) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("messages", "show", "0"),
        ("messages", "cancel", "0"),
        ("messages", "resend", "0"),
        ("parked", "show", "0"),
        ("parked", "replay", "0"),
        ("parked", "discard", "0"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_ends_with_1(shell: Shell, command: tuple[str, ...]) -> None:
    said = shell(*command)
    assert said.code == 1
    assert said.out + said.err


# --- the journal is away -----------------------------------------------------------------------

ASKS = [
    *LISTS,
    ("status",),
    ("messages", "show", "0"),
    ("messages", "cancel", "0"),
    ("failures", "resend", "--all", "--yes"),
    ("parked", "replay", "0"),
    ("parked", "discard", "0"),
    ("db", "current"),
]


@pytest.mark.parametrize("command", ASKS, ids=" ".join)
def test_a_journal_that_is_away_is_one_line_without_its_password(
    shell: Shell, command: tuple[str, ...]
) -> None:
    shell.environment["MAILGATE_JOURNAL__URL"] = "postgresql+psycopg://me:s3cret@127.0.0.1:1/x"
    said = shell(*command)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("mailgate: the journal cannot be reached: ")
    assert said.err.count("\n") == 1
    assert "s3cret" not in said.err
    assert "\\n" not in said.err


def test_looking_for_a_journal_makes_none(shell: Shell, tmp_path: Path) -> None:
    shell.environment["MAILGATE_JOURNAL__URL"] = f"sqlite:///{tmp_path}/elsewhere.db"
    said = shell("status")
    assert said.code == 1
    assert "there is no file" in said.err
    assert "mailgate db upgrade" in said.err
    assert not (tmp_path / "elsewhere.db").exists()
    assert shell("db", "upgrade").code == 0
    assert shell("status").code == 0


def test_a_file_that_is_no_journal_is_said(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("Dear Ann, " * 100)
    shell.environment["MAILGATE_JOURNAL__URL"] = f"sqlite:///{tmp_path}/letter.db"
    said = shell("messages", "list")
    assert (said.code, said.out) == (1, "")
    assert "not a database" in said.err


def test_up_without_its_journal_says_so_in_a_line(shell: Shell) -> None:
    changed = {"MAILGATE_JOURNAL__URL": "postgresql://u:p@127.0.0.1:1/db"}
    said = subprocess.run(
        [sys.executable, "-m", "mailgate.cli.main", "up"],
        env=os.environ | shell.environment | changed,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert said.returncode == 1
    assert "the journal cannot be reached" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_journal_that_goes_away_in_the_middle_of_a_resend_is_said(
    shell: Shell, journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mailgate.journal.database import JournalAway

    for n in range(3):
        fail_one(journal, key=f"m{n}")
    monkeypatch.setattr(resending, "CHUNK", 2)
    real = resending.Surgery.move
    calls: list[int] = []

    def move(self: Any, *given: Any, **how: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise JournalAway("it went")
        return real(self, *given, **how)

    monkeypatch.setattr(resending.Surgery, "move", move)
    said = shell("failures", "resend", "--all")
    assert said.code == 1
    assert "after 2" in said.err
    assert journal.count("recipients", "state = 'queued'") == 2
    assert shell("failures", "resend", "--all", "--json").document == {"resend": 1}


# --- sending again -----------------------------------------------------------------------


def test_what_fails_again_at_once_is_sent_again_once(
    shell: Shell, journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are quicker than the operator: what was moved first has failed again by the time
    the next chunk is looked for."""
    for n in range(5):
        fail_one(journal, key=f"m{n}")
    monkeypatch.setattr(resending, "CHUNK", 2)
    real = resending.Surgery.move
    moves: list[int] = []

    def move(self: Any, connection: Any, ids: Any, *given: Any, **how: Any) -> Any:
        moved = real(self, connection, ids, *given, **how)
        moves.extend(moved.recipient_ids)
        assert len(moves) <= 5, "the same failures again and again"
        connection.exec_driver_sql("UPDATE recipients SET state = 'bounced'")
        return moved

    monkeypatch.setattr(resending.Surgery, "move", move)
    said = shell("failures", "resend", "--error-class", "mailbox_full", "--json")
    assert said.document == {"resend": len(moves)}
    moves.clear()
    assert shell("failures", "resend", "--all", "--json").document == {"resend": 5}
    assert len(set(moves)) == 5


def test_a_resend_says_what_it_would_do_asks_and_is_audited(shell: Shell, journal: Rig) -> None:
    for n in range(22):
        fail_one(journal, key=f"m{n}")
    would = shell("failures", "resend", "--all", "--dry-run", "--json")
    assert (would.document["would"], would.document["count"]) == ("resend", 22)
    assert [g["count"] for g in would.document["groups"]] == [22]
    assert journal.count("recipients", "state = 'queued'") == 0
    assert shell("failures", "resend", "--all", stdin=b"n\n").code == 1
    assert journal.count("recipients", "state = 'queued'") == 0
    done = shell("failures", "resend", "--all", "--yes", "--json", "--reason", "relay mended")
    assert done.document == {"resend": 22}
    assert shell.rings == [Lane.NORMAL]
    [row] = journal.all("SELECT verb, reason, count FROM actions")
    assert (row.verb, row.reason, row.count) == ("resend", "relay mended", 22)
    again = shell("failures", "resend", "--all", "--json")
    assert again.document == {"resend": 0}


def test_uncertain_ones_are_sent_again_only_when_named(shell: Shell, journal: Rig) -> None:
    journal.store(arrival("one"))
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.UNCERTAIN))
    assert shell("failures", "resend", "--all", "--json").document == {"resend": 0}
    said = shell("failures", "resend", "--all", "--state", "uncertain", "--json")
    assert said.document == {"resend": 1}
    assert journal.row(claim.recipient_id).state == "queued"


def test_moves_of_one_moment_are_told_in_their_order(shell: Shell, journal: Rig) -> None:
    journal.store(arrival("one"))
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.UNCERTAIN, State.QUEUED))
    story = shell("messages", "show", spell(claim.message_id)).out
    assert story.index("  accepted") < story.index("  uncertain") < story.index("  queued")


def test_a_table_in_a_pipe_has_no_blanks_at_its_ends(shell: Shell, journal: Rig) -> None:
    journal.add(2)
    lines = shell("messages", "list").out.splitlines()
    assert len(lines) == 3
    assert all(line == line.rstrip() for line in lines)


# --- replay ------------------------------------------------------------------------------------


def parked_ids(shell: Shell) -> list[str]:
    return [item["id"] for item in shell("parked", "list", "--json").document["items"]]


def test_a_corrected_message_is_replayed_once(shell: Shell, journal: Rig, tmp_path: Path) -> None:
    take_in(journal, b'{"to": ["ann@example.org"], "sujet": "x", "text": "t"}')
    [row] = parked_ids(shell)
    said = shell("parked", "replay", row, "--json")
    assert said.code == 1
    assert said.document["items"] == [{"id": row, "accepted": False, "message": None}]
    assert "sujet" in said.err
    good = tmp_path / "good.json"
    good.write_text('{"to": ["ann@example.org"], "subject": "x", "text": "t"}')
    said = shell("parked", "replay", row, "--file", str(good), "--json")
    assert said.code == 0
    message = said.document["items"][0]["message"]
    assert shell("messages", "show", message).code == 0
    assert shell("parked", "replay", row, "--file", str(good)).code == 1
    assert journal.count("messages") == 1
    assert parked_ids(shell) == []


def test_a_replay_under_a_key_that_is_taken_is_no_acceptance(
    shell: Shell, journal: Rig, tmp_path: Path
) -> None:
    """The producer has sent a corrected one itself meanwhile, with the same key."""
    take_in(journal, b'{"to": ["ann@example.org"], "idempotency_key": "k", "oops": 1}')
    take_in(
        journal,
        b'{"to": ["ann@example.org"], "idempotency_key": "k", "subject": "s", "text": "good"}',
    )
    [row] = parked_ids(shell)
    other = tmp_path / "other.json"
    other.write_text(
        '{"to": ["ann@example.org"], "idempotency_key": "k", "subject": "s", "text": "mine"}'
    )
    said = shell("parked", "replay", row, "--file", str(other), "--json")
    assert said.code == 1
    assert said.document["items"][0]["accepted"] is False
    [first] = journal.all("SELECT id FROM messages")
    assert spell(first.id) in said.err
    # The bytes stand once, where the conflict is seen.
    [conflict] = parked_ids(shell)
    assert conflict != row
    assert shell("parked", "show", conflict, "--json").document["kind"] == "conflict"
    assert journal.count("messages") == 1


# --- finding, counting, and sending again another way ------------------------------------


def test_lists_and_counts_as_comma_separated_values_are_safe_in_a_spreadsheet(
    shell: Shell, journal: Rig
) -> None:
    fail_one(journal, key="one", template="=cmd|' /C calc'!A0", producer="+1\x1b[31m")
    for command in (("messages", "list"), ("messages", "count", "--by", "template")):
        said = shell(*command, "--csv")
        head, row = csv.reader(io.StringIO(said.out))
        assert row[head.index("template")] == "'=cmd|' /C calc'!A0"
        assert not steered(said.out.replace("\r\n", "\n"))
    said = shell("messages", "list", "--csv", "--json")
    assert (said.code, said.err) == (2, "mailgate: --json or --csv, not both\n")


def test_counts_are_by_the_groups_that_are_asked_for(shell: Shell, journal: Rig) -> None:
    fail_one(journal, key="one")
    journal.add(2)
    assert shell("messages", "count", "--json").document == {
        "items": [{"state": "queued", "count": 2}, {"state": "bounced", "count": 1}],
        "groups": 2,
    }
    by = shell(
        "messages", "count", "--by", "error-class", "--by", "state", "--limit", "1", "--json"
    )
    assert by.document == {
        "items": [{"error_class": None, "state": "queued", "count": 2}],
        "groups": 2,
    }
    said = shell("messages", "count", "--by", "colour")
    assert said.code == 2
    assert "must be one of state, producer" in said.err


def test_filters_by_reply_relay_and_metadata(shell: Shell, journal: Rig) -> None:
    fail_one(journal, key="one", reply="Mailbox FULL", metadata='{"order": "7"}')
    journal.add(2)
    for filters in (
        ("--reply", "mailbox full"),
        ("--relay", "main"),
        ("--tried", "main"),
        ("--metadata", "order=7"),
    ):
        assert len(shell("messages", "list", *filters, "--json").document["items"]) == 1
    assert shell("messages", "list", "--metadata", "order=8", "--json").document["items"] == []
    assert shell("messages", "list", "--metadata", "order").code == 2


def test_a_page_names_the_next(shell: Shell, journal: Rig) -> None:
    journal.add(5)
    said = shell("messages", "list", "--limit", "3")
    assert said.code == 0
    following = said.err.split("--after ")[1].strip()
    rest = shell("messages", "list", "--limit", "3", "--after", following, "--json").document
    assert len(rest["items"]) == 2
    assert rest["next"] is None


def test_a_dry_run_says_what_how_many_and_how_long(shell: Shell, journal: Rig) -> None:
    for n in range(40):
        fail_one(journal, key=f"m{n}")
    shell.environment["MAILGATE_RELAYS__MAIN__RATE"] = "1/s"
    journal.sql("UPDATE buckets SET route = 'main'")
    said = shell("failures", "resend", "--error-class", "mailbox_full", "--dry-run")
    assert said.code == 0
    assert "would resend 40 recipients" in said.out
    assert "would take at least 39s under relays.main.rate = 1/s" in said.out
    would = shell("failures", "resend", "--all", "--rate", "10/m", "--dry-run", "--json").document
    assert (would["seconds"], would["limit"]) == (39 * 6, "--rate = 10/m")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--to", "not an address"), "must be one email address"),
        (("--relay", "nowhere"), "is no relay; the relays are: main"),
        (("--rate", "fast"), "is not a rate"),
        (("--state", "sent"), "none of these states"),
    ],
)
def test_a_resend_with_wrong_words_changes_nothing(
    shell: Shell, journal: Rig, options: tuple[str, ...], rule: str
) -> None:
    fail_one(journal, key="one")
    said = shell("failures", "resend", "--error-class", "mailbox_full", *options)
    assert said.code == 2
    assert rule in said.err
    assert journal.count("recipients", "state = 'bounced'") == 1


def test_a_corrected_address_and_another_relay(shell: Shell, journal: Rig) -> None:
    message = spell(fail_one(journal, key="one"))
    said = shell("failures", "resend", message, "--to", "Ann@Example.NET", "--json")
    assert said.document == {"resend": 1}
    [row] = journal.all("SELECT email, state FROM recipients")
    assert (row.email, row.state) == ("Ann@example.net", "queued")
    [action] = journal.all("SELECT detail FROM actions")
    assert "@" not in action.detail
    assert shell("failures", "resend", message, "--to", "a@example.org").code == 2


def test_confirmed_mail_is_sent_and_the_audit_says_why(shell: Shell, journal: Rig) -> None:
    [message] = journal.store(arrival("one")).ids
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.UNCERTAIN))
    said = shell("failures", "confirm", spell(message), "--reason", "in its log", "--json")
    assert said.document == {"confirm": 1}
    assert journal.one("SELECT state FROM recipients").state == "sent"
    story = shell("messages", "show", spell(message)).out
    assert "in its log" in story


# --- what waits, and for what -----------------------------------------------------------


def waits_for(shell: Shell, message: int) -> list[str | None]:
    said = shell("messages", "show", spell(message), "--json")
    assert said.code == 0, said.err
    found = [r["waits_for"] for r in said.document["recipients"]]
    for reason in found:
        # People read the same.
        assert reason is None or reason[:12] in shell("messages", "show", spell(message)).out
    return found


def test_the_story_says_for_what_a_message_waits(shell: Shell, journal: Rig) -> None:
    shell.environment["MAILGATE_LIMITER__URL"] = "journal"
    journal.sql("UPDATE buckets SET route = 'main'")
    [message] = journal.store(arrival("a", "ann@example.org")).ids
    journal.sql("UPDATE buckets SET route = 'main'")
    assert waits_for(shell, message) == ["its turn"]

    shell.environment["MAILGATE_RELAYS__MAIN__RATE"] = "1/h"
    assert waits_for(shell, message) == ["its turn"]
    asyncio.run(_use_up(journal, "relay:main", "1/h"))
    [reason] = waits_for(shell, message)
    assert reason is not None
    # In an hour and a little, less what this took.
    assert reason.startswith(tuple(f"the limit relay:main, which admits in {n}" for n in (36, 359)))

    assert shell("relays", "pause", "main", "--reason", "mending").code == 0
    [reason] = waits_for(shell, message)
    assert reason is not None
    assert reason.startswith("the pause of relay main by ")
    assert reason.endswith(": mending")
    assert shell("pause", "producer", "shop", "--reason", "x").code == 0
    [reason] = waits_for(shell, message)
    assert (reason or "").startswith("the pause of producer shop by ")
    assert shell("resume", "producer", "shop").code == 0
    assert shell("relays", "resume", "main").code == 0

    journal.sql("UPDATE recipients SET due_at = 4102444800000")
    assert waits_for(shell, message) == ["its time, 2100-01-01 00:00:00Z"]
    journal.sql("UPDATE messages SET send_at = 4102444800000")
    assert waits_for(shell, message) == ["its send_at, 2100-01-01 00:00:00Z"]
    journal.sql("UPDATE recipients SET state = 'deferred'")
    assert waits_for(shell, message) == ["the next attempt at 2100-01-01 00:00:00Z"]
    journal.sql("UPDATE recipients SET state = 'sent'")
    assert waits_for(shell, message) == [None]


async def _use_up(journal: Rig, key: str, rate: str) -> None:
    limiter = JournalLimiter(journal.database)
    [answer] = await limiter.reserve([Ask(((key, parse_rate(rate)),))], 0.4)
    assert isinstance(answer, Grant)


def test_a_relay_that_is_left_alone_is_named(shell: Shell, journal: Rig) -> None:
    [message] = journal.store(arrival("a", "ann@example.org")).ids
    journal.sql("UPDATE buckets SET route = 'main'")
    told = journal.database.read_now(lambda c: story(c, message))
    assert told is not None
    config = Config.model_validate({"relays": {"main": {"host": "a.example"}}})
    now = journal.database.now()
    record = Record(opened=1, since=now, until=now + 60_000, error_class="connect_failed")
    for who, words in (
        (Subject(Kind.RELAY, "main"), "relay main, left alone for 60 s (connect_failed)"),
        (
            Subject(Kind.DOMAIN, "main", "example.org"),
            "relay main for example.org, left alone for 60 s (connect_failed)",
        ),
    ):
        found = Standing({who: Health(record)}, (), now)
        limiter = JournalLimiter(journal.database)
        said = asyncio.run(reasons(told, found, config, limiter))
        assert list(said.values()) == [words]


def test_a_story_says_which_events_the_producer_was_told(shell: Shell, journal: Rig) -> None:
    [number] = journal.add(1)
    outbox = Outbox(journal.database, 1)
    assert journal.database.run_now(lambda c: outbox.hold(c, 10_000)) == 0
    [first] = journal.database.read_now(lambda c: outbox.next(c, 0))
    journal.database.run_now(lambda c: outbox.advance(c, 0, first.id, 10_000))
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.SENT, attempt=attempt("sent", code=250)))
    message = spell(journal.row(number).message_id)

    accepted, sent = shell("messages", "show", message, "--json").document["events"]
    assert accepted["published"]
    assert accepted["published_at"].endswith("+00:00")
    assert (sent["published"], sent["published_at"]) == (False, None)
    said = shell("messages", "show", message).out
    assert re.search(r"accepted; published at \d\d:\d\d:\d\dZ\n", said)
    assert said.count("; not published yet\n") == 1
    status = shell("status", "--json").document["events"]
    assert (status["waiting"], status["refused"]) == (1, [])
    assert re.search(
        r"^events\n1 not published yet, the oldest for \d+ s$", shell("status").out, re.M
    )

    # Nobody is told: then nothing is said of it either.
    shell.environment["MAILGATE_EVENTS__ENABLED"] = "false"
    assert "published" not in shell("messages", "show", message).out
    assert "events" not in shell("status", "--json").document


def test_a_restored_journal_is_said_to_be_one_when_no_worker_lives(
    shell: Shell, journal: Rig
) -> None:
    journal.add(2)
    lease = journal.lease()
    refused = shell("db", "restored")
    assert refused.code == 1
    assert "1 worker processes are alive" in refused.err
    journal.database.run_now(lambda c: leases.remove(c, [lease]))
    assert shell("db", "restored", "--dry-run", "--json").document == {
        "uncertain": 2,
        "dry_run": True,
    }
    assert "2 recipients are uncertain" in shell("db", "restored", "--reason", "disk").out
    assert "resend 0 recipients" in shell("failures", "resend", "--all", "--dry-run").out
    again = shell("failures", "resend", "--error-class", "restored", "--uncertain", "--dry-run")
    assert "resend 2 recipients" in again.out
    assert shell("db", "restored", "--until", "noon").code == 2
