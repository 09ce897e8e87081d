"""Servers as fixtures, started when a test first asks for one.

Each pytest process (also each of xdist's) has servers of its own: a test may
stop, kill or restart one without harm to the tests beside it, and unit tests
run with none. ``valkey``, ``rabbitmq`` and ``fresh_database`` are empty at the
start of each test.

A test marked ``alone`` measures time or processor and gets the machine for
itself: no other test runs meanwhile in any process. These come last.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import Postgres, RabbitMQ, Sink, Valkey, Vhost

# Two processes share two cores with real servers: how long an example takes says nothing.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A short path for sockets, data and logs; any user may pass through it."""
    directory = Path(tempfile.mkdtemp(prefix="mailgate-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_server(server_directory: Path) -> Iterator[Valkey]:
    server = Valkey(server_directory / "valkey")
    yield server
    server.kill()  # nobody needs what it holds


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """A Valkey that holds nothing."""
    if not valkey_server.running:  # the test before us stopped it
        valkey_server.start()
    valkey_server.reset()
    return valkey_server


@pytest.fixture(scope="session")
def rabbitmq_server(server_directory: Path) -> Iterator[RabbitMQ]:
    server = RabbitMQ(server_directory / "rabbitmq")
    yield server
    server.close()


@pytest.fixture
def rabbitmq(rabbitmq_server: RabbitMQ) -> Iterator[Vhost]:
    """A virtual host of RabbitMQ that holds nothing; ``.url`` for clients, ``.node`` behind it."""
    if not rabbitmq_server.running:
        rabbitmq_server.start()
    vhost = rabbitmq_server.fresh_vhost()
    yield vhost
    if rabbitmq_server.running:
        rabbitmq_server.drop(vhost)


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[Postgres]:
    server = Postgres(server_directory / "postgres")
    yield server
    server.kill()  # nobody needs what it would still write down


@pytest.fixture
def fresh_database(postgres_server: Postgres) -> Iterator[Callable[..., str]]:
    """``fresh_database(template="template1")`` makes a database and gives its SQLAlchemy URL."""
    if not postgres_server.running:
        postgres_server.start()
    made: list[str] = []

    def make(template: str = "template1") -> str:
        made.append(postgres_server.fresh_database(template))
        return postgres_server.url(made[-1])

    yield make
    if postgres_server.running:
        for name in made:
            postgres_server.drop(name)


@pytest.fixture
def postgres_url(fresh_database: Callable[..., str]) -> str:
    """The SQLAlchemy URL of an empty database."""
    return fresh_database()


@pytest.fixture
def smtp_sink(server_directory: Path) -> Iterator[Callable[..., Sink]]:
    """``smtp_sink(*options, keep=True)`` starts a Postfix smtp-sink with those options."""
    directory = Path(tempfile.mkdtemp(prefix="sink-", dir=server_directory))
    directory.chmod(0o711)
    started: list[Sink] = []

    def start(*options: str, keep: bool = True) -> Sink:
        started.append(Sink(directory / str(len(started)), *options, keep=keep))
        return started[-1]

    yield start
    for sink in started:
        sink.stop()


_ALONE = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "alone: measures time or processor; no other test runs meanwhile"
    )
    if not hasattr(config, "workerinput"):  # not in a worker of xdist: the run itself
        directory = tempfile.TemporaryDirectory(prefix="mailgate-alone-")
        config.add_cleanup(directory.cleanup)
        config.stash[_ALONE] = directory.name


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests marked ``alone`` at the end, in their order.

    Between others each would wait for the longest that runs, with a core idle. At the end
    they wait for each other alone.
    """
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["alone"] = node.config.stash[_ALONE]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test marked ``alone`` wait for the others, and the others for it.

    Readers and one writer over file locks that all xdist processes share. A
    writer waits inside the gate, so that no stream of readers can starve it.
    This is outside of pytest-timeout's clock.
    """
    workerinput = getattr(item.config, "workerinput", None)
    if workerinput is None:
        return (yield)
    directory = Path(workerinput["alone"])
    mode = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with (directory / "gate").open("w") as gate, (directory / "lock").open("w") as lock:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, mode)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)
