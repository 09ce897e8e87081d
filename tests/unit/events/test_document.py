"""Whatever the journal tells of a recipient is an event of the published form."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from mailgate.contract.event import Event, json_schema
from mailgate.events.document import instant, post
from mailgate.journal.outbox import Told
from mailgate.model.state import FINAL, State

SCHEMA = jsonschema_rs.validator_for(json_schema())
#: Nothing of it may break the text that is put together by hand.
HOSTILE = '"\\\u2028\n\x00</script>ünï'
FULL: dict[str, Any] = {
    "attempt": 2,
    "relay": HOSTILE,
    "code": 451,
    "error_class": HOSTILE,
    "note": HOSTILE,
    "due_at": 1_700_000_000_000,
    "waits_for": HOSTILE,
    "dropped_by": HOSTILE,
}


def told(kind: str, detail: dict[str, Any], **more: Any) -> Told:
    values: dict[str, Any] = {
        "id": 7,
        "message_id": 1 << 60,
        "recipient_id": 3 << 59,
        "seq": 3,
        "kind": kind,
        "at": 1_700_000_000_007,
        "detail": detail,
        "producer": "shop",
        "identity": "key:k",
        "stream": "transactional",
        "recipients": 1,
        "n": 0,
        "email": "ann@example.com",
    }
    return Told(**values | more)


def document(one: Told) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(post(one).body)
    SCHEMA.validate(said)
    Event.model_validate(said)
    return said


@pytest.mark.parametrize("state", [s for s in State if s is not State.SENDING])
@pytest.mark.parametrize(
    "detail", [{}, FULL, {"digest": "06f1s0v4g6b1c"}, {"by": "root", "verb": "resend"}]
)
def test_every_state_with_every_detail_is_an_event(state: State, detail: dict[str, Any]) -> None:
    more = {"template": HOSTILE, "tags": json.dumps([HOSTILE]), "own": json.dumps({"a": HOSTILE})}
    more |= {"metadata": json.dumps({"a": HOSTILE}), "traceparent": HOSTILE, "own_id": HOSTILE}
    more |= {"idempotency_key": HOSTILE, "identity": f"key:{HOSTILE}", "email": HOSTILE}
    for said in (
        document(told(state.value, detail)),
        document(told(state.value, detail, enhanced=HOSTILE, reply=HOSTILE, **more)),
    ):
        assert said["event"] == state.value
        assert said["final"] == (state in FINAL)
        assert said.get("digest") == detail.get("digest")


def test_what_stands_in_the_journal_comes_back_as_it_was() -> None:
    said = document(told("deferred", FULL, own_id=HOSTILE, reply=HOSTILE, identity=HOSTILE))
    assert said["message"]["own_id"] == said["message"]["identity"] == HOSTILE
    assert said["attempt"]["reply"] == said["attempt"]["relay"] == said["reason"] == HOSTILE
    assert (said["at"], said["due_at"]) == ("2023-11-14T22:13:20.007Z", "2023-11-14T22:13:20.000Z")


def test_long_words_are_cut() -> None:
    said = document(told("failed", FULL | {"note": "n" * 999}, reply="r" * 999))
    assert (len(said["attempt"]["reply"]), len(said["reason"])) == (500, 500)


def test_an_instant_is_in_utc_with_milliseconds() -> None:
    assert instant(0) == "1970-01-01T00:00:00.000Z"
    assert instant(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
