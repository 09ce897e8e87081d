"""The table: what happens to the recipient, whose fault it was, who is suppressed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailgate.model.outcome import Kind, Reply, Scope, Suppress
from mailgate.model.state import Phase
from mailgate.smtp.classify import READ, Table, classify, retry_after
from mailgate.smtp.reply import parse_reply
from mailgate.smtp.rules import RULES, Rule

BEFORE_MAIL = [Phase.CONNECT, Phase.GREETING, Phase.EHLO, Phase.STARTTLS, Phase.AUTH]
D, B, F, U = Kind.DEFER, Kind.BOUNCE, Kind.FAIL, Kind.UNTOUCHED
RELAY, LINK, DOMAIN = Scope.RELAY, Scope.CONNECTION, Scope.DOMAIN
SENDER, MESSAGE, WHO = Scope.SENDER, Scope.MESSAGE, Scope.RECIPIENT
NOW, AGAIN, NEVER = Suppress.NOW, Suppress.AGAIN, Suppress.NEVER


@pytest.mark.parametrize(
    ("phase", "reply", "kind", "error_class", "scope"),
    [
        # Set-up: the relay's, whatever the code.
        (Phase.GREETING, "421 4.3.2 Not now", D, "greeting_refused", RELAY),
        (Phase.GREETING, "554 5.7.1 You are listed", D, "greeting_refused", RELAY),
        (Phase.GREETING, "421 Too many concurrent connections", D, "too_many_connections", RELAY),
        (Phase.EHLO, "550 5.7.1 Bad name", D, "ehlo_refused", RELAY),
        (Phase.STARTTLS, "454 4.7.0 TLS not available", D, "starttls_refused", RELAY),
        (Phase.AUTH, "454 4.7.0 Later", D, "auth_temporary", RELAY),
        (Phase.AUTH, "432 4.7.12 A password transition is needed", D, "auth_temporary", RELAY),
        (Phase.AUTH, "535 5.7.8 Wrong", U, "auth_refused", RELAY),
        (Phase.AUTH, "534 5.7.9 Too weak", U, "auth_refused", RELAY),
        (Phase.AUTH, "538 5.7.11 Encrypt first", U, "auth_refused", RELAY),
        (Phase.MAIL, "530 5.7.0 Authentication required", U, "auth_required", RELAY),
        # Out of step.
        (Phase.RCPT, "503 5.5.1 Need MAIL", D, "desync", LINK),
        (Phase.RCPT, "354 Go on", D, "desync", LINK),
        # Every 421 ends the connection.
        (Phase.MAIL, "421 4.3.2 Shutting down", D, "relay_closing", LINK),
        (Phase.DOT, "421 Bye", D, "relay_closing", LINK),
        # MAIL.
        (Phase.MAIL, "550 5.1.8 Bad sender domain", F, "sender_refused", SENDER),
        (Phase.MAIL, "550 5.1.7 Bad sender", F, "sender_refused", SENDER),
        (Phase.MAIL, "550 5.7.1 You may not send as this", F, "sender_refused", SENDER),
        (Phase.MAIL, "552 5.3.4 Too large", F, "too_large", MESSAGE),
        (Phase.MAIL, "552 No", F, "too_large", MESSAGE),
        (Phase.MAIL, "452 4.3.1 Disk full", D, "relay_full", RELAY),
        (Phase.MAIL, "451 4.3.0 Trouble", D, "relay_trouble", RELAY),
        # RCPT.
        (Phase.RCPT, "450 4.7.1 Greylisted", D, "greylisted", WHO),
        (Phase.RCPT, "451 Try later", D, "recipient_deferred", WHO),
        (Phase.RCPT, "450 4.2.1 Receiving mail too fast", D, "recipient_rate", WHO),
        (Phase.RCPT, "452 4.5.3 Too many recipients", D, "too_many_recipients", LINK),
        (Phase.RCPT, "552 5.5.3 Too many", D, "too_many_recipients", LINK),
        (Phase.RCPT, "552 Too many recipients", D, "too_many_recipients", LINK),
        (Phase.DOT, "552 Too many recipients", F, "message_refused", MESSAGE),
        (Phase.RCPT, "452 4.2.2 Over quota", D, "mailbox_full", WHO),
        (Phase.RCPT, "452 The mailbox of this person has no room", D, "mailbox_full", WHO),
        (Phase.RCPT, "452 Not enough disk space here", D, "relay_full", RELAY),
        (Phase.RCPT, "552 Not enough disk space here", F, "relay_full", DOMAIN),
        (Phase.RCPT, "552 No storage space in this mailbox: over quota", B, "mailbox_full", WHO),
        (Phase.RCPT, "552 5.2.2 Over quota", B, "mailbox_full", WHO),
        (Phase.RCPT, "550 5.1.1 No", B, "unknown_address", WHO),
        (Phase.RCPT, "550 No such user here", B, "unknown_address", WHO),
        (Phase.RCPT, "550 <ann@example.net>: user unknown", B, "unknown_address", WHO),
        (Phase.RCPT, "550 5.1.2 No", B, "unknown_domain", WHO),
        (Phase.RCPT, "556 5.1.10 Null MX", B, "no_mail_domain", WHO),
        (Phase.RCPT, "550 5.1.6 Moved", B, "moved", WHO),
        (Phase.RCPT, "550 5.2.1 Mailbox disabled", B, "disabled", WHO),
        (Phase.RCPT, "550 5.7.1 Relaying denied", F, "relaying_denied", RELAY),
        (Phase.RCPT, "554 5.7.1 Relay access denied", F, "relaying_denied", RELAY),
        (Phase.RCPT, "550 Sorry", B, "recipient_refused", WHO),
        (Phase.RCPT, "550 5.7.1 Sorry", F, "policy", DOMAIN),
        (Phase.RCPT, "550 5.1.10 RecipientNotFound", B, "unknown_address", WHO),
        (Phase.RCPT, "550 5.4.1 Recipient address rejected: Access denied", B,
         "unknown_address", WHO),
        (Phase.RCPT, "550 This person does not have a mailbox here", B, "unknown_address", WHO),
        (Phase.RCPT, "554 eve@example.net is no longer valid", B, "unknown_address", WHO),
        (Phase.RCPT, "550 Adresse refus\u00e9e: utilisateur inconnu", B, "unknown_address", WHO),
        (Phase.RCPT, "550 Empf\u00e4nger unbekannt", B, "unknown_address", WHO),
        (Phase.RCPT, "550 El usuario no existe", B, "unknown_address", WHO),
        (Phase.RCPT, "550 Utente sconosciuto", B, "unknown_address", WHO),
        (Phase.RCPT, "550 Declined by the recipient", B, "recipient_refuses", WHO),
        (Phase.RCPT, "550 5.4.4 Cannot route", B, "unknown_domain", WHO),
        (Phase.RCPT, "550 The mailbox is frozen", B, "disabled", WHO),
        (Phase.RCPT, "550 The system has an internal error", F, "relay_trouble", DOMAIN),
        (Phase.RCPT, "500 What?", F, "command_refused", MESSAGE),
        (Phase.RCPT, "550 From: is not a good domain", F, "sender_refused", SENDER),
        (Phase.DOT, "554 Email address is not verified", F, "sender_refused", SENDER),
        (Phase.RCPT, "550 198.51.100.7 Refused", F, "policy", DOMAIN),
        # Anywhere.
        (Phase.RCPT, "550 Connection frequency limited", D, "rate_limited", DOMAIN),
        (Phase.RCPT, "550 You are over your hourly sending limit", F, "rate_limited", DOMAIN),
        (Phase.RCPT, "421 4.7.28 Unusual rate of mail", D, "rate_limited", DOMAIN),
        (Phase.DOT, "421 4.7.0 Try again later", D, "rate_limited", DOMAIN),
        (Phase.MAIL, "421 4.7.0 [TSS04] Deferred", D, "rate_limited", DOMAIN),
        (Phase.DOT, "454 Throttling failure: Maximum sending rate exceeded", D,
         "rate_limited", RELAY),
        (Phase.DOT, "451 4.7.26 Not authenticated", D, "sender_unauthenticated", SENDER),
        (Phase.DOT, "550 5.7.26 Not authenticated", F, "sender_unauthenticated", SENDER),
        # The content.
        (Phase.DOT, "554 5.7.1 Looks like spam", F, "policy", DOMAIN),
        (Phase.DOT, "550 5.7.0 No", F, "policy", DOMAIN),
        (Phase.DOT, "552 5.3.4 Message too big", F, "too_large", MESSAGE),
        (Phase.DOT, "554 5.6.0 Broken MIME", F, "content_refused", MESSAGE),
        (Phase.DOT, "554 Virus found", F, "infected", MESSAGE),
        (Phase.DOT, "554 5.4.6 Too many hops", F, "routing_loop", MESSAGE),
        (Phase.DOT, "554 No", F, "message_refused", MESSAGE),
        (Phase.DATA, "451 4.3.0 Trouble", D, "relay_trouble", RELAY),
        (Phase.DOT, "450 No", D, "message_deferred", MESSAGE),
    ],
)  # fmt: skip
def test_the_table(phase: Phase, reply: str, kind: Kind, error_class: str, scope: Scope) -> None:
    outcome = classify(phase, parse_reply(reply))
    assert (outcome.kind, outcome.error_class, outcome.scope) == (kind, error_class, scope)
    assert outcome.phase is phase
    assert str(outcome.reply) == reply


@pytest.mark.parametrize(
    ("phase", "reply", "suppress"),
    [
        (Phase.RCPT, "550 5.1.1 User unknown", NOW),
        (Phase.RCPT, "550 No such user", NOW),
        (Phase.RCPT, "550 5.1.10 Null MX", NOW),
        (Phase.RCPT, "550 5.2.1 This account has been disabled", NOW),
        # It may be the address's fault: when it happens again.
        (Phase.RCPT, "550 5.2.1 No", AGAIN),
        (Phase.RCPT, "550 Sorry", AGAIN),
        (Phase.RCPT, "552 5.2.2 Mailbox full", AGAIN),
        (Phase.DOT, "552 5.2.2 Mailbox full", AGAIN),
        (Phase.RCPT, "452 4.2.2 Mailbox full", AGAIN),
        # Nothing proves that these are.
        (Phase.RCPT, "550 5.2.1 This user receives mail at too high a rate", NEVER),
        (Phase.RCPT, "550 5.1.1 Unknown user; or your mail is spam", NEVER),
        (Phase.RCPT, "550 5.1.1 Refused due to the recipient's preferences", NEVER),
        (Phase.RCPT, "550 5.4.4 No route", NEVER),
        (Phase.RCPT, "550 5.1.1 From: the domain is invalid", NEVER),
        (Phase.RCPT, "550 198.51.100.7 cannot send here", NEVER),
        (Phase.RCPT, "554 Service unavailable", NEVER),
        (Phase.RCPT, "450 4.2.1 Over rate", NEVER),
        (Phase.RCPT, "550 5.7.1 Policy: no such user", NEVER),
        (Phase.RCPT, "550 5.1.1 Blocked: your IP is on a blocklist", NEVER),
        (Phase.RCPT, "550 5.1.1 Sender address rejected: unknown user", NEVER),
        (Phase.RCPT, "550 5.1.0 SPF check failed", NEVER),
        (Phase.RCPT, "550 5.1.2 Client host rejected: no reverse DNS", NEVER),
        (Phase.RCPT, "550 Relaying to unknown domain denied", NEVER),
        (Phase.RCPT, "450 4.1.1 User unknown for now", NEVER),
        (Phase.DOT, "550 5.1.1 User unknown", NEVER),
        (Phase.MAIL, "550 5.1.1 User unknown", NEVER),
    ],
)
def test_only_what_the_address_did_suppresses_it(
    phase: Phase, reply: str, suppress: Suppress
) -> None:
    assert classify(phase, parse_reply(reply)).suppress is suppress


@given(
    st.sampled_from(sorted(set(Phase) - {Phase.AUTH, Phase.RENDER})),
    st.sampled_from(["4", "5"]),
    st.integers(0, 99),
    st.tuples(st.sampled_from("245"), st.integers(0, 9), st.integers(0, 40)),
    st.text(max_size=80),
)
def test_the_basic_code_decides_whether_it_is_tried_again(
    phase: Phase, digit: str, rest: int, enhanced: tuple[str, int, int], text: str
) -> None:
    code = int(f"{digit}{rest:02}")
    status = ".".join(map(str, enhanced))
    outcome = classify(phase, Reply(code, f"{status} {text}", status))
    again = outcome.kind in (Kind.DEFER, Kind.UNTOUCHED)
    if digit == "4" or phase in BEFORE_MAIL:
        assert again
    elif code not in (503, 530, 534, 535, 538) and outcome.error_class != "too_many_recipients":
        assert not again
    assert outcome.suppress is not NOW or (phase is Phase.RCPT and digit == "5")


def test_a_basic_code_beats_an_enhanced_class_that_contradicts_it() -> None:
    assert classify(Phase.RCPT, parse_reply("552 4.2.2 Full")).kind is Kind.BOUNCE
    assert classify(Phase.RCPT, parse_reply("452 5.2.2 Full")).kind is Kind.DEFER


@given(st.sampled_from(sorted(Phase)), st.integers(200, 599), st.text(max_size=300))
def test_every_reply_has_a_meaning(phase: Phase, code: int, text: str) -> None:
    outcome = classify(phase, Reply(code, text))
    assert outcome.error_class
    assert outcome.kind in (Kind.DEFER, Kind.BOUNCE, Kind.FAIL, Kind.UNTOUCHED)


@pytest.mark.parametrize(
    "text",
    [
        "user " + "@" * 30000,
        "user <" * 5000,
        "too many " + "word " * 6000,
        "mailbox " * 4000,
        "sender " + "a@a" * 10000,
        "retry " * 6000,
        " ".join(["exceed message rate quota"] * 1200),
        "from " * 6000,
        "insufficient " * 3000,
        "does not have a " * 2000,
        "1" * 30000,
        "1." * 15000,
        "disabled user " * 2500,
    ],
)
def test_a_text_made_to_be_slow_is_not(text: str) -> None:
    start = time.process_time()
    for phase in (Phase.MAIL, Phase.RCPT, Phase.DOT):
        for code in (450, 550):
            classify(phase, Reply(code, text))
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4.7.1 Greylisted, try again in 5 minutes", 300),
        ("Please retry in 30 seconds", 30),
        ("Try again after 2 hours", 7200),
        ("Greylisted for 300 seconds", 300),
        ("please wait another 90s and try again", 90),
        ("try again in 00:05:00", 300),
        ("Retry after 10 min", 600),
        ("Greylisted, please come back in 00:14:23", 863),
        ("Try again in 3 minutes and 20 seconds", 200),
        ("try again in 1h30m", 5400),
        ("please try again in an hour", 3600),
        ("retry in 1.5 minutes", 90),
        ("try again in 500 ms", 0.5),
        ("wait 1 day", 86400),
        ("Retry-After: 300", 300),
        ("slow down; try again within 15 mins", 900),
        ("deferred, in 10-minutes", 600),
        ("try again in 999999 days", 7 * 86400),
        ("retry after 192.0.2.1 is delisted", None),
        ("wait for 3 months", None),
        ("try again later", None),
        ("user has 5 messages", None),
        ("mailbox full for 3 months", None),
        ("try again; see RFC 5321 section 4", None),
        ("x" * READ + " try again in 5 minutes", None),
    ],
)
def test_the_wait_that_a_relay_names_is_read(text: str, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_a_named_wait_goes_before_the_rules_own() -> None:
    plain = classify(Phase.RCPT, parse_reply("450 4.7.1 Greylisted"))
    named = classify(Phase.RCPT, parse_reply("450 4.7.1 Greylisted, try again in 60 seconds"))
    assert (plain.retry_after, named.retry_after) == (300, 60)
    assert classify(Phase.RCPT, parse_reply("550 5.1.1 No, wait 5 minutes")).retry_after is None


def test_operators_rules_go_first() -> None:
    ours = Rule(Kind.DEFER, "ours", Scope.DOMAIN, codes="550", text="our own words", wait=9)
    table = Table([ours, *RULES])
    outcome = table.classify(Phase.RCPT, parse_reply("550 5.1.1 In Our Own Words"))
    assert (outcome.kind, outcome.error_class, outcome.retry_after) == (Kind.DEFER, "ours", 9)
    assert table.classify(Phase.RCPT, parse_reply("550 5.1.1 No")).error_class == "unknown_address"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.error_class)
def test_only_bounces_at_rcpt_can_suppress(rule: Rule) -> None:
    if rule.suppress is NOW:
        assert rule.kind is Kind.BOUNCE
        assert rule.phases == {Phase.RCPT}
        assert rule.codes[0] == "5"
    if rule.kind is Kind.BOUNCE or rule.suppress is not NEVER:
        assert rule.scope is Scope.RECIPIENT


@pytest.mark.parametrize(
    "unit", ["id@", "id<<<<<<<<", "user@@@@@@@@", "sender @", "valid" + "@" * 50]
)
def test_no_reply_takes_long_to_judge(unit: str) -> None:
    """It is judged on the event loop, beside the conversations with other relays."""
    begun = time.thread_time()
    classify(Phase.RCPT, Reply(550, unit * READ))
    assert time.thread_time() - begun < 0.2
