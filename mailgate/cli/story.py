"""The story of one message, as JSON and for people. Never asks the journal."""

from __future__ import annotations

import json
from typing import Any

from mailgate.cli.setting import counted, setting

#: Items of a digest that are listed for people.
_ITEMS = 20


def document(told: dict[str, Any], personal: bool) -> dict[str, Any]:
    from mailgate.cli.tables import masked, stamp
    from mailgate.model.ids import spell

    m = told["message"]
    people = {r["id"]: r for r in told["recipients"]}
    document: dict[str, Any] = {
        "id": spell(m["id"]),
        "producer": m["producer"],
        "identity": m["identity"],
        "stream": m["stream"],
        "template": m["template"],
        "accepted_at": stamp(m["accepted_at"]),
        "send_at": stamp(m["send_at"]),
        "expires_at": stamp(m["expires_at"]),
        "tags": json.loads(m["tags"]) if m["tags"] else [],
        "traceparent": m["traceparent"],
        "recipients": [
            {
                "id": spell(r["id"]),
                "kind": r["kind"],
                "recipient": masked(r["email"], personal),
                "state": r["state"],
                "error_class": r["error_class"],
                "attempts": r["attempts"],
                "claims": r["claims"],
                "due_at": stamp(r["due_at"]),
                "digest": spell(told["digests"][r["id"]]["digest_id"])
                if r["id"] in told["digests"]
                else None,
            }
            for r in people.values()
        ],
        "attempts": [
            {
                "recipient": spell(a["recipient_id"]),
                "n": a["n"],
                "relay": a["relay"],
                "started_at": stamp(a["started_at"]),
                "duration_ms": a["ended_at"] - a["started_at"],
                "result": a["kind"],
                "phase": a["phase"],
                "code": a["code"],
                "enhanced": a["enhanced"],
                "reply": a["reply"] if personal else _without_addresses(a["reply"]),
                "error_class": a["error_class"],
            }
            for a in told["attempts"]
        ],
        "events": [
            {
                "at": stamp(e["at"]),
                "recipient": spell(e["recipient_id"]) if e["recipient_id"] else None,
                "seq": e["seq"],
                "event": e["kind"],
                "detail": json.loads(e["detail"]) if e["detail"] else {},
            }
            for e in told["events"]
        ],
        "parked": [
            {"id": spell(p["id"]), "kind": p["kind"], "state": p["state"]} for p in told["parked"]
        ],
    }
    if told["items"]:
        document["items"] = [
            {
                "message": spell(i["message_id"]),
                "id": i["item"],
                "accepted_at": stamp(i["accepted_at"]),
            }
            for i in told["items"]
        ]
    if personal:
        document["body"] = json.loads(m["body"])
        document["metadata"] = json.loads(m["metadata"]) if m["metadata"] else {}
    return document


def published(document: dict[str, Any], told: dict[str, Any]) -> None:
    """Say of each event when its producer was told; of those that nobody is told, nothing."""
    from mailgate.cli.tables import stamp
    from mailgate.journal.outbox import NOT_YET

    config, producer = setting.config(), told["message"]["producer"]
    for event, row in zip(document["events"], told["events"], strict=True):
        if config.tells(row["kind"], producer):
            at = told["published"][row["id"]]
            event["published"] = at != NOT_YET
            event["published_at"] = None if at in (None, NOT_YET) else stamp(at)


def _without_addresses(text: str) -> str:
    from mailgate.log import mask_text

    return mask_text(text)


def lines(d: dict[str, Any]) -> list[str]:
    """The story for people: what it is, who gets it, and what happened, in order of time."""
    out = [f"message {d['id']}  from {d['producer']}, stream {d['stream']}"]
    out.append(f"  template {d['template'] or '(none)'}, identity {d['identity']}")
    for r in d["recipients"]:
        class_ = f" ({r['error_class']})" if r["error_class"] else ""
        out.append(f"  {r['kind']} {r['recipient']}: {r['state']}{class_}  [{r['id']}]")
        if r["waits_for"]:
            out.append(f"    waits for {r['waits_for']}")
        elif r["digest"]:
            out.append(f"    went in the digest {r['digest']}")
    if items := d.get("items", []):
        out.append(f"  a digest of {counted(len(items), 'item')}")
        out += [f"    {i['message']}" + (f"  {i['id']}" * bool(i["id"])) for i in items[:_ITEMS]]
        if len(items) > _ITEMS:
            out.append(f"    and {len(items) - _ITEMS} more: --json has them all")
    story: list[tuple[str, int, str]] = []
    for e in d["events"]:
        who = f"[{e['recipient']}] " if e["recipient"] and len(d["recipients"]) > 1 else ""
        # How everybody stood when an answer was given is for who asked.
        said = {k: v for k, v in e["detail"].items() if v != "" and k != "recipients"}
        detail = ", ".join(f"{k} {_said(k, v)}" for k, v in said.items())
        text = f"{who}{e['event']}" + (f": {detail}" if detail else "") + _told(e)
        story.append((e["at"], 1 if e["seq"] else -1, text))
    for a in d["attempts"]:
        who = f"[{a['recipient']}] " if len(d["recipients"]) > 1 else ""
        reply = f"{a['code'] or ''} {a['reply']}".strip()
        story.append(
            (
                a["started_at"],
                0,
                f"{who}attempt {a['n']} by {a['relay']} ended at "
                f"{a['phase']} after {a['duration_ms']} ms: {reply}",
            )
        )
    out.append("")
    # Only by time: events of one moment (uncertain, then queued again) keep their order.
    story.sort(key=lambda one: one[:2])
    out += [f"  {at[:19].replace('T', ' ')}Z  {text}" for at, _, text in story]
    out += [f"  parked {p['id']}: {p['kind']} ({p['state']})" for p in d["parked"]]
    return out


def _told(event: dict[str, Any]) -> str:
    """Whether the producer knows."""
    if "published" not in event:
        return ""
    at = event["published_at"]
    if not event["published"]:
        return "; not published yet"
    return f"; published at {at[11:19]}Z" if at else "; published"


def _said(key: str, value: object) -> str:
    from mailgate.cli.tables import when

    return when(int(str(value))) if key == "due_at" else str(value)
