"""Schedules over both databases: each time once, all of it or nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mailgate.config.shape import Config
from mailgate.journal import pauses
from mailgate.journal import schedules as book
from mailgate.journal.pauses import What
from mailgate.journal.surgery import Act
from mailgate.schedules.calendar import come, standing
from mailgate.schedules.firing import TAKEN, Firing, next_wait
from tests.contract.journal.rig import Rig

DAY = 86_400_000
HOUR = 3_600_000


@pytest.fixture
def blog(tmp_path: Path) -> Path:
    """A little database of somebody else's."""
    path = tmp_path / "blog.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE posts (title TEXT, published_at TEXT);
            CREATE TABLE readers (email TEXT, name TEXT, city TEXT);
            INSERT INTO readers VALUES ('ann@example.org', 'Ann', 'Oslo');
            INSERT INTO readers VALUES ('bob@example.org', 'Bob', 'Rome');
            """
        )
    return path


def configured(blog: Path, **changes: Any) -> Config:
    schedule = {
        "cron": "0 10 * * *",
        "stream": "bulk",
        "template": "posts",
        "data": {"title": "News"},
        "recipients_from": {"source": "blog", "sql": "SELECT * FROM readers"},
        "data_from": {
            "source": "blog",
            "sql": "SELECT title FROM posts"
            " WHERE published_at >= :since AND published_at < :until ORDER BY 1",
            "name": "posts",
        },
        **changes,
    }
    return Config.model_validate(
        {
            "relays": {"main": {"host": "relay.example"}},
            "streams": {"bulk": {"from": "news@example.com"}},
            "sources": {"blog": {"url": f"sqlite:///{blog}"}},
            "schedules": {"daily": {k: v for k, v in schedule.items() if v is not None}},
        }
    )


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


MONDAY, TUESDAY, WEDNESDAY = (at(f"2026-05-{day:02}T10:00") for day in (4, 5, 6))


def firing(rig: Rig, config: Config) -> Firing:
    return Firing(config, rig.database, rig.arrivals, lambda _template, _data: ())


def write(rig: Rig, *times: int, name: str = "daily") -> None:
    rig.database.run_now(lambda c: book.write(c, {name: times}, rig.database.now()))


def post(blog: Path, title: str, when: str) -> None:
    with sqlite3.connect(blog) as connection:
        connection.execute("INSERT INTO posts VALUES (?, ?)", (title, when))


def fires(rig: Rig) -> list[tuple[int, str]]:
    return [(r.at, r.state) for r in rig.all("SELECT at, state FROM fires ORDER BY at")]


def letters(rig: Rig) -> list[dict[str, Any]]:
    return [json.loads(r.body) for r in rig.all("SELECT body FROM messages ORDER BY id")]


def test_a_fire_is_mail_to_everyone_with_what_is_new_since_the_last(
    journal: Rig, blog: Path
) -> None:
    config = configured(blog)
    post(blog, "old", "2026-05-03 09:59:59")
    post(blog, "sunday", "2026-05-03 10:00:00")
    post(blog, "monday", "2026-05-04 09:59:59")
    write(journal, MONDAY, TUESDAY, WEDNESDAY)
    done = firing(journal, config).fire("daily", MONDAY)
    # The first window is one turn of the schedule.
    assert (done.state, done.recipients, done.since) == ("done", 2, MONDAY - DAY)
    [body] = letters(journal)
    assert body["data"] == {
        "title": "News",
        "posts": [{"title": "monday"}, {"title": "sunday"}],
    }
    own = journal.all("SELECT email, name, own FROM recipients ORDER BY n")
    assert [(r.email, r.name, json.loads(r.own)) for r in own] == [
        ("ann@example.org", "Ann", {"data": {"city": "Oslo"}}),
        ("bob@example.org", "Bob", {"data": {"city": "Rome"}}),
    ]
    [message] = journal.all("SELECT identity, metadata FROM messages")
    assert message.identity == "key:schedule:daily:2026-05-04T10:00:00Z:0"
    assert json.loads(message.metadata) == {"schedule": "daily", "fire": "2026-05-04T10:00:00Z"}
    # Nothing new: no mail, and the window goes on from there.
    assert firing(journal, config).fire("daily", TUESDAY).state == "empty"
    post(blog, "tuesday", "2026-05-05 11:00:00")
    assert firing(journal, config).fire("daily", WEDNESDAY).since == TUESDAY
    assert [p["title"] for p in letters(journal)[1]["data"]["posts"]] == ["tuesday"]
    assert [s for _, s in fires(journal)] == ["done", "empty", "done"]


def test_a_fire_happens_once_however_many_carry_it_out(
    processes: Callable[[], Rig], blog: Path
) -> None:
    config = configured(blog, data_from=None)
    rigs = [processes() for _ in range(3)]
    for rig in rigs:
        write(rig, MONDAY)  # several clocks
    go = threading.Barrier(3)
    results: list[str] = []

    def carry_out(rig: Rig) -> None:
        go.wait()
        results.append(firing(rig, config).fire("daily", MONDAY).state)

    threads = [threading.Thread(target=carry_out, args=(rig,)) for rig in rigs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["done", "over", "over"]
    assert rigs[0].count("recipients") == 2


def test_a_kill_while_it_is_carried_out_neither_loses_nor_doubles(journal: Rig, blog: Path) -> None:
    config = configured(blog, data_from=None)
    write(journal, MONDAY)
    now = journal.database.now()
    # Taken, and then nothing more was heard: before the one transaction nothing stands.
    taken = journal.database.run_now(lambda c: book.begin(c, "daily", MONDAY, now + TAKEN, now))
    assert taken is not None
    assert firing(journal, config).fire("daily", MONDAY).state == "over"
    journal.sql("UPDATE fires SET due_at = :now", now=now)
    assert firing(journal, config).fire("daily", MONDAY).state == "done"
    # After it all stands, whoever comes again.
    journal.sql("UPDATE fires SET due_at = :now", now=now)
    assert firing(journal, config).fire("daily", MONDAY).state == "over"
    assert journal.count("recipients") == 2


def test_who_does_not_know_a_schedule_leaves_its_fire_to_others(journal: Rig, blog: Path) -> None:
    config = configured(blog, data_from=None)
    write(journal, MONDAY)
    assert firing(journal, Config()).fire("daily", MONDAY).state == "over"
    assert firing(journal, config).fire("daily", MONDAY).state == "done"


def test_the_slow_one_who_was_taken_for_dead_writes_nothing(journal: Rig, blog: Path) -> None:
    config = configured(blog, data_from=None)
    write(journal, MONDAY)
    slow = firing(journal, config)
    mail = slow.prepare("daily", config.schedules["daily"], MONDAY)
    assert firing(journal, config).fire("daily", MONDAY).state == "done"
    assert slow._write("daily", MONDAY, mail).state == "over"
    assert journal.count("messages") == 1


def test_a_source_that_cannot_be_read_is_tried_again_and_nothing_is_lost(
    journal: Rig, blog: Path
) -> None:
    config = configured(blog)
    post(blog, "sunday", "2026-05-03 12:00:00")
    away = blog.rename(blog.with_suffix(".away"))
    write(journal, MONDAY, TUESDAY)
    tried = firing(journal, config).fire("daily", MONDAY)
    assert (tried.state, tried.error) == ("again", "source blog: unable to open database file")
    [item] = standing(journal.database, config)
    assert (item["last"], item["result"]) == (TUESDAY, "pending")
    # In order: Tuesday waits for Monday, and Monday for its time.
    now = journal.database.now()
    names = ["daily"]
    look = journal.database.read_now
    assert look(lambda c: book.waiting(c, names, now)) == []
    later = now + 60_000
    assert look(lambda c: book.waiting(c, names, later)) == [("daily", MONDAY)]
    # It gives up: Tuesday has it all.
    journal.sql("UPDATE fires SET tries = 99, due_at = 0 WHERE at = :at", at=MONDAY)
    assert firing(journal, config).fire("daily", MONDAY).state == "failed"
    assert look(lambda c: book.waiting(c, names, now)) == [("daily", TUESDAY)]
    away.rename(blog)
    done = firing(journal, config).fire("daily", TUESDAY)
    assert (done.state, done.since) == ("done", MONDAY - DAY)


def test_a_fire_out_of_turn_tells_nothing_twice(journal: Rig, blog: Path) -> None:
    """By hand while an earlier one waits: what the later has told, the earlier does not."""
    config = configured(blog)
    post(blog, "sunday", "2026-05-03 12:00:00")
    write(journal, MONDAY, TUESDAY)
    slow = firing(journal, config)
    mail = slow.prepare("daily", config.schedules["daily"], MONDAY)
    assert firing(journal, config).fire("daily", TUESDAY).since == MONDAY - DAY
    # Also when it had read its sources already.
    assert slow._write("daily", MONDAY, mail).state == "over"
    done = firing(journal, config).fire("daily", MONDAY)
    assert (done.state, done.error) == (
        "over",
        "the fire of 2026-05-05T10:00:00Z has told what was new by then",
    )
    assert fires(journal) == [(MONDAY, "skipped"), (TUESDAY, "done")]
    assert journal.count("messages") == 1


def test_a_window_that_another_has_told_in_part_is_read_anew(journal: Rig, blog: Path) -> None:
    config = configured(blog)
    post(blog, "sunday", "2026-05-03 12:00:00")
    post(blog, "monday", "2026-05-04 12:00:00")
    write(journal, MONDAY, TUESDAY)
    early = firing(journal, config)
    mail = early.prepare("daily", config.schedules["daily"], TUESDAY)
    assert firing(journal, config).fire("daily", MONDAY).state == "done"
    assert early._write("daily", TUESDAY, mail).state == "over"
    assert firing(journal, config).fire("daily", TUESDAY).since == MONDAY
    assert [[p["title"] for p in b["data"]["posts"]] for b in letters(journal)] == [
        *(["sunday"], ["monday"]),
    ]


def test_what_fails_is_told_by_the_window_after_it(journal: Rig, blog: Path) -> None:
    config = configured(blog)
    post(blog, "monday", "2026-05-04 12:00:00")
    write(journal, MONDAY, TUESDAY, WEDNESDAY)
    firing(journal, config).fire("daily", MONDAY)
    journal.sql("UPDATE fires SET state = 'failed' WHERE at = :at", at=TUESDAY)
    done = firing(journal, config).fire("daily", WEDNESDAY)
    assert (done.state, done.since) == ("done", MONDAY)


def test_waits_grow_and_end() -> None:
    assert [next_wait(n, 6 * 3600) for n in (1, 2, 3, 7)] == [30_000, 60_000, 120_000, 900_000]
    assert next_wait(30, 6 * 3600) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_recipients": 1}, "returns more than 1 rows"),
        (
            {"recipients_from": {"source": "blog", "sql": "SELECT name FROM readers"}},
            "recipient 1 has no email",
        ),
        (
            {"recipients_from": {"source": "blog", "sql": "SELECT * FROM nowhere"}},
            "source blog: no such table: nowhere",
        ),
        (
            {"recipients_from": {"source": "blog", "sql": "DELETE FROM readers RETURNING *"}},
            "source blog: attempt to write a readonly database",
        ),
        (
            {"recipients_from": {"source": "blog", "sql": "SELECT * FROM readers WHERE x = :y"}},
            "the query has :y; there are :since, :since_unix, :until, :until_unix",
        ),
        ({"locale": "no such language"}, "locale: must be a language tag"),
    ],
)
def test_a_fault_is_said_and_nothing_is_sent(
    sqlite_url: str,
    rigs_of: Callable[[str], Rig],
    blog: Path,
    changes: dict[str, Any],
    words: str,
) -> None:
    journal = rigs_of(sqlite_url)
    write(journal, MONDAY)
    config = configured(blog, data_from=None, **changes)
    done = firing(journal, config).fire("daily", MONDAY)
    assert done.state == "again"
    assert words in done.error
    assert "example.org" not in done.error
    assert journal.count("messages") == 0
    with sqlite3.connect(blog) as connection:
        assert connection.execute("SELECT count(*) FROM readers").fetchone() == (2,)


def test_a_bad_address_among_many_is_parked_alone(journal: Rig, blog: Path) -> None:
    with sqlite3.connect(blog) as connection:
        connection.execute("INSERT INTO readers VALUES ('nobody', NULL, NULL)")
    write(journal, MONDAY)
    done = firing(journal, configured(blog, data_from=None)).fire("daily", MONDAY)
    assert (done.state, done.recipients) == ("done", 2)
    [parked] = journal.all("SELECT kind FROM parked")
    assert parked.kind == "recipient"


def test_many_recipients_are_several_messages_in_one_transaction(journal: Rig, blog: Path) -> None:
    with sqlite3.connect(blog) as connection:
        rows = [(f"r{n}@example.org", None, None) for n in range(2_100)]
        connection.executemany("INSERT INTO readers VALUES (?, ?, ?)", rows)
    write(journal, MONDAY)
    done = firing(journal, configured(blog, data_from=None)).fire("daily", MONDAY)
    assert (done.messages, done.recipients) == (3, 2_102)


# --- the clock ---------------------------------------------------------------------------


def test_a_new_schedule_fires_from_now_on_and_several_clocks_once(
    processes: Callable[[], Rig], blog: Path
) -> None:
    config = configured(blog, cron="* * * * *")
    one, two = processes(), processes()
    first = come(one.database, config, {})
    assert fires(one) == []
    next_ = first["daily"]
    assert next_ is not None
    one.sql("UPDATE schedules SET looked_at = looked_at - 60000")
    come(one.database, config, {})
    come(two.database, config, {})
    [(fired, state)] = fires(one)
    assert (fired, state) == (next_ - 60_000, "pending")
    # What is known is not looked at before its time.
    before = one.one("SELECT looked_at FROM schedules").looked_at
    assert come(one.database, config, {"daily": one.database.now() + HOUR})["daily"]
    assert one.one("SELECT looked_at FROM schedules").looked_at == before


@pytest.mark.parametrize(("policy", "fired"), [("latest", 1), ("all", 3), ("none", 0)])
def test_after_an_outage(journal: Rig, blog: Path, policy: str, fired: int) -> None:
    config = configured(blog, cron=_not_now(), catch_up=policy)
    come(journal.database, config, {})
    journal.sql("UPDATE schedules SET looked_at = looked_at - :days", days=3 * DAY)
    come(journal.database, config, {})
    assert len(fires(journal)) == fired


def _not_now() -> str:
    """Each day at an hour that is not just about now."""
    return f"30 {(datetime.now(UTC).hour + 12) % 24} * * *"


def test_a_clock_that_was_set_back_fires_nothing_twice(journal: Rig, blog: Path) -> None:
    config = configured(blog, cron="* * * * *")
    come(journal.database, config, {})
    ahead = journal.database.now() + HOUR
    journal.sql("UPDATE schedules SET looked_at = :at", at=ahead)
    come(journal.database, config, {})
    assert fires(journal) == []
    assert journal.one("SELECT looked_at FROM schedules").looked_at == ahead


def test_a_paused_schedule_skips_its_fires_and_what_it_missed_is_told_later(
    journal: Rig, blog: Path
) -> None:
    config = configured(blog)
    write(journal, MONDAY)
    firing(journal, config).fire("daily", MONDAY)
    act = Act("me", "pause", "wrong prices")
    now = journal.database.now()
    write(journal, TUESDAY)  # pending already
    journal.database.run_now(lambda c: pauses.begin(c, What.SCHEDULE, "daily", act, now))
    write(journal, WEDNESDAY)
    assert [s for _, s in fires(journal)][1:] == ["pending", "skipped"]
    look = journal.database.read_now
    assert look(lambda c: book.waiting(c, ["daily"], now + HOUR)) == []
    [item] = standing(journal.database, config)
    assert item["paused"] == "me: wrong prices"
    journal.database.run_now(lambda c: pauses.end(c, What.SCHEDULE, "daily", act, now))
    assert look(lambda c: book.waiting(c, ["daily"], now + HOUR)) == [("daily", TUESDAY)]


def test_the_clock_leaves_its_trace(journal: Rig) -> None:
    look = journal.database.read_now
    assert look(book.last_beat) is None
    for now in (5, 6):
        journal.database.run_now(lambda c, now=now: book.beat(c, "host", now))  # type: ignore[misc]
    assert look(book.last_beat) == 6


def test_schedules_that_fail_are_counted(journal: Rig) -> None:
    def failing() -> int:
        return journal.database.read_now(lambda c: book.failing(c, ["daily", "other"]))

    write(journal, MONDAY, TUESDAY)
    write(journal, MONDAY, name="other")
    assert failing() == 0
    now = journal.database.now()
    journal.database.run_now(lambda c: book.fail(c, "daily", MONDAY, "away", now, now))
    journal.database.run_now(lambda c: book.fail(c, "other", MONDAY, "away", None, now))
    assert failing() == 2
    # One that is no more says nothing.
    assert journal.database.read_now(lambda c: book.failing(c, ["other"])) == 1
    assert journal.database.read_now(lambda c: book.failing(c, [])) == 0
    ends = {"since": 0, "messages": 1, "recipients": 1, "now": now}
    journal.database.run_now(lambda c: book.end(c, "daily", TUESDAY, **ends))
    assert failing() == 1


def test_old_fires_are_forgotten_but_for_the_last_that_was_read(journal: Rig) -> None:
    write(journal, MONDAY, TUESDAY, WEDNESDAY)
    journal.sql("UPDATE fires SET state = 'done' WHERE at = :at", at=MONDAY)
    journal.sql("UPDATE fires SET state = 'failed' WHERE at = :at", at=TUESDAY)
    gone = journal.database.run_now(lambda c: book.lapse(c, WEDNESDAY + DAY, 10))
    assert gone == 1
    assert fires(journal) == [(MONDAY, "done"), (WEDNESDAY, "pending")]


# --- PostgreSQL as a source --------------------------------------------------------------


def test_a_query_of_postgresql_reads_only_and_ends_in_time(
    fresh_database: Callable[..., str],
) -> None:
    from mailgate.journal.foreign import ForeignError, rows

    url = fresh_database()
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE p (t text, at timestamptz, price numeric, id uuid)"
        )
        connection.exec_driver_sql(
            "INSERT INTO p VALUES ('new', '2026-05-04 09:00Z', 1.50, gen_random_uuid()),"
            " ('old', '2026-05-01 09:00Z', 2, gen_random_uuid())"
        )
    engine.dispose()

    def ask(query: str, timeout: float = 5) -> list[dict[str, Any]]:
        return rows(url, query, MONDAY - DAY, MONDAY, most=10, timeout=timeout)

    assert ask("SELECT t FROM p WHERE at >= :since AND at < :until") == [{"t": "new"}]
    for query, words in (
        ("DELETE FROM p RETURNING t", "read-only"),
        ("SELECT pg_sleep(5)", "statement timeout"),
        ("SELEC", "syntax error"),
        ("SET default_transaction_read_only = off", "returns no rows"),
    ):
        with pytest.raises(ForeignError) as caught:
            ask(query, 0.2)
        assert words in str(caught.value), query


def test_a_query_of_sqlite_ends_in_time(blog: Path) -> None:
    from mailgate.journal.foreign import ForeignError, rows

    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    with pytest.raises(ForeignError) as caught:
        rows(f"sqlite:///{blog}", f"{endless} SELECT count(*) FROM n", 0, 1, most=10, timeout=0.2)
    assert str(caught.value) == "the query took longer than 0.2 s"
    shutil.copy(blog, blog.with_name("a?b#c%20.db"))
    odd = f"sqlite:///{blog.with_name('a?b#c%20.db')}"
    assert sa.make_url(odd).database is not None
