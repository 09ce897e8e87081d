"""Published is what was committed, whatever dies and whenever."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session

from mailgate.client import Client, InvalidMessage, Message, NotPublished, captured
from mailgate.client.outbox import BATCH
from tests.integration.client.gateway import Gateway, until
from tests.integration.client.shop import Base, Order, outbox
from tests.servers import Valkey

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'shop.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    made = create_engine(url)
    Base.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client("redis://nowhere.invalid", producer="shop", deadline=0, timeout=0.1)
    monkeypatch.setattr(outbox, "_client", made)
    return made


def waiting(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(outbox.table)).scalar_one()


def order(engine: Engine, *emails: str) -> None:
    with Session(engine) as session, session.begin():
        session.add_all(Order(email=email) for email in emails)


def test_what_was_committed_is_published_in_order_and_once(engine: Engine) -> None:
    order(engine, "ann@example.com", "", "bob@example.com")
    with Session(engine) as session, session.begin():
        key = outbox.add(session, Message(to="eve@example.com", template="welcome"))
    with engine.begin() as connection:
        outbox.add(connection, {"to": "joe@example.com", "template": "welcome"})
    with captured() as box:
        assert outbox.drain(engine, most=3) == 3
        assert outbox.drain(engine) == 1
        assert outbox.drain(engine) == 0
    assert [one.addresses[0].partition("@")[0] for one in box] == ["ann", "bob", "eve", "joe"]
    assert [one.idempotency_key for one in box][:3] == ["order-1", "order-3", key]


def test_what_was_rolled_back_never_was(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(email="ann@example.com"))
        session.flush()
        outbox.add(session, Message(to="ann@example.com", template="welcome"))
        session.rollback()
        session.add(Order(email="bob@example.com"))
        nested = session.begin_nested()
        session.add(Order(email="eve@example.com"))
        nested.rollback()
        session.commit()
    with captured() as box:
        outbox.drain(engine)
    assert [one.addresses for one in box] == [["bob@example.com"]]


def test_what_breaks_the_contract_breaks_the_transaction(engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(InvalidMessage):
        outbox.add(session, Message(to="nobody", template="welcome"))
    with pytest.raises(InvalidMessage, match="to: must be one email address"):
        order(engine, "nobody")
    assert waiting(engine) == 0


def test_what_the_broker_does_not_take_stays(engine: Engine) -> None:
    order(engine, "ann@example.com", "bob@example.com")
    with pytest.raises(NotPublished):
        outbox.drain(engine)
    assert waiting(engine) == 2


def test_a_message_that_no_broker_takes_holds_up_no_other(engine: Engine) -> None:
    class Picky(Client):
        def publish_raw(self, body: bytes, **more: Any) -> Any:
            if b"large@" in body:
                raise NotPublished("too large", body=body, idempotency_key="k")
            return super().publish_raw(body, **more)

    order(engine, "a@example.com", "large@example.com", "b@example.com", "c@example.com")
    outbox._client = Picky("redis://nowhere.invalid", producer="shop")
    with captured() as box, pytest.raises(NotPublished, match="too large"):
        outbox.drain(engine)
    assert [one.addresses for one in box] == [[f"{n}@example.com"] for n in "abc"]
    assert waiting(engine) == 1


def test_several_relays_at_once_publish_each_message_under_one_key(engine: Engine) -> None:
    order(engine, *(f"a{n}@example.com" for n in range(3 * BATCH)))
    with captured() as box:
        threads = [threading.Thread(target=outbox.drain, args=(engine,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert waiting(engine) == 0
    assert len({one.idempotency_key for one in box}) == 3 * BATCH
    if engine.dialect.name == "postgresql":
        assert len(box) == 3 * BATCH


def test_a_relay_in_the_process_publishes_right_after_the_commit(engine: Engine) -> None:
    with captured() as box, outbox.start(engine, every=60):
        order(engine, "ann@example.com")
        until(lambda: len(box) == 1)
        with Session(engine) as session, session.begin():
            outbox.add(session, Message(to="bob@example.com", template="welcome"))
        until(lambda: len(box) == 2)
    assert waiting(engine) == 0


@pytest.mark.parametrize(
    ("point", "left", "published"),
    [("before-commit", 0, 0), ("after-commit", 2, 2), ("after-confirm", 2, 3)],
)
def test_a_producer_that_is_killed(
    engine: Engine, valkey: Valkey, point: str, left: int, published: int
) -> None:
    server: Any = Gateway(valkey.url)
    try:
        database = engine.url.render_as_string(hide_password=False)
        committer = [sys.executable, "-m", "tests.integration.client.committer"]
        done = subprocess.run(
            [*committer, database, valkey.url, point],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            timeout=60,
        )
        assert done.returncode == 9
        assert waiting(engine) == left
        outbox._client = Client(valkey.url)
        assert outbox.drain(engine) == left
        until(lambda: len(server.seen) == published)
    finally:
        server.close()
    # Once more, perhaps, but under its own key: the gateway sends one mail.
    assert len({one["idempotency_key"] for one in server.seen}) == left
