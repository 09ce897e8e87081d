"""The network loses packets and closes nothing: first of the connections of now, then of all.

A proxy goes on taking what is said on a connection and passes none of it on, both ways or
one, and tells neither end when the other hangs up. It sees when mailgate gives each up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.faults.fault import Run, fault
from bench.faults.proxy import Proxy, Way
from bench.faults.rows.kills import conversations
from mailgate.client import Client, MailgateError
from tests.acceptance.stage import mails, until

WAYS: tuple[Way, ...] = ("both", "up", "down")
SETTINGS = {
    "intake.batch": "50",
    "worker.conversations": "10",
    "streams.transactional.retry.first": "1s",
    "streams.transactional.retry.factor": "1",
    "breakers.relay.first": "1s",
    "breakers.relay.cap": "1s",
    "relays.sink.command_timeout": "4s",
    "relays.sink.dot_timeout": "4s",
    "relays.sink.connect_timeout": "4s",
}
#: Seconds of a network that loses everything, also of new connections.
DARK = 15.0


def at_most(within: float) -> float:
    """A stated time (seconds), and what a busy machine and one noticing after another may add:
    a third, and no less than a second."""
    return within + max(1.0, within / 3)


def told(within: float) -> str:
    """Both, for the report."""
    return f"{within:g} s ({at_most(within):.3g} with a busy machine's share)"


def lose(
    run: Run,
    what: str,
    broker: str,
    journal: str,
    *,
    within: float,
    settings: dict[str, str] | None = None,
) -> None:
    """``within`` (seconds) each connection that is used must be given up."""
    each = run.many(600, 60)
    scene = run.stage(
        broker,
        journal,
        between=(what,),
        settings=SETTINGS | (settings or {}),
        plans={"n": ["slow 0.02"]},
    )
    [proxy] = run.ground.proxies
    by_proxy = scene.broker
    if what == "broker":
        # The producer of mail stands on the broker's side of it, who listens does not.
        scene.broker = by_proxy.replace(f":{proxy.port}/", f":{proxy.target}/")
    intake, worker = scene.intake(), scene.worker(2)
    scene.wait_for_workers(2)
    documents: list[Any] = []
    open_then = 0
    port = proxy.port if what == "relay" else scene.relay.port

    def publish(count: int, to: str) -> None:
        lot = mails(count, to=f"{to}{len(documents)}", producer="shop")
        documents.extend(lot)
        scene.publish(lot)

    with listening(by_proxy) as heard:
        publish(each, "n")
        scene.wait_finished(len(documents))
        for way in WAYS:
            publish(each, "n")
            taken = len(scene.relay.taken())
            until(lambda t=taken: len(scene.relay.taken()) >= t + each // 10, 60, scene.logs)
            run.strike()
            before = len(proxy.lost())
            open_then += conversations(scene, worker, port)
            assert proxy.forget(way)
            run.lift()
            slowest = noticed(run, proxy, before, at_most(within), lambda: publish(2, "n"))
            scene.wait_finished(len(documents), within + 60)
            run.note(**{f"noticed_{way}": slowest})
            run.note(**{f"well_{way}": round(time.time() - run.lifted, 1)})
        publish(each, "n")
        open_then += conversations(scene, worker, port)
        proxy.lose()
        publish(each, "dark")
        time.sleep(DARK)
        proxy.heal()
        run.lift()
        publish(each, "n")
        scene.wait_finished(len(documents), within + 60)
        run.recovered(scene)
        # Whoever is connected anew is not among the lost: all go on.
        events = "SELECT count(*) FROM events"
        until(lambda: len(heard) >= int(scene.journal.one(events)), within + 60, scene.logs)
        run.note(all_told_after=round(time.time() - run.lifted, 1))
    assert intake.running
    assert worker.running
    run.note(open_then=open_then)
    # Who comes back to the journal first may bury another past its dot: on record.
    run.reckon(scene, documents, uncertain=open_then if what in ("journal", "relay") else 0)


def noticed(run: Run, proxy: Proxy, before: int, most: float, use: Any) -> float:
    """The longest that one of the newly lost connections was held on to, in use.

    What lies idle in a pool is met when it is taken, like any that was closed meanwhile.
    """
    begun = time.monotonic()
    lines = proxy.lost()[before:]

    def held() -> int:
        return sum(line.left_at is None for line in lines)

    while held() and time.monotonic() - begun < most:
        use()
        time.sleep(0.5)
    idle = sum(line.left_at is None and not line.used for line in lines)
    assert held() == idle, f"{held() - idle} of {len(lines)} are still held after {most:g} s"
    for name, more in (("connections", len(lines)), ("idle", idle)):
        run.note(**{name: run.figures.get(name, 0) + more})
    return round(max(line.deaf_for or 0.0 for line in lines), 1)


@contextmanager
def listening(url: str) -> Iterator[set[str]]:
    """The ids of the events that a producer's program hears by ``client.events``."""
    heard: set[str] = set()
    over = threading.Event()

    def listen() -> None:
        with Client(url, producer="shop", timeout=5.0) as client:
            while not over.is_set():
                try:
                    for event in client.events(group="shop.books", timeout=1.0):
                        heard.add(event.id)
                except MailgateError:
                    # There is no exchange yet, or none that answers.
                    time.sleep(0.2)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join(30)


@fault(
    "lost-journal",
    "PostgreSQL's packets are lost: of the connections of now, each way, then of all for 15 s",
    f"each noticed in {told(10)}; 0 lost; uncertain ≤ conversations open",
)
def lost_journal(run: Run) -> None:
    lose(run, "journal", "valkey", "postgresql", within=10)


@fault(
    "lost-broker-amqp",
    "RabbitMQ's packets are lost: of the connections of now, each way, then of all for 15 s",
    f"each noticed in {told(30)}, by who rings 5 s later; 0 lost, 0 uncertain",
)
def lost_amqp(run: Run) -> None:
    lose(run, "broker", "rabbitmq", "sqlite", within=30)


@fault(
    "lost-broker-redis",
    "Valkey's packets are lost: of the connections of now, each way, then of all for 15 s",
    f"each noticed in {told(20)}; 0 lost, 0 uncertain",
)
def lost_redis(run: Run) -> None:
    lose(run, "broker", "valkey", "sqlite", within=20)


@fault(
    "lost-limiter",
    "the limiter's store's packets are lost: of the connections of now, each way, then of all",
    f"each noticed in {told(1)}; 0 lost, 0 uncertain",
)
def lost_limiter(run: Run) -> None:
    rate = {"relays.sink.rate": "200/s"}
    lose(run, "limiter", "rabbitmq", "postgresql", within=1, settings=rate)


@fault(
    "lost-relay",
    "the relay's packets are lost: of the connections of now, each way, then of all for 15 s",
    f"each noticed in its timeout of {told(4)}; 0 lost; uncertain ≤ conversations open",
)
def lost_relay(run: Run) -> None:
    lose(run, "relay", "valkey", "sqlite", within=4)
