"""The section of retention: how long what is over is kept.

Never deletes anything: ``operations.retention`` does.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from mailgate.config.terms import Duration, Section, refuse


class Retention(Section):
    """In each of them 0 keeps for ever."""

    messages: Duration = Field(
        90 * 86400.0,
        description="A message of which nothing waits any more is deleted after this, with its "
        "attempts and events; its idempotency key is free again. 0: never.",
    )
    keys: Duration = Field(
        0.0,
        description="An idempotency key is free again so long after its message was accepted, "
        "unless that waits still. 0: with the message.",
    )
    content: Duration = Field(
        0.0,
        description="Mail that can be sent to nobody again forgets data, bodies and files after "
        "this. 0: never.",
    )
    parked: Duration = Field(
        30 * 86400.0,
        description="What was parked, and is replayed or discarded, is deleted then. 0: never.",
    )
    actions: Duration = Field(
        365 * 86400.0, description="What operators did is remembered for so long. 0: for ever."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.messages and self.keys > self.messages:
            rule = "must not be longer than messages: with its message a key goes anyway"
            refuse([("keys", rule)])
        return self
