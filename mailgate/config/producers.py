"""The section of one producer: its share, and what it may ask for.

A producer needs no section: without one it has all the defaults. That holds until
some section says who may publish (any key but ``weight``, ``throttle`` and ``events``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from pydantic import Field

from mailgate.config.terms import Name, QueueName, Receivers, Section


class Producer(Section):
    """One service that publishes."""

    weight: int = Field(
        1,
        ge=1,
        le=1000,
        description="Its share of the places in a lane while others wait there too: with 3, "
        "three mails for one of a producer with 1.",
    )
    throttle: Literal["stricter", "any", "none"] = Field(
        "stricter",
        description="What its messages may say about throttles. stricter: a limit or a key "
        "besides the configured rules; any: also in their place (throttle.replace); none: "
        "nothing.",
    )
    senders: tuple[Receivers, ...] = Field(
        (),
        description="The addresses it may send as: 'billing@example.com', or "
        "'*@example.com' for a domain. Any by default.",
    )
    streams: tuple[str, ...] = Field((), description="The streams it may use. Any by default.")
    templates: tuple[str, ...] = Field(
        (), description="The templates it may use, and nothing else. Any by default."
    )
    max_bytes: int | None = Field(
        None, ge=1024, description="A larger message is parked (bytes); see intake.max_bytes."
    )
    max_recipients: int | None = Field(
        None, ge=1, description="A message with more recipients is parked."
    )
    events: bool = Field(
        True, description="Whether it is told what becomes of its messages; see [events]."
    )
    amqp_users: tuple[str, ...] = Field(
        (),
        description="RabbitMQ users that are this producer: its messages carry one of them as "
        "user_id, which the broker verifies, and nobody else may use its name.",
    )
    queue: QueueName | None = Field(
        None,
        description="A queue of its own; on Redis its dots become colons: stream and list. What "
        "arrives there is this producer's, and nobody else may use its name.",
    )

    @property
    def proven(self) -> bool:
        """Whether its name alone is not enough: the broker must vouch for it."""
        return bool(self.amqp_users) or self.queue is not None

    @property
    def restricted(self) -> bool:
        """Whether the section says who may publish, and not only how it fares."""
        limited = self.max_bytes is not None or self.max_recipients is not None
        return self.proven or limited or bool(self.senders or self.streams or self.templates)


def producer_faults(
    producers: Mapping[Name, Producer], streams: Collection[str], inbox: str
) -> Iterator[tuple[str, str]]:
    """What is wrong among the sections together, each with its key; ``inbox`` is everybody's."""
    users: dict[str, str] = {}
    # A queue is a stream and a list on Redis: no two may share either.
    places = dict.fromkeys(_places(inbox), "intake.queue")
    for name, producer in producers.items():
        for stream in producer.streams:
            if stream not in streams:
                known = ", ".join(f"'{known}'" for known in streams)
                yield (
                    f"producers.{name}.streams",
                    f"names '{stream}', which is no stream; the streams are: {known}",
                )
        for user in producer.amqp_users:
            other = users.setdefault(user, name)
            if other != name:
                yield (
                    f"producers.{name}.amqp_users",
                    f"names '{user}', who is producer {other} already: a user is one producer",
                )
        if producer.queue is not None:
            key = f"producers.{name}.queue"
            for place in _places(producer.queue):
                if place in places:
                    yield key, f"is the same as {places[place]}, on RabbitMQ or on Redis"
                    break
            places.update(dict.fromkeys(_places(producer.queue), key))


def _places(queue: str) -> tuple[str, str]:
    stream = queue.replace(".", ":")
    return stream, f"{stream}:list"
