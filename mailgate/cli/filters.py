"""The filter options that lists and resends share, and who is asking."""

from __future__ import annotations

import functools
import getpass
import inspect
import os
import re
import socket
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli import completing
from mailgate.cli.setting import complain, fail, guarded, setting
from mailgate.journal.filters import Filter

if TYPE_CHECKING:
    from mailgate.config.shape import Config
    from mailgate.model.state import Lane, State

#: Each filter of ``journal.filters`` as an option.
_OPTIONS: dict[str, Any] = {
    "state": Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            help="queued, deferred, sent, failed…; repeatable.",
            autocompletion=completing.states,
        ),
    ],
    "producer": Annotated[
        str | None,
        typer.Option("--producer", help="Who published.", autocompletion=completing.producers),
    ],
    "stream": Annotated[
        str | None,
        typer.Option("--stream", help="A stream's name.", autocompletion=completing.streams),
    ],
    "template": Annotated[
        str | None,
        typer.Option("--template", help="A template's name.", autocompletion=completing.templates),
    ],
    "tag": Annotated[str | None, typer.Option("--tag", help="A tag of the message.")],
    "recipient": Annotated[str | None, typer.Option("--recipient", help="A whole address.")],
    "domain": Annotated[str | None, typer.Option("--domain", help="A recipient's domain.")],
    "relay": Annotated[
        str | None,
        typer.Option(
            "--tried", "--relay", help="A relay that was tried.", autocompletion=completing.relays
        ),
    ],
    "reply": Annotated[
        str | None, typer.Option("--reply", help="A part of what a relay said, in any case.")
    ],
    "error_class": Annotated[
        str | None,
        typer.Option(
            "--error-class",
            help="As failures list shows it.",
            autocompletion=completing.error_classes,
        ),
    ],
    "key": Annotated[str | None, typer.Option("--key", help="The idempotency key, or the id.")],
    "metadata": Annotated[
        list[str] | None,
        typer.Option("--metadata", help="NAME=VALUE of the metadata; repeatable."),
    ],
    "since": Annotated[
        str | None,
        typer.Option("--since", help="Accepted since: 2h, 3d, or a time (RFC 3339)."),
    ],
    "until": Annotated[str | None, typer.Option("--until", help="Accepted before; likewise.")],
}
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Comma-separated values.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document.")]
PersonalOption = Annotated[
    bool, typer.Option("--show-personal-data", help="Whole addresses and contents.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the audit.")]

#: Where ``--relay`` says by which relay to send.
_TRIED: dict[str, Any] = {
    "relay": Annotated[
        str | None,
        typer.Option("--tried", help="A relay that was tried.", autocompletion=completing.relays),
    ]
}


def selects(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every filter option; it gets them as one filter, ``choice``.

    Wrong ones end the program before the command begins.
    """
    said = inspect.signature(command, eval_str=True)
    own = [p for name, p in said.parameters.items() if name != "choice"]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in (_OPTIONS | (_TRIED if "by" in said.parameters else {})).items()
    ]
    positional = [p for p in own if p.name == "message"]
    others = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name != "message"]

    @functools.wraps(command)
    def chosen(**given: Any) -> None:
        filters = {name: given.pop(name) for name in _OPTIONS}
        choice = wanted(**filters, numbers=given.get("message"))
        _say_strangers(choice)
        command(choice=choice, **given)

    parameters = [*positional, *options, *others]
    chosen.__signature__ = said.replace(parameters=parameters)  # type: ignore[attr-defined]
    chosen.__annotations__ = {p.name: p.annotation for p in parameters}
    return chosen


def _say_strangers(choice: Filter) -> None:
    """Warn of names that neither the configuration nor any mail on record has: a slip, perhaps."""
    named = {k: v for k in ("producer", "stream", "template", "relay") if (v := getattr(choice, k))}
    if not named:
        return
    config = setting.config()
    known: dict[str, Collection[str]] = {
        "producer": config.producers,
        "stream": config.streams,
        "relay": config.relays,
    }
    for kind, name in named.items():
        if name in known.get(kind, ()) or _on_record(kind, name):
            continue
        if kind == "template" and _is_template(config, name):
            continue
        where = "among the templates" if kind == "template" else "in the configuration"
        complain(f"no {kind} called {name} {where} or the journal")


def _on_record(kind: str, name: str) -> bool:
    from mailgate.journal.standing import seen

    database = setting.database()
    found: bool = guarded(lambda: database.read_now(lambda c: seen(c, kind, name)))
    return found


def _is_template(config: Config, name: str) -> bool:
    from mailgate.render.catalogue import built_in_root

    return any((root / name).is_dir() for root in (*config.templates.path, built_in_root()))


def wanted(
    *,
    state: Sequence[str] | None = None,
    numbers: Sequence[str] | None = None,
    metadata: Sequence[str] | None = None,
    since: str | None = None,
    until: str | None = None,
    **texts: str | None,
) -> Filter:
    """The options as a filter; wrong ones end the program. ``texts`` are matched as they are."""
    for text in (*texts.values(), *(metadata or ())):
        _utf8(text or "")
    return Filter(
        states=tuple(_state(s) for s in state or ()),
        messages=tuple(number(n) for n in numbers or ()),
        metadata=tuple(_pair(text) for text in metadata or ()),
        since=moment(since, "--since"),
        until=moment(until, "--until"),
        changed_before=None,
        **texts,
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        fail(f"--metadata {text}: write NAME=VALUE", 2)
    return name, value


def _utf8(text: str) -> None:
    """What was typed must be text: no journal could be asked for anything else."""
    try:
        text.encode()
    except UnicodeEncodeError:
        fail(f"{text} is not UTF-8", 2)


def number(text: str) -> int:
    """An identifier as written; a wrong one ends the program."""
    from mailgate.model.ids import unspell

    try:
        return unspell(text)
    except ValueError as error:
        fail(str(error), 2)


def _state(text: str) -> State:
    from mailgate.model.state import State

    try:
        return State(text.lower())
    except ValueError:
        fail(f"--state {text}: must be one of {', '.join(s.value for s in State)}", 2)


def moment(text: str | None, option: str) -> int | None:
    """A duration before now, or a time, in milliseconds since 1970."""
    if text is None:
        return None
    now = datetime.now(UTC)
    if re.fullmatch(r"\d+(\.\d+)?\s*(s|m|h|d|w)", text):
        from mailgate.config.terms import parse_duration

        return max(0, int((now.timestamp() - parse_duration(text)) * 1000))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text}: write 2h, 3d, or a time such as 2026-05-01T10:00Z", 2)
    return max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000))


def whoami() -> str:
    """Who stands in the audit: the user who typed, also behind sudo."""
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    return f"{user}@{socket.gethostname()}"


def left_suppressed(many: int) -> None:
    """Tell that some were not sent again, and what to do about it."""
    if many:
        complain(
            f"{many} left alone: suppressed (see mailgate suppressions list; what is removed "
            "there can be sent again)"
        )


def bell(config: Config) -> Callable[[Lane], None]:
    """A ring that is best-effort: without a broker the workers look by themselves."""
    from mailgate.worker.doorbell import Doorbell

    doorbell = Doorbell(config)

    def close() -> None:
        doorbell.close(2.0)

    import atexit

    atexit.register(close)
    return doorbell.ring
