"""Counting in one process, and what several come to together."""

from __future__ import annotations

import json
import time

from mailgate.metrics import families
from mailgate.metrics.destinations import DESTINATIONS, OTHER, destination
from mailgate.metrics.tally import MOST_SERIES, Tally, together


def test_counters_and_spreads_of_processes_are_added_up() -> None:
    one, two = Tally(), Tally()
    for tally, seconds in ((one, 0.02), (two, 0.2), (two, 1e9)):
        tally.add(families.DELIVERIES, ("accepted",), 3)
        tally.observe(families.TURN, (), seconds)
    totals = together(json.loads(json.dumps(t.snapshot())) for t in (one, two))
    assert totals.number(families.DELIVERIES, ("accepted",)) == 9
    spread = totals.spreads[families.TURN.name, ()]
    assert sum(spread[:-1]) == 3
    assert spread[-2] == 1  # beyond the last bound
    assert spread[families.TURN.buckets.index(0.025)] == 1
    assert spread[families.TURN.buckets.index(0.25)] == 1


def test_a_value_on_a_bound_belongs_to_its_bucket() -> None:
    """Prometheus' buckets are "less than or equal"."""
    tally = Tally()
    tally.observe(families.TURN, (), 0.01)
    [[_, _, spread]] = tally.snapshot()["spreads"]
    assert spread[families.TURN.buckets.index(0.01)] == 1


def test_gauges_are_added_up_or_the_largest_counts() -> None:
    one, two = Tally(), Tally()
    for tally, seconds in ((one, 4.0), (two, 9.0)):
        tally.set(families.CONVERSATIONS, (), 5)
        tally.set(families.BACKING_OFF, ("main",), seconds)
    totals = together(t.snapshot() for t in (one, two))
    assert totals.number(families.CONVERSATIONS) == 10
    assert totals.number(families.BACKING_OFF, ("main",)) == 9


def test_no_label_makes_more_series_than_there_may_be() -> None:
    tally = Tally()
    for n in range(3 * MOST_SERIES):
        tally.add(families.REFUSALS, (f"limit-{n}",))
        tally.observe(families.CONVERSATION, (f"relay-{n}",), 0.1)
    said = tally.snapshot()
    assert len(said["numbers"]) == len(said["spreads"]) == MOST_SERIES + 1
    totals = together([said])
    assert totals.number(families.REFUSALS, ("other",)) == 2 * MOST_SERIES
    assert sum(totals.spreads[families.CONVERSATION.name, ("other",)][:-1]) == 2 * MOST_SERIES


def test_a_domain_becomes_one_of_a_few_receivers() -> None:
    assert destination("ann@GMAIL.com") == "google"
    assert destination("ann@example.com") == destination("ann") == OTHER
    assert len(DESTINATIONS) == len(set(DESTINATIONS)) < 20


def test_what_a_message_costs_in_numbers_is_microseconds() -> None:
    """The hot path counts each message once and puts it into two spreads."""
    tally = Tally()
    best = 1.0
    for _ in range(5):
        begun = time.process_time()
        for n in range(2000):
            where = destination("someone@example.com")
            tally.add(families.SETTLED, ("sent", "", "main", where))
            tally.observe(families.CONVERSATION, ("main",), n / 1000)
            tally.observe(families.SENT_AFTER, ("normal",), n / 100)
        best = min(best, (time.process_time() - begun) / 2000)
    assert best < 25e-6, f"{best * 1e6:.1f} µs"
