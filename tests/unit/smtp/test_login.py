"""AUTH is never said in clear, whatever the configuration was thought to be."""

from __future__ import annotations

from mailgate.config.relays import Relay
from mailgate.model.outcome import Kind, Outcome, Reply
from mailgate.smtp.login import log_in

RELAY = Relay(host="h", username="gate", password_env="UNUSED")


async def test_without_tls_nothing_is_said() -> None:
    said: list[bytes] = []

    async def say(line: bytes) -> Reply:
        said.append(line)
        return Reply(235, "2.7.0 In")

    outcome = await log_in(say, RELAY, frozenset({"plain"}), "word", encrypted=False)
    assert isinstance(outcome, Outcome)
    assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "auth_needs_tls")
    assert said == []
    assert await log_in(say, RELAY, frozenset({"plain"}), "word", encrypted=True) == "plain"
