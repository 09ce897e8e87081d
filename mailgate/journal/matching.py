"""The conditions of a filter, in SQL, over ``recipients`` joined with ``messages``.

Never reads or changes a row: ``search`` and ``surgery`` do.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from mailgate.journal.filters import Filter
from mailgate.journal.tables import attempts, messages, recipients
from mailgate.model.state import State


def where(connection: sa.Connection, wanted: Filter) -> list[sa.ColumnElement[bool]]:
    """The conditions of a filter over ``recipients`` joined with ``messages``."""
    r, m = recipients.c, messages.c
    sqlite = connection.dialect.name == "sqlite"
    out: list[sa.ColumnElement[bool]] = []
    if wanted.states:
        # Literals: a partial index is used only when the query spells its condition.
        out.append(r.state.in_([sa.literal_column(f"'{State(s).value}'") for s in wanted.states]))
    if wanted.messages:
        out.append(r.message_id.in_(wanted.messages))
    if wanted.recipient is not None:
        out.append(sa.func.lower(r.email) == wanted.recipient.lower())
    if wanted.domain is not None:
        out.append(r.email.like("%@" + _like(wanted.domain.lower()), escape="\\"))
    if wanted.error_class is not None:
        out.append(r.error_class == wanted.error_class)
    for column, value in (
        (m.producer, wanted.producer),
        (m.stream, wanted.stream),
        (m.template, wanted.template),
    ):
        if value is not None:
            out.append(column == value)
    if wanted.key is not None:
        out.append(m.identity == f"key:{wanted.key}")
    if wanted.tag is not None:
        out.append(m.tags.like("%" + _like(json.dumps(wanted.tag)) + "%", escape="\\"))
    tried = []
    if wanted.relay is not None:
        tried.append(attempts.c.relay == wanted.relay)
    if wanted.reply is not None:
        pattern = "%" + _like(wanted.reply.lower()) + "%"
        tried.append(sa.func.lower(attempts.c.reply).like(pattern, escape="\\"))
    if tried:
        # Both of the same attempt.
        out.append(sa.exists().where(attempts.c.recipient_id == r.id, *tried))
    out += [_metadata(sqlite, n, pair) for n, pair in enumerate(wanted.metadata)]
    if wanted.since is not None:
        out.append(m.accepted_at >= wanted.since)
    if wanted.until is not None:
        out.append(m.accepted_at < wanted.until)
    if wanted.changed_before is not None:
        out.append(r.changed_at < wanted.changed_before)
    return out


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


#: A JSON value as people write it; SQLite has no word for true.
_SAID = (
    "CASE j.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(j.value AS TEXT) END"
)


def _metadata(sqlite: bool, n: int, pair: tuple[str, str]) -> sa.ColumnElement[bool]:
    if sqlite:
        each = "EXISTS (SELECT 1 FROM json_each({0}) j WHERE j.key = :k{1} AND {2} = :v{1})"
        sources = ("messages.metadata", "recipients.own, '$.metadata'")
        text = " OR ".join(each.format(source, n, _SAID) for source in sources)
    else:
        text = (
            f"messages.metadata::jsonb ->> :k{n} = :v{n}"
            f" OR recipients.own::jsonb -> 'metadata' ->> :k{n} = :v{n}"
        )
    values = {f"k{n}": pair[0], f"v{n}": pair[1]}
    return sa.text(f"({text})").bindparams(**values)  # type: ignore[return-value]
