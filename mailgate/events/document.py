"""From a row of the outbox to the document that a producer reads. Pure.

Owns what is said and what is left out; ``contract.event`` owns the form. Plain
dictionaries, since two of these are made for each mail: the tests hold them against
the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mailgate.contract.event import MAX_REPLY, VERSION
from mailgate.journal.outbox import Told
from mailgate.model.ids import spell
from mailgate.model.state import FINAL

_FINAL = {state.value for state in FINAL}
_ABOUT_MESSAGES = frozenset({"accepted", "conflict", "parked", "state"})


@dataclass(frozen=True, slots=True)
class Post:
    """One event, ready for a broker. ``number`` is its place in the outbox."""

    number: int
    id: str
    kind: str
    #: None: nobody is known.
    producer: str | None
    body: bytes
    #: Milliseconds since 1970.
    at: int
    #: What the producer calls its message, if it gave a name.
    key: str = ""


def post(told: Told) -> Post:
    """What is published of one event."""
    said = document(told)
    message = said["message"]
    key = message.get("idempotency_key") or message.get("own_id") or ""
    body = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    return Post(told.id, said["id"], told.kind, told.producer, body, told.at, key)


def document(told: Told) -> dict[str, Any]:
    """The event as ``contract.event.Event`` describes it."""
    out: dict[str, Any] = {"version": VERSION, "id": event_id(told), "event": told.kind}
    out["at"] = instant(told.at)
    if told.producer is not None:
        out["producer"] = told.producer
    out["message"] = _message(told)
    if told.recipient_id is not None:
        out["recipient"] = _recipient(told, told.recipient_id)
    out["seq"] = told.seq
    if told.kind not in _ABOUT_MESSAGES:
        out["final"] = told.kind in _FINAL
    detail = told.detail
    if told.kind == "state":
        out["command"] = _answer(detail)
        return out
    if "attempt" in detail:
        out["attempt"] = _attempt(told)
    if detail.get("error_class"):
        out["error_class"] = detail["error_class"]
    if detail.get("due_at"):
        out["due_at"] = instant(detail["due_at"])
    reason = _reason(detail, told.producer)
    if reason and not told.sensitive:
        out["reason"] = reason[:MAX_REPLY]
    if "parked" in detail:
        out["parked"] = {"id": detail["parked"], "faults": json.loads(told.faults or "[]")}
    return out


def event_id(told: Told) -> str:
    """The same for one event whenever it is published, and never another's."""
    if told.recipient_id is not None:
        return f"{spell(told.recipient_id)}-{told.seq}"
    if told.kind == "state":
        # Any number of answers may be about one message, or about none.
        return f"{spell(told.message_id)}-state-{told.id}"
    return f"{told.detail.get('parked') or spell(told.message_id)}-{told.kind}"


def instant(ms: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    second, rest = divmod(ms, 1000)
    return f"{_second(second)}.{rest:03d}Z"


def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _message(told: Told) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if not told.stream:
        # No message: a document that was put aside, or the place of one that has not come.
        out |= _read(told.body)
        out["identity"] = told.identity or f"key:{next(iter(_target(told.detail).values()), '')}"
        return out
    out["id"] = spell(told.message_id)
    own = told.own_id
    if own is None and told.idempotency_key is None and told.identity.startswith("key:"):
        own = told.identity[4:]
    if own is not None:
        out["own_id"] = own
    if told.idempotency_key is not None:
        out["idempotency_key"] = told.idempotency_key
    out["identity"] = told.identity
    out["stream"] = told.stream
    if told.template is not None:
        out["template"] = told.template
    out["recipients"] = told.recipients
    if told.tags:
        out["tags"] = json.loads(told.tags)
    if told.metadata:
        out["metadata"] = json.loads(told.metadata)
    if told.traceparent:
        out["traceparent"] = told.traceparent
    return out


def _recipient(told: Told, recipient_id: int) -> dict[str, Any]:
    out: dict[str, Any] = {"id": spell(recipient_id), "n": told.n or 0}
    if told.email and not told.sensitive:
        out["email"] = told.email
    if told.own:
        out["metadata"] = json.loads(told.own)
    return out


def _attempt(told: Told) -> dict[str, Any]:
    detail = told.detail
    out: dict[str, Any] = {"n": detail["attempt"], "relay": detail["relay"]}
    if detail.get("code"):
        out["code"] = detail["code"]
    if told.enhanced:
        out["enhanced"] = told.enhanced
    if told.reply and not told.sensitive:
        out["reply"] = told.reply[:MAX_REPLY]
    return out


def _target(detail: Mapping[str, Any]) -> dict[str, str]:
    """What a command named."""
    return {name: detail[name] for name in ("id", "idempotency_key") if name in detail}


def _answer(detail: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"verb": detail["command"]}
    if "command_id" in detail:
        out["id"] = detail["command_id"]
    out |= {"target": _target(detail), "result": detail["result"]}
    out |= {name: detail[name] for name in ("reason", "final") if name in detail}
    if "recipients" in detail:
        out["recipients"] = [
            one | {"due_at": instant(one["due_at"])} if "due_at" in one else one
            for one in detail["recipients"]
        ]
    return out


def _reason(detail: Mapping[str, Any], producer: str | None) -> str:
    """Why, in words; an operator's name and words stay in the house."""
    verb = detail.get("verb")
    if verb and detail.get("by") == f"producer {producer}":
        own = f": {detail['reason']}" if detail.get("reason") else ""
        return f"by your command {verb}{own}"
    if detail.get("note"):
        return str(detail["note"])
    for key, words in (("waits_for", "waits for"), ("dropped_by", "dropped by")):
        if detail.get(key):
            return f"{words} {detail[key]}"
    return f"by an operator: {verb}" if verb else ""


def _read(body: bytes | None) -> dict[str, Any]:
    """What a document that was refused calls itself, if that much of it can be read."""
    try:
        said = json.loads(body or b"")
    except (ValueError, RecursionError):
        return {}
    out = {}
    for name, key in (("id", "own_id"), ("idempotency_key", "idempotency_key")):
        value = said.get(name) if isinstance(said, dict) else None
        if isinstance(value, str) and 0 < len(value) <= 256:
            out[key] = value
    return out
