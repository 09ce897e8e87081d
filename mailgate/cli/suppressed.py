"""Which entries of the suppression list are meant: the options that its commands share.

Owns reading them, and how one entry is shown. Never asks or changes the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailgate.cli.filters import moment
from mailgate.cli.setting import clean, complain, fail, setting

if TYPE_CHECKING:
    from mailgate.journal.suppression_list import Entries, Listed

AddressesArgument = Annotated[
    list[str], typer.Argument(help="Addresses, or domains: example.com or @example.com.")
]
ForProducer = Annotated[
    str | None, typer.Option("--producer", help="For this producer's mail alone.")
]
ForCategory = Annotated[
    str | None, typer.Option("--category", help="For streams of this category alone.")
]
DomainOption = Annotated[
    str | None, typer.Option("--domain", help="A domain and the addresses in it.")
]
BecauseOption = Annotated[str | None, typer.Option("--because", help="The entry's reason.")]
SourceOption = Annotated[
    str | None, typer.Option("--source", help="bounce, manual, import or unsubscribe.")
]
SinceOption = Annotated[str | None, typer.Option("--since", help="Added since: 2h, 3d, or a time.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Added before; likewise.")]
LastsOption = Annotated[
    str | None, typer.Option("--for", help="How long: 30d, 12w; without it until removed.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def wanted(
    address: str | None,
    domain: str | None,
    producer: str | None,
    category: str | None,
    because: str | None,
    source: str | None,
    since: str | None,
    until: str | None,
    expired: bool = False,
) -> Entries:
    from mailgate.journal.suppression_list import Entries
    from mailgate.operations.suppressions import SOURCES

    if source is not None and source not in SOURCES:
        fail(f"--source {source}: must be one of {', '.join(SOURCES)}", 2)
    if domain is not None:
        domain = subject(f"@{domain.removeprefix('*').removeprefix('@')}")
    _utf8(because or "")
    return Entries(
        address=None if address is None else subject(address),
        domain=domain,
        producer=name_of(producer, "--producer"),
        category=name_of(category, "--category"),
        reason=because,
        source=source,
        since=moment(since, "--since"),
        until=moment(until, "--until"),
        expired=expired,
    )


def subject(text: str) -> str:
    from mailgate.operations.suppressions import NotSuppressible, subject

    _utf8(text)
    try:
        return subject(text)
    except NotSuppressible as error:
        fail(f"{text}: {error}", 2)


def name_of(text: str | None, option: str) -> str | None:
    from mailgate.operations.suppressions import NotSuppressible, name

    if text is None:
        return None
    try:
        return name(text)
    except NotSuppressible as error:
        fail(f"{option} {text}: {error}", 2)


def known_category(group: str) -> None:
    """A category that no stream has stops nothing: that is likely a slip."""
    known = sorted(set(setting.config().categories.values()))
    if group and group not in known:
        complain(f"no stream has the category {group}; there are: {', '.join(known) or 'none'}")


def until(lasts: str | None, now: int) -> int | None:
    from mailgate.config.terms import parse_duration

    if lasts is None:
        return None
    try:
        return now + int(parse_duration(lasts) * 1000)
    except ValueError as error:
        fail(f"--for: {error}", 2)


def _utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        fail(f"{clean(text)} is not UTF-8", 2)


def told(choice: Entries) -> str:
    """The filter for the audit, without what it leaves open."""
    from dataclasses import asdict

    return ", ".join(f"{k}={v}" for k, v in asdict(choice).items() if v not in (None, False))


def item(listed: Listed, personal: bool) -> dict[str, Any]:
    from mailgate.cli.tables import masked, stamp
    from mailgate.log import mask_text

    entry = listed.entry
    address = masked(entry.address, personal) if "@" in entry.address else entry.address
    return {
        "id": listed.id,
        "address": address,
        "producer": entry.producer or None,
        "category": entry.category or None,
        "reason": entry.reason,
        "source": entry.source,
        "evidence": entry.evidence if personal else mask_text(entry.evidence),
        "created_at": stamp(listed.created_at),
        "expires_at": stamp(entry.expires_at),
    }
