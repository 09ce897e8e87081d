"""The windows of throttles, as arithmetic: exact, fair to those who wait, and never over."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from mailgate.journal.throttle import Charge, charge_key, fit


def charge(key: str = "k", limit: int = 2, window: int = 100, on_limit: str = "defer") -> Charge:
    return Charge(key, limit, window, on_limit)  # type: ignore[arg-type]


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


KEYS = ["a", "b"]
RULES = {"a": charge("a", 2, 50), "b": charge("b", 3, 90)}


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
        wanted = {number + n: [RULES[k] for k in keys] for n, keys in enumerate(asks)}
        number += len(asks)
        fits, waits = fit(list(wanted.items()), hits, now)
        assert sorted([*fits, *waits]) == sorted(wanted)
        assert all(w.due_at > now for w in waits.values())
        for id_ in fits:
            for c in wanted[id_]:
                hits[c.key].append(now)
    for key, rule in RULES.items():
        for end in hits[key]:
            inside = [t for t in hits[key] if end - rule.window < t <= end]
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
