"""What a producer is told about its messages: the event, as a document.

Owns the names and meanings of an event's fields, from which its JSON Schema is
generated. Never says when one is published: ``events`` does. A field without a value
is left out and never null; fields may be added, so readers pass over what they do not
know.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mailgate.model.state import State

#: The version of this document.
VERSION = 1
SCHEMA_ID = "urn:mailgate:event:1"
#: Where events go: a topic exchange, or a Redis stream for each producer.
EXCHANGE = "mailgate.events"
STREAM = "mailgate:events:"
#: Stands for the producer in a routing key or a stream's name where none is known: what
#: was parked and names nobody, or a name that it could not prove. No producer can have it.
UNKNOWN = "UNKNOWN"
#: Characters of a relay's reply and of a reason that an event carries.
MAX_REPLY = 500

#: What can be told: how a document fared, the answer to a command, and the states of
#: recipients but ``sending``.
EventKind = StrEnum(  # type: ignore[misc]  # its members are the table's
    "EventKind",
    {
        name.upper(): name
        for name in (
            "accepted",
            "conflict",
            "parked",
            "state",
            *(state.value for state in State if state is not State.SENDING),
        )
    },
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=True)


class Message(_Part):
    """The message that the event is about; of a parked document, what could be read of it."""

    id: str | None = Field(None, description="mailgate's id of the message.")
    own_id: str | None = Field(None, description="The `id` that the producer gave.")
    idempotency_key: str | None = Field(None, description="As the producer gave it.")
    identity: str = Field(
        description="By what a repeat is known: `key:` and the idempotency key or own id; else "
        "`amqp:` and the AMQP message_id, or `redis-stream:`, the stream's name and the id of "
        "the entry. Of a digest `digest:` and its id."
    )
    stream: str | None = Field(None, description="The set of defaults that it uses.")
    template: str | None = None
    recipients: int | None = Field(None, ge=1, description="How many accepted recipients it has.")
    tags: tuple[str, ...] | None = Field(None, description="As the producer gave them.")
    metadata: dict[str, Any] | None = Field(None, description="As the producer gave it.")
    traceparent: str | None = Field(None, description="W3C Trace Context, as published.")


class Recipient(_Part):
    """The one recipient whose state has changed."""

    id: str = Field(description="mailgate's id of the recipient: one of one message.")
    n: int = Field(
        ge=0,
        description="Its place among the message's accepted recipients, from 0: to, cc, bcc, or "
        "recipients, without repeated addresses and refused entries.",
    )
    email: str | None = Field(
        None, description="The address in wire form. Left out when the message is sensitive."
    )
    metadata: dict[str, Any] | None = Field(
        None, description="The entry's own metadata, where `recipients` gave it some."
    )


class Attempt(_Part):
    """The conversation with a relay that led to the new state."""

    n: int = Field(ge=1, description="1 for the first conversation about this recipient.")
    relay: str = Field(description="The relay's name in mailgate's configuration.")
    code: int | None = Field(None, description="The SMTP reply code, when there was a reply.")
    enhanced: str | None = Field(None, description="The enhanced status code (RFC 3463).")
    reply: str | None = Field(
        None,
        description=f"The reply's text, or what happened instead; at most {MAX_REPLY} characters. "
        "Left out when the message is sensitive.",
    )


class FaultSaid(_Part):
    """One rule that a document broke."""

    field: str = Field(description="Where: `to[1].email`; empty for the whole document.")
    rule: str


class Parked(_Part):
    """The document that was put aside; an operator may replay or discard it."""

    id: str = Field(description="As in `mailgate parked show`.")
    faults: tuple[FaultSaid, ...] = ()


class Standing(_Part):
    """How one recipient of the message stands."""

    id: str = Field(description="As in `recipient.id`.")
    n: int = Field(ge=0, description="As in `recipient.n`.")
    state: State
    attempts: int = Field(ge=0, description="Conversations that were held about it.")
    error_class: str | None = None
    due_at: str | None = Field(None, description="When it is due, while it waits.")


class Answer(_Part):
    """What came of a command, and how the message stands after it."""

    verb: Literal["cancel", "reschedule", "ask"]
    id: str | None = Field(None, description="The command's own `id`.")
    target: dict[Literal["id", "idempotency_key"], str] = Field(
        description="What it named: as written in the command."
    )
    result: Literal["done", "partly", "too_late", "refused", "early", "unknown"]
    reason: str | None = Field(None, description="Why it was refused, in words for people.")
    final: bool | None = Field(
        None, description="Nothing more happens to any of the recipients by itself."
    )
    recipients: tuple[Standing, ...] | None = None


class Event(_Part):
    """One thing that happened to a message or to one of its recipients."""

    version: Literal[1] = 1
    id: str = Field(
        description="The same whenever this event is delivered again: keep it, to know repeats."
    )
    event: EventKind = Field(description="What happened; for a recipient its new state.")
    at: str = Field(description="When, RFC 3339 in UTC with milliseconds.")
    producer: str | None = Field(
        None, description="Whose message it is; left out when nobody is known."
    )
    message: Message
    recipient: Recipient | None = Field(
        None, description="Left out of `accepted`, `conflict`, `parked` and `state`."
    )
    seq: int = Field(
        ge=0,
        description="Numbers the transitions of one recipient: a larger one is the later. Some "
        "numbers are never seen. 0 where there is no recipient.",
    )
    final: bool | None = Field(
        None,
        description="Of a recipient: nothing more happens by itself. An operator may still "
        "send it again.",
    )
    attempt: Attempt | None = None
    error_class: str | None = Field(
        None, description="A short word for why: `mailbox_full`, `unknown_address`…"
    )
    due_at: str | None = Field(
        None, description="When it is tried next (`deferred`, `queued`), not before."
    )
    digest: str | None = Field(
        None, description="Of `digested`: mailgate's id of the message that the item went into."
    )
    reason: str | None = Field(
        None, description="Why, in words for people; left out when the message is sensitive."
    )
    parked: Parked | None = Field(None, description="Of `parked` and `conflict`.")
    command: Answer | None = Field(None, description="Of `state`: the answer to a command.")


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one event.

    It allows fields that it does not know, as a reader must.
    """
    schema = Event.model_json_schema(mode="validation")
    _readable(schema)
    schema["properties"]["version"] = {"const": VERSION, "type": "integer"}
    schema["required"] = ["version", *schema["required"]]
    title = {"title": "An event of mailgate", "$id": SCHEMA_ID}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **title, **schema} | title


def _readable(node: Any) -> None:
    """In place: no null where a field is left out instead, no title that repeats a name."""
    if isinstance(node, list):
        for one in node:
            _readable(one)
    if not isinstance(node, dict):
        return
    node.pop("additionalProperties", None) if "properties" in node else None
    for name, one in node.get("properties", {}).items():
        one.pop("title", None)
        if one.get("default", ...) is None:
            del one["default"]
            (kept,) = [choice for choice in one.pop("anyOf") if choice != {"type": "null"}]
            node["properties"][name] = kept | one
    for one in node.values():
        _readable(one)


def as_text() -> str:
    """The published file's text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
