"""Another time for a message, and messages by their producer's key."""

from __future__ import annotations

from mailgate.model.ids import spell
from mailgate.model.state import Lane
from tests.contract.journal.rig import BUCKET, Rig, arrival
from tests.integration.cli.conftest import Shell

NEW_YEAR = 1_893_456_000_000


def test_a_message_is_rescheduled_audited_and_rung_for(shell: Shell, journal: Rig) -> None:
    first, second = (spell(i) for i in journal.store(arrival("a"), arrival("b")).ids)
    said = shell(
        *("messages", "reschedule", first, "--key", "b", "--json"),
        *("--send-at", "2030-01-01T01:00:00+01:00", "--reason", "holidays"),
    )
    assert said.code == 0
    assert said.document == {
        "items": [{"id": i, "result": "done", "reason": None} for i in (first, second)]
    }
    assert [r.due_at for r in journal.all("SELECT due_at FROM recipients")] == [NEW_YEAR] * 2
    assert shell.rings == []
    assert "reschedule" in shell("messages", "show", first).out
    assert [r.count for r in journal.all("SELECT count FROM actions")] == [1, 1]
    assert shell("messages", "reschedule", first, "--send-at", "now").code == 0
    assert shell.rings == [Lane.NORMAL]
    assert len(journal.heads()) == 1


def test_what_cannot_be_rescheduled_is_said(shell: Shell, journal: Rig) -> None:
    [number] = journal.store(arrival("a", expires_at=NEW_YEAR)).ids
    first = spell(number)
    said = shell("messages", "reschedule", first, "--send-at", "2030-01-01T00:00:00Z")
    assert (said.code, said.err) == (
        1,
        f"mailgate: {first}: send_at is not before the message's expires_at\n",
    )
    journal.sql("UPDATE recipients SET state = 'sent'")
    said = shell("messages", "reschedule", first, "--send-at", "now")
    assert said.code == 1
    assert "it is being sent, was sent or tried" in said.err
    for wrong, words in (
        (("--send-at", "tomorrow"), "write a time such as"),
        (("--send-at", "2030-01-01T00:00:00"), "needs an offset"),
        (("--send-at", "now", "--expires-at", "2000-01-01T00:00:00Z"), "must be later"),
    ):
        said = shell("messages", "reschedule", first, *wrong)
        assert said.code == 2
        assert words in said.err
    said = shell("messages", "reschedule", "0000000000001", "--send-at", "now")
    assert (said.code, said.err) == (1, "mailgate: 0000000000001: there is no such message\n")


def test_a_message_is_cancelled_by_its_producers_key(shell: Shell, journal: Rig) -> None:
    other = BUCKET.__class__(BUCKET.lane, "billing", BUCKET.route)
    journal.store(arrival("k1"), arrival("k1", bucket=other), arrival("k2"))
    said = shell("messages", "cancel", "--key", "k1")
    assert said.code == 2
    assert "say --producer, one of billing, shop" in said.err
    assert shell("messages", "cancel", "--key", "k1", "--producer", "billing").code == 0
    assert shell("messages", "cancel", "--key", "k2").code == 0
    rows = journal.all("SELECT state FROM recipients ORDER BY id")
    assert [r.state for r in rows] == ["queued", "cancelled", "cancelled"]
    said = shell("messages", "cancel", "--key", "k3")
    assert (said.code, "no message has the key k3" in said.err) == (1, True)
    assert shell("messages", "cancel").code == 2


def test_a_story_is_found_by_its_producers_key(shell: Shell, journal: Rig) -> None:
    journal.store(arrival("k1"))
    said = shell("messages", "show", "--key", "k1", "--producer", "shop")
    assert said.code == 0
    assert "identity key:k1" in said.out
    assert shell("messages", "show", "--key", "k2").code == 1
    assert shell("messages", "show").code == 2
    assert shell("messages", "show", "0F9M3Z7Q2K4XC", "--key", "k1").code == 2
