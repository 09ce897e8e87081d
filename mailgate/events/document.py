"""From a row of the outbox to the document that a producer reads. Pure.

Owns what is said and what is left out; ``contract.event`` owns the form. The text is put
together by hand, from what already is JSON in the journal: two of these are made for each
mail, and a dictionary on the way costs more than all the rest. The tests hold each kind
against the schema and the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from mailgate.contract.event import MAX_REPLY, VERSION
from mailgate.contract.strict_json import KEY, parse
from mailgate.journal.outbox import Told
from mailgate.model import plain
from mailgate.model.ids import spell
from mailgate.model.state import FINAL

_FINAL = {state.value for state in FINAL}
_ABOUT_MESSAGES = frozenset({"accepted", "conflict", "parked", "state"})
_json = plain.written


class Post(NamedTuple):
    """One event, ready for a broker."""

    #: Its place in the outbox.
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
    """What is published of one event: ``contract.event.Event`` as JSON."""
    who = "" if told.recipient_id is None else spell(told.recipient_id)
    message_id = spell(told.message_id)
    id_ = _event_id(told, message_id, who)
    out = [f'{{"version":{VERSION},"id":"{id_}","event":"{told.kind}","at":"{instant(told.at)}"']
    if told.producer is not None:
        out.append(f',"producer":{_json(told.producer)}')
    own_id = _own_id(told)
    out.append(_message(told, message_id, own_id))
    if who:
        out.append(_recipient(told, who))
    out.append(f',"seq":{told.seq}')
    if told.kind not in _ABOUT_MESSAGES:
        out.append(',"final":true' if told.kind in _FINAL else ',"final":false')
    if told.kind == "state":
        out.append(f',"command":{_json(_answer(told.detail))}')
    elif told.detail:
        _details(out, told)
    out.append("}")
    body = "".join(out).encode()
    key = told.idempotency_key or own_id or ""
    return Post(told.id, id_, told.kind, told.producer, body, told.at, key)


def instant(ms: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    second, rest = divmod(ms, 1000)
    return f"{_second(second)}.{rest:03d}Z"


@lru_cache(maxsize=256)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _event_id(told: Told, message_id: str, who: str) -> str:
    """The same for one event whenever it is published, and never another's."""
    if who:
        return f"{who}-{told.seq}"
    if told.kind == "state":
        # Any number of answers may be about one message, or about none.
        return f"{message_id}-state-{told.id}"
    return f"{told.detail.get('parked') or message_id}-{told.kind}"


def _own_id(told: Told) -> str | None:
    if told.own_id is None and told.idempotency_key is None and told.identity[:4] == "key:":
        return told.identity[4:]
    return told.own_id


def _message(told: Told, message_id: str, own_id: str | None) -> str:
    if not told.stream:
        # No message: a document that was put aside, or the place of one that has not come.
        said = _read(told.body)
        said["identity"] = told.identity or f"key:{next(iter(_target(told.detail).values()), '')}"
        return f',"message":{_json(said)}'
    out = [f',"message":{{"id":"{message_id}"']
    if own_id is not None:
        out.append(f',"own_id":{_json(own_id)}')
    if told.idempotency_key is not None:
        out.append(f',"idempotency_key":{_json(told.idempotency_key)}')
    out.append(f',"identity":{_json(told.identity)},"stream":{_json(told.stream)}')
    if told.template is not None:
        out.append(f',"template":{_json(told.template)}')
    out.append(f',"recipients":{told.recipients}')
    if told.tags:
        out.append(f',"tags":{told.tags}')
    if told.metadata:
        out.append(f',"metadata":{told.metadata}')
    if told.traceparent:
        out.append(f',"traceparent":{_json(told.traceparent)}')
    out.append("}")
    return "".join(out)


def _recipient(told: Told, who: str) -> str:
    email = f',"email":{_json(told.email)}' if told.email and not told.sensitive else ""
    own = f',"metadata":{told.own}' if told.own else ""
    return f',"recipient":{{"id":"{who}","n":{told.n or 0}{email}{own}}}'


def _details(out: list[str], told: Told) -> None:
    detail = told.detail
    if "attempt" in detail:
        out.append(f',"attempt":{{"n":{detail["attempt"]},"relay":{_json(detail["relay"])}')
        if detail.get("code"):
            out.append(f',"code":{detail["code"]}')
        if told.enhanced:
            out.append(f',"enhanced":{_json(told.enhanced)}')
        if told.reply and not told.sensitive:
            out.append(f',"reply":{_json(told.reply[:MAX_REPLY])}')
        out.append("}")
    if detail.get("error_class"):
        out.append(f',"error_class":{_json(detail["error_class"])}')
    if detail.get("due_at"):
        out.append(f',"due_at":"{instant(detail["due_at"])}"')
    if not told.sensitive and (reason := _reason(detail, told.producer)):
        out.append(f',"reason":{_json(reason[:MAX_REPLY])}')
    if detail.get("digest"):
        out.append(f',"digest":"{detail["digest"]}"')
    if "parked" in detail:
        out.append(f',"parked":{{"id":"{detail["parked"]}","faults":{told.faults or "[]"}}}')


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


def _read(body: bytes | None) -> dict[str, Any]:
    """What a document that was refused calls itself, if that much of it can be read."""
    said, _ = parse(body or b"")
    out = {}
    for name, key in (("id", "own_id"), ("idempotency_key", "idempotency_key")):
        value = said.get(name) if isinstance(said, dict) else None
        if isinstance(value, str) and KEY.fullmatch(value):
            out[key] = value
    return out
