"""What is over is deleted in time, what is not never is; one person can be forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailgate.config.shape import Config
from mailgate.journal.facts import CLEANED, noted
from mailgate.journal.retention import ERASED
from mailgate.journal.surgery import Act, Surgery, audit
from mailgate.model.state import FINAL, State
from mailgate.operations import retention
from mailgate.operations.retention import CHUNK, clean, erase
from tests.contract.journal.rig import Rig, arrival, attempt, settlement

DAY = 86_400_000
WHOSE = "SELECT r.id, m.identity FROM recipients r JOIN messages m ON m.id = r.message_id"
KEPT = ("messages", "recipients", "attempts", "events", "attachments", "renderings")


def config(**retention: Any) -> Config:
    return Config.model_validate({"retention": retention})


def age(journal: Rig, days: float) -> None:
    """Let everything have happened so long ago."""
    ms = int(days * DAY)
    shift = ms << 21
    for table, column in (
        ("recipients", "changed_at"),
        ("parked", "resolved_at"),
        ("actions", "at"),
    ):
        journal.sql(f"UPDATE {table} SET {column} = {column} - :ms", ms=ms)
    for table, column in (
        ("messages", "id"),
        ("recipients", "message_id"),
        ("events", "message_id"),
        ("attachments", "message_id"),
    ):
        journal.sql(f"UPDATE {table} SET {column} = {column} - :shift", shift=shift)


def ended(journal: Rig, key: str, *states: State, **more: Any) -> int:
    """A message whose recipients ended so."""
    emails = [f"{key}-{n}@example.org" for n in range(len(states))]
    [message] = journal.store(arrival(key, *emails, **more)).ids
    claims = [c for c in journal.claim(journal.lease()) if c.message_id == message]
    for claim, state in zip(claims, states, strict=True):
        if state is not State.SENDING:
            tried = attempt("sent", code=250)
            journal.settle(settlement(claim, state, attempt=tried, stored=b"bytes"))
    return message


def test_what_is_over_is_deleted_with_all_that_belongs_to_it(journal: Rig) -> None:
    ended(journal, "old", State.SENT, State.BOUNCED)
    age(journal, 91)
    young = ended(journal, "young", State.SENT)
    assert clean(journal.database, config(), 10)["messages"] == 1
    assert [r.id for r in journal.all("SELECT id FROM messages")] == [young]
    for table in ("recipients", "attempts"):
        assert journal.count(table) == 1, table
    assert {r.message_id for r in journal.all("SELECT message_id FROM events")} == {young}
    assert clean(journal.database, config(), 10)["messages"] == 0


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_nothing_that_is_not_over_is_ever_deleted(journal: Rig, state: State) -> None:
    ended(journal, "a", State.SENT, State.SENT)
    journal.sql(
        "UPDATE recipients SET state = :state WHERE id = (SELECT max(id) FROM recipients)",
        state=state.value,
    )
    age(journal, 400)
    clean(journal.database, config(messages="1d", content="1d"), 10)
    assert journal.count("recipients") == 2
    assert "s3cret" in journal.one("SELECT body FROM messages").body


def test_zero_keeps_for_ever(journal: Rig) -> None:
    ended(journal, "a", State.SENT)
    age(journal, 4000)
    clean(journal.database, config(messages=0, content=0, parked=0, actions=0), 10)
    assert journal.count("messages") == 1


def test_many_are_deleted_in_chunks_and_those_between_stay(journal: Rig) -> None:
    journal.add(2 * CHUNK + 20)
    journal.sql("UPDATE recipients SET state = 'sent' WHERE n % 7 >= 0")
    kept = journal.one("SELECT max(id) AS id FROM recipients").id
    journal.sql("UPDATE recipients SET state = 'held' WHERE id = :id", id=kept)
    age(journal, 100)
    assert clean(journal.database, config(), 30)["messages"] == 2 * CHUNK + 19
    assert [r.id for r in journal.all("SELECT id FROM recipients")] == [kept]


def test_what_waited_longer_than_its_time_expires(journal: Rig) -> None:
    now = journal.database.now()
    journal.store(
        arrival("over", expires_at=now - 1),
        arrival("later", send_at=now + DAY, expires_at=now + 2 * DAY),
        arrival("held", expires_at=now - 1),
        arrival("poison", expires_at=now - 1),
    )
    rows = {r.identity: r.id for r in journal.all(WHOSE)}
    hold = "UPDATE recipients SET state = 'held', error_class = :why WHERE id = :id"
    journal.sql(hold, id=rows["key:held"], why="template_broken")
    journal.sql(hold, id=rows["key:poison"], why="poison")
    assert clean(journal.database, config(), 30)["expired"] == 2
    states = {key: journal.row(id_).state for key, id_ in rows.items()}
    # Poison waits for a person, who may send it all the same.
    assert states == {
        "key:over": "expired",
        "key:later": "queued",
        "key:held": "expired",
        "key:poison": "held",
    }
    assert journal.events(rows["key:over"]) == [(2, "expired")]
    assert clean(journal.database, config(), 30)["expired"] == 0


@pytest.mark.parametrize(("late", "heads"), [(True, [None]), (False, [1])])
def test_only_a_person_sends_what_expired_while_it_was_held(
    journal: Rig, late: bool, heads: list[int | None]
) -> None:
    [id_] = journal.add(1, expires_at=1)
    journal.sql("UPDATE recipients SET state = 'held', error_class = 'template_broken'")
    act = Act("mailgate", "release", "it serves again")
    journal.database.run_now(
        lambda c: Surgery(journal.database).move(c, [id_], State.QUEUED, act, late=late)
    )
    # The take lets go what has no time, and expires the other.
    assert [h.expires_at for h in journal.heads()] == heads


def test_keys_are_free_again_in_time_but_for_what_waits(journal: Rig) -> None:
    ended(journal, "old", State.SENT)
    journal.store(arrival("waits", send_at=journal.database.now() + DAY))
    age(journal, 31)
    ended(journal, "young", State.SENT)
    assert clean(journal.database, config(), 30).get("keys", 0) == 0
    assert clean(journal.database, config(keys="30d"), 30)["keys"] == 1
    again = [arrival(key) for key in ("old", "waits", "young")]
    stored = journal.store(*again)
    assert (stored.accepted, stored.repeated) == (1, 2)
    # Where it came to is remembered: the next looks at what is new.
    assert clean(journal.database, config(keys="30d"), 30)["keys"] == 0


def test_many_keys_are_freed_in_chunks(journal: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNK", 2)
    for n in range(5):
        ended(journal, f"old{n}", State.SENT)
    age(journal, 31)
    assert clean(journal.database, config(keys="30d"), 30)["keys"] == 5
    assert journal.count("messages", "identity LIKE 'past:%'") == 5


def test_a_clean_up_leaves_a_trace(journal: Rig) -> None:
    ended(journal, "old", State.SENT)
    age(journal, 91)
    clean(journal.database, config(), 30)
    seen = journal.database.read_now(lambda c: noted(c, CLEANED))
    assert seen["finished"]
    assert seen["done"] == {"messages": 1}
    assert abs(seen["at"] - journal.database.now()) < 10_000
    clean(journal.database, config(), 0)
    assert not journal.database.read_now(lambda c: noted(c, CLEANED))["finished"]


def test_a_clean_up_ends_in_time(journal: Rig) -> None:
    ended(journal, "a", State.SENT)
    age(journal, 100)
    assert clean(journal.database, config(), 0) == {}
    assert journal.count("messages") == 1


def test_sent_mail_forgets_its_content_and_keeps_its_story(journal: Rig) -> None:
    ended(journal, "sent", State.SENT, own='{"data": {"a": "s3cret"}}')
    # It could be sent again: it has to know what.
    ended(journal, "bounced", State.BOUNCED)
    age(journal, 8)
    settings = config(content="7d")
    assert clean(journal.database, settings, 10)["contents"] == 1
    bodies = {r.identity: r.body for r in journal.all("SELECT identity, body FROM messages")}
    assert "s3cret" not in bodies["key:sent"]
    assert "s3cret" in bodies["key:bounced"]
    assert json.loads(bodies["key:sent"])["from"] == ["shop@example.com", "Shop"]
    assert journal.count("recipients", "own IS NOT NULL") == 0
    assert journal.count("events") > 0
    # Once is enough.
    assert clean(journal.database, settings, 10)["contents"] == 0


def test_what_operators_did_and_resolved_is_forgotten_later(journal: Rig) -> None:
    act = Act("ann@here", "resend", "")
    journal.database.run_now(lambda c: audit(c, act, 1, journal.database.now() - 366 * DAY))
    journal.database.run_now(lambda c: audit(c, act, 1, journal.database.now()))
    for n, (state, days) in enumerate([("parked", 99), ("discarded", 31), ("replayed", 1)]):
        journal.sql(
            "INSERT INTO parked (id, identity, received_at, source, kind, faults, body, state,"
            " resolved_at) VALUES (:n, :i, 0, 's', 'invalid', '[]', :b, :state, :at)",
            n=n,
            i=str(n),
            b=b"x",
            state=state,
            at=None if state == "parked" else journal.database.now() - days * DAY,
        )
    done = clean(journal.database, config(), 10)
    assert (done["actions"], done["parked"]) == (1, 1)
    assert {r.state for r in journal.all("SELECT state FROM parked")} == {"parked", "replayed"}


def test_one_person_is_forgotten_and_what_waits_for_them_cancelled(journal: Rig) -> None:
    ended(journal, "old", State.SENT)
    journal.sql("UPDATE recipients SET email = 'Ann@example.org', name = 'Ann'")
    own = '{"data": {"name": "Ann"}}'
    journal.store(arrival("waits", "ann@example.org", own=own, metadata='{"name": "Ann"}'))
    journal.store(arrival("shared", "ann@example.org", "bob@example.org", kind="to"))
    body = json.loads(journal.one("SELECT body FROM messages WHERE identity = 'key:shared'").body)
    body["to"] = [["ann@example.org", "Ann"], ["bob@example.org", ""]]
    journal.sql("UPDATE messages SET body = :b WHERE identity = 'key:shared'", b=json.dumps(body))
    journal.sql("UPDATE attempts SET reply = 'no ann@example.org here'")
    journal.sql(
        "INSERT INTO parked (id, identity, received_at, source, kind, faults, body, state)"
        " VALUES (1, 'x', 0, 's', 'invalid', :f, :b, 'parked')",
        f='[{"field": "to", "rule": "Ann"}]',
        b=b'{"to": "ANN@example.org", "subject": "s"}\xff',
    )
    act = Act("op@here", "erase", "asked for it")
    done = erase(journal.database, "ann@example.org", act)
    assert (done.cancelled, done.recipients, done.parked, done.busy) == (2, 3, 1, 0)
    states = {r.email: r.state for r in journal.all("SELECT email, state FROM recipients")}
    assert states.pop("bob@example.org") == "queued"
    assert set(states) == {ERASED}
    everything = [
        str(dict(row._mapping)).lower()
        for table in (*KEPT, "parked", "actions")
        for row in journal.all(f"SELECT * FROM {table}")
    ]
    assert not [row for row in everything if "ann@" in row or "'ann'" in row or '"ann"' in row]
    shared = json.loads(journal.one("SELECT body FROM messages WHERE identity = 'key:shared'").body)
    assert shared["to"] == [[ERASED, ""], ["bob@example.org", ""]]
    assert shared["text"] == "a line"
    assert journal.count("actions", "verb = 'erase' AND reason = 'asked for it'") >= 1
    assert erase(journal.database, "ann@example.org", act).recipients == 0


def test_what_is_being_sent_cannot_be_forgotten_yet(journal: Rig) -> None:
    journal.add(1)
    [claim] = journal.claim(journal.lease())
    done = erase(journal.database, claim.address.email, Act("op", "erase", ""))
    assert (done.recipients, done.busy) == (0, 1)
    assert journal.row(claim.recipient_id).email == claim.address.email


def test_one_person_with_many_mails_is_forgotten_to_the_last(
    journal: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits stands behind a whole chunk of what is over."""
    monkeypatch.setattr(retention, "CHUNK", 3)
    for n in range(4):
        ended(journal, f"old{n}", State.SENT)
    journal.add(5)
    journal.sql("UPDATE recipients SET email = 'ann@example.org'")
    done = erase(journal.database, "ann@example.org", Act("op", "erase", ""))
    assert (done.cancelled, done.recipients, done.busy) == (5, 9, 0)
    assert journal.count("recipients", "email = 'ann@example.org'") == 0
    assert journal.count("recipients", "state = 'queued'") == 0
