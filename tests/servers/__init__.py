"""Real servers for the tests: private ports, private directories, gone at the end.

Owns starting, waiting for and stopping Valkey, RabbitMQ, PostgreSQL, Postfix (with
its ``smtp-sink``) and Exim. Never touches a server of the system, a default port or
anything outside the directory it was given; never skips a test because a
server is missing (``./dev test`` fetches what is needed).
"""

from tests.servers.clones import Clones
from tests.servers.exim import Exim
from tests.servers.postfix import Postfix
from tests.servers.postgres import Postgres
from tests.servers.process import Daemon, ServerFailed, free_port
from tests.servers.rabbitmq import RabbitMQ, Vhost
from tests.servers.sink import Sink
from tests.servers.valkey import Valkey

__all__ = [
    "Clones",
    "Daemon",
    "Exim",
    "Postfix",
    "Postgres",
    "RabbitMQ",
    "ServerFailed",
    "Sink",
    "Valkey",
    "Vhost",
    "free_port",
]
