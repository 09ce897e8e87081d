"""The one way in: deliveries become messages or are parked, and then acknowledged.

Owns the decision for each delivery (pure) and the order read → decide → commit →
ring → acknowledge. Every door and every replay comes through here. Never knows
which broker a delivery came from.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Protocol

from mailgate.config.shape import Config
from mailgate.config.streams import Stream
from mailgate.contract.commands import Command
from mailgate.contract.faults import MOST_FAULTS, Fault, shortened
from mailgate.contract.read import Refusal, read, remainder
from mailgate.contract.submission import Submission
from mailgate.intake import commands, digest, permitted, throttle
from mailgate.intake.door import Delivery
from mailgate.journal.arrivals import (
    Arrival,
    Arrivals,
    BucketKey,
    NewParked,
    NewRecipient,
    Stored,
)
from mailgate.journal.asides import By, labelled
from mailgate.journal.letters import letter_text
from mailgate.journal.orders import Order
from mailgate.limits.policy import Policy
from mailgate.log import where
from mailgate.model.address import Address
from mailgate.model.ids import spell
from mailgate.model.message import Unsubscribe
from mailgate.model.state import Lane
from mailgate.model.value import replace
from mailgate.tracing.spans import Tracing


class DataFault(Protocol):
    @property
    def field(self) -> str: ...
    @property
    def rule(self) -> str: ...


_log = logging.getLogger("mailgate.intake")

#: (template, data) → what is wrong with the data, or that there is no such template.
CheckData = Callable[[str, Mapping[str, Any]], Sequence[DataFault]]


class Accept:
    """Turns batches of deliveries into rows. One a door: batches follow each other."""

    def __init__(
        self,
        config: Config,
        arrivals: Arrivals,
        check_data: CheckData,
        tracing: Tracing | None = None,
    ) -> None:
        self._config = config
        self._arrivals = arrivals
        self._check_data = check_data
        self._policy = Policy(config)
        self._tracing = tracing

    def adopt(self, config: Config) -> None:
        """Decide by another configuration, from the next batch on."""
        self._config = config
        self._policy = Policy(config)

    async def batch(
        self,
        deliveries: Sequence[Delivery],
        forget: Sequence[int] = (),
        coming: Callable[[Lane], None] | None = None,
    ) -> Stored:
        """Write a batch; after this returns it may be acknowledged.

        ``forget`` is ``Stored.unacked`` of a batch whose acknowledgement the broker
        has confirmed. ``coming`` is called before the writing for each lane in which
        something will be due. Raises ``JournalAway`` with nothing written.
        """
        arrivals: list[Arrival] = []
        refused: list[NewParked] = []
        orders: list[Order] = []
        for delivery in deliveries:
            try:
                decided = decide(delivery, self._config, self._check_data, self._policy)
            except Exception as error:  # noqa: BLE001 - it would come again for ever, and keep others out
                what = where(error)
                _log.error("a document could not be read, and is parked", extra={"error": what})
                rule = f"could not be read by this version of mailgate: {what}"
                decided = _parked(delivery, (Fault("", rule),))
            if isinstance(decided, Arrival):
                arrivals.append(decided)
            elif isinstance(decided, Order):
                orders.append(decided)
            else:
                refused.append(decided)
        if coming is not None:
            for lane in {r.bucket.lane for a in arrivals for r in a.recipients if _at_once(a, r)}:
                coming(lane)
            # Who rings is a thread: it goes first, and not when we wait for the journal.
            await asyncio.sleep(0)
        begun = time.time_ns()
        stored = await self._arrivals.store(arrivals, refused, forget, orders)
        if self._tracing is not None:
            _trace(self._tracing, arrivals, stored, (begun, time.time_ns()))
        return stored


def _trace(
    tracing: Tracing, arrivals: Sequence[Arrival], stored: Stored, at: tuple[int, int]
) -> None:
    for arrival, message_id in zip(arrivals, stored.ids, strict=False):
        if arrival.traceparent:
            said = (spell(message_id), arrival.producer, arrival.stream)
            tracing.accepted(arrival.traceparent, *said, at=at)


def decide(
    delivery: Delivery, config: Config, check_data: CheckData, policy: Policy
) -> Arrival | Order | NewParked:
    """What one delivery becomes; ``policy`` is the configuration's. Raises for no input."""
    if delivery.refusal is not None:
        known = permitted.attributed(None, delivery, config)
        return _parked(delivery, (Fault("", delivery.refusal),), known)
    said = read(delivery.body, max_bytes=config.intake.max_bytes)
    if isinstance(said, Refusal):
        known = permitted.attributed(said.producer, delivery, config)
        return _parked(delivery, said.faults, known)
    producer, unproven = permitted.identify(said.producer, delivery, config)
    if unproven:
        known = permitted.attributed(said.producer, delivery, config)
        return _parked(delivery, unproven, known)
    if isinstance(said, Command):
        return commands.order(said, producer, _identity(delivery, said.id), delivery, config)
    original = said
    said, wrong = digest.unfolded(said, config)
    faults, stream_name, sender = _setting(said, config)
    faults += wrong
    email = sender.email if sender else None
    faults += permitted.faults(said, len(delivery.body), email, stream_name, producer, config)
    faults += throttle.faults(said, producer, config)
    stream = config.streams.get(stream_name)
    recipients, bad = _recipients(said, config, producer, stream_name, stream, check_data)
    if said.digest is not None:
        bad = digest.in_its_words(bad, original)
        if recipients and not wrong:
            faults += digest.too_many(said, config, check_data)
            recipients = digest.gathered(recipients, said, producer, config.digests)
    faults += bad if not recipients else []
    if faults or stream is None or sender is None:
        return _parked(delivery, tuple(faults), producer)
    if policy.separates:
        recipients = [replace(r, bucket=_own(r, policy, sender.email)) for r in recipients]
    identity = _identity(delivery, said.identity())
    refused: tuple[NewParked, ...] = ()
    if said.refused or bad:
        left_out = [*(f for r in said.refused for f in r.faults), *bad]
        refused = (_left_out(delivery, original, identity, producer, left_out, recipients),)
    unsubscribe = said.unsubscribe
    return Arrival(
        identity=identity,
        producer=producer,
        body_hash=said.body_hash,
        source=delivery.source,
        stream=stream_name,
        sender=sender.email,
        template=said.template,
        body=letter_text(
            sender=sender,
            mail_from=sender.email if stream.envelope_from is None else stream.envelope_from,
            domain=config.message_id_domain or sender.domain,
            to=said.to,
            cc=said.cc,
            reply_to=said.reply_to,
            template=said.template,
            data=said.data if said.template else None,
            locale=said.locale,
            subject=said.subject,
            text=said.text,
            html=said.html,
            headers=said.headers,
            unsubscribe=Unsubscribe(
                unsubscribe.url,
                unsubscribe.url.lower().startswith("https:")
                if unsubscribe.one_click is None
                else unsubscribe.one_click,
            )
            if unsubscribe
            else None,
            files=said.attachments,
        ),
        recipients=tuple(recipients),
        raw=delivery.body,
        send_at=_ms(said.send_at),
        expires_at=_ms(said.expires_at),
        lifetime=None if said.digest else _lifetime(stream),
        sensitive=said.sensitive,
        idempotency_key=said.idempotency_key,
        own_id=said.id if said.idempotency_key else None,
        tags=json.dumps(said.tags) if said.tags else None,
        metadata=json.dumps(said.metadata) if said.metadata else None,
        traceparent=said.traceparent,
        throttle=throttle.text(said),
        category=stream.category or "",
        attachments=said.attachments,
        session=delivery.session if _anonymous(delivery, said) else None,
        redelivered=delivery.redelivered,
        refused=refused,
    )


def _at_once(arrival: Arrival, recipient: NewRecipient) -> bool:
    """Whether it is due when it is written, as far as can be said before."""
    return arrival.send_at is None and recipient.gather is None


def _lifetime(stream: Stream) -> int | None:
    """How long mail of a stream is worth sending; a digest's begins when it is made."""
    return None if stream.expires_after is None else int(stream.expires_after * 1000)


def _own(recipient: NewRecipient, policy: Policy, sender: str) -> BucketKey:
    """A destination or sender with a limit of its own waits by itself."""
    bucket = recipient.bucket
    domain = recipient.email.rpartition("@")[2]
    label = bucket.domain
    if policy.destination(domain):
        label = labelled(label, By.DOMAIN, domain)
    if policy.identity(sender):
        label = labelled(label, By.SENDER, sender)
    return replace(bucket, domain=label)


def _setting(said: Submission, config: Config) -> tuple[list[Fault], str, Address | None]:
    """The stream and the sender, and what is wrong with what was asked for."""
    faults = []
    name = said.stream or config.default_stream
    stream = config.streams.get(name)
    sender = said.sender
    if stream is None:
        known = ", ".join(sorted(config.streams))
        faults.append(Fault("stream", f"is not configured; there are: {known}"))
    elif not config.route(name):
        faults.append(Fault("stream", "has no relay: none is configured"))
    elif sender is None:
        sender = stream.sender
        if sender is None:
            faults.append(Fault("from", f"is required, since stream {name} has no sender"))
    return faults, name, sender


def _recipients(
    said: Submission,
    config: Config,
    producer: str,
    stream_name: str,
    stream: Stream | None,
    check_data: CheckData,
) -> tuple[list[NewRecipient], list[Fault]]:
    """The recipients whose data fits the template, and the faults of those it does not."""
    if stream is None:
        return [], _check(said, said.data, check_data, "data")
    bucket = BucketKey(stream.lane, producer, config.route(stream_name))
    if said.recipients:
        good: list[NewRecipient] = []
        bad: list[Fault] = []
        seen: set[str] = set()
        # Named by their places in what was published.
        left_out = {r.index for r in said.refused}
        places = (n for n in itertools.count() if n not in left_out)
        #: Of those who have nothing of their own, what is wrong with the first.
        shared: list[Fault] | None = None
        for index, r in zip(places, said.recipients, strict=False):
            place = f"recipients[{index}].data"
            if r.data:
                faults = _check(said, {**said.data, **r.data}, check_data, place)
            else:
                if shared is None:
                    shared = _check(said, said.data, check_data, "data")
                faults = _placed(shared, place)
            bad += faults if len(bad) <= MOST_FAULTS else faults[:1]
            if faults or r.email in seen:
                continue
            seen.add(r.email)
            own = {"data": r.data, "locale": r.locale, "metadata": r.metadata}
            kept = {k: v for k, v in own.items() if v}
            text = json.dumps(kept, ensure_ascii=False) if kept else None
            good.append(NewRecipient("own", r.email, r.name, bucket, text))
        return good, bad
    faults = _check(said, said.data, check_data, "data")
    if faults:
        return [], faults
    found: dict[str, NewRecipient] = {}
    for kind, addresses in (("to", said.to), ("cc", said.cc), ("bcc", said.bcc)):
        for a in addresses:
            # One address, one copy, however often it is named.
            found.setdefault(a.email, NewRecipient(kind, a.email, a.name, bucket))
    return list(found.values()), []


def _check(
    said: Submission, data: Mapping[str, Any], check_data: CheckData, place: str
) -> list[Fault]:
    if said.template is None:
        return []
    return _placed(check_data(said.template, data), place)


def _placed(faults: Sequence[DataFault], place: str) -> list[Fault]:
    """Faults of ``data``, said of the place where that was written."""
    out = []
    for fault in faults:
        field = fault.field
        if field == "data" or field.startswith(("data.", "data[")):
            field = place + field[len("data") :]
        out.append(Fault(field, fault.rule))
    return out


def _anonymous(delivery: Delivery, said: Submission) -> bool:
    return said.identity() is None and delivery.identity is None


def _identity(delivery: Delivery, own: str | None) -> str:
    """What makes a repeat of this delivery the same; never empty. ``own`` is the producer's."""
    if own is not None:
        return f"key:{own}"
    if delivery.identity is not None:
        return _given(delivery.source, delivery.identity)
    if delivery.session is not None:
        # The same when the batch is tried again because the reply to COMMIT was lost.
        return f"none:{delivery.session:x}:{delivery.handle}"[:400]
    return f"none:{uuid.uuid4().hex}"


def _given(source: str, identity: str) -> str:
    """A transport's identity as every store can hold it: an AMQP ``message_id`` is any bytes."""
    text = identity.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\0")
    return f"{source}:{text}"[:400]


def _parked(delivery: Delivery, faults: Sequence[Fault], producer: str | None = None) -> NewParked:
    if delivery.identity is not None:
        identity = _given(delivery.source, delivery.identity)
    elif delivery.redelivered:
        # Perhaps parked before the acknowledgement was lost: at worst it stands twice.
        identity = f"body:{blake2b(delivery.body, digest_size=16).hexdigest()}"
    elif delivery.session is not None:
        identity = f"none:{delivery.session:x}:{delivery.handle}"[:400]
    else:
        identity = f"none:{uuid.uuid4().hex}"
    return NewParked(
        identity=identity,
        source=delivery.source,
        kind="invalid",
        faults=_fault_text(faults),
        body=delivery.body,
        producer=producer if producer and producer.isascii() and len(producer) <= 63 else None,
    )


def _left_out(
    delivery: Delivery,
    said: Submission,
    identity: str,
    producer: str,
    faults: Sequence[Fault],
    good: Sequence[NewRecipient],
) -> NewParked:
    """The recipients that are refused while the others go: a document that can be replayed."""
    body = remainder(delivery.body, said)
    sent = {r.email for r in good}
    misfits = [r for r in said.recipients if r.email not in sent]
    if misfits:
        document = json.loads(body)
        document["recipients"] += [
            r.model_dump(mode="json", exclude_defaults=True) for r in misfits
        ]
        body = json.dumps(document, ensure_ascii=False).encode()
    return NewParked(
        identity=f"left-out:{producer}:{said.body_hash}:{identity}"[:400],
        source=delivery.source,
        kind="recipient",
        faults=_fault_text(faults),
        body=body,
        producer=producer,
    )


def _fault_text(faults: Sequence[Fault]) -> str:
    """The first faults as JSON, which a person can read."""
    said = [{"field": f.field, "rule": f.rule} for f in shortened(faults)]
    return json.dumps(said, ensure_ascii=False)


def _ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1000)
