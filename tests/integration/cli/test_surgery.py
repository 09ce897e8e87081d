"""Draining, expiring by hand and slips of the pen, as an operator types them."""

from __future__ import annotations

import pytest

from mailgate.model.state import Lane, State
from mailgate.model.value import replace
from mailgate.operations import draining
from tests.contract.journal.rig import BUCKET, Rig, arrival, settlement
from tests.integration.cli.conftest import Shell
from tests.integration.cli.test_operator import fail_one

HIGH = replace(BUCKET, lane=Lane.HIGH)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker has to see the pause here."""
    monkeypatch.setattr(draining, "SEEN", 0.01)
    monkeypatch.setattr(draining, "LOOK", 0.01)


def states(journal: Rig) -> list[str]:
    return [r.state for r in journal.all("SELECT state FROM recipients ORDER BY id")]


# --- draining --------------------------------------------------------------------------


def test_a_lane_is_drained_to_another_and_stays_paused(shell: Shell, journal: Rig) -> None:
    journal.store(*(arrival(f"h{n}", bucket=HIGH) for n in range(3)))
    said = shell("lanes", "drain", "high", "--to", "normal", "--reason", "a loop", "--json")
    assert (said.code, said.document) == (
        0,
        {"lane": "high", "under_way": 0, "moved": 3, "waiting": 0},
    )
    assert shell.rings == [Lane.NORMAL]
    found = {row["lane"]: row for row in shell("lanes", "list", "--json").document["items"]}
    assert found["high"]["paused"].endswith(": a loop")
    assert found["normal"]["waiting"] == 3
    assert [r.verb for r in journal.all("SELECT verb FROM actions")] == ["drain", "drain"]
    assert shell("resume", "lane", "high").code == 0


def test_a_drain_waits_for_what_is_under_way_and_says_when_patience_ends(
    shell: Shell, journal: Rig
) -> None:
    journal.store(arrival("h", bucket=HIGH))
    [claim] = journal.claim(journal.lease())
    said = shell("lanes", "drain", "high", "--reason", "r", "--wait", "0.1s")
    assert said.code == 1
    assert said.out == "lane high still has 1 under way; 0 wait in it\n"
    journal.settle(settlement(claim, State.SENT))
    said = shell("lanes", "drain", "high", "--reason", "r")
    assert (said.code, said.out) == (0, "lane high is drained; 0 wait in it\n")


def test_a_lane_is_not_drained_to_itself(shell: Shell) -> None:
    said = shell("lanes", "drain", "high", "--to", "high", "--reason", "r")
    assert (said.code, said.err) == (2, "mailgate: --to: must be another lane\n")


def test_a_pause_can_wait_for_the_end_of_what_is_under_way(shell: Shell, journal: Rig) -> None:
    journal.add(1)
    [claim] = journal.claim(journal.lease())
    words = ("pause", "producer", "shop", "--reason", "r", "--wait")
    said = shell(*words, "0.1s", "--json")
    assert (said.code, said.document["under_way"]) == (1, 1)
    journal.settle(settlement(claim, State.SENT))
    said = shell(*words, "10s")
    assert (said.code, said.out) == (0, "producer shop is paused, and nothing of it under way\n")


# --- expiring by hand ------------------------------------------------------------------


def test_what_waits_is_expired_by_filter_audited_and_can_be_sent_again(
    shell: Shell, journal: Rig
) -> None:
    journal.add(3, template="code")
    journal.add(1, "other", template="welcome")
    said = shell("messages", "expire", "--template", "code", "--dry-run")
    assert said.out.splitlines()[0] == "would expire 3 recipients"
    assert set(states(journal)) == {"queued"}
    said = shell("messages", "expire", "--template", "code", "--reason", "too late for codes")
    assert (said.code, said.out) == (0, "expire: 3 recipients\n")
    assert states(journal).count("expired") == 3
    [done] = journal.all("SELECT verb, reason, count FROM actions")
    assert (done.verb, done.reason, done.count) == ("expire", "too late for codes", 3)
    [group] = shell("failures", "list", "--json").document["items"]
    assert (group["state"], group["error_class"]) == ("expired", "by_operator")
    again = shell("failures", "resend", "--error-class", "by_operator", "--json")
    assert again.document == {"resend": 3}


def test_what_is_being_sent_or_was_sent_does_not_expire(shell: Shell, journal: Rig) -> None:
    journal.add(2)
    first, _ = journal.claim(journal.lease())
    journal.settle(settlement(first, State.SENT))
    said = shell("messages", "expire", "--producer", "shop", "--json")
    assert said.document == {"expire": 0}
    said = shell("messages", "expire", "--producer", "shop", "--state", "sent")
    assert (said.code, said.err) == (2, "mailgate: none of these states can be changed so\n")
    assert shell("messages", "expire").code == 2


def test_many_are_expired_only_after_a_yes(shell: Shell, journal: Rig) -> None:
    journal.add(21)
    said = shell("messages", "expire", "--producer", "shop", stdin=b"n\n")
    assert (said.code, set(states(journal))) == (1, {"queued"})
    said = shell("messages", "expire", "--producer", "shop", "--yes")
    assert (said.code, set(states(journal))) == (0, {"expired"})


# --- resend, and slips -----------------------------------------------------------------


def test_a_dry_run_of_a_resend_counts_the_suppressed_apart(shell: Shell, journal: Rig) -> None:
    fail_one(journal)
    message = fail_one(journal, key="second")
    email = journal.one("SELECT email FROM recipients WHERE message_id = :m", m=message).email
    assert shell("suppressions", "add", email, "--reason", "asked").code == 0
    words = ("failures", "resend", "--all", "--dry-run")
    said = shell(*words).out.splitlines()
    assert said[0] == "would resend 1 recipient"
    assert "would leave 1 alone: they are suppressed" in said
    document = shell(*words, "--json").document
    assert (document["count"], document["suppressed"]) == (1, 1)


@pytest.mark.parametrize(
    ("option", "wrong", "right", "where"),
    [
        ("--producer", "shpo", "shop", "in the configuration"),
        ("--stream", "transactoinal", "transactional", "in the configuration"),
        ("--template", "wellcome", "welcome", "among the templates"),
        ("--relay", "mian", "main", "in the configuration"),
        ("--relay", "secnod", "second", "in the configuration"),
    ],
)
def test_a_filter_with_a_name_that_nobody_knows_warns(
    shell: Shell, journal: Rig, option: str, wrong: str, right: str, where: str
) -> None:
    journal.add(1)
    said = shell("messages", "list", option, wrong)
    kind = option.lstrip("-")
    assert (said.code, said.out) == (0, "nothing found\n")
    assert said.err == f"mailgate: no {kind} called {wrong} {where} or the journal\n"
    assert shell("messages", "list", option, right).err == ""
