"""Messages as Python programs write them, and what becomes of them before a broker."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from mailgate.client import (
    Attachment,
    Client,
    InvalidMessage,
    Message,
    apublish,
    captured,
    configure,
    publish,
)
from mailgate.client.client import _VERBS
from mailgate.client.ways import pauses
from mailgate.contract import Submission, read
from mailgate.contract.commands import VERBS
from mailgate.contract.rules import ALIASES
from mailgate.contract.schema import json_schema

SMALLEST = Message(to="ann@example.com", template="welcome")


@pytest.fixture
def client() -> Client:
    return Client("redis://nowhere.invalid", producer="shop")


def test_the_builder_has_every_field_of_the_contract() -> None:
    fields = {name for name in json_schema()["properties"] if name not in ALIASES}
    ours = {"from" if name == "sender" else name for name in Message.__slots__}
    # What goes out is always version 1; ``more`` is for fields of a later contract.
    assert ours - {"more"} == fields - {"version"}


def test_a_message_of_everything_is_accepted(client: Client) -> None:
    message = Message(
        sender={"email": "shop@example.com", "name": "Shop"},
        to=["ann@example.com", "Bob <bob@example.com>"],
        cc="cc@example.com",
        reply_to="help@example.com",
        template="order",
        data={"total": Decimal("9.90"), "day": date(2030, 1, 31), "id": UUID(int=7), "n": (1, 2)},
        locale="pt-BR",
        subject="Your order",
        headers={"X-Order": "4711"},
        tags=["order"],
        metadata={"order": 4711},
        stream="transactional",
        send_at=datetime(2030, 1, 31, 9, tzinfo=UTC),
        expires_at="2030-02-01T09:00:00Z",
        throttle={"key": "order", "limit": 1, "window": "1h"},
        unsubscribe={"url": "https://example.com/bye"},
        sensitive=True,
    ).attach("a.txt", "Grüße", content_id="a1")
    body, key = client.prepare(message)
    found = read(body, max_bytes=10**6)
    assert isinstance(found, Submission)
    assert (found.producer, found.idempotency_key) == ("shop", key)
    assert found.data == {
        "total": "9.90",
        "day": "2030-01-31",
        "id": "00000000-0000-0000-0000-000000000007",
        "n": [1, 2],
    }
    assert found.attachments[0].content == "Grüße".encode()
    assert found.send_at == datetime(2030, 1, 31, 9, tzinfo=UTC)


def test_what_is_not_said_is_not_written(client: Client) -> None:
    body, key = client.prepare(SMALLEST)
    assert json.loads(body) == {
        "version": 1,
        "producer": "shop",
        "to": "ann@example.com",
        "template": "welcome",
        "idempotency_key": key,
    }


def test_each_call_has_a_key_of_its_own_unless_it_has_a_name(client: Client) -> None:
    assert client.prepare(SMALLEST)[1] != client.prepare(SMALLEST)[1]
    named = Message(to="ann@example.com", template="welcome", id="order-1")
    body, key = client.prepare(named)
    assert key == "order-1"
    assert "idempotency_key" not in json.loads(body)
    assert SMALLEST.idempotency_key is None  # the message itself is left as it was


def test_a_command_written_by_hand_has_an_id_and_no_key(client: Client) -> None:
    with captured() as outbox:
        client.publish({"cancel": {"id": "order-1"}})
    assert outbox[0].document == {
        "cancel": {"id": "order-1"},
        "producer": "shop",
        "id": outbox[0].idempotency_key,
    }


def test_verbs_are_those_of_the_contract() -> None:
    assert _VERBS == VERBS


def test_a_broken_message_names_every_field_and_rule(client: Client) -> None:
    with pytest.raises(InvalidMessage) as caught:
        client.publish({"to": "ann", "template": "welcome", "sbject": "Hello"})
    assert {f.field for f in caught.value.faults} == {"to", "sbject"}
    assert "did you mean subject?" in str(caught.value)


@pytest.mark.parametrize(
    "data", [{"f": object()}, {"n": float("nan")}, {"s": "\ud800"}, {"b": b"bytes"}]
)
def test_what_is_no_json_is_refused_before_a_broker_sees_it(client: Client, data) -> None:
    with pytest.raises(InvalidMessage):
        client.publish(Message(to="ann@example.com", template="welcome", data=data))


def test_a_time_without_a_zone_is_refused(client: Client) -> None:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001
    with pytest.raises(InvalidMessage, match="send_at: needs an offset"):
        client.publish(Message(to="ann@example.com", template="welcome", send_at=naive))


def test_bad_recipients_are_told_and_the_others_go(client: Client) -> None:
    message = Message(recipients=["ann@example.com", {"email": "bob"}], template="welcome")
    with captured() as outbox:
        receipt = client.publish(message)
    assert [r.index for r in receipt.refused] == [1]
    assert len(outbox) == 1


def test_a_url_that_is_none_says_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="must begin with one of redis://"):
        Client("http://localhost")


async def test_what_is_captured_reaches_no_broker(client: Client) -> None:
    with captured() as outbox:
        client.publish(SMALLEST)
        await client.apublish(Message(to=["Bob <b@example.com>"], template="welcome"))
        with captured() as inner:
            client.publish(SMALLEST)
        assert len(inner) == 1
    assert [one.addresses for one in outbox] == [["ann@example.com"], ["b@example.com"]]
    assert outbox.to("b@example.com") == [outbox[1]]
    assert outbox[0]["template"] == "welcome"


async def test_the_default_client_is_made_from_the_environment(monkeypatch) -> None:
    monkeypatch.setattr("mailgate.client.default._default", None)
    with pytest.raises(RuntimeError, match="MAILGATE_URL"):
        publish(SMALLEST)
    monkeypatch.setenv("MAILGATE_PRODUCER", "billing")
    with captured() as outbox:
        publish(SMALLEST)  # tests of producers need no broker's address
        monkeypatch.setenv("MAILGATE_URL", "redis://nowhere.invalid")
        await apublish(SMALLEST)
        configure("redis://elsewhere.invalid", producer="shop")
        publish(SMALLEST)
    assert [one["producer"] for one in outbox] == ["billing", "billing", "shop"]


def test_attachments_are_values() -> None:
    one = Attachment("a.bin", b"\x00\xff", "application/octet-stream")
    assert one.document() == {
        "filename": "a.bin",
        "content": "AP8=",
        "content_type": "application/octet-stream",
    }


def test_pauses_grow_to_two_seconds_and_come_after_every_way_was_tried() -> None:
    waits = pauses(2, lambda: 1.0)
    seen = [next(waits) for _ in range(16)]
    assert seen[::2] == [0.0] * 8
    assert seen[1::2] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    assert next(pauses(1, lambda: 0.0)) == pytest.approx(0.025)
