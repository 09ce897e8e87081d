"""A migrated journal with short words for what its tests do again and again.

Owns making arrivals, claiming and looking at rows. Everything goes through the
journal's own statements; only ``all``, ``one`` and ``sql`` write SQL themselves.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from mailgate.journal import leases
from mailgate.journal.arrivals import Arrival, Arrivals, BucketKey, NewParked, NewRecipient, Stored
from mailgate.journal.database import Database
from mailgate.journal.leases import Lease
from mailgate.journal.letters import letter_text
from mailgate.journal.orders import Order
from mailgate.journal.queue import Candidate, Head, Queue, Turn
from mailgate.journal.settling import Attempt, Settlement
from mailgate.journal.throttle import Charge
from mailgate.model.address import Address
from mailgate.model.ids import Ids
from mailgate.model.message import Claim
from mailgate.model.state import Lane, State

BUCKET = BucketKey(Lane.NORMAL, "shop", ("first", "second"))


def arrival(key: str, *emails: str, bucket: BucketKey = BUCKET, **changes: Any) -> Arrival:
    """A message as ``intake.accept`` would write it; ``key`` is its identity and its body."""
    kind = changes.pop("kind", "own")
    own = changes.pop("own", None)
    body = letter_text(
        sender=Address("shop@example.com", "Shop"),
        mail_from="shop@example.com",
        domain="example.com",
        subject=f"about {key}",
        text="a line",
        data={"secret": "s3cret"},
        html="<p>s3cret</p>",
        headers=[("X-Code", "s3cret")],
        files=changes.get("attachments", ()),
    )
    values: dict[str, Any] = {
        "identity": f"key:{key}",
        "producer": bucket.producer,
        "body_hash": f"hash of {key}",
        "source": "test",
        "stream": "transactional",
        "sender": "shop@example.com",
        "body": body,
        "recipients": tuple(
            NewRecipient(kind, e, "", bucket, own) for e in emails or (f"{key}@example.org",)
        ),
        "raw": key.encode(),
    }
    return Arrival(**{**values, **changes})


def attempt(kind: str = "defer", relay: str = "first", code: int = 451) -> Attempt:
    return Attempt(relay, 1000, 1001, kind, "rcpt", code, "4.3.0", "try again", "greylisted")


class Rig:
    """One process's view of a journal: its own connection, ids and remembered buckets."""

    def __init__(self, url: str, seed: int | None = None) -> None:
        self.url = url
        self.database = Database(url)
        self.ids = Ids(random.Random(seed).random)
        self.arrivals = Arrivals(self.database, self.ids)
        self.queue = Queue(self.database)

    def close(self) -> None:
        self.database.close()

    # --- writing ---------------------------------------------------------------

    def store(
        self,
        *batch: Arrival,
        refused: Sequence[NewParked] = (),
        forget: Sequence[int] = (),
        orders: Sequence[Order] = (),
    ) -> Stored:
        # In a thread of its own: also tests that are coroutines store.
        with ThreadPoolExecutor(1) as thread:
            storing = self.arrivals.store(batch, refused, forget, orders)
            return thread.submit(asyncio.run, storing).result()

    def add(self, count: int, prefix: str = "m", **changes: Any) -> list[int]:
        """``count`` messages of one recipient each; gives the recipients' ids in order."""
        stored = self.store(*(arrival(f"{prefix}{n}", **changes) for n in range(count)))
        order = {message: place for place, message in enumerate(stored.ids)}
        rows = self.all("SELECT id, message_id FROM recipients")
        mine = [(order[r.message_id], r.id) for r in rows if r.message_id in order]
        return [id_ for _, id_ in sorted(mine)]

    def lease(
        self, kind: str = "worker", host: str = "here", boot: str = "b", spool: str = ""
    ) -> int:
        id_ = self.ids.take(self.database.now())
        lease = Lease(id_, kind, host, boot, 1, spool)
        self.database.run_now(lambda c: leases.write(c, lease, self.database.now()))
        return id_

    def heads(self, most: int = 1000, *, of: int = 1, place: int = 0, ahead: int = 0) -> list[Head]:
        """The heads of all open buckets, ``ahead`` milliseconds from now."""
        now = self.database.now() + ahead

        def look(c: sa.Connection) -> list[Head]:
            return [
                head
                for bucket in self.queue.due(c, now)
                for head in self.queue.heads(c, bucket, now, most, of, place)
            ]

        return self.database.read_now(look)

    def turn(
        self,
        lease: int,
        heads: Sequence[Head] = (),
        settlements: Sequence[Settlement] = (),
        charges: Sequence[Charge] = (),
        expired: Sequence[Head] = (),
    ) -> Turn:
        candidates = [Candidate(h, h.bucket.key.route[0], tuple(charges)) for h in heads]
        return self.database.run_now(
            lambda c: self.queue.turn(
                c,
                lease=lease,
                settlements=settlements,
                candidates=candidates,
                expired=expired,
            )
        )

    def claim(self, lease: int, most: int = 1000, charges: Sequence[Charge] = ()) -> list[Claim]:
        return self.turn(lease, self.heads(most), charges=charges).claims

    def settle(self, *settlements: Settlement) -> set[int]:
        now = self.database.now()
        return self.database.run_now(lambda c: self.queue.settling.write(c, settlements, now))

    # --- looking ---------------------------------------------------------------

    def all(self, statement: str, **values: Any) -> list[Any]:
        return self.database.read_now(lambda c: list(c.execute(sa.text(statement), values).all()))

    def one(self, statement: str, **values: Any) -> Any:
        [row] = self.all(statement, **values)
        return row

    def count(self, table: str, where: str = "true", **values: Any) -> int:
        return int(self.one(f"SELECT count(*) AS n FROM {table} WHERE {where}", **values).n)

    def row(self, recipient_id: int) -> Any:
        return self.one("SELECT * FROM recipients WHERE id = :id", id=recipient_id)

    def events(self, recipient_id: int) -> list[tuple[int, str]]:
        rows = self.all(
            "SELECT seq, kind FROM events WHERE recipient_id = :id ORDER BY id", id=recipient_id
        )
        return [(r.seq, r.kind) for r in rows]

    def sql(self, statement: str, **values: Any) -> None:
        self.database.run_now(lambda c: c.execute(sa.text(statement), values))


def settlement(claim: Claim, *path: State, **changes: Any) -> Settlement:
    values: dict[str, Any] = {
        "recipient_id": claim.recipient_id,
        "message_id": claim.message_id,
        "token": claim.token,
        "path": path,
        # Due for a while, and not for so long that it is given up.
        "due_at": int(time.time() * 1000) - 3_600_000,
        "sensitive": claim.sensitive,
    }
    return Settlement(**{**values, **changes})
