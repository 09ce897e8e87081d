"""A producer's command becomes an order for the journal.

Owns what the order must know besides: whose it is, and how long mail of a stream lives.
Pure. Never knows whether there is such a message.
"""

from __future__ import annotations

from mailgate.config.shape import Config
from mailgate.contract.commands import Cancel, Command, Reschedule
from mailgate.intake.door import Delivery
from mailgate.journal.orders import Order
from mailgate.journal.rescheduling import When


def order(said: Command, producer: str, identity: str, delivery: Delivery, config: Config) -> Order:
    """The order of ``producer``, who was found to be that; ``identity`` tells a repeat."""
    which = said.which
    when = None
    if isinstance(which, Reschedule):
        expires = which.expires_at
        when = When(
            int(which.send_at.timestamp() * 1000),
            None if expires is None else int(expires.timestamp() * 1000),
            lifetimes(config),
        )
    cancel = which if isinstance(which, Cancel) else None
    return Order(
        verb=said.verb,
        producer=producer,
        identity=identity,
        body_hash=said.body_hash,
        source=delivery.source,
        raw=delivery.body,
        by="idempotency_key" if which.id is None else "id",
        target=which.target,
        own_id=said.id,
        recipient=cancel.recipient if cancel else None,
        reason=(cancel.reason or "") if cancel else "",
        when=when,
    )


def lifetimes(config: Config) -> dict[str, int]:
    """How long mail of each stream lives that has an ``expires_after`` (ms)."""
    return {
        name: int(stream.expires_after * 1000)
        for name, stream in config.streams.items()
        if stream.expires_after is not None
    }
