"""Firing a schedule, as a worker does it for the clock or a command for a person.

Owns the connection and the catalogue that it takes for itself. Never decides what is sent.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from mailgate.config.shape import Config
from mailgate.model.state import Lane

_log = logging.getLogger("mailgate.worker")


def fire(config: Config, name: str, at: int, ring: Callable[[Lane], None]) -> dict[str, int]:
    """Carry out one fire that is due; gives how many messages and recipients it came to."""
    # Here and not above: beat and who only rings need none of it.
    from mailgate.journal.arrivals import Arrivals
    from mailgate.journal.database import Database, JournalAway
    from mailgate.model.ids import Ids
    from mailgate.render.catalogue import Catalogue, built_in_root
    from mailgate.schedules.firing import Firing

    roots = (*config.templates.path, built_in_root())
    catalogue = Catalogue.load(roots, default_locale=config.default_locale)
    database = Database(config.journal.url or "", hot=False)
    try:
        arrivals = Arrivals(database, Ids(random.random))
        done = Firing(config, database, arrivals, catalogue.check_data).fire(name, at)
    except JournalAway as error:
        _log.warning("no fire: the journal is away", extra={"error": str(error)})
        return {}
    finally:
        database.close()
    for lane in done.lanes:
        ring(lane)
    return {"messages": done.messages, "recipients": done.recipients}
