"""Finding recipients by every filter, counting them, and sending them again another way."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from mailgate.config.shape import Config
from mailgate.config.terms import parse_rate
from mailgate.journal.filters import Filter
from mailgate.journal.search import counts, find, ids, routes
from mailgate.journal.surgery import Act
from mailgate.model.address import Address
from mailgate.model.state import Lane, State
from mailgate.operations.resend import Estimate, How, NotOne, correct, estimate, move_all
from tests.contract.journal.rig import Rig, arrival, attempt, settlement

ACT = Act("ann@here", "resend", "mended")


def failed(
    journal: Rig, key: str, *emails: str, relay: str = "first", reply: str = "", **more: Any
) -> int:
    """A message whose recipients bounced at ``relay`` with ``reply``; gives its id."""
    [message] = journal.store(arrival(key, *emails, **more)).ids
    claims = [c for c in journal.claim(journal.lease()) if c.message_id == message]
    tried = attempt("bounce", relay, 550)
    if reply:
        tried = type(tried)(relay, 1, 2, "bounce", "rcpt", 550, "5.1.1", reply, "unknown_address")
    over = [
        settlement(c, State.BOUNCED, attempt=tried, error_class=tried.error_class) for c in claims
    ]
    journal.settle(*over)
    return message


def found(journal: Rig, **wanted: Any) -> set[str]:
    """The addresses that a filter finds."""
    rows = journal.database.read_now(lambda c: find(c, Filter(**wanted), 100, None))
    return {row.email for row in rows}


def test_each_filter_finds_its_own_and_no_other(journal: Rig) -> None:
    failed(journal, "a", "a@one.example", reply="Mailbox 100% full_ of [mail]", template="notice")
    failed(journal, "b", "b@two.example", relay="second", stream="codes", tags='["blue"]')
    own = json.dumps({"data": {"order": "9"}, "metadata": {"order": "7", "vip": True}})
    meta = json.dumps({"order": "7", "n": 12, "half": 1.5, "gone": None, 'q"$.': "é"})
    failed(journal, "c", "c@one.example.org", metadata=meta)
    failed(journal, "d", "d@three.example", own=own)
    journal.add(1, prefix="waits")

    assert found(journal, states=(State.BOUNCED,), domain="one.example") == {"a@one.example"}
    assert found(journal, reply="MAILBOX 100% FULL_") == {"a@one.example"}
    assert found(journal, reply="mailbox 100_ full") == set()
    assert found(journal, relay="second") == {"b@two.example"}
    # One attempt must meet both.
    assert found(journal, relay="second", reply="mailbox") == set()
    assert found(journal, template="notice") == {"a@one.example"}
    assert found(journal, stream="codes", tag="blue") == {"b@two.example"}
    assert found(journal, key="c") == {"c@one.example.org"}
    both = {"c@one.example.org", "d@three.example"}
    assert found(journal, metadata=(("order", "7"),)) == both
    assert found(journal, metadata=(("order", "7"), ("vip", "true"))) == {"d@three.example"}
    assert found(journal, metadata=(("n", "12"), ("half", "1.5"))) == {"c@one.example.org"}
    assert found(journal, metadata=(('q"$.', "é"),)) == {"c@one.example.org"}
    assert found(journal, metadata=(("order", "9"),)) == set()
    assert found(journal, metadata=(("' OR true --", "' OR true --"),)) == set()
    assert found(journal, states=(State.QUEUED,)) == {"waits0@example.org"}


def test_counts_by_several_groups_the_largest_first(journal: Rig) -> None:
    failed(journal, "a", "a@one.example", "b@one.example", relay="second")
    failed(journal, "b", "c@two.example")
    journal.add(4, prefix="waits")
    by = journal.database.read_now(lambda c: counts(c, Filter(), ["state", "domain", "relay"]))
    assert by == [
        {"state": "queued", "domain": "example.org", "relay": None, "count": 4},
        {"state": "bounced", "domain": "one.example", "relay": "second", "count": 2},
        {"state": "bounced", "domain": "two.example", "relay": "first", "count": 1},
    ]
    lanes = journal.database.read_now(
        lambda c: counts(c, Filter(states=(State.BOUNCED,)), ["lane", "producer"])
    )
    assert lanes == [{"lane": "normal", "producer": "shop", "count": 3}]


def test_what_is_sent_again_at_a_rate_is_due_one_after_the_other(journal: Rig) -> None:
    for n in range(5):
        failed(journal, f"m{n}")
    rings: list[Lane] = []
    how = How(rate=parse_rate("2/s"))
    begun = journal.database.now()
    moved = move_all(
        journal.database, Filter(domain="example.org"), State.QUEUED, ACT, rings.append, how=how
    )
    assert [len(m.recipient_ids) for m in moved] == [5]
    assert rings == [Lane.NORMAL]
    due = [r.due_at - begun for r in journal.all("SELECT due_at FROM recipients ORDER BY due_at")]
    assert [b - a for a, b in pairwise(due)] == [500] * 4
    assert 0 <= due[0] < 5000
    assert len(journal.heads()) == 1


def test_a_relay_can_be_named_that_is_tried_first(journal: Rig) -> None:
    failed(journal, "a")
    failed(journal, "b")
    how = How(relay="second")
    [_] = move_all(journal.database, Filter(key="a"), State.QUEUED, ACT, [].append, how=how)
    [head] = journal.heads()
    assert head.bucket.key.route == ("second", "first")
    [last] = journal.all("SELECT detail FROM events ORDER BY id DESC LIMIT 1")
    assert json.loads(last.detail)["relay"] == "second"
    ways = journal.database.read_now(lambda c: routes(c, Filter()))
    assert dict(ways) == {("second", "first"): 1, ("first", "second"): 1}


@pytest.mark.parametrize("kind", ["to", "own"])
def test_one_recipient_is_sent_again_under_a_corrected_address(journal: Rig, kind: str) -> None:
    message = failed(journal, "a", "anm@example.org", kind=kind)
    if kind == "to":
        body = json.loads(journal.one("SELECT body FROM messages").body)
        body["to"] = [["anm@example.org", "Ann"]]
        journal.sql("UPDATE messages SET body = :body", body=json.dumps(body))
    journal.sql(
        "INSERT INTO renderings (recipient_id, content) SELECT id, :content FROM recipients",
        content=b"To: anm@example.org",
    )
    wanted = Filter(messages=(message,))
    to = Address("ann@example.org")
    moved = correct(journal.database, wanted, to, ACT, [].append)
    assert len(moved.recipient_ids) == 1
    # Whoever lives there was not written to yet, as throttles count.
    [head] = journal.heads()
    assert not head.charged
    [claim] = journal.claim(journal.lease())
    assert claim.address.email == "ann@example.org"
    assert [a.email for a in claim.letter.to] == ["ann@example.org"]
    assert claim.stored is None
    # It is being sent: nothing to correct any more.
    moved = correct(journal.database, wanted, to, ACT, [].append)
    assert moved.recipient_ids == ()


def test_a_corrected_address_is_for_one_recipient_only(journal: Rig) -> None:
    failed(journal, "a", "a@example.org", "b@example.org")
    with pytest.raises(NotOne, match="2"):
        correct(journal.database, Filter(key="a"), Address("c@example.org"), ACT, [].append)
    assert found(journal) == {"a@example.org", "b@example.org"}


def test_uncertain_mail_that_did_arrive_is_confirmed(journal: Rig) -> None:
    [message] = journal.store(arrival("a")).ids
    [claim] = journal.claim(journal.lease())
    journal.settle(settlement(claim, State.UNCERTAIN))
    failed(journal, "b")
    act = Act("ann@here", "confirm", "in the relay's log")
    moved = move_all(journal.database, Filter(domain="example.org"), State.SENT, act, [].append)
    assert sum(len(m.recipient_ids) for m in moved) == 1
    states = {
        r.message_id: r.state for r in journal.all("SELECT message_id, state FROM recipients")
    }
    assert states.pop(message) == "sent"
    assert set(states.values()) == {"bounced"}


def test_ids_come_in_pages(journal: Rig) -> None:
    journal.add(5)
    first = journal.database.read_now(lambda c: ids(c, Filter(), 3))
    rest = journal.database.read_now(lambda c: ids(c, Filter(), 3, first[-1]))
    assert len({*first, *rest}) == 5


def test_a_filter_that_says_no_more_than_a_state_is_not_narrow() -> None:
    assert not Filter(states=(State.BOUNCED,)).narrow
    assert Filter(metadata=(("a", "b"),)).narrow
    assert Filter(since=0).narrow
    assert Filter(states=(State.BOUNCED,), reply="x").spelled() == {
        "states": (State.BOUNCED,),
        "reply": "x",
    }


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (How(), Estimate(99.0, "relays.main.rate = 1/s")),
        (How(relay="spare"), Estimate(13.9, "limits.global = 10/s")),
        (How(rate=parse_rate("60/h")), Estimate(139 * 60.0, "--rate = 60/h")),
    ],
)
def test_the_estimate_is_by_the_tightest_limit(how: How, expected: Estimate) -> None:
    config = Config.model_validate(
        {
            "limits": {"global": "10/s"},
            "relays": {
                "main": {"host": "a.example", "rate": "1/s"},
                "spare": {"host": "b.example"},
            },
        }
    )
    ways = [(("main", "spare"), 100), (("gone", "spare"), 40)]
    said = estimate(ways, config, how)
    assert said is not None
    assert said.limit == expected.limit
    assert said.seconds == pytest.approx(expected.seconds, rel=0.001)
    assert estimate(ways, Config(), How()) is None
