"""The bridge with a gateway that does as it is told, on a real loop in a real thread."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mailgate.model.state import Lane
from mailgate.worker.loop import Bridge, DeliveryFailed, GatewayClosed

SECRET = "ann.private@example.com"


class Scripted:
    """A gateway whose next acts are set by the test."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.lanes: frozenset[Lane] = frozenset()
        self.looks: list[float] = []
        self.start_faults: list[Exception] = []
        self.look_fault: Exception | None = None
        self.next: float | None = None
        self.work: Callable[[float], Any] = lambda deadline: asyncio.sleep(0, {"sent": 1})

    async def start(self) -> None:
        self.said.append("start")
        if self.start_faults:
            raise self.start_faults.pop(0)

    async def deliver(self, lane: Lane, deadline: float) -> dict[str, int]:
        self.said.append(f"deliver {lane}")
        try:
            counts: dict[str, int] = await self.work(deadline)
        except asyncio.CancelledError:
            self.said.append("cancelled")
            raise
        return counts

    async def due(self) -> frozenset[Lane]:
        self.looks.append(time.monotonic())
        if self.look_fault:
            raise self.look_fault
        return self.lanes

    async def until_due(self, most: float) -> float:
        return most if self.next is None else self.next

    async def stop(self, grace: float) -> None:
        self.said.append(f"stop {grace:g}")


class Rig:
    """A bridge, its gateway and what it rang."""

    def __init__(self) -> None:
        self.gateway = Scripted()
        self.rung: list[Lane] = []
        self.bridge: Bridge | None = None

    def start(self, **options: Any) -> Bridge:
        options = {"deadline": 0.3, "overdue": 5.0, "look": 0.05, **options}
        self.bridge = Bridge(lambda: self.gateway, self.rung.append, **options)
        self.bridge.start()
        return self.bridge

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + 5
        while not true():
            assert time.monotonic() < end, (self.gateway.said, self.rung)
            time.sleep(0.005)


@pytest.fixture
def rig() -> Iterator[Rig]:
    found = Rig()
    yield found
    if found.bridge is not None:
        found.bridge.stop(0)


def test_a_task_runs_on_the_loop_and_returns_counts(rig: Rig) -> None:
    bridge = rig.start()
    assert bridge.deliver(Lane.HIGH) == {"sent": 1}
    assert rig.gateway.said == ["start", "deliver high"]


def test_tasks_of_several_threads_share_the_loop(rig: Rig) -> None:
    bridge = rig.start(deadline=3)
    together = asyncio.Barrier(3)

    async def meet(deadline: float) -> dict[str, int]:
        await together.wait()
        return {}

    rig.gateway.work = meet
    threads = [threading.Thread(target=bridge.deliver, args=(lane,)) for lane in Lane]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2)
    assert not any(thread.is_alive() for thread in threads)


def test_what_is_due_is_rung_for_each_second(rig: Rig) -> None:
    rig.gateway.lanes = frozenset({Lane.BULK, Lane.HIGH})
    rig.start()
    rig.until(lambda: len(rig.rung) >= 6)
    assert rig.rung[:4] == [Lane.HIGH, Lane.BULK, Lane.HIGH, Lane.BULK]


@pytest.mark.parametrize(("chance", "shortest"), [(0.0, 0.18), (0.999, 0.22)])
def test_looks_are_spread_by_a_tenth(rig: Rig, chance: float, shortest: float) -> None:
    rig.start(look=0.2, chance=lambda: chance)
    rig.until(lambda: len(rig.gateway.looks) >= 6)
    gaps = [b - a for a, b in zip(rig.gateway.looks, rig.gateway.looks[1:], strict=False)]
    assert shortest - 0.002 <= min(gaps) < shortest + 0.02


@pytest.mark.parametrize(("soon", "shortest"), [(0.1, 0.1), (0.001, 0.05)])
def test_what_falls_due_before_the_next_look_is_looked_for(
    rig: Rig, soon: float, shortest: float
) -> None:
    """But no more often than each quarter of a second where something always does."""
    rig.gateway.next = soon
    rig.start(look=0.2, chance=lambda: 0.5)
    rig.until(lambda: len(rig.gateway.looks) >= 5)
    gaps = [b - a for a, b in zip(rig.gateway.looks, rig.gateway.looks[1:], strict=False)]
    assert shortest - 0.002 <= min(gaps) < shortest + 0.02


def test_a_lane_under_work_is_not_rung_for_and_the_others_are(rig: Rig) -> None:
    bridge = rig.start(deadline=2)
    go = asyncio.Event()

    async def wait(deadline: float) -> dict[str, int]:
        rig.gateway.lanes = frozenset(Lane)
        await go.wait()
        return {}

    rig.gateway.work = wait
    thread = threading.Thread(target=bridge.deliver, args=(Lane.BULK,))
    thread.start()
    rig.until(lambda: rig.rung.count(Lane.HIGH) >= 3)
    assert Lane.BULK not in rig.rung
    bridge._loop.call_soon_threadsafe(go.set)
    thread.join()
    rig.until(lambda: Lane.BULK in rig.rung)


def test_what_is_due_is_worked_on_without_a_task_from_a_ring_that_nobody_heard_on(
    rig: Rig,
) -> None:
    """The lowest of its own lanes, with which go those above it; until a task comes."""
    rig.gateway.lanes = frozenset(Lane)
    lost = threading.Event()
    bridge = rig.start(lanes=[Lane.HIGH, Lane.NORMAL], unheard=lost.is_set)
    rig.until(lambda: len(rig.rung) >= 9)
    assert rig.gateway.said == ["start"]
    lost.set()
    rig.until(lambda: len(rig.gateway.said) >= 3)
    assert set(rig.gateway.said) == {"start", "deliver normal"}
    # Somebody hears the rings again, and sends no task yet.
    lost.clear()
    done, rung = len(rig.gateway.said), len(rig.rung)
    rig.until(lambda: len(rig.gateway.said) >= done + 3)
    assert len(rig.rung) > rung
    bridge.deliver(Lane.HIGH)
    looks = len(rig.gateway.looks)
    rig.until(lambda: len(rig.gateway.looks) >= looks + 2)
    done = len(rig.gateway.said)
    rig.until(lambda: len(rig.gateway.looks) >= looks + 9)
    assert len(rig.gateway.said) == done


def test_without_a_task_one_piece_of_work_is_begun_at_a_time(rig: Rig) -> None:
    rig.gateway.lanes = frozenset(Lane)
    go = asyncio.Event()

    async def wait(deadline: float) -> dict[str, int]:
        await go.wait()
        raise ValueError(SECRET)

    rig.gateway.work = wait
    bridge = rig.start(unheard=lambda: True)
    rig.until(lambda: len(rig.gateway.looks) >= 9)
    assert rig.gateway.said == ["start", "deliver bulk"]
    # The lanes above are rung for meanwhile: whoever hears it may work on them.
    assert rig.rung.count(Lane.NORMAL) > rig.rung.count(Lane.BULK)
    bridge._loop.call_soon_threadsafe(go.set)
    # One that fails is in the log, and not the last.
    rig.until(lambda: rig.gateway.said.count("deliver bulk") >= 3)


def test_work_without_a_task_goes_on_at_its_deadline(rig: Rig) -> None:
    rig.gateway.lanes = frozenset({Lane.NORMAL})

    async def until_deadline(deadline: float) -> dict[str, int]:
        await asyncio.sleep(deadline - time.monotonic())
        return {"sent": 9}

    rig.gateway.work = until_deadline
    rig.start(unheard=lambda: True, deadline=0.1, look=60)
    rig.until(lambda: rig.gateway.said.count("deliver normal") >= 4)


def test_work_without_a_task_that_is_overdue_is_given_up(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.gateway.lanes = frozenset({Lane.NORMAL})
    rig.gateway.work = lambda deadline: asyncio.sleep(60)
    rig.start(unheard=lambda: True, overdue=0.2)
    rig.until(lambda: rig.gateway.said.count("deliver normal") >= 2)
    assert rig.gateway.said[:3] == ["start", "deliver normal", "cancelled"]
    assert "lane normal without a task was overdue" in caplog.text


def test_work_without_a_task_ends_with_the_process(rig: Rig) -> None:
    rig.gateway.lanes = frozenset(Lane)
    rig.gateway.work = lambda deadline: asyncio.sleep(60)
    bridge = rig.start(unheard=lambda: True, overdue=60)
    rig.until(lambda: "deliver bulk" in rig.gateway.said)
    begin = time.monotonic()
    bridge.stop(7)
    assert time.monotonic() - begin < 2
    assert rig.gateway.said[-2:] == ["stop 7", "cancelled"]


def test_work_left_at_the_deadline_is_rung_for_at_once(rig: Rig) -> None:
    bridge = rig.start(deadline=0.1, look=60)

    async def until_deadline(deadline: float) -> dict[str, int]:
        rig.gateway.lanes = frozenset({Lane.NORMAL})
        await asyncio.sleep(deadline - time.monotonic())
        return {"sent": 9}

    rig.until(lambda: rig.gateway.looks)
    rig.gateway.work = until_deadline
    assert bridge.deliver(Lane.NORMAL) == {"sent": 9}
    assert rig.rung == [Lane.NORMAL]


def test_an_error_reaches_celery_without_its_text(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = rig.start()

    async def refuse(deadline: float) -> dict[str, int]:
        raise ValueError(f"550 {SECRET}")

    rig.gateway.work = refuse
    with pytest.raises(DeliveryFailed, match=r"^ValueError$") as caught:
        bridge.deliver(Lane.HIGH)
    assert caught.value.__suppress_context__
    assert SECRET not in caplog.text
    assert "ValueError" in caplog.text
    assert "in refuse" in caplog.text  # where it came from
    rig.gateway.work = lambda deadline: asyncio.sleep(0, {})
    assert bridge.deliver(Lane.HIGH) == {}


def test_an_overdue_task_is_cancelled(rig: Rig) -> None:
    bridge = rig.start(deadline=0.1, overdue=0.2)
    rig.gateway.work = lambda deadline: asyncio.sleep(60)
    with pytest.raises(TimeoutError):
        bridge.deliver(Lane.HIGH)
    assert rig.gateway.said[-1] == "cancelled"


def test_a_journal_that_is_away_is_said_once_and_looked_for_on(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rig.gateway.look_fault = ConnectionError(SECRET)
    rig.start()
    rig.until(lambda: len(rig.gateway.looks) >= 4)
    rig.gateway.lanes = frozenset({Lane.HIGH})
    rig.gateway.look_fault = None
    rig.until(lambda: rig.rung)
    assert caplog.text.count("cannot look at the journal") == 1
    assert caplog.text.count("the journal is back") == 1
    assert SECRET not in caplog.text


def test_a_gateway_that_does_not_open_is_made_again(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.gateway.start_faults = [ConnectionError("the schema is behind") for _ in range(2)]
    bridge = rig.start(deadline=5)
    assert bridge.deliver(Lane.HIGH) == {"sent": 1}
    assert rig.gateway.said == ["start", "start", "start", "deliver high"]
    assert caplog.text.count("does not open, trying on: the schema is behind") == 1


def test_a_task_before_the_gateway_is_open_ends_at_its_deadline(rig: Rig) -> None:
    rig.gateway.start_faults = [ConnectionError()] * 9
    bridge = rig.start(deadline=0.1)
    with pytest.raises(GatewayClosed):
        bridge.deliver(Lane.HIGH)


def test_stop_gives_the_grace_and_takes_no_more_tasks(rig: Rig) -> None:
    bridge = rig.start()
    bridge.deliver(Lane.HIGH)
    bridge.stop(7)
    assert rig.gateway.said[-1] == "stop 7"
    assert not bridge._thread.is_alive()
    with pytest.raises(GatewayClosed):
        bridge.deliver(Lane.HIGH)
    bridge.stop(7)
    assert rig.gateway.said.count("stop 7") == 1


def test_stop_while_the_gateway_does_not_open_is_quick(rig: Rig) -> None:
    rig.gateway.start_faults = [ConnectionError()] * 9
    bridge = rig.start()
    rig.until(lambda: rig.gateway.said)
    begin = time.monotonic()
    bridge.stop(7)
    assert time.monotonic() - begin < 0.4
    assert "stop 7" not in rig.gateway.said


def test_a_process_whose_loop_dies_ends() -> None:
    code = """
import asyncio, sys, time
from mailgate.worker.loop import Bridge
class Dying:
    async def start(self): asyncio.get_running_loop().call_later(0.1, sys.exit, 3)
    async def due(self): return frozenset()
    async def until_due(self, most): return most
Bridge(Dying, print, deadline=1, overdue=2).start()
time.sleep(20)
"""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 70
    assert b"the event loop died: SystemExit" in done.stderr
    assert time.monotonic() - begin < 10
