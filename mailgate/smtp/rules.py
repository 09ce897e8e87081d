"""The table that says what each refusal means: phase, code, enhanced code, words.

Owns the rules and their order, most specific first: the relay itself, rates,
what passes with time, our own standing, and only then the address. Never reads a
reply: ``classify`` does.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailgate.model.outcome import Kind, Scope, Suppress
from mailgate.model.state import Phase
from mailgate.smtp import wording

_ANY = frozenset(Phase)
_MAIL = frozenset({Phase.MAIL})
_RCPT = frozenset({Phase.RCPT})
_CONTENT = frozenset({Phase.DATA, Phase.BODY, Phase.DOT})
#: What a relay says about a message is a reply to one of these.
MESSAGE = _MAIL | _RCPT | _CONTENT
_ADDRESS = _RCPT | _CONTENT


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table; an empty condition is always met, all must be.

    ``codes`` are basic codes or their beginnings (``"4 552"``). ``enhanced`` are
    subject and detail of RFC 3463 without the class, which the basic code gives
    (``"2.2 7.*"``). ``text`` is looked for anywhere, without case. ``wait`` is how
    long to defer (seconds) when the reply names no time. ``suppress`` is for what
    is the recipient's alone: a bounce, or a deferral when it is given up.
    """

    kind: Kind
    error_class: str
    scope: Scope = Scope.RECIPIENT
    phases: frozenset[Phase] = _ANY
    codes: str = ""
    enhanced: str = ""
    text: str = ""
    suppress: Suppress = Suppress.NEVER
    wait: float | None = None
    #: What an operator calls it; the built-in ones have no name.
    name: str = ""


_LATER, _FAIL, _BOUNCE, _NOTHING = Kind.DEFER, Kind.FAIL, Kind.BOUNCE, Kind.UNTOUCHED
_SITE, _LINK, _DOMAIN = Scope.RELAY, Scope.CONNECTION, Scope.DOMAIN
_SENDER, _LETTER, _WHO = Scope.SENDER, Scope.MESSAGE, Scope.RECIPIENT
_NOW, _AGAIN = Suppress.NOW, Suppress.AGAIN
_CONNECT = frozenset({Phase.CONNECT, Phase.GREETING})
_EHLO = frozenset({Phase.EHLO})
_TLS = frozenset({Phase.STARTTLS})
_AUTH = frozenset({Phase.AUTH})
#: Reverse DNS, SPF, DKIM, DMARC: RFC 7372 and what large receivers say in its manner.
_NO_AUTH = "7.20 7.21 7.22 7.23 7.24 7.25 7.26 7.27 7.29 7.30 7.31 7.32"

# fmt: off
RULES: tuple[Rule, ...] = (
    # The relay itself, before any message: the message is not to blame.
    Rule(_LATER, "auth_temporary", _SITE, _AUTH, "4", wait=60),
    Rule(_NOTHING, "auth_refused", _SITE, _AUTH, "5"),
    Rule(_LATER, "too_many_connections", _SITE, _CONNECT | _EHLO, "4 5", text=wording.CONNECTIONS),
    Rule(_LATER, "greeting_refused", _SITE, _CONNECT, "4 5"),
    Rule(_LATER, "ehlo_refused", _SITE, _EHLO, "4 5"),
    Rule(_LATER, "starttls_refused", _SITE, _TLS, "4 5"),
    Rule(_LATER, "desync", _SITE, _ANY - MESSAGE),

    # Out of step: to which command a reply belongs is not known any more.
    Rule(_LATER, "desync", _LINK, codes="2 3 503"),

    # We are not who the relay wants us to be.
    Rule(_NOTHING, "auth_required", _SITE, _MAIL | _RCPT, "530 535 534 538"),

    # Too fast: the relay's own rate, then the destination's, then one mailbox's.
    Rule(_LATER, "rate_limited", _SITE, MESSAGE, "454", text=wording.SES),
    Rule(_LATER, "relay_closing", _LINK, MESSAGE, "421", text=wording.SPENT),
    Rule(_LATER, "too_many_connections", _SITE, MESSAGE, "4", text=wording.CONNECTIONS),
    Rule(_LATER, "recipient_rate", _WHO, _ADDRESS, "4", "2.1", wait=600),
    Rule(_LATER, "rate_limited", _DOMAIN, MESSAGE, "4", text=wording.YAHOO, wait=7200),
    Rule(_LATER, "sender_unauthenticated", _SENDER, MESSAGE, "4", _NO_AUTH, wait=1800),
    Rule(_LATER, "rate_limited", _DOMAIN, MESSAGE, "4", "7.28", wait=1800),
    Rule(_LATER, "rate_limited", _DOMAIN, MESSAGE, "421", "7.0", wait=1800),
    Rule(_LATER, "greylisted", _WHO, MESSAGE, "45", text=wording.GREYLISTED, wait=300),
    Rule(_LATER, "rate_limited", _DOMAIN, MESSAGE, "4", text=wording.THROTTLED, wait=600),

    # Later.
    Rule(_LATER, "relay_closing", _LINK, MESSAGE, "421"),
    Rule(_LATER, "too_many_recipients", _LINK, MESSAGE, "4", "5.3"),
    # RFC 5321 section 4.5.3.1.10: the one 552 that is to be treated as temporary.
    Rule(_LATER, "too_many_recipients", _LINK, _RCPT, "552", "5.3"),
    Rule(_LATER, "too_many_recipients", _LINK, _RCPT, "552", text=wording.RECIPIENTS),
    # Tencent says 550 for minutes of too many connections.
    Rule(_LATER, "rate_limited", _DOMAIN, MESSAGE, "550", text=wording.TENCENT, wait=1800),
    Rule(_LATER, "mailbox_full", _WHO, _ADDRESS, "4", "2.2", wait=3600, suppress=_AGAIN),
    Rule(_LATER, "relay_full", _SITE, MESSAGE, "4", "3.1"),
    Rule(_LATER, "relay_trouble", _SITE, MESSAGE, "4", "3.*"),
    Rule(_LATER, "relay_full", _SITE, MESSAGE, "4", text=wording.NO_SPACE),
    Rule(_LATER, "mailbox_full", _WHO, _ADDRESS, "4", text=wording.FULL, wait=3600,
         suppress=_AGAIN),
    Rule(_LATER, "relay_full", _SITE, _MAIL, "452"),
    Rule(_LATER, "routing_trouble", _DOMAIN, MESSAGE, "4", "4.*"),
    Rule(_LATER, "sender_deferred", _SENDER, MESSAGE, "4", "1.7 1.8"),
    Rule(_LATER, "policy_deferred", _DOMAIN, _CONTENT, "4", "7.*"),
    # A bare 450 or 451 at RCPT is greylisting more often than anything else.
    Rule(_LATER, "recipient_deferred", _WHO, _RCPT, "450 451", wait=300),
    Rule(_LATER, "recipient_deferred", _WHO, _RCPT, "4"),
    Rule(_LATER, "sender_deferred", _LETTER, _MAIL, "4"),
    Rule(_LATER, "message_deferred", _LETTER, _CONTENT, "4"),

    # Never, and we or the message are to blame.
    Rule(_FAIL, "relaying_denied", _SITE, _ADDRESS, "5", text=wording.RELAYING),
    Rule(_FAIL, "sender_unauthenticated", _SENDER, MESSAGE, "5", _NO_AUTH),
    Rule(_FAIL, "too_large", _LETTER, MESSAGE, "5", "3.4 2.3"),
    Rule(_FAIL, "too_large", _LETTER, _MAIL, "552"),
    Rule(_FAIL, "too_large", _LETTER, MESSAGE, "5", text=wording.TOO_LARGE),
    Rule(_FAIL, "parameters_refused", _LETTER, _MAIL | _RCPT, "504 555"),
    Rule(_FAIL, "sender_refused", _SENDER, MESSAGE, "5", "1.7 1.8"),
    Rule(_FAIL, "sender_unauthenticated", _SENDER, MESSAGE, "5", text=wording.UNAUTHENTICATED),
    Rule(_FAIL, "sender_refused", _SENDER, _MAIL, "5"),
    Rule(_FAIL, "sender_refused", _SENDER, _ADDRESS, "5", text=wording.SENDER),
    Rule(_FAIL, "routing_loop", _LETTER, MESSAGE, "5", "4.6"),
    Rule(_FAIL, "routing_loop", _LETTER, MESSAGE, "5", text=wording.LOOP),
    Rule(_FAIL, "policy", _DOMAIN, MESSAGE, "5", text=wording.OURSELVES),

    # The recipient's own choice, in the words of Facebook and of sieves.
    Rule(_BOUNCE, "recipient_refuses", _WHO, _ADDRESS, "5", text=wording.UNWANTED),

    # Never, and the mailbox lives: it does not take this one now.
    Rule(_BOUNCE, "recipient_rate", _WHO, _ADDRESS, "5", "2.1", r"\brate\b|too (many|fast|much)"),
    Rule(_BOUNCE, "mailbox_full", _WHO, _ADDRESS, "5", "2.2", suppress=_AGAIN),
    # What is too much from us, or more than the relay can store, is no mailbox's fault.
    Rule(_FAIL, "rate_limited", _DOMAIN, MESSAGE, "5", text=wording.THROTTLED),
    Rule(_FAIL, "rate_limited", _DOMAIN, MESSAGE, "5", text=wording.CONNECTIONS),
    Rule(_FAIL, "relay_full", _DOMAIN, MESSAGE, "5", text=wording.NO_SPACE),
    Rule(_BOUNCE, "mailbox_full", _WHO, _ADDRESS, "5", text=wording.FULL, suppress=_AGAIN),

    # Our standing, said beside anything about the address, is what was judged.
    Rule(_FAIL, "policy", _DOMAIN, MESSAGE, "5", text=wording.STANDING),
    # Never, and the address does not exist: said in words, then in codes (RFC 7504, 7505).
    Rule(_BOUNCE, "no_mail_domain", _WHO, _RCPT, "556", suppress=_NOW),
    # Microsoft means "recipient not found" by 5.1.10 and, with these words, by 5.4.1.
    Rule(_BOUNCE, "unknown_address", _WHO, _RCPT, "5", "1.10 4.1", wording.MICROSOFT,
         suppress=_NOW),
    Rule(_BOUNCE, "no_mail_domain", _WHO, _RCPT, "5", "1.10", suppress=_NOW),
    # Under a policy code (x.7.x) such words say less: it ends, and suppresses nothing.
    Rule(_BOUNCE, "unknown_address", _WHO, _RCPT, "5", "7.*", wording.UNKNOWN),
    Rule(_BOUNCE, "unknown_address", _WHO, _RCPT, "5", text=wording.UNKNOWN, suppress=_NOW),
    Rule(_BOUNCE, "unknown_domain", _WHO, _RCPT, "5", text=wording.NO_DOMAIN, suppress=_NOW),
    Rule(_BOUNCE, "moved", _WHO, _RCPT, "5", text=wording.MOVED, suppress=_NOW),
    # After the content the same words often hide a filter: RCPT had been accepted.
    Rule(_BOUNCE, "unknown_address", _WHO, _CONTENT, "5", text=wording.UNKNOWN),
    Rule(_FAIL, "infected", _LETTER, MESSAGE, "5", text=wording.VIRUS),
    Rule(_FAIL, "policy", _DOMAIN, MESSAGE, "5", text=wording.POLICY),
    Rule(_BOUNCE, "moved", _WHO, _RCPT, "5", "1.6", suppress=_NOW),
    Rule(_BOUNCE, "unknown_address", _WHO, _RCPT, "5", "1.1 1.3", suppress=_NOW),
    Rule(_BOUNCE, "unknown_domain", _WHO, _RCPT, "5", "1.2", suppress=_NOW),
    # "Unable to route" may as well be the relay's own DNS.
    Rule(_BOUNCE, "unknown_domain", _WHO, _RCPT, "5", "4.4"),
    Rule(_BOUNCE, "disabled", _WHO, _RCPT, "5", "2.1", wording.DISABLED, suppress=_NOW),
    Rule(_BOUNCE, "disabled", _WHO, _RCPT, "5", "2.1", suppress=_AGAIN),
    Rule(_BOUNCE, "disabled", _WHO, _ADDRESS, "5", text=wording.DISABLED),

    # Never: the rest by subject, then by phase.
    Rule(_FAIL, "policy", _DOMAIN, MESSAGE, "5", "7.*"),
    Rule(_FAIL, "relay_trouble", _DOMAIN, MESSAGE, "5", "3.*"),
    Rule(_FAIL, "routing_trouble", _DOMAIN, MESSAGE, "5", "4.*"),
    Rule(_FAIL, "content_refused", _LETTER, MESSAGE, "5", "6.*"),
    Rule(_FAIL, "content_refused", _LETTER, _CONTENT, "5", text=wording.MALFORMED),
    Rule(_FAIL, "relay_trouble", _DOMAIN, MESSAGE, "5", text=wording.TROUBLE),
    Rule(_FAIL, "command_refused", _LETTER, _RCPT, "500 502"),
    # A refusal that names a network address is about ours.
    Rule(_FAIL, "policy", _DOMAIN, _RCPT, "5", text=wording.NETWORK),
    # A bare refusal at RCPT may be the address or may be us: it ends, and counts as a hint.
    Rule(_BOUNCE, "recipient_refused", _WHO, _RCPT, "5", suppress=_AGAIN),
    Rule(_FAIL, "message_refused", _LETTER, _CONTENT, "5"),
)
# fmt: on
