"""Postfix's ``smtp-sink``: an SMTP server that we did not write.

Owns its command line and its book of received mail (one file a mail, with the
envelope as ``X-Mail-Args`` and ``X-Rcpt-Args``). Knows nothing of mailgate.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.servers.process import Daemon, accepts, find_program, free_port, unprivileged_user


class Sink:
    """A running sink.

    ``options`` are smtp-sink's own: ``-q .`` loses the connection after the dot,
    ``-r RCPT -b "451 4.7.1 Greylisted"`` refuses softly, ``-w 2`` delays.
    ``keep=False`` writes no mail down, for load.
    """

    def __init__(self, directory: Path, *options: str, keep: bool = True) -> None:
        self.directory = directory
        self.mails_directory = directory / "mails"
        self.mails_directory.mkdir(parents=True, exist_ok=True)
        self.host = "127.0.0.1"
        self.port = free_port()
        command = [find_program("smtp-sink", package="postfix")]
        user = unprivileged_user()
        if user:
            os.chown(self.mails_directory, *user)
            command += ["-u", "nobody"]  # it refuses to stay root
        if keep:
            command += ["-d", str(self.mails_directory / "%s.")]
        command += [*options, f"inet:{self.host}:{self.port}", "256"]
        self._daemon = Daemon(
            command, log=directory / "log", ready=lambda: accepts(self.port), grace=2
        )

    def mails(self) -> list[bytes]:
        """The mails received so far, each with the sink's own headers on top.

        Oldest first, to within the milliseconds that a file's time is coarse.
        """
        files = sorted(self.mails_directory.iterdir(), key=lambda p: p.stat().st_mtime_ns)
        return [p.read_bytes() for p in files]

    @property
    def running(self) -> bool:
        return self._daemon.running

    def stop(self) -> None:
        self._daemon.stop()
