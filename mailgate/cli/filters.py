"""The filter options that lists and resends share, and who is asking."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mailgate.cli.setting import fail

if TYPE_CHECKING:
    from mailgate.config.shape import Config
    from mailgate.journal.search import Filter
    from mailgate.model.state import Lane, State

StateOption = Annotated[
    list[str] | None, typer.Option("--state", help="queued, deferred, sent, failed…; repeatable.")
]
ProducerOption = Annotated[str | None, typer.Option("--producer", help="Who published.")]
StreamOption = Annotated[str | None, typer.Option("--stream", help="A stream's name.")]
TemplateOption = Annotated[str | None, typer.Option("--template", help="A template's name.")]
TagOption = Annotated[str | None, typer.Option("--tag", help="A tag of the message.")]
RecipientOption = Annotated[str | None, typer.Option("--recipient", help="A whole address.")]
DomainOption = Annotated[str | None, typer.Option("--domain", help="A recipient's domain.")]
ErrorOption = Annotated[
    str | None, typer.Option("--error-class", help="As failures list shows it.")
]
KeyOption = Annotated[str | None, typer.Option("--key", help="The idempotency key, or the id.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Accepted since: 2h, 3d, or a time (RFC 3339).")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Accepted before; likewise.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document.")]
PersonalOption = Annotated[
    bool, typer.Option("--show-personal-data", help="Whole addresses and contents.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the audit.")]


def wanted(
    *,
    states: list[str] | None = None,
    numbers: list[str] | None = None,
    producer: str | None = None,
    stream: str | None = None,
    template: str | None = None,
    tag: str | None = None,
    recipient: str | None = None,
    domain: str | None = None,
    error_class: str | None = None,
    key: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Filter:
    """The options as a filter; wrong ones end the program."""
    from mailgate.journal.search import Filter

    for text in (producer, stream, template, tag, recipient, domain, error_class, key):
        _utf8(text or "")
    return Filter(
        states=tuple(_state(s) for s in states or ()),
        messages=tuple(number(n) for n in numbers or ()),
        producer=producer,
        stream=stream,
        template=template,
        tag=tag,
        recipient=recipient,
        domain=domain,
        error_class=error_class,
        key=key,
        since=moment(since, "--since"),
        until=moment(until, "--until"),
    )


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


def bell(config: Config) -> Callable[[Lane], None]:
    """A ring that is best-effort: without a broker the workers look by themselves."""
    from mailgate.worker import celery_app
    from mailgate.worker.doorbell import Doorbell

    celery_app.use(config)
    doorbell = Doorbell(celery_app.app)

    def close() -> None:
        doorbell.close(2.0)

    import atexit

    atexit.register(close)
    return doorbell.ring
