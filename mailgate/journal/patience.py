"""How long PostgreSQL is waited for, and how long it waits for us.

Owns the ends of a connection on which nothing comes any more: a network that loses
packets, or a server that stands still, closes nothing, and libpq would wait for ever.
Loaded with psycopg, and so only where the journal is PostgreSQL.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from psycopg import Connection, OperationalError
from psycopg.errors import _WaitTimeout

#: Seconds for one statement of a process at work. They take milliseconds; at a lease's
#: length nobody may send any more by what was claimed.
PATIENCE = 10.0
#: And of a person's command or of the hourly cleaning, which may read all there is.
LONG = 120.0

#: Seconds after which the server ends a transaction in which its client has gone silent:
#: until then the rows that it has locked are nobody's.
_IDLE = 10


class Patient(Connection[Any]):
    """A connection whose statements end within ``patience`` seconds, answered or not."""

    patience: float = PATIENCE

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None:
            # psycopg's own, with an answer of its own to it.
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience)
        except _WaitTimeout:
            # The reply may yet come, and would be taken for that to the next statement.
            self.close()
            raise OperationalError(f"no answer within {self.patience:g} s") from None


def arguments(patience: float) -> dict[str, Any]:
    """What ``connect`` is told: the kernel's own looks for a peer that is gone."""
    return {
        # libpq knows no less than 2.
        "connect_timeout": max(2, min(10, int(patience))),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": int(min(patience, PATIENCE) * 1000),
    }


def options(patience: float) -> str:
    """What the server is told for the session.

    A statement that is slow is ended there, a moment before we would give up: then it is
    known that nothing of it stands. (Not so a COMMIT, which that limit never cuts short.)
    """
    told = {
        "statement_timeout": int(patience * 950),
        "idle_in_transaction_session_timeout": _IDLE * 1000,
        "tcp_keepalives_idle": _IDLE,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
    }
    return " ".join(f"-c {name}={value}" for name, value in told.items())


def make_patient(engine: sa.Engine, patience: float) -> None:
    """Have ``engine`` connect so."""

    def connect(_dialect: Any, _record: Any, args: Any, given: dict[str, Any]) -> Patient:
        made = Patient.connect(*args, **given)
        made.patience = patience
        return made

    sa.event.listen(engine, "do_connect", connect)
