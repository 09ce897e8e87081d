"""Who a delivery is from, and whether that producer may publish it.

Owns the rules between a submission, what the broker vouches for, and the producers'
sections. Pure. Never trusts a name in a body where the section asks for proof.
"""

from __future__ import annotations

from mailgate.config.shape import Config
from mailgate.config.terms import receives
from mailgate.contract.faults import Fault
from mailgate.contract.submission import Submission
from mailgate.intake.door import Delivery


def proven(delivery: Delivery, config: Config) -> str | None:
    """The producer that the broker vouches for: by the queue, else by the AMQP user.

    A queue vouches for a producer with ``amqp_users`` only together with one of them:
    on RabbitMQ who may write to the default exchange reaches every queue.
    """
    by_user = config.amqp_users.get(delivery.user_id) if delivery.user_id else None
    by_queue = delivery.producer
    if by_queue is None or by_queue == by_user:
        return by_user
    if by_user is not None:
        return None
    if delivery.source == "amqp" and config.producer(by_queue).amqp_users:
        return None
    return by_queue


def attributed(claimed: str | None, delivery: Delivery, config: Config) -> str | None:
    """The producer to note beside what is parked; never a name that wanted proof in vain."""
    vouched = proven(delivery, config)
    if vouched is None and claimed is not None and config.producer(claimed).proven:
        return None
    return vouched or claimed


def identify(claimed: str | None, delivery: Delivery, config: Config) -> tuple[str, list[Fault]]:
    """The producer of a message, and why it may not be that."""
    vouched = proven(delivery, config)
    if vouched is None and delivery.producer is not None:
        rule = f"came by the queue of producer {delivery.producer} from no AMQP user of its own"
        return delivery.producer, [Fault("producer", rule)]
    name = vouched or claimed or config.default_producer
    if claimed is not None and claimed != name:
        return name, [Fault("producer", f"must be {name} or left out: the broker says so")]
    section = config.producers.get(name)
    if section is None:
        if not config.refuses_unknown:
            return name, []
        if claimed is None:
            return name, [Fault("producer", "is required, since only known producers may publish")]
        return name, [Fault("producer", "is not configured, and only known producers may publish")]
    if section.proven and vouched is None:
        return name, [Fault("producer", f"{name} is not proven: {_proof(name, config)}")]
    return name, []


def faults(
    said: Submission, size: int, sender: str | None, stream: str, producer: str, config: Config
) -> list[Fault]:
    """What of a message its producer may not publish.

    ``size`` is that of the body in bytes; ``sender`` and ``stream`` are what the message
    comes to, with the defaults of the configuration.
    """
    may = config.producer(producer)
    found = []
    if may.max_bytes is not None and size > may.max_bytes:
        rule = f"is larger than the {may.max_bytes} bytes that producer {producer} may publish"
        found.append(Fault("", rule))
    if may.senders and sender is not None and not receives(sender, may.senders):
        found.append(Fault("from", f"is no address that producer {producer} may send as"))
    if may.streams and stream not in may.streams:
        rule = f"is not for producer {producer}, which may use: {', '.join(may.streams)}"
        found.append(Fault("stream", rule))
    if may.templates and said.template not in may.templates:
        rule = "is required for" if said.template is None else "is not for"
        known = ", ".join(may.templates)
        found.append(Fault("template", f"{rule} producer {producer}, which may use: {known}"))
    count = len(said.to) + len(said.cc) + len(said.bcc) + len(said.recipients) + len(said.refused)
    if may.max_recipients is not None and count > may.max_recipients:
        field = "recipients" if said.recipients or said.refused else "to"
        rule = f"are {count} with cc and bcc" if field == "to" else f"are {count}"
        most = f"producer {producer} may name {may.max_recipients} in a message"
        found.append(Fault(field, f"{rule}: {most}"))
    return found


def _proof(name: str, config: Config) -> str:
    section = config.producer(name)
    ways = []
    if section.amqp_users:
        ways.append("publish with one of its AMQP users as user_id")
    if section.queue is not None:
        ways.append("publish to its own queue")
    return " or ".join(ways)
