"""What a producer may ask about a message that it has published: cancel, reschedule, ask.

Owns the command as a document: it goes where messages go, and is told from one by its
verb. Its JSON Schema is published as ``docs/command.schema.json``. Never knows whether
there is such a message: ``journal.orders`` does.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PlainValidator,
    PrivateAttr,
    model_validator,
)

from mailgate.contract import fields
from mailgate.contract.faults import Place, broken_at
from mailgate.contract.submission import Instant, Key, Line, Name, Part, number

SCHEMA_ID = "urn:mailgate:command:1"
#: What makes a document a command.
VERBS = frozenset({"cancel", "reschedule", "ask"})


class _Which(Part):
    """The message that is meant: exactly one of the two says it."""

    id: Key | None = Field(
        None, description="The `id` that you gave the message, or mailgate's own from an event."
    )
    idempotency_key: Key | None = Field(None, description="The key that you gave the message.")

    @property
    def target(self) -> str:
        """What was said of the message, by whichever field."""
        return self.id or self.idempotency_key or ""

    @model_validator(mode="wrap")
    @classmethod
    def _one_of_them(cls, raw: Any, handler: ModelWrapValidatorHandler[_Which]) -> _Which:
        which = handler(raw)
        if which.id is not None and which.idempotency_key is not None:
            rule = "cannot go with id: name the message by one of them"
            raise broken_at([(("idempotency_key",), rule)])
        if not which.target:
            raise broken_at([(("id",), "is required, or idempotency_key instead")])
        return which


class Cancel(_Which):
    """What of the message still waits is never sent."""

    recipient: (
        Annotated[
            str,
            PlainValidator(
                fields.bare_address,
                json_schema_input_type=Annotated[str, Field(max_length=fields.MAX_ADDRESS)],
            ),
        ]
        | None
    ) = Field(None, description="Only the mail to this address; all of it by default.")
    reason: Annotated[Line, Field(max_length=fields.MAX_SUBJECT)] | None = Field(
        None, description="Why; kept in the message's story."
    )


class Reschedule(_Which):
    """The message is sent at another time, if none of it was tried yet."""

    send_at: Instant = Field(description="Not before this (RFC 3339, with offset).")
    expires_at: Instant | None = Field(
        None,
        description="Never after this. Left out, the message's own stays; what follows from "
        "its stream moves along.",
    )


class Ask(_Which):
    """How the message and its recipients stand."""


class Command(Part):
    """One command: exactly one of ``cancel``, ``reschedule`` and ``ask``."""

    version: Annotated[Literal[1], BeforeValidator(number)] = Field(
        1, description="The version of this contract."
    )
    id: Key | None = Field(
        None,
        description="The command's own id. Comes back as `command.id` in the answer; a repeat "
        "with it is absorbed.",
    )
    producer: Name | None = Field(
        None, description="Who asks: nobody is told or changes anything of others."
    )
    cancel: Cancel | None = None
    reschedule: Reschedule | None = None
    ask: Ask | None = None

    _body_hash: str = PrivateAttr("")

    @property
    def body_hash(self) -> str:
        """The hash over all that was said (``read.body_hash``)."""
        return self._body_hash

    @property
    def verb(self) -> str:
        return next(verb for verb in sorted(VERBS) if getattr(self, verb) is not None)

    @property
    def which(self) -> Cancel | Reschedule | Ask:
        """What stands under the verb."""
        said: Cancel | Reschedule | Ask = getattr(self, self.verb)
        return said


def between(raw: dict[str, Any]) -> list[tuple[Place, str]]:
    """The rules between fields of a command as written; types are not its business."""
    said = sorted(VERBS & raw.keys(), key=list(raw).index)
    faults: list[tuple[Place, str]] = [
        ((verb,), f"cannot go with {said[0]}: publish one command at a time") for verb in said[1:]
    ]
    if raw[said[0]] is None:
        faults.append(((said[0],), "must be an object"))
    moved = raw.get("reschedule")
    if isinstance(moved, dict) and moved.get("send_at") and moved.get("expires_at"):
        try:
            if fields.instant(moved["expires_at"]) <= fields.instant(moved["send_at"]):
                faults.append((("reschedule", "expires_at"), "must be later than send_at"))
        except ValueError:
            pass  # each is refused by itself
    return faults


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one command as a producer writes it."""
    schema = Command.model_json_schema(mode="validation")
    for name in ("Cancel", "Reschedule", "Ask"):
        one = [{"required": ["id"]}, {"required": ["idempotency_key"]}]
        schema["$defs"][name]["oneOf"] = one
    schema["oneOf"] = [{"required": [verb]} for verb in sorted(VERBS)]
    title = {"title": "A command for mailgate", "$id": SCHEMA_ID}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **title, **schema} | title


def as_text() -> str:
    """The published file's text."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
