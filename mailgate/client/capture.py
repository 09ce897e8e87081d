"""Keeping what would be published, for the tests of producers.

Owns the one place that every client of the process looks at before it publishes. Never
used outside tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Published:
    """One document that was checked against the contract and kept."""

    def __init__(self, document: dict[str, Any], idempotency_key: str) -> None:
        self.document = document
        self.idempotency_key = idempotency_key

    def __repr__(self) -> str:
        return f"Published({self.document!r})"

    def __getitem__(self, field: str) -> Any:
        return self.document[field]

    def get(self, field: str, default: Any = None) -> Any:
        return self.document.get(field, default)

    @property
    def addresses(self) -> list[str]:
        """All who would get it, without their names, in the order written."""
        found: list[str] = []
        for field in ("to", "cc", "bcc", "recipients"):
            said: Any = self.document.get(field) or []
            for one in said if isinstance(said, list) else [said]:
                address = str(one["email"] if isinstance(one, dict) else one)
                found.append(address.rpartition("<")[2].rstrip("> ").strip())
        return found


class Outbox(list[Published]):
    """What would have been published, oldest first."""

    def to(self, address: str) -> list[Published]:
        """Those that ``address`` would get."""
        return [one for one in self if address in one.addresses]


_open: list[Outbox] = []


def current() -> Outbox | None:
    """Where documents go instead of a broker, if anywhere."""
    return _open[-1] if _open else None


@contextmanager
def captured() -> Iterator[Outbox]:
    """Within it nothing reaches a broker: each valid document is kept in the outbox given.

    Holds for every client and every thread of the process. An invalid one raises, as
    it would in production.
    """
    box = Outbox()
    _open.append(box)
    try:
        yield box
    finally:
        # By identity: two empty outboxes are equal.
        _open[:] = [one for one in _open if one is not box]
