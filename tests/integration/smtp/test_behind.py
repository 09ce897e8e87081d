"""The next message's commands go out with the dot of the one before: what then can happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mailgate.model.outcome import Kind, LeaseLost, Outcome
from mailgate.model.state import Phase
from mailgate.smtp import session
from mailgate.smtp.pool import Pool
from tests.integration.smtp.conftest import Authority, envelope, settings
from tests.integration.smtp.scripted import Heard, Marks, ScriptedRelay

Make = Callable[..., Pool]
TAKEN = "250 2.0.0 Queued"


async def send(pool: Pool, n: int, marks: Marks | None = None, gate: Any = None) -> Outcome:
    content = f"Subject: {n}\r\n\r\nThis is {n}.\r\n".encode()
    return await pool.deliver(
        "main", envelope(f"u{n}@example.net", content), marks or Marks(), gate
    )


async def three(
    pool: Pool, marks: list[Marks] | None = None, gates: tuple[Any, ...] = (None, None, None)
) -> list[Outcome]:
    """One alone, which shows that the relay answers soon; then two, the second behind."""
    marks = marks or [Marks() for _ in range(3)]
    first = await send(pool, 0, marks[0])
    both = await asyncio.gather(*(send(pool, n, marks[n], gates[n]) for n in (1, 2)))
    return [first, *both]


def one(relay: ScriptedRelay, **more: Any) -> Any:
    return settings(relay.port, max_connections=1, **more)


def subjects(relay: ScriptedRelay) -> list[int]:
    return [int(mail.split(b"\r\n")[0][9:]) for mail in relay.mails]


def kinds(outcomes: list[Outcome]) -> list[Kind]:
    return [outcome.kind for outcome in outcomes]


async def test_the_next_messages_commands_come_before_the_dot_is_answered(pool_for: Make) -> None:
    came: list[bool] = []

    async def look(heard: Heard) -> str:
        await asyncio.sleep(0.05)
        came.append(heard.reader._buffer.startswith(b"MAIL"))  # type: ignore[attr-defined]
        return TAKEN

    async with ScriptedRelay(DOT=look) as relay:
        marks = [Marks() for _ in range(3)]
        assert kinds(await three(pool_for(one(relay)), marks)) == [Kind.SENT] * 3
        assert came == [False, True, False]
        assert subjects(relay) == [0, 1, 2]
        assert [m.said for m in marks] == [["dot", "accepted"]] * 3
        assert relay.heard[0].verbs == ["EHLO", *["MAIL", "RCPT", "DATA"] * 3]


async def test_over_tls_too(pool_for: Make, authority: Authority) -> None:
    async with ScriptedRelay(tls=authority.server()) as relay:
        pool = pool_for(one(relay, security="tls", ca_file=authority.file))
        await send(pool, 0)
        outcomes = await asyncio.gather(*(send(pool, n) for n in range(1, 9)))
        assert {o.kind for o in outcomes} == {Kind.SENT}
        assert subjects(relay) == list(range(9))
        assert len(relay.heard) == 1


@pytest.mark.parametrize("offers", [(), ("PIPELINING",)])
async def test_many_messages_each_come_once(pool_for: Make, offers: tuple[str, ...]) -> None:
    async with ScriptedRelay(offers=offers) as relay:
        pool = pool_for(settings(relay.port, max_connections=3, messages_per_connection=7))
        outcomes = await asyncio.gather(*(send(pool, n) for n in range(100)))
        assert {o.kind for o in outcomes} == {Kind.SENT}
        assert sorted(subjects(relay)) == list(range(100))
        assert relay.peak <= 3
        assert max(len(heard.mails) for heard in relay.heard) == 7
        assert pool.busy == 0


async def test_who_rides_behind_another_takes_nobodys_connection(pool_for: Make) -> None:
    release = asyncio.Event()

    async def slow(_: Heard) -> str:
        await release.wait()
        return TAKEN

    async with ScriptedRelay(DOT=[TAKEN, TAKEN, slow, TAKEN]) as relay:
        pool = pool_for(settings(relay.port, max_connections=2))
        await asyncio.gather(*(send(pool, n) for n in range(2)))
        first, second, behind = (asyncio.create_task(send(pool, n)) for n in (2, 3, 4))
        assert (await second).kind is Kind.SENT
        async with asyncio.timeout(5):
            # Two messages are on one connection, and the other one is idle.
            assert kinds([await send(pool, n) for n in (5, 6)]) == [Kind.SENT] * 2
        assert not any(task.done() for task in (first, behind))
        release.set()
        assert kinds([await first, await behind]) == [Kind.SENT] * 2
        assert relay.peak == 2


async def test_a_paced_message_never_goes_out_with_another_ones_dot(pool_for: Make) -> None:
    said: list[int] = []
    heard_before: list[bool] = []

    async def look(heard: Heard) -> str:
        await asyncio.sleep(0.05)
        heard_before.append(bool(heard.reader._buffer))  # type: ignore[attr-defined]
        return TAKEN

    async def gate() -> None:
        said.append(len(relay.mails))

    async with ScriptedRelay(DOT=look) as relay:
        outcomes = await three(pool_for(one(relay)), gates=(None, None, gate))
        assert kinds(outcomes) == [Kind.SENT] * 3
        assert said == [2]
        assert heard_before == [False] * 3


# --- the message before fails -------------------------------------------------------------


@pytest.mark.parametrize("reply", ["451 4.3.0 Later", "554 5.7.1 No"])
async def test_a_refused_dot_does_not_touch_the_message_behind_it(
    pool_for: Make, reply: str
) -> None:
    async with ScriptedRelay(DOT=[TAKEN, reply, TAKEN]) as relay:
        outcomes = await three(pool_for(one(relay)))
        assert [o.reply.code for o in outcomes] == [250, int(reply[:3]), 250]
        assert outcomes[1].phase is Phase.DOT
        assert len(relay.heard) == 1


@pytest.mark.parametrize(
    ("end", "before"),
    [
        ("421 4.3.2 Closing", Kind.DEFER),
        ("354 What?", Kind.UNCERTAIN),
        ("close", Kind.UNCERTAIN),
        ("reset", Kind.UNCERTAIN),
        ("hang", Kind.UNCERTAIN),
    ],
)
async def test_a_connection_that_ends_at_the_dot_sends_the_message_behind_on_another(
    pool_for: Make, end: str, before: Kind
) -> None:
    async with ScriptedRelay(DOT=[TAKEN, end, TAKEN]) as relay:
        marks = [Marks() for _ in range(3)]
        outcomes = await three(pool_for(one(relay, dot_timeout=0.3)), marks)
        assert kinds(outcomes) == [Kind.SENT, before, Kind.SENT]
        # One mark before its dot: of the first try nothing was near it.
        assert marks[2].said == ["dot", "accepted"]
        assert subjects(relay) == [0, 1, 2]
        assert len(relay.heard) == 2


async def test_who_waits_too_long_behind_a_dot_goes_elsewhere(
    pool_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BEHIND", 0.1)
    release = asyncio.Event()

    async def slow(_: Heard) -> str:
        await release.wait()
        return TAKEN

    async with ScriptedRelay(DOT=[TAKEN, TAKEN, slow, TAKEN]) as relay:
        pool = pool_for(settings(relay.port, max_connections=2), kept={"main": 1})
        await send(pool, 0)
        await send(pool, 1)
        first = asyncio.create_task(send(pool, 2))
        await asyncio.sleep(0)
        second = await asyncio.wait_for(send(pool, 3), 2)
        assert second.kind is Kind.SENT
        assert not first.done()
        release.set()
        # It keeps its answer, although its connection ends there.
        assert (await first).kind is Kind.SENT
        assert subjects(relay) == [0, 1, 2, 3]
        assert pool.busy == 0


async def test_behind_a_dot_that_was_slow_nobody_goes_out(
    pool_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "QUICK", 0.0)
    came: list[bytes] = []

    async def look(heard: Heard) -> str:
        await asyncio.sleep(0.02)
        came.append(bytes(heard.reader._buffer))  # type: ignore[attr-defined]
        return TAKEN

    async with ScriptedRelay(DOT=look) as relay:
        assert kinds(await three(pool_for(one(relay)))) == [Kind.SENT] * 3
        assert came == [b""] * 3


# --- the message behind fails ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "phase"), [("MAIL", Phase.MAIL), ("RCPT", Phase.RCPT), ("DATA", Phase.DATA)]
)
async def test_a_message_refused_behind_another_is_judged_in_its_phase(
    pool_for: Make, word: str, phase: Phase
) -> None:
    good = {"MAIL": "250 Ok", "RCPT": "250 Ok", "DATA": "354 Go on"}
    script: dict[str, Any] = {word: [good[word], good[word], "550 5.7.1 Not you", good[word]]}
    if word == "MAIL":
        # No relay takes a recipient without a sender: who did would be out of step.
        for later in ("RCPT", "DATA"):
            script[later] = [good[later], good[later], "503 5.5.1 No sender", good[later]]
    async with ScriptedRelay(**script) as relay:
        pool = pool_for(one(relay))
        outcomes = await three(pool)
        assert [o.reply.code for o in outcomes] == [250, 250, 550]
        assert outcomes[2].phase is phase
        assert (await send(pool, 4)).kind is Kind.SENT
        assert 2 not in [int(m[9:10]) for m in relay.mails if m]


@pytest.mark.parametrize("word", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("end", ["close", "hang"])
async def test_a_connection_that_ends_behind_the_answer_leaves_the_answer(
    pool_for: Make, word: str, end: str
) -> None:
    good = {"MAIL": "250 Ok", "RCPT": "250 Ok", "DATA": "354 Go on"}[word]
    async with ScriptedRelay(**{word: [good, good, end, good]}) as relay:
        outcomes = await three(pool_for(one(relay, command_timeout=0.3)))
        assert kinds(outcomes[:2]) == [Kind.SENT, Kind.SENT]
        # Ended before a word of it was judged, it goes out once more at once.
        again = word == "MAIL" and end == "close"
        assert outcomes[2].kind is (Kind.SENT if again else Kind.DEFER)
        assert subjects(relay) == ([0, 1, 2] if again else [0, 1])


async def test_the_time_for_commands_begins_when_the_dot_is_answered(pool_for: Make) -> None:
    async def slow(_: Heard) -> str:
        await asyncio.sleep(0.4)
        return TAKEN

    async with ScriptedRelay(DOT=[TAKEN, slow, TAKEN]) as relay:
        outcomes = await three(pool_for(one(relay, command_timeout=0.2)))
        assert kinds(outcomes) == [Kind.SENT] * 3
        assert len(relay.heard) == 1


async def test_a_lease_lost_behind_another_sends_no_dot(pool_for: Make) -> None:
    def lost() -> None:
        raise LeaseLost("gone")

    async with ScriptedRelay() as relay:
        marks = [Marks(), Marks(), Marks(lost)]
        outcomes = await three(pool_for(one(relay)), marks)
        assert kinds(outcomes) == [Kind.SENT, Kind.SENT, Kind.UNTOUCHED]
        await asyncio.wait_for(relay.heard[0].ended.wait(), 2)
        assert subjects(relay) == [0, 1]
        assert relay.heard[0].verbs[-1] == "DATA"


async def test_a_lease_lost_at_the_dot_leaves_who_waits_to_another_connection(
    pool_for: Make,
) -> None:
    def lost() -> None:
        raise LeaseLost("gone")

    async with ScriptedRelay() as relay:
        outcomes = await three(pool_for(one(relay)), [Marks(), Marks(lost), Marks()])
        assert kinds(outcomes) == [Kind.SENT, Kind.UNTOUCHED, Kind.SENT]
        assert subjects(relay) == [0, 2]


async def test_cancelled_behind_another_it_leaves_that_ones_answer(pool_for: Make) -> None:
    release = asyncio.Event()

    async def slow(_: Heard) -> str:
        await release.wait()
        return TAKEN

    async with ScriptedRelay(DOT=[TAKEN, slow, TAKEN]) as relay:
        pool = pool_for(one(relay))
        await send(pool, 0)
        first, second, third = (asyncio.create_task(send(pool, n)) for n in (1, 2, 3))
        await asyncio.sleep(0.1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        release.set()
        assert (await first).kind is Kind.SENT
        assert (await third).kind is Kind.SENT
        assert subjects(relay) == [0, 1, 3]
        assert relay.peak == 1
        assert pool.busy == 0


async def test_cancelled_at_the_dot_the_message_behind_goes_elsewhere(pool_for: Make) -> None:
    async with ScriptedRelay(DOT=[TAKEN, "hang", TAKEN]) as relay:
        pool = pool_for(one(relay))
        await send(pool, 0)
        marks = Marks()
        first = asyncio.create_task(send(pool, 1, marks))
        second = asyncio.create_task(send(pool, 2))
        await asyncio.sleep(0.1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert marks.said == ["dot"]
        assert (await second).kind is Kind.SENT
        assert subjects(relay) == [0, 1, 2]


@pytest.mark.parametrize("pause", [0.0, 0.1])
@pytest.mark.parametrize("stray", ["550 5.7.1 No", "250 2.0.0 Ok", "421 4.3.2 Bye", "354 Go on"])
async def test_a_stray_reply_at_the_dot_is_nobodys_answer(
    pool_for: Make, stray: str, pause: float
) -> None:
    """Every reply after it is one too late: whom it would be given goes out again elsewhere."""

    async def data(heard: Heard) -> str:
        await asyncio.sleep(pause)
        return "354 Go on"

    both = f"{TAKEN}\r\n{stray}\r\n".encode()
    go_on = "354 Go on"
    async with ScriptedRelay(DOT=[TAKEN, both, TAKEN], DATA=[go_on, go_on, data, go_on]) as relay:
        outcomes = await three(pool_for(one(relay)))
        # What shows at once puts the answer before it in doubt as well.
        assert outcomes[1].kind is (Kind.SENT if pause else Kind.UNCERTAIN)
        assert (outcomes[0].kind, outcomes[2].kind) == (Kind.SENT, Kind.SENT)
        assert subjects(relay) == [0, 1, 2]
        assert len(relay.heard) == 2
