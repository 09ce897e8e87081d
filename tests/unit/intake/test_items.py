"""What an item of a digest becomes when it is published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from mailgate.config.shape import Config
from mailgate.intake.accept import decide
from mailgate.intake.door import Delivery
from mailgate.journal.arrivals import Arrival, NewParked
from mailgate.limits.policy import Policy
from mailgate.render.catalogue import Catalogue, built_in_root

CATALOGUE: Catalogue = Catalogue.load((built_in_root(),))
RELAYS: dict[str, Any] = {
    "relays": {"one": {"host": "one.example"}},
    "streams": {"transactional": {"from": "shop@example.com", "expires_after": "5m"}},
}
SAID: dict[str, Any] = {"comments": {"after": "10m", "data": {"period": "today"}}}
ITEM = {"to": "Ann <ann@example.org>", "digest": "comments", "data": {"text": "wrote to you"}}


def decided(document: Mapping[str, Any], **digests: Any) -> Arrival | NewParked:
    config = Config.model_validate({**RELAYS, "digests": digests or SAID})
    body = json.dumps(document).encode()
    delivery = Delivery(
        body=body, source="amqp", identity="1", redelivered=False, refusal=None, handle=1
    )
    return decide(delivery, config, CATALOGUE.check_data, Policy(config))


def accepted(document: Mapping[str, Any], **digests: Any) -> Arrival:
    found = decided(document, **digests)
    assert isinstance(found, Arrival), found.faults
    return found


def faults(document: Mapping[str, Any], **digests: Any) -> dict[str, str]:
    found = decided(document, **digests)
    assert isinstance(found, NewParked)
    return {f["field"]: f["rule"] for f in json.loads(found.faults)}


def test_an_item_is_kept_as_the_digest_of_one_that_it_would_be_alone() -> None:
    found = accepted(ITEM)
    body = json.loads(found.body)
    assert found.template == body["template"] == "activity_digest"
    assert body["data"] == {"period": "today", "events": [{"text": "wrote to you"}]}
    [recipient] = found.recipients
    assert (recipient.kind, recipient.email, recipient.name) == ("own", "ann@example.org", "Ann")
    assert recipient.gather is not None
    assert recipient.gather.name == "comments"
    # What the stream's mail is worth for five minutes may wait in a digest for a week.
    assert found.lifetime is None


def test_each_recipient_has_an_item_of_its_own() -> None:
    found = accepted(
        {
            "recipients": [{"email": "a@example.org", "data": {"actor": "Bo"}}, "b@example.org"],
            "digest": {"name": "comments", "key": "thread-1", "id": "c-1"},
            "data": {"text": "wrote"},
        }
    )
    own = [json.loads(r.own or "{}")["data"]["events"] for r in found.recipients]
    assert own == [[{"text": "wrote", "actor": "Bo"}], [{"text": "wrote"}]]
    gathers = [r.gather for r in found.recipients if r.gather]
    assert len({g.slot for g in gathers}) == 2
    assert {(g.key, g.item) for g in gathers} == {("thread-1", "c-1")}


def test_letters_of_an_address_in_any_case_gather_together() -> None:
    slots = {
        r.gather.slot
        for to in ("ann@example.org", "Ann@example.org")
        for r in accepted({**ITEM, "to": to}).recipients
        if r.gather
    }
    assert len(slots) == 1


def test_faults_of_an_item_are_named_as_the_producer_wrote_it() -> None:
    assert faults({**ITEM, "data": {"actor": "Bo"}}) == {"data.text": "missing variable"}
    people = [{"email": "a@example.org", "data": {"txt": "typo"}}]
    found = faults({"recipients": people, "digest": "comments", "data": {}})
    assert "recipients[0].data.txt" in found
    assert "recipients[0].data.text" in found


@pytest.mark.parametrize(
    ("said", "field", "rule"),
    [
        ({"digest": "news"}, "digest.name", "is not configured; there are: comments, throttled"),
        ({"template": "welcome"}, "template", "cannot go with digest"),
        ({"cc": "bo@example.org"}, "cc", "cannot go with digest"),
        ({"send_at": "2027-01-01T00:00:00Z"}, "send_at", "cannot go with digest"),
        ({"data": {}}, "data", "is required with digest"),
        ({"digest": {"name": "comments", "kee": "x"}}, "digest.kee", "is not a field"),
    ],
)
def test_what_an_item_cannot_say(said: dict[str, Any], field: str, rule: str) -> None:
    assert faults({**ITEM, **said})[field].startswith(rule)


def test_a_digest_that_its_template_cannot_show_is_refused_before_anything_gathers() -> None:
    found = faults(ITEM, comments={"cap": 1000})
    assert "more than 40 items" in found["digest.name"]
    found = faults(
        {**ITEM, "data": {"title": "T"}}, comments={"template": "invoice", "items": "lines"}
    )
    assert found


def test_a_stream_that_the_digest_contradicts_is_refused() -> None:
    found = faults({**ITEM, "stream": "codes"}, comments={"stream": "bulk"})
    assert found["stream"].startswith("must be bulk or left out")
