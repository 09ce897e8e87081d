"""The windows of throttles, as arithmetic: exact, fair to those who wait, and never over."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.journal.throttle import SPREAD, Charge, charge_key, fit


def charge(key: str = "k", limit: int = 2, window: int = 100, on_limit: str = "defer") -> Charge:
    return Charge(key, limit, window, on_limit, "flood")  # type: ignore[arg-type]


def test_what_fits_goes_and_the_rest_waits_until_the_window_opens() -> None:
    fits, waits = fit([(n, [charge()]) for n in range(5)], {"k": [50]}, 120)
    assert fits == [0]
    # 50 leaves at 150 and 120 at 220; those behind are spread over the windows after.
    assert [waits[n].due_at for n in (1, 2, 3, 4)] == [150, 220, 250, 320]
    assert not any(w.drop for w in waits.values())


def test_a_hit_is_over_exactly_a_window_later() -> None:
    assert fit([(1, [charge(limit=1)])], {"k": [100]}, 199)[0] == []
    assert fit([(1, [charge(limit=1)])], {"k": [100]}, 200)[0] == [1]


def test_who_waits_may_go_when_told() -> None:
    hits = {"k": [10, 30, 60]}
    _, waits = fit([(1, [charge(limit=3)])], hits, 70)
    assert fit([(1, [charge(limit=3)])], hits, waits[1].due_at - 1)[0] == []
    assert fit([(1, [charge(limit=3)])], hits, waits[1].due_at)[0] == [1]


def test_a_drop_is_a_drop_whichever_window_it_stands_in() -> None:
    short = charge("short", 1, 10)
    long = charge("long", 1, 1000, "drop")
    for order in ([short, long], [long, short]):
        _, waits = fit([(1, order)], {"short": [95], "long": [95]}, 100)
        assert waits[1].drop
    # A window that has room drops nothing.
    _, waits = fit([(1, [short, long])], {"short": [95]}, 100)
    assert not waits[1].drop
    assert waits[1].due_at == 105


def test_who_waits_for_one_window_charges_no_other() -> None:
    full, free = charge("full", 1), charge("free", 1)
    fits, _ = fit([(1, [full, free]), (2, [free])], {"full": [99]}, 100)
    assert fits == [2]


def test_no_charges_always_fit() -> None:
    assert fit([(1, []), (2, [])], {}, 0) == ([1, 2], {})


def test_all_windows_of_a_count_must_have_room_and_are_charged_once() -> None:
    """At most 3 in 10, 5 in 100, and 2 between any two."""
    rules = [charge("k", 3, 10), charge("k", 5, 100), charge("k", 1, 2)]
    hits: list[int] = []
    for now in range(1000, 1130):
        fits, waits = fit([(now, rules)], {"k": hits}, now)
        if fits:
            hits.append(now)
        else:
            # Told exactly: not before then, and then.
            due = waits[now].due_at
            assert fit([(0, rules)], {"k": hits}, due - 1)[0] == []
            assert fit([(0, rules)], {"k": hits}, due)[0] == [0]
    assert hits == [1000, 1002, 1004, 1010, 1012, 1100, 1102, 1104, 1110, 1112]


def test_those_behind_are_told_of_the_windows_that_will_be_full_by_then() -> None:
    """One is sent; two more fit the long window, ten apart, and the others come after it."""
    rules = [charge("k", 3, 600), charge("k", 1, 10)]
    _, waits = fit([(n, rules) for n in range(5)], {"k": [0]}, 1)
    assert [waits[n].due_at for n in range(5)] == [10, 20, 600, 610, 620]


def test_who_is_told_what_it_waits_for() -> None:
    short, long = charge("short", 1, 10_000), charge("long", 3, 600_000)
    _, waits = fit([(1, [short, long])], {"short": [95], "long": [1, 2, 3]}, 100)
    assert waits[1].limit == "throttle flood: 3 in 10m"


def test_a_thousand_that_wait_for_one_recipient_do_not_wake_at_once() -> None:
    """Taken fifty at a time, as a worker does."""
    rule = charge("k", 1, 10_000)
    dues: list[int] = []
    for batch in range(20):
        wanted = [(batch * 50 + n, [rule]) for n in range(50)]
        dues += [w.due_at for w in fit(wanted, {"k": [0]}, batch)[1].values()]
    assert len(dues) == 1000
    for at in set(dues):
        assert sum(at <= due < at + 10_000 for due in dues) <= 20


@given(st.integers(2, 200), st.sampled_from([1_000, 600_000, 86_400_000]))
def test_nobody_is_told_to_wait_for_the_turns_of_hundreds(many: int, window: int) -> None:
    """Those before it may be cancelled: it looks again an hour, or a window, after room."""
    rule = charge("k", 1, window)
    _, waits = fit([(n, [rule]) for n in range(many)], {"k": [0]}, 1)
    assert len(waits) == many
    assert waits[0].due_at == window
    assert max(w.due_at for w in waits.values()) <= window + max(window, SPREAD)


KEYS = ["a", "b"]
#: Two windows on one count, one on the other.
RULES = {"a": [charge("a", 2, 50), charge("a", 1, 7)], "b": [charge("b", 3, 90)]}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.lists(st.sets(st.sampled_from(KEYS)).map(sorted), max_size=6),
        ),
        max_size=25,
    )
)
@example([(0, [["a"]] * 6), (50, [["a"]] * 6), (49, [["a"]] * 6)])
def test_no_window_ever_holds_more_than_its_limit(steps: list[tuple[int, list[list[str]]]]) -> None:
    now, number = 1000, 0
    hits: dict[str, list[int]] = {key: [] for key in KEYS}
    for wait, asks in steps:
        now += wait
        wanted = {number + n: [c for k in keys for c in RULES[k]] for n, keys in enumerate(asks)}
        number += len(asks)
        fits, waits = fit(list(wanted.items()), hits, now)
        assert sorted([*fits, *waits]) == sorted(wanted)
        assert all(w.due_at > now for w in waits.values())
        for id_ in fits:
            for key in {c.key for c in wanted[id_]}:
                hits[key].append(now)
    for rule in [c for charges in RULES.values() for c in charges]:
        for end in hits[rule.key]:
            inside = [t for t in hits[rule.key] if end - rule.window < t <= end]
            assert len(inside) <= rule.limit


@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 50))
def test_none_waits_for_longer_than_all_of_them_need(limit: int, many: int, window: int) -> None:
    """Waking when told, in order, each goes in its turn and no place stays empty."""
    rule = charge("k", limit, window)
    hits: list[int] = []
    due = dict.fromkeys(range(many), 100)
    while due:
        now = min(due.values())
        wanted = [(n, [rule]) for n, at in sorted(due.items()) if at <= now]
        fits, waits = fit(wanted, {"k": hits}, now)
        assert fits or waits
        for n in fits:
            hits.append(now)
            del due[n]
        due.update({n: w.due_at for n, w in waits.items()})
    assert hits[-1] == 100 + window * ((many - 1) // limit)


def test_keys_tell_their_parts_apart_and_no_address() -> None:
    secret = b"s"
    assert charge_key(secret, "ab", "c") != charge_key(secret, "a", "bc")
    assert charge_key(secret, "a") != charge_key(b"t", "a")
    assert charge_key(secret, "a\ud800") != charge_key(secret, "a")
    assert len(charge_key(secret, "ann@example.org")) == 40
