"""TLS that cannot be trusted: the message waits, the relay is named, no secret leaves."""

from __future__ import annotations

import ssl

import pytest
import trustme

from mailgate.model.state import Lane
from mailgate.operations.standing import relays, standing
from tests.integration.delivery.house import House, soon
from tests.integration.smtp.scripted import ScriptedRelay


def self_signed() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("fault", ["self-signed", "stripped"])
async def test_a_tls_fault_defers_the_message_and_flags_the_relay(
    small_house: House, fault: str
) -> None:
    house = small_house
    starttls = self_signed() if fault == "self-signed" else None
    error_class = "tls_certificate" if starttls else "starttls_not_offered"
    async with ScriptedRelay(offers=("AUTH PLAIN LOGIN",), starttls=starttls) as relay:
        login = {"security": "starttls", "username": "gate", "password_env": "UNUSED"}
        changes = {"relays": {"main": login}, "breakers": {"relay": {"failures": 1}}}
        gateway = await house.open({"main": relay}, passwords={"main": "s3cret"}, **changes)
        [id_] = await house.add("a@example.org")
        await gateway.deliver(Lane.NORMAL, soon(0.4))
        row = house.journal.row(id_)
        assert (row.state, row.error_class) == ("deferred", error_class)
        assert {"AUTH", "MAIL"}.isdisjoint(verb for heard in relay.heard for verb in heard.verbs)
        config = house.config({"main": relay}, **changes)
        (item,) = relays(standing(house.journal.database, config), config)
        assert (item["state"], item["reason"]) == ("open", error_class)
