"""A look at a relay: every step with what was found there, and not a word about mail."""

from __future__ import annotations

from typing import Any

from mailgate.model.outcome import Kind
from mailgate.model.state import Phase
from mailgate.smtp.check import Look, look
from tests.integration.smtp.conftest import Authority, settings
from tests.integration.smtp.scripted import ScriptedRelay

LOGIN = {"username": "gate", "password_env": "UNUSED", "security": "starttls"}


def phases(found: Look) -> list[Phase]:
    return [step.phase for step in found.steps]


async def looked(relay: ScriptedRelay, **more: Any) -> Look:
    return await look(settings(relay.port, **more), "s3cret-geheim")


async def test_every_step_says_what_was_found_and_how_long_it_took(authority: Authority) -> None:
    async with ScriptedRelay(
        offers=("PIPELINING", "SIZE 1000", "AUTH PLAIN"),
        starttls=authority.server(),
        AUTH="235 2.7.0 Welcome",
    ) as relay:
        found = await looked(relay, **LOGIN, ca_file=authority.file)
        assert phases(found) == [
            Phase.CONNECT,
            Phase.GREETING,
            Phase.EHLO,
            Phase.STARTTLS,
            Phase.EHLO,
            Phase.AUTH,
        ]
        said = {step.phase: step.found for step in found.steps}
        assert said[Phase.CONNECT] == f"127.0.0.1:{relay.port}"
        assert said[Phase.GREETING] == "relay.example ESMTP"
        assert said[Phase.EHLO] == "PIPELINING SIZE 1000 AUTH PLAIN"
        assert said[Phase.STARTTLS].startswith("TLSv1.3, certificate until ")
        assert said[Phase.AUTH] == "PLAIN as gate"
        assert all(step.took >= 0 for step in found.steps)
        assert sum(step.took for step in found.steps) <= found.took
        assert found.failure is None
        assert found.offers is not None
        assert found.offers.size == 1000
        assert "geheim" not in repr(found)
        # Nothing about mail, and a polite end.
        assert relay.heard[0].verbs == ["EHLO", "STARTTLS", "EHLO", "AUTH", "QUIT"]


async def test_a_failure_comes_after_the_steps_that_worked(authority: Authority) -> None:
    async with ScriptedRelay(
        offers=("AUTH PLAIN",), starttls=authority.server(), AUTH="535 5.7.8 No"
    ) as relay:
        found = await looked(relay, **LOGIN, ca_file=authority.file)
        assert phases(found)[-2:] == [Phase.STARTTLS, Phase.EHLO]
        assert found.failure is not None
        assert (found.failure.kind, found.failure.phase) == (Kind.UNTOUCHED, Phase.AUTH)
        assert found.offers is None


async def test_tls_from_the_first_byte_is_part_of_the_connection(authority: Authority) -> None:
    async with ScriptedRelay(tls=authority.server()) as relay:
        found = await looked(relay, security="tls", ca_file=authority.file)
        assert "TLSv1.3" in found.steps[0].found
        untrusted = await looked(relay, security="tls")
        assert untrusted.steps == ()
        assert untrusted.failure is not None
        assert untrusted.failure.error_class == "tls_certificate"


async def test_an_old_server_is_shown_as_one() -> None:
    async with ScriptedRelay(EHLO="502 5.5.1 What?") as relay:
        found = await looked(relay)
        assert found.steps[-1].found == "HELO only"
        assert found.failure is None
