"""What all processes of a journal share: the key of its HMACs, and small notes by name.

Owns the making of that key. It never leaves the journal.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import sqlalchemy as sa

#: The note of the last clean-up: when (ms), whether it finished, how many of what.
CLEANED = "cleaned"


def hmac_key(connection: sa.Connection) -> bytes:
    """The key of throttle counts and bounce addresses, made at the first look.

    Runs in a write transaction.
    """
    connection.execute(
        sa.text(
            "INSERT INTO facts (name, value) VALUES ('hmac_key', :value)"
            " ON CONFLICT (name) DO NOTHING"
        ),
        {"value": secrets.token_hex(32)},
    )
    value = connection.execute(
        sa.text("SELECT value FROM facts WHERE name = 'hmac_key'")
    ).scalar_one()
    return bytes.fromhex(value)


def note(connection: sa.Connection, name: str, value: object) -> None:
    """Remember one value of JSON under a name."""
    connection.execute(
        sa.text(
            "INSERT INTO facts (name, value) VALUES (:name, :value)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        ),
        {"name": name, "value": json.dumps(value)},
    )


def noted(connection: sa.Connection, name: str) -> Any:
    """What is remembered under a name, or None."""
    found = connection.execute(
        sa.text("SELECT value FROM facts WHERE name = :name"), {"name": name}
    ).scalar()
    return None if found is None else json.loads(found)
