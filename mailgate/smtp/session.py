"""One conversation with a relay: mail by mail, with the phase known exactly.

Owns the order of MAIL, RCPT, DATA, body and dot, pipelined where the relay offers
it (RFC 2920), also the next mail's commands with the dot of the one before, and what
an end of the connection means at each point. Ends every
conversation that is out of step by an abort, never by a close. Never retries,
never keeps connections: ``pool`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mailgate import failpoints
from mailgate.config.relays import Relay, Secret
from mailgate.model.message import Envelope
from mailgate.model.outcome import (
    LeaseLost,
    Outcome,
    Reply,
    Scope,
    deferred,
    sent,
    uncertain,
    untouched,
)
from mailgate.model.state import Phase
from mailgate.smtp.classify import TABLE, Table
from mailgate.smtp.opening import Offers, Watch, open_wire
from mailgate.smtp.transaction import (
    DOT,
    PHASES,
    commands,
    early,
    in_order,
    refusal,
    stuffed,
    unfit,
)
from mailgate.smtp.wire import Broken, Due, Wire

#: Up to here body and dot go out in one write; above, the dot waits for the body.
ONE_WRITE = 65536
#: An upload slower than this (bytes a second) is given up.
SLOWEST_UPLOAD = 4096
#: Longest polite wait for the reply to QUIT, in seconds.
QUIT_WAIT = 5.0
#: And to RSET on a connection that was kept: packets to it may be lost without a word, and
#: another one takes the mail (Postfix waits as long, smtp_rset_timeout).
RESET_WAIT = 20.0
#: Where the last dot took longer to be answered (seconds), nobody goes out with the next.
QUICK = 2.0
#: Who went out with a dot that is not answered in this time (seconds) goes elsewhere.
BEHIND = 10.0
#: Returns when MAIL may be sent.
Gate = Callable[[], Awaitable[None]]


class Marker(Protocol):
    """Where the three facts are recorded that decide about a conversation cut short."""

    def dot(self) -> None:
        """The bytes with the final dot go out as soon as this returns.

        May raise ``LeaseLost``: then nothing of the dot leaves.
        """

    def accepted(self) -> None:
        """The relay's 2xx to the final dot has been read."""

    def refused(self) -> None:
        """The message was certainly not taken, although ``dot`` had been called."""


class Next(Protocol):
    """A message that waits, ready, while another one's dot is about to go out."""

    @property
    def envelope(self) -> Envelope: ...

    def board(self, due: Due) -> None:
        """Its MAIL, RCPT and DATA are written, and the replies come as ``due``."""


#: Gives the message whose commands may go out with this one's dot, if there is any.
Follow = Callable[[], Next | None]


def _before_mail() -> None:
    """MAIL is about to be said, by itself or behind the dot of another."""
    failpoints.hit("smtp.before_mail")


class Session:
    """A connection that is ready for mail; one message at a time, and where the relay
    pipelines the next one's commands behind it.

    ``served`` counts messages begun.
    """

    def __init__(self, relay: Relay, wire: Wire, offers: Offers, table: Table = TABLE) -> None:
        self.offers = offers
        self.served = 0
        #: A transaction was left open: RSET before the next one.
        self.dirty = False
        self._relay = relay
        self._wire = wire
        self._table = table
        #: The last dot was answered soon: worth to be waited for by another message.
        self._quick = False

    def read_by(self, table: Table) -> None:
        """Say by another table what refusals mean, from the next one on."""
        self._table = table

    @classmethod
    async def open(
        cls,
        relay: Relay,
        tls: ssl.SSLContext | None = None,
        *,
        password: Secret | None = None,
        hostname: str | None = None,
        watch: Watch | None = None,
        table: Table = TABLE,
    ) -> Session:
        """Connect, encrypt and authenticate; raises ``opening.SetupFailed``.

        ``tls`` is ``opening.tls_context(relay)``, made once; ``table`` says what a refusal
        means. ``watch`` is told of each step that has worked.
        """
        failpoints.hit("smtp.connecting")
        wire, offers = await open_wire(relay, tls, password, hostname, watch)
        return cls(relay, wire, offers, table)

    @property
    def alive(self) -> bool:
        """In step with the relay, as far as can be known without asking."""
        return self._wire.in_step

    def abort(self) -> None:
        """End now; what has not left this process never will."""
        self._wire.abort()

    async def reset(self) -> bool:
        """RSET, which also shows whether the relay is still there; aborts when it is not.

        It belongs to the next message, so its failure never hides an outcome.
        """
        try:
            timeout = min(RESET_WAIT, self._relay.command_timeout)
            (reply,) = await self._wire.exchange(b"RSET\r\n", 1, timeout)
        except Broken:
            return False
        except BaseException:
            self._wire.abort()
            raise
        if reply.code != 250:
            self._wire.abort()
            return False
        self.dirty = False
        return True

    async def quit(self) -> None:
        """QUIT politely, for at most ``QUIT_WAIT`` seconds; the connection is gone after."""
        try:
            # A broken wire is gone already, and that was the aim.
            with contextlib.suppress(Broken):
                timeout = min(QUIT_WAIT, self._relay.command_timeout)
                await self._wire.exchange(b"QUIT\r\n", 1, timeout)
        finally:
            self._wire.abort()

    async def send(
        self,
        envelope: Envelope,
        marker: Marker,
        gate: Gate | None = None,
        follow: Follow | None = None,
    ) -> Outcome:
        """Offer one message and return what came of it.

        ``gate`` returns when MAIL may be sent; it is asked last, with all made ready, so
        that next to nothing lies between its word and the kernel. What it raises comes
        through, and nothing was said. ``follow`` is asked just before the dot for a
        message whose commands may go out with it: that one goes on with ``ride``.

        Everything that the network or the relay can do is an outcome. When this
        is cancelled the connection is aborted; whether the dot had gone is what
        ``marker`` was told. Raises only what ``marker`` raises beside ``LeaseLost``.
        """
        misfit = unfit(envelope, self.offers)
        if misfit is not None:
            return misfit
        group: Sequence[bytes] = commands(envelope, self.offers)
        if self.offers.pipelining:
            group = (b"".join(group),)
        if gate is not None:
            await gate()
        _before_mail()
        self.served += 1
        return await self._go_on(self._offer(group), envelope, marker, follow)

    async def ride(
        self, envelope: Envelope, due: Due, marker: Marker, follow: Follow | None = None
    ) -> Outcome:
        """Go on with a message whose commands went out with the dot of the one before.

        As ``send``; but cancelled, it leaves the message before its answer.
        """
        wire = self._wire
        timer = asyncio.get_running_loop().call_later(BEHIND, wire.hurry, due)
        try:
            replies = await wire.answers(due, self._relay.command_timeout)
        except Broken as broken:
            if broken.ours or broken.fault == "desync" or wire.behind(due):
                # Whatever went wrong was with the message before, or may have been.
                return _lost(Phase.MAIL, Broken("connection_lost", broken.detail))
            return self._broken_early(broken, broken.replies)
        except BaseException:
            wire.give_up(due)
            raise
        finally:
            timer.cancel()
        if not in_order(replies):
            # The message before had more than one answer, and these are no answers to us.
            wire.abort()
            return _lost(Phase.MAIL, Broken("connection_lost", "the replies are out of step"))
        return await self._go_on(self._refused(replies), envelope, marker, follow)

    async def _go_on(
        self,
        refused: Awaitable[Outcome | None],
        envelope: Envelope,
        marker: Marker,
        follow: Follow | None,
    ) -> Outcome:
        """The body, where what came before it was not ``refused``."""
        try:
            said = await refused
            if said is not None:
                return said
            return await self._deliver(envelope.content, marker, follow)
        except BaseException:
            self._wire.abort()
            raise

    def forsake(self, due: Due) -> None:
        """Nobody goes on with the message whose commands went out: it gets no body."""
        self._wire.give_up(due)

    def unheard(self, outcome: Outcome) -> bool:
        """Whether a kept connection ended before a word of this message was judged.

        Then nothing of it can have been accepted.
        """
        return (
            self.served > 1
            and outcome.phase is Phase.MAIL
            and outcome.error_class in ("connection_lost", "relay_closing")
        )

    # --- MAIL, RCPT, DATA ------------------------------------------------------------

    async def _offer(self, group: Sequence[bytes]) -> Outcome | None:
        """Say all that comes before the body; None when the relay wants the body.

        ``group`` are MAIL, RCPT and DATA, or all three in one where the relay pipelines.
        """
        wire, timeout = self._wire, self._relay.command_timeout
        each = len(PHASES) // len(group)
        replies: list[Reply] = []
        try:
            for said in group:
                if replies:
                    failpoints.hit("smtp.in_commands")
                replies += await wire.exchange(said, each, timeout)
                if refusal(replies, self._table) is not None:
                    break
        except Broken as broken:
            return self._broken_early(broken, [*replies, *broken.replies])
        return await self._refused(replies)

    async def _refused(self, replies: list[Reply]) -> Outcome | None:
        """What the replies to MAIL, RCPT and DATA say; None when the relay wants the body."""
        refused = refusal(replies, self._table)
        if refused is None:
            return None
        self.dirty = True
        self._after(refused)
        # Pipelined, DATA was answered too, although nothing was left to send.
        if len(replies) == 3 and refused.phase is not Phase.DATA:
            if replies[2].code == 354:
                await self._lone_dot()
            elif replies[2].code < 400:
                self._wire.abort()
        return refused

    async def _lone_dot(self) -> None:
        """Give the relay the end that it waits for: an empty body (RFC 2920 section 3.1).

        Whatever it answers, the message has been refused; but the answer is read,
        or the next message would be given it.
        """
        with contextlib.suppress(Broken):
            await self._wire.exchange(DOT, 1, self._relay.dot_timeout)

    def _after(self, refused: Outcome) -> None:
        """Leave a connection that the relay closes or that is out of step."""
        if refused.reply.code == 421 or refused.scope is Scope.CONNECTION:
            self._wire.abort()

    def _broken_early(self, broken: Broken, replies: list[Reply]) -> Outcome:
        """The connection ended before the body: nothing can have been accepted."""
        refused = refusal(replies, self._table) if broken.fault != "desync" else None
        phase = PHASES[len(replies)] if len(replies) < len(PHASES) else Phase.BODY
        if refused is None and broken.parting is not None:
            refused = self._table.classify(phase, broken.parting)
        if refused is None:
            refused = _lost(phase, broken)
        return refused

    # --- body and dot ------------------------------------------------------------------

    async def _deliver(self, content: bytes, marker: Marker, follow: Follow | None) -> Outcome:
        wire, relay = self._wire, self._relay
        body = stuffed(content)
        upload_time = len(body) / SLOWEST_UPLOAD
        large = len(body) > ONE_WRITE
        failpoints.hit("smtp.before_body")
        if large:
            try:
                due = await wire.upload(body, relay.command_timeout + upload_time)
            except Broken as broken:
                return self._broken_in_body(broken)
            if due.replies:
                wire.abort()
                return early(due.replies[0], self._table)
            failpoints.hit("smtp.in_body")
        if wire.broken is not None:
            return self._broken_in_body(wire.broken)
        # Before the mark: a step of its own may end here.
        rides = follow is not None and self._quick and self.offers.pipelining and not large
        behind = follow() if rides and follow is not None else None
        if behind is not None:
            _before_mail()
        failpoints.hit("smtp.before_dot")
        try:
            # From here to the write nothing else can run.
            marker.dot()
        except LeaseLost:
            wire.abort()
            what = Reply(0, "the lease was lost before the final dot")
            return untouched(Phase.BODY, what, "lease_lost", Scope.CONNECTION)
        failpoints.hit("smtp.marked")
        try:
            if large:
                wire.say(DOT, due)
            elif behind is None:
                due = wire.ask(body + DOT, 1)
            else:
                due = self._dot_and(behind, body + DOT)
            failpoints.hit("smtp.after_dot")
            wait = relay.dot_timeout + (0 if large else upload_time)
            begun = time.monotonic()
            (reply,) = await wire.answers(due, wait)
            self._quick = time.monotonic() - begun < QUICK
        except Broken as broken:
            return self._broken_after_dot(broken, marker)
        failpoints.hit("smtp.after_reply")
        if wire.holds(due):
            # Answered before the dot had left: it cannot be about the whole message.
            wire.abort()
            marker.refused()
            return early(reply, self._table)
        return self._answered(reply, marker)

    def _dot_and(self, behind: Next, body: bytes) -> Due:
        """Write a body with its dot, and behind it the commands of the next message.

        A body may be followed by commands in the same group; DATA has to be the last of
        them (RFC 2920 section 3.1), so there is one round trip a message.
        """
        said = b"".join(commands(behind.envelope, self.offers))
        due, theirs = self._wire.ask_on(body, said, len(PHASES))
        if theirs is not None:
            self.served += 1
            behind.board(theirs)
        return due

    def _answered(self, reply: Reply, marker: Marker) -> Outcome:
        """The relay's word on the whole message."""
        if 200 <= reply.code < 300:
            marker.accepted()
            failpoints.hit("smtp.accepted")
            return sent(reply)
        if reply.code < 400:
            # Out of step, and the real answer may be a yes.
            self._wire.abort()
            return uncertain(f"the reply to the final dot was {reply}")
        marker.refused()
        refused = self._table.classify(Phase.DOT, reply)
        self._after(refused)
        return refused

    def _broken_after_dot(self, broken: Broken, marker: Marker) -> Outcome:
        if broken.unsent:
            marker.refused()
            return self._broken_in_body(broken)
        if broken.fault != "desync":
            # The answer may have come together with the end of the connection.
            said = [*broken.replies, *([broken.parting] if broken.parting else [])]
            if said:
                return self._answered(said[0], marker)
        return uncertain(str(broken))

    def _broken_in_body(self, broken: Broken) -> Outcome:
        """The dot never left. A refusal said before the end is the better reason."""
        for said in (*broken.replies, broken.parting):
            if said is not None and said.code >= 400 and broken.fault != "desync":
                return self._table.classify(Phase.BODY, said)
        return _lost(Phase.BODY, broken)


def _lost(phase: Phase, broken: Broken) -> Outcome:
    return deferred(phase, Reply(0, broken.detail), broken.fault, Scope.CONNECTION)
