"""Parked bytes: replayed as new once what was wrong is mended, or discarded.

Owns the identity of a replay, by which a second one is absorbed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mailgate.config.shape import Config
from mailgate.intake.accept import CheckData, decide
from mailgate.intake.door import Delivery
from mailgate.journal.arrivals import Arrivals, NewParked
from mailgate.journal.database import Connection, Database
from mailgate.journal.orders import Order
from mailgate.journal.search import parked_row
from mailgate.journal.surgery import Act, resolve_parked
from mailgate.limits.policy import Policy
from mailgate.model.ids import spell
from mailgate.model.state import Lane
from mailgate.model.value import replace


@dataclass(frozen=True, slots=True)
class Replayed:
    """``message_id`` when a message was accepted, ``faults`` (field, rule) when not.

    Neither, when it was a command.
    """

    message_id: int | None = None
    faults: tuple[tuple[str, str], ...] = ()


class NotParked(Exception):
    """There is no such row, or it has been replayed or discarded."""


async def replay(
    database: Database,
    arrivals: Arrivals,
    config: Config,
    check_data: CheckData,
    number: int,
    act: Act,
    ring: Callable[[Lane], None],
    body: bytes | None = None,
) -> Replayed:
    """Bring a parked row through the one way in; ``body`` replaces its bytes.

    Still refused, it stays parked and the faults are given; so they are when another
    message has its key: then it stands anew, as a conflict. Raises ``NotParked``.
    """
    row = await database.read(lambda c: parked_row(c, number))
    if row is None or row["state"] != "parked":
        raise NotParked
    content = bytes(row["body"]) if body is None else body
    # What the broker proved when it was parked still holds; nothing else proves anything.
    owner = row["producer"]
    vouched = owner if owner and config.producer(owner).proven else None
    delivery = Delivery(content, "replay", f"parked-{number}", False, None, None, producer=vouched)
    decided = decide(delivery, config, check_data, Policy(config))
    if isinstance(decided, NewParked):
        faults = json.loads(decided.faults)
        return Replayed(faults=tuple((f["field"], f["rule"]) for f in faults))
    if row["kind"] == "conflict":
        # Its own key belongs to another message: this one goes under the parked number.
        decided = replace(decided, identity=f"replay:parked-{number}")
    if isinstance(decided, Order):
        stored = await arrivals.store([], orders=[decided])
    else:
        stored = await arrivals.store([decided])
    await database.run(lambda c: resolve_parked(c, number, "replayed", act, database.now()))
    for lane in stored.lanes:
        ring(lane)
    if stored.conflicts:
        of = f", as message {spell(stored.ids[0])}" if stored.ids else ""
        rule = f"was accepted before with another body{of}"
        fault = ("idempotency_key" if of else "id", f"{rule}: parked anew as a conflict with it")
        return Replayed(faults=(fault,))
    return Replayed(message_id=stored.ids[0] if stored.ids else None)


def _discarded(connection: Connection, *, number: int, act: Act, now: int) -> bool:
    return resolve_parked(connection, number, "discarded", act, now)


def discard(database: Database, numbers: Sequence[int], act: Act) -> int:
    """Give up on parked rows; their bytes stay for the audit. Gives how many were."""
    done = 0
    for number in numbers:
        now = database.now()
        done += database.run_now(partial(_discarded, number=number, act=act, now=now))
    return done
