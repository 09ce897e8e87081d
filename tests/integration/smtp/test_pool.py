"""Kept connections: reuse, age, turns, and what a relay that is away costs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from mailgate.config.rules import Rule
from mailgate.model.outcome import Kind, Outcome, Scope
from mailgate.model.state import Phase
from mailgate.smtp.desk import PROBE_AFTER
from mailgate.smtp.pool import Pool
from tests.integration.smtp.conftest import Authority, envelope, settings
from tests.integration.smtp.scripted import Heard, Marks, ScriptedRelay
from tests.servers.process import free_port

Make = Callable[..., Pool]


class Clock:
    """Time that a test moves; everything that is compared with it stands still otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def send(pool: Pool, to: str = "ann@example.net", marks: Marks | None = None) -> Outcome:
    return await pool.deliver("main", envelope(to), marks or Marks())


async def send_all(pool: Pool, count: int) -> list[Outcome]:
    return await asyncio.gather(*(send(pool, f"u{n}@example.net") for n in range(count)))


# --- reuse and age -------------------------------------------------------------------------


async def test_a_connection_is_kept_for_the_next_message(pool_for: Make) -> None:
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port))
        for _ in range(5):
            assert (await send(pool)).kind is Kind.SENT
        assert len(relay.heard) == 1
        # Just used: no probe, no reset, between the messages.
        assert relay.heard[0].verbs == ["EHLO", *["MAIL", "RCPT", "DATA"] * 5]
        assert pool.stats()["main"].idle == 1


async def test_messages_per_connection_are_counted_and_quit_is_said(pool_for: Make) -> None:
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port, messages_per_connection=2))
        for _ in range(5):
            await send(pool)
        await asyncio.sleep(0.05)
        assert [len(heard.mails) for heard in relay.heard] == [2, 2, 1]
        assert [heard.verbs[-1] for heard in relay.heard] == ["QUIT", "QUIT", "DATA"]


async def test_an_old_connection_is_not_used_again(pool_for: Make) -> None:
    clock = Clock()
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port, max_age=100.0), clock=clock, random=lambda: 0.0)
        await send(pool)
        clock.now += 79
        await send(pool)
        assert len(relay.heard) == 1
        clock.now += 2  # 80 s old: 20% of jitter below the limit
        await send(pool)
        assert len(relay.heard) == 2


async def test_an_idle_connection_is_ended_politely(pool_for: Make) -> None:
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port, idle=0.1))
        await send(pool)
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert relay.heard[0].verbs[-1] == "QUIT"
        await asyncio.sleep(0.05)
        assert pool.stats()["main"].open == 0


async def test_a_connection_idle_for_a_while_is_probed(pool_for: Make) -> None:
    clock = Clock()
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port), clock=clock)
        await send(pool)
        clock.now += PROBE_AFTER + 0.1
        await send(pool)
        assert relay.heard[0].verbs.count("RSET") == 1
        assert len(relay.heard) == 1


async def test_a_failed_probe_costs_nothing_but_a_new_connection(pool_for: Make) -> None:
    clock = Clock()
    async with ScriptedRelay(RSET="421 4.4.2 Too late") as relay:
        pool = pool_for(settings(relay.port), clock=clock)
        await send(pool)
        clock.now += PROBE_AFTER + 0.1
        assert (await send(pool)).kind is Kind.SENT
        assert [len(heard.mails) for heard in relay.heard] == [1, 1]


@pytest.mark.parametrize("rset", ["hang", "close", "500 5.5.1 What?"])
async def test_a_failing_rset_never_masks_the_refusal_before_it(pool_for: Make, rset: str) -> None:
    async with ScriptedRelay(RCPT=["550 5.1.1 No such user", "250 ok"], RSET=rset) as relay:
        pool = pool_for(settings(relay.port, command_timeout=0.3))
        outcome = await send(pool)
        assert (outcome.kind, outcome.reply.code) == (Kind.BOUNCE, 550)
        assert (await send(pool)).kind is Kind.SENT
        assert len(relay.heard) == 2


async def test_the_last_used_connection_is_used_first(pool_for: Make) -> None:
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port))
        await send(pool)
        await send_all(pool, 3)
        connections = len(relay.heard)
        before = [len(heard.mails) for heard in relay.heard]
        for _ in range(6):
            await send(pool)
        grown = [len(h.mails) - b for h, b in zip(relay.heard, before, strict=True)]
        assert sorted(grown) == [0] * (connections - 1) + [6]


# --- a kept connection that died ----------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        "close",
        "reset",
        "421 4.4.2 Idle for too long",
        "421 too many messages in this connection",
        "421 Max messages per session reached",
    ],
)
async def test_a_kept_connection_that_ends_at_mail_is_replaced_unseen(
    pool_for: Make, end: str
) -> None:
    marks = Marks()
    async with ScriptedRelay(MAIL=["250 ok", end, "250 ok"]) as relay:
        pool = pool_for(settings(relay.port))
        assert (await send(pool)).kind is Kind.SENT
        assert (await send(pool, marks=marks)).kind is Kind.SENT
        assert marks.said == ["dot", "accepted"]
        assert [len(heard.mails) for heard in relay.heard] == [1, 1]


async def test_a_replacement_that_ends_too_is_the_end_of_it(pool_for: Make) -> None:
    async with ScriptedRelay(MAIL=["250 ok", "close"]) as relay:
        pool = pool_for(settings(relay.port))
        assert (await send(pool)).kind is Kind.SENT
        outcome = await send(pool)
        assert (outcome.kind, outcome.phase) == (Kind.DEFER, Phase.MAIL)
        assert len(relay.heard) == 2


async def test_a_fresh_connection_that_ends_is_not_replaced(pool_for: Make) -> None:
    async with ScriptedRelay(MAIL="close") as relay:
        outcome = await send(pool_for(settings(relay.port)))
        assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "connection_lost")
        assert len(relay.heard) == 1


@pytest.mark.parametrize("word", ["RCPT", "DATA", "DOT"])
async def test_a_kept_connection_that_ends_later_is_not_replaced(pool_for: Make, word: str) -> None:
    good = {"RCPT": "250 ok", "DATA": "354 go", "DOT": "250 ok"}[word]
    offers = ("SIZE 100000",)
    async with ScriptedRelay(offers=offers, **{word: [good, "close", good]}) as relay:
        pool = pool_for(settings(relay.port))
        await send(pool)
        outcome = await send(pool)
        assert outcome.kind is (Kind.UNCERTAIN if word == "DOT" else Kind.DEFER)
        assert len(relay.heard) == 1


async def test_a_connection_that_died_while_idle_is_not_even_tried(pool_for: Make) -> None:
    async def then_closes(heard: Heard) -> str:
        await heard.say("250 2.0.0 Queued")
        await asyncio.sleep(0.02)
        return "close"

    async with ScriptedRelay(DOT=[then_closes, "250 ok"]) as relay:
        pool = pool_for(settings(relay.port))
        await send(pool)
        await asyncio.sleep(0.1)
        assert (await send(pool)).kind is Kind.SENT
        assert [heard.verbs.count("MAIL") for heard in relay.heard] == [1, 1]


# --- turns --------------------------------------------------------------------------------


async def test_never_more_connections_than_allowed(pool_for: Make) -> None:
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port, max_connections=3, messages_per_connection=4))
        outcomes = await send_all(pool, 60)
        assert {o.kind for o in outcomes} == {Kind.SENT}
        assert relay.peak == 3
        assert len(relay.mails) == 60


async def test_who_came_first_is_served_first(pool_for: Make) -> None:
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port, max_connections=1))
        await send_all(pool, 20)
        order = [c for heard in relay.heard for c in heard.commands if c.startswith("RCPT")]
        assert order == [f"RCPT TO:<u{n}@example.net>" for n in range(20)]


async def test_connections_are_kept_for_urgent_mail_at_a_relay_that_hangs(pool_for: Make) -> None:
    async with ScriptedRelay(DOT=["hang", "hang", "hang", "250 ok"]) as relay:
        pool = pool_for(settings(relay.port, max_connections=4), kept={"main": 1})
        stuck = [asyncio.create_task(send(pool, f"u{n}@example.net")) for n in range(6)]
        async with asyncio.timeout(5):
            while relay.peak < 3:
                await asyncio.sleep(0.01)
            urgent = envelope("ann@example.net")
            for _ in range(3):
                assert (await pool.deliver("main", urgent, Marks(), urgent=True)).kind is Kind.SENT
        assert not any(task.done() for task in stuck)
        # Who waited is not in the way, and leaves no hole.
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        assert {o.kind for o in await send_all(pool, 8)} == {Kind.SENT}
        assert relay.peak == 4


async def test_cancelled_waiters_leave_no_hole(pool_for: Make) -> None:
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port, max_connections=2))
        tasks = [asyncio.create_task(send(pool, f"u{n}@example.net")) for n in range(30)]
        for task in tasks[::3]:
            await asyncio.sleep(0)
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [o for o in done if isinstance(o, Outcome)]
        assert len(kept) >= 20
        assert {o.kind for o in kept} == {Kind.SENT}
        assert (await send(pool)).kind is Kind.SENT
        stats = pool.stats()["main"]
        assert (stats.busy, stats.waiting) == (0, 0)
        assert stats.open == stats.idle <= 2


async def test_a_message_cancelled_in_its_conversation_frees_its_place(pool_for: Make) -> None:
    async with ScriptedRelay(DOT=["hang", "250 ok"]) as relay:
        pool = pool_for(settings(relay.port, max_connections=1))
        marks = Marks()
        task = asyncio.create_task(send(pool, marks=marks))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert marks.said == ["dot"]
        assert (await send(pool)).kind is Kind.SENT


async def test_the_gate_is_passed_with_a_connection_in_hand(pool_for: Make) -> None:
    async with ScriptedRelay() as relay:
        pool = pool_for(settings(relay.port))
        seen: list[list[str]] = []

        async def gate() -> None:
            seen.append(list(relay.heard[0].verbs))

        await pool.deliver("main", envelope(), Marks(), gate)
        assert seen == [["EHLO"]]

        async def shut() -> None:
            raise TimeoutError

        with pytest.raises(TimeoutError):
            await pool.deliver("main", envelope(), Marks(), shut)
        assert relay.heard[0].verbs.count("MAIL") == 1
        assert pool.stats()["main"].idle == 1


# --- set-up that fails ---------------------------------------------------------------------


async def test_connection_refused_is_deferred_once_and_then_untouched(pool_for: Make) -> None:
    clock = Clock()
    pool = pool_for(settings(free_port()), clock=clock, random=lambda: 0.5)
    first = await send(pool)
    assert (first.kind, first.error_class) == (Kind.DEFER, "connect_failed")
    assert first.scope is Scope.RELAY
    for wait in (1.0, 2.0, 4.0):
        second = await send(pool)
        assert (second.kind, second.error_class) == (Kind.UNTOUCHED, "relay_backing_off")
        assert second.retry_after == pytest.approx(wait)
        assert not second.counts
        clock.now += wait
        assert (await send(pool)).kind is Kind.DEFER
    clock.now += 3600
    for _ in range(20):
        await send(pool)
        clock.now += 61
    assert pool.stats()["main"].backing_off <= 60
    assert "connect_failed" in pool.stats()["main"].last_failure


async def test_a_relay_that_is_away_sees_no_storm(pool_for: Make) -> None:
    async with ScriptedRelay(GREETING="421 4.3.2 Down for maintenance") as relay:
        pool = pool_for(settings(relay.port, max_connections=20))
        outcomes = await send_all(pool, 200)
        assert len(relay.heard) == 1
        assert [o.kind for o in outcomes].count(Kind.DEFER) == 1
        assert {o.kind for o in outcomes} == {Kind.DEFER, Kind.UNTOUCHED}


async def test_a_refused_password_is_tried_once_for_a_whole_backlog(
    pool_for: Make, authority: Authority
) -> None:
    async with ScriptedRelay(
        offers=("AUTH PLAIN LOGIN",), tls=authority.server(), AUTH="535 5.7.8 No"
    ) as relay:
        section = settings(
            relay.port,
            security="tls",
            ca_file=authority.file,
            username="gate",
            password_env="UNUSED",
            max_connections=20,
        )
        pool = pool_for(section, "wrong")
        outcomes = await send_all(pool, 100)
        assert {o.kind for o in outcomes} == {Kind.UNTOUCHED}
        assert sum(heard.verbs.count("AUTH") for heard in relay.heard) == 1


async def test_one_tls_context_serves_all_connections_to_a_relay(
    pool_for: Make, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To build one takes longer than a whole conversation."""
    made: list[object] = []
    build = ssl.create_default_context

    def counted(*arguments: Any, **options: Any) -> ssl.SSLContext:
        made.append(arguments)
        return build(*arguments, **options)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    async with ScriptedRelay(tls=authority.server()) as relay:
        section = settings(
            relay.port, security="tls", ca_file=authority.file, messages_per_connection=1
        )
        pool = pool_for(section)
        assert {o.kind for o in await send_all(pool, 8)} == {Kind.SENT}
        assert len(relay.heard) == 8
        assert len(made) == 1


async def test_auth_required_at_mail_stops_the_relay_not_the_message(pool_for: Make) -> None:
    async with ScriptedRelay(MAIL="530 5.7.0 Authentication required") as relay:
        pool = pool_for(settings(relay.port, max_connections=1))
        outcomes = await send_all(pool, 20)
        assert {o.kind for o in outcomes} == {Kind.UNTOUCHED}
        assert len(relay.heard) == 1


async def test_after_the_wait_one_connection_tries_first(pool_for: Make) -> None:
    clock = Clock()
    greetings = ["451 Not now", "220 relay"]
    async with ScriptedRelay(GREETING=greetings) as relay:
        pool = pool_for(settings(relay.port), clock=clock)
        await send(pool)
        clock.now += 5
        outcomes = await send_all(pool, 10)
        assert [o.kind for o in outcomes].count(Kind.SENT) == 1
        assert len(relay.heard) == 2
        # It works again: the others may come at once.
        assert {o.kind for o in await send_all(pool, 10)} == {Kind.SENT}


async def test_a_relay_that_allows_fewer_connections_still_takes_all_mail(
    pool_for: Make,
) -> None:
    live = 0

    async def greet(heard: Heard) -> str | None:
        nonlocal live
        if live >= 2:
            await heard.say("421 4.7.0 Too many connections from you")
            return "close"
        live += 1
        await heard.say("220 relay.example")
        return None

    async with ScriptedRelay(GREETING=greet) as relay:
        pool = pool_for(settings(relay.port, max_connections=10))
        outcomes = await send_all(pool, 100)
        assert {o.kind for o in outcomes} == {Kind.SENT}
        assert len(relay.mails) == 100


# --- the end ----------------------------------------------------------------------------------


async def test_close_says_quit_and_takes_nothing_more() -> None:
    async with ScriptedRelay() as relay:
        pool = Pool({"main": settings(relay.port)}, {})
        await send_all(pool, 4)
        await pool.close(2.0)
        assert {heard.verbs[-1] for heard in relay.heard} == {"QUIT"}
        outcome = await send(pool)
        assert (outcome.kind, outcome.error_class) == (Kind.UNTOUCHED, "shutting_down")
        assert pool.stats()["main"].open == 0


async def test_close_lets_a_conversation_end_and_turns_waiters_away() -> None:
    async def slow(_: Heard) -> str:
        await asyncio.sleep(0.2)
        return "250 2.0.0 Queued"

    async with ScriptedRelay(DOT=slow) as relay:
        pool = Pool({"main": settings(relay.port, max_connections=1)}, {})
        tasks = [asyncio.create_task(send(pool)) for _ in range(3)]
        await asyncio.sleep(0.1)
        await pool.close(2.0)
        outcomes = [await task for task in tasks]
        assert [o.kind for o in outcomes] == [Kind.SENT, Kind.UNTOUCHED, Kind.UNTOUCHED]
        assert outcomes[1].error_class == "shutting_down"


@pytest.mark.parametrize(("word", "kind"), [("RCPT", Kind.DEFER), ("DOT", Kind.UNCERTAIN)])
async def test_close_aborts_after_its_grace(word: str, kind: Kind) -> None:
    async with ScriptedRelay(**{word: "hang"}) as relay:
        pool = Pool({"main": settings(relay.port, max_connections=1)}, {})
        task = asyncio.create_task(send(pool))
        await asyncio.sleep(0.1)
        await pool.close(0.1)
        assert (await asyncio.wait_for(task, 1)).kind is kind


def test_a_missing_password_is_said_at_once() -> None:
    section = settings(25, security="tls", username="gate", password_env="X")
    with pytest.raises(ValueError, match="main"):
        Pool({"main": section}, {})


async def test_an_operators_rule_says_what_this_relays_refusals_mean(
    pool_for: Callable[..., Pool],
) -> None:
    rule = Rule.model_validate(
        {"text": "busy weekend", "then": "defer", "scope": "domain", "relays": ["main"]}
    )
    answers = ["550 5.1.1 Busy weekend", "250 ok"]
    async with ScriptedRelay(RCPT=answers, DOT="554 5.7.1 A busy weekend") as relay:
        pool = pool_for(settings(relay.port), rules={"weekend": rule})
        for phase in (Phase.RCPT, Phase.DOT):
            outcome = await pool.deliver("main", envelope(), Marks())
            assert (outcome.kind, outcome.error_class) == (Kind.DEFER, "weekend")
            assert (outcome.phase, outcome.scope) == (phase, Scope.DOMAIN)
