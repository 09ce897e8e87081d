"""A stage for acceptance tests: mailgate's own commands as processes, seen from outside.

Owns starting, killing and stopping them, publishing as a stranger's program
does, and three books that must agree: what was published, what the journal
says, and what a relay of our own wrote down. Never imports mailgate but for
what its commands print.
"""

from tests.acceptance.stage.books import Account, Journal
from tests.acceptance.stage.load import mails, publish_amqp, publish_list, publish_stream
from tests.acceptance.stage.proc import Kept, Program, connections_to, cpu_seconds, family, measure
from tests.acceptance.stage.relay import Copy, Relay, gaps
from tests.acceptance.stage.stage import Stage, until
from tests.acceptance.stage.told import Told

__all__ = [
    "Account",
    "Copy",
    "Journal",
    "Kept",
    "Program",
    "Relay",
    "Stage",
    "Told",
    "connections_to",
    "cpu_seconds",
    "family",
    "gaps",
    "mails",
    "measure",
    "publish_amqp",
    "publish_list",
    "publish_stream",
    "until",
]
