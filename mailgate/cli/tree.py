"""The commands by name, each read only when it is named.

Owns what the commands are called, where they are and the line about each that ``--help``
shows: some sixty commands would take longer to build than any of them to run. A test holds
the lines to what the commands say of themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandInfo, TyperInfo

from mailgate.cli.examples import epilog, show_examples


class Entry(NamedTuple):
    """Where a command or a group of them is, ``module:name`` below this package."""

    where: str
    summary: str


#: In the order of ``--help``.
COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry(
        "up:up",
        "Start everything on this machine: broker, journal, intake, worker, beat and an inbox.",
    ),
    "intake": Entry("processes:intake", "Take plain JSON from the queue into the journal."),
    "worker": Entry("processes:worker", "Deliver what is due."),
    "beat": Entry("processes:beat", "Run the clock for schedules (Celery beat)."),
    "flower": Entry(
        "processes:flower",
        "Watch the workers on a page (Flower); loopback only unless you say otherwise.",
    ),
    "inbox": Entry("processes:inbox", "Catch mail on this machine and show it on a page."),
    "studio": Entry(
        "studio:studio",
        "Look at templates on a local page: every save is shown at once, test mails can be sent.",
    ),
    "send": Entry("publish:send", "Publish one message on the queue, as any producer would."),
    "status": Entry(
        "status:status",
        "How things stand: the last minute, lanes, queues, relays, processes, what is held up.",
    ),
    "doctor": Entry(
        "doctor:doctor",
        "Look at broker, journal, limiter, relays, templates, schedules, clocks, disk"
        " and versions.",
    ),
    "reload": Entry(
        "rereading:reload",
        "Have every process of the cluster read its configuration again, without a restart.",
    ),
    "pause": Entry(
        "pausing:pause",
        "Send nothing of a kind until it is resumed; mail goes on being accepted, and waits.",
    ),
    "resume": Entry("pausing:resume", "Let mail go again that was paused."),
    "clean": Entry("upkeep:clean", "Delete and redact what [retention] keeps no longer."),
    "erase": Entry(
        "upkeep:erase",
        "Forget one person: cancel what waits for them, and erase their address and content.",
    ),
    "contract": Entry("settings:contract", "Print the JSON Schema of what producers publish."),
    "messages": Entry("messages:app", "Find messages, read one's whole story."),
    "failures": Entry("failures:app", "Failures: by class, and sending them again."),
    "parked": Entry("parked:app", "What could not be accepted, with the reason."),
    "digests": Entry("digests:app", "Digests: items that go as one mail."),
    "suppressions": Entry("suppressions:app", "Who gets no mail, and why."),
    "relays": Entry("relays:app", "Relays: how they stand, and pausing them."),
    "limits": Entry("limits:app", "Limits: how they stand."),
    "lanes": Entry("lanes:app", "The lanes: what waits there, and draining one."),
    "pauses": Entry("pausing:app", "What is paused."),
    "schedules": Entry("schedules:app", "Recurring mail."),
    "rules": Entry("rules:app", "What relays' refusals mean."),
    "templates": Entry("templates:app", "Mail templates: list, check, render."),
    "dkim": Entry("dkim:app", "DKIM keys: make one, print its DNS record."),
    "db": Entry("journal:db", "The journal's schema, and restoring it."),
    "config": Entry("settings:config", "The configuration."),
}


def read(name: str) -> Any:
    """The command or group of a name; ``KeyError`` when there is none."""
    module, _, attribute = COMMANDS[name].where.partition(":")
    found = getattr(import_module(f"mailgate.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        show_examples(found, name)
        return typer.main.get_group_from_info(
            TyperInfo(found, name=name),
            pretty_exceptions_short=True,
            suggest_commands=True,
            rich_markup_mode=None,
        )
    return typer.main.get_command_from_info(
        CommandInfo(name=name, callback=found, epilog=epilog(name)),
        pretty_exceptions_short=True,
        rich_markup_mode=None,
    )


class Commands(MutableMapping[str, Any]):
    """All commands by name; one is read when it is asked for."""

    def __init__(self) -> None:
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._read:
            self._read[name] = read(name)
        return self._read[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._read[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError("no command is ever taken away")

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS


class Program(TyperGroup):
    """The whole tree; says of a wrong value what is wrong, and not how that was found out."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = Commands()

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The line of each, without reading any."""
        most = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, TyperCommand(name, help=entry.summary).get_short_help_str(most))
                    for name, entry in COMMANDS.items()
                ]
            )
