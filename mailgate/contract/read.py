"""Bytes → Submission, Command or Refusal: the one reading of what producers publish.

Owns the order of the checks (size, encoding, JSON, contract) and the hash by
which a repeat is told from a conflict. Pure: no clock, no I/O, and it raises
for no input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pydantic import ValidationError

from mailgate.contract import commands, fields
from mailgate.contract.commands import VERBS, Command
from mailgate.contract.faults import (
    Fault,
    Place,
    RefusedRecipient,
    faults_of,
    path,
    shortened,
)
from mailgate.contract.rules import between, canonical
from mailgate.contract.strict_json import KEY, at_once, parse
from mailgate.contract.submission import NAME, PATTERNS, Submission
from mailgate.model.plain import canonical as canonical_bytes

_FIELDS = tuple(f.alias or name for name, f in Submission.model_fields.items())
_OF_COMMANDS = tuple(Command.model_fields)
_PRODUCER = re.compile(NAME)

#: What may stand as content encoding and changes nothing (kombu calls the charset so).
_NO_ENCODING = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii", "identity", "binary", "8bit"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a whole document is refused, and by what its producer may know it, if legible."""

    faults: tuple[Fault, ...]
    producer: str | None = None
    id: str | None = None
    idempotency_key: str | None = None

    @property
    def reason(self) -> str:
        """All faults on one line."""
        return "; ".join(map(str, self.faults))


def encoding_fault(content_encoding: str | None) -> str | None:
    """The reason to refuse a content encoding: compressed bodies are never unpacked."""
    if content_encoding is None or content_encoding.strip().lower() in _NO_ENCODING:
        return None
    return "has a content encoding: publish plain UTF-8, neither compressed nor encoded"


def read(
    body: bytes, *, max_bytes: int, content_encoding: str | None = None
) -> Submission | Command | Refusal:
    """Read one document as published; ``max_bytes`` caps it before anything is parsed.

    A document with a verb is a command. All faults are named at once. When only entries
    of ``recipients`` are at fault and at least one is good, the good ones are accepted and
    the others stand in ``Submission.refused``.
    """
    if len(body) > max_bytes:
        return Refusal((Fault("", f"is larger than {max_bytes} bytes"),))
    encoded = encoding_fault(content_encoding)
    if encoded:
        return Refusal((Fault("", encoded),))
    quick = at_once(body)
    document, flaws = parse(body) if quick is None else (quick[0], ())
    if not isinstance(document, dict):
        faults = [fault for _, fault in flaws]
        return Refusal(tuple(faults) or (Fault("", "must be a JSON object"),))
    if not VERBS.isdisjoint(document):
        return _command(document, list(flaws))
    raw, written, _ = canonical(document)
    found = list(flaws)
    if len(body) > fields.MAX_DATA:
        found += _large_data(raw)
    try:
        submission = Submission.model_validate(document)
    except ValidationError as error:
        flawed = {place for place, _ in found}
        faulty = faults_of(error, raw, written, _FIELDS, PATTERNS)
        found += [(place, fault) for place, fault in faulty if place not in flawed]
        found += _rules_between(document, raw, written)
    else:
        if not found:
            hashed = body_hash(document, None if quick is None else quick[1])
            return submission.read_as(hashed)
    kept = None if flaws else _without_the_bad(raw, found)
    if kept is None:
        return _refusal(raw, found)
    submission, refused = kept
    return submission.read_as(body_hash(document), refused)


def _command(document: dict[str, Any], found: list[tuple[Place, Fault]]) -> Command | Refusal:
    flawed = {place for place, _ in found}
    try:
        command = Command.model_validate(document)
    except ValidationError as error:
        faulty = faults_of(error, document, {}, _OF_COMMANDS, PATTERNS)
        found += [(place, fault) for place, fault in faulty if place not in flawed]
    found += [(place, Fault(path(place), rule)) for place, rule in commands.between(document)]
    if found:
        return _refusal(document, found)
    command._body_hash = body_hash(document)
    return command


def body_hash(document: Mapping[str, Any], written: bytes | None = None) -> str:
    """32 hex digits over what was said: neither key order, spacing nor the trace counts.

    ``written`` are the document's canonical bytes, where they are there already.
    """
    if written is None or "traceparent" in document:
        written = canonical_bytes({k: v for k, v in document.items() if k != "traceparent"})
    return blake2b(written, digest_size=16).hexdigest()


def remainder(body: bytes, submission: Submission) -> bytes:
    """The document with only the refused recipients, so that they can be parked and replayed.

    It carries neither id nor key: under those the good ones were accepted.
    """
    document, _ = parse(body)
    kept = {k: v for k, v in document.items() if k not in ("id", "idempotency_key", "traceparent")}
    kept["recipients"] = [r.entry for r in submission.refused]
    return json.dumps(kept, ensure_ascii=False).encode()


def _large_data(raw: Mapping[str, Any]) -> list[tuple[Place, Fault]]:
    """Which data is over the cap; only asked when the whole document is."""
    found: list[tuple[Place, Fault]] = []
    entries = raw.get("recipients")
    holders: list[tuple[Place, Any]] = [((), raw)]
    if isinstance(entries, list):
        holders += [(("recipients", i), entry) for i, entry in enumerate(entries)]
    for place, holder in holders:
        data = holder.get("data") if isinstance(holder, dict) else None
        if isinstance(data, dict) and data:
            try:
                size = len(json.dumps(data, separators=(",", ":"), ensure_ascii=False))
            except (TypeError, ValueError):
                continue  # has a flaw, which is reported by itself
            if size > fields.MAX_DATA:
                rule = f"must not be larger than {fields.MAX_DATA // 1024} kB"
                found.append(((*place, "data"), Fault(path((*place, "data")), rule)))
    return found


def _rules_between(
    document: dict[str, Any], raw: dict[str, Any], written: Mapping[str, str]
) -> list[tuple[Place, Fault]]:
    """What the model says only once every field is right by itself."""
    _, _, twice = canonical(document)
    found: list[tuple[Place, Fault]] = [(place, Fault(path(place), rule)) for place, rule in twice]
    for place, rule in between(raw):
        shown = (written.get(str(place[0]), place[0]), *place[1:])
        found.append((place, Fault(path(shown), rule)))
    return found


def _without_the_bad(
    raw: dict[str, Any], found: list[tuple[Place, Fault]]
) -> tuple[Submission, tuple[RefusedRecipient, ...]] | None:
    """The submission with its good recipients, when only others are at fault."""
    bad: dict[int, list[Fault]] = {}
    for place, fault in found:
        match place:
            case ("recipients", int(index), *_):
                bad.setdefault(index, []).append(fault)
            case _:
                return None
    entries = raw["recipients"]
    good = [entry for i, entry in enumerate(entries) if i not in bad]
    if not good:
        return None
    refused = tuple(RefusedRecipient(i, shortened(bad[i]), entries[i]) for i in sorted(bad))
    return Submission.model_validate({**raw, "recipients": good}), refused


def _refusal(raw: Mapping[str, Any], found: list[tuple[Place, Fault]]) -> Refusal:
    faults = list(dict.fromkeys(fault for _, fault in found))
    return Refusal(
        shortened(faults),
        producer=_legible(raw.get("producer"), _PRODUCER),
        id=_legible(raw.get("id"), KEY),
        idempotency_key=_legible(raw.get("idempotency_key"), KEY),
    )


def _legible(value: Any, pattern: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
