"""A page that sends mail is as quick as one that sends none, however slow the relay is."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import httpx

from tests.acceptance.conftest import Setting
from tests.acceptance.stage import Program, until
from tests.servers import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "flask"

#: Seconds that the relay takes to answer the final dot.
SLOW = 5.0


def test_a_request_never_waits_for_the_relay(stage: Setting) -> None:
    scene = stage("valkey", "sqlite", plans={"ann": [f"slow {SLOW}"]})
    scene.intake()
    scene.worker(1)
    scene.wait_for_workers(1)
    port = free_port()
    program = Program(
        [sys.executable, "-m", "flask", "--app", "app", "run", "--port", str(port)],
        log=scene.directory / "flask.log",
        env=scene.environment
        | {"PYTHONPATH": f"{EXAMPLE}:{scene.environment['PYTHONPATH']}"}
        | {"MAILGATE_URL": scene.broker},
        cwd=scene.directory,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as page:

            def answers() -> bool:
                try:
                    return page.get("/send").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, 30, program.tail)
            form = {"to": "ann@example.com", "text": "Hello", "when": "now"}
            # The first one connects to the broker and loads what is needed for it.
            assert page.post("/send", data=form).status_code == 302
            until(lambda: bool(scene.journal.states().get("sending")), 20, scene.logs)

            def seconds(method: str) -> float:
                begun = time.monotonic()
                reply = page.request(method, "/send", data=form if method == "POST" else None)
                assert reply.status_code in (200, 302)
                return time.monotonic() - begun

            without, sending = [], []
            for _ in range(10):
                without.append(seconds("GET"))
                sending.append(seconds("POST"))
            # In the time of these requests the relay has not answered for a single mail more.
            scene.wait_finished(11)
    finally:
        program.wipe_out()
    took = [(copy.end_at - copy.mail_at) / 1e9 for copy in scene.relay.book()]
    assert len(took) == 11
    assert min(took) > SLOW * 0.95
    # A publish is a round trip to the broker. A hundredth of the relay's time is far more.
    assert statistics.median(sending) - statistics.median(without) < SLOW / 20
    assert max(sending) < SLOW / 2
