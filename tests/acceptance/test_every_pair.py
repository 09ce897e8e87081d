"""Each broker with each journal: every kind of message arrives once, and its story can be read."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.conftest import BROKERS, JOURNALS, Setting
from tests.acceptance.stage import mails

PRODUCT = {"name": "Harbour", "url": "https://harbour.example", "address": "Pier 4"}


def every_kind() -> list[dict[str, Any]]:
    """Templates and plain ones, shared and private, with files, over all lanes: 200 in all."""
    notice = {"title": "A notice", "body": "The harbour closes at six."}
    welcome = {"name": "Ann", "url": "https://harbour.example/start", "product": PRODUCT}
    kinds: list[dict[str, Any]] = mails(120, to="plain")
    kinds += mails(20, to="notice", template="notice", data=notice, stream="bulk")
    kinds += mails(20, to="welcome", template="welcome", data=welcome, stream="codes")
    for document in kinds[120:]:
        del document["subject"], document["text"]
    kinds += mails(10, to="html", html="<h1>Hello</h1><p>World</p>", producer="shop")
    file = {"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"}
    kinds += mails(10, to="file", attachments=[file], idempotency_key="")
    for n, document in enumerate(kinds[-10:]):
        document["idempotency_key"] = f"file-{n}"
    for n in range(10):
        shared = {"to": [f"to+{n}@example.com"], "cc": [f"cc+{n}@example.com"]}
        kinds.append(shared | {"bcc": [f"bcc+{n}@example.com"], "subject": "S", "text": "T"})
    for n in range(10):
        people = [{"email": f"own+{n}-{i}@example.com", "data": {"title": str(i)}} for i in (1, 2)]
        kinds.append({"recipients": people, "template": "notice", "data": {"body": "For you."}})
    return kinds


@pytest.mark.parametrize("journal", JOURNALS)
@pytest.mark.parametrize("broker", BROKERS)
def test_every_kind_of_message_arrives_once(
    broker: str, journal: str, stage: Setting, figure: Any
) -> None:
    scene = stage(broker, journal)
    documents = every_kind()
    assert len(documents) == 200
    scene.intake()
    scene.worker(2)
    scene.publish(documents[:100])
    scene.publish(documents[100:], door="list")
    scene.wait_finished(230)
    account = scene.account(documents)
    assert account.clean, account
    assert account.states == {"sent": 230}
    assert (account.copies, account.uncertain) == (230, 0)

    [found] = scene.json("messages", "list", "--recipient", "cc+3@example.com")["items"]
    story = scene.json("messages", "show", found["id"], "--show-personal-data")
    assert {r["recipient"] for r in story["recipients"]} == {
        "to+3@example.com",
        "cc+3@example.com",
        "bcc+3@example.com",
    }
    assert [a["code"] for a in story["attempts"]] == [250, 250, 250]
    assert {a["reply"] for a in story["attempts"]} == {"2.0.0 Ok: taken"}
    events = [e["event"] for e in story["events"]]
    assert sorted(events) == ["accepted", "sent", "sent", "sent"]
    status = scene.json("status")
    assert status["states"] == {"sent": 230}
    assert len(status["workers"]) == 2
    figure(broker=broker, journal=journal, mails=account.copies)
