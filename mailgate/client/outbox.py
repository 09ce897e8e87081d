"""An outbox in a producer's own database: mail goes exactly when its transaction commits.

Owns one table in the producer's ``MetaData`` and the relay that publishes from it
(SQLAlchemy 2). What is promised:

* a message is checked when it is put in; what breaks the contract raises there;
* rolled back, it was never there; committed, it is published, once or, when a relay dies
  between the broker's confirm and its own commit, again with the same key: one mail;
* any number of relays may run (on PostgreSQL and MySQL they skip what another has in hand);
* messages put in by one process go in that order, but for retries of other relays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    event,
    insert,
    select,
)
from sqlalchemy.orm import Session, object_session, registry

from mailgate.client.client import Client
from mailgate.client.default import default_client
from mailgate.client.errors import NotPublished
from mailgate.client.message import Message

T = TypeVar("T")
Said = Message | Mapping[str, Any]

#: Rows that a relay takes in one transaction.
BATCH = 100
_NOTED = "mailgate_outbox"

_log = logging.getLogger(__name__)


class Outbox:
    """``Outbox(Base.metadata)`` adds the table ``mailgate_outbox``; your migrations make it.

    ``client`` publishes; the default client where none is given.
    """

    def __init__(
        self, metadata: MetaData, client: Client | None = None, *, table: str = "mailgate_outbox"
    ) -> None:
        self.table = Table(
            table,
            metadata,
            Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
            Column("key", String(256), nullable=False),
            Column("body", Text, nullable=False),
            Column("added_at", BigInteger, nullable=False, comment="ms since 1970"),
        )
        self._client = client
        self._woken = threading.Event()
        # An object of a class of our own: sessions of every kind can add it.
        self._row: Any = type("MailgateOutboxRow", (), {})
        registry().map_imperatively(self._row, self.table)

    @property
    def client(self) -> Client:
        return self._client or default_client()

    def add(self, session: Any, message: Said) -> str:
        """Put a message into the transaction of a session or connection; gives its key.

        Any kind will do: ``Session``, ``AsyncSession``, ``scoped_session``, ``Connection``.
        Raises ``InvalidMessage``.
        """
        values = self._values(message)
        if isinstance(session, Connection):
            session.execute(insert(self.table).values(**values))
        else:
            row = self._row()
            for name, value in values.items():
                setattr(row, name, value)
            session.add(row)
            session.info[_NOTED] = True
        return str(values["key"])

    def on_insert(self, model: type[T], make: Callable[[T], Said | Iterable[Said] | None]) -> None:
        """For every row of ``model`` that a session inserts: the mail that ``make`` makes of it.

        It is in the same transaction. ``make`` may give None, one message or several. Bulk
        statements (``insert(model)``) make no objects, and no mail.
        """

        def inserted(mapper: Any, connection: Connection, target: T) -> None:
            made = make(target)
            if made is None:
                return
            several = [made] if isinstance(made, Message | Mapping) else made
            for one in several:
                connection.execute(insert(self.table).values(**self._values(one)))
            if (session := object_session(target)) is not None:
                session.info[_NOTED] = True

        event.listen(model, "after_insert", inserted)

    def drain(self, engine: Engine, *, most: int | None = None) -> int:
        """Publish what was committed, oldest first, until nothing is left; gives how many.

        ``most`` ends it earlier. Raises ``NotPublished`` when the broker did not take one: it
        stays, and when it is not that one alone, what follows stays too.
        """
        done = 0
        stuck: dict[int, NotPublished] = {}
        while most is None or done < most:
            size = BATCH if most is None else min(BATCH, most - done)
            published, taken = self._drain_some(engine, size, stuck)
            done += published
            if taken < size:
                break
        if stuck:
            raise next(iter(stuck.values()))
        return done

    def start(self, engine: Engine, *, every: float = 1.0) -> Relay:
        """A thread that drains at once after each commit here, and every so many seconds.

        Requests do not wait for the broker. Threads do not survive a fork: start it in each
        worker process, or run ``drain`` in a process of its own.
        """
        return Relay(self, engine, every, self._woken)

    def _drain_some(
        self, engine: Engine, size: int, stuck: dict[int, NotPublished]
    ) -> tuple[int, int]:
        """How many were published of how many that were there; who stays is added to ``stuck``."""
        table = self.table
        query = select(table.c.id, table.c.key, table.c.body).where(table.c.id.not_in(stuck))
        query = query.order_by(table.c.id).limit(size).with_for_update(skip_locked=True)
        published: list[int] = []
        away: NotPublished | None = None
        with engine.begin() as connection:
            rows = connection.execute(query).all()
            before: NotPublished | None = None
            for row in rows:
                try:
                    # After one that failed a single try tells whether it was that one alone.
                    self.client.publish_raw(
                        row.body.encode(),
                        idempotency_key=row.key,
                        deadline=None if before is None else 0.0,
                    )
                except NotPublished as error:
                    if before is not None:
                        away = error
                        break
                    before = stuck[row.id] = error
                else:
                    before = None
                    published.append(row.id)
            if published:
                connection.execute(delete(table).where(table.c.id.in_(published)))
        if away is not None:
            raise away
        return len(published), len(rows)

    def _values(self, message: Said) -> dict[str, Any]:
        body, key = self.client.prepare(message)
        return {"key": key, "body": body.decode(), "added_at": int(time.time() * 1000)}


class Relay:
    """A running relay. ``stop`` ends it; it is a context manager too."""

    def __init__(
        self, outbox: Outbox, engine: Engine, every: float, woken: threading.Event
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._every = every
        self._woken = woken
        self._over = False
        event.listen(Session, "after_commit", self._committed)
        self._thread = threading.Thread(target=self._run, name="mailgate-outbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after what is in hand."""
        self._over = True
        self._woken.set()
        self._thread.join()
        event.remove(Session, "after_commit", self._committed)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *said: object) -> None:
        self.stop()

    def _committed(self, session: Session) -> None:
        if session.info.get(_NOTED):
            self._woken.set()

    def _run(self) -> None:
        while not self._over:
            self._woken.clear()
            try:
                self._outbox.drain(self._engine)
            except Exception:  # noqa: BLE001 (broker or database away: both come back)
                _log.warning("the outbox could not be drained; it is tried again", exc_info=True)
                time.sleep(min(self._every, 1.0))
            self._woken.wait(self._every)
