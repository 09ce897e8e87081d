"""The hourly clean-up, as a worker does it for beat.

Owns the connection that it takes for itself. Never decides what is kept.
"""

from __future__ import annotations

import logging

from mailgate.config.shape import Config

_log = logging.getLogger("mailgate.worker")


def clean_up(config: Config, seconds: float) -> dict[str, int]:
    """Clean for at most ``seconds``; gives how many rows of each kind went."""
    # Here and not above: beat and who only rings need none of it.
    from mailgate.journal.database import Database, JournalAway
    from mailgate.operations.retention import clean

    database = Database(config.journal.url or "", hot=False)
    try:
        done = clean(database, config, seconds)
    except JournalAway as error:
        _log.warning("no clean-up: the journal is away", extra={"error": str(error)})
        return {}
    finally:
        database.close()
    _log.info("cleaned up", extra=done)
    return done
