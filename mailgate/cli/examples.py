"""An example or two for each command that does not show one where it is described.

Owns what ``--help`` and ``docs/cli.md`` show at the end of such a command. A test reads
each by the commands themselves: what is shown here can be typed.
"""

from __future__ import annotations

from typing import Final

import typer

#: By the command's words.
EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "up": ("mailgate up", "mailgate up --concurrency 4 --flower"),
    "intake": ("mailgate --config /etc/mailgate.toml intake",),
    "beat": ("mailgate beat",),
    "inbox": ("mailgate inbox",),
    "lanes list": ("mailgate lanes list",),
    "pauses list": ("mailgate pauses list --json",),
    "rules list": ("mailgate rules list",),
    "templates list": ("mailgate templates list",),
    "db upgrade": ("mailgate db upgrade",),
    "db current": ("mailgate db current --json",),
    "worker": ("mailgate worker --concurrency 4", "mailgate worker --lane high --name codes@%h"),
    "flower": ("mailgate flower --port 5555",),
    "studio": ("mailgate studio --port 8026",),
    "status": ("mailgate status --watch", "mailgate status --json"),
    "reload": ("mailgate reload --reason 'newsletter slower'", "mailgate reload --json --wait 30"),
    "pause": (
        "mailgate pause domain example.com --reason 'they asked us to wait'",
        "mailgate pause all --reason 'wrong prices in the newsletter'",
        "mailgate pause relay main --reason 'new certificate' --wait 5m",
    ),
    "resume": ("mailgate resume domain example.com", "mailgate resume all"),
    "clean": ("mailgate clean --seconds 60",),
    "contract": ("mailgate contract > contract.schema.json", "mailgate contract --commands"),
    "messages show": ("mailgate messages show 0F9M3Z7Q2K4XC",),
    "messages cancel": (
        "mailgate messages cancel 0F9M3Z7Q2K4XC --reason 'ordered twice'",
        "mailgate messages cancel --key invoice-4711 --producer billing",
    ),
    "messages reschedule": (
        "mailgate messages reschedule 0F9M3Z7Q2K4XC --send-at 2030-01-31T09:00:00+01:00",
        "mailgate messages reschedule --key reminder-12 --send-at now --reason 'they cannot wait'",
    ),
    "messages resend": ("mailgate messages resend 0F9M3Z7Q2K4XC --reason 'asked for it'",),
    "failures show": ("mailgate failures show mailbox_full --limit 10",),
    "failures discard": (
        "mailgate failures discard --error-class no_such_user --reason 'old list' --dry-run",
    ),
    "parked list": ("mailgate parked list --all --json",),
    "parked show": ("mailgate parked show 0F9M3Z7Q2K4XC --raw > message.json",),
    "parked replay": (
        "mailgate parked replay 0F9M3Z7Q2K4XC --file message.json --reason 'address mended'",
    ),
    "parked discard": ("mailgate parked discard 0F9M3Z7Q2K4XC --reason 'a test of ours'",),
    "digests list": ("mailgate digests list comments --json",),
    "digests release": (
        "mailgate digests release comments/thread-17 --reason 'the thread is closed'",
        "mailgate digests release weekly --reason 'Friday is a holiday'",
    ),
    "suppressions list": ("mailgate suppressions list --domain example.com --since 7d",),
    "suppressions add": (
        "mailgate suppressions add ann@example.com --reason 'asked by phone'",
        "mailgate suppressions add ann@example.com --for 30d --reason 'on leave'",
    ),
    "suppressions import": ("mailgate suppressions import list.csv --reason 'moved' --dry-run",),
    "suppressions export": ("mailgate suppressions export --since 1d > suppressed.csv",),
    "relays list": ("mailgate relays list --json",),
    "relays test": ("mailgate relays test main",),
    "relays pause": ("mailgate relays pause main --reason maintenance",),
    "relays resume": ("mailgate relays resume main --reason done",),
    "lanes drain": (
        "mailgate lanes drain high --to normal --reason 'a loop at the shop'",
        "mailgate lanes drain bulk --reason 'the campaign is wrong' --wait 60s",
    ),
    "limits show": ("mailgate limits show",),
    "schedules list": ("mailgate schedules list", "mailgate schedules list --json"),
    "schedules run": (
        "mailgate schedules run weekly-posts --dry-run",
        "mailgate schedules run weekly-posts --at 2030-02-02T10:00:00+01:00",
    ),
    "rules test": ("mailgate rules test '550 5.1.1 User unknown' --phase rcpt",),
    "templates check": ("mailgate templates check", "mailgate templates check notice --strict"),
    "templates render": (
        "mailgate templates render notice --part text",
        "mailgate templates render notice --locale zh-CN --out preview",
    ),
    "dkim generate": ("mailgate dkim generate keys/example.pem --algorithm ed25519",),
    "dkim dns": ("mailgate dkim dns example.com",),
    "config show": ("mailgate config show --json",),
    "config check": ("mailgate --config /etc/mailgate.toml config check",),
}


def epilog(name: str) -> str | None:
    """What stands at the end of a command's help; ``name`` is its words."""
    lines = EXAMPLES.get(name)
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines) if lines else None


def show_examples(group: typer.Typer, name: str) -> None:
    """Put each example at the end of its command's help, in a group called ``name``."""
    for command in group.registered_commands:
        assert command.callback is not None
        own = command.name or command.callback.__name__.replace("_", "-")
        command.epilog = epilog(f"{name} {own}") or command.epilog
