"""A producer that dies: python committer.py DATABASE BROKER POINT

POINT is where: ``before-commit``, ``after-commit``, or ``after-confirm`` (of its relay).
"""

from __future__ import annotations

import os
import sys

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from mailgate.client import Client, Message
from tests.integration.client.shop import Base, Order, outbox

database, broker, point = sys.argv[1:]


class Dying(Client):
    def publish_raw(self, body, **more):  # type: ignore[no-untyped-def]
        super().publish_raw(body, **more)
        os._exit(9)


engine = create_engine(database)
Base.metadata.create_all(engine)
outbox._client = Dying(broker, producer="shop")
with Session(engine) as session:
    session.add(Order(email="ann@example.com"))
    outbox.add(session, Message(to="shop@example.com", template="notice"))
    session.flush()
    if point == "before-commit":
        os._exit(9)
    session.commit()
if point == "after-commit":
    os._exit(9)
outbox.drain(engine)
