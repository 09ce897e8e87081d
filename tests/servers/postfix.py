"""Debian's Postfix as a relay: its master, its smtpd, SASL and TLS, on private ports.

Owns its configuration directory and queue, and one port for each ``smtpd`` that a test
wants, with settings of its own. What it accepts goes to one next hop. Knows nothing of
mailgate.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers.process import Daemon, accepts, free_port, unprivileged_user
from tests.servers.unpacked import disguise, disguised, hand_over, tree

_QUEUES = "active bounce corrupt defer deferred flush hold incoming maildrop pid private public"
_MASTER = """\
cleanup   unix n - n - 0 cleanup
strict    unix n - n - 0 cleanup
  -o { header_checks = regexp:%(directory)s/header_checks }
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 discard
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
proxymap  unix - - n - - proxymap
error     unix - - n - - error
retry     unix - - n - - error
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
discard   unix - - n - - discard
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""
_MAIN = """\
compatibility_level = 3.6
queue_directory = %(directory)s/queue
data_directory = %(directory)s/data
daemon_directory = %(tree)s/usr/lib/postfix/sbin
command_directory = %(tree)s/usr/sbin
shlib_directory = no
mail_owner = postfix
setgid_group = postdrop
default_privs = nobody
maillog_file = %(directory)s/mail.log
maillog_file_prefixes = %(directory)s
import_environment = MAIL_CONFIG MAIL_LOGTAG POSTLOG_SERVICE POSTLOG_HOSTNAME TZ LANG=C %(keep)s
myhostname = relay.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
local_transport = error:5.1.1 no local mail here
default_transport = %(next)s
alias_maps =
alias_database =
smtp_tls_security_level = none
smtp_host_lookup = native
smtpd_client_event_limit_exceptions =
smtpd_sasl_local_domain = relay.example
"""


class Postfix:
    """A running Postfix.

    ``services`` are the smtpd's wanted: a name, and the settings that differ from
    main.cf; ``port(name)`` is where it listens. ``main`` are more lines of main.cf.
    ``files`` are written into the configuration directory, which is ``%(directory)s`` in
    settings. ``users`` may log in by SASL, with PLAIN, LOGIN and CRAM-MD5. ``next_port``
    is where accepted mail goes; without one it is thrown away.
    """

    def __init__(
        self,
        directory: Path,
        services: Mapping[str, Mapping[str, str]],
        *,
        main: str = "",
        files: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        next_port: int | None = None,
    ) -> None:
        self.directory = directory
        for name in (*_QUEUES.split(), "active", "trace", "saved"):
            (directory / "queue" / name).mkdir(parents=True, exist_ok=True)
        for name in ("data", "sasl"):
            (directory / name).mkdir()
        root = tree("postfix", directory)
        env = disguise(root, directory, ("postfix", "postdrop", "nobody"), as_root=True)
        (plugins,) = root.glob("usr/lib/*/sasl2")
        env["SASL_PATH"] = str(plugins)
        said = {
            "directory": str(directory),
            "tree": str(root),
            "keep": " ".join(key for key in env if key != "PATH"),
            "next": f"smtp:[127.0.0.1]:{next_port}" if next_port else "discard",
        }
        self._ports = {name: free_port() for name in services}
        lines = [_MASTER % said]
        for name, settings in services.items():
            lines.append(f"{self._ports[name]} inet n - n - - smtpd\n")
            lines += [f"  -o {{ {key} = {value % said} }}\n" for key, value in settings.items()]
        (directory / "main.cf").write_text((_MAIN + main) % said)
        (directory / "master.cf").write_text("".join(lines))
        for name, text in (files or {}).items():
            (directory / name).write_text(text)
        self._let_in(root, env, users or {})
        hand_over(directory)
        self._daemon = Daemon(
            disguised(env, root / "usr/lib/postfix/sbin/master", "-c", directory, "-d"),
            log=directory / "master.log",
            ready=lambda: all(accepts(port) for port in self._ports.values()),
            user=unprivileged_user(),
            grace=3,
        )

    def _let_in(self, root: Path, env: Mapping[str, str], users: Mapping[str, str]) -> None:
        """Debian's Postfix looks for Cyrus SASL's settings beside its own."""
        (self.directory / "sasl" / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\n"
            f"mech_list: PLAIN LOGIN CRAM-MD5\nsasldb_path: {self.directory}/sasl/db\n"
        )
        (self.directory / "sasl" / "away.conf").write_text(
            "pwcheck_method: saslauthd\nmech_list: PLAIN LOGIN\n"
            f"saslauthd_path: {self.directory}/sasl/nobody-listens\n"
        )
        for user, password in users.items():
            command = [root / "usr/sbin/saslpasswd2", "-p", "-c", "-f", self.directory / "sasl/db"]
            subprocess.run(
                [*command, "-u", "relay.example", user],
                input=password.encode(),
                env=dict(env),
                check=True,
                capture_output=True,
                timeout=20,
            )

    def port(self, service: str) -> int:
        return self._ports[service]

    def log(self) -> str:
        """What Postfix has logged so far; a session's line is there a moment after its end."""
        file = self.directory / "mail.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def stop(self) -> None:
        self._daemon.stop()
