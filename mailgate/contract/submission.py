"""What a producer may say, as a model: every field, its caps, and what excludes what.

Owns the contract, version 1; the JSON Schema is generated from it. Never knows
whether a template exists or what its data must look like: ``intake.accept``
asks the catalogue.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    PlainValidator,
    model_validator,
)

from mailgate.config.terms import parse_duration
from mailgate.contract import fields
from mailgate.contract.faults import RefusedRecipient, broken, broken_at
from mailgate.contract.rules import ALIASES, DATA_ALIASES, between, canonical, renamed
from mailgate.model.address import Address
from mailgate.model.message import Attachment

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
TEMPLATE = r"^[a-z0-9][a-z0-9_-]{0,63}$"
LOCALE = r"^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,4}$"
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
WINDOW = re.compile(r"^[0-9]{1,9} ?(s|m|h|d|w)$")

#: The sentence for each pattern, for whoever breaks it.
PATTERNS = {
    NAME: "must be 1 to 63 lower-case letters, digits, hyphens and underscores",
    TEMPLATE: "must be 1 to 64 lower-case letters, digits, hyphens and underscores",
    LOCALE: "must be a language tag such as en or pt-BR (BCP 47)",
    ONE_LINE: "must be one line without control characters",
}


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class _Named(BaseModel):
    """How an address is written as an object; for the JSON Schema only."""

    model_config = ConfigDict(extra="forbid", defer_build=True, title="Mailbox")

    email: str = Field(max_length=fields.MAX_ADDRESS)
    name: str | None = Field(None, max_length=fields.MAX_NAME)


class _File(BaseModel):
    """How an attachment is written; for the JSON Schema only."""

    model_config = ConfigDict(extra="forbid", defer_build=True, title="Attachment")

    filename: str = Field(min_length=1, max_length=255)
    content: str = Field(
        description="Base64 (RFC 4648 section 4), no line breaks.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    content_type: str | None = Field(None, description="Guessed from the file name if absent.")
    content_id: str | None = Field(None, description="Makes it inline: <img src='cid:…'>.")


_AddressForm = Annotated[str, Field(max_length=fields.MAX_NAME + fields.MAX_ADDRESS)] | _Named
_Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def _listed(value: Any) -> Any:
    """One address alone is a list of one; null is none."""
    if value is None:
        return ()
    if type(value) is list:
        if len(value) > fields.MAX_SHARED:
            raise broken(f"must not hold more than {fields.MAX_SHARED} addresses")
        return value
    if isinstance(value, str | dict | Address):
        return (value,)
    if isinstance(value, tuple):
        return value
    raise broken("must be an address or a list of addresses")


def _few_recipients(value: Any) -> Any:
    if type(value) is list and len(value) > fields.MAX_RECIPIENTS:
        raise broken(f"must not hold more than {fields.MAX_RECIPIENTS} recipients")
    return () if value is None else value


def _few_tags(value: Any) -> Any:
    if type(value) is list and len(value) > fields.MAX_TAGS:
        raise broken(f"must not hold more than {fields.MAX_TAGS} tags")
    return () if value is None else value


def number(value: Any) -> Any:
    if isinstance(value, bool):  # equal to 1 in Python, not in JSON
        raise broken("must be 1")
    return value


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def _seconds(value: Any) -> float:
    if type(value) is not str or not WINDOW.match(value):
        raise broken("must be a duration such as 30m, 24h or 7d")
    seconds = parse_duration(value)
    if not 1 <= seconds <= 366 * 86400:
        raise broken("must be between 1s and 366d")
    return seconds


def _recipient(value: Any) -> Any:
    """A bare address is a recipient too; ``data`` has its other spellings here as well."""
    if type(value) is str:
        return {"email": value}
    if isinstance(value, dict) and len(value) > fields.MAX_FIELDS:
        raise broken(f"must not hold more than {fields.MAX_FIELDS} fields")
    if isinstance(value, dict) and not DATA_ALIASES.isdisjoint(value):
        _, faults = renamed(value, ALIASES)
        if faults:
            raise broken_at(faults)
        return {"data" if k in DATA_ALIASES else k: v for k, v in value.items()}
    return value


Mailbox = Annotated[Address, PlainValidator(fields.mailbox, json_schema_input_type=_AddressForm)]
Mailboxes = Annotated[
    tuple[Mailbox, ...],
    Field(strict=False),
    BeforeValidator(
        _listed,
        json_schema_input_type=_AddressForm
        | Annotated[list[_AddressForm], Field(max_length=fields.MAX_SHARED)]
        | None,
    ),
]
Line = Annotated[str, Field(pattern=ONE_LINE)]
Key = Annotated[Line, Field(min_length=1, max_length=fields.MAX_KEY)]
Name = Annotated[str, Field(pattern=NAME)]
Locale = Annotated[str, Field(pattern=LOCALE), AfterValidator(lambda v: v.replace("_", "-"))]
Body = Annotated[str, Field(max_length=fields.MAX_BODY), AfterValidator(fields.body)]
Instant = Annotated[datetime, PlainValidator(fields.instant, json_schema_input_type=_Instant)]
#: The default of an object, for the schema: as a value it would be copied for each message.
_EMPTY: dict[str, JsonValue] = {"default": {}}

Data = Annotated[
    dict[str, Any],
    BeforeValidator(_or_empty, json_schema_input_type=dict[str, Any] | None),
]
Metadata = Annotated[
    dict[str, str | int | float | bool],
    PlainValidator(
        lambda v: fields.metadata(_or_empty(v)),
        json_schema_input_type=Annotated[
            dict[str, str | int | float | bool], Field(max_length=fields.MAX_METADATA)
        ]
        | None,
    ),
]
Headers = Annotated[
    tuple[tuple[str, str], ...],
    PlainValidator(
        lambda v: fields.headers(_or_empty(v)),
        json_schema_input_type=Annotated[dict[str, str], Field(max_length=fields.MAX_HEADERS)]
        | None,
    ),
]
Attached = Annotated[Attachment, PlainValidator(fields.attachment, json_schema_input_type=_File)]
Attachments = Annotated[
    tuple[Attached, ...],
    Field(strict=False),
    BeforeValidator(
        lambda v: () if v is None else fields.attachment_list(v),
        json_schema_input_type=Annotated[list[_File], Field(max_length=fields.MAX_ATTACHMENTS)]
        | None,
    ),
]


class Recipient(Part):
    """One private message: an address and what is its own."""

    email: Annotated[
        str,
        PlainValidator(
            fields.bare_address,
            json_schema_input_type=Annotated[str, Field(max_length=fields.MAX_ADDRESS)],
        ),
    ]
    name: Annotated[
        str,
        PlainValidator(
            fields.display_name,
            json_schema_input_type=Annotated[str, Field(max_length=fields.MAX_NAME)] | None,
        ),
    ] = ""
    data: Data = Field(
        default_factory=dict,
        json_schema_extra=_EMPTY,
        description="Laid over the message's data, name by name.",
    )
    locale: Locale | None = None
    metadata: Metadata = Field(default_factory=dict, json_schema_extra=_EMPTY)


class Throttle(Part):
    """At most ``limit`` messages with this key in any ``window``; what happens beyond.

    A key alone is what the operators' rules by key count it under.
    """

    key: Key | None = Field(None, description="What is counted; the recipient by default.")
    limit: int = Field(1, ge=1, le=1_000_000)
    window: (
        Annotated[
            float,
            PlainValidator(
                _seconds, json_schema_input_type=Annotated[str, Field(pattern=WINDOW.pattern)]
            ),
        ]
        | None
    ) = Field(None, description="Such as 30m, 24h or 7d; in seconds once accepted.")
    on_limit: Literal["defer", "drop", "digest"] = "defer"
    replace: bool = Field(
        False, description="In place of the operators' rules; for producers that may."
    )

    @model_validator(mode="after")
    def _counts_something(self) -> Throttle:
        if self.window is None and "limit" in self.model_fields_set:
            raise broken_at([(("window",), "is required with a limit")])
        if self.window is None and self.key is None and not self.replace:
            raise broken_at([(("window",), "is required, or a key for the configured rules")])
        return self


class Digest(Part):
    """A digest that the data goes into as one item, for each recipient."""

    name: Name = Field(description="Which of the configured digests.")
    key: Key | None = Field(
        None, description="What goes into one mail together; all of the name by default."
    )
    id: Key | None = Field(
        None, description="The item's own id: of several in one digest the latest counts."
    )


def _digest(value: Any) -> Any:
    return {"name": value} if type(value) is str else value


class Unsubscribe(Part):
    """Where ``List-Unsubscribe`` points (RFC 2369) and whether one click does it (RFC 8058)."""

    url: Annotated[str, AfterValidator(fields.unsubscribe_url)] = Field(
        description="https or mailto.", max_length=fields.MAX_URL
    )
    one_click: bool | None = Field(None, description="By default true for https.")

    @model_validator(mode="after")
    def _one_click_is_https(self) -> Unsubscribe:
        if self.one_click and self.url[:7].lower() == "mailto:":
            raise broken("one_click needs an https URL (RFC 8058)")
        return self


class Submission(Part):
    """One message as a producer publishes it. Only a recipient and some content are required."""

    version: Annotated[Literal[1], BeforeValidator(number)] = Field(
        1, description="The version of this contract."
    )
    id: Key | None = Field(None, description="The producer's own id of the message.")
    idempotency_key: Key | None = Field(
        None, description="A repeat with this key is absorbed; by default id is the key."
    )
    producer: Name | None = Field(None, description="Who publishes; keys are unique within it.")
    sender: Mailbox | None = Field(
        None, alias="from", description="From; by default the stream's sender."
    )
    to: Mailboxes = Field((), description="One shared message to all of these.")
    cc: Mailboxes = ()
    bcc: Mailboxes = ()
    reply_to: Mailboxes = ()
    template: Annotated[str, Field(pattern=TEMPLATE)] | None = None
    data: Data = Field(
        default_factory=dict,
        json_schema_extra=_EMPTY,
        description="What the template is filled with; at most 256 kB.",
    )
    locale: Locale | None = None
    subject: Annotated[Line, Field(min_length=1, max_length=fields.MAX_SUBJECT)] | None = Field(
        None, description="Required without a template; with one, replaces its subject."
    )
    text: Body | None = None
    html: Body | None = None
    recipients: Annotated[
        tuple[
            Annotated[
                Recipient,
                BeforeValidator(_recipient, json_schema_input_type=str | Recipient),
            ],
            ...,
        ],
        Field(strict=False),
        BeforeValidator(_few_recipients),
    ] = Field((), description="One private message to each of these.")
    attachments: Attachments = ()
    headers: Headers = ()
    tags: Annotated[
        tuple[Annotated[Line, Field(min_length=1, max_length=fields.MAX_TAG)], ...],
        Field(strict=False),
        BeforeValidator(_few_tags),
    ] = ()
    metadata: Metadata = Field(
        default_factory=dict,
        json_schema_extra=_EMPTY,
        description="Given back in events, never read.",
    )
    stream: Name | None = Field(None, description="The configured set of defaults to use.")
    send_at: Instant | None = Field(None, description="Not before this (RFC 3339, with offset).")
    expires_at: Instant | None = Field(None, description="Never after this.")
    throttle: Throttle | None = None
    digest: (
        Annotated[Digest, BeforeValidator(_digest, json_schema_input_type=str | Digest)] | None
    ) = Field(None, description="Not a mail, but an item: data goes into this digest.")
    unsubscribe: Unsubscribe | None = None
    sensitive: bool = Field(False, description="Content and data are erased after success.")
    traceparent: Annotated[str, AfterValidator(fields.traceparent)] | None = Field(
        None, description="W3C Trace Context."
    )

    @property
    def refused(self) -> tuple[RefusedRecipient, ...]:
        """The entries of ``recipients`` that were left out, each with its faults."""
        found: tuple[RefusedRecipient, ...] = self.__dict__.get("_refused", ())
        return found

    @property
    def body_hash(self) -> str:
        """The hash over all that was said (``read.body_hash``), also over what was refused."""
        found: str = self.__dict__.get("_body_hash", "")
        return found

    def read_as(self, body_hash: str, refused: tuple[RefusedRecipient, ...] = ()) -> Submission:
        """Itself, with what its reader knows beside its fields; only the reader says it."""
        # Not pydantic's private attributes: making two of them costs a third of validation.
        self.__dict__["_body_hash"] = body_hash
        self.__dict__["_refused"] = refused
        return self

    def identity(self) -> str | None:
        """By what a repeat is known, if the producer gave anything: the key, else the id."""
        return self.idempotency_key or self.id

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, raw: Any, handler: ModelWrapValidatorHandler[Submission]) -> Submission:
        """Both spellings of a field, and fields that exclude each other, are faults too."""
        if not isinstance(raw, dict):
            return handler(raw)
        raw, _, faults = canonical(raw)
        submission = handler(raw)
        faults += between(raw)
        if faults:
            raise broken_at(faults)
        return submission
