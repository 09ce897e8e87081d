"""AUTH: who we are, said once, by the one mechanism that the configuration prefers.

Owns the dialogue of each mechanism and what its failure means. One mechanism and one
try a connection: a refused password stays refused, and each more counts against the
account. Never says a word without TLS, never keeps or shows what was said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiosmtplib.auth import (
    auth_crammd5_verify,
    auth_login_encode,
    auth_plain_encode,
    auth_xoauth2_encode,
)
from aiosmtplib.errors import SMTPException

from mailgate.config.relays import Relay, Secret
from mailgate.model.outcome import Outcome, Reply, Scope, deferred, untouched
from mailgate.model.state import Phase
from mailgate.smtp.classify import classify

#: Longest line of a command, its CRLF included (RFC 5321 section 4.5.3.1.4).
MAX_COMMAND = 512

#: Says one line and gives the relay's answer to it.
Say = Callable[[bytes], Awaitable[Reply]]


async def log_in(
    say: Say, relay: Relay, offered: frozenset[str], secret: Secret | None, *, encrypted: bool
) -> Outcome | str:
    """The mechanism that the relay took, or why we are not in.

    ``offered`` are the mechanisms of the relay's EHLO, in lower case. Raises what
    ``say`` raises.
    """
    if not encrypted:
        # The configuration forbids it already; this is the last door.
        return _nothing_said("auth_needs_tls", "no AUTH without TLS")
    mechanism = next((m for m in relay.auth if m in offered), None)
    if mechanism is None:
        asked, there = ", ".join(relay.auth), ", ".join(sorted(offered)) or "none"
        return _nothing_said(
            "auth_unavailable", f"configured mechanisms: {asked}; offered: {there}"
        )
    try:
        async with asyncio.timeout(relay.command_timeout):
            word = await asyncio.to_thread(secret) if callable(secret) else secret or ""
    except (OSError, ValueError) as error:
        return _nothing_said("token_unavailable", f"token_file: {error}")
    user = relay.username or ""
    match mechanism:
        case "plain":
            reply = await say(b"AUTH PLAIN " + auth_plain_encode(user, word))
        case "login":
            reply = await _login(say, user, word)
        case "cram-md5":
            answered = await _cram_md5(say, user, word)
            if answered is None:
                what = Reply(0, "the CRAM-MD5 challenge is not base64")
                return deferred(Phase.AUTH, what, "desync", Scope.RELAY)
            reply = answered
        case "xoauth2":
            reply = await _xoauth2(say, user, word)
    return mechanism if reply.code == 235 else classify(Phase.AUTH, reply)


async def _login(say: Say, user: str, password: str) -> Reply:
    name, word = auth_login_encode(user, password)
    reply = await say(b"AUTH LOGIN " + name)
    return await say(word) if reply.code == 334 else reply


async def _cram_md5(say: Say, user: str, password: str) -> Reply | None:
    """RFC 2195; None for a challenge that cannot be read."""
    reply = await say(b"AUTH CRAM-MD5")
    if reply.code != 334:
        return reply
    try:
        answer = auth_crammd5_verify(user, password, reply.text)
    except SMTPException:
        return None
    return await say(answer)


async def _xoauth2(say: Say, user: str, token: str) -> Reply:
    """Google's XOAUTH2, which Microsoft speaks too (the forerunner of RFC 7628)."""
    response = auth_xoauth2_encode(user, token)
    line = b"AUTH XOAUTH2 " + response
    if len(line) + 2 > MAX_COMMAND:
        # RFC 4954 section 4: what makes the command too long waits to be asked for.
        reply = await say(b"AUTH XOAUTH2")
        if reply.code == 334:
            reply = await say(response)
    else:
        reply = await say(line)
    if reply.code == 334:
        # The relay's reasons, as JSON. An empty answer, and it says its 535.
        reply = await say(b"")
    return reply


def _nothing_said(error_class: str, detail: str) -> Outcome:
    return untouched(Phase.AUTH, Reply(0, detail), error_class)
