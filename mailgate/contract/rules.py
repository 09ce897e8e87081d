"""What lies between the fields of a message: other spellings, and what excludes what.

Owns the aliases and every rule about more than one field. Looks at documents as
written, so that these faults can be named beside those of single fields; types
are not its business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mailgate.contract import fields
from mailgate.contract.faults import Place

#: Other spellings that people know from elsewhere, and the field each stands for.
ALIASES: dict[str, str] = {
    "template_id": "template",
    "context": "data",
    "variables": "data",
    "personalisation": "data",
    "personalization": "data",
    "dynamic_template_data": "data",
    "scheduled_at": "send_at",
    "scheduled_for": "send_at",
    "html_body": "html",
    "body_html": "html",
    "text_body": "text",
    "body_text": "text",
}

DATA_ALIASES = frozenset(k for k, v in ALIASES.items() if v == "data")


#: What an item does not say: its digest does, or there is no room for it there.
_NOT_OF_ITEMS = {
    "cc": "which goes to each recipient alone",
    "bcc": "which goes to each recipient alone",
    "template": "whose template the operators name",
    "subject": "whose template has one",
    "text": "whose item is data",
    "html": "whose item is data",
    "attachments": "which takes no files",
    "send_at": "whose time the operators name",
    "throttle": "which is throttled as a whole",
}


def canonical(
    raw: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, str], list[tuple[Place, str]]]:
    """Rename aliases; also gives the spelling used for each, and the fields given twice."""
    spelled, faults = renamed(raw, ALIASES)
    if not spelled:
        return raw, {}, faults
    out = {ALIASES.get(k, k): v for k, v in raw.items()}
    # A field under both its names stands as the canonical one: its fault names the other.
    return out, {ALIASES[k]: k for k in spelled if ALIASES[k] not in raw}, faults


def renamed(
    raw: Mapping[str, Any], aliases: Mapping[str, str]
) -> tuple[list[str], list[tuple[Place, str]]]:
    if aliases.keys().isdisjoint(raw):
        return [], []
    spelled = [k for k in raw if k in aliases]
    names: dict[str, list[str]] = {}
    for key in raw:
        names.setdefault(aliases.get(key, key), []).append(key)
    faults: list[tuple[Place, str]] = [
        ((keys[-1],), f"is the same field as {keys[0]}; give one of them")
        for keys in names.values()
        if len(keys) > 1
    ]
    return spelled, faults


def between(raw: Mapping[str, Any]) -> list[tuple[Place, str]]:
    """The rules between fields, over canonical names; types are not its business."""
    faults: list[tuple[Place, str]] = []

    def fault(field: str, rule: str) -> None:
        faults.append(((field,), rule))

    if raw.get("recipients"):
        for field in ("to", "cc", "bcc"):
            if raw.get(field):
                fault(field, "cannot go with recipients, who get a private message each")
    elif not raw.get("to"):
        fault("to", "is required, or recipients instead")
    shared = sum(_count(raw.get(field)) for field in ("to", "cc", "bcc"))
    if shared > fields.MAX_SHARED:
        fault("to", f"must not hold more than {fields.MAX_SHARED} addresses with cc and bcc")
    if raw.get("digest"):
        for field, why in _NOT_OF_ITEMS.items():
            if raw.get(field):
                fault(field, f"cannot go with digest, {why}")
        if not raw.get("data") and not raw.get("recipients"):
            fault("data", "is required with digest: it is the item")
    elif raw.get("template"):
        for field in ("text", "html"):
            if raw.get(field):
                fault(field, "cannot go with a template, which makes both parts")
    elif not (raw.get("text") or raw.get("html")):
        if raw.get("subject"):
            fault("text", "is required without a template, or html instead")
        else:
            fault("template", "is required, or subject with text or html instead")
    elif not raw.get("subject"):
        fault("subject", "is required without a template")
    if raw.get("send_at") and raw.get("expires_at"):
        try:
            if fields.instant(raw["expires_at"]) <= fields.instant(raw["send_at"]):
                fault("expires_at", "must be later than send_at")
        except ValueError:
            pass  # each is refused by itself
    return faults


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) else bool(value)
