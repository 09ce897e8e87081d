"""A configuration that is read again while mail goes: by every process, exactly, or not at all."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.acceptance.conftest import Setting
from tests.acceptance.stage import Stage, mails, until
from tests.acceptance.stage.relay import busiest


def write(scene: Stage, text: str) -> None:
    (scene.directory / "mailgate.toml").write_text(text, "utf-8")


def sent(scene: Stage, since: int) -> list[int]:
    return [c.mail_at for c in scene.relay.book() if c.mail_at >= since]


@pytest.mark.alone
def test_a_rate_is_lowered_and_raised_under_load_and_a_broken_file_changes_nothing(
    stage: Setting, figure: Any
) -> None:
    scene = stage("valkey", "postgresql")
    write(scene, '[limits]\nglobal = "50/s"\n')
    programs = [scene.intake(), scene.begin("beat")]
    programs += [worker := scene.worker(2), scene.worker(1, "--pool", "threads")]
    scene.publish(mails(1200, to="bulk", stream="bulk"))
    scene.wait_for_workers(3)
    until(lambda: len(scene.relay.book()) >= 50, 20, scene.logs)

    # Broken: every fault is said, and what runs goes on as it was.
    write(scene, '[limits]\nglobal = "soon"\n[streams.bulk]\nlane = "fast"\n')
    said = scene.run("reload", code=2).stderr
    assert "limits.global" in said
    assert "streams.bulk.lane" in said
    worker.signal(signal.SIGHUP)

    def refusals() -> int:
        processes = scene.json("--config", "/dev/null", "status")["processes"]
        return sum(len(p["faults"]) >= 2 for p in processes if p["kind"] == "worker")

    until(lambda: refusals() == 2, 10, scene.logs)
    at = time.time_ns()
    until(lambda: len(sent(scene, at)) >= 20, 5, scene.logs)

    # Slower: with the answer it is in force everywhere, but for permits of up to a second.
    write(scene, '[limits]\nglobal = "10/s"\n[worker]\nconversations = 30\n')
    begun = time.monotonic()
    answers = scene.json("reload", "--reason", "too fast")["items"]
    took = time.monotonic() - begun
    assert [a["kind"] for a in answers] == ["worker", "worker", "worker", "intake", "beat"]
    assert {a["result"] for a in answers} == {"taken"}
    assert all(a["taken"] == ["limits.global"] for a in answers)
    assert all(a["restart"] == ["worker.conversations"] for a in answers)
    in_force = time.time_ns() + 1_000_000_000
    time.sleep(5)
    slow = sent(scene, in_force)
    assert busiest(slow, 1.0) <= 10
    assert len(slow) >= 4 * 10 * 0.8

    # A child that takes a dead one's place goes by the new configuration from the start.
    killed = worker.children()[0]
    os.kill(killed, signal.SIGKILL)

    def replaced() -> bool:
        processes = scene.json("status")["processes"]
        return len(processes) == 5 and killed not in {p["pid"] for p in processes}

    until(replaced, 20, scene.logs)
    in_force = time.time_ns()
    assert {p["config"] for p in scene.json("status")["processes"]} == {answers[0]["config"]}
    time.sleep(1.5)
    assert busiest(sent(scene, in_force), 1.0) <= 10

    # Faster again, and a new stream, by the signal to each.
    write(
        scene,
        '[limits]\nglobal = "80/s"\n'
        '[relays.second]\nhost = "127.0.0.1"\nsecurity = "none"\n'
        f"port = {scene.relay.port}\n"
        '[streams.news]\nfrom = "news@stage.example"\nrelays = ["second"]\nlane = "high"\n',
    )
    for program in programs:
        program.signal(signal.SIGHUP)

    def renewed() -> bool:
        configs = [p["config"] for p in scene.json("status")["processes"]]
        slow = answers[0]["config"]
        return len(configs) == 5 and len(set(configs)) == 1 and configs[0] != slow

    until(renewed, 10, scene.logs)
    at = time.time_ns()
    scene.publish([{"to": "new@example.com", "subject": "s", "text": "t", "stream": "news"}])
    until(lambda: "new@example.com" in scene.relay.taken(), 10, scene.logs)
    until(lambda: len(sent(scene, at)) >= 120, 10, scene.logs)
    fast = sent(scene, at)
    assert busiest(fast, 1.0) > 40
    assert max(scene.relay.taken().values()) == 1
    figure(reload_took=round(took, 2), slow_most=busiest(slow, 1.0), slow_rate=len(slow) / 4)
