"""A little shop whose orders are confirmed by mail."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from mailgate.client import Message
from mailgate.client.outbox import Outbox


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


outbox = Outbox(Base.metadata)


def confirmation(order: Order) -> Message | None:
    if order.email == "":
        return None
    return Message(
        to=order.email, template="welcome", idempotency_key=f"order-{order.id}", producer="shop"
    )


outbox.on_insert(Order, confirmation)
