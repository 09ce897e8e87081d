"""Where operators see that the sandbox is on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mailgate.config.shape import Config
from mailgate.gateway import Gateway
from mailgate.model.ids import spell
from mailgate.model.state import Lane
from tests.contract.journal.rig import BucketKey, Rig, arrival
from tests.integration.cli.conftest import Shell
from tests.integration.delivery.house import soon

SANDBOX = '[sandbox]\nmode = "capture"\nallow = ["*@ours.example"]\n'
SENTENCE = "capture: all mail is captured but that to *@ours.example"


def test_status_and_check_say_that_mail_stays_in(shell: Shell, tmp_path: Path) -> None:
    assert "sandbox" not in shell("status").out
    (tmp_path / "mailgate.toml").write_text(SANDBOX)
    assert shell("status").out.startswith(f"sandbox {SENTENCE}\n")
    assert shell("status", "--json").document["sandbox"] == SENTENCE
    assert "warning: sandbox.mode is 'capture'" in shell("config", "check").err


def test_a_mode_that_does_not_exist_starts_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mailgate.toml").write_text('[sandbox]\nmode = "captured"\n')
    for command in ("worker", "status", "intake"):
        said = shell(command)
        assert said.code == 2
        assert "sandbox.mode is 'captured'; it must be one of 'off', 'capture'" in said.err


def test_a_captured_mail_says_so_in_its_story_and_is_released(
    shell: Shell, journal: Rig, tmp_path: Path
) -> None:
    config = Config.model_validate(
        {
            "state_dir": tmp_path / "state",
            "journal": {"url": journal.url},
            "limiter": {"url": "journal"},
            "relays": {"main": {"host": "127.0.0.1", "port": 9, "security": "none"}},
            "sandbox": {"mode": "capture"},
        }
    )
    bucket = BucketKey(Lane.NORMAL, "shop", ("main",))
    [message] = journal.store(arrival("one", "a@example.org", bucket=bucket)).ids

    async def deliver() -> dict[str, int]:
        gateway = Gateway.from_config(config, ring=lambda _: None)
        await gateway.start()
        try:
            return await gateway.deliver(Lane.NORMAL, soon())
        finally:
            await gateway.stop(0)

    assert asyncio.run(deliver()) == {"captured": 1}
    assert "no relay was touched" in shell("messages", "show", spell(message)).out
    assert shell("failures", "list", "--json").document["items"] == []
    assert (
        shell("failures", "resend", "--state", "captured", "--all").out == "resend: 1 recipient\n"
    )
    [item] = shell("messages", "list", "--json").document["items"]
    assert item["state"] == "queued"
