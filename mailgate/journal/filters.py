"""Which recipients are meant: the filter that every face shares.

Owns what can be asked for. Knows no SQL (``matching`` does), so that a command line
that only shows its help loads none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from mailgate.model.state import State

#: What operators look at: everything that did not go well.
TROUBLE = (State.BOUNCED, State.FAILED, State.UNCERTAIN, State.HELD, State.EXPIRED)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients are meant; everything that is set must hold. Times in ms."""

    states: tuple[State, ...] = ()
    messages: tuple[int, ...] = ()
    producer: str | None = None
    stream: str | None = None
    template: str | None = None
    tag: str | None = None
    recipient: str | None = None
    domain: str | None = None
    #: Of any attempt, as ``reply`` is: a part of what a relay said, without case.
    relay: str | None = None
    reply: str | None = None
    error_class: str | None = None
    key: str | None = None
    #: Key and value, as text, of the message's metadata or the recipient's own.
    metadata: tuple[tuple[str, str], ...] = ()
    since: int | None = None
    until: int | None = None
    #: By when a recipient last moved; ``since`` and ``until`` are about when it was accepted.
    changed_before: int | None = None

    @property
    def narrow(self) -> bool:
        """Whether it says more than a state: what a change of many must at least say."""
        said = (getattr(self, f.name) for f in fields(self) if f.name != "states")
        return any(value is not None and value != () for value in said)

    def spelled(self) -> dict[str, object]:
        """What it says, and nothing of what it leaves open: for the audit."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in said.items() if value is not None and value != ()}
