"""What operators do after trouble, by the command line alone: resend, replay, watch."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from base64 import b64encode
from typing import Any

import pytest

from tests.acceptance.conftest import FULL, Setting
from tests.acceptance.stage import mails, until
from tests.servers import free_port
from tests.servers.process import accepts

NOTICE = {"title": "A notice", "body": "The harbour closes at six."}


def test_failures_are_sent_again_by_id_class_template_and_time(stage: Setting) -> None:
    plans = {
        "gone": ["550 5.1.1 No such user", "250"],
        "spam": ["554 5.7.1 Rejected as spam", "250"],
    }
    scene = stage("valkey", "postgresql", plans=plans)
    scene.intake()
    scene.worker(1)
    notices = mails(3, to="gone", domain="b.example", template="notice", data=NOTICE)
    for document in notices:
        del document["subject"], document["text"]
    # Ten refusals in a row would open the domain's breaker.
    scene.publish([*mails(4, to="gone"), *notices, *mails(4, to="spam"), *mails(10)])
    scene.wait_finished(21)
    assert sum(scene.relay.taken().values()) == 10
    groups = {
        (g["error_class"], g["template"]): g["count"]
        for g in scene.json("failures", "list")["items"]
    }
    assert groups == {
        ("unknown_address", None): 4,
        ("unknown_address", "notice"): 3,
        ("policy", None): 4,
    }
    # Whom the relay called unknown is sent nothing before an operator says otherwise.
    assert scene.json("failures", "resend", "--template", "notice")["resend"] == 0
    assert scene.json("suppressions", "remove", "--source", "bounce")["removed"] == 7

    def resend(*which: str) -> int:
        """The count that --dry-run promises, and that is then sent."""
        promised = scene.json("failures", "resend", *which, "--dry-run")["count"]
        before = sum(scene.relay.taken().values())
        done = scene.json("failures", "resend", *which, "--reason", "mended")["resend"]
        assert done == promised
        until(lambda: sum(scene.relay.taken().values()) >= before + done, 20, scene.logs)
        scene.wait_finished(21)
        assert sum(scene.relay.taken().values()) == before + done
        return int(done)

    [found] = scene.json("messages", "list", "--recipient", "gone+0@example.com")["items"]
    assert resend(found["id"]) == 1
    assert resend("--template", "notice") == 3
    assert resend("--error-class", "policy") == 4
    assert resend("--until", "1h") == 0
    assert resend("--since", "1h") == 3
    assert scene.json("failures", "list")["items"] == []
    assert scene.journal.states() == {"sent": 21}
    # Which ones is not guessed, and a wrong filter is wrong usage.
    scene.run("failures", "resend", code=2)
    scene.run("failures", "resend", "--since", "yesterday-ish", code=2)


@pytest.mark.parametrize("journal", ["postgresql", "sqlite"][: 1 + FULL])
def test_ten_resends_at_once_are_one_new_attempt(journal: str, stage: Setting, figure: Any) -> None:
    scene = stage("valkey", journal, plans={"gone": ["550 5.1.1 No such user"]})
    scene.intake()
    scene.publish(mails(1, to="gone"))
    scene.wait_accepted(1)
    scene.worker(1)
    scene.wait_finished(1)
    [found] = scene.json("failures", "show", "unknown_address")["items"]
    scene.run("suppressions", "remove", "--source", "bounce")
    said: list[int] = []

    def resend() -> None:
        done = scene.run("failures", "resend", found["id"], "--json")
        said.append(json.loads(done.stdout)["resend"])

    # The worker must not fail it a second time while the ten are still asking.
    scene.relay.freeze()
    hands = [threading.Thread(target=resend) for _ in range(10)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    scene.relay.thaw()
    until(lambda: scene.journal.one("SELECT attempts FROM recipients") == 2, 20, scene.logs)
    scene.wait_finished(1)
    figure(journal=journal, said=sorted(said))
    assert sorted(said) == [0] * 9 + [1]
    assert len(scene.relay.book()) == 2
    assert scene.journal.one("SELECT count(*) FROM attempts") == 2
    assert scene.journal.one("SELECT sum(count) FROM actions WHERE verb = 'resend'") == 1


BAD: dict[str, tuple[bytes, str, str]] = {
    # what it is: (bytes, field, a word of the rule)
    "bad JSON": (b'{"to": ["a@example.com"', "", "JSON"),
    "not an object": (b"[1, 2]", "", "object"),
    "wrong type": (b'{"to": 7, "subject": "S", "text": "T"}', "to", "must be"),
    "unknown field": (
        b'{"to": ["a@example.com"], "subject": "S", "text": "T", "subjekt": "x"}',
        "subjekt",
        "not a field",
    ),
    "unknown template": (b'{"to": ["a@example.com"], "template": "nope"}', "template", "template"),
    "missing variable": (
        b'{"to": ["a@example.com"], "template": "notice", "data": {"title": "T"}}',
        "data.body",
        "missing",
    ),
    "deep nesting": (
        b'{"to": ["a@example.com"], "subject": "S", "text": "T", "metadata": '
        + b'{"a":' * 100
        + b"1"
        + b"}" * 101,
        "",
        "deeper",
    ),
    "NaN": (
        b'{"to": ["a@example.com"], "template": "notice", "data": {"x": NaN}}',
        "data.x",
        "NaN",
    ),
    "duplicate key": (
        b'{"to": ["a@example.com"], "to": ["b@example.com"], "subject": "S", "text": "T"}',
        "to",
        "more than once",
    ),
    "lone surrogate": (
        b'{"to": ["a@example.com"], "subject": "\\ud800", "text": "T"}',
        "subject",
        "surrogate",
    ),
    "NUL": (b'{"to": ["a@example.com"], "subject": "a\\u0000b", "text": "T"}', "subject", "NUL"),
    "over-long": (
        b'{"to": ["a@example.com"], "text": "T", "subject": "' + b"x" * 3000 + b'"}',
        "subject",
        "longer",
    ),
    "header injection": (
        b'{"to": ["a@example.com"], "subject": "S\\r\\nBcc: b@example.com", "text": "T"}',
        "subject",
        "line",
    ),
    "no recipient": (b'{"to": [], "subject": "S", "text": "T"}', "to", ""),
    "not an address": (b'{"to": ["nobody"], "subject": "S", "text": "T"}', "to", "address"),
    "not base64": (
        b'{"to": ["a@example.com"], "subject": "S", "text": "T", "attachments":'
        b' [{"filename": "a", "content": "***", "content_type": "text/plain"}]}',
        "attachments[0].content",
        "base64",
    ),
    "not UTF-8": (b'{"to": ["a@example.com"], "subject": "\xff", "text": "T"}', "", "UTF-8"),
}


@pytest.mark.parametrize("broker", ["rabbitmq", "valkey"][: 1 + FULL])
def test_what_breaks_the_contract_is_parked_with_field_and_rule_and_can_be_replayed(
    broker: str, stage: Setting, figure: Any
) -> None:
    scene = stage(broker, "sqlite")
    scene.intake()
    scene.worker(1)
    people = [{"email": "good@example.com"}, {"email": "not an address"}]
    mixed = {"recipients": people, "template": "notice", "data": NOTICE}
    scene.publish([*(body for body, _, _ in BAD.values()), *mails(20), json.dumps(mixed).encode()])
    count = "SELECT count(*) FROM parked"
    until(lambda: scene.journal.one(count) == len(BAD) + 1, 20, scene.logs)
    scene.wait_finished(21)
    items = scene.json("parked", "list")["items"]
    wrong = []
    by_bytes = {row["body"]: row for row in scene.journal.rows("SELECT body, faults FROM parked")}
    for name, (body, field, word) in BAD.items():
        faults = json.loads(by_bytes[body]["faults"])
        if not any(
            f["field"].startswith(field) and word.lower() in f["rule"].lower() for f in faults
        ):
            wrong.append((name, faults))
    assert wrong == [], wrong
    # One bad recipient parks that one alone.
    assert scene.relay.taken()["good@example.com"] == 1
    [left_out] = [i for i in items if i["kind"] == "recipient"]
    assert left_out["faults"][0]["field"] == "recipients[1].email"

    # Replayed as it is, it is refused again, and stays; corrected, it goes.
    scene.run("parked", "replay", left_out["id"], code=1)
    body = scene.run("parked", "show", left_out["id"], "--raw").stdout
    assert "good@example.com" not in body
    corrected = scene.directory / "corrected.json"
    corrected.write_text(body.replace("not an address", "mended@example.com"))
    scene.run("parked", "replay", left_out["id"], "--file", str(corrected))
    until(lambda: scene.relay.taken()["mended@example.com"] == 1, 20, scene.logs)
    # Once: a second replay finds nothing parked.
    scene.run("parked", "replay", left_out["id"], "--file", str(corrected), code=1)
    rest = scene.json("parked", "list")["items"]
    assert len(rest) == len(BAD)
    scene.run("parked", "discard", rest[0]["id"], "--reason", "a test")
    assert len(scene.json("parked", "list")["items"]) == len(BAD) - 1
    assert scene.relay.taken()["mended@example.com"] == 1
    figure(broker=broker, refused=len(BAD))


def test_flower_shows_tasks_and_counts_and_no_address(stage: Setting, figure: Any) -> None:
    scene = stage("rabbitmq", "sqlite")
    port = free_port()
    flower = scene.begin("flower", "--port", str(port), "--basic-auth", "ann:secret")
    until(lambda: _listens(port), 30, flower.tail)
    scene.intake()
    scene.worker(1)
    scene.wait_for_workers(1)
    scene.publish(mails(40, to="private", domain="secret.example"))
    scene.wait_finished(40)

    def page(path: str) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        request.add_header("Authorization", "Basic " + b64encode(b"ann:secret").decode())
        with urllib.request.urlopen(request, timeout=10) as reply:
            return str(reply.read().decode())

    def tasks() -> str:
        return page("/api/tasks")

    def counted() -> bool:
        said: dict[str, Any] = json.loads(tasks())
        results = [str(t["result"]) for t in said.values() if t["name"] == "mailgate.deliver"]
        return sum(int(n) for r in results for n in re.findall(r"'sent': (\d+)", r)) == 40

    until(counted, 20, tasks)
    text = tasks()
    assert "mailgate.deliver" in text
    for private in ("secret.example", "private+", "@example", "Number"):
        assert private not in text
    assert "stage" in page("/workers")
    figure(tasks=len(json.loads(text)))


def _listens(port: int) -> bool:
    try:
        return accepts(port)
    except OSError:
        return False
