"""Disks that fill up: the journal's, and the broker's."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.faults.fault import NotHere, Run, fault
from tests.acceptance.stage import mails, until
from tests.servers import Valkey


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes, unmounted at the end."""
    place = directory / "disk"
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        raise NotHere("mounting a small tmpfs is not allowed here (it takes root)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True)
        place.rmdir()


def fill(place: Path) -> Path:
    """Take all that is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
    return ballast


@fault(
    "disk-full-journal",
    "the disk of a SQLite journal fills up under load, and is given room again",
    "intake stops unacked; recovers; the database is intact",
)
def disk_full_journal(run: Run) -> None:
    many = run.many(2000, 400)
    with small_disk(run.ground.directory, 64) as place:
        scene = run.stage(
            "valkey", "sqlite", where=place, settings={"intake.batch": "50"},
            plans={"n": ["slow 0.02"]},
        )  # fmt: skip
        try:
            intake, worker = scene.intake(), scene.worker(2)
            scene.wait_for_workers(2)
            documents = mails(many)
            scene.publish(documents[: many // 2])
            until(lambda: len(scene.relay.taken()) >= many // 10, 60, scene.logs)
            run.strike()
            ballast = fill(place)
            scene.publish(documents[many // 2 :])
            time.sleep(4)
            accepted = scene.journal.accepted()
            assert accepted < many, "the disk was not full"
            with scene.redis() as client:
                pending = int(client.xlen("mailgate:inbox"))
            ballast.unlink()
            run.lift()
            scene.wait_finished(many, 90)
            run.recovered(scene)
            run.note(accepted_when_full=accepted, kept_by_the_broker=pending)
            assert pending >= many - accepted
            assert intake.running
            assert worker.running
            run.reckon(scene, documents, uncertain=0)
            with sqlite3.connect(place / "journal.db") as database:
                [(verdict,)] = database.execute("PRAGMA integrity_check").fetchall()
            assert verdict == "ok"
        finally:
            scene.close()


@fault(
    "disk-full-broker",
    "the disk of Valkey's append-only file fills up under load",
    "what was confirmed arrives; the producer hears of the rest",
)
def disk_full_broker(run: Run) -> None:
    many = run.many(2000, 300)
    with small_disk(run.ground.directory, 32) as place:
        server = Valkey(place / "valkey", "--appendonly", "yes", "--appendfsync", "always")
        try:
            scene = run.stage(
                "valkey", "sqlite", broker_url=server.broker_url, settings={"intake.batch": "50"}
            )
            scene.intake()
            worker = scene.worker(2)
            scene.wait_for_workers(2)
            documents = mails(many)
            scene.publish(documents[: many // 2])
            until(lambda: len(scene.relay.taken()) >= many // 10, 60, scene.logs)
            run.strike()
            ballast = fill(place)
            refused, confirmed = False, documents[: many // 2]
            for document in documents[many // 2 :]:
                try:
                    scene.publish([document])
                except Exception:  # of redis-py: MISCONF, or a connection of whom gave up
                    refused = True
                    break
                confirmed.append(document)
            time.sleep(2)
            ballast.unlink()
            if not server.running:
                server.start()
            run.lift()
            run.note(
                producer_was_told=refused,
                server_survived=server.running,
                confirmed_when_full=len(confirmed) - many // 2,
            )
            # A producer that was told no says it again; here those are other mails.
            time.sleep(1)
            more = mails(50, to="after")
            scene.publish(more)
            scene.wait_finished(len(confirmed) + 50, 90)
            run.recovered(scene)
            assert refused
            assert worker.running
            # The one that was refused may have got in all the same; no other can.
            known = {row["email"] for row in scene.journal.rows("SELECT email FROM recipients")}
            unsure = [d for d in documents[len(confirmed) :][:1] if d["to"][0] in known]
            run.reckon(scene, [*confirmed, *unsure, *more], uncertain=0)
            scene.close()
        finally:
            server.stop()
