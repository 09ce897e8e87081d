"""What a claim is made of: the letter, what an earlier attempt rendered, the files.

Owns reading the content of claimed recipients, a statement for all of them; what is heavy
one by one, when somebody has room for it (``whole``). Never claims: ``queue`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailgate.journal.database import Database, packed
from mailgate.journal.letters import read_letter
from mailgate.model import plain
from mailgate.model.address import Address
from mailgate.model.message import Attachment, Claim
from mailgate.model.state import Lane
from mailgate.model.value import replace


class Way(NamedTuple):
    """By which relay a recipient goes, and in which lane."""

    relay: str
    lane: Lane


class _Content(NamedTuple):
    """What a claim is made from, in the order of ``_CLAIMED``."""

    id: int
    token: int
    message_id: int
    kind: str
    email: str
    name: str
    own: str | None
    attempts: int
    claims: int
    expires_at: int | None
    producer: str
    stream: str
    accepted_at: int
    send_at: int | None
    sensitive: bool
    body: str
    traceparent: str | None


_CLAIMED = (
    "r.id, r.token, r.message_id, r.kind, r.email, r.name, r.own, r.attempts, r.claims,"
    " r.expires_at, m.producer, m.stream, m.accepted_at, m.send_at, m.sensitive, m.body,"
    " m.traceparent"
)


#: Files of a message, or bytes of an earlier attempt, that are read with the claim.
LIGHT = 64 * 1024


class Contents:
    def __init__(self, database: Database) -> None:
        ids = database.rows({"id": "bigint"})
        self._content = sa.text(
            f"SELECT {_CLAIMED} FROM recipients r"
            f" {database.join('messages', 'm', 'id', 'r.message_id')}"
            f" WHERE {database.among('r.id', ids)}"
        )
        self._stored = sa.text(
            f"SELECT recipient_id, length(content), CASE WHEN length(content) <= {LIGHT}"
            f" THEN content END FROM renderings WHERE recipient_id IN (SELECT id FROM {ids})"
        )
        self._heavy = sa.text("SELECT content FROM renderings WHERE recipient_id = :id")
        self._files = sa.text(
            "SELECT message_id, filename, content_type, content_id, content FROM attachments"
            f" WHERE message_id IN (SELECT id FROM {ids}) ORDER BY message_id, n"
        )

    def read(self, connection: sa.Connection, ways: Mapping[int, Way]) -> list[Claim]:
        """The claims of the recipients in ``ways``, in its order."""
        rows = packed([(i,) for i in ways])
        content = connection.execute(self._content, {"rows": rows})
        # By position: SQLAlchemy looks a name up in each row anew.
        found = {row[0]: _Content(*row) for row in content}
        bodies: dict[int, dict[str, Any]] = {}
        for row in found.values():
            if row.message_id not in bodies:
                bodies[row.message_id] = plain.read(row.body)
        stored = self._rendered(connection, [row.id for row in found.values() if row.attempts])
        light = [m for m, body in bodies.items() if body.get("files") and _size(body) <= LIGHT]
        files = self._attached(connection, light)
        claims = []
        for i, way in ways.items():
            row = found[i]
            body = bodies[row.message_id]
            kept, said = stored.get(i, (0, None))
            claim = _claim(row, body, way, files.get(row.message_id, ()), said)
            if kept > LIGHT:
                claim = replace(claim, unread=kept, rendered=True)
            elif not kept and _size(body) > LIGHT:
                claim = replace(claim, unread=_size(body))
            claims.append(claim)
        return claims

    def whole(self, connection: sa.Connection, claim: Claim) -> Claim:
        """The claim with what was not read yet."""
        if claim.rendered:
            kept = connection.execute(self._heavy, {"id": claim.recipient_id}).scalar_one()
            return replace(claim, stored=bytes(kept))
        files = self._attached(connection, [claim.message_id]).get(claim.message_id, [])
        return replace(claim, letter=replace(claim.letter, attachments=tuple(files)))

    def _rendered(
        self, connection: sa.Connection, ids: Sequence[int]
    ) -> dict[int, tuple[int, bytes | None]]:
        """The size of what earlier attempts rendered, and the bytes where they are light."""
        if not ids:
            return {}
        kept = connection.execute(self._stored, {"rows": packed([(i,) for i in ids])})
        return {i: (size, None if said is None else bytes(said)) for i, size, said in kept}

    def _attached(
        self, connection: sa.Connection, message_ids: Sequence[int]
    ) -> dict[int, list[Attachment]]:
        files: dict[int, list[Attachment]] = {}
        if message_ids:
            rows = packed([(m,) for m in message_ids])
            for f in connection.execute(self._files, {"rows": rows}):
                files.setdefault(f.message_id, []).append(
                    Attachment(f.filename, f.content_type, bytes(f.content), f.content_id)
                )
        return files


def _size(body: Mapping[str, Any]) -> int:
    return int(body.get("bytes", 0))


def _claim(
    row: _Content,
    body: Mapping[str, Any],
    way: Way,
    files: Sequence[Attachment],
    stored: bytes | None,
) -> Claim:
    address = Address(row.email, row.name)
    return Claim(
        recipient_id=row.id,
        token=row.token,
        message_id=row.message_id,
        producer=row.producer,
        stream=row.stream,
        lane=way.lane,
        relay=way.relay,
        address=address,
        letter=read_letter(
            body,
            message_id=row.message_id,
            recipient_id=row.id,
            date=max(row.accepted_at, row.send_at or 0),
            kind=row.kind,
            address=address,
            own=plain.read(row.own) if row.own else None,
            files=files,
        ),
        mail_from=body["mail_from"],
        accepted_at=row.accepted_at,
        attempts=row.attempts,
        claims=row.claims,
        expires_at=row.expires_at,
        sensitive=bool(row.sensitive),
        stored=stored,
        traceparent=row.traceparent,
    )
