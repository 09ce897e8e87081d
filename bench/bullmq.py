"""The peer on Node: BullMQ, a pooled nodemailer, templates inlined once; two processes.

Owns what it needs (fetched by npm into the environment's own folder, once) and its life.
Node is optional: ``missing`` says in a line why this side cannot run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from bench.sides import ROOT, Side
from bench.workload import SENDER, TEMPLATES
from tests.servers import Valkey
from tests.servers.process import Daemon

HERE = Path(__file__).parent / "node"
#: The peer's packages, of these versions and none newer.
PACKAGES = ("bullmq@6.7.0", "nodemailer@10.6.1", "nunjucks@3.2.4", "juice@11.1.1", "ioredis@5.11.1")
PROCESSES = 2


def modules() -> Path:
    """Where the packages are: beside the environment that runs this."""
    return Path(sys.prefix) / "bench-node"


def missing() -> str:
    """Why this side cannot run; fetches its packages when they are not there. '' when it can."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not on the PATH"
    where = modules()
    stamp = where / ".fetched"
    if stamp.exists() and stamp.read_text() == " ".join(PACKAGES):
        return ""
    where.mkdir(exist_ok=True)
    shutil.copy(HERE / "package.json", where / "package.json")
    command = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            [*command, *PACKAGES], cwd=where, capture_output=True, text=True, timeout=180
        )
    except subprocess.TimeoutExpired:
        return "npm did not fetch its packages in three minutes"
    if done.returncode:
        return f"npm could not fetch its packages: {done.stderr.strip()[-200:]}"
    stamp.write_text(" ".join(PACKAGES))
    return ""


class Node(Side):
    name = "BullMQ, nodemailer pool"

    def __init__(self, directory: Path, relay_port: int, valkey: Valkey) -> None:
        super().__init__(directory, relay_port)
        self._valkey = valkey
        redis.Redis(unix_socket_path=str(valkey.socket), db=2).flushdb()
        self._environ = {
            "PEER_MODULES": str(modules()),
            "PEER_TEMPLATES": str(TEMPLATES),
            "PEER_RELAY": str(relay_port),
            "PEER_REDIS": str(valkey.socket),
            "PEER_SENDER": SENDER,
            "NODE_E10.6.1": "production",
        }
        self._desk = subprocess.Popen(
            ["node", str(HERE / "desk.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(directory / "desk.log", "wb"),  # noqa: SIM115 - the process has it
            env={**os.environ, **self._environ},
            text=True,
            cwd=ROOT,
        )

    def _say(self, line: str) -> str:
        assert self._desk.stdin is not None
        assert self._desk.stdout is not None
        print(line, file=self._desk.stdin, flush=True)
        said = self._desk.stdout.readline()
        if not said.startswith("ok"):
            raise RuntimeError(f"the peer's queue: {(self.directory / 'desk.log').read_text()}")
        return said.removeprefix("ok").strip()

    def start(self) -> None:
        for number in range(PROCESSES):
            self._run(f"worker {number + 1}", ["node", str(HERE / "worker.js")], self._environ)

    def publish(self, body: bytes) -> None:
        self._say(f"add {body.decode()}")

    def load(self, bodies: Sequence[bytes]) -> None:
        self._say("pause")
        path = self.directory / "bodies"
        path.write_bytes(b"\n".join(bodies))
        self._say(f"load {path}")

    def go(self) -> float:
        begun = time.monotonic()
        self._say("resume")
        return begun

    def check(self, count: int) -> None:
        until = time.monotonic() + 10
        while (left := self._say("left")) != "0":
            if time.monotonic() > until:
                raise TimeoutError(f"{left} jobs of the peer are left")
            time.sleep(0.02)

    def servers(self) -> dict[str, Daemon]:
        return {"valkey": self._valkey._daemon}

    def stop(self) -> None:
        super().stop()
        with contextlib.suppress(BrokenPipeError):
            self._desk.communicate(timeout=10)
