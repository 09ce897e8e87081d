"""Debian's Exim as a relay: a second server that we did not write, with words of its own.

Owns its configuration file and spool. Accepted mail is kept in files, one each. Knows
nothing of mailgate.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.servers.process import Daemon, accepts, free_port, unprivileged_user
from tests.servers.unpacked import account, disguise, disguised, hand_over, tree

_CONFIG = """\
primary_hostname = relay.example
spool_directory = %(directory)s/spool
log_file_path = %(directory)s/%%slog
pid_file_path =
daemon_smtp_ports = %(port)d
local_interfaces = 127.0.0.1
exim_path = %(tree)s/usr/sbin/exim4
exim_user = %(uid)d
exim_group = %(gid)d
keep_environment = PATH : LD_PRELOAD : LD_LIBRARY_PATH : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
never_users =
host_lookup =
rfc1413_hosts =
hosts_treat_as_local =
domainlist served = example.net : example.org
qualify_domain = relay.example
acl_smtp_mail = check_mail
acl_smtp_rcpt = check_rcpt
acl_smtp_data = check_data
%(main)s
begin acl
%(acl)s
begin routers
users:
  driver = accept
  domains = +served
  local_parts = ann : bob
  transport = keep
begin transports
keep:
  driver = appendfile
  directory = %(directory)s/mails
  create_directory = false
  maildir_format = false
  mailstore_format = true
  user = %(uid)d
  group = %(gid)d
begin authenticators
%(authenticators)s
"""


class Exim:
    """A running Exim.

    ``main``, ``acl`` and ``authenticators`` are parts of its configuration; ``acl`` has
    ``check_mail``, ``check_rcpt`` and ``check_data``. Its users are ann and bob at
    example.net and example.org.
    """

    def __init__(
        self,
        directory: Path,
        *,
        main: str = "",
        acl: str,
        authenticators: str = "",
        files: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        for name in ("spool", "mails"):
            (directory / name).mkdir(parents=True)
        root = tree("exim", directory)
        uid, gid = account()
        self.port = free_port()
        said = {"tree": root, "directory": directory, "port": self.port, "uid": uid, "gid": gid}
        parts = {"main": main % said, "acl": acl, "authenticators": authenticators % said}
        config = directory / "exim.conf"
        config.write_text(_CONFIG % {**said, **parts})
        for name, text in (files or {}).items():
            (directory / name).write_text(text)
        env = disguise(root, directory, ("Debian-exim",))
        hand_over(directory)
        self._daemon = Daemon(
            disguised(env, root / "usr/sbin/exim4", "-C", config, "-bdf"),
            log=directory / "exim.log",
            ready=lambda: accepts(self.port),
            user=unprivileged_user(),
            grace=3,
        )

    def mails(self) -> list[bytes]:
        """The mails delivered so far, as they were handed on."""
        return [path.read_bytes() for path in (self.directory / "mails").glob("*.msg")]

    def log(self) -> str:
        file = self.directory / "mainlog"
        return file.read_text(errors="replace") if file.exists() else ""

    def stop(self) -> None:
        self._daemon.stop()
