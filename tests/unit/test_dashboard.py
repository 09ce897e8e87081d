"""What ``mailgate status`` says first, and that nothing in it steers a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from mailgate.cli.dashboard import age, noted, picture, wrong

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\nsent 9999\r\u202egpj.exe"


def found(**changes: Any) -> dict[str, Any]:
    process = {"kind": "worker", "host": "a", "pid": 1, "up_s": 5.0, "seen_s": 0.5}
    process |= {"config": "0a1b2c3d", "config_at": 0, "restart": [], "faults": []}
    quiet = {"waiting": 0, "due": 0, "oldest_due_s": 0, "under_way": 0}
    return {
        "states": {"sent": 3},
        "lanes": {"normal": quiet},
        "last_minute": {"accepted": 1, "sent": 2, "deferred": 0, "failed": 0, "uncertain": 0},
        "workers": [{"host": "a", "pid": 1, "beat_s": 0.1}],
        "processes": [process, process | {"kind": "intake", "pid": 2}],
        "pauses": [],
        "breakers": [],
        "relays": [],
        "parked": 0,
        "digests": {"gathering": 0},
        "cleaned": None,
        **changes,
    }


def drawn(document: dict[str, Any], *, wide: bool = False) -> str:
    from rich.console import Console

    console = Console(width=130, color_system=None)
    with console.capture() as written:
        console.print(picture(document, wide=wide))
    return written.get()


def test_all_goes_well():
    assert (wrong(found()), noted(found())) == ([], [])
    assert drawn(found()).startswith("all goes well")


DUE = {"high": {"waiting": 2, "due": 2, "oldest_due_s": 9, "under_way": 0}}
AWAY = [{"queue": "mailgate:inbox", "waiting": None, "fault": "the broker is away (OSError)"}]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lanes": DUE, "workers": []}, "mail is due and no worker lives"),
        (
            {"breakers": [{"where": "through main", "reason": "auth_refused", "probe_in_s": 1}]},
            "no mail through main: auth_refused",
        ),
        ({"beat_s": None}, "no beat was seen ever: no schedule fires"),
        ({"queues": AWAY}, "the broker is away (OSError)"),
        (
            {"processes": [found()["processes"][0] | {"faults": ["limits.global is wrong"]}]},
            "worker a 1 refuses its new configuration: limits.global is wrong",
        ),
        (
            {"events": {"waiting": 0, "refused": ["shop"]}},
            "events of shop are refused by its broker",
        ),
    ],
)
def test_what_needs_a_person_stands_on_top(changes: dict[str, Any], sentence: str) -> None:
    assert wrong(found(**changes)) == [sentence]
    assert drawn(found(**changes)).startswith(sentence)


def test_what_may_be_meant_follows():
    one, other = found()["processes"]
    pause = {"kind": "lane", "name": "bulk", "who": "ann", "reason": "full", "since_s": 130}
    said = noted(
        found(
            parked=1200,
            states={"sent": 3, "held": 7},
            pauses=[pause],
            processes=[one | {"restart": ["worker.lease"]}, other | {"config": "ffffffff"}],
        )
    )
    assert said == [
        "paused lane bulk: ann, full (2 min)",
        "worker.lease needs a restart of worker 1",
        "processes run different configurations: see below",
        "7 held: mailgate failures list --state held",
        "1,200 parked: mailgate parked list",
    ]


def test_a_paused_lane_is_seen_in_its_row_and_wide_screens_set_two_things_side_by_side():
    pause = {"kind": "lane", "name": "bulk", "who": "ann", "reason": "full", "since_s": 1}
    rows = drawn(found(pauses=[pause])).splitlines()
    assert any(row.startswith("bulk (paused) ") for row in rows)
    assert len(drawn(found(), wide=True).splitlines()) < len(drawn(found()).splitlines())


def test_nothing_that_others_said_steers_the_terminal():
    process = found()["processes"][0] | {"host": HOSTILE, "faults": [HOSTILE]}
    relay = {"name": HOSTILE, "host": HOSTILE, "state": HOSTILE, "reason": HOSTILE}
    document = found(
        states={HOSTILE: 1},
        processes=[process],
        relays=[relay | {"effective_rate": HOSTILE}],
        queues=[{"queue": HOSTILE, "waiting": None, "fault": HOSTILE}],
        pauses=[
            {"kind": "stream", "name": HOSTILE, "who": HOSTILE, "reason": HOSTILE, "since_s": 1}
        ],
        breakers=[{"where": HOSTILE, "reason": HOSTILE, "probe_in_s": 1}],
    )
    text = drawn(document)
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert "sent 9999\n" not in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")],
)
def test_an_age_is_as_exact_as_a_person_needs(seconds: float, words: str) -> None:
    assert age(seconds) == words
