"""Whatever comes off a queue is written by either database, and told of."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bench.fuzz import intake
from mailgate.intake.accept import Accept, decide
from mailgate.intake.door import Delivery
from mailgate.journal.arrivals import Arrival, NewParked
from mailgate.journal.orders import Order
from tests.contract.journal.rig import Rig
from tests.contract.journal.test_outbox import Reader

#: Texts that one store or another has choked on.
ODD = ("\x01\x1b[2J", "\ufffe\uffff", "\U0010ffff", "\u2028", "'\"\\%s:x", "e\u0301" * 60, "\ud83d")


def hostile() -> list[bytes]:
    """Seeds, seeds with bytes turned over, and a mail with odd words wherever words go."""
    dice = random.Random(8)
    found = intake.seeds()
    for seed in intake.seeds() * 4:
        body = bytearray(seed)
        for _ in range(dice.randint(1, 4)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        found.append(bytes(body))
    for n, odd in enumerate(ODD):
        mail: dict[str, Any] = {
            "to": [{"email": f"a{n}@example.org", "name": odd}],
            "subject": "s" + odd,
            "text": odd,
            "html": odd,
            "tags": ["t"],
            "metadata": {"k": odd, "big": 10**127, "small": 5e-324},
            "data": {odd: odd},
        }
        for kept in (mail, {**mail, "subject": "s", "to": f"a{n}@example.org"}):
            found.append(b"\0" + json.dumps(kept).encode())
            found.append(b"\x04" + json.dumps(kept).encode())
        named = {**mail, "subject": "s", "to": f"b{n}@x.org", "idempotency_key": odd}
        found.append(b"\0" + json.dumps(named).encode())
        found.append(
            b"\x04" + json.dumps({"cancel": {"id": odd, "reason": odd}, "id": odd}).encode()
        )
    return found


async def test_a_fault_of_ours_parks_one_document_and_the_others_go_on(
    journal: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def check(template: str, data: Mapping[str, Any]) -> Sequence[Any]:
        raise ZeroDivisionError(data["secret"])

    plain = b'{"to":"ann@example.org","subject":"s","text":"t"}'
    bad = b'{"to":"ann@example.org","template":"x","data":{"secret":"open-sesame"}}'
    came = [intake.delivery(b"\x04" + body) for body in (plain, bad)]
    stored = await Accept(intake.CONFIG, journal.arrivals, check).batch(came)
    assert (stored.accepted, stored.parked) == (1, 1)
    body, faults = journal.one("SELECT body, faults FROM parked")
    assert bytes(body) == bad
    assert "could not be read by this version of mailgate: ZeroDivisionError in check" in faults
    assert "open-sesame" not in faults
    assert "is parked" in caplog.text
    assert "open-sesame" not in caplog.text


def test_whatever_was_decided_is_written_and_told(journal: Rig) -> None:
    arrivals: list[Arrival] = []
    parked: list[NewParked] = []
    orders: list[Order] = []
    for data in hostile():
        came: Delivery = intake.delivery(data)
        made = decide(came, intake.CONFIG, intake.catalogue().check_data, intake.POLICY)
        {Arrival: arrivals, NewParked: parked, Order: orders}[type(made)].append(made)  # type: ignore[attr-defined]
    stored = journal.store(*arrivals, refused=parked, orders=orders)
    assert stored.accepted > 15
    assert stored.parked > 80
    assert stored.orders > 3
    reader = Reader(journal)
    assert reader.hold() == 0
    told = reader.documents()
    assert len(told) >= stored.accepted + stored.parked + stored.orders
