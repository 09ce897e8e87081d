"""The script in Redis gives, to the microsecond, what ``limits.rules.admit`` gives."""

from __future__ import annotations

import random
from importlib import resources

import pytest

from mailgate.config.terms import Rate
from mailgate.limits.redis import spelled, understood
from mailgate.limits.rules import COUNTED, Ask, State, admit, reach
from tests.servers import Valkey

SCRIPT = (resources.files("mailgate.limits") / "admit.lua").read_text("utf-8")
LIMITS = [1, 2, 7, 30, 50, COUNTED - 1, COUNTED, 1000, 5000]
STEPS = [0, 1, 100, 20_000, 200_000, 400_000, 2_000_000]


@pytest.mark.parametrize("seed", range(40))
def test_the_script_gives_what_the_reference_gives(valkey: Valkey, seed: int) -> None:
    chance = random.Random(seed)
    rates = {
        f"k{n}": Rate(
            chance.choice(LIMITS), chance.choice([1.0, 1.0, 10.0, 60.0]), chance.choice([1, 1, 5])
        )
        for n in range(chance.randint(1, 5))
    }
    states: dict[str, State] = {}
    now = 1_800_000_000_000_000
    since = chance.choice([0, 0, now - 500_000])
    with valkey.client() as client:
        client.set("epoch", since)
        for _ in range(30):
            now += chance.choice(STEPS)
            if chance.random() < 0.03:  # the clock is set back
                now -= chance.choice([500, 3_000_000, 90_000_000])
            lead, horizon = reach(
                chance.choice([0, 300, 20_000]), chance.choice([-1, 0, 10_000, 400_000, 900_000])
            )
            sets = [
                tuple((key, rates[key]) for key in chance.sample(sorted(rates), count))
                for count in chance.choices(range(1, len(rates) + 1), k=4)
            ]
            asks = [Ask(chance.choice(sets)) for _ in range(chance.choice([1, 10, 50]))]
            wanted, _ = admit(states, asks, now=now, lead=lead, horizon=horizon, since=since)
            names, arguments = spelled(asks, lead, horizon, clock=now)
            reply = client.eval(SCRIPT, len(names) + 1, "epoch", *names, *arguments)
            assert reply[0] == now
            assert understood(reply, names) == wanted


def test_a_limit_that_is_over_leaves_no_key_behind(valkey: Valkey) -> None:
    asks = [Ask((("k", Rate(5, 1.0)),))] * 3
    names, arguments = spelled(asks, 0, 400_000)
    with valkey.client() as client:
        client.set("epoch", 0)
        client.eval(SCRIPT, 2, "epoch", *names, *arguments)
        assert 2000 <= client.pttl("k") <= 3500
