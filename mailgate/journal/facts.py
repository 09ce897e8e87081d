"""What all processes of a journal share and none can make up: the key of its HMACs.

Owns the making of that key. It never leaves the journal.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa


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
