"""mailgate with a bug in it: what the harness must notice.

Usage: ``python -m bench.faults.planted BUG ARGUMENT…`` is ``mailgate ARGUMENT…``. Owns the
bugs; each takes away one thing that the promise stands on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from mailgate.cli.main import main
from mailgate.delivery.conversation import Marks
from mailgate.intake import service
from mailgate.intake.door import Delivery, Door
from mailgate.journal.settling import Settling

_TOKEN = " AND recipients.token = v.token"
_STATE = " AND CASE WHEN recipients.state = 'sending' THEN true ELSE false END"


def acknowledge_before_the_commit() -> None:
    """The broker may forget what the journal does not know yet."""
    pump = service._pump

    async def hasty(door: Door, *rest: Any) -> None:
        await pump(_Hasty(door), *rest)

    service._pump = hasty


class _Hasty:
    """A door that acknowledges what it gives."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def __getattr__(self, name: str) -> Any:
        return getattr(self._door, name)

    async def receive(self, most: int, wait: float) -> Sequence[Delivery]:
        deliveries = await self._door.receive(most, wait)
        if deliveries:
            await self._door.done(deliveries)
        return deliveries

    async def done(self, deliveries: Sequence[Delivery]) -> bool:
        return True


def no_mark_before_the_dot() -> None:
    """Whoever buries the process takes what it sent for unsent."""

    def dot(self: Marks) -> None:
        self.past_dot = True

    Marks.dot = dot  # type: ignore[method-assign]


def no_fence() -> None:
    """Who was buried settles what another has claimed since."""
    _settle_without(_TOKEN)


def no_compare_and_set() -> None:
    """Who settles last is right, whatever the row has become.

    The token goes with the state: either alone is enough where a row has been settled
    since, so that one without the other brings nothing to light.
    """
    _settle_without(_TOKEN, _STATE)


def _settle_without(*conditions: str) -> None:
    make = Settling.__init__

    def careless(self: Settling, *rest: Any) -> None:
        make(self, *rest)
        for condition in conditions:
            text = self._update.text.replace(condition, "")
            if text == self._update.text:
                raise SystemExit(f"a settlement has no such condition any more: {condition}")
            self._update = sa.text(text)

    Settling.__init__ = careless  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "acknowledge-before-the-commit": acknowledge_before_the_commit,
    "no-mark-before-the-dot": no_mark_before_the_dot,
    "no-fence": no_fence,
    "no-compare-and-set": no_compare_and_set,
}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
