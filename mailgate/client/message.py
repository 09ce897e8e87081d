"""A message as a Python program writes it, and the document that it becomes.

Owns the builder and the turning of Python's values (bytes, dates) into JSON. Never
checks a rule of the contract: ``mailgate.contract`` does. Imports nothing that costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from datetime import datetime
    from typing import NotRequired


class Mailbox(TypedDict):
    """An address with the name to show beside it."""

    email: str
    name: NotRequired[str]


#: ``"ann@example.com"``, ``"Ann <ann@example.com>"`` or a ``Mailbox``.
AddressLike: TypeAlias = "str | Mailbox"
Addresses: TypeAlias = "AddressLike | Sequence[AddressLike]"


class Recipient(TypedDict):
    """Who gets a private message, and what is that one's own."""

    email: str
    name: NotRequired[str]
    data: NotRequired[Mapping[str, Any]]
    locale: NotRequired[str]
    metadata: NotRequired[Mapping[str, str | int | float | bool]]


class Throttle(TypedDict, total=False):
    """How often a recipient gets mail of this kind; ``window`` as ``"6h"``."""

    key: str
    limit: int
    window: str
    on_limit: Literal["defer", "drop", "digest"]
    replace: bool


class Digest(TypedDict):
    """The digest that ``data`` goes into as one item."""

    name: str
    key: NotRequired[str]
    id: NotRequired[str]


class Unsubscribe(TypedDict):
    """Where List-Unsubscribe points: https or mailto."""

    url: str
    one_click: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes along; with a ``content_id`` it is shown inline as ``cid:…``."""

    filename: str
    content: bytes
    content_type: str | None = None
    content_id: str | None = None

    def document(self) -> dict[str, str]:
        from base64 import b64encode

        said = {"filename": self.filename, "content": b64encode(self.content).decode("ascii")}
        if self.content_type:
            said["content_type"] = self.content_type
        if self.content_id:
            said["content_id"] = self.content_id
        return said


@dataclass(slots=True, kw_only=True)
class Message:
    """One message; fields and rules are those of the producers' guide.

    ``sender`` is the contract's ``from``. ``send_at`` and ``expires_at`` are aware
    datetimes or RFC 3339 strings. What is empty is not said.
    """

    to: Addresses = ()
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Addresses = ()
    recipients: Sequence[str | Recipient] = ()
    sender: AddressLike | None = None
    template: str | None = None
    data: Mapping[str, Any] | None = None
    locale: str | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    attachments: Sequence[Attachment] = ()
    headers: Mapping[str, str] | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, str | int | float | bool] | None = None
    stream: str | None = None
    send_at: datetime | str | None = None
    expires_at: datetime | str | None = None
    throttle: Throttle | None = None
    digest: str | Digest | None = None
    unsubscribe: Unsubscribe | None = None
    sensitive: bool = False
    id: str | None = None
    idempotency_key: str | None = None
    producer: str | None = None
    traceparent: str | None = None
    #: Fields of a later contract, as they are written there.
    more: Mapping[str, Any] = field(default_factory=dict)

    def attach(
        self,
        filename: str,
        content: bytes | str,
        content_type: str | None = None,
        *,
        content_id: str | None = None,
    ) -> Message:
        """Add a file (a string goes as UTF-8); gives the message back, for chaining."""
        raw = content.encode() if isinstance(content, str) else content
        made = Attachment(filename, raw, content_type, content_id)
        self.attachments = (*self.attachments, made)
        return self

    def document(self) -> dict[str, Any]:
        """The message as the contract writes it; values of Python's are still in it."""
        said: dict[str, Any] = {"version": 1}
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None or value is False or name == "more" or _empty(value):
                continue
            if name == "attachments":
                value = [one.document() for one in value]
            said["from" if name == "sender" else name] = value
        return said | dict(self.more)


def _empty(value: Any) -> bool:
    return isinstance(value, Iterable) and not value


def plain(value: Any) -> Any:
    """For ``json.dumps(default=…)``: what has one obvious spelling in JSON.

    Dates and times in ISO 8601, UUIDs and decimals as strings, sets and other iterables as
    lists, mappings as objects, lazy strings (Django's translations) as strings. Raises
    ``TypeError`` for anything else.
    """
    from datetime import date, time
    from decimal import Decimal
    from uuid import UUID

    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Attachment):
        return value.document()
    if hasattr(value, "_proxy____args") or hasattr(value, "__html__"):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no value of JSON")
