"""What a campaign's inputs are, and what is told of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from bench.fuzz import Bound, intake, relay, report
from bench.fuzz.campaign import Ran
from bench.fuzz.documents import LARGEST, swollen
from bench.fuzz.producers import mails
from mailgate.smtp.reply import MAX_REPLY


def as_it_is(data: bytes, most: int) -> bytes:
    return data[:most]


def test_a_changed_document_is_another_one_and_mostly_json() -> None:
    dice, seed = Random(1), intake.seeds()[4]
    made = [intake.changed(seed, 1 << 16, dice, as_it_is) for _ in range(300)]
    assert len({each[1:] for each in made}) > 200
    read = 0
    for each in made:
        if each[0] < intake.SWOLLEN:
            json.loads(each[1:])
            read += 1
    assert read > 280


def test_many_changed_documents_are_still_taken() -> None:
    dice = Random(2)
    seeds = [b"\0" + json.dumps(one).encode() for one in mails()]
    ended = [
        intake.fuzzed(intake.changed(dice.choice(seeds), 1 << 16, dice, as_it_is))
        for _ in range(200)
    ]
    assert ended.count("accepted") > 20
    assert ended.count("parked") > 20


def test_no_change_of_any_input_raises_or_is_too_long() -> None:
    dice = Random(3)
    for target in (intake, relay):
        seeds = [b"", b"\0", b"\0[1]", b"\0{}", b"\0null", b"@", b"@{", *target.seeds()]
        for _ in range(400):
            one, other = dice.choice(seeds), dice.choice(seeds)
            assert len(target.changed(one, 3000, dice, as_it_is)) <= 3000
            assert len(target.crossed(one, other, 3000, dice)) <= 3000


@pytest.mark.parametrize("much", [0, 150, 239, 240])
@pytest.mark.parametrize("which", [1, 3, 5, 230])
def test_a_document_grows_to_what_is_asked_for(which: int, much: int) -> None:
    body = b'{"to":["ann@x.org"],"text":"there ","data":{"a":1,"b":{"c":[1,2]}}}'
    made = swollen(body, which, much)
    assert len(made) <= LARGEST
    if which < 224:
        wanted = LARGEST if much >= 240 else 256 * 2 ** (much / 15)
        assert wanted / 2 < len(made) + len(body)


def test_large_seeds_come_to_a_decision() -> None:
    ended = [intake.run(seed) for seed in intake.large()]
    assert set(ended) == {"accepted", "parked"}


def test_inputs_reach_above_the_limits_of_intake_and_of_a_reply() -> None:
    most = intake.CONFIG.intake.max_bytes
    assert most < LARGEST
    sizes = [len(intake.delivery(seed).body) for seed in intake.large()]
    assert max(sizes) > most
    dice = Random(4)
    made = [
        relay.changed(dice.choice(relay.seeds()), relay.BOUND.input, dice, as_it_is)
        for _ in range(2000)
    ]
    assert MAX_REPLY < max(map(len, made)) <= relay.BOUND.input
    assert sum(len(each) > 4096 for each in made) < 100


def test_the_bound_of_time_grows_with_the_input_and_ends() -> None:
    bound = Bound(seconds=1, each=0.001, most=3, memory=1, input=1)
    assert [bound.time(size) for size in (0, 1000, 10**6)] == [1, 2, 3]


def test_a_report_names_what_a_stranger_asks_and_no_place(tmp_path: Path) -> None:
    ran = Ran("intake", 7, 60.0, inputs=1200, edges_began=5, edges=1234, finds=["crash-1"])
    ran.processor, ran.memory, ran.memory_bound, ran.ended = 50.0, 200, 768, {"parked": 3}
    name = report.write([ran], "abc1234 with changes", tmp_path)
    text = (tmp_path / Path(name).name).read_text()
    told = json.loads((tmp_path / Path(name).name).with_suffix(".json").read_text())
    for said in ("abc1234 with changes", "`intake`", "1,200", "5 → 1,234", "200, 768", "crash-1"):
        assert said in text
    assert told["commit"] == "abc1234 with changes"
    assert told["targets"][0]["inputs_a_processor_second"] == 24
    assert str(tmp_path) not in text + json.dumps(told)


def test_the_table_of_a_report_has_a_cell_for_each_column() -> None:
    lines = report.markdown([Ran("relay", 1, 1.0)], "abc", datetime.now(UTC)).splitlines()
    table = [line.count("|") for line in lines if line.startswith("|")]
    assert len(set(table)) == 1
