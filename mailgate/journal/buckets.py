"""The buckets: waiting recipients that have lane, producer, route and domain in common.

Owns their numbers. Never chooses who waits where.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from mailgate.model.state import Lane
from mailgate.model.value import Value


class BucketKey(Value, frozen=True):
    """What the waiting recipients of one bucket have in common."""

    lane: Lane
    producer: str
    route: tuple[str, ...]
    domain: str = ""


def ensure_buckets(connection: sa.Connection, keys: Iterable[BucketKey]) -> dict[BucketKey, int]:
    """The numbers of buckets, made when they are new."""
    return {key: ensure_bucket(connection, key) for key in keys}


def ensure_bucket(connection: sa.Connection, key: BucketKey) -> int:
    """The number of a bucket, made when it is new."""
    values = {
        "lane": key.lane.value,
        "producer": key.producer,
        "route": ",".join(key.route),
        "domain": key.domain,
    }
    connection.execute(
        sa.text(
            "INSERT INTO buckets (lane, producer, route, domain, open_at)"
            " VALUES (:lane, :producer, :route, :domain, 0)"
            " ON CONFLICT (lane, producer, route, domain) DO NOTHING"
        ),
        values,
    )
    return int(
        connection.execute(
            sa.text(
                "SELECT id FROM buckets WHERE lane = :lane AND producer = :producer"
                " AND route = :route AND domain = :domain"
            ),
            values,
        ).scalar_one()
    )
