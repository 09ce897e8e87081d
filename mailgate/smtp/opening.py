"""From nothing to a connection that can take mail: TCP, greeting, EHLO, TLS, AUTH.

Owns the order of these steps and what each failure means: the relay's, never a
message's. Never says a word of AUTH before TLS, and never goes on in clear where
TLS was asked for. Knows nothing of messages.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from aiosmtplib.errors import SMTPException, SMTPResponseException
from aiosmtplib.esmtp import parse_esmtp_extensions

from mailgate.config.relays import Relay, Secret
from mailgate.model.outcome import Outcome, Reply, Scope, deferred
from mailgate.model.state import Phase
from mailgate.smtp.classify import classify
from mailgate.smtp.login import log_in
from mailgate.smtp.reply import enhanced_code
from mailgate.smtp.wire import Broken, Wire


class SetupFailed(Exception):
    """No usable connection; ``outcome`` says whose fault and in which phase."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.phase}: {outcome.error_class}: {outcome.reply}")
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Offers:
    """What the relay offered in its last EHLO (RFC 5321 section 4.1.1.1).

    ``size`` is the largest message in bytes, 0 when it names no limit (RFC 1870).
    """

    pipelining: bool = False
    size_parameter: bool = False
    size: int = 0
    smtputf8: bool = False
    eight_bit: bool = False
    starttls: bool = False
    auth: frozenset[str] = frozenset()


def read_offers(text: str) -> Offers:
    """Read an EHLO reply's text (one line per line, codes removed)."""
    extensions, mechanisms = parse_esmtp_extensions(text)
    size = extensions.get("size", "").strip()
    return Offers(
        pipelining="pipelining" in extensions,
        size_parameter="size" in extensions,
        size=int(size) if size.isascii() and size.isdigit() and len(size) < 19 else 0,
        smtputf8="smtputf8" in extensions,
        eight_bit="8bitmime" in extensions,
        starttls="starttls" in extensions,
        auth=frozenset(mechanisms),
    )


def tls_context(relay: Relay) -> ssl.SSLContext | None:
    """The one context for all connections to ``relay``; None where it has no TLS.

    Building one takes milliseconds, so a pool keeps it. Raises ``OSError`` when
    ``ca_file`` cannot be read, ``ssl.SSLError`` when it holds no certificate.
    """
    if relay.security == "none":
        return None
    context = ssl.create_default_context(cafile=relay.ca_file)
    if not relay.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


#: Told of each step that has worked, and what was found there.
Watch = Callable[[Phase, str], None]


async def open_wire(
    relay: Relay,
    tls: ssl.SSLContext | None,
    secret: Secret | None,
    hostname: str | None,
    watch: Watch | None = None,
) -> tuple[Wire, Offers]:
    """Connect, greet and, where configured, encrypt and authenticate.

    ``tls`` comes from ``tls_context``. ``secret`` is for AUTH. ``hostname`` is what to
    say in EHLO; the relay's own setting goes first. Raises ``SetupFailed`` for everything
    that the relay or the network can do.
    """
    opening = _Opening(relay, tls, secret, hostname, watch)
    try:
        return await opening.run()
    except BaseException as error:
        opening.abort()
        failure = opening.explain(error)
        if failure is None:
            raise
        raise failure from None


class _Opening:
    def __init__(
        self,
        relay: Relay,
        tls: ssl.SSLContext | None,
        secret: Secret | None,
        hostname: str | None,
        watch: Watch | None,
    ) -> None:
        self.phase = Phase.CONNECT
        self._relay = relay
        self._tls = tls
        self._secret = secret
        self._hostname = relay.hostname or hostname
        self._watch = watch or (lambda _phase, _found: None)
        self._wire: Wire | None = None

    def failed(self, error_class: str, detail: str) -> SetupFailed:
        return SetupFailed(deferred(self.phase, Reply(0, detail), error_class, Scope.RELAY))

    def abort(self) -> None:
        if self._wire is not None:
            self._wire.abort()

    def explain(self, error: BaseException) -> SetupFailed | None:
        """What the network's or the relay's misbehaviour means; None for all else."""
        relay = self._relay
        match error:
            case SetupFailed():
                return error
            case Broken(parting=Reply() as parting):
                return SetupFailed(classify(self.phase, parting))
            case Broken():
                return self.failed(error.fault, error.detail)
            case ssl.SSLCertVerificationError():
                return self.failed("tls_certificate", error.verify_message)
            case ssl.SSLError() | SMTPException():
                return self.failed("tls_failed", str(error))
            case socket.gaierror() | UnicodeError():
                return self.failed("dns_failed", f"{relay.host}: {error}")
            case TimeoutError():
                what = f"not connected to {relay.host}:{relay.port} in {relay.connect_timeout:g} s"
                return self.failed("connect_timeout", what)
            case OSError():
                return self.failed("connect_failed", str(error))
        return None

    async def run(self) -> tuple[Wire, Offers]:
        relay = self._relay
        wire = await self._connect()
        self._watch(Phase.CONNECT, _where(wire) + _secured(wire))
        self.phase = Phase.GREETING
        greeting = await wire.greeting(relay.command_timeout)
        if greeting.code != 220:
            raise SetupFailed(classify(Phase.GREETING, greeting))
        self._watch(Phase.GREETING, greeting.text)
        offers = await self._hello(wire)
        if relay.security == "starttls":
            offers = await self._start_tls(wire, offers)
        if relay.username is not None:
            await self._authenticate(wire, offers)
        return wire, offers

    async def _connect(self) -> Wire:
        relay, loop = self._relay, asyncio.get_running_loop()
        implicit = relay.security == "tls"

        def made() -> Wire:
            # Kept at once: a cancelled or failed handshake must be aborted too.
            self._wire = Wire(loop, silent=implicit)
            return self._wire

        async with asyncio.timeout(relay.connect_timeout):
            _, wire = await loop.create_connection(
                made,
                relay.host,
                relay.port,
                # With one address there is no race; and cancelled in it, asyncio would
                # leave a socket to the garbage collector.
                happy_eyeballs_delay=None if _is_address(relay.host) else 0.25,
                local_addr=(relay.source_address, 0) if relay.source_address else None,
            )
            if implicit and self._tls is not None:
                # The loop's own limit is there as well; ours comes first.
                await wire.encrypt(self._tls, relay.host, relay.connect_timeout + 1)
        _keep_alive(wire)
        return wire

    async def _hello(self, wire: Wire) -> Offers:
        self.phase = Phase.EHLO
        relay = self._relay
        said = self._hostname or _local_name(wire)
        name = said.encode("ascii" if said.isascii() else "idna")
        reply = await self._command(wire, b"EHLO " + name)
        if reply.code == 250:
            self._watch(Phase.EHLO, " ".join(reply.text.split("\n")[1:]))
            return read_offers(reply.text)
        # RFC 5321 section 3.2: an old server knows only HELO. It then has neither
        # TLS nor AUTH, so where one is required, this is the end.
        needs_esmtp = relay.security == "starttls" or relay.username is not None
        if 500 <= reply.code < 600 and not needs_esmtp:
            reply = await self._command(wire, b"HELO " + name)
            if reply.code == 250:
                self._watch(Phase.EHLO, "HELO only")
                return Offers()
        raise SetupFailed(classify(Phase.EHLO, reply))

    async def _start_tls(self, wire: Wire, offers: Offers) -> Offers:
        self.phase = Phase.STARTTLS
        relay = self._relay
        if not offers.starttls or self._tls is None:
            raise self.failed("starttls_not_offered", f"{relay.host} does not offer STARTTLS")
        try:
            # Bytes after the 220 and before the handshake are an injection (RFC 3207
            # section 4.2): the wire breaks on them.
            await wire.start_tls(
                self._tls, server_hostname=relay.host, timeout=relay.connect_timeout
            )
        except SMTPResponseException as error:
            text = error.message
            reply = Reply(error.code, text, enhanced_code(text, error.code))
            raise SetupFailed(classify(Phase.STARTTLS, reply)) from None
        wire.upgraded()
        self._watch(Phase.STARTTLS, _secured(wire).strip(", "))
        # RFC 3207: what was offered in clear counts for nothing.
        return await self._hello(wire)

    async def _authenticate(self, wire: Wire, offers: Offers) -> None:
        self.phase = Phase.AUTH

        async def say(line: bytes) -> Reply:
            return await self._command(wire, line)

        said = await log_in(say, self._relay, offers.auth, self._secret, encrypted=wire.encrypted)
        if isinstance(said, Outcome):
            raise SetupFailed(said)
        self._watch(Phase.AUTH, f"{said.upper()} as {self._relay.username}")

    async def _command(self, wire: Wire, line: bytes) -> Reply:
        return (await wire.exchange(line + b"\r\n", 1, self._relay.command_timeout))[0]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _where(wire: Wire) -> str:
    """The address that was reached, out of those that the name has."""
    peer = wire.transport.get_extra_info("peername") if wire.transport else None
    return f"{peer[0]}:{peer[1]}" if peer else ""


def _secured(wire: Wire) -> str:
    """What TLS agreed on and how long the certificate is good; '' in clear."""
    said = wire.transport.get_extra_info("ssl_object") if wire.transport else None
    if said is None:
        return ""
    until = (said.getpeercert() or {}).get("notAfter", "")
    return f", {said.version()}" + (f", certificate until {until}" if until else "")


def _local_name(wire: Wire) -> str:
    """This host's name, or its address as a literal (RFC 5321 section 4.1.4).

    Never asks DNS, which could block the loop.
    """
    name = socket.gethostname()
    if "." in name.strip(".") and name.isascii():
        return name
    sockname = wire.transport.get_extra_info("sockname") if wire.transport else None
    if not sockname:
        return "[127.0.0.1]"
    address = str(sockname[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _keep_alive(wire: Wire) -> None:
    """Have the kernel ask for a relay that says nothing: a reply may take ten minutes, and
    that nobody is there any more is known after two.
    """
    line = wire.transport.get_extra_info("socket") if wire.transport else None
    if line is None:
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
